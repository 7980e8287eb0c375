"""The pytest plugin: fixtures for those who write a plugin, and the measured costs at the end.

Loaded by an author's conftest (``pytest_plugins = ["losslog.testing.plugin"]``), never by itself. Contract:

- Runs made by `make_run` are in-process, lie in ``tmp_path`` and are closed when the test ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from losslog.journal.folder import JOURNAL
from losslog.journal.lines import read
from losslog.journal.records import Record
from losslog.run import Run
from losslog.testing.doubles import Flaky, Hanging, Recorder
from losslog.testing.subject import COSTS

MakeRun: TypeAlias = Callable[..., Run]
JournalLines: TypeAlias = Callable[[Run | Path], list[Record]]


@pytest.fixture
def recorder() -> Recorder:
    """A plugin that remembers every call."""
    return Recorder()


@pytest.fixture
def flaky() -> Callable[..., Flaky]:
    """Makes plugins whose backend is away at first: ``flaky(fails=2, error=ConnectionError("away"))``."""
    return Flaky


@pytest.fixture
def hanging() -> Iterator[Callable[..., Hanging]]:
    """Makes plugins that hang in one hook, ``hanging(hook="on_eval")``; released when the test ends."""
    made: list[Hanging] = []

    def make(*args: Any, **kwargs: Any) -> Hanging:
        made.append(Hanging(*args, **kwargs))
        return made[-1]

    yield make
    for each in made:
        each.release()


@pytest.fixture
def make_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeRun]:
    """Makes runs in ``tmp_path`` without a follower: ``make_run(plugins=[MyPlugin()], epochs=2)``."""
    for variable in ("LOSSLOG_PLUGINS", "LOSSLOG_DISABLE", "LOSSLOG_DIR", "LOSSLOG_STRICT", "LOSSLOG_FOLLOWER"):
        monkeypatch.delenv(variable, raising=False)
    made: list[Run] = []

    def make(name: str = "test", *, plugins: Any = None, follower: bool = False, **arguments: Any) -> Run:
        arguments.setdefault("dir", tmp_path / "runs")
        made.append(Run(name, plugins=plugins, follower=follower, **arguments))
        return made[-1]

    yield make
    for run in made:
        run.close(10)


@pytest.fixture
def journal_lines() -> JournalLines:
    """Reads a run's journal: ``journal_lines(run)`` gives its records so far."""

    def lines(run: Run | Path) -> list[Record]:
        if isinstance(run, Run):
            run.flush()
        folder = run if isinstance(run, Path) else run.dir
        return [record for _, record in read(folder / JOURNAL) if record is not None]

    return lines


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the plugins cost."""
    for name, cost in COSTS.items():
        terminalreporter.write_line(f"losslog: {name}: {cost}")
