"""Somebody else writes to the journal, or cuts it: it is noticed and said, and nothing that either wrote is lost."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import losslog
from losslog.journal.file import Writer
from losslog.journal.folder import JOURNAL
from losslog.journal.lines import read
from losslog.journal.records import Record, encode
from losslog.journal.tail import Tail

Made = Callable[..., losslog.Run]
pytestmark = pytest.mark.threaded


def batch(seq: int, step: int) -> bytes:
    data = {"step": step, "epoch": 1, "losses": {"a": 1.0}, "total": 1.0}
    return encode(Record(seq, 1.7e9 + seq, "on_batch_losses", data))


def steps(folder: Path) -> list[int]:
    found = [each for _, each in read(folder / JOURNAL) if each is not None and each.hook == "on_batch_losses"]
    return [each.data["step"] for each in found]


@pytest.mark.parametrize("end", [b"\n", b""], ids=["a line", "a line without an end"])
@pytest.mark.parametrize("place", ["near", "far"])
def test_a_garbled_line_costs_nothing_but_itself(
    make_run: Made, probe: Any, package: Callable[..., str], far_source: str, place: str, end: bytes, caplog: Any
) -> None:
    plugins = [probe] if place == "near" else [package(far_source, "far")]
    run = make_run(plugins=plugins, follower=place == "far")
    for step in range(20):
        run.log_batch({"a": float(step)})
    run.flush()
    with open(run.dir / JOURNAL, "ab") as file:
        file.write(b"what a program printed" + end)
    for step in range(20, 40):
        run.log_batch({"a": float(step)})
    run.close(20)
    assert steps(run.dir) == list(range(40))
    if place == "near":
        assert probe.steps == list(range(40))
    else:
        lines = (run.dir / "far.txt").read_text().splitlines()
        assert [each.split()[1] for each in lines if each.startswith("batch")] == [str(step) for step in range(40)]
    assert "somebody else writes to" in caplog.text
    (name,) = run.stats["lanes"]
    assert run.stats["lanes"][name]["state"] == "done"
    assert run.stats["lanes"][name]["committed"] == (run.dir / JOURNAL).stat().st_size


def test_it_is_noticed_though_nothing_is_logged(make_run: Made, until: Callable[..., None], caplog: Any) -> None:
    run = make_run(plugins=None)
    run.flush()
    with open(run.dir / JOURNAL, "ab") as file:
        file.write(b"hello\n")
    until(lambda: "somebody else writes to" in caplog.text)


def test_two_writers_lose_nothing_that_either_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, probe: Any, caplog: Any
) -> None:
    """As on a disk without locks."""
    monkeypatch.setattr("losslog.journal.locks.Lock.acquire", lambda self: True)
    monkeypatch.setattr("losslog.journal.locks.Lock.release", lambda self: None)
    one = losslog.Run("two", dir=tmp_path, plugins=[probe], follower=False)
    other = losslog.Run("two", dir=tmp_path, plugins=None, resume=one.dir)
    for step in range(0, 200, 2):
        one.log_batch({"a": 1.0}, step=step)
        other.log_batch({"a": 1.0}, step=step + 1)
        if step % 40 == 0:
            one.flush()
            other.flush()
    other.close()
    one.close()
    assert sorted(steps(one.dir)) == list(range(200))
    assert sorted(probe.steps) == list(range(200))
    assert "somebody else writes to" in caplog.text
    seqs = [each.seq for _, each in read(one.dir / JOURNAL) if each is not None]
    assert seqs == sorted(seqs)
    assert len(seqs) == len({*seqs})


def test_records_of_a_second_writer_are_counted_on(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    writer.append([batch(0, 0), batch(1, 1)])
    with open(writer.path, "ab") as file:
        file.write(batch(2, 2) + b"garbage\n" + batch(3, 3))
    found = writer.strangers()
    assert [None if each is None else each.seq for _, each in found] == [2, None, 3]
    assert (writer.seq, writer.end) == (4, writer.path.stat().st_size)
    assert writer.strangers() == []
    writer.close()


@pytest.mark.parametrize("left", [0, 37])
@pytest.mark.parametrize("place", ["near", "far"])
def test_what_is_written_after_a_cut_is_delivered(
    make_run: Made, probe: Any, package: Callable[..., str], far_source: str, place: str, left: int, caplog: Any
) -> None:
    plugins = [probe] if place == "near" else [package(far_source, "far")]
    run = make_run(plugins=plugins, follower=place == "far")
    for step in range(100):
        run.log_batch({"a": float(step)})
    assert run.flush()
    os.truncate(run.dir / JOURNAL, left)
    for step in range(100, 600):
        run.log_batch({"a": float(step)})
    run.close(20)
    assert steps(run.dir) == list(range(100, 600))
    if place == "near":
        assert probe.steps == list(range(600))
    else:
        lines = (run.dir / "far.txt").read_text().splitlines()
        assert [each.split()[1] for each in lines if each.startswith("batch")] == [str(step) for step in range(600)]
    assert "bytes of what was written are gone from it" in caplog.text
    (name,) = run.stats["lanes"]
    assert run.stats["lanes"][name]["state"] == "done"


def test_a_reader_notices_a_file_that_was_changed_behind_it(tmp_path: Path) -> None:
    path = tmp_path / JOURNAL
    path.write_bytes(b"".join(batch(seq, seq) for seq in range(10)))
    tail = Tail(path)
    end = tail.read(0)[-1][0]
    assert tail.read(end) == []
    path.write_bytes(b"".join(batch(seq, 100 + seq) for seq in range(10, 40)))  # longer than before
    assert (tail.read(end), tail.cuts) == ([], 1)
    assert [each.seq for _, each in tail.read(0) if each is not None] == list(range(10, 40))
