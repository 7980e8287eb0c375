"""The losslog plugin: feeds a watcher with the records of a run and raises alerts.

Runs in a near lane, in a thread of the training process; plain data only, no tensor and no device is touched.

- Every finding becomes one alert with a key made of component, state and onset, so a replay never alerts twice.
- Batch records are watched; epoch means only where there are no batch records.
- After a resume the watcher is rebuilt from the journal, so that it stands where it stood at the checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from losslog import hookimpl

from . import advice
from .finding import Finding, Verdict
from .options import OnStall, filter_of, flag, reaction_of, z_of
from .past import has_past, past_records
from .watcher import Watcher

STALLED: Final = "stalled"
EPOCH_CHANGE: Final = 0.05
"""A learnt epoch length is learnt again where a whole epoch differs by more than this part."""


class PlateauPlugin:
    """Watches every loss component and tells which has stalled, diverged or gone.

    Args:
        typical: ``{component: (low, high)}``; None is torchvision's table, ``{}`` none.
        planned_steps: Length of the run in optimizer steps (epochs, where only epoch means come). None: ``epochs``
            times ``steps_per_epoch`` of the run.
        steps_per_epoch: Optimizer steps in an epoch. None: what the run says, else learnt from the first whole epoch.
        z: Normal quantile of the bounds; None is 1.64.
        sensitivity: "low", "normal" or "high", instead of ``z``.
        r: Improvement per unit below which a curve is flat.
        window: Shortest line, in units.
        confirm: Checks in a row that must agree.
        watch: Report only these components.
        ignore: Never report these components.
        quiet: Warn of a stall only while two other components improve.
        oscillating: Report oscillation too, at info level.
        on_stall: None, "stop" (ask the run to stop) or "raise_head_lr" (ask, once per component, for a higher learning
            rate of the parameter group that the component trains; not after a cut of the learning rate).
        lr_factor: Factor for "raise_head_lr".
        head_group: Parameter group for "raise_head_lr": a name, or a table by component. None: torchvision's components
            by the names of `losslog.detection.get_parameter_groups`.

    Raises:
        ValueError: If an option means nothing; the message names it and what to give.
    """

    near = True

    def __init__(
        self,
        *,
        typical: Mapping[str, object] | None = None,
        planned_steps: int | None = None,
        steps_per_epoch: int | None = None,
        z: float | None = None,
        sensitivity: str | None = None,
        r: float = 0.015,
        window: float = 3.0,
        confirm: int = 2,
        watch: Sequence[str] | None = None,
        ignore: Sequence[str] | None = None,
        quiet: bool = False,
        oscillating: bool = False,
        on_stall: OnStall = None,
        lr_factor: float = 10.0,
        head_group: str | Mapping[str, str] | None = None,
    ) -> None:
        self._filter = filter_of(watch, ignore)
        self._reaction = reaction_of(on_stall, lr_factor, head_group)
        self._planned = planned_steps
        self._per_epoch = steps_per_epoch
        self._arguments: dict[str, Any] = {
            "typical": typical,
            "z": z_of(z, sensitivity),
            "r": r,
            "window": window,
            "confirm": confirm,
            "quiet": flag("quiet", quiet),
            "oscillating": flag("oscillating", oscillating),
        }
        self.watcher = Watcher(planned_steps, steps_per_epoch, **self._arguments)
        self._start_anew()

    def _start_anew(self) -> None:
        self._epochs: int | None = None
        self._told_per_epoch: int | None = None
        self._learnt: int | None = None
        self._epoch_start: tuple[int, int] | None = None  # epoch, its first step
        self._whole = False  # whether that epoch was seen from its first step
        self._feed: str | None = None  # "batch" or "epoch"
        self._raised: set[str] = set()  # components whose learning rate was asked for
        self._unread: int | None = None  # journal records before this seq are still to be read up
        self._make_watcher()

    def verdicts(self) -> list[Verdict]:
        """The present state of every component."""
        return self.watcher.verdicts()

    @hookimpl
    def on_run_start(self, epochs: int | None, steps_per_epoch: int | None, resumed: bool, seq: int) -> None:
        """Take the plan; a run resumed in another process is read up from its journal at the next losses."""
        if resumed and self._feed is None:
            self._unread = seq
        self._plan(epochs, steps_per_epoch)

    @hookimpl
    def on_batch_losses(self, step: int, epoch: int, losses: Any, total: Any, lr: Any, run: Any) -> None:
        """Watch the raw losses of one step."""
        if self._unread is not None:
            self._read_past(run, self._unread)
        for finding in self._take_batch(step, epoch, losses, total, lr):
            self._act(finding, run, step, epoch)

    @hookimpl
    def on_epoch_end(self, epoch: int, epochs: int | None, step: int | None, losses: Any, lr: Any, run: Any) -> None:
        """Watch epoch means, where there are no batch records."""
        if self._unread is not None:
            self._read_past(run, self._unread)
        for finding in self._take_epoch(epoch, epochs, losses, lr):
            self._act(finding, run, step, epoch)

    @hookimpl
    def on_resume(self, epoch: int | None, step: int | None, run: Any, seq: int) -> None:
        """Go back to where the run continues from."""
        if has_past(run):
            self._unread = seq
            return
        last = epoch if self._feed == "epoch" else step
        if last is not None:
            self.watcher.rewind(last)
        self._epoch_start = None

    def _plan(self, epochs: int | None, steps_per_epoch: int | None) -> None:
        self._epochs, self._told_per_epoch = epochs, steps_per_epoch
        if self._feed != "epoch":
            self._set_lengths()

    def _set_lengths(self) -> None:
        per_epoch = self._per_epoch or self._told_per_epoch or self._learnt
        planned = self._planned or (self._epochs * per_epoch if self._epochs and per_epoch else None)
        self.watcher.set_lengths(planned, per_epoch)

    def _make_watcher(self) -> None:
        self.watcher = Watcher(self._planned, self._per_epoch, **self._arguments)

    def _take_batch(self, step: int, epoch: int, losses: Any, total: Any, lr: Any) -> list[Finding]:
        if self._feed != "batch":
            if self._feed == "epoch":  # epoch means were all there was until now
                self._make_watcher()
            self._feed = "batch"
            self._set_lengths()
        self._learn_epoch(step, epoch)
        return self.watcher.update(step, losses, lr, total if isinstance(losses, Mapping) else None)

    def _take_epoch(self, epoch: int, epochs: int | None, losses: Any, lr: Any) -> list[Finding]:
        if self._feed == "batch" or losses is None:
            return []
        if self._feed is None:
            self._feed = "epoch"
            self._epochs = epochs or self._epochs
            planned = self._planned
            if planned is not None and self._per_epoch:
                planned = max(1, round(planned / self._per_epoch))
            self.watcher = Watcher(planned or self._epochs, 1, **self._arguments)
        return self.watcher.update(epoch, losses, lr)

    def _learn_epoch(self, step: int, epoch: int) -> None:
        """Learn the steps in an epoch from the first whole ones, where nobody said."""
        if self._per_epoch or self._told_per_epoch:
            return
        before = self._epoch_start
        if before is None:
            self._epoch_start, self._whole = (epoch, step), step == 0
        elif epoch != before[0]:
            length = step - before[1]
            self._epoch_start = (epoch, step)
            usable = epoch == before[0] + 1 and length > 0
            if usable and self._whole and abs(length - (self._learnt or 0)) > EPOCH_CHANGE * length:
                self._learnt = length
                self._set_lengths()
            self._whole = True

    def _read_past(self, run: Any, seq: int) -> None:
        """Bring the watcher to where it would stand had it seen all that still counts; says nothing."""
        epochs, told = self._epochs, self._told_per_epoch
        self._start_anew()
        self._plan(epochs, told)
        for hook, data in past_records(run, seq):
            if hook == "on_run_start":
                self._plan(data.get("epochs"), data.get("steps_per_epoch"))
            else:
                for finding in self._replay(hook, data):
                    if finding.state == STALLED and self._filter.reports(finding.component):
                        self._raised.add(finding.component)

    def _replay(self, hook: str, data: dict[str, Any]) -> list[Finding]:
        losses, lr = data.get("losses"), data.get("lr")
        if hook == "on_epoch_end":
            return self._take_epoch(data["epoch"], data.get("epochs"), losses, lr)
        total = data.get("total")
        return self._take_batch(data["step"], data["epoch"], losses, total, lr)

    def _act(self, finding: Finding, run: Any, step: int | None, epoch: int) -> None:
        component, state = finding.component, finding.state
        if not self._filter.reports(component):
            return
        text = finding.text
        if state == STALLED:
            text += self._react(finding, run)
        key = f"non_finite/{component}" if state == "non_finite" else f"plateau/{component}/{state}/{finding.since}"
        title = advice.title(state, component)
        run.alert(title, text, level=finding.level, key=key, component=component, step=step, epoch=epoch)

    def _react(self, finding: Finding, run: Any) -> str:
        """Ask the run for what ``on_stall`` says.

        Returns:
            A sentence on what was asked, or an empty string.
        """
        reaction, component = self._reaction, finding.component
        if reaction.on_stall == "stop":
            run.request_stop(f"{component} has stalled since {self.watcher.axis} {finding.since}")
            return " The run was asked to stop."
        if reaction.on_stall is None or component in self._raised:
            return ""
        if self.watcher.lr_cut is not None:
            return " The learning rate of its group was left alone, since it was cut before."
        group = reaction.group_of(component)
        if group is None:
            return f" The learning rate was left alone: say which group it trains, head_group={{{component!r}: ...}}."
        self._raised.add(component)
        run.request_lr(reaction.lr_factor, group=group)
        return f" Asked for {reaction.lr_factor:g} times the learning rate of the parameter group {group}."
