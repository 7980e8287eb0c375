"""The losslog plugin: feeds a watcher with the records of a run and raises alerts.

Runs in a far lane, in the follower; plain data only, no tensor and no device is touched.

- Every finding becomes one alert with a key made of component, state and onset, so a replay never alerts twice.
- Batch records are watched; epoch means only where there are no batch records.
- Nothing is said of flatness, divergence and shares while the first epoch is open and its length unknown.
- Metrics ``reach/<component>``, ``grad_norm/<part>``, ``targets/...`` and the weights of a record are proofs of causes.
- After a resume the watcher is rebuilt from the journal, so that it stands where it stood at the checkpoint.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, Final

from losslog import hookimpl

from . import advice
from .finding import Finding, Verdict
from .measured import reaching_nothing
from .notice import Notice
from .options import OnStall, cuts_of, filter_of, flag, reaction_of, z_of
from .past import has_past, past_records
from .plan import Plan
from .reading import floats, named, number
from .watcher import Watcher

STALLED: Final = "stalled"
NOT_TRAINED: Final = "not_trained"
_said: Final = logging.getLogger("losslog")


class PlateauPlugin:
    """Watches every loss component and tells which has stalled, diverged or gone.

    Args:
        typical: ``{component: (low, high)}``; None is what is known by name, ``{}`` none.
        planned_steps: Length of the run in optimizer steps (epochs, where only epoch means come). None: ``epochs``
            times ``steps_per_epoch`` of the run.
        steps_per_epoch: Optimizer steps in an epoch. None: what the run says, else learnt from the first whole epoch.
        planned_cuts: Steps at which the learning rate is going to be cut (epochs, where only epoch means come). None:
            ``milestones`` or ``lr_steps`` of the run's config, in epochs where all are at most ``epochs``.
        z: Normal quantile of the bounds; None is 1.8.
        sensitivity: "low", "normal" or "high", instead of ``z``.
        r: Improvement per unit below which a curve is flat.
        window: Shortest line, in units.
        confirm: Checks in a row that must agree.
        watch: Report only these components. What others find (the engine and `losslog.attach` read off the graph what
            a loss trains, the core what is not finite) is not this plugin's to silence; ``on_cause`` leaves it alone.
        ignore: Never report these components, nor parts that only they train; as for ``watch``.
        quiet: Warn of a stall only while two other components improve.
        oscillating: Report oscillation too, at info level.
        on_stall: None, "stop" (ask the run to stop) or "raise_head_lr" (ask, once per component, for a higher learning
            rate of the parameter group that the component trains; not after a cut of the learning rate).
        on_cause: What to ask of the run where an alert has a cause, also another plugin's or the engine's:
            ``{"not_trained": "stop"}``. A loop of your own stops where it looks at ``run.should_stop``.
        lr_factor: Factor for "raise_head_lr".
        head_group: Parameter group for "raise_head_lr": a name, or a table by component. None: torchvision's components
            by the names of `losslog.detection.get_parameter_groups`.

    Raises:
        ValueError: If an option means nothing; the message names it and what to give.
    """

    journal_options = (
        "typical", "planned_steps", "steps_per_epoch", "z", "sensitivity", "r", "window", "confirm", "watch", "ignore",
        "quiet", "oscillating", "on_stall", "lr_factor", "head_group",
    )  # fmt: skip

    def __init__(
        self,
        *,
        typical: Mapping[str, object] | None = None,
        planned_steps: int | None = None,
        steps_per_epoch: int | None = None,
        planned_cuts: Sequence[int] | None = None,
        z: float | None = None,
        sensitivity: str | None = None,
        r: float = 0.015,
        window: float = 2.5,
        confirm: int = 2,
        watch: Sequence[str] | None = None,
        ignore: Sequence[str] | None = None,
        quiet: bool = False,
        oscillating: bool = False,
        on_stall: OnStall = None,
        on_cause: Mapping[str, str] | None = None,
        lr_factor: float = 10.0,
        head_group: str | Mapping[str, str] | None = None,
    ) -> None:
        self._filter = filter_of(watch, ignore)
        self._reaction = reaction_of(on_stall, lr_factor, head_group, on_cause)
        self._options = (planned_steps, steps_per_epoch, cuts_of(planned_cuts))
        self._arguments: dict[str, Any] = {
            "typical": typical,
            "z": z_of(z, sensitivity),
            "r": r,
            "window": window,
            "confirm": confirm,
            "quiet": flag("quiet", quiet),
            "oscillating": flag("oscillating", oscillating),
        }
        Watcher(planned_steps, steps_per_epoch, **self._arguments)  # refuses bad lengths by name
        self._start_anew()

    def _start_anew(self) -> None:
        self._plan = Plan(*self._options)
        self._feed: str | None = None  # "batch" or "epoch"
        self._raised: set[str] = set()  # components whose learning rate was asked for
        self._unread: int | None = None  # journal records before this seq are still to be read up
        self._hardest: Mapping[str, Any] = {}
        self._epoch: int | None = None  # of the newest batch
        self._make_watcher()

    def verdicts(self, over: bool = False) -> list[Verdict]:
        """The present state of every component.

        Args:
            over: Whether no further step is to come.
        """
        if over:
            self.watcher.finish()
        return self.watcher.verdicts()

    def watch_many(self, batches: Sequence[Mapping[str, Any]], place: int = 0) -> int:
        """Watch batches that were, as ``on_batch_losses`` would, but without a word.

        Args:
            batches: Data of records that follow each other.
            place: The first to be watched.

        Returns:
            How many were; 0 where the first is for the hook itself: something may end, or begin, with it.
        """
        get = batches[place].get
        losses, lr, epoch = get("losses"), get("lr"), get("epoch")
        if self._feed != "batch" or self._unread is not None or type(losses) is not dict or epoch != self._epoch:
            return 0
        last = self.watcher.quiet_until(losses, lr)
        if last is None or not self._plan.knows(epoch):
            return 0
        names, steps, rows, totals = tuple(losses), [], [], []
        for data in islice(batches, place, None):
            get, losses, step = data.get, data.get("losses"), data.get("step")
            if type(losses) is not dict or tuple(losses) != names or type(step) is not int or get("weights"):
                break
            if get("epoch") != epoch or get("lr") != lr:
                break
            steps.append(step)
            rows.append(losses.values())
            totals.append(get("total"))
            if step >= last:
                break
        if steps:
            columns = {name: floats(values) for name, values in zip(names, zip(*rows, strict=True), strict=True)}
            self.watcher.scene.measured.weighed_many(columns)
            self.watcher.update_many(steps, columns, totals)
        return len(steps)

    @hookimpl
    def on_run_start(self, epochs: int | None, steps_per_epoch: int | None, resumed: bool, seq: int) -> None:
        """Take the plan; a run resumed in another process is read up from its journal at the next losses."""
        if resumed and self._feed is None:
            self._unread = seq
        self.watcher.finish(False)
        self._take_plan(epochs, steps_per_epoch)

    @hookimpl
    def on_batch_losses(self, step: int, epoch: int, losses: Any, total: Any, lr: Any, weights: Any, run: Any) -> None:
        """Watch the raw losses of one step, and how often they count."""
        self._begin(run)
        self._epoch = epoch
        self._notify(self.watcher.scene.measured.weighed(step, named(losses), weights), run, step, epoch)
        for finding in self._take_batch(step, epoch, losses, total, lr, weights):
            self._act(finding, run, step, epoch)

    @hookimpl
    def on_epoch_end(
        self,
        epoch: int,
        epochs: int | None,
        step: int | None,
        losses: Any,
        val_loss: Any,
        lr: Any,
        hardest: Any,
        run: Any,
    ) -> None:
        """Watch validation against training; epoch means, where no batch records are; keep the hardest images."""
        self._hardest = hardest or {}
        self._begin(run)
        self._notify(self.watcher.scene.measured.generalising.take(epoch, losses, val_loss), run, step, epoch)
        for finding in self._take_epoch(epoch, epochs, losses, lr):
            self._act(finding, run, step, epoch)

    @hookimpl
    def on_metrics(
        self, step: int | None, epoch: int | None, metrics: Mapping[str, Any], detail: Any, run: Any
    ) -> None:
        """Take what was measured: what each component trains, gradients by part, targets."""
        at = self.watcher.step if step is None else step
        epoch = self._epoch if epoch is None else epoch
        self._notify(self.watcher.scene.measured.metrics(at, metrics, detail), run, step, epoch)
        self.watcher.scene.reached(at, reaching_nothing(metrics))
        if detail and self._plan.loaded(detail.get("steps_per_epoch")) and self._feed != "epoch":
            self._set_lengths()

    @hookimpl
    def on_alert(
        self, component: str | None, step: int | None, cause: str | None, text: str, evidence: Any, run: Any
    ) -> None:
        """Remember what was found, to quote it later; stop where ``on_cause`` says so."""
        self._take_alert(component, step, cause, text, evidence)
        if cause is not None and self._reaction.on_cause.get(cause) == "stop" and self._filter.reports(component or ""):
            run.request_stop(f"{text.rstrip('.')} (on_cause)")

    @hookimpl
    def on_resume(self, epoch: int | None, step: int | None, run: Any, seq: int) -> None:
        """Go back to where the run continues from."""
        if has_past(run):
            self._unread = seq
            return
        last = epoch if self._feed == "epoch" else step
        if last is not None:
            self.watcher.rewind(last)
        self._plan.rewind()

    @hookimpl
    def on_run_end(self) -> None:
        """Say what became of every component; of several of which the same is to be said, once."""
        told: dict[str, list[str]] = {}
        for each in self.verdicts(over=True):
            if self._filter.reports(each.component):
                told.setdefault(each.outlook, []).append(each.component)
        if told:
            _said.info("plateau: %s", "; ".join(f"{', '.join(names)} {outlook}" for outlook, names in told.items()))

    def _begin(self, run: Any) -> None:
        """Before losses are taken: read up what another process wrote, and what the config tells."""
        if self._unread is not None:
            self._read_past(run, self._unread)
        if self._feed is None:
            self._plan.config = getattr(run, "config", None) or {}
            self.watcher.set_planned_cuts(self._plan.cuts())

    def _take_plan(self, epochs: int | None, steps_per_epoch: int | None) -> None:
        self._plan.take(epochs, steps_per_epoch)
        if self._feed != "epoch":
            self._set_lengths()

    def _set_lengths(self) -> None:
        plan = self._plan
        self.watcher.set_lengths(plan.planned_steps, plan.steps_per_epoch)
        self.watcher.hold(plan.open)
        self.watcher.set_planned_cuts(plan.cuts())

    def _make_watcher(self) -> None:
        self.watcher = Watcher(**self._arguments)
        self._set_lengths()

    def _take_batch(
        self, step: int, epoch: int, losses: Any, total: Any, lr: Any, weights: Any = None
    ) -> list[Finding]:
        if self._feed != "batch":
            if self._feed == "epoch":  # epoch means were all there was until now
                self._make_watcher()
            self._feed = "batch"
        if self._plan.learn(step, epoch):
            self._set_lengths()
        if not isinstance(losses, Mapping):
            total = None
        elif isinstance(weights, Mapping) and total is not None:  # what the total would be, did all count once
            total = number(total) - sum(
                (number(weight) - 1.0) * number(losses[name]) for name, weight in weights.items() if name in losses
            )
        return self.watcher.update(step, losses, lr, total)

    def _take_epoch(self, epoch: int, epochs: int | None, losses: Any, lr: Any) -> list[Finding]:
        if self._feed == "batch" or losses is None:
            return []
        if self._feed is None:
            self._feed = "epoch"
            self._plan.epochs = epochs or self._plan.epochs
            self.watcher = Watcher(self._plan.planned_epochs, 1, **self._arguments)
            self.watcher.set_planned_cuts(self._plan.cuts(per_epoch=True))
        return self.watcher.update(epoch, losses, lr)

    def _read_past(self, run: Any, seq: int) -> None:
        """Bring the watcher to where it would stand had it seen all that still counts; says nothing."""
        before = self._plan
        self._start_anew()
        self._plan.config = getattr(run, "config", None) or {}
        self._take_plan(*before.told)
        for hook, data in past_records(run, seq):
            if hook == "on_run_start":
                self._take_plan(data.get("epochs"), data.get("steps_per_epoch"))
            elif hook == "on_metrics":
                self.on_metrics(data.get("step"), None, data.get("metrics") or {}, data.get("detail"), None)
            elif hook == "on_alert":
                self._take_alert(*(data.get(each) for each in ("component", "step", "cause", "text", "evidence")))
            else:
                for finding in self._replay(hook, data):
                    if finding.state == STALLED and self._filter.reports(finding.component):
                        self._raised.add(finding.component)

    def _take_alert(self, component: Any, step: Any, cause: Any, text: Any, evidence: Any) -> None:
        at = self.watcher.step if step is None else step
        if component is not None and cause == NOT_TRAINED:
            began = evidence.get("step") if isinstance(evidence, Mapping) else None
            at = began if isinstance(began, int) and 0 <= began <= at else at
            self.watcher.scene.reached(at, {component: True}, str(text).rstrip("."))
        elif cause is not None:
            self.watcher.scene.measured.alerted(cause, component, at, str(text), evidence or {})

    def _replay(self, hook: str, data: dict[str, Any]) -> list[Finding]:
        losses, lr = data.get("losses"), data.get("lr")
        if hook == "on_epoch_end":
            self.watcher.scene.measured.generalising.take(data["epoch"], losses, data.get("val_loss"))
            return self._take_epoch(data["epoch"], data.get("epochs"), losses, lr)
        self.watcher.scene.measured.weighed(data["step"], named(losses), data.get("weights"))
        return self._take_batch(data["step"], data["epoch"], losses, data.get("total"), lr, data.get("weights"))

    def _notify(self, notices: Sequence[Notice], run: Any, step: int | None, epoch: int | None) -> None:
        for each in notices:
            if run is not None and any(map(self._filter.reports, each.about)):
                each.tell(run, step, epoch)

    def _act(self, finding: Finding, run: Any, step: int | None, epoch: int) -> None:
        component, state = finding.component, finding.state
        if not self._filter.reports(component):
            return
        text = finding.text
        if state == STALLED:
            text += advice.hardest(component, self._hardest) + self._react(finding, run)
        key = f"non_finite/{component}" if state == "non_finite" else f"plateau/{component}/{state}/{finding.since}"
        title = advice.title(state, component)
        data = {"cause": finding.cause, "evidence": dict(finding.evidence) or None}
        run.alert(title, text, level=finding.level, key=key, component=component, step=step, epoch=epoch, **data)

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
