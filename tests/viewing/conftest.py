"""Makes run folders with journals as runs write them."""

from __future__ import annotations

import importlib.util
import math
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from losslog.journal.folder import JOURNAL
from losslog.journal.records import Record, encode

NAMES = ("loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg")
BEGAN = 1_764_000_000.0


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Summaries are kept where the test can see them."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


class Book:
    """A journal under construction."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.path = folder / JOURNAL
        self.seq = 0
        self.time = BEGAN

    def add(self, hook: str, **data: Any) -> None:
        """Append one record."""
        with self.path.open("ab") as file:
            file.write(encode(Record(self.seq, self.time, hook, data)))
        self.seq += 1
        self.time += 0.1

    def start(self, name: str = "made", config: Mapping[str, Any] | None = None, **plan: Any) -> None:
        """Append ``on_run_start``."""
        data = {"epochs": None, "steps_per_epoch": None, "options": {}, "resumed": False, **plan}
        self.add("on_run_start", name=name, config=dict(config or {}), **data)

    def batch(self, step: int, losses: Any, epoch: int = 1, **more: Any) -> None:
        """Append ``on_batch_losses``."""
        total = sum(losses.values()) if isinstance(losses, dict) else losses
        self.add("on_batch_losses", step=step, epoch=epoch, losses=losses, **({"total": total, "lr": 0.01} | more))

    def epoch(self, epoch: int, step: int, losses: Any, **more: Any) -> None:
        """Append ``on_epoch_end``."""
        total = sum(losses.values()) if isinstance(losses, dict) else losses
        known = {"epochs": None, "total": total, "val_loss": total, "lr": 0.01, "duration": 1.0, "dropped": 0}
        self.add("on_epoch_end", epoch=epoch, step=step, losses=losses, **(known | more))

    def alert(self, title: str, step: int, component: str | None = None, level: str = "warning") -> None:
        """Append ``on_alert``."""
        self.add("on_alert", level=level, title=title, text=f"{title}: look.", source="plateau", component=component,
                 step=step, epoch=1, key=f"{title}/{step}")  # fmt: skip

    def end(self, status: str = "finished") -> None:
        """Append ``on_run_end``."""
        self.add("on_run_end", status=status, error=None)


def curve(step: int, scale: float, noise: random.Random) -> float:
    """A loss that falls."""
    return scale * (0.2 + math.exp(-step / 60)) * (1 + 0.2 * noise.random())


def make_run(folder: Path, name: str = "made", *, epochs: int = 4, per_epoch: int = 50, seed: int = 0,
             config: Mapping[str, Any] | None = None, names: tuple[str, ...] = NAMES, ended: str | None = "finished",
             change: tuple[int, str, float] | None = None) -> Path:  # fmt: skip
    """A whole run; ``change=(step, component, factor)`` multiplies a component from a step on."""
    noise = random.Random(seed)
    book = Book(folder)
    book.start(name, config, epochs=epochs, steps_per_epoch=per_epoch)
    for epoch in range(1, epochs + 1):
        losses: dict[str, float] = {}
        for step in range((epoch - 1) * per_epoch, epoch * per_epoch):
            losses = {each: curve(step, 0.1 * (place + 1), noise) for place, each in enumerate(names)}
            if change is not None and step >= change[0]:
                losses[change[1]] *= change[2]
            book.batch(step, losses, epoch, batch_size=4)
        scores = {"AP": 0.1 * epoch, "AP50": 0.15 * epoch, "classes": {"circle": 0.1 * epoch, "square": 0.09 * epoch}}
        book.add("on_eval", epoch=epoch, step=epoch * per_epoch - 1, split="val", metrics={"bbox": scores})
        book.epoch(epoch, epoch * per_epoch - 1, losses, epochs=epochs)
    if ended is not None:
        book.end(ended)
    return folder


@pytest.fixture(scope="session")
def book() -> type[Book]:
    return Book


@pytest.fixture(scope="session")
def write_run() -> Callable[..., Path]:
    return make_run


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium without network; skips where none is installed."""
    spec = importlib.util.spec_from_file_location("chromium", Path(__file__).with_name("chromium.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if sys.platform == "win32" or module.find() is None:
        pytest.skip("no Chromium on the PATH (apt-get install chromium)")
    opened = module.Chromium()
    yield opened
    opened.close()
