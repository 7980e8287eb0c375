from __future__ import annotations

import copy
import inspect
import json
import re
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from losslog import hookspecs
from losslog.history import series
from losslog.journal.folder import JOURNAL
from losslog.journal.lines import CHUNK, LONGEST, read, whole_lines
from losslog.journal.records import Record, decode, decode_all, encode
from losslog.journal.scan import blocks
from losslog.journal.shapes import DEEPEST, SHAPES, fits, too_deep, usual
from losslog.journal.tail import Tail
from losslog.testing.story import SEEN

GOOD: dict[str, dict[str, Any]] = {
    "on_run_start": {"name": "n", "config": {"a": [1]}, "epochs": 2, "options": {"x": {}}, "resumed": False},
    "on_batch_losses": {"step": 10**15, "epoch": 1, "losses": {"a": 1, "b": float("nan")}, "total": 1.0, "lr": 0.1,
                        "n": 1, "spread": {"a": [0.5, 1.5]}},
    "on_eval": {"epoch": 1, "split": "val", "metrics": {"bbox": {"AP": 0.5, "classes": {"cat": 0.1}}, "f": 1.0}},
    "on_metrics": {"step": None, "metrics": {"a": 1.0}},
    "on_epoch_end": {"epoch": 1, "losses": 1.0, "val_loss": {"a": 2.0}, "lr": {"head": 0.1}, "duration": 1.5},
    "on_images": {"epoch": 1, "step": None, "split": "val", "name": "NaN", "images": [SEEN], "folder": "/data"},
    "on_checkpoint": {"epoch": 1, "path": "x"},
    "on_alert": {"level": "error", "title": "t", "text": "", "source": "s", "key": "k"},
    "on_resume": {"epoch": 1, "step": None},
    "on_run_end": {"status": "finished"},
}  # fmt: skip


def test_every_argument_of_every_hook_has_a_shape() -> None:
    told = {
        hook: {*inspect.signature(getattr(hookspecs, hook)).parameters} - {"run", "seq", "time"}
        for hook in hookspecs.HOOKS
        if hook not in ("on_scalars", "on_flush")
    }
    assert {hook: {*shape} for hook, shape in SHAPES.items()} == told


@pytest.mark.parametrize("hook", GOOD)
def test_what_a_run_writes_fits(hook: str) -> None:
    line = encode(Record(3, 1.7e9, hook, GOOD[hook]))
    assert encode(decode(line)) == line


ODD: tuple[Any, ...] = (
    "x",
    [],
    {},
    [1],
    {"a": "b"},
    {"a": {"b": {"c": {"d": 1}}}},
    True,
    10**300,
    -(2**63) - 1,
    {"a": 10**400},
    {"": 1.0},
)


@pytest.mark.parametrize("hook", GOOD)
def test_what_does_not_fit_makes_no_reader_fail(hook: str, tmp_path: Path) -> None:
    """Whatever stands for a value: it is refused, or it can be used."""
    for key in SHAPES[hook]:
        for odd in ODD:
            (tmp_path / JOURNAL).write_bytes(
                encode(Record(0, 1.7e9, "on_batch_losses", GOOD["on_batch_losses"]))
                + json.dumps({"seq": 1, "time": 1.7e9, "hook": hook, "data": GOOD[hook] | {key: odd}}).encode() + b"\n"
                + encode(Record(2, 1.7e9, "on_metrics", {"metrics": {"last": 1.0}, "step": 1}))
            )  # fmt: skip
            assert series(tmp_path)["last"] == {1: 1.0}


@pytest.mark.parametrize(
    "record",
    [(-1, 1.0), (2**63, 1.0), (True, 1.0), (0.5, 1.0), ("0", 1.0), (0, float("nan")), (0, float("inf")), (0, -1.0),
     (0, 1e300), (0, "1"), (0, None), (0, 10**300)],
)  # fmt: skip
def test_numbers_and_times_of_records_are_such(record: tuple[Any, Any]) -> None:
    assert not fits(*record, "on_run_end", {"status": "finished"})
    assert fits(0, 1.0, "on_run_end", {"status": "finished"})


def test_hooks_and_arguments_of_others_pass() -> None:
    assert fits(0, 1.0, "on_something", {"x": [1, {"y": None}]})
    assert fits(0, 1.0, "on_run_end", {"status": "finished", "later": object})


@pytest.mark.parametrize("deep", [800, 100_000])
def test_nesting_has_an_end(deep: int, tmp_path: Path) -> None:
    line = b'{"seq": 0, "time": 1.0, "hook": "on_run_start", "data": {"config": {"a": ' + b"[" * deep + b"]" * deep
    (tmp_path / JOURNAL).write_bytes(line + b"}}}\n" + encode(Record(1, 1.0, "on_run_end", {"status": "finished"})))
    assert [record and record.seq for _, record in read(tmp_path / JOURNAL)] == [None, 1]
    assert not too_deep(json.dumps({"code": "[{" * 1000, "list": [[]] * 1000}))
    assert too_deep("[" * (DEEPEST + 1))


def endless(path: Path, size: int, end: bytes) -> None:
    with open(path, "wb") as file:
        file.write(encode(Record(0, 1.0, "on_metrics", {"metrics": {"a": 1.0}, "step": 0})))
        for _ in range(size // CHUNK):
            file.write(b"x" * CHUNK)
        file.write(end + encode(Record(1, 1.0, "on_metrics", {"metrics": {"a": 2.0}, "step": 1})))


def test_a_line_without_an_end_costs_bounded_memory_and_is_one_garbled_line(tmp_path: Path) -> None:
    path = tmp_path / JOURNAL
    endless(path, 4 * LONGEST, b"\n")
    tracemalloc.start()
    found = list(read(path))
    tail = [record for _, record in Tail(path).read(found[0][0])]
    pieces = [(offset, piece.count(b"\n")) for offset, piece in blocks(path)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [record and record.seq for _, record in found] == [0, None, 1]
    assert found[-1][0] == path.stat().st_size == whole_lines(path) == pieces[-1][0]
    assert sum(count for _, count in pieces) == 3
    assert tail[0] is None
    assert peak < 3 * LONGEST


def test_the_time_for_it_grows_with_its_length(tmp_path: Path) -> None:
    took = []
    for size in (LONGEST, 8 * LONGEST):
        endless(tmp_path / JOURNAL, size, b"")
        began = time.process_time()
        for _ in range(3):
            assert len(list(read(tmp_path / JOURNAL))) == 2
        took.append(time.process_time() - began)
    assert took[1] < 8 * 5 * took[0]  # squared it would be 64 times


BENT: tuple[tuple[tuple[Any, ...], Any], ...] = (
    (("id",), None), (("width",), 0), (("height",), 2**40), (("path",), 5), (("truth",), {}), (("loss",), {"a": "x"}),
    (("truth", 0), 1), (("truth", 0, "box"), [1, 2, 3]), (("truth", 0, "box"), [1, 2, 3, "NaN"]),
    (("truth", 0, "box", 0), 10**400), (("truth", 0, "label"), 3), (("truth", 0, "rle"), "x"),
    (("truth", 0, "rle", "size"), [6]), (("truth", 0, "rle", "size", 0), -1), (("truth", 0, "rle", "counts"), 5),
    (("predictions", 0, "score"), "high"), (("mistakes",), {"extra": "many"}), (("left_out",), 3),
)  # fmt: skip


@pytest.mark.parametrize(("place", "value"), BENT, ids=lambda each: str(each)[:40])
def test_an_image_that_is_none_is_a_garbled_line(place: tuple[Any, ...], value: Any) -> None:
    """Who draws may take what is read at its word."""
    data = json.loads(json.dumps({"epoch": 1, "split": "val", "name": "fixed", "images": [SEEN]}))
    assert fits(0, 1.0, "on_images", data)
    part = data["images"][0]
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    assert not fits(0, 1.0, "on_images", data)


def test_words_that_are_numbers_elsewhere_stay_words_in_an_image() -> None:
    """A class, an id or even a mask may be spelled ``NaN``."""
    rle = {"size": [1, 1], "counts": "NaN"}
    thing = {"box": [0.0, 0.0, 1.0, 1.0], "label": "Infinity", "rle": rle}
    image = {"id": "NaN", "path": "NaN", "width": 1, "height": 1, "truth": [thing], "predictions": []}
    line = encode(Record(0, 1.0, "on_images", {"epoch": 1, "split": "v", "name": "NaN", "images": [image]}))
    assert decode(line).data["images"] == [image]


BATCH = {"step": 3, "epoch": 1, "losses": {"a": 1.0, "b": 2.0}, "total": 3.0, "lr": {"head": 0.1}, "batch_size": 2}


def test_a_usual_batch_is_one_that_fits() -> None:
    assert usual([(5, 1.0, "on_batch_losses", BATCH)])
    assert fits(5, 1.0, "on_batch_losses", BATCH)
    for place in ("seq", "time", "data", "more", *BATCH, "inner", "name", "rate"):
        for odd in ODD:
            seq, at, data = 5, 1.0, copy.deepcopy(BATCH)
            match place:
                case "seq":
                    seq = odd
                case "time":
                    at = odd
                case "data":
                    data = odd
                case "inner":
                    data["losses"]["a"] = odd
                case "name":
                    data["losses"] = {str(odd): 1.0}
                case "rate":
                    data["lr"]["head"] = odd
                case _:
                    data[place] = odd
            if usual([(seq, at, "on_batch_losses", data)]):
                assert fits(seq, at, "on_batch_losses", data)
                assert not too_deep(json.dumps(data))
                assert not re.search('"(NaN|-?Infinity)"[^:]', json.dumps(data))


@pytest.mark.parametrize(
    "odd", [b"", b"{", b"[1, 2]", b"null", b"7", b"\xff", b'{"seq": 1', b"{} , {}", b"?", b"[" * 9999]
)
def test_lines_read_together_are_what_each_is_alone(odd: bytes) -> None:
    whole = [encode(Record(seq, 1.0, "on_batch_losses", BATCH)).rstrip(b"\n") for seq in range(4)]
    nan = encode(Record(4, 1.0, "on_batch_losses", {**BATCH, "total": float("nan")})).rstrip(b"\n")
    for lines in ([*whole, odd], [odd, *whole], [whole[0], odd, nan, odd], [odd], [nan], whole, [], [odd, odd]):
        alone = []
        for line in lines:
            try:
                alone.append(decode(line))
            except ValueError:
                alone.append(None)
        assert repr(decode_all(lines)) == repr(alone)


def test_one_odd_batch_changes_nothing_about_those_beside_it() -> None:
    """They are looked at together: whatever is wrong with one, the others are read as they are alone."""
    for odd in ODD:
        for place in BATCH:
            lines = [json.dumps({"seq": seq, "time": 1.0, "hook": "on_batch_losses",
                                 "data": {**BATCH, place: odd} if seq == 70 else BATCH}, default=str).encode()
                     for seq in range(100)]  # fmt: skip
            found = decode_all(lines)
            assert [each for each in found if each is not None and each.seq != 70] == [
                Record(seq, 1.0, "on_batch_losses", BATCH) for seq in range(100) if seq != 70
            ]
