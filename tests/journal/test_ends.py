"""A run that ended well on a full disk has not crashed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import losslog
from losslog.cli import main
from losslog.journal.ends import note, noted
from losslog.journal.file import Writer, state_of


@pytest.fixture
def folder(make_run: Callable[..., losslog.Run], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run whose journal took nothing more from some step on."""
    run = make_run()
    run.log_batch({"a": 1.0})
    run.flush()

    def full(self: Writer, lines: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Writer, "append", full)
        run.log_batch({"a": 2.0})
        run.close(5)
    return run.dir


def test_it_is_shown_as_it_ended(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert state_of(folder)["status"] == "finished"
    assert losslog.load(folder).status == "finished"
    assert main(["show", str(folder)]) == 0
    assert capsys.readouterr().out.splitlines()[0] == f"test {folder.name}: finished"


def test_a_replay_ends_it_so_once_there_is_room(folder: Path, package: Callable[..., str], records: Any) -> None:
    package("from losslog import hookimpl\nclass Plugin:\n    @hookimpl\n    def on_eval(self): pass", "late")
    assert main(["replay", str(folder), "--to", "late"]) == 0
    assert records(folder)[-1].data == {"status": "finished"}


def test_what_was_written_after_the_note_counts_more(folder: Path) -> None:
    os.utime(folder / "ended.finished", ns=(0, 0))
    assert noted(folder) is None
    assert state_of(folder)["status"] == "crashed"


def test_a_note_that_cannot_be_left_is_no_error(tmp_path: Path) -> None:
    note(tmp_path / "nowhere", "finished")
    assert noted(tmp_path) is None
