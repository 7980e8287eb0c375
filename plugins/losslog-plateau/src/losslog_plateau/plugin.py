"""The losslog plugin: feeds a watcher with the records of a run and raises alerts.

Runs in a far lane, in the follower; plain data only, no tensor and no device is touched.

- Every finding becomes one alert with a key made of component, state and onset, so a replay never alerts twice.
- Nothing is said of flatness, divergence and shares while the first epoch is open and its length unknown.
- Metrics ``reach/<component>``, ``grad_norm/<part>``, ``targets/...`` and the weights of a record are proofs of causes.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

from losslog import hookimpl

from . import advice
from .feed import Feed
from .finding import Finding, Verdict
from .notice import Notice
from .options import OnStall, cuts_of, filter_of, flag, reaction_of, z_of
from .scene import MOST
from .watcher import Watcher

STALLED: Final = "stalled"
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
        arguments: dict[str, Any] = {
            "typical": typical,
            "z": z_of(z, sensitivity),
            "r": r,
            "window": window,
            "confirm": confirm,
            "quiet": flag("quiet", quiet),
            "oscillating": flag("oscillating", oscillating),
        }
        self._feed = Feed((planned_steps, steps_per_epoch, cuts_of(planned_cuts)), arguments)
        self._raised: set[str] = set()  # components whose learning rate was asked for
        self._hardest: Mapping[str, Any] = {}
        self._full = False

    @property
    def watcher(self) -> Watcher:
        """Watches the components."""
        return self._feed.watcher

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
        return self._feed.many(batches, place)

    @hookimpl
    def on_run_start(self, epochs: int | None, steps_per_epoch: int | None, resumed: bool, seq: int) -> None:
        """Take the plan; a run resumed in another process is read up from its journal at the next losses."""
        self._feed.run_starts(epochs, steps_per_epoch, resumed, seq)

    @hookimpl
    def on_batch_losses(self, step: int, epoch: int, losses: Any, total: Any, lr: Any, weights: Any, run: Any) -> None:
        """Watch the raw losses of one step, and how often they count."""
        self._begin(run)
        self._feed.epoch = epoch
        self._say(self._feed.batch(step, epoch, losses, total, lr, weights), run, step, epoch)

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
        self._say(self._feed.epoch_ends(epoch, epochs, losses, val_loss, lr), run, step, epoch)

    @hookimpl
    def on_metrics(
        self, step: int | None, epoch: int | None, metrics: Mapping[str, Any], detail: Any, run: Any
    ) -> None:
        """Take what was measured: what each component trains, gradients by part, targets."""
        epoch = self._feed.epoch if epoch is None else epoch
        self._notify(self._feed.metrics(step, metrics, detail), run, step, epoch)

    @hookimpl
    def on_alert(
        self, component: str | None, step: int | None, cause: str | None, text: str, evidence: Any, run: Any
    ) -> None:
        """Remember what was found, to quote it later; stop where ``on_cause`` says so."""
        self._feed.alert(component, step, cause, text, evidence)
        if cause is not None and self._reaction.on_cause.get(cause) == "stop" and self._filter.reports(component or ""):
            run.request_stop(f"{text.rstrip('.')} (on_cause)")

    @hookimpl
    def on_resume(self, epoch: int | None, step: int | None, run: Any, seq: int) -> None:
        """Go back to where the run continues from."""
        self._feed.resumes(epoch, step, run, seq)

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
        past = self._feed.ready(run)
        if past is not None:
            stalls = [each.component for each in past if each.state == STALLED]
            self._raised, self._hardest = {*filter(self._filter.reports, stalls)}, {}

    def _say(self, news: tuple[Sequence[Notice], Sequence[Finding]], run: Any, step: int | None, epoch: int) -> None:
        notices, findings = news
        left_out = self.watcher.scene.left_out
        if left_out and not self._full:
            self._full = True
            _said.warning(
                "plateau: the first %d components are watched; %s and what came later are not", MOST, left_out
            )
        self._notify(notices, run, step, epoch)
        for finding in findings:
            self._act(finding, run, step, epoch)

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
