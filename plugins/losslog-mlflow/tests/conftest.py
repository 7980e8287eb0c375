"""A real MLflow server on loopback, a migrated store to copy, and runs to log."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from losslog_mlflow import MlflowPlugin
from losslog_mlflow.store import make_sqlite, prepare

from losslog.control import RunHandle

T0 = 1764000000.0


def pytest_configure(config: pytest.Config) -> None:
    for line in (
        "ignore::DeprecationWarning:(mlflow|google|pydantic|sqlalchemy|alembic|starlette|fastapi).*",
        "ignore::FutureWarning:mlflow.*",
        "ignore::ResourceWarning",  # mlflow leaves sqlite connections and sockets to the garbage collector
        "ignore::pytest.PytestUnraisableExceptionWarning",
    ):
        config.addinivalue_line("filterwarnings", line)


class Server:
    """One ``mlflow server`` process on a port of its own."""

    def __init__(self, folder: Path, template: Path, *, auth: bool = False) -> None:
        shutil.copy(template, folder / "server.db")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self._folder = folder
        self._auth = auth
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1",
            "--backend-store-uri", f"sqlite:///{self._folder}/server.db",
            "--artifacts-destination", str(self._folder / "artifacts"),
        ]  # fmt: skip
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_TRACKING")}
        environment |= {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        if self._auth:
            command += ["--app-name", "basic-auth"]
            ini = self._folder / "auth.ini"
            ini.write_text(
                "[mlflow]\ndefault_permission = READ\n"
                f"database_uri = sqlite:///{self._folder}/users.db\n"
                "admin_username = admin\nadmin_password = correct-horse-battery\n"
                "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
            )
            environment |= {"MLFLOW_AUTH_CONFIG_PATH": str(ini), "MLFLOW_FLASK_SERVER_SECRET_KEY": "x" * 16}
        log = open(self._folder / "server.log", "ab")  # noqa: SIM115 - the process writes to it
        self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        log.close()

    def wait(self) -> Server:
        """Until it answers."""
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=2):
                    return self
            except (urllib.error.URLError, OSError):
                time.sleep(0.05)
        raise TimeoutError((self._folder / "server.log").read_text()[-3000:])

    def signal(self, number: int) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, number)

    def stop(self) -> None:
        if self._process is not None:
            self.signal(signal.SIGKILL)
            self._process.wait()
            self._process = None


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated sqlite store; making one takes seconds, copying it does not."""
    path = tmp_path_factory.mktemp("template") / "template.db"
    make_sqlite(path)
    return path


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory, template: Path) -> Iterator[dict[str, Server]]:
    """An open server, and one that wants a login; both start at once, since each takes seconds."""
    both = {"open": Server(tmp_path_factory.mktemp("open"), template)}
    if importlib.util.find_spec("flask_wtf"):  # what mlflow's own login needs
        both["login"] = Server(tmp_path_factory.mktemp("login"), template, auth=True)
    for each in both.values():
        each.start()
    yield both
    for each in both.values():
        each.stop()


@pytest.fixture
def server(servers: dict[str, Server]) -> Server:
    return servers["open"].wait()


@pytest.fixture
def guarded(servers: dict[str, Server]) -> Server:
    """The server that wants a login."""
    if "login" not in servers:
        pytest.skip("needs Flask-WTF, as mlflow's login does")
    return servers["login"].wait()


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("MLFLOW_", "LOSSLOG_")):
            monkeypatch.delenv(name)
    prepare()


@pytest.fixture
def run(tmp_path: Path, template: Path) -> RunHandle:
    """A run in a folder whose parent holds a migrated store."""
    folder = tmp_path / "maskrcnn" / f"20260101-000000-{uuid.uuid4().hex[:8]}"
    folder.mkdir(parents=True)
    shutil.copy(template, folder.parent / "mlflow.db")
    return handle(folder)


def handle(folder: Path) -> RunHandle:
    return RunHandle(id=folder.name, name="maskrcnn", dir=folder, config={}, source="mlflow", post=lambda *_: None)


@pytest.fixture
def started(run: RunHandle) -> Callable[..., MlflowPlugin]:
    """Makes a plugin that was told of the run, as a lane does with a fresh one."""

    def make(*, config: dict[str, Any] | None = None, resumed: bool = False, **options: Any) -> MlflowPlugin:
        plugin = MlflowPlugin(**options)
        plugin.on_run_start(
            name=run.name,
            config={"lr": 0.1, "model": {"backbone": "resnet50"}} if config is None else config,
            epochs=2,
            steps_per_epoch=3,
            resumed=resumed,
            run=run,
            time=T0,
        )
        return plugin

    return make


class Reader:
    """Reads back what a store has of a run, through mlflow's client."""

    def __init__(self, uri: str) -> None:
        from mlflow import MlflowClient

        self.client = MlflowClient(tracking_uri=uri, registry_uri=uri)

    def run(self, run: RunHandle) -> Any:
        everywhere = [each.experiment_id for each in self.client.search_experiments()]
        found = self.client.search_runs(everywhere, f"tags.`losslog.run_id` = '{run.id}'")
        assert len(found) == 1
        return found[0]

    def series(self, run: RunHandle, tag: str) -> list[tuple[int, float]]:
        points = self.client.get_metric_history(self.run(run).info.run_id, tag)
        return [(point.step, point.value) for point in points]


@pytest.fixture
def reader() -> type[Reader]:
    return Reader


@pytest.fixture
def local(run: RunHandle) -> Reader:
    """The store beside the run folder."""
    return Reader(f"sqlite:///{run.dir.parent}/mlflow.db")
