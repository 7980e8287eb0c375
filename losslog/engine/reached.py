"""Says when a loss stops to train a part of the model, and what the optimizer leaves out. Runs on the training thread.

Contract:

- The graph is walked at the first step of each epoch, and where the set of trainable parameters has changed; at other
  steps the flags of the parameters are looked at, some microseconds.
- Nothing is claimed of what the graph hides, and what is frozen from the start is information, said once.
- It never raises: a walk that fails is said once, and there is no other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from torch import Tensor, nn

from losslog.instrument.reach import Loss, Part, Parts, Reach, lost, reach, told
from losslog.runtime.containment import attempt, one_line
from losslog.runtime.notices import warn

if TYPE_CHECKING:
    from losslog import Run

CHANGES: Final = 8
"""Walks between two epochs' first steps: some loops switch ``requires_grad`` at every step, and mean it."""


class Reached:
    """Watches what each loss of one run trains.

    Args:
        model: The model, also wrapped.
        optimizers: Over its parameters.
        run: Alerts go there.
    """

    def __init__(self, model: nn.Module, optimizers: Sequence[Any], run: Run) -> None:
        self._parts = Parts(model)
        self._optimizers = optimizers
        self._run = run
        self._before: dict[str, Reach] = {}
        self._epoch: int | None = None
        self._signature = 0
        self._changes = 0
        self._said: set[tuple[str, str]] = set()
        self._visits = 0
        self._broken = False
        self._untold: list[Callable[[], None]] = []
        self._metrics: dict[str, int] = {}

    def due(self, epoch: int) -> bool:
        """Whether the coming step's graph is to be walked."""
        if self._broken:
            return False
        if epoch != self._epoch:
            self._changes = 0
            return True
        return self._changes < CHANGES and self._parts.signature() != self._signature

    def take(self, losses: Mapping[str, Any] | Tensor, epoch: int, step: int) -> None:
        """Walk from the losses of one batch, whose graph is still there; `tell` says what was found.

        Args:
            losses: As the model gave them.
            epoch: From 1.
            step: Global step.
        """
        _, error = attempt(self._take, {"loss": losses} if isinstance(losses, Tensor) else losses, epoch, step)
        if error is not None:
            self._broken = True
            warn("what the losses train is not looked at in this run: %s", one_line(error))

    def tell(self) -> None:
        """Alert what the walk found; once the step's losses are logged, so that it stands at that step."""
        untold, self._untold = self._untold, []
        for each in untold:
            each()

    def metrics(self) -> dict[str, int]:
        """How many parameters each loss was found to train, once after each walk: ``reach/<component>``."""
        found, self._metrics = self._metrics, {}
        return found

    def _take(self, losses: Mapping[str, Any], epoch: int, step: int) -> None:
        self._changes += epoch == self._epoch
        self._epoch, self._signature = epoch, self._parts.signature()
        found, parts = reach(losses, self._parts), self._parts.summary(self._optimizers)
        known = {name: each for name, each in found.items() if each.certain and self._is_loss(name, each)}
        if known:
            self._metrics = {f"reach/{name}": each.total for name, each in known.items()}
        self._tell_lost(lost(self._before, found, parts), step)
        self._tell_groups(found, parts, step)
        if not self._visits:
            self._tell_frozen(parts)
            self._tell_dead(found, step)
        self._visits += 1
        self._before.update(found)

    def _is_loss(self, name: str, found: Reach) -> bool:
        """Whether an entry is a loss: one that never had a graph may be a metric beside the losses."""
        return found.attached or name in self._before or name.startswith("loss_")

    def _tell_lost(self, losses: list[Loss], step: int) -> None:
        for component in dict.fromkeys(each.component for each in losses):
            mine = [each for each in losses if each.component == component]
            new = [each for each in mine if (component, each.part) not in self._said]
            self._said.update((component, each.part) for each in mine)
            if not new:
                continue
            whole = mine[0].whole
            title = f"{component} trains nothing" if whole else f"{component} no longer trains {mine[0].part}"
            evidence = {"step": step, "lost": {each.part: each.why for each in mine}}
            self._alert(title, told(mine, step), "error" if whole else "warning", component,
                        "not_trained" if whole else "part_not_trained", evidence)  # fmt: skip

    def _tell_dead(self, found: Mapping[str, Reach], step: int) -> None:
        for name, each in found.items():
            if each.certain and not each.total and self._is_loss(name, each) and ("", name) not in self._said:
                self._said.add(("", name))
                text = (
                    f"{name} trains nothing since step {step}, the first one: no parameter is behind it. Is it "
                    f"computed under no_grad, or detached?"
                )
                self._alert(f"{name} trains nothing", text, "error", name, "not_trained", {"step": step, "lost": {}})

    def _tell_groups(self, found: Mapping[str, Reach], parts: Mapping[str, Part], step: int) -> None:
        for name, part in parts.items():
            trained_by = [component for component, each in found.items() if name in each.tensors]
            if not trained_by or not part.trainable:
                continue
            by = ", ".join(trained_by)
            component = trained_by[0] if len(trained_by) == 1 else None
            if part.outside == part.trainable and ("outside", name) not in self._said:
                self._said.add(("outside", name))
                text = f"{name} is in no optimizer group: {by} would train it, and nothing moves its parameters."
                self._alert(f"{name} is in no optimizer group", text, "warning", component, "not_in_optimizer",
                            {"part": name, "losses": trained_by, "step": step})  # fmt: skip
            elif self._visits and part.still == part.trainable and ("still", name) not in self._said:
                self._said.add(("still", name))  # not at the first visit: a warm-up may begin at 0
                text = f"The learning rate of {name} is 0: {by} would train it, and nothing moves its parameters."
                self._alert(f"the learning rate of {name} is 0", text, "warning", component, "lr_zero",
                            {"part": name, "losses": trained_by, "step": step})  # fmt: skip

    def _tell_frozen(self, parts: Mapping[str, Part]) -> None:
        frozen = [name for name, part in parts.items() if part.tensors and not part.trainable]
        if frozen:
            text = f"Frozen from the start: {', '.join(frozen)} (requires_grad is False)."
            self._alert("parts frozen from the start", text, "info", None, "frozen", {"parts": frozen})

    def _alert(
        self, title: str, text: str, level: str, component: str | None, cause: str, evidence: Mapping[str, Any]
    ) -> None:
        key = f"reach/{title}"
        told = partial(self._run.alert, title, text, level, key=key)
        self._untold.append(partial(told, component=component, cause=cause, evidence=evidence))
