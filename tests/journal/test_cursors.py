"""Cursors: durable, owned by one reader, and never ahead of the journal."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from losslog.journal.cursors import Cursor, Position, settle
from losslog.journal.file import Writer
from losslog.journal.folder import JOURNAL
from losslog.journal.records import Record, encode


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    writer = Writer(tmp_path)
    hooks = ["on_run_start", "on_batch_losses", "on_batch_losses", "on_run_start", "on_batch_losses"]
    writer.append([encode(Record(seq, float(seq), hook, {"step": seq})) for seq, hook in enumerate(hooks)])
    writer.close()
    return tmp_path / JOURNAL


def owned(folder: Path, name: str = "probe") -> Cursor:
    cursor = Cursor(folder, name)
    assert cursor.acquire()
    return cursor


def test_what_is_committed_is_there_next_time(tmp_path: Path) -> None:
    first = owned(tmp_path)
    first.start = 7
    first.commit(Position(100, 5))
    first.release()
    second = owned(tmp_path)
    assert (*second.at, second.start) == (100, 5, 7)
    second.release()


def test_one_reader_owns_it(tmp_path: Path) -> None:
    first = owned(tmp_path)
    assert not Cursor(tmp_path, "probe").acquire()
    assert Cursor(tmp_path, "other").acquire()
    first.release()
    assert Cursor(tmp_path, "probe").acquire()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"offset": 1}', "null", '{"offset": "x", "seq": 1, "start": 0}',
             '{"offset": 1e999, "seq": 1, "start": 0}', '{"offset": -5, "seq": 1, "start": -9}', "ü"], ids=range(9)
)  # fmt: skip
def test_a_broken_cursor_means_the_beginning(tmp_path: Path, text: str) -> None:
    (tmp_path / "cursors").mkdir()
    (tmp_path / "cursors" / "probe.json").write_text(text, "utf-8")
    cursor = owned(tmp_path)
    assert (*cursor.at, cursor.start) == (0, -1, 0)
    cursor.release()


def test_a_cursor_without_a_folder_lives_in_memory(tmp_path: Path) -> None:
    cursor = Cursor(None, "probe")
    assert cursor.acquire()
    cursor.commit(Position(5, 1))
    cursor.release()
    assert list(tmp_path.iterdir()) == []


def test_a_commit_survives_a_deleted_folder(tmp_path: Path) -> None:
    cursor = owned(tmp_path / "run")
    for each in (tmp_path / "run" / "cursors").iterdir():
        each.unlink()
    (tmp_path / "run" / "cursors").rmdir()
    cursor.commit(Position(5, 1))
    assert json.loads((tmp_path / "run" / "cursors" / "probe.json").read_text())["offset"] == 5
    cursor.release()


def test_nobody_else_may_write_them_whatever_the_umask_is(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        cursor = owned(tmp_path)
        cursor.commit(Position(1, 1))
        cursor.release()
    finally:
        os.umask(before)
    assert [each.name for each in (tmp_path / "cursors").rglob("*") if each.stat().st_mode & 0o002] == []
    assert not (tmp_path / "cursors").stat().st_mode & 0o002


def ends(journal: Path) -> list[int]:
    found, at = [], 0
    for line in journal.read_bytes().splitlines(keepends=True):
        at += len(line)
        found.append(at)
    return found


def test_a_cursor_at_the_end_of_a_line_stays(journal: Path) -> None:
    cursor = Cursor(None, "probe")
    cursor.at = Position(ends(journal)[1], 1)
    settle(cursor, journal)
    assert cursor.at == (ends(journal)[1], 1)


def test_a_cursor_beyond_the_end_goes_back_to_the_end(journal: Path) -> None:
    cursor = Cursor(None, "probe")
    cursor.at = Position(10**6, 900)
    settle(cursor, journal)
    assert (*cursor.at, cursor.start) == (ends(journal)[-1], 4, ends(journal)[2])


def test_a_cursor_inside_a_line_goes_to_the_line_after_its_seq(journal: Path) -> None:
    cursor = Cursor(None, "probe")
    cursor.at = Position(ends(journal)[1] + 3, 1)
    settle(cursor, journal)
    assert (*cursor.at, cursor.start) == (ends(journal)[1], 1, 0)
