"""Several ranks of one run in this process: each rank's sender, and the logging rank's drain, by hand."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from losslog.journal.file import Writer
from losslog.journal.folder import JOURNAL
from losslog.journal.tail import Tail
from losslog.ranks.joining import Joiner
from losslog.ranks.store import Store
from losslog.recording.drain import Drain
from losslog.recording.intake import Queue
from losslog.recording.items import Batch, Event
from losslog.recording.sender import Sender
from losslog.values.snapshot import snapshot


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.perf_counter = time.perf_counter

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    for module in ("ranks.joining", "ranks.mail", "ranks.relay"):
        monkeypatch.setattr(f"losslog.{module}.time", found)
    monkeypatch.setattr("losslog.recording.sender.time", found)
    return found


class Ranks:
    """Several ranks of one run; rank 0 logs."""

    def __init__(self, folder: Path, stores: Callable[[], Store], world_size: int = 2) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.journal = folder / JOURNAL
        self.writer = Writer(folder)
        self.posted: list[tuple[str, dict[str, Any]]] = []
        self.joiner = Joiner(stores(), 0, world_size, lambda kind, data: self.posted.append((kind, data)))
        self.drain = Drain(Queue(), self.writer, Tail(self.writer.path, own=True), joiner=self.joiner)
        self.senders = {rank: Sender(Queue(), stores(), rank, world_size=world_size) for rank in range(1, world_size)}
        self.steps = [0] * world_size
        for intake in (self.drain, *self.senders.values()):
            intake.pace.active = False

    def log(self, rank: int, losses: Any, *, epoch: int = 1, total: float | None = None) -> None:
        keys, values = snapshot(losses, total)
        step, self.steps[rank] = self.steps[rank], self.steps[rank] + 1
        batch = Batch(time.time(), step, epoch, keys, values, total is not None, None, None, 1)
        self.take(rank, batch)

    def end(self, rank: int, epoch: int = 1, val_loss: Any = None, *, heard: bool = True) -> None:
        data = {"epoch": epoch, "epochs": None, "step": self.steps[rank] - 1, "losses": None, "val_loss": val_loss,
                "lr": None}  # fmt: skip
        self.take(rank, Event(time.time(), "on_epoch_end", data, heard))

    def take(self, rank: int, *items: Any) -> None:
        """The drain of one rank takes its turn."""
        self.senders.get(rank, self.drain).take(items)

    def turn(self) -> None:
        """The drains have nothing of their own to do."""
        for rank in (*self.senders, 0):
            self.take(rank)

    def data(self, hook: str) -> list[dict[str, Any]]:
        records = [json.loads(line) for line in self.journal.read_bytes().splitlines()]
        assert [each["seq"] for each in records] == list(range(len(records)))
        return [each["data"] for each in records if each["hook"] == hook]

    @property
    def batches(self) -> list[dict[str, Any]]:
        return self.data("on_batch_losses")

    @property
    def epochs(self) -> list[dict[str, Any]]:
        return self.data("on_epoch_end")


@pytest.fixture
def ranks(tmp_path: Path, stores: Callable[[], Store]) -> Iterator[Callable[..., Ranks]]:
    made: list[Ranks] = []

    def make(world_size: int = 2) -> Ranks:
        made.append(Ranks(tmp_path / str(len(made)), stores, world_size))
        return made[-1]

    yield make
    for each in made:
        each.writer.close()
