"""The journal: one truth on disk, whatever happens to the disk and to the process that writes it."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from losslog import RunLocked
from losslog.errors import JournalError
from losslog.journal.file import Writer, append_record, state_of
from losslog.journal.folder import JOURNAL
from losslog.journal.lines import read
from losslog.journal.records import Record, encode
from losslog.journal.tail import Tail


def lines(count: int, first: int = 0) -> list[bytes]:
    return [
        encode(Record(first + i, 1000.0 + i, "on_batch_losses", {"step": first + i, "losses": {"a": i / 3}}))
        for i in range(count)
    ]


def steps(folder: Path) -> list[int]:
    return [record.data["step"] for _, record in read(folder / JOURNAL) if record is not None]


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    found = Writer(tmp_path)
    yield found
    found.close()


def test_what_is_appended_is_read(writer: Writer, tmp_path: Path) -> None:
    writer.append(lines(3))
    assert steps(tmp_path) == [0, 1, 2]
    assert writer.end == (tmp_path / JOURNAL).stat().st_size


def test_every_line_is_json_for_other_tools(writer: Writer, tmp_path: Path) -> None:
    writer.append(lines(3))
    assert [json.loads(line)["seq"] for line in (tmp_path / JOURNAL).read_text("ascii").splitlines()] == [0, 1, 2]


def test_pandas_style_reading_line_by_line_needs_no_more_than_the_end_of_line(writer: Writer, tmp_path: Path) -> None:
    writer.append([encode(Record(0, 0.0, "on_alert", {"title": "a\u2028b\x85c\x0bd\re"}))])
    assert (tmp_path / JOURNAL).read_bytes().count(b"\n") == 1
    assert [record.data["title"] for _, record in read(tmp_path / JOURNAL) if record] == ["a\u2028b\x85c\x0bd\re"]


def test_a_second_writer_is_refused(writer: Writer, tmp_path: Path) -> None:
    with pytest.raises(RunLocked, match="being written by another live run"):
        Writer(tmp_path)


def test_a_closed_writer_leaves_the_folder_to_the_next(writer: Writer, tmp_path: Path) -> None:
    writer.append(lines(2))
    writer.close()
    second = Writer(tmp_path)
    assert (second.seq, second.last_step) == (2, 1)
    second.append(lines(1, first=2))
    second.close()
    assert steps(tmp_path) == [0, 1, 2]


def test_a_torn_tail_is_ignored_by_readers_and_cut_by_the_next_writer(tmp_path: Path) -> None:
    whole, torn = lines(2)
    for cut in range(1, len(torn)):
        (tmp_path / JOURNAL).write_bytes(whole + torn[:cut])
        assert steps(tmp_path) == [0]
        second = Writer(tmp_path)
        second.append(lines(1, first=1))
        second.close()
        assert steps(tmp_path) == [0, 1]


def test_a_line_garbled_at_any_byte_costs_that_line_at_most(tmp_path: Path) -> None:
    good, rng = lines(4, first=10_000), random.Random(5)
    for position in range(len(good[1]) - 1):
        bad = bytearray(good[1])
        bad[position] = rng.choice([byte for byte in range(256) if byte not in (10, bad[position])])
        (tmp_path / JOURNAL).write_bytes(good[0] + bytes(bad) + good[2] + good[3])
        found = [record for _, record in read(tmp_path / JOURNAL)]
        assert len(found) == 4
        assert [found[i].data["step"] for i in (0, 2, 3)] == [10_000, 10_002, 10_003]  # type: ignore[union-attr]
        second = Writer(tmp_path)
        assert second.seq == 10_004
        second.close()


def test_numbers_a_garbled_byte_can_make_do_not_stop_the_next_writer(tmp_path: Path) -> None:
    body = b'{"seq": 0, "time": 1.0, "hook": "on_batch_losses", "data": {"step": %s}}\n'
    text = b'{"seq": 1, "time": 1.0, "hook": "on_epoch_end", "data": {"epoch": %s}}\n'
    for odd in (b"1e345", b"-3", b'"x"', b"[]", b"NaN", b"null", b"{}"):
        (tmp_path / JOURNAL).write_bytes(body % odd + text % odd)
        second = Writer(tmp_path)
        assert second.seq == (2 if odd in (b"-3", b"null") else 0)  # what does not fit is no record
        second.close()


def test_the_writer_knows_the_alerts_there_are(tmp_path: Path) -> None:
    first = Writer(tmp_path)
    append_record(first, "on_alert", {"key": "a"})
    append_record(first, "on_run_end", {"status": "finished"})
    first.close()
    second = Writer(tmp_path)
    assert (second.alert_keys, second.ended, second.seq) == ({"a"}, True, 2)
    second.close()


@pytest.fixture
def little_disk() -> Iterator[None]:
    """Files of this process may grow to 4,096 bytes: beyond that a write is cut short, then refused."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_write_cut_short_is_taken_back(writer: Writer, tmp_path: Path, little_disk: None) -> None:
    writer.append(lines(10))
    end = writer.end
    with pytest.raises(OSError, match="File too large"):
        writer.append(lines(100, first=10))
    assert (tmp_path / JOURNAL).stat().st_size == writer.end == end
    assert steps(tmp_path) == list(range(10))


def test_after_a_failed_write_the_same_lines_can_be_written(writer: Writer, tmp_path: Path, little_disk: None) -> None:
    with pytest.raises(OSError, match="File too large"):
        writer.append(lines(100))
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    writer.append(lines(100))
    assert steps(tmp_path) == list(range(100))


def test_a_deleted_journal_is_put_back_whole(writer: Writer, tmp_path: Path) -> None:
    writer.append(lines(5))
    (tmp_path / JOURNAL).unlink()
    assert writer.moved()
    writer.heal()
    assert not writer.moved()
    writer.append(lines(1, first=5))
    assert steps(tmp_path) == [0, 1, 2, 3, 4, 5]


def test_a_disk_that_is_full_each_time_it_is_put_back_costs_no_descriptors(
    writer: Writer, tmp_path: Path, little_disk: None
) -> None:
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    writer.append(lines(100))
    (tmp_path / JOURNAL).unlink()
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    before = os.dup(0)
    os.close(before)
    for _ in range(3):
        with pytest.raises(OSError, match="File too large"):
            writer.heal()
    after = os.dup(0)
    os.close(after)
    assert after == before
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    writer.heal()
    assert steps(tmp_path) == list(range(100))


def test_a_journal_that_was_put_aside_and_cut_is_put_back_as_far_as_it_goes(writer: Writer, tmp_path: Path) -> None:
    writer.append(lines(5))
    aside = tmp_path / "aside"
    os.rename(tmp_path / JOURNAL, aside)
    os.truncate(aside, len(b"".join(lines(2))))
    writer.heal()
    assert steps(tmp_path) == [0, 1]
    assert writer.strangers() == []
    assert (writer.end, writer.cuts) == ((tmp_path / JOURNAL).stat().st_size, 1)


@pytest.mark.parametrize("form", ["needs zstandard", "a link"])
def test_a_journal_that_cannot_be_opened_here_leaves_the_folder_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    Writer(tmp_path).close()
    if form == "a link":
        (tmp_path / JOURNAL).rename(tmp_path / "elsewhere")
        (tmp_path / JOURNAL).symlink_to(tmp_path / "elsewhere")
    else:
        (tmp_path / JOURNAL).unlink()
        (tmp_path / f"{JOURNAL}.zst").write_bytes(b"\x28\xb5\x2f\xfd" + bytes(100))
        monkeypatch.setattr("losslog.journal.packing.zstandard", lambda: None)
    for _ in range(2):  # the second finds no lock of the first
        with pytest.raises((OSError, JournalError), match=r"is a link|pip install zstandard"):
            Writer(tmp_path)


def test_a_healed_folder_is_locked_again(writer: Writer, tmp_path: Path) -> None:
    writer.append(lines(5))
    for name in (JOURNAL, "journal.lock"):
        (tmp_path / name).unlink()
    writer.heal()
    assert state_of(tmp_path)["status"] == "running"


@pytest.mark.parametrize("chunk", [1, 7, 100, 1 << 18])
def test_reading_does_not_depend_on_where_chunks_end(
    writer: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    writer.append(lines(20))
    monkeypatch.setattr("losslog.journal.lines.CHUNK", chunk)
    assert steps(tmp_path) == list(range(20))


def test_reading_can_begin_at_any_line(writer: Writer, tmp_path: Path) -> None:
    writer.append(lines(5))
    ends = [end for end, _ in read(tmp_path / JOURNAL)]
    assert [len(list(read(tmp_path / JOURNAL, end))) for end in ends] == [4, 3, 2, 1, 0]


@pytest.mark.parametrize("status", ["finished", "stopped", "failed", "crashed"])
def test_the_state_of_an_ended_run(writer: Writer, tmp_path: Path, status: str) -> None:
    append_record(writer, "on_run_end", {"status": status})
    assert state_of(tmp_path)["status"] == status


def test_a_lock_and_no_end_is_a_running_run(writer: Writer, tmp_path: Path) -> None:
    writer.append(lines(1))
    assert state_of(tmp_path)["status"] == "running"
    writer.close()
    assert state_of(tmp_path)["status"] == "crashed"


def all_of(tail: Tail, offset: int = 0, limit: int = 1024) -> list[int]:
    found = []
    while part := tail.read(offset, limit):
        offset = part[-1][0]
        found += [record.seq for _, record in part if record is not None]
    return found


@pytest.mark.parametrize("limit", [1, 7, 1024])
@pytest.mark.parametrize("window", [1, 10, 8192])
def test_a_tail_gives_everything_whatever_it_keeps(writer: Writer, tmp_path: Path, window: int, limit: int) -> None:
    writer.append(lines(100))
    tail = Tail(tmp_path / JOURNAL, window=window)
    assert all_of(tail, limit=limit) == list(range(100))
    writer.append(lines(50, first=100))
    assert all_of(tail, limit=limit) == list(range(150))


def test_a_tail_of_the_writing_process_gives_what_was_published(writer: Writer, tmp_path: Path) -> None:
    tail = Tail(tmp_path / JOURNAL, own=True, window=10)
    for first in range(0, 100, 5):
        end = writer.end
        chunk = lines(5, first=first)
        writer.append(chunk)
        found = []
        for place, line in enumerate(chunk):
            end += len(line)
            found.append((end, Record(first + place, 0.0, "on_batch_losses", {})))
        tail.publish(found)
        assert all_of(tail) == list(range(first + 5))


def test_a_tail_reads_beside_a_writer(writer: Writer, tmp_path: Path) -> None:
    tail = Tail(tmp_path / JOURNAL, window=64)
    found: list[int] = []
    done = threading.Event()

    def follow() -> None:
        offset = 0
        while len(found) < 2000:
            for end, record in tail.read(offset):
                offset = end
                assert record is not None
                found.append(record.seq)
        done.set()

    reader = threading.Thread(target=follow)
    reader.start()
    for first in range(0, 2000, 10):
        writer.append(lines(10, first=first))
    assert done.wait(60)
    reader.join()
    assert found == list(range(2000))


def test_the_journal_is_not_writable_by_others(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        Writer(tmp_path).close()
    finally:
        os.umask(before)
    assert [each.name for each in tmp_path.iterdir() if each.stat().st_mode & 0o002] == []


def test_a_patient_writer_waits_for_one_that_is_about_to_leave(tmp_path: Path) -> None:
    other = Writer(tmp_path)
    timer = threading.Timer(0.2, other.close)
    timer.start()
    patient = Writer(tmp_path, patience=30.0)
    timer.join()
    with pytest.raises(RunLocked):
        Writer(tmp_path, patience=0.1)
    patient.close()


def numbered(path: Path, *seqs: int | None) -> list[int | None]:
    lines = [b"garbled\n" if seq is None else encode(Record(seq, 1.0, "on_metrics", {"metrics": {}})) for seq in seqs]
    path.write_bytes(b"".join(lines))
    return [record and record.seq for _, record in read(path)]


def test_a_wrong_number_is_put_right_by_those_beside_it(tmp_path: Path) -> None:
    path = tmp_path / JOURNAL
    assert numbered(path, 0, 1, 95, 3, 4) == [0, 1, 2, 3, 4]
    assert numbered(path, 7, 1, 2) == [0, 1, 2]
    assert numbered(path, 0, 1, 92) == [0, 1, 2]
    assert numbered(path, 0, None, 95, 3) == [0, None, 2, 3]
    assert numbered(path, 0, 1, 0, 3) == [0, 1, 2, 3]


def test_a_gap_where_lines_were_lost_is_no_wrong_number(tmp_path: Path) -> None:
    path = tmp_path / JOURNAL
    assert numbered(path, 0, 1, None, 40, 41, 42) == [0, 1, None, 40, 41, 42]
    assert numbered(path, 40, 41) == [40, 41]
    assert numbered(path, 0, None, None, 2) == [0, None, None, 2]  # one of the garbled lines was nobody's


def test_a_wrong_number_is_said_once_where_it_is_delivered(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    numbered(tmp_path / JOURNAL, 0, 95, 2, 3, 99, 5)
    tail = Tail(tmp_path / JOURNAL)
    assert [record and record.seq for _, record in tail.read(0)] == [0, 1, 2, 3, 4, 5]
    assert caplog.text.count("numbers that do not rise by one") == 1
