"""Says when a loss stops to train a part of the model, and what the optimizer leaves out.

On the thread that trains; used by `losslog.engine` and by those who watch a loop from outside. Contract:

- The graph is walked at the first step of each epoch, after 16 steps, then ever more seldom, and where the set of
  trainable parameters has changed: at each step one flag of each part is looked at, at every 16th all.
- What a switched-off ``requires_grad`` proves is said at once, where parts may take turns (`turns`) as information. A
  loss that is only detached is looked at again in the steps that follow, and said when all agree: some batches have no
  positives, some loops take turns. What is trained again is said too. "Since" is said where the step before was seen,
  or the change itself; else "seen at".
- Nothing is claimed of what the graph hides, and what is left out on purpose from the start is information, said once.
- It never raises: a walk that fails is said once, and there is no other. Nothing of a graph or a model is kept alive.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from losslog.instrument.again import Again
from losslog.instrument.groups import Groups
from losslog.instrument.measures import Measures
from losslog.instrument.parts import Part, Parts, moved_by, trained
from losslog.instrument.reach import FROZEN, Loss, Reach, detail_of, is_empty, is_loss, lost, named, reach, told
from losslog.instrument.suspicions import SELDOM, Looks, Suspicions
from losslog.instrument.turns import Turns, short_turn
from losslog.runtime.containment import attempt, one_line
from losslog.runtime.notices import say, warn

if TYPE_CHECKING:
    from losslog import Run

CHANGES: Final = 8
"""Walks between two epochs' first steps: some loops switch ``requires_grad`` at every step, and mean it."""
KEPT: Final = 64  # steps at which a change was seen that are remembered


class Reached:
    """Watches what each loss of one run trains.

    Args:
        models: Gives the models, wrapped or not.
        optimizers: Gives all optimizers over their parameters that are known.
        certain: Whether there can be no other optimizers.
        idle: Gives those that have not stepped yet.

    Attributes:
        measures: What else is measured at these steps. epoch: of the last walk, or None.
        left_out: Losses that are in no backward pass.
    """

    def __init__(
        self,
        models: Callable[[], Iterable[nn.Module]],
        optimizers: Callable[[], Iterable[Any]],
        *,
        certain: bool = True,
        idle: Callable[[], Iterable[Any]] = tuple,
    ) -> None:
        self._models, self._optimizers, self._idle = models, optimizers, idle
        self._parts: Parts | None = None
        self._names: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()
        self._before: dict[str, Reach] = {}  # and in this epoch:
        self._known: dict[str, Reach] = {}
        self._suspects, self._looks, self._again, self._turns = Suspicions(), Looks(), Again(), Turns()
        self._good: dict[str, int] = {}  # the last step at which each was as before
        self._changed: set[int] = set()  # first steps of suspicions that the change itself gave
        self._doubtful: set[str] = set()  # claimed, and perhaps trained again
        self._groups = Groups(self._suspects, self._alert, certain=certain)
        self.epoch: int | None = None
        self.left_out: Sequence[str] = ()
        self._began = self._changes = 0
        self._said: set[tuple[str, str]] = set()
        self._broken = self._hides = self._exact = self._differs = False
        self._untold: list[Callable[[Run], None]] = []
        self.measures = Measures()
        self._metrics: dict[str, Any] = {}
        self._detail: dict[str, Any] = {}
        self._steps_per_epoch: int | None = None

    def due(self, step: int, *, fresh: bool, changed: bool = False) -> bool:
        """Whether the coming step's graph is to be walked.

        Args:
            step: Global step.
            fresh: Whether it is an epoch's first.
            changed: Whether it is known that the graph is another.
        """
        if self._broken:
            return False
        changed = changed or self._differs or (self._parts is not None and self._parts.changed())
        self._differs = False
        if fresh or step >= self._looks.next:
            self._looks.due(step, fresh=fresh)
            self._changes = 0
        elif not (self._suspects.since and self._suspects.due(step)):
            if not changed or (self._changes >= CHANGES and not self._suspects.since):
                return False
            self._changes += 1
        self._exact = self._exact or changed
        return True

    def quiet(self, step: int) -> int:
        """For how many coming steps `due` says no, as long as it is `still`."""
        return SELDOM if self._broken else 0 if self._suspects.since else max(self._looks.next - step, 0)

    def still(self) -> bool:
        """Whether the parameters that can be trained are as they were; `due` may be asked afterwards."""
        self._differs = not self._broken and (self._differs or (self._parts is not None and self._parts.changed()))
        return not self._differs

    def walk(self, losses: Mapping[str, Any] | Tensor) -> dict[str, Reach] | None:
        """Walk from the losses of one batch, whose graph is still there; None where that failed.

        A loss of exactly 0 that has no graph is left out: a batch without anything to learn from.
        """
        found, error = attempt(self._walk, {"loss": losses} if isinstance(losses, Tensor) else losses)
        if error is not None:
            self._fails(error)
        return found

    def take(self, found: Mapping[str, Reach] | None, epoch: int, step: int) -> None:
        """Judge what a `walk` found at a global step of an epoch, from 1; `tell` says it."""
        if found is not None and not self._broken:
            _, error = attempt(self._take, found, epoch, step)
            if error is not None:
                self._fails(error)

    def planned(self, steps_per_epoch: int | None) -> None:
        """How long an epoch is by its data, before one has ended."""
        if steps_per_epoch and not self._broken:
            self._steps_per_epoch = steps_per_epoch
            self._suspects.planned(steps_per_epoch)

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
        losses = {name: each for name, each in losses.items() if not is_empty(each)}
        known = self._parts
        parts, moved = known or self._divide(), moved_by(self._optimizers())
        found = reach(losses, parts, moved)
        if known is not None and not all(each.certain for each in found.values()):  # a head may have been replaced
            parts = self._divide()
            found = reach(losses, parts, moved)
        parts.mark()
        return found

    def _divide(self) -> Parts:
        models = trained(self._models(), self._optimizers())
        self._parts = Parts(*models, names=self._names, known=self._parts)
        return self._parts

    def _take(self, found: Mapping[str, Reach], epoch: int, step: int) -> None:
        assert self._parts is not None
        if epoch != self.epoch:
            if self._steps_per_epoch is None and self.epoch == epoch - 1:  # as long as the last one
                self._suspects.planned(step - self._began)
            self.epoch, self._began, self._changes, self._known = epoch, step, 0, {}
        parts = self._parts.summary(self._optimizers())
        self._turns.look(parts, step)
        losses = {name: each for name, each in found.items() if name in self._before or is_loss(name, each)}
        known = {name: each for name, each in losses.items() if each.certain}
        if known:
            self._metrics |= {f"reach/{name}": each.total for name, each in known.items()}
            self._known |= known  # of several optimizers' steps
            self._detail = detail_of(self._known, parts, self.left_out)
        if not self._hides and (hidden := next((each.hidden for each in found.values() if each.hidden), "")):
            self._hides = True
            say("what the losses train is not told, or only in part: %s", hidden)
        for name, each in losses.items():
            self._compare(name, each, parts, step)
        idle, turn = self._parts.held(self._idle()), short_turn(self._steps_per_epoch)
        self._groups.look(losses, parts, self._parts.ever, epoch, step, idle, turn)
        self._exact = False

    def _compare(self, name: str, now: Reach, parts: Mapping[str, Part], step: int) -> None:
        """Tell what a loss has lost since it was seen first, where that is certain."""
        if name in self._before and self._before[name].line != now.line:  # of another model, with its own optimizer
            self._drop(name)
            self._doubtful.discard(name)
            self._said = {each for each in self._said if name not in each}
            del self._before[name]
        before = self._before.get(name)
        if not now.certain or (before is None and now.total):
            self._drop(name)
            if now.certain:
                self._before[name], self._good[name] = now, step
            return
        gone = lost({name: before}, {name: now}, parts) if before is not None else []
        if before is not None and not gone:
            self._suspects.refuted(name, (name, FROZEN))
            self._before[name], self._good[name] = now, step
            if name in self._doubtful:
                self._doubtful.discard(name)
                title = f"{name} trains it again"
                text = f"{name} trains at step {step} what it did not: it comes and goes, or was put right."
                self._alert(title, text, "info", name, "trained_again", {"step": step}, f"{title}/{step}")
            if self._again.whole(name, self.epoch):
                self._said = {each for each in self._said if each[0] != name}
            return
        self._again.lost(name)
        new = [each for each in gone if (name, each.part) not in self._said]
        if before is None:
            if ("", name) in self._said:
                return
        elif not new:
            self._drop(name)
            return
        if self._exact:
            self._changed = {*sorted(self._changed)[-KEPT:], step}
        frozen = [each.part for each in new if each.why == FROZEN]
        needed, fault, quiet = self._turns.needed(frozen, self._steps_per_epoch)
        if not frozen:
            at = self._suspects.holds(name, step)
        elif (needed and (quiet or len(frozen) == len(new))) or self._suspects.returned((name, FROZEN)):
            at = self._suspects.holds((name, FROZEN), step, needed, seen=True)
            if at is None and not quiet and not self._suspects.returned((name, FROZEN)):
                self._tell_turn(gone, step, needed)
        else:
            at = step
        if at is None:
            return
        self._drop(name)
        if before is None:
            self._tell_dead(name, at)
            return
        self._doubtful.add(name)
        if not frozen:  # a flag that is switched back is seen at that step
            self._looks.soon()
        good = self._good.get(name, at - 1)
        known = at in self._changed or at - good <= 1
        self._said.update((name, each.part) for each in gone)
        level = "info" if not fault else "error" if gone[0].whole else "warning"
        again = f"/{at}" if self._again.told(name) > 1 else ""
        self._tell_lost(gone, at, told(gone, at, None if known else good), level, again)

    def _drop(self, name: str) -> None:
        self._suspects.drop(name, (name, FROZEN))

    def _tell_turn(self, gone: list[Loss], step: int, needed: int) -> None:
        """Say once that parts are frozen which may be thawed again."""
        if ("turn", gone[0].component) not in self._said:
            self._said.add(("turn", gone[0].component))
            self._doubtful.add(gone[0].component)
            text = f"{told(gone, step)}. Do they take turns? If it lasts for {needed} steps, that is a warning."
            self._tell_lost(gone, step, text, "info", "/turn")

    def _tell_lost(self, gone: list[Loss], step: int, text: str, level: str, key: str) -> None:
        title, cause = named(gone)
        evidence = {"step": step, "lost": {each.part: each.why for each in gone}}
        self._alert(title, text, level, gone[0].component, cause, evidence, f"{title}{key}")

    def _tell_dead(self, name: str, step: int) -> None:
        self._said.add(("", name))
        text = f"{name} trains nothing since step {step}: no parameter is behind it. Under no_grad, or detached?"
        self._alert(f"{name} trains nothing", text, "error", name, "not_trained", {"step": step, "lost": {}})

    def _alert(self, title: str, text: str, level: str, component: str | None, cause: str,
               evidence: Mapping[str, Any], key: str = "") -> None:  # fmt: skip
        key = f"reach/{key or title}"
        self._untold.append(lambda run: run.alert(title, text, level, key=key, component=component, cause=cause,
                                                  evidence=evidence, source="losslog"))  # fmt: skip
