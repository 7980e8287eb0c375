"""Batches taken many at a time become what each becomes alone: to the byte, in the journal and in the means."""

from __future__ import annotations

import json
import random
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from losslog.journal.file import Writer
from losslog.journal.folder import JOURNAL
from losslog.journal.tail import Tail
from losslog.recording.alike import AT_ONCE, alike
from losslog.recording.drain import WRITE_AT, Drain
from losslog.recording.intake import Queue
from losslog.recording.items import Batch, Event, Item
from losslog.runtime.notices import Once
from losslog.values.snapshot import snapshot
from losslog.values.totals import Totals

NAMES = [
    ("a", "b"),
    ("loss_mask", "loss_rpn"),
    ("a", "acc"),
    ("a", "loss"),
    ("x%r", 'y"\\'),
    ("ö", "\ud800"),
    ("b", "a"),
]
ODD = (float("nan"), float("inf"), -float("inf"), 1e308, -0.0, 5e-324, 2.0**70, 3)


class OneByOne(Drain):
    def several(self, hand: deque[Item]) -> bool:
        return False


def drained(folder: Path, kind: type[Drain], turns: Sequence[Sequence[Item]], monkeypatch: Any) -> tuple[Any, ...]:
    """The journal's lines without what a clock says, what was said, and the means of what is left."""
    said: list[str] = []
    monkeypatch.setattr("losslog.runtime.notices.warn", lambda text, *args: said.append(text % args))
    folder.mkdir()
    writer = Writer(folder)
    drain = kind(Queue(), writer, Tail(writer.path, own=True))
    drain.pace.active = False
    for items in turns:
        drain.take(list(items))
    left = drain.means.sums()
    drain.close(0.0)
    lines = (folder / JOURNAL).read_bytes().splitlines()
    for place, line in enumerate(lines):
        if b'"duration"' in line:
            body = json.loads(line)
            body["data"].pop("duration")
            lines[place] = json.dumps(body).encode()
    return lines, said, left, drain.figures()["records"]


def looped(seed: int, length: int) -> list[Item]:
    """What a loop may queue: long stretches of batches that are alike, and whatever comes between them."""
    draw, found, epoch = random.Random(seed), list[Item](), 1
    names, given, rate = draw.choice(NAMES), False, 0.1
    for step in range(length):
        if draw.random() < 0.03:
            names, given = draw.choice(NAMES), draw.random() < 0.4
            rate = draw.choice([None, 0.1, 0.1, 1, float("nan"), {"head": 0.1, "body": 0.2}])
        losses: Any = {name: draw.lognormvariate(0, 1) for name in names}
        if draw.random() < 0.02:
            losses[draw.choice(names)] = draw.choice(ODD)
        if draw.random() < 0.01:
            losses = 0.5
        total = None
        if given:
            total = sum(losses.values()) if isinstance(losses, dict) and draw.random() < 0.9 else draw.random()
        keys, values = snapshot(losses, total)
        if draw.random() < 0.01 and keys is not None:
            values = [3, *values[1:]]  # type: ignore[misc]
        batch = Batch(1.0 + step, step, epoch, keys, values, total is not None, rate, None, 1)
        if draw.random() < 0.02:
            more = [
                {"batch_size": 4},
                {"n": 2},
                {"stepped": False},
                {"counted": False},
                {"weights": lambda: {"a": 2.0}},
            ]
            batch = batch._replace(**draw.choice(more))
        found.append(batch)
        if draw.random() < 0.01:
            data = {"epoch": epoch, "epochs": None, "step": None, "losses": None, "val_loss": None, "lr": None}
            found.append(Event(1.5 + step, "on_epoch_end", data))
            epoch += 1
    return found


@pytest.mark.parametrize("seed", range(12))
def test_many_at_a_time_are_what_each_is_alone(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = looped(seed, 1500)
    cuts = sorted(random.Random(seed).sample(range(len(items)), 5))
    turns = [items[a:b] for a, b in zip([0, *cuts], [*cuts, len(items)], strict=True)]
    together = drained(tmp_path / "together", Drain, turns, monkeypatch)
    alone = drained(tmp_path / "alone", OneByOne, turns, monkeypatch)
    assert repr(together) == repr(alone)


def test_an_ordinary_loop_is_taken_many_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the test above would compare nothing."""
    taken: list[int] = []

    def counted(*args: Any) -> Any:
        found = alike(*args)
        taken.append(len(found.fresh) if found else 0)
        return found

    monkeypatch.setattr("losslog.recording.drain.alike", counted)
    for given in (False, True):
        taken.clear()
        items = [
            Batch(1.0, step, 1, ("a", "b"), [1.0, 2.0, 4.0][: 2 + given], given, 0.1, None, 1) for step in range(2000)
        ]
        figures = drained(tmp_path / str(given), Drain, [items], monkeypatch)
        assert figures[-1] == 2000 > WRITE_AT
        assert sum(taken) == 2000 - AT_ONCE
        assert taken.count(0) == 1


def test_what_is_not_alike_is_left_as_it_was(tmp_path: Path) -> None:
    rule = Totals(Once())
    hand = deque(Batch(1.0, step, 1, ("a", "b"), [1.0, float("inf")], False, 0.1, None, 1) for step in range(40))
    rule.apart({"a": 1.0, "b": 1.0})
    assert alike(hand, 0, rule) is None
    assert len(hand) == 40
    assert alike(deque([*hand][:1]), 0, rule) is None
    assert alike(deque(), 0, rule) is None
