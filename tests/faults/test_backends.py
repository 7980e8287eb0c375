"""Real backends that go away: an MLflow server on loopback, and a W&B host where nobody listens."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import losslog

ROOT = Path(losslog.__file__).parent.parent
FULL = os.environ.get("LOSSLOG_FAULTS") == "full"
STEPS = 300

pytestmark = pytest.mark.timeout(240)


def theirs(plugin: str, name: str) -> ModuleType:
    """A module of a plugin's own tests; skips where the plugin, or what it serves, is not installed."""
    for needed in (plugin, f"losslog_{plugin}"):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"{needed} is not installed")
    path = ROOT / "plugins" / f"losslog-{plugin}" / "tests" / f"{name}.py"
    if not path.exists():
        pytest.skip(f"the tests of losslog-{plugin} are not beside these")
    spec = importlib.util.spec_from_file_location(f"theirs_{plugin}_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated sqlite store, made in a process of its own."""
    theirs("mlflow", "conftest")
    path = tmp_path_factory.mktemp("template") / "template.db"
    code = "import pathlib, sys; from losslog_mlflow.store import make_sqlite; make_sqlite(pathlib.Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, capture_output=True, timeout=120)
    return path


@pytest.fixture
def server(tmp_path: Path, template: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An MLflow server that is not started yet; the run, and a replay, are told of it as users tell them."""
    folder = tmp_path / "server"
    folder.mkdir()
    found = theirs("mlflow", "conftest").Server(folder, template)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", found.uri)
    yield found
    found.stop()


def points(server: Any, tag: str) -> list[tuple[int, float]]:
    """What the server's store has of one series."""
    with sqlite3.connect(server._folder / "server.db") as store:
        found = store.execute("select step, value from metrics where key = ? order by step", (tag,)).fetchall()
    store.close()
    return found


# In the middle of the run, with everything so far delivered, the script waits for what the test does to the server.
HALFWAY = """
def hook(step):
    if step == 150:
        print("delivered", run.flush(90), flush=True)
        while not os.path.exists("go"):
            time.sleep(0.01)
"""


def to_the_half(outcome: Any) -> None:
    while not (line := outcome.process.stdout.readline()).startswith("delivered"):
        assert line
    assert line == "delivered True\n"


CASES = [
    pytest.param("start", "an MLflow server that is away from the start", id="away"),
    pytest.param("stop", "an MLflow server that is stopped in mid-run", id="stopped"),
    pytest.param("freeze", "an MLflow server that is frozen in mid-run", id="frozen"),
]


@pytest.mark.parametrize(("fate", "text"), CASES if FULL else CASES[-1:])
def test_an_mlflow_server(
    bench: Any, expected: str, server: Any, tmp_path: Path, until: Callable[..., None], fate: str, text: str
) -> None:
    if fate != "start":
        server.start()
        server.wait()
    outcome = bench.start(each="hook(step)" if fate != "start" else "pass", before=HALFWAY, after="run.close(4)",
                          plugins='["witness", "mlflow"]')  # fmt: skip
    if fate != "start":
        to_the_half(outcome)
        if fate == "stop":
            server.stop()
        else:
            server.signal(signal.SIGSTOP)
        (tmp_path / "go").touch()
    outcome.finish()
    assert expected in outcome.out
    assert outcome.code == 0, outcome.err
    assert outcome.steps() == list(range(STEPS))
    assert outcome.memory < 200
    outcome.wait_for("witness")
    said = outcome.undelivered("mlflow")
    assert said is not None, outcome.err
    remedy = outcome.remedy("mlflow")
    outcome.stop_follower()
    if fate == "freeze":
        server.signal(signal.SIGCONT)
    else:
        server.start()
        server.wait()
    held = len(points(server, "batch/train_loss_0"))
    assert (held >= 150) == (fate != "start")
    assert held + said >= STEPS
    wanted = [(each.data["step"], each.data["losses"]["loss_0"]) for each in outcome.records()
              if each.hook == "on_batch_losses"]  # fmt: skip
    for _ in range(2 if FULL else 1):
        outcome.replay("mlflow")
        assert points(server, "batch/train_loss_0") == wanted
    assert [step for step, _ in points(server, "loss/train_total")] == list(range(1, STEPS // 50 + 1))
    bench.row(text, STEPS, 0, f"{said} records", remedy)


@pytest.fixture
def nobody() -> str:
    """An address on loopback where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def rows(files: list[Path]) -> list[int]:
    """The steps in W&B's local files, read with its own reader."""
    found = []
    for file in files:
        command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        items = [json.loads(line).get("history", {}).get("item", {}) for line in done.stdout.splitlines() if line]
        found += [each["batch/global_step"] for each in items if "batch/global_step" in each]
    return found


def test_a_wandb_host_that_is_away(
    bench: Any, expected: str, nobody: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = theirs("wandb", "endpoint").Endpoint
    for name, value in (("MODE", "online"), ("API_KEY", "0" * 40), ("BASE_URL", nobody), ("ERROR_REPORTING", "false")):
        monkeypatch.setenv(f"WANDB_{name}", value)
    monkeypatch.delenv("WANDB_SERVICE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    outcome = bench.start(after="run.close(20)", plugins='["witness", "wandb"]').finish()
    assert expected in outcome.out
    assert outcome.code == 0, outcome.err
    assert outcome.steps() == list(range(STEPS))
    assert outcome.memory < 200
    outcome.wait_for("witness")
    outcome.follower_ends()
    assert outcome.undelivered("wandb") is None, outcome.err
    files = sorted((outcome.folder / "wandb").glob("offline-run-*/*.wandb"))
    assert rows(files) == list(range(STEPS))
    if FULL:
        server = endpoint()
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        command = [sys.executable, "-m", "wandb", "sync", "--yes", *(str(file.parent) for file in files)]
        subprocess.run(command, capture_output=True, check=True, timeout=90, cwd=tmp_path)
        (bucket,) = server.buckets.values()
        arrived = [row["batch/global_step"] for row in bucket.history if "batch/global_step" in row]
        server.stop()
        assert arrived == list(range(STEPS))
    bench.row(
        "a W&B host that is away, in online mode", STEPS, 0, "0: in W&B's local files", "`wandb sync` delivers them"
    )
