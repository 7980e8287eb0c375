"""How far the run is: batches in the epoch, epochs in the run, time left, the losses of now.

Runs on the plugin's lane. Contract:

- Rates come from the times of the records, so a lane that is behind shows the training's speed and not its own.
- Where the length of an epoch was not said, the last epoch tells it; until then there is no bar and no ETA.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from losslog import scalars
from losslog_console.blocks import title
from losslog_console.words import clean, clock, shortened, unprefixed

BAR: Final = 24
FEWEST: Final = 3  # digits after the point in the line of losses
TURN: Final = 3.0  # seconds for which the losses that do not fit take turns


class Progress:
    """The state of the run as far as it was told."""

    def __init__(self) -> None:
        self.epochs: int | None = None
        self.steps_per_epoch: int | None = None
        self.epoch: int | None = None
        self.step = 0
        self._first = 0
        self._began = 0.0
        self._time = 0.0
        self._learnt: int | None = None
        self._alerts = 0
        self._alert = ""
        self._epoch_seconds: float | None = None
        self._ended = False

    def batch(self, step: int, epoch: int | None, time: float) -> None:
        """A batch is done."""
        if epoch != self.epoch or self._ended or step < self._first:
            self.epoch, self._first, self._began, self._ended = epoch, step, time, False
        self.step, self._time = step, time

    def epoch_end(self, time: float) -> None:
        """The epoch is over: what comes next is another pass, whatever its number."""
        if self.epoch is not None and not self._ended:
            self._learnt = self.step - self._first + 1
            self._epoch_seconds = time - self._began
        self._ended = True

    def loaded(self, steps: Any) -> None:
        """How long the first epoch is going to be, as the data loader says."""
        if self._learnt is None and type(steps) is int and steps > 0:
            self._learnt = steps

    def alert(self, level: str, title: str, place: str) -> None:
        """Something was told that should not scroll away."""
        if level != "info":
            self._alerts += 1
            self._alert = f"{title}{f' ({place})' if place else ''}"

    @property
    def length(self) -> int | None:
        """Steps in an epoch, as planned or as learnt."""
        return self.steps_per_epoch or self._learnt

    @property
    def position(self) -> int:
        """Steps done in this epoch."""
        done = self.step - self._first + 1
        if self.steps_per_epoch and self.epoch is not None:
            planned = self.step - (self.epoch - 1) * self.steps_per_epoch + 1
            if done <= planned <= self.steps_per_epoch:
                return planned
        return done

    def where(self) -> str:
        """``Epoch 5/20 [120/500]``."""
        of = f"/{self.length}" if self.length else ""
        return f"{title(self.epoch or 0, self.epochs)} [{self.position}{of}]"

    def left(self) -> tuple[float | None, float | None]:
        """Seconds left in the epoch and in the run; None where nothing tells."""
        steps = self.step - self._first
        if not steps or not self.length or self._time <= self._began:
            return None, None
        pace = (self._time - self._began) / steps
        epoch = max(0, self.length - self.position) * pace
        if not self.epochs or self.epoch is None:
            return epoch, None
        each = self._epoch_seconds or self.length * pace
        return epoch, epoch + max(0, self.epochs - self.epoch) * each

    def lines(self, losses: Any, total: Any, emoji: bool, precision: int, width: int, render: Any) -> list[str]:
        """The two lines of the footer, and a third one for alerts, rendered for the terminal.

        Args:
            losses: of the latest batch.
            total: of the latest batch.
            emoji: whether the stream has the characters of the bar.
            precision: digits after the point.
            width: of the terminal in cells.
            render: makes a string of a ``rich.text.Text``.
        """
        from rich.text import Text

        first = Text(title(self.epoch or 0, self.epochs), style="bold", end="")
        if self.length:
            full = min(BAR, BAR * self.position // self.length)
            line, rest = ("━", "─") if emoji else ("#", ".")
            first.append("  ").append(line * full, "not bold green").append(rest * (BAR - full), "not bold dim")
        of = f"/{self.length}" if self.length else " batches"
        first.append(f"  {self.position}{of}", "not bold")
        steps = self.step - self._first
        if steps and self._time > self._began:
            pace = steps / (self._time - self._began)
            first.append(f"  {pace:.1f} it/s" if pace >= 1 else f"  {1 / pace:.1f} s/it", "not bold cyan")
        epoch, run = self.left()
        if epoch is not None:
            first.append(f"  ETA {clock(epoch)}", "not bold")
        if run is not None:
            first.append(f", run {clock(run)}", "not bold")
        values = scalars("x", losses, total)
        if isinstance(losses, Mapping):
            parts = [("total", values["x_total"]), *((name, values[f"x_{name}"]) for name in sorted(losses))]
        else:
            parts = [("loss", values["x"])]
        second = Text(end="")
        names, numbers = [clean(name) for name, _ in parts], [value for _, value in parts]
        for name, number in self._fitted(names, numbers, precision, width):
            second.append(f"{name} ", "dim").append(f"{number}  ")
        shown = [first, second]
        if self._alerts:
            count = f"{self._alerts} alerts, the last: " if self._alerts > 1 else ""
            shown.append(Text(f"! {count}{clean(self._alert)}", style="bold yellow", end=""))
        for text in shown:
            text.truncate(width - 1, overflow="ellipsis" if emoji else "crop")
        return [render(text) for text in shown]

    def _fitted(self, names: list[str], values: list[float], precision: int, width: int) -> list[tuple[str, str]]:
        """All components in one line: names and digits are cut as far as it takes; else they take turns."""
        plain = unprefixed(names)
        fewest = min(precision, FEWEST)
        for digits, shown in ((precision, names), (precision, plain), (fewest, plain), (fewest, None)):
            texts = [f"{value:.{digits}f}" for value in values]
            room = width - 1 - sum(len(text) + 3 for text in texts)
            shown = shortened(plain, room) if shown is None else shown
            if sum(map(len, shown)) <= room:
                return list(zip(shown, texts, strict=True))
        return self._turn(list(zip(plain, texts, strict=True)), width)

    def _turn(self, pairs: list[tuple[str, str]], width: int) -> list[tuple[str, str]]:
        """The total, and those of the others whose turn it is."""
        pages: list[list[tuple[str, str]]] = []
        for pair in pairs[1:]:
            if not pages or sum(len(name) + len(text) + 3 for name, text in [*pages[-1], pair]) > width - 1:
                pages.append([pairs[0]])
            pages[-1].append(pair)
        return pages[int(self._time / TURN) % len(pages)] if pages else pairs
