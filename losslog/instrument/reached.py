"""Says when a loss stops to train a part of the model, and what the optimizer leaves out.

On the thread that trains; used by `losslog.engine` and by those who watch a loop from outside. Contract:

- The graph is walked at the first step of each epoch, and where the set of trainable parameters has changed: at each
  step the flag of one parameter of each part is looked at, at every 16th those of all.
- What a switched-off ``requires_grad`` proves is said at once. A loss that is only detached is looked at again in the
  steps that follow, and said when all of them agree: some batches have no positives, some loops take turns.
- Nothing is claimed of what the graph hides, and what is left out on purpose from the start is information, said once.
- It never raises: a walk that fails is said once, and there is no other. Nothing of a graph or a model is kept alive.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from losslog.instrument.again import Again
from losslog.instrument.measures import Measures
from losslog.instrument.parts import Part, Parts
from losslog.instrument.reach import FROZEN, Loss, Reach, detail_of, frozen, frozen_told, lost, reach, told
from losslog.runtime.containment import attempt, one_line
from losslog.runtime.notices import say, warn

if TYPE_CHECKING:
    from losslog import Run

CHANGES: Final = 8
"""Walks between two epochs' first steps: some loops switch ``requires_grad`` at every step, and mean it."""
AGREEING: Final = 4
"""Further steps that must agree with a suspicion; four times as many after each that did not."""
HOPELESS: Final = 300
"""A loss that needs more of them comes and goes: nothing is suspected of it any more."""


class Reached:
    """Watches what each loss of one run trains.

    Args:
        models: Gives the models, wrapped or not.
        optimizers: Gives all optimizers over their parameters that are known.
        certain: Whether there can be no other optimizers.

    Attributes:
        measures: What else is measured at these steps. epoch: of the last walk, or None.
    """

    def __init__(
        self,
        models: Callable[[], Iterable[nn.Module]],
        optimizers: Callable[[], Iterable[Any]],
        *,
        certain: bool = True,
    ) -> None:
        self._models, self._optimizers, self._certain = models, optimizers, certain
        self._parts: Parts | None = None
        self._names: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()
        self._before: dict[str, Reach] = {}  # and in this epoch:
        self._known: dict[str, Reach] = {}
        self._suspects: dict[str, list[int]] = {}  # the step it was seen at first, steps since that agreed
        self._needed: dict[str, int] = {}
        self.epoch: int | None = None
        self._changes = 0
        self._said: set[tuple[str, str]] = set()
        self._again = Again()
        self._seen: dict[str, set[int]] = {}  # epochs in which a component was seen
        self._broken = self._hides = False
        self._untold: list[Callable[[Run], None]] = []
        self.measures = Measures()
        self._metrics: dict[str, Any] = {}
        self._detail: dict[str, Any] = {}
        self._steps_per_epoch: int | None = None

    def due(self, epoch: int | None) -> bool:
        """Whether the coming step's graph is to be walked.

        Args:
            epoch: From 1; None where it is that of the last walk.
        """
        if self._broken:
            return False
        if self._suspects or (epoch is not None and epoch != self.epoch):
            return True
        if self._parts is None or self._changes >= CHANGES or not self._parts.changed():
            return False
        self._changes += 1
        return True

    def walk(self, losses: Mapping[str, Any] | Tensor) -> dict[str, Reach] | None:
        """Walk from the losses of one batch, whose graph is still there; None where that failed.

        A loss of exactly 0 that has no graph is left out: a batch without anything to learn from.

        Args:
            losses: As the model gave them.
        """
        found, error = attempt(self._walk, {"loss": losses} if isinstance(losses, Tensor) else losses)
        if error is not None:
            self._fails(error)
        return found

    def take(self, found: Mapping[str, Reach] | None, epoch: int, step: int) -> None:
        """Judge what a walk found; `tell` says it.

        Args:
            found: From `walk`.
            epoch: From 1.
            step: Global step.
        """
        if found is not None and not self._broken:
            _, error = attempt(self._take, found, epoch, step)
            if error is not None:
                self._fails(error)

    def planned(self, steps_per_epoch: int | None) -> None:
        """How long an epoch is by its data, before one has ended."""
        if steps_per_epoch and not self._broken:
            self._steps_per_epoch = steps_per_epoch

    def measure(self) -> None:
        """An epoch begins; after its first walk, before its first step."""
        if self._parts is not None:
            self.measures.begin(self._parts, self._optimizers())

    def units(self, tensors: Iterable[Any]) -> None:
        """An epoch begins; after its first walk, of what its first backward pass is called on."""
        if self._parts is not None:
            self.measures.units(tensors, self._parts)

    @property
    def waiting(self) -> bool:
        """Whether there is something to tell."""
        return self.measures.waiting or bool(self._metrics or self._untold)

    def tell(self, run: Run, step: int | None = None) -> None:
        """Say what the walk found; once the step's losses are logged, so that it stands at that step.

        Args:
            run: Gets the alerts and metrics; ``reach/<component>`` is how many parameters each loss trains.
            step: Global step; None is the last one logged.
        """
        untold, self._untold = self._untold, []
        metrics, self._metrics = self._metrics | self.measures.take(), {}
        if metrics:
            detail, self._detail = self._detail, {}
            if detail and self._steps_per_epoch:
                detail["steps_per_epoch"] = self._steps_per_epoch
            run.log_metrics(metrics, step=step, detail=detail or None)
        for each in untold:
            each(run)

    def _fails(self, error: BaseException) -> None:
        if not self._broken:
            self._broken = True
            warn("what the losses train is not looked at in this run: %s", one_line(error))

    def _walk(self, losses: Mapping[str, Any]) -> dict[str, Reach]:
        empty = {
            name for name, each in losses.items()
            if isinstance(each, Tensor) and not each.requires_grad and each.numel() == 1 and not float(each)
        }  # fmt: skip
        losses = {name: each for name, each in losses.items() if name not in empty}
        known = self._parts
        parts = self._parts = known or Parts(*self._models(), names=self._names)
        found = reach(losses, parts)
        if known is not None and not all(each.certain for each in found.values()):  # a head may have been replaced
            parts = self._parts = Parts(*self._models(), names=self._names)
            found = reach(losses, parts)
        parts.mark()
        return found

    def _take(self, found: Mapping[str, Reach], epoch: int, step: int) -> None:
        assert self._parts is not None
        if epoch != self.epoch:
            self.epoch, self._changes, self._known = epoch, 0, {}
        parts, ever = self._parts.summary(self._optimizers()), self._parts.ever
        losses = {name: each for name, each in found.items() if self._is_loss(name, each)}
        known = {name: each for name, each in losses.items() if each.certain}
        if known:
            self._metrics |= {f"reach/{name}": each.total for name, each in known.items()}
            self._known |= known  # of several optimizers' steps
            self._detail = detail_of(self._known, parts)
        if not self._hides and (hidden := next((each.hidden for each in found.values() if each.hidden), "")):
            self._hides = True
            say("what the losses train is not told, or only in part: %s", hidden)
        for name, each in losses.items():
            self._compare(name, each, parts, step)
        self._tell_groups(losses, parts, step)
        if not self._seen and (still := [each for each in frozen(parts) if each not in ever]):
            self._alert(
                *frozen_told(still, step), "info", None, "frozen", {"parts": still}, f"frozen/{','.join(still)}"
            )
        for name in losses:
            self._seen.setdefault(name, set()).add(epoch)

    def _is_loss(self, name: str, found: Reach) -> bool:
        """Whether an entry is a loss: one that never had a graph may be a metric beside the losses."""
        return found.attached or name in self._before or name.startswith("loss_") or name.endswith("Loss")

    def _compare(self, name: str, now: Reach, parts: Mapping[str, Part], step: int) -> None:
        """Tell what a loss has lost since it was seen first, where that is certain."""
        before = self._before.get(name)
        if not now.certain or (before is None and now.total):
            self._suspects.pop(name, None)
            if now.certain:
                self._before[name] = now
            return
        gone = lost({name: before}, {name: now}, parts) if before is not None else []
        if before is not None and not gone:
            if self._suspects.pop(name, None) is not None:
                self._needed[name] = 4 * self._needed.get(name, AGREEING)
            self._before[name] = now
            if self._again.whole(name, self.epoch):
                self._said = {each for each in self._said if each[0] != name}
            return
        self._again.lost(name)
        new = [each for each in gone if (name, each.part) not in self._said]
        if before is None:
            if ("", name) in self._said:
                return
        elif not new:
            self._suspects.pop(name, None)
            return
        at = step
        if not any(each.why == FROZEN for each in new):
            if self._needed.get(name, AGREEING) > HOPELESS:
                self._suspects.pop(name, None)
                return
            suspicion = self._suspects.setdefault(name, [step, 0])
            suspicion[1] += step > suspicion[0]
            if suspicion[1] < self._needed.get(name, AGREEING):
                return
            at = suspicion[0]
        self._suspects.pop(name, None)
        if before is None:
            self._tell_dead(name, at)
        else:
            self._said.update((name, each.part) for each in gone)
            self._tell_lost(gone, at)

    def _tell_lost(self, gone: list[Loss], step: int) -> None:
        component, whole = gone[0].component, gone[0].whole
        title = f"{component} trains nothing" if whole else f"{component} no longer trains {gone[0].part}"
        level, cause = ("error", "not_trained") if whole else ("warning", "part_not_trained")
        evidence = {"step": step, "lost": {each.part: each.why for each in gone}}
        key = f"{title}/{step}" if self._again.told(component) > 1 else title
        self._alert(title, told(gone, step), level, component, cause, evidence, key)

    def _tell_dead(self, name: str, step: int) -> None:
        self._said.add(("", name))
        text = f"{name} trains nothing since step {step}: no parameter is behind it. Under no_grad, or detached?"
        self._alert(f"{name} trains nothing", text, "error", name, "not_trained", {"step": step, "lost": {}})

    def _tell_groups(self, found: Mapping[str, Reach], parts: Mapping[str, Part], step: int) -> None:
        trained = {
            name: [component for component in by if found[component].certain] for name, part in parts.items()
            if part.trainable and (by := [component for component, each in found.items() if name in each.tensors])
        }  # fmt: skip
        outside = {name: by for name, by in trained.items() if parts[name].outside == parts[name].trainable}
        moved = [name for name in trained if name not in outside and parts[name].still < parts[name].trainable]
        if outside and self._sees_all(found):
            if len(outside) < len(trained) - len(outside):
                for name, by in outside.items():
                    self._tell_group(name, by, step, f"{name} is in no optimizer group", "not_in_optimizer")
            elif ("outside", "") not in self._said:
                self._said.add(("outside", ""))
                self._said.update(("not_in_optimizer", name) for name in outside)
                text = f"Only {', '.join(moved) or 'nothing'} is in an optimizer's groups; {', '.join(outside)} is not."
                self._alert("parts that no optimizer moves", text, "info", None, "not_moved", {"parts": [*outside]})
        for name, by in trained.items():
            if (
                moved and parts[name].still == parts[name].trainable and self._seen_before(by or found)
            ):  # no warm-up's start
                self._tell_group(name, by, step, f"the learning rate of {name} is 0", "lr_zero")

    def _sees_all(self, found: Mapping[str, Reach]) -> bool:
        """Whether all optimizers are known: those of a loop seen from outside once they have stepped."""
        return self._certain or self._seen_before(found)

    def _seen_before(self, names: Iterable[str]) -> bool:
        """Whether these losses were seen in an earlier epoch."""
        return all(self._seen.get(name, set()) - {self.epoch} for name in names)

    def _tell_group(self, part: str, by: list[str], step: int, title: str, cause: str) -> None:
        if (cause, part) in self._said:
            return
        self._said.add((cause, part))
        said = title if (words := title.removeprefix("the ")) == title else f"The {words}"
        text = f"{said}: {', '.join(by) or 'losses'} would train it, and nothing moves its parameters."
        component, evidence = by[0] if len(by) == 1 else None, {"part": part, "losses": by, "step": step}
        self._alert(title, text, "warning", component, cause, evidence)

    def _alert(self, title: str, text: str, level: str, component: str | None, cause: str,
               evidence: Mapping[str, Any], key: str = "") -> None:  # fmt: skip
        key = f"reach/{key or title}"
        self._untold.append(lambda run: run.alert(title, text, level, key=key, component=component, cause=cause,
                                                  evidence=evidence, source="losslog"))  # fmt: skip
