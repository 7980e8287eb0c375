"""How records become updates of a watcher: batches or epoch means, the plan, what another process wrote before.

Runs in the plugin's lane; decides nothing and says nothing.

- Batch records are taken; epoch means only where there are no batch records.
- After a resume in another process the watcher is rebuilt from the journal, so that it stands where it stood at the
  checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, Final

from .finding import Finding
from .measured import reaching_nothing
from .notice import Notice
from .past import has_past, past_records
from .plan import Plan
from .reading import floats, named, number
from .watcher import Watcher

NOT_TRAINED: Final = "not_trained"


class Feed:
    """Of one run.

    Args:
        lengths: Planned steps, steps per epoch and planned cuts, as far as they are given.
        arguments: Of the watcher, besides.

    Attributes:
        watcher: Is fed.
        kind: "batch" or "epoch"; None before the first losses.
        epoch: Of the newest batch.
    """

    def __init__(
        self, lengths: tuple[int | None, int | None, Sequence[int] | None], arguments: Mapping[str, Any]
    ) -> None:
        self._lengths, self._arguments = lengths, arguments
        Watcher(lengths[0], lengths[1], **arguments)  # refuses bad lengths by name
        self._start_anew()

    def _start_anew(self) -> None:
        self._plan = Plan(*self._lengths)
        self.kind: str | None = None
        self._unread: int | None = None  # journal records before this seq are still to be read up
        self.epoch: int | None = None
        self._make_watcher()

    def run_starts(self, epochs: int | None, steps_per_epoch: int | None, resumed: bool, seq: int) -> None:
        """Take the plan; a run resumed in another process is read up from its journal at the next losses."""
        if resumed and self.kind is None:
            self._unread = seq
        self.watcher.finish(False)
        self._take_plan(epochs, steps_per_epoch)

    def resumes(self, epoch: int | None, step: int | None, run: Any, seq: int) -> None:
        """Go back to where the run continues from."""
        if has_past(run):
            self._unread = seq
            return
        last = epoch if self.kind == "epoch" else step
        if last is not None:
            self.watcher.rewind(last)
        self._plan.rewind()

    def ready(self, run: Any) -> list[Finding] | None:
        """Before losses are taken: read up what another process wrote, and what the config tells.

        Returns:
            What was found in what another process wrote; None where nothing was to be read.
        """
        found = None if self._unread is None else self._read_past(run, self._unread)
        if self.kind is None:
            self._plan.config = getattr(run, "config", None) or {}
            self.watcher.set_planned_cuts(self._plan.cuts())
        return found

    def batch(
        self, step: int, epoch: int, losses: Any, total: Any, lr: Any, weights: Any
    ) -> tuple[list[Notice], list[Finding]]:
        """Take the raw losses of one step, and how often they count."""
        notices = self.watcher.scene.measured.weighed(step, named(losses), weights)
        return notices, self._take_batch(step, epoch, losses, total, lr, weights)

    def many(self, batches: Sequence[Mapping[str, Any]], place: int = 0) -> int:
        """Take batches that were, as `batch` would, but without a word.

        Args:
            batches: Data of records that follow each other.
            place: The first to be watched.

        Returns:
            How many were; 0 where the first is for the hook itself: something may end, or begin, with it.
        """
        get = batches[place].get
        losses, lr, epoch = get("losses"), get("lr"), get("epoch")
        if self.kind != "batch" or self._unread is not None or type(losses) is not dict or epoch != self.epoch:
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

    def epoch_ends(
        self, epoch: int, epochs: int | None, losses: Any, val_loss: Any, lr: Any
    ) -> tuple[list[Notice], list[Finding]]:
        """Take validation against training; and epoch means, where no batch records are."""
        notices = self.watcher.scene.measured.generalising.take(epoch, losses, val_loss)
        return notices, self._take_epoch(epoch, epochs, losses, lr)

    def metrics(self, step: int | None, metrics: Mapping[str, Any], detail: Any) -> list[Notice]:
        """Take what was measured: what each component trains, gradients by part, targets."""
        at = self.watcher.step if step is None else step
        notices = self.watcher.scene.measured.metrics(at, metrics, detail)
        self.watcher.scene.reached(at, reaching_nothing(metrics))
        if detail and self._plan.loaded(detail.get("steps_per_epoch")) and self.kind != "epoch":
            self._set_lengths()
        return notices

    def alert(self, component: Any, step: Any, cause: Any, text: Any, evidence: Any) -> None:
        """Remember what somebody has found, to quote it later."""
        at = self.watcher.step if step is None else step
        if component is not None and cause == NOT_TRAINED:
            began = evidence.get("step") if isinstance(evidence, Mapping) else None
            at = began if isinstance(began, int) and 0 <= began <= at else at
            self.watcher.scene.reached(at, {component: True}, str(text).rstrip("."))
        elif cause is not None:
            self.watcher.scene.measured.alerted(cause, component, at, str(text), evidence or {})

    def _take_plan(self, epochs: int | None, steps_per_epoch: int | None) -> None:
        self._plan.take(epochs, steps_per_epoch)
        if self.kind != "epoch":
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
        if self.kind != "batch":
            if self.kind == "epoch":  # epoch means were all there was until now
                self._make_watcher()
            self.kind = "batch"
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
        if self.kind == "batch" or losses is None:
            return []
        if self.kind is None:
            self.kind = "epoch"
            self._plan.epochs = epochs or self._plan.epochs
            self.watcher = Watcher(self._plan.planned_epochs, 1, **self._arguments)
            self.watcher.set_planned_cuts(self._plan.cuts(per_epoch=True))
        return self.watcher.update(epoch, losses, lr)

    def _read_past(self, run: Any, seq: int) -> list[Finding]:
        """Bring the watcher to where it would stand had it seen all that still counts."""
        before, found = self._plan, []
        self._start_anew()
        self._plan.config = getattr(run, "config", None) or {}
        self._take_plan(*before.told)
        for hook, data in past_records(run, seq):
            if hook == "on_run_start":
                self._take_plan(data.get("epochs"), data.get("steps_per_epoch"))
            elif hook == "on_metrics":
                self.metrics(data.get("step"), data.get("metrics") or {}, data.get("detail"))
            elif hook == "on_alert":
                self.alert(*(data.get(each) for each in ("component", "step", "cause", "text", "evidence")))
            else:
                found += self._replay(hook, data)
        return found

    def _replay(self, hook: str, data: dict[str, Any]) -> list[Finding]:
        losses, lr = data.get("losses"), data.get("lr")
        if hook == "on_epoch_end":
            return self.epoch_ends(data["epoch"], data.get("epochs"), losses, data.get("val_loss"), lr)[1]
        return self.batch(data["step"], data["epoch"], losses, data.get("total"), lr, data.get("weights"))[1]
