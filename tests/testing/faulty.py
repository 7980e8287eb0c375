"""Plugins with one planted fault each, made of the plugin that the scaffold generates under the name ``sink``.

`FAULTS` says which check is to find which fault. The generated plugin has ``on_scalars``; faults in what a plugin makes
of a record's own arguments are those of `FourHooks`.
"""

from __future__ import annotations

import json
import math
import os
import struct
import threading
from pathlib import Path

from losslog_sink import SinkPlugin

from losslog import batch_series, epoch_series, eval_series, hookimpl

LEFT_OPEN = []


class Sound(SinkPlugin):
    """No fault: every check passes."""


class OnlyScalars:
    """No fault, and one hook alone: a file for each of its calls."""

    @hookimpl
    def on_scalars(self, series, axis, x, seq, run):
        (run.dir / "points").mkdir(exist_ok=True)
        (run.dir / "points" / f"{seq:06}").write_text(json.dumps([x, series]))


class FourHooks(SinkPlugin):
    """No fault, and the records' own hooks instead of the derived one."""

    on_scalars = None

    @hookimpl
    def on_batch_losses(self, step, losses, total, lr, seq):
        self._add(seq, {"step": step, "series": batch_series(losses, total, lr)})

    @hookimpl
    def on_epoch_end(self, epoch, losses, total, val_loss, lr, seq):
        self._add(seq, {"epoch": epoch, "series": epoch_series(losses, total, val_loss, lr)})

    @hookimpl
    def on_eval(self, epoch, split, metrics, seq):
        self._add(seq, {"epoch": epoch, "series": eval_series(metrics, split)})

    @hookimpl(specname="on_metrics")
    def keep_metrics(self, step, epoch, metrics, seq):
        place = {"step": step or 0} if epoch is None or step is not None else {"epoch": epoch}
        self._add(seq, {**place, "series": {tag: float(value) for tag, value in metrics.items()}})


class DropsAnEpoch(SinkPlugin):
    @hookimpl
    def on_scalars(self, series, axis, x, seq):
        if "loss/train_total" not in series or x != 2:
            super().on_scalars(series, axis, x, seq)


class WritesTwice(SinkPlugin):
    def _add(self, seq, content):
        before = len(self._lines)
        super()._add(seq, content)
        if "epoch" in content and "series" in content:
            self._lines += self._lines[before:]


class BlocksAtTheEnd(SinkPlugin):
    started = False

    @hookimpl
    def on_run_start(self, run):
        self.started = True
        super().on_run_start(run)

    @hookimpl
    def on_run_end(self, status, seq):
        if self.started:
            threading.Event().wait()


class ChangesTheDict(FourHooks):
    @hookimpl
    def on_batch_losses(self, step, losses, total, lr, seq):
        super().on_batch_losses(step, losses, total, lr, seq)
        if isinstance(losses, dict):
            losses["seen"] = 1.0


class LetsAJournalChoose(SinkPlugin):
    journal_options = ("tracking_uri",)

    def __init__(self, tracking_uri=""):
        super().__init__()


class KeepsAGraph(FourHooks):
    def __init__(self):
        super().__init__()
        self.history = []

    @hookimpl
    def on_batch_losses(self, step, losses, total, lr, seq):
        super().on_batch_losses(step, losses, total, lr, seq)
        self.history.append(losses)


class FallsOnNaN(SinkPlugin):
    @hookimpl
    def on_scalars(self, series, axis, x, seq):
        if not all(math.isfinite(value) for value in series.values()):
            raise ValueError("not a number")
        super().on_scalars(series, axis, x, seq)


class FailsAtTheSecondEnd(SinkPlugin):
    ended = False

    @hookimpl
    def on_run_end(self, status, seq):
        if self.ended:
            raise RuntimeError("closed already")
        self.ended = True
        super().on_run_end(status, seq)


class FailsWithoutAStart(SinkPlugin):
    @hookimpl
    def on_run_start(self, run):
        self.run = run
        super().on_run_start(run)

    @hookimpl
    def on_run_end(self, status, seq):
        (self.run.dir / "sink.end").touch()
        super().on_run_end(status, seq)


class WrongAxis(FourHooks):
    @hookimpl
    def on_epoch_end(self, epoch, step, losses, total, val_loss, lr, seq):
        self._add(seq, {"step": step, "series": epoch_series(losses, total, val_loss, lr)})


class LosesWhatHasNoPlace(FourHooks):
    @hookimpl(specname="on_metrics")
    def keep_metrics(self, step, epoch, metrics, seq):
        super().keep_metrics(99 if step is None and epoch is None else step, epoch, metrics, seq)


class WritesOnEveryRank(SinkPlugin):
    def __init__(self):
        super().__init__()
        Path("sink.log").touch()


class KnowsItsComponents(SinkPlugin):
    @hookimpl
    def on_scalars(self, series, axis, x, seq):
        if axis == "step" and "batch/train_loss_late" in series:
            raise KeyError("loss_late")
        super().on_scalars(series, axis, x, seq)


class IgnoresAResume(SinkPlugin):
    @hookimpl
    def on_resume(self, epoch, step, seq):
        pass


class MisspellsAHook(SinkPlugin):
    @hookimpl
    def on_epoch_ends(self, epoch):
        pass


class MisspellsAName(SinkPlugin):
    @hookimpl(specname="on_epoch_ends")
    def on_epoch_end(self, epoch):
        pass


class MisspellsAnArgument(SinkPlugin):
    @hookimpl
    def on_checkpoint(self, epoch, pth=None):
        pass


class Unhashable(SinkPlugin):
    __hash__ = None


class DoublesAfterARestart(SinkPlugin):
    delivered_upto = None
    started = False

    @hookimpl
    def on_run_start(self, run):
        if not self.started:
            self.started = True
            super().on_run_start(run)
            self._written = self._gathered = -1


class DoublesAfterAFailure(SinkPlugin):
    first = None

    @hookimpl
    def on_run_start(self, run):
        if self.first is None:
            super().on_run_start(run)
            self.first = self._written

    @hookimpl
    def on_flush(self):
        super().on_flush()
        self._written = self._gathered = self.first


class ClaimsTooMuch(SinkPlugin):
    def _add(self, seq, content):
        super()._add(seq, content)
        if self._file is not None:
            self._file.with_name("marker").write_text(str(seq))

    def delivered_upto(self, run):
        marker = run.dir / "marker"
        return int(marker.read_text()) if marker.exists() else None


class SaysNonsenseOfItself(SinkPlugin):
    def delivered_upto(self, run):
        return str(self._written)


class SwallowsItsErrors(SinkPlugin):
    @hookimpl
    def on_flush(self):
        try:
            super().on_flush()
        except OSError:
            self._lines = []


class TiresOfFlushing(SinkPlugin):
    flushes = 0

    @hookimpl
    def on_flush(self):
        self.flushes += 1
        if self.flushes > 20:
            self._lines = []
        super().on_flush()


class Rounds(SinkPlugin):
    @hookimpl
    def on_scalars(self, series, axis, x, seq):
        if "loss/train_total" in series:
            series = {tag: struct.unpack("e", struct.pack("e", value))[0] for tag, value in series.items()}
        super().on_scalars(series, axis, x, seq)


class OwnNames(SinkPlugin):
    @hookimpl
    def on_scalars(self, series, axis, x, seq):
        super().on_scalars({tag.replace("train_total", "train_sum"): series[tag] for tag in series}, axis, x, seq)


class OutOfOrder(SinkPlugin):
    """Every third batch waits for the one after it."""

    held = None

    @hookimpl
    def on_scalars(self, series, axis, x, seq):
        batch = "batch/train_total" in series or "batch/train" in series
        if batch and x % 3 == 2:
            self.held = (series, axis, x, seq)
            return
        super().on_scalars(series, axis, x, seq)
        if batch and self.held is not None and self.held[-1] > self._written:
            gathered, self._gathered = self._gathered, -1
            super().on_scalars(*self.held)
            self._gathered = gathered
        if batch:
            self.held = None


class LeavesAFileOpen(SinkPlugin):
    @hookimpl
    def on_run_start(self, run):
        super().on_run_start(run)
        LEFT_OPEN.append(open(os.devnull))  # noqa: SIM115


class LeavesAThread(SinkPlugin):
    @hookimpl
    def on_run_start(self, run):
        super().on_run_start(run)
        threading.Thread(target=threading.Event().wait, name=f"sink-{id(self)}", daemon=True).start()


class FloatsOnly(FourHooks):
    @hookimpl
    def on_batch_losses(self, step, losses, total, lr, seq):
        if hasattr(total, "requires_grad"):
            raise TypeError("a tensor")
        super().on_batch_losses(step, losses, total, lr, seq)


class NoNumpy(FourHooks):
    @hookimpl
    def on_batch_losses(self, step, losses, total, lr, seq):
        if type(total).__module__ == "numpy":
            raise TypeError("a numpy scalar")
        super().on_batch_losses(step, losses, total, lr, seq)


class OtherwiseInTheFollower(SinkPlugin):
    @hookimpl
    def on_scalars(self, series, axis, x, seq):
        if axis == "step" and "LOSSLOG_PARENT_PID" in os.environ:
            series = dict.fromkeys(series, 0.0)
        super().on_scalars(series, axis, x, seq)


class FlatMetricsOnly(FourHooks):
    @hookimpl
    def on_eval(self, epoch, split, metrics, seq):
        flat = {name: float(value) for name, value in metrics.items()}
        self._add(seq, {"epoch": epoch, "series": eval_series(flat, split)})


class DictsOnly(FourHooks):
    @hookimpl
    def on_batch_losses(self, step, losses, total, lr, seq):
        losses.items()
        super().on_batch_losses(step, losses, total, lr, seq)


class NeedsEveryValue(FourHooks):
    @hookimpl
    def on_epoch_end(self, epoch, losses, total, val_loss, lr, duration, seq):
        round(duration)
        super().on_epoch_end(epoch, losses, total, val_loss, lr, seq)


class FailsAtAlerts(SinkPlugin):
    @hookimpl
    def on_alert(self, level, title, text, step, epoch, seq):
        if level == "warning":
            raise RuntimeError("no such level")


class OddAttributes(SinkPlugin):
    consent_variables = "SINK_URL"


class NotInstalled(SinkPlugin):
    """Has no entry point."""


# The vendor's absence is `faulty_vendor`'s fault, since it is in the import.
FAULTS = {
    DropsAnEpoch: "test_every_point_once",
    WritesTwice: "test_every_point_once",
    BlocksAtTheEnd: "test_bounded_close",
    ChangesTheDict: "test_leaves_arguments_alone",
    LetsAJournalChoose: "test_journal_options",
    KeepsAGraph: "test_keeps_no_graph",
    FallsOnNaN: "test_non_finite",
    FailsAtTheSecondEnd: "test_second_end",
    FailsWithoutAStart: "test_end_without_start",
    WrongAxis: "test_axes",
    LosesWhatHasNoPlace: "test_axes",
    WritesOnEveryRank: "test_other_rank",
    KnowsItsComponents: "test_late_component",
    IgnoresAResume: "test_resume",
    MisspellsAHook: "test_hooks",
    MisspellsAName: "test_hooks",
    MisspellsAnArgument: "test_hooks",
    Unhashable: "test_hashable",
    DoublesAfterARestart: "test_redelivery",
    DoublesAfterAFailure: "test_failing_flush",
    ClaimsTooMuch: "test_interrupted",
    SaysNonsenseOfItself: "test_delivered_upto",
    SwallowsItsErrors: "test_delivered_means_delivered",
    TiresOfFlushing: "test_flush_after_every_record",
    Rounds: "test_values",
    OwnNames: "test_names",
    OutOfOrder: "test_order",
    LeavesAFileOpen: "test_leaves_nothing_open",
    LeavesAThread: "test_leaves_nothing_open",
    FloatsOnly: "test_tensor_losses",
    NoNumpy: "test_numpy_losses",
    OtherwiseInTheFollower: "test_far_lane",
    FlatMetricsOnly: "test_nested_coco",
    DictsOnly: "test_scalar_losses",
    NeedsEveryValue: "test_missing_values",
    FailsAtAlerts: "test_every_hook_is_taken",
    OddAttributes: "test_attributes",
    NotInstalled: "test_entry_point",
}
