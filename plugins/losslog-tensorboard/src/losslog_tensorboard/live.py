"""An axis that writes to a SummaryWriter the user's program made.

Runs on the plugin's lane in the training process. Contract:

- Only the writer's public methods are used; it is flushed and never closed.
- The same points as in event files of our own; no purge, since a writer that exists cannot begin a new file.
- Only the process that was given the writer uses it; a forked child's worker is not there to take anything.
- What was handed over is not handed over again when the lane redelivers.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from losslog_tensorboard import events
from losslog_tensorboard.errors import EventsUnavailable

if TYPE_CHECKING:
    from losslog.detection.drawing import Sheet


class LiveAxis:
    """Points for a SummaryWriter of torch or tensorboardX.

    Args:
        writer: the user's.
    """

    broken = False
    found = True  # nobody can ask a writer what it has

    def __init__(self, writer: Any) -> None:
        self._writer, self._pid = writer, os.getpid()
        self._last: dict[str, tuple[float, int]] = {}

    def resumed(self, seq: int | None) -> None:
        """Points are taken as they come."""

    def add(self, time: float, step: int, series: Mapping[str, float], seq: int = -1) -> None:
        """Hand over the values of one step.

        Raises:
            EventsUnavailable: the writer's worker has died.
        """
        for tag, value in series.items():
            if self._last.get(tag, (0.0, 0)) < (time, step):
                self._call("add_scalar", tag, value, step, time)
                self._last[tag] = (time, step)

    def add_image(self, time: float, step: int, tag: str, sheet: Sheet, seq: int = -1) -> None:
        """Hand over a sheet of images, where the writer takes one.

        Raises:
            EventsUnavailable: the writer's worker has died.
        """
        if self._last.get(tag, (0.0, 0)) < (time, step) and hasattr(self._writer, "add_image"):
            self._call("add_image", tag, sheet.pixels(), step, time, "HWC")
            self._last[tag] = (time, step)

    def add_text(self, time: float, step: int, tag: str, markdown: str, *, once: bool = False) -> None:
        """Hand over a text.

        Raises:
            EventsUnavailable: the writer's worker has died.
        """
        if self._last.get(tag, (0.0, 0)) < (time, step) and not (once and tag in self._last):
            self._call("add_text", tag, markdown, step, time)
            self._last[tag] = (time, step)

    def describe(self, time: float, run_id: str, config: Mapping[str, Any], *, layout: bool, hparams: bool) -> None:
        """Hand over the custom-scalars layout, where the writer takes one; its ``add_hparams`` would make another run.

        Raises:
            EventsUnavailable: the writer's worker has died.
        """
        if layout and hasattr(self._writer, "add_custom_scalars"):
            charts = {
                title: {name: ["Multiline", tags] for name, tags in group.items()}
                for title, group in events.LAYOUT.items()
            }
            self._call("add_custom_scalars", charts)

    def finish(self, time: float) -> None:
        """Nothing: what the HPARAMS page shows is the user's here."""

    def purge(self, time: float, step: int) -> None:
        """Not possible here: the writer was made with its own ``purge_step``, or without."""

    def flush(self, *, sync: bool = False) -> None:
        """Ask the writer to write what it has queued.

        Raises:
            EventsUnavailable: the writer's worker has died.
        """
        self._call("flush")

    def close(self) -> None:
        """Flush; the writer stays the user's."""
        self.flush()

    def drop(self) -> None:
        """Nothing is gathered here."""

    def _call(self, method: str, *args: Any) -> None:
        if os.getpid() != self._pid:
            return
        try:
            getattr(self._writer, method)(*args)
        except OSError as error:
            raise EventsUnavailable(error.errno, f"the SummaryWriter given as writer= failed: {error}") from error
