"""Runs to log, a W&B server on loopback, and what lies in the local files."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from losslog_wandb import WandbPlugin

from losslog.control import RunHandle

T0 = 1764000000.0
LIGHT: dict[str, Any] = {"x_disable_stats": True, "x_save_requirements": False, "x_disable_machine_info": True}
WANDB = [sys.executable, "-m", "wandb"]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("filterwarnings", "ignore::DeprecationWarning:(wandb|google|pydantic).*")


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in list(os.environ):
        if name.startswith(("WANDB_", "LOSSLOG_")) and name != "WANDB_SERVICE":
            monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    _reload_settings()
    yield
    monkeypatch.undo()
    _reload_settings()


def _reload_settings() -> None:
    """Make wandb read its environment again, as a new process would."""
    setup = sys.modules.get("wandb.sdk.wandb_setup")
    if setup is not None and setup._singleton is not None:
        setup._singleton._settings = None
        sys.modules["wandb.sdk.lib.wbauth.authenticate"]._session_auth = None


@pytest.fixture
def run(tmp_path: Path) -> RunHandle:
    folder = tmp_path / "runs" / "maskrcnn" / f"20260101-000000-{uuid.uuid4().hex[:8]}"
    folder.mkdir(parents=True)
    return RunHandle(id=folder.name, name="maskrcnn", dir=folder, config={}, source="wandb", post=lambda *_: None)


@pytest.fixture
def endpoint() -> Iterator[Any]:
    server = _load("endpoint").Endpoint()
    yield server
    server.stop()


@pytest.fixture
def online(endpoint: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The server, and an environment that points at it."""
    monkeypatch.setenv("WANDB_BASE_URL", endpoint.url)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    _reload_settings()
    return endpoint


@pytest.fixture
def started(run: RunHandle) -> Callable[..., WandbPlugin]:
    """Makes a plugin that was told of the run, as a lane does with a fresh one."""

    def make(*, config: dict[str, Any] | None = None, **options: Any) -> WandbPlugin:
        plugin = WandbPlugin(**LIGHT | options)
        plugin.on_run_start(name=run.name, config=config or {"lr": 0.1}, run=run)
        return plugin

    return make


class Local:
    """What the local files of a run hold, read with wandb's own reader."""

    def __init__(self, run: RunHandle) -> None:
        self._run = run

    @property
    def files(self) -> list[Path]:
        return sorted((self._run.dir / "wandb").glob("*run-*/*.wandb"), key=lambda path: path.stat().st_mtime_ns)

    def records(self) -> list[dict[str, Any]]:
        found = []
        for file in self.files:
            done = subprocess.run(
                [*WANDB, "leet", "inspect", "--json", str(file)], capture_output=True, text=True, check=True
            )
            found += [json.loads(line) for line in done.stdout.splitlines() if line.strip()]
        return found

    def rows(self) -> list[dict[str, Any]]:
        """History rows without wandb's own keys."""
        rows = []
        for record in self.records():
            row = record.get("history", {}).get("item", {})
            rows += [{key: value for key, value in row.items() if not key.startswith("_")}] if row else []
        return rows

    def summary(self) -> dict[str, Any]:
        """Of the last file."""
        done = subprocess.run(
            [*WANDB, "leet", "inspect", "--summary", "--json", str(self.files[-1])],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return json.loads(done.stdout)


@pytest.fixture
def local(run: RunHandle) -> Local:
    return Local(run)


@pytest.fixture
def sync(run: RunHandle) -> Callable[..., None]:
    """Runs the command that the plugin tells people to run."""

    def call(*arguments: str) -> None:
        places = [str(path) for path in (run.dir / "wandb").glob("*run-*")]
        subprocess.run(
            [*WANDB, "sync", "--yes", *arguments, *places], capture_output=True, check=True, timeout=60, cwd=run.dir
        )

    return call


@pytest.fixture
def reader() -> type[Local]:
    return Local
