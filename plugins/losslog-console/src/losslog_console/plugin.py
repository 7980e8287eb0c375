"""The plugin: epochs as blocks of text, progress where somebody watches, alerts at once.

Runs on the plugin's lane, a thread of the training process. Contract:

- A batch costs a look at the clock; what it said is shown at the next redraw, at most four times a second.
- Evaluations and checkpoints wait for their epoch's end; later ones are printed at once.
- Nothing here raises for what a terminal, a pipe or a name does.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from losslog import NotReady, hookimpl
from losslog_console import screen
from losslog_console.blocks import KINDS, Blocks, title
from losslog_console.footer import Footer
from losslog_console.memory import Memory
from losslog_console.progress import Progress
from losslog_console.styles import import_styles
from losslog_console.trend import Trend
from losslog_console.words import clean

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

REDRAW: Final = 0.25  # seconds
LOG_WIDTH: Final = 100  # cells; alerts are wrapped to it where there is no terminal


class ConsolePlugin:
    """Every epoch of a run in the terminal.

    Args:
        progress: draw live progress: True on every terminal, False never, ``auto`` on a terminal that somebody is
            likely to watch (not with ``CI`` set, not where ``TTY_COMPATIBLE`` or ``TTY_INTERACTIVE`` is 0).
        batches: where no progress is drawn, print a line every so many batches; 0 is never.
        emoji: True, False, or ``auto``: where the stream's encoding has them.
        precision: digits after the point.
        stream: ``stdout`` or ``stderr``.

    Raises:
        losslog.NotReady: rich is not installed.
        TypeError, ValueError: an option is not what it may be.
    """

    near = True
    journal_options = ("progress", "batches", "emoji", "precision", "stream")

    def __init__(
        self,
        progress: bool | str = "auto",
        batches: int = 0,
        emoji: bool | str = "auto",
        precision: int = 4,
        stream: str = "stdout",
    ) -> None:
        for name, choice in (("progress", progress), ("emoji", emoji)):
            if not isinstance(choice, bool) and choice != "auto":
                raise ValueError(f"console option {name}={choice!r}: pass True, False or 'auto'")
        for name, number, most in (("batches", batches, None), ("precision", precision, 15)):
            if not isinstance(number, int) or isinstance(number, bool):
                raise TypeError(f"console option {name}={number!r}: pass a whole number")
            if number < 0 or (most is not None and number > most):
                raise ValueError(f"console option {name}={number!r}: pass 0 to {most or 'any number'}")
        if stream not in ("stdout", "stderr"):
            raise ValueError(f"console option stream={stream!r}: pass 'stdout' or 'stderr'")
        if find_spec("rich") is None:
            raise NotReady("rich is not installed: pip install rich")
        import_styles()
        self._progress, self._batches, self._emoji = progress, batches, emoji
        self.newest_only = not batches  # what is drawn is the newest; lines are counted
        self._precision, self._stream = precision, stream
        self._state = Progress()
        self._memory = Memory()
        self._crash: list[str] = []
        self._trend = Trend()
        self._footer: Footer | None = None
        self._console: Console | None = None
        self._held: dict[int, list[list[str]]] = {}
        self._saved: dict[int, list[str]] = {}
        self._ended: int | None = None
        self._latest: tuple[Any, Any] | None = None
        self._due = 0.0
        self._since_line = 0

    @staticmethod
    def watch(live: Any, interval: float = 0.5) -> None:
        """Show a run that some process trains, until ``q``: what ``losslog watch`` draws with.

        Args:
            live: the run as it is read.
            interval: seconds between two looks.
        """
        from losslog_console.watching import watch

        watch(live, interval)

    @hookimpl
    def on_run_start(self, epochs: int | None, steps_per_epoch: int | None, resumed: bool, run: Any) -> None:
        """Learn the plan, and what a resumed run has reached before; make room for progress where it is drawn."""
        if resumed:
            self._memory.recall(run.dir, KINDS)
        self._state.epochs, self._state.steps_per_epoch = epochs, steps_per_epoch
        self._crash = []  # the run goes on
        target = screen.stream(self._stream)
        if self._footer is None and screen.wants_progress(target, self._progress):
            from rich.console import Console

            with suppress(AttributeError):  # somebody's own stream object: nothing is drawn on it
                self._footer = Footer(target)
                self._console = Console(file=target, force_terminal=True, highlight=False, width=10_000)

    @hookimpl
    def on_batch_losses(self, step: int, epoch: int, losses: Any, total: Any, lr: Any, time: float) -> None:
        """Remember it; redraw if it is time to."""
        self._state.batch(step, epoch, time)
        self._latest = (losses, total)
        if self._footer is not None:
            if monotonic() >= self._due:
                self._draw()
        elif self._batches:
            self._since_line += 1
            if self._since_line >= self._batches:
                self._since_line = 0
                self._print([self._blocks().batch(self._state.where(), losses, total, lr)])

    @hookimpl
    def on_eval(self, epoch: int, split: str, metrics: Mapping[str, Any]) -> None:
        """Keep it for its epoch's block; print it if that is out."""
        lines = self._blocks().evaluation(split, metrics)
        if split == "val":
            self._memory.add_metrics(epoch, metrics, KINDS)
        if self._ended is None or epoch > self._ended:
            self._held.setdefault(epoch, []).append(lines)
        else:
            self._print([*([] if epoch == self._ended else [title(epoch, self._state.epochs)]), *lines])

    @hookimpl
    def on_epoch_end(
        self,
        epoch: int,
        epochs: int | None,
        losses: Any,
        total: Any,
        val_loss: Any,
        dropped: int | None,
        time: float,
        lr: Any,
        duration: float | None,
        weights: Mapping[str, float] | None,
    ) -> None:
        """Print the epoch's block."""
        epochs = self._state.epochs = self._state.epochs if epochs is None else epochs
        lines = self._leftover(epoch)
        self._trend.add(epoch, losses, total)
        blocks = self._blocks()
        trends = self._trend.told(blocks.width, blocks.emoji)
        lines += blocks.epoch(epoch, epochs, losses, total, val_loss, trends, weights)
        for held in self._held.pop(epoch, []):
            lines += held
        self._memory.add_losses(epoch, val_loss)
        lines += blocks.time(duration, lr, self._memory.best(self._precision))
        if dropped:
            lines.append(f"   ({dropped} batches of this epoch were not logged: the queue was full)")
        lines += self._saved.pop(epoch, [])
        self._ended = epoch
        self._latest = None
        self._state.epoch_end(time)
        self._print(lines)

    @hookimpl
    def on_metrics(self, detail: Any) -> None:
        """Learn how long an epoch is, where its loader says so."""
        self._state.loaded((detail or {}).get("steps_per_epoch"))

    @hookimpl
    def on_checkpoint(self, epoch: int | None, path: str, run: Any) -> None:
        """Say where it is, after its epoch's block."""
        line = self._blocks().checkpoint(path, Path(run.dir))
        if epoch is not None and epoch == self._state.epoch and epoch != self._ended:
            self._saved.setdefault(epoch, []).append(line)
        else:
            self._print([line])

    @hookimpl
    def on_alert(self, level: str, title: str, text: str, source: str, step: int | None, epoch: int | None) -> None:
        """Print it at once, wrapped, its words as they are."""
        places = [f"{name} {x}" for name, x in (("step", step), ("epoch", epoch)) if x is not None]
        self._state.alert(level, title, "".join(places[:1]))
        about = [source, *(f"{name} {x}" for name, x in (("epoch", epoch), ("step", step)) if x is not None)]
        head, body = self._blocks().alert(level, title, text, about)
        width = screen.width(screen.stream(self._stream)) or LOG_WIDTH
        style = {"error": "bold red", "warning": "bold yellow"}.get(level, "bold")
        self._print(
            [*self._wrap(head, width, style), *(line for part in body for line in self._wrap(f"   {part}", width))]
        )

    @hookimpl
    def on_resume(self, epoch: int | None) -> None:
        """What was kept of later epochs will come again."""
        if epoch is not None:
            self._ended = epoch
            self._trend.rewind(epoch)
            self._memory.back_to(epoch)
            self._held = {held: lines for held, lines in self._held.items() if held <= epoch}
            self._saved = {}

    @hookimpl
    def on_run_end(self, status: str, error: str | None) -> None:
        """Print what still waits, and how it ended unless all is well; give the terminal back."""
        lines = self._leftover(None)
        if status == "crashed":  # news only where the run does not go on
            self._crash = ["Run crashed"]
        elif status != "finished":
            lines.append(clean(f"Run {status}{f': {error}' if error else ''}"))
        if lines:
            self._print(lines)
        if self._footer is not None:
            self._footer.stop()
            self._footer = None

    @hookimpl
    def on_flush(self) -> None:
        """Nothing waits for long: show the latest if it has not been shown."""
        if self._crash:
            self._print(self._crash)
            self._crash = []
        if self._footer is not None and self._latest is not None and monotonic() >= self._due:
            self._draw()

    def _leftover(self, before: int | None) -> list[str]:
        """What waited for the end of an epoch that never came, with its epoch's name."""
        lines: list[str] = []
        for epoch in sorted({*self._held, *self._saved}):
            if before is None or epoch < before:
                lines.append(title(epoch, self._state.epochs))
                for held in self._held.pop(epoch, []):
                    lines += held
                lines += self._saved.pop(epoch, [])
        return lines

    def _blocks(self) -> Blocks:
        target = screen.stream(self._stream)
        emoji = screen.shows_emoji(target) if self._emoji == "auto" else bool(self._emoji)
        return Blocks(emoji, self._precision, screen.width(target))

    def _draw(self) -> None:
        if self._latest is None or self._footer is None:
            return
        self._due = monotonic() + REDRAW
        target = screen.stream(self._stream)
        lines = self._state.lines(
            *self._latest, screen.encodes(target, "━─…"), self._precision, screen.width(target) or 80, self._render
        )
        self._footer.draw(lines)

    def _print(self, lines: list[str]) -> None:
        text = "".join(f"{line}\n" for line in lines)
        if self._footer is not None:
            self._footer.print(text)
        else:
            screen.put(screen.stream(self._stream), text)

    def _wrap(self, line: str, width: int, style: str = "") -> list[str]:
        from rich.console import Console
        from rich.text import Text

        console = self._console or Console(width=width)
        indent = "   "
        wrapped = Text(line.strip()).wrap(console, max(20, width - len(indent) - 1))
        lines = [
            indent * (index > 0 or line.startswith(indent)) + part.plain.rstrip() for index, part in enumerate(wrapped)
        ]
        if self._console is None or not style:
            return lines
        return [self._render(Text(part, style=style, end="")) for part in lines]

    def _render(self, text: Text) -> str:
        assert self._console is not None
        with self._console.capture() as captured:
            self._console.print(text, end="", soft_wrap=True)
        return captured.get()
