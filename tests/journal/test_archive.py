"""A compressed journal is the same journal, for whoever reads it, from wherever."""

from __future__ import annotations

import gzip
import io
import os
import random
import shutil
import struct
import subprocess
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import losslog
from losslog.cli import main
from losslog.history import records, series
from losslog.journal import archive, packing
from losslog.journal.archive import Unpacked, form_of, pack, reading, size_of, unpack
from losslog.journal.cursors import Cursor
from losslog.journal.file import Writer
from losslog.journal.folder import JOURNAL, find, runs
from losslog.journal.lines import last_record, read


@pytest.fixture(params=["gzip", "zstandard"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With the one, and with the other."""
    if request.param == "zstandard":
        pytest.importorskip("zstandard")
    else:
        monkeypatch.setattr(packing, "zstandard", lambda: None)
        monkeypatch.setattr(archive, "zstandard", lambda: None)
    return str(request.param)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "BLOCK", 1000)


@pytest.fixture
def ended(make_run: Callable[..., losslog.Run]) -> Path:
    run = make_run(epochs=2)
    for epoch in range(2):
        for step in range(100):
            run.log_batch({"a": 1.0 / (step + 1), "b": float("nan") if step == 7 else 0.1}, lr=0.1)
        run.log_eval({"bbox": {"AP": 0.1 + epoch}})
        run.end_epoch()
    run.close()
    return run.dir


@pytest.mark.parametrize("size", [0, 1, 999, 1000, 1001, 54_321])
def test_the_same_bytes_at_the_same_places(tmp_path: Path, library: str, size: int) -> None:
    draw = random.Random(size)
    whole = draw.randbytes(size)
    (tmp_path / JOURNAL).write_bytes(whole)
    os.utime(tmp_path / JOURNAL, (1e9, 1e9))
    packed = pack(tmp_path / JOURNAL, size)
    assert packed.suffix == {"gzip": ".gz", "zstandard": ".zst"}[library]
    assert [each.name for each in tmp_path.iterdir()] == [packed.name]
    assert (form_of(tmp_path / JOURNAL), packed.stat().st_mtime) == (packed, 1e9)
    assert size_of(tmp_path / JOURNAL) == size
    with reading(tmp_path / JOURNAL) as file:
        for _ in range(50):
            at, length = draw.randrange(size + 5), draw.randrange(3000)
            file.seek(at)
            assert file.read(length) == whole[at : at + length]
            assert file.tell() == min(at + length, max(at, size))
        file.seek(0)
        assert file.read() == whole
    unpack(tmp_path / JOURNAL)
    assert [each.name for each in tmp_path.iterdir()] == [JOURNAL]
    assert (tmp_path / JOURNAL).read_bytes() == whole


def test_ordinary_tools_read_it(tmp_path: Path, library: str) -> None:
    whole = random.Random(1).randbytes(20_000)
    (tmp_path / JOURNAL).write_bytes(whole)
    packed = pack(tmp_path / JOURNAL, len(whole))
    if library == "gzip":
        assert gzip.decompress(packed.read_bytes()) == whole
    tool = shutil.which("zcat" if library == "gzip" else "zstdcat")
    if tool is not None:
        assert subprocess.run([tool, str(packed)], capture_output=True, check=True).stdout == whole


def told(folder: Path, capsys: pytest.CaptureFixture[str], *more: str) -> list[str]:
    """What every command says of a run."""
    found = []
    for words in (["show"], ["show", "--json"], ["diagnose"], ["cat"], ["watch", "--plain"],
                  ["export", "--to", "csv"], ["export", "--to", "jsonl", "--by", "epoch"]):  # fmt: skip
        assert main([words[0], str(folder), *words[1:]]) == 0
        found.append(capsys.readouterr().out)
    assert main(["ls", "--dir", str(folder.parent.parent), "--json"]) == 0
    found.append(capsys.readouterr().out)
    return found


def test_every_reader_reads_both(
    ended: Path, library: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    copy = tmp_path / "runs" / "copy" / ended.name
    shutil.copytree(ended, copy)
    before, lines, values = told(ended, capsys), [*records(ended)], series(ended)
    losses = losslog.load(ended).losses("a")
    assert main(["report", str(ended), "-o", str(tmp_path / "one.html")]) == 0
    assert main(["compress", str(ended)]) == 0
    assert "->" in capsys.readouterr().out
    assert not (ended / JOURNAL).exists()
    after = told(ended, capsys)
    assert after == before
    assert repr([*records(ended)]) == repr(lines)
    assert repr(series(ended)) == repr(values)
    assert losslog.load(ended).losses("a") == losses
    assert main(["report", str(ended), "-o", str(tmp_path / "two.html")]) == 0
    assert (tmp_path / "two.html").stat().st_size == (tmp_path / "one.html").stat().st_size  # it says when it was made
    assert main(["compare", str(ended), str(copy)]) == 0
    assert main(["compress", str(ended)]) == 0
    assert "is compressed" in capsys.readouterr().out
    assert find(ended.name, tmp_path / "runs", "test") == ended
    assert len(runs(tmp_path / "runs")) == 2
    assert main(["compress", "--older-than", "0", "--dir", str(tmp_path / "runs")]) == 0
    assert not (copy / JOURNAL).exists()
    assert main(["compress", "--undo", str(ended)]) == 0
    capsys.readouterr()
    assert told(ended, capsys)[:-1] == before[:-1]


def test_a_plugin_installed_since_gets_all_of_it(
    ended: Path, library: str, package: Callable[..., str], far_source: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name = package(far_source, "later")
    assert main(["compress", str(ended)]) == 0
    assert main(["replay", str(ended), "--to", name]) == 0
    got = (ended / "far.txt").read_text().splitlines()
    assert len([each for each in got if each.startswith("batch")]) == 200
    assert got[-1] == "end finished"
    assert form_of(ended / JOURNAL) != ended / JOURNAL
    assert main(["replay", str(ended), "--to", name]) == 0
    assert f"{name}: 0 records delivered" in capsys.readouterr().err


def test_a_run_that_is_gone_on_with_is_plain_again(
    ended: Path, library: str, make_run: Callable[..., losslog.Run]
) -> None:
    before = (ended / JOURNAL).read_bytes()
    assert main(["compress", str(ended)]) == 0
    run = make_run(resume=ended)
    assert (run.epoch, run.next_step) == (3, 200)
    run.log_batch({"a": 1.0})
    run.close()
    assert (ended / JOURNAL).read_bytes().startswith(before)
    assert [each.name for each in ended.glob(f"{JOURNAL}*")] == [JOURNAL]
    assert [each.seq for _, each in read(ended / JOURNAL) if each] == list(range(len([*read(ended / JOURNAL)])))


def test_a_live_run_and_one_that_is_delivered_are_left_alone(
    ended: Path, make_run: Callable[..., losslog.Run], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run = make_run(name="live")
    run.log_batch({"a": 1.0})
    run.flush()
    cursor = Cursor(ended, "slow")
    assert cursor.acquire()
    cursor.commit(cursor.at)
    try:
        assert main(["compress", str(run.dir), str(ended)]) == 1
    finally:
        cursor.release()
    out = capsys.readouterr().out
    assert f"{run.id}: not done: " in out
    assert "still live" in out
    assert f"{ended.name}: not done: it is being delivered to slow: wait, then try again" in out
    assert (run.dir / JOURNAL).exists()
    assert (ended / JOURNAL).exists()
    assert main(["compress", "--older-than", "0", "--dir", str(tmp_path / "runs")]) == 0
    assert (run.dir / JOURNAL).exists()
    assert not (ended / JOURNAL).exists()


def test_a_reader_that_holds_the_file_goes_on(ended: Path, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = (ended / JOURNAL).read_bytes()
    with reading(ended / JOURNAL) as file:
        first = file.read(500)
        assert main(["compress", str(ended)]) == 0
        if os.name == "posix":
            assert first + file.read() == whole

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path.name == JOURNAL:
            raise PermissionError(13, "another process uses it")
        os.unlink(path)

    assert main(["compress", "--undo", str(ended)]) == 0
    monkeypatch.setattr(Path, "unlink", lambda path, missing_ok=False: refuse(path) if path.exists() else None)
    assert main(["compress", str(ended)]) == 1  # Windows, while somebody reads it
    assert (ended / JOURNAL).read_bytes() == whole
    assert [each.name for each in ended.glob(f"{JOURNAL}*")] == [JOURNAL]


def test_a_damaged_block_costs_its_lines_alone(tmp_path: Path, library: str, ended: Path) -> None:
    before = [record for _, record in read(ended / JOURNAL)]
    assert main(["compress", str(ended)]) == 0
    packed = form_of(ended / JOURNAL)
    body = bytearray(packed.read_bytes())
    body[len(body) // 2] ^= 0x55
    packed.write_bytes(body)
    after = [record for _, record in read(ended / JOURNAL)]
    kept = [each for each in after if each is not None]
    assert len(before) - 20 < len(kept) < len(before)
    assert {repr(each) for each in kept} <= {repr(each) for each in before}
    assert None in after
    assert last_record(ended / JOURNAL) is not None


@pytest.mark.parametrize("cut", [1, 7, 9, 30, 500, 2000, 0.5, 0.9])
def test_of_one_that_was_cut_whole_blocks_are_read(
    ended: Path, library: str, cut: float, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    before = (ended / JOURNAL).read_bytes()
    assert main(["compress", str(ended)]) == 0
    packed = form_of(ended / JOURNAL)
    starts = packing.table_of(packed).starts
    body = packed.read_bytes()
    body = body[:-cut] if isinstance(cut, int) else body[: -int(len(body) * cut)]
    whole = sum(start <= len(body) for start in starts[1:])
    packed.write_bytes(body)
    with reading(ended / JOURNAL) as file:
        after = file.read()
    kept = min(whole * archive.BLOCK, len(before))
    assert after[:kept] == before[:kept]
    assert after in (before[: len(after)], before[:kept] + b"?\n")
    capsys.readouterr()
    for words in (["cat"], ["export", "--to", "csv"], ["show"], ["show"]):
        code = main([words[0], str(ended), *words[1:]])
        told, lacking = capsys.readouterr(), archive.damage(ended / JOURNAL)
        assert code == int(bool(lacking) and words != ["show"])
        assert lacking in told.out + told.err
    assert bool(lacking) or whole == len(starts) - 1
    assert caplog.text.count("is damaged at its end") == 1


def test_a_block_that_was_cut_gives_what_comes_before(
    ended: Path, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "BLOCK", 1 << 18)
    with (ended / JOURNAL).open("ab") as file:  # beyond what zstandard packs as one piece
        for seq in range(300, 3000):
            file.write(b'{"seq": %d, "time": 1.0, "hook": "on_x", "data": {"x": %d}}\n' % (seq, seq * 7919 % 1009))
    before = (ended / JOURNAL).read_bytes()
    packed = pack(ended / JOURNAL, len(before))
    body = packed.read_bytes()
    packed.write_bytes(body[: int(len(body) * 0.9)])
    with reading(ended / JOURNAL) as unpacked:
        found = unpacked.read()
    assert len(found) > len(before) // 3
    assert found == before[: len(found)]


@pytest.mark.parametrize(
    "more", [b"x", b"\0" * 5000, b"\x28\xb5\x2f\xfd junk", b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x10\0"]
)
def test_what_stands_behind_the_end_costs_nothing(
    ended: Path, library: str, more: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    before = (ended / JOURNAL).read_bytes()
    assert main(["compress", str(ended)]) == 0
    with form_of(ended / JOURNAL).open("ab") as file:
        file.write(more)
    with reading(ended / JOURNAL) as unpacked:
        assert unpacked.read() == before
    assert main(["cat", str(ended)]) == 0
    assert caplog.text.count("is damaged at its end: nothing is missing") == 1


@pytest.mark.parametrize("named", [True, False])
def test_what_another_tool_packed_is_whole(
    ended: Path, library: str, named: bool, capsys: Any, caplog: pytest.LogCaptureFixture
) -> None:
    before = (ended / JOURNAL).read_bytes()
    if library == "gzip":
        buffer = io.BytesIO()
        with gzip.GzipFile("journal.jsonl" if named else "", "wb", fileobj=buffer, mtime=1.7e9 if named else 0) as file:
            file.write(before)
        packed = buffer.getvalue()
    else:
        packed = pytest.importorskip("zstandard").ZstdCompressor(write_checksum=named).compress(before)
    (ended / JOURNAL).unlink()
    target = ended / f"{JOURNAL}{'.gz' if library == 'gzip' else '.zst'}"
    target.write_bytes(packed)
    for words in (["cat"], ["export", "--to", "csv"], ["show"]):
        assert main([words[0], str(ended), *words[1:]]) == 0
        assert "damaged" not in "".join(capsys.readouterr())
    assert "damaged" not in caplog.text
    assert archive.damage(ended / JOURNAL) == ""
    with reading(ended / JOURNAL) as unpacked:
        assert unpacked.read() == before
    target.write_bytes(packed[:-9])
    assert main(["cat", str(ended)]) in (1, 2)
    assert "damaged" in capsys.readouterr().err


def test_a_damaged_block_of_one_that_was_cut_is_one_block(ended: Path, library: str) -> None:
    before = [record for _, record in read(ended / JOURNAL)]
    assert main(["compress", str(ended)]) == 0
    packed = form_of(ended / JOURNAL)
    starts = packing.table_of(packed).starts
    body = bytearray(packed.read_bytes()[:-20])
    body[(starts[3] + starts[4]) // 2] ^= 0x55
    packed.write_bytes(body)
    kept = [record for _, record in read(ended / JOURNAL) if record is not None]
    assert len(before) - 20 < len(kept) < len(before)
    assert {repr(each) for each in kept} <= {repr(each) for each in before}


@pytest.mark.parametrize("content", [b"", b"x", b"\x28\xb5\x2f\xfd", b"\x1f\x8b\x08\0", bytes(100_000)])
def test_what_is_none_is_said_to_be(ended: Path, library: str, content: bytes, capsys: Any) -> None:
    assert main(["compress", str(ended)]) == 0
    form_of(ended / JOURNAL).write_bytes(content)
    assert main(["cat", str(ended)]) == 2
    assert "is not a compressed journal, or it is damaged at its end" in capsys.readouterr().err


def test_what_a_damaged_block_had_is_said_and_not_counted(ended: Path, library: str, capsys: Any) -> None:
    assert main(["compress", str(ended)]) == 0
    packed = form_of(ended / JOURNAL)
    body = bytearray(packed.read_bytes())
    body[len(body) // 2] ^= 0x55
    packed.write_bytes(body)
    capsys.readouterr()
    assert main(["cat", str(ended)]) == 1
    assert "losslog cat: journal.jsonl" in capsys.readouterr().err
    assert main(["export", str(ended), "--to", "csv"]) == 1
    out, err = capsys.readouterr()
    assert "garbled" in err
    assert "blocks cannot be unpacked: the lines in them are missing" in err
    assert main(["show", str(ended)]) == 0
    assert f"steps {len(out.splitlines()) - 1}," in capsys.readouterr().out


def test_without_zstandard_it_says_what_to_install(ended: Path, monkeypatch: Any, capsys: Any) -> None:
    pytest.importorskip("zstandard")
    assert main(["compress", str(ended)]) == 0
    monkeypatch.setattr(packing, "zstandard", lambda: None)
    monkeypatch.setattr(archive, "zstandard", lambda: None)
    assert main(["cat", str(ended)]) == 2
    assert "pip install zstandard" in capsys.readouterr().err


def test_what_cannot_be_read_back_is_not_believed(ended: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = (ended / JOURNAL).read_bytes()
    honest = archive.codec

    def forgetful(suffix: str) -> tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]:
        packer, unpacker = honest(suffix)
        return lambda data: packer(data.replace(b"0.1", b"0.2")), unpacker

    monkeypatch.setattr(archive, "codec", forgetful)
    assert main(["compress", str(ended)]) == 1
    assert (ended / JOURNAL).read_bytes() == whole
    assert [each.name for each in ended.glob("*pack*")] == []


def test_where_both_forms_are_the_plain_one_counts(ended: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(ended, copy)
    packed = pack(copy / JOURNAL, size_of(copy / JOURNAL))
    shutil.copy(packed, ended)  # killed between the two
    with (ended / JOURNAL).open("ab") as file:
        file.write(b'{"seq": 999, "time": 1.0, "hook": "on_x", "data": {}}\n')
    assert getattr(last_record(ended / JOURNAL), "hook", "") == "on_x"
    Writer(ended).close()
    assert [each.name for each in ended.glob(f"{JOURNAL}*")] == [JOURNAL]


def test_a_wrong_form_is_refused(tmp_path: Path) -> None:
    (tmp_path / f"{JOURNAL}.gz").write_bytes(b"{}\n")
    with pytest.raises(OSError, match="is not a compressed journal"):
        size_of(tmp_path / JOURNAL)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / f"{JOURNAL}.gz").symlink_to(tmp_path / f"{JOURNAL}.gz")
    with pytest.raises(OSError, match="is a link"):
        Unpacked(tmp_path / "other" / f"{JOURNAL}.gz")


def test_what_to_compress_must_be_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compress"]) == 2
    assert "name the runs, or say --older-than DAYS" in capsys.readouterr().err
    assert main(["compress", "x", "--older-than", "1"]) == 2


def tables(sizes: tuple[int, int, int], spare: bytes = b"") -> bytes:
    """A file that is nothing but a table: the size, a block's, how many blocks of a byte each."""
    size, block, count = sizes
    body = struct.pack(f"<QI{count}I", size, block, *[1] * count) + spare
    frame = body + struct.pack("<II", zlib.crc32(body), len(body))
    return b"\x28\xb5\x2f\xfd" * 8 + struct.pack("<II", 0x184D2A5E, len(frame)) + frame


@pytest.mark.parametrize(
    "content",
    [
        tables((2**62, 2**32 - 1, 3)),  # blocks of four gigabytes
        tables((16_000 << 24, 1 << 24, 16_000)),  # 250 GB of what is not there
        tables((30, 10, 3), spare=b"xx"),  # no whole number of words
        tables((0, 0, 0)),
        b"x" * 64 + struct.pack("<II", 1, 2**31),  # a table that reaches beyond
        struct.pack("<I", 0x184D2A5E) * 50_000,
        b"\x28\xb5\x2f\xfd" * 50_000,
    ],
)
def test_a_table_that_is_made_up_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "journal.jsonl.zst").write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises((OSError, losslog.LosslogError)):
            list(read(tmp_path / JOURNAL))
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()


def test_members_of_other_sizes_than_ours_are_none_of_ours(tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl.gz").write_bytes(gzip.compress(b"x" * 90) + gzip.compress(bytes(1 << 20)) * 3)
    with pytest.raises(OSError, match="is not a compressed journal"):
        size_of(tmp_path / JOURNAL)


def test_show_of_a_long_one_only_looks_whether_it_was_cut(ended: Path, capsys: Any) -> None:
    assert main(["compress", str(ended)]) == 0
    packed = form_of(ended / JOURNAL)
    body = bytearray(packed.read_bytes())
    body[len(body) // 2] ^= 0x55
    packed.write_bytes(body)
    assert archive.damage(ended / JOURNAL, most=1 << 24)
    assert archive.damage(ended / JOURNAL, most=0) == ""
    packed.write_bytes(body[:-20])
    assert "it was cut" in archive.damage(ended / JOURNAL, most=0)
