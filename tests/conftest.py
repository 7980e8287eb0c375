"""What the tests of the core share: probes, tiny installed packages, scripts in processes of their own."""

from __future__ import annotations

import importlib
import logging
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import losslog
from losslog import hookimpl
from losslog.journal.folder import JOURNAL
from losslog.journal.lines import read
from losslog.journal.records import Record
from losslog.ranks.store import Store
from losslog.testing.waiting import until

ROOT = Path(losslog.__file__).parent.parent
RANKS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "SLURM_PROCID",
         "SLURM_NTASKS")  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "threaded: takes part in scripts/stress.py")
    config.addinivalue_line("markers", "sampled(n): n of its cases, evenly spread; all with LOSSLOG_TESTS=all")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out most cases of what has many of them, but for ``make exhaustive`` and ``make faults``."""
    if os.environ.get("LOSSLOG_TESTS") == "all" or os.environ.get("LOSSLOG_FAULTS") == "full":
        return
    groups: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("sampled") is not None:
            groups.setdefault(item.nodeid.partition("[")[0], []).append(item)
    left_out: set[pytest.Item] = set()
    for several in groups.values():
        marker = several[0].get_closest_marker("sampled")
        count = len(several) if marker is None else min(marker.args[0], len(several))
        several.sort(key=lambda each: each.nodeid)
        kept = {several[place * len(several) // count] for place in range(count)}
        left_out.update(each for each in several if each not in kept)
    if left_out:
        config.hook.pytest_deselected(items=[*left_out])
        items[:] = [each for each in items if each not in left_out]


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the developer's shell reaches a test."""
    for name in [*os.environ]:
        if (name.startswith("LOSSLOG_") and name != "LOSSLOG_FAULTS") or name in RANKS:
            monkeypatch.delenv(name)
    for name in ("WANDB_MODE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _plain_logging() -> Iterator[None]:
    """What a script in a test says of losslog's logger, as the pages show it, ends with the test."""
    logger = logging.getLogger("losslog")
    before = logger.handlers[:], logger.level, logger.propagate
    logger.setLevel(logging.NOTSET)
    logger.propagate = True
    yield
    logger.handlers[:], level, logger.propagate = before
    logger.setLevel(level)


@pytest.fixture(autouse=True)
def _no_threads_left() -> Iterator[None]:
    """Threads of ours that a test started end with it; those of a plugin that hangs for ever it must let go itself."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        left = [each.name for each in threading.enumerate() if each not in before and each.name.startswith("losslog-")]
        if not left:
            return
        time.sleep(0.01)
    raise AssertionError(f"threads left running: {left}")


class Probe:
    """A near plugin that keeps what it is told.

    Attributes:
        calls: (hook, data, seq), in order; ``data`` without what was None.
        flushes: how often it was flushed.
    """

    near = True

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any], int]] = []
        self.flushes = 0
        self.run: Any = None

    def _keep(self, hook: str, run: Any, seq: int, data: dict[str, Any]) -> None:
        self.run = run
        self.calls.append((hook, {key: value for key, value in data.items() if value is not None}, seq))

    @hookimpl
    def on_run_start(self, name, config, epochs, resumed, run, seq):
        self._keep("on_run_start", run, seq, {"name": name, "config": config, "epochs": epochs, "resumed": resumed})

    @hookimpl
    def on_batch_losses(self, step, epoch, losses, total, lr, n, run, seq):
        data = {"step": step, "epoch": epoch, "losses": losses, "total": total, "lr": lr, "n": n}
        self._keep("on_batch_losses", run, seq, data)

    @hookimpl
    def on_eval(self, epoch, step, split, metrics, run, seq):
        self._keep("on_eval", run, seq, {"epoch": epoch, "step": step, "split": split, "metrics": metrics})

    @hookimpl
    def on_epoch_end(self, epoch, losses, total, val_loss, run, seq):
        self._keep("on_epoch_end", run, seq, {"epoch": epoch, "losses": losses, "total": total, "val_loss": val_loss})

    @hookimpl
    def on_alert(self, level, title, source, key, run, seq):
        self._keep("on_alert", run, seq, {"level": level, "title": title, "source": source, "key": key})

    @hookimpl
    def on_run_end(self, status, error, run, seq):
        self._keep("on_run_end", run, seq, {"status": status, "error": error})

    @hookimpl
    def on_flush(self):
        self.flushes += 1

    def of(self, hook: str) -> list[dict[str, Any]]:
        """The data of all calls of one hook."""
        return [data for name, data, _ in self.calls if name == hook]

    @property
    def steps(self) -> list[int]:
        """The steps of the batches it got."""
        return [data["step"] for data in self.of("on_batch_losses")]


@pytest.fixture
def probe() -> Probe:
    return Probe()


@pytest.fixture
def probes() -> type[Probe]:
    """The class, to make several or to derive from."""
    return Probe


@pytest.fixture(name="until")
def _until() -> Callable[..., None]:
    """Waits until something is true, 60 s at most."""
    return until


def _records(folder: Path) -> list[Record]:
    return [record for _, record in read(folder / JOURNAL) if record is not None]


@pytest.fixture
def records() -> Callable[[Path], list[Record]]:
    """The records in a run folder's journal."""
    return _records


@pytest.fixture
def make_run(tmp_path: Path) -> Iterator[Callable[..., losslog.Run]]:
    """Makes runs below the test's folder, without a follower unless asked; what is left open is closed."""
    made: list[losslog.Run] = []

    def make(*args: Any, **options: Any) -> losslog.Run:
        defaults = {"name": "test", "dir": tmp_path / "runs", "plugins": None, "follower": False}
        made.append(losslog.Run(*args, **(defaults | options)))
        return made[-1]

    yield make
    for each in made:
        each.close(5)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Installs a distribution with one plugin where this process and its children find it.

    The function returned takes the module's source, and returns the plugin's name; the class is called ``Plugin``.
    """
    site = tmp_path / "site-packages"
    site.mkdir()
    installed: list[str] = []

    def install(source: str, name: str = "probe", *, entry: str = "Plugin", version: str = "1.0") -> str:
        module = f"losslog_test_{name}"
        (site / f"{module}.py").write_text(textwrap.dedent(source))
        info = site / f"{module}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module.replace('_', '-')}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[losslog.plugins]\n{name} = {module}:{entry}\n")
        if not installed:
            monkeypatch.syspath_prepend(str(site))
            monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")])))
        installed.append(module)
        importlib.invalidate_caches()
        return name

    yield install
    for module in installed:
        sys.modules.pop(module, None)


FAR = '''
import json, os, pathlib
from losslog import hookimpl

class Plugin:
    """Appends what it gets to ``<name>.txt`` in the run folder, and syncs at each flush."""

    def __init__(self, fault="", where="far.txt"):
        self._fault, self._where, self._lines = fault, where, []

    def _path(self, run):
        return pathlib.Path(run.dir) / self._where

    @hookimpl
    def on_run_start(self, name, run, seq):
        self._lines.append(f"start {seq}")

    @hookimpl
    def on_batch_losses(self, step, total, run, seq):
        self._lines.append(f"batch {step} {total!r}")

    @hookimpl
    def on_alert(self, title, seq):
        self._lines.append(f"alert {title}")

    @hookimpl
    def on_epoch_end(self, epoch, seq):
        self._lines.append(f"epoch {epoch}")

    @hookimpl
    def on_run_end(self, status, seq):
        self._lines.append(f"end {status}")

    @hookimpl
    def on_flush(self, run):
        with open(self._path(run), "a") as file:
            file.write("".join(line + "\\n" for line in self._lines))
        self._lines.clear()
'''


@pytest.fixture
def far_source() -> str:
    """Source of a far plugin that writes what it gets to ``far.txt`` in the run folder."""
    return FAR


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a Python script in a process of its own; whatever is left of it is killed by its pid at the end."""
    started: list[subprocess.Popen[str]] = []

    def start(source: str, *args: str, env: dict[str, str] | None = None, flags: tuple[str, ...] = ()) -> Any:
        path = tmp_path / f"script{len(started)}.py"
        path.write_text(textwrap.dedent(source), "utf-8")
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        process = subprocess.Popen(
            [sys.executable, *flags, str(path), *args],
            cwd=tmp_path, env=environment | (env or {}), text=True, encoding="utf-8",
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


class Connection(Store):
    """One rank's way to torch's own store, here in this process; it can be ``away``."""

    def __init__(self, base: Any) -> None:
        self.away = False
        super().__init__(0)
        self._store = sys.modules["torch"].distributed.PrefixStore(self._prefix, base)

    def open(self) -> bool:
        return not self.away


@pytest.fixture
def stores() -> Callable[[], Connection]:
    """Makes connections to a store of this test, as each rank under torchrun has one."""
    torch = pytest.importorskip("torch", reason="the ranks' store is torch's")
    base = torch.distributed.HashStore()
    return lambda: Connection(base)


@pytest.fixture
def finished(script: Callable[..., Any]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a script to its end."""

    def run(source: str, *args: str, timeout: float = 120.0, **options: Any) -> subprocess.CompletedProcess[str]:
        process = script(source, *args, **options)
        out, err = process.communicate(timeout=timeout)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    return run
