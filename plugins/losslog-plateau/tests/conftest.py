"""Made-up losses, a run handle that remembers, and the real curves where the checkout has them."""

from __future__ import annotations

import csv
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from losslog_plateau import Finding, Watcher

CURVES = Path(__file__).resolve().parents[4] / "shared" / "curves"
OTHERS = {
    "loss_classifier": (0.9, 0.10),
    "loss_box_reg": (0.5, 0.08),
    "loss_objectness": (0.3, 0.04),
    "loss_rpn_box_reg": (0.25, 0.05),
}
Trend = Callable[[float], float]


@dataclass
class RecordingRun:
    """The ``run`` argument of hooks: remembers what was asked of it."""

    dir: Path | None = None
    alerts: list[dict[str, Any]] = field(default_factory=list)
    stops: list[str] = field(default_factory=list)
    rates: list[tuple[float, str | None]] = field(default_factory=list)

    def alert(self, title: str, text: str = "", level: str = "warning", **more: Any) -> None:
        self.alerts.append({"title": title, "text": text, "level": level, **more})

    def request_stop(self, reason: str) -> None:
        self.stops.append(reason)

    def request_lr(self, factor: float, group: str | None = None) -> None:
        self.rates.append((factor, group))

    def states(self, component: str) -> list[str]:
        """States alerted for a component, in order."""
        return [alert["key"].split("/")[-2] for alert in self.alerts if f"/{component}/" in alert["key"]]


@dataclass
class Rows:
    """Makes noisy losses: healthy components, and ``loss_mask`` as told."""

    steps: int = 3000
    per_epoch: int = 50
    noise: float = 0.3
    seed: int = 0

    def __call__(self, mask: Trend, others: bool = True) -> Iterator[tuple[int, dict[str, float]]]:
        draw = random.Random(self.seed)
        for step in range(self.steps):
            epoch = step / self.per_epoch
            losses = {"loss_mask": mask(epoch)}
            if others:
                losses |= {name: healthy(epoch, *ends) for name, ends in OTHERS.items()}
            yield step, {name: self.shaken(value, draw) for name, value in losses.items()}

    def shaken(self, value: float, draw: random.Random) -> float:
        return value * math.exp(draw.gauss(0, self.noise) - self.noise**2 / 2)


def healthy(epoch: float, start: float = 0.9, end: float = 0.1, tau: float = 15.0) -> float:
    """A curve that falls throughout."""
    return end + (start - end) * math.exp(-epoch / tau)


def stalled(onset: float = 15.0, floor: float = 0.1) -> Trend:
    """A curve that freezes at an epoch."""
    return lambda epoch: healthy(min(epoch, onset), 1.2, floor, 12.0)


def feed(watcher: Watcher, rows: Iterator[tuple[int, dict[str, float]]], **more: Any) -> list[Finding]:
    """All findings of a run."""
    return [finding for step, losses in rows for finding in watcher.update(step, losses, **more)]


@pytest.fixture
def rows() -> type[Rows]:
    return Rows


@pytest.fixture
def run() -> RecordingRun:
    return RecordingRun()


@pytest.fixture
def make() -> Any:
    """The functions of this module, for tests."""

    class Make:
        healthy = staticmethod(healthy)
        stalled = staticmethod(stalled)
        feed = staticmethod(feed)
        run = RecordingRun

    return Make


@dataclass
class RealCurve:
    """One recorded run."""

    name: str
    rows: list[dict[str, str]]

    @property
    def tiny(self) -> bool:
        return self.name[0] in "hu"

    @property
    def per_epoch(self) -> int | None:
        if self.name.startswith("tv_"):
            return 60
        if self.tiny:
            return sum(row["epoch"] == "0" for row in self.rows)
        last = self.rows[-1]
        return round(int(last["step"]) / int(last["epoch"])) if "epoch" in last else None

    @property
    def planned(self) -> int:
        return int(self.rows[-1]["step"]) + (self.per_epoch != 1)

    def epoch(self, row: dict[str, str]) -> int:
        """From 1."""
        if "epoch" not in row:
            return int(row["step"]) // 100 + 1  # nobody knows: any length will do
        return int(row["epoch"]) + (self.rows[0]["epoch"] == "0")

    def findings(self, **settings: Any) -> list[Finding]:
        """Everything a watcher says that knows plan, epoch and ranges."""
        watcher = Watcher(self.planned, self.per_epoch, **settings)
        return [finding for row in self.updates() for finding in watcher.update(*row)]

    def updates(self) -> Iterator[tuple[int, dict[str, float], float | None, float | None]]:
        names = [name for name in self.rows[0] if name.startswith("loss_") or name.endswith("_loss")]
        names = [name for name in names if not name.endswith("epochavg")]
        for row in self.rows:
            losses = {name: float(row[name]) for name in names if row[name]}
            lr = float(row["lr"]) if row.get("lr") else None
            total = row.get("total" if self.tiny else "loss")
            yield int(row["step"]), losses, lr, None if total is None else float(total)


@pytest.fixture
def curve() -> Callable[[str], RealCurve]:
    """Reads a recorded run; skips where the recordings are not beside the checkout."""

    def read(name: str) -> RealCurve:
        path = CURVES / f"{name}.csv"
        if not path.exists():
            pytest.skip(f"needs the recorded curves in ../shared/curves ({name}.csv is not there)")
        with path.open(newline="") as file:
            return RealCurve(name, list(csv.DictReader(file)))

    return read
