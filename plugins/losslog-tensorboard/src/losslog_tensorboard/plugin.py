"""The plugin: each hook becomes events on the epoch axis or on the batch axis.

Runs on the plugin's lane, in the follower process unless a live writer was given. Contract:

- Epoch series stand in ``<log_dir>``, batch series and alerts in its sub-run ``<log_dir>/batch``.
- `on_flush` returns when all that was delivered has reached the operating system; `kill -9` takes what came since the
  last one, and the lane delivers that again.
- A forked child of the owner writes nothing.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from time import time as now
from typing import TYPE_CHECKING, Any

from losslog import NotReady, batch_series, epoch_series, eval_series, hookimpl

if TYPE_CHECKING:
    from losslog_tensorboard.axis import Axis
    from losslog_tensorboard.live import LiveAxis

    Axes = tuple[Axis, Axis] | tuple[LiveAxis, LiveAxis]

ALERTS = "alerts"
CONFIG = "config"


class TensorBoardPlugin:
    """Writes a run to TensorBoard.

    Args:
        log_dir: where the events go; None is ``tensorboard`` in the run folder. ``{id}`` and ``{name}`` stand for the
            run's.
        writer: a SummaryWriter that exists already, of torch or tensorboardX; everything goes to it, from a thread of
            the training process, and it is not closed. Excludes ``log_dir``.
        layout: write the custom-scalars page that shows the components in one chart.
        hparams: write the config for the HPARAMS page; not with ``writer``.
        config_text: write the config as a text.

    Raises:
        losslog.NotReady: the tensorboard package is missing.
        TypeError, ValueError: an option is not what it may be.
    """

    def __init__(
        self,
        log_dir: str | os.PathLike[str] | None = None,
        writer: Any = None,
        layout: bool = True,
        hparams: bool = True,
        config_text: bool = True,
    ) -> None:
        for name, value in (("layout", layout), ("hparams", hparams), ("config_text", config_text)):
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
            raise NotReady("the package tensorboard is not installed: pip install tensorboard")
        self._log_dir = None if log_dir is None else os.fspath(log_dir)
        self._writer = writer
        self._layout, self._hparams, self._config_text = layout, hparams, config_text
        self._pid: int | None = None
        self._axes: Axes | None = None
        self._resumed_at: float | None = None
        self._step = 0
        self._epoch_ended = False

    @hookimpl
    def on_run_start(self, name: str, config: Mapping[str, Any], resumed: bool, run: Any, time: float | None) -> None:
        """Describe the run: layout, config, hyperparameters."""
        time = time or now()
        self._resumed_at = time if resumed else None
        if (axes := self._open(run)) is None:
            return
        for axis in axes:
            axis.resumed(self._resumed_at)
        axes[0].describe(time, _run_id(run), config or {}, layout=self._layout, hparams=self._hparams)
        if self._config_text and config:
            from losslog_tensorboard.events import config_markdown

            axes[0].add_text(time, 0, CONFIG, config_markdown(str(name), _run_id(run), config), once=True)
        self._flush()

    @hookimpl
    def on_batch_losses(self, step: int, losses: Any, total: Any, lr: Any, run: Any, time: float | None) -> None:
        """One event with all values of the step."""
        if (axes := self._open(run)) is not None:
            self._step = step = _whole(step, "step")
            axes[1].add(time or now(), step, batch_series(losses, total, lr))

    @hookimpl
    def on_epoch_end(
        self, epoch: int, losses: Any, total: Any, val_loss: Any, lr: Any, run: Any, time: float | None
    ) -> None:
        """One event with the epoch's means."""
        if (axes := self._open(run)) is not None:
            axes[0].add(time or now(), _whole(epoch, "epoch"), epoch_series(losses, total, val_loss, lr))
            self._epoch_ended = True
            self._flush()

    @hookimpl
    def on_eval(self, epoch: int, split: str, metrics: Mapping[str, Any], run: Any, time: float | None) -> None:
        """One event with the evaluation's numbers."""
        if (axes := self._open(run)) is not None:
            axes[0].add(time or now(), _whole(epoch, "epoch"), eval_series(metrics, split or "val"))
            self._flush()

    @hookimpl
    def on_metrics(
        self, step: int | None, epoch: int | None, metrics: Mapping[str, Any], run: Any, time: float | None
    ) -> None:
        """With a step they stand beside the batches, else beside the epochs; the tag is the user's."""
        if (axes := self._open(run)) is None:
            return
        series = {tag: _number(value, tag) for tag, value in metrics.items()}
        if step is None and epoch is not None:
            axes[0].add(time or now(), _whole(epoch, "epoch"), series)
        else:
            axes[1].add(time or now(), self._step if step is None else _whole(step, "step"), series)

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
        time: float | None,
    ) -> None:
        """A text in the batch sub-run, at its global step."""
        if (axes := self._open(run)) is None:
            return
        from losslog_tensorboard.events import alert_markdown

        where = ", ".join(f"{axis} {x}" for axis, x in (("epoch", epoch), ("step", step)) if x is not None)
        markdown = alert_markdown(str(level), str(title), str(text or ""), str(source), component, where)
        axes[1].add_text(time or now(), self._step if step is None else _whole(step, "step"), ALERTS, markdown)
        self._flush()

    @hookimpl
    def on_resume(self, epoch: int | None, step: int | None, run: Any, time: float | None) -> None:
        """Points after ``epoch`` and ``step`` are superseded: each axis begins a new file that says so."""
        if (axes := self._open(run)) is not None:
            if epoch is not None:
                axes[0].purge(time or now(), _whole(epoch, "epoch") + 1)
            if step is not None:
                axes[1].purge(time or now(), _whole(step, "step") + 1)
            self._flush()

    @hookimpl
    def on_run_end(self, status: str, run: Any, time: float | None) -> None:
        """Say that it has finished, bring all to the disk, close the files."""
        if self._axes is None or (axes := self._open(run)) is None:
            return
        if status == "finished" and self._hparams:  # any other end may be continued
            axes[0].finish(time or now())
        self._flush(sync=True)
        for axis in axes:
            axis.close()
        self._axes = None

    @hookimpl
    def on_flush(self, run: Any) -> None:
        """Write what was gathered; once an epoch also to the disk itself."""
        if self._axes is not None and os.getpid() == self._pid:
            self._flush(sync=self._epoch_ended)
            self._epoch_ended = False

    def delivered_upto(self, run: Any) -> int | None:
        """Nothing at all where somebody removed the files, so that all is delivered again; else the cursor knows.

        Raises:
            EventsUnavailable: the folders cannot be read.
        """
        axes = self._open(run)
        return None if axes is None or (axes[0].found and axes[1].found) else -1

    def _open(self, run: Any) -> Axes | None:
        """The epoch axis and the batch axis; None in a forked child."""
        axes = self._axes
        if axes is not None:
            if os.getpid() != self._pid:
                return None
            if not (axes[0].broken or axes[1].broken):
                return axes
            for axis in axes:
                axis.drop()
            self._axes = None
        if self._pid is None:
            self._pid = os.getpid()
        elif self._pid != os.getpid():
            return None
        if self._writer is not None:
            from losslog_tensorboard.live import LiveAxis

            self._axes = (LiveAxis(self._writer), LiveAxis(self._writer))
        else:
            from losslog_tensorboard.axis import Axis

            folder, run_id = self._folder(run), _run_id(run)
            self._axes = (
                Axis(folder, run_id, 1, self._resumed_at),
                Axis(folder / "batch", run_id, 0, self._resumed_at),
            )
        return self._axes

    def _folder(self, run: Any) -> Path:
        if self._log_dir is None:
            return Path(run.dir) / "tensorboard"
        return Path(self._log_dir.replace("{id}", _run_id(run)).replace("{name}", str(getattr(run, "name", ""))))

    def _flush(self, *, sync: bool = False) -> None:
        for axis in self._axes or ():
            axis.flush(sync=sync)


def _run_id(run: Any) -> str:
    return str(getattr(run, "id", ""))


def _whole(value: Any, name: str) -> int:
    """An x value; TensorBoard would silently cut a fraction off."""
    number = int(value)
    if isinstance(value, bool) or number != value:
        raise ValueError(f"{name}={value!r}: pass a whole number")
    return number


def _number(value: Any, tag: str) -> float:
    if isinstance(value, bool | str) or value is None:
        raise TypeError(f"metrics[{tag!r}] is {value!r}: pass a number")
    number = float(value)
    return number if not math.isnan(number) else math.nan
