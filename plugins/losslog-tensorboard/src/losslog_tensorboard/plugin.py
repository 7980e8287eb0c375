"""The plugin: the numbers of a record become one event on the epoch axis or on the step axis.

Runs on the plugin's lane, in losslog's follower process; with ``writer``, in the training process. Contract:

- What stands at epochs is in ``<log_dir>``, what stands at steps, and alerts, in its sub-run ``<log_dir>/batch``.
- Hooks gather; `TensorBoardPlugin.on_flush` returns when all that was delivered has reached the operating system.
  ``kill -9`` takes what came since the last one, and it will come again.
- A forked child of the owner writes nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from losslog import NotReady, hookimpl
from losslog.detection.sheets import sheet_of, tag_of

if TYPE_CHECKING:
    from losslog_tensorboard.axis import Axis
    from losslog_tensorboard.live import LiveAxis

    Axes = tuple[Axis, Axis] | tuple[LiveAxis, LiveAxis]

GRAVITY: Final = {"info": 1, "warning": 2, "error": 3}
ALERTS: Final = "alerts"
CONFIG: Final = "config"


class TensorBoardPlugin:
    """Every series of a run in TensorBoard.

    Args:
        log_dir: where the events go; None is ``tensorboard`` in the run folder. ``{id}`` and ``{name}`` stand for the
            run's.
        writer: a SummaryWriter that exists already, of torch or tensorboardX; everything goes to it, from a thread of
            the training process, and it is not closed. Excludes ``log_dir``.
        layout: write the custom-scalars page that shows the components in one chart.
        hparams: write the config for the HPARAMS page; not with ``writer``.
        config_text: write the config as a text.
        images: write a sheet of each record of images.

    Raises:
        losslog.NotReady: tensorboard is not installed.
        TypeError, ValueError: an option is not what it may be.
    """

    journal_options = ("layout", "hparams", "config_text", "images")

    def __init__(
        self,
        log_dir: str | os.PathLike[str] | None = None,
        writer: Any = None,
        layout: bool = True,
        hparams: bool = True,
        config_text: bool = True,
        images: bool = True,
    ) -> None:
        switches = {"layout": layout, "hparams": hparams, "config_text": config_text, "images": images}
        for name, value in switches.items():
            if not isinstance(value, bool):
                raise TypeError(f"tensorboard option {name}={value!r}: pass True or False")
        if log_dir is not None and not isinstance(log_dir, str | os.PathLike):
            raise TypeError(f"tensorboard option log_dir={log_dir!r}: pass a path")
        if writer is not None:
            missing = [
                name for name in ("add_scalar", "add_text", "flush") if not callable(getattr(writer, name, None))
            ]
            if missing:
                raise TypeError(f"tensorboard option writer={writer!r} has no {missing[0]}(): pass a SummaryWriter")
            if log_dir is not None:
                raise ValueError("tensorboard options writer and log_dir: pass one; a writer has its own folder")
            self.near = True  # a live object cannot go to another process
        if find_spec("tensorboard") is None:
            raise NotReady("tensorboard is not installed: pip install tensorboard")
        self._log_dir = None if log_dir is None else os.fspath(log_dir)
        self._writer = writer
        self._layout, self._hparams, self._config_text, self._images = layout, hparams, config_text, images
        self._axes: Axes | None = None
        self._resumed: int | None = None
        self._step = 0
        self._epoch_ended = False

    @hookimpl
    def on_run_start(
        self, name: str, config: Mapping[str, Any], resumed: bool, run: Any, time: float, seq: int
    ) -> None:
        """Describe the run: layout, config, hyperparameters."""
        self._resumed = seq if resumed else None
        axes = self._open(run)
        for axis in axes:
            axis.resumed(self._resumed)
        axes[0].describe(time, run.id, config, layout=self._layout, hparams=self._hparams)
        if self._config_text and config:
            from losslog_tensorboard.events import config_markdown

            axes[0].add_text(time, 0, CONFIG, config_markdown(name, run.id, config), once=True)
        self._flush()

    def delivered_upto(self, run: Any) -> int | None:
        """Nothing at all where somebody removed the files, so that all is delivered again; else the cursor knows.

        Raises:
            EventsUnavailable: the folders cannot be read.
        """
        axes = self._open(run)
        return None if axes[0].found and axes[1].found else -1

    @hookimpl
    def on_scalars(self, series: Mapping[str, float], axis: str, x: int, run: Any, time: float, seq: int) -> None:
        """One event at the step or the epoch; what stands at an epoch is written at once."""
        self._open(run)[axis == "step"].add(time, x, series, seq)
        if axis == "epoch":
            self._flush()
        else:
            self._step = x  # an alert may not know how far training is

    @hookimpl
    def on_epoch_end(self) -> None:
        """The next flush goes to the disk itself."""
        self._epoch_ended = True

    @hookimpl
    def on_images(
        self,
        epoch: int,
        split: str,
        name: str,
        images: Sequence[Mapping[str, Any]],
        run: Any,
        time: float,
        seq: int,
    ) -> None:
        """A sheet at the epoch."""
        sheet = sheet_of(split, name, epoch, images) if self._images else None
        if sheet is not None:
            self._open(run)[0].add_image(time, epoch or 0, tag_of(split, name), sheet, seq)
            self._flush()

    @hookimpl
    def on_alert(
        self,
        level: str,
        title: str,
        text: str,
        source: str,
        component: str | None,
        step: int | None,
        epoch: int | None,
        run: Any,
        time: float,
        seq: int,
    ) -> None:
        """A text at the step, and a mark in a series of the component's own beside its losses."""
        from losslog_tensorboard.events import alert_markdown

        where = ", ".join(f"{axis} {x}" for axis, x in (("epoch", epoch), ("step", step)) if x is not None)
        markdown = alert_markdown(level, title, text, source, component, where)
        at = self._step if step is None else step
        self._open(run)[1].add_text(time, at, ALERTS, markdown)
        if component is not None:
            self._open(run)[1].add(time, at, {f"alert/{component}": float(GRAVITY.get(level, 1))}, seq)
        self._flush()

    @hookimpl
    def on_resume(self, epoch: int | None, step: int | None, run: Any, time: float) -> None:
        """Later points are superseded: each axis begins a new file that says so."""
        axes = self._open(run)
        if epoch is not None:
            axes[0].purge(time, epoch + 1)
        if step is not None:
            axes[1].purge(time, step + 1)
        self._flush()

    @hookimpl
    def on_run_end(self, status: str, time: float) -> None:
        """Say that it has finished, bring all to the disk, close the files."""
        if self._axes is None:
            return
        if status == "finished" and self._hparams:  # any other end may be continued
            self._axes[0].finish(time)
        self._flush(sync=True)
        for axis in self._axes:
            axis.close()
        self._axes = None

    @hookimpl
    def on_flush(self) -> None:
        """Write what was gathered; once an epoch also to the disk itself."""
        self._flush(sync=self._epoch_ended)
        self._epoch_ended = False

    def _open(self, run: Any) -> Axes:
        """The epoch axis and the step axis; new ones after an error."""
        if self._axes is not None and (self._axes[0].broken or self._axes[1].broken):
            for axis in self._axes:
                axis.drop()
            self._axes = None
        if self._axes is None and self._writer is not None:
            from losslog_tensorboard.live import LiveAxis

            self._axes = (LiveAxis(self._writer), LiveAxis(self._writer))
        elif self._axes is None:
            from losslog_tensorboard.axis import Axis

            folder, at = self._folder(run), self._resumed
            self._axes = (Axis(folder, run.id, 1, at), Axis(folder / "batch", run.id, 0, at))
        return self._axes

    def _folder(self, run: Any) -> Path:
        if self._log_dir is None:
            return Path(run.dir) / "tensorboard"
        return Path(self._log_dir.replace("{id}", run.id).replace("{name}", _as_folder(run.name)))

    def _flush(self, *, sync: bool = False) -> None:
        for axis in self._axes or ():
            axis.flush(sync=sync)


def _as_folder(name: str) -> str:
    """A run's name as the name of one folder: it comes with the journal, and must not lead elsewhere."""
    return re.sub(r"[^\w.+@=-]+", "-", name, flags=re.ASCII).strip("-.")[:100] or "run"
