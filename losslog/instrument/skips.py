"""Steps that a GradScaler does not take: most of them skipped means that next to nothing is trained.

On the thread that trains; used by `losslog.engine` and by those who watch a loop from outside. Contract:

- A scaler that is new looks for its scale: its first skips are no news before the scale is below 1.
- Said once, with the gradients that were not finite, and again only after most steps were taken. No device is waited
  for but to say it.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

import torch

from losslog.runtime.containment import attempt

if TYPE_CHECKING:
    from losslog.run import Run

LAST: Final = 40
ENOUGH: Final = 20  # of the last ones
OVER: Final = 4
NAMED: Final = 3


class Skips:
    """Counts for one run."""

    def __init__(self) -> None:
        self._of: weakref.WeakKeyDictionary[Any, _Steps] = weakref.WeakKeyDictionary()

    def asked(self, scaler: Any, optimizer: Any, run: Run | None, models: Callable[[], Iterable[Any]], *,
              skipped: bool) -> None:  # fmt: skip
        """A scaler was asked to step an optimizer.

        Args:
            scaler: the `torch.amp.GradScaler`.
            optimizer: that was to step; its gradients are still there.
            run: is told.
            models: gives the models.
            skipped: whether the step was left out.
        """
        steps = self._of.setdefault(optimizer, _Steps())
        steps.last.append(skipped)
        steps.taken = steps.taken or not skipped
        count = sum(steps.last)
        if count <= OVER:
            steps.told = False
        if run is None or not skipped or steps.told or count < ENOUGH:
            return
        scale, _ = attempt(lambda: float(scaler.get_scale()))
        if scale is None or not (steps.taken or scale < 1):
            return
        steps.told = True
        _tell(run, optimizer, models(), count, len(steps.last), scale)

    def late(self, optimizer: Any) -> None:
        """A step that seemed to be taken was not: the device tells later of fused optimizers."""
        steps = None if optimizer is None else self._of.get(optimizer)
        if steps is not None:
            for place in range(len(steps.last) - 1, -1, -1):
                if not steps.last[place]:
                    steps.last[place] = True
                    return


class _Steps:
    def __init__(self) -> None:
        self.last: deque[bool] = deque(maxlen=LAST)
        self.taken = self.told = False


def _tell(run: Run, optimizer: Any, models: Iterable[Any], count: int, last: int, scale: float) -> None:
    own = {id(each) for group in optimizer.param_groups for each in group["params"]}
    bad = [
        name for name, each in {name: each for model in models for name, each in model.named_parameters()}.items()
        if id(each) in own and each.grad is not None and not torch.isfinite(each.grad.detach()).all()
    ]  # fmt: skip
    text = f"{count} of the last {last} steps were skipped: the GradScaler found gradients that were not finite"
    if bad:
        more = f" and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
        text += f", last those of {', '.join(bad[:NAMED])}{more}"
    text += f". Its scale has come to {scale:.3g}"
    if scale < 1:
        text += ": it is not float16's range that makes them so"
    text += ". What is skipped trains nothing. Compute what overflows in float32, or try bfloat16."
    evidence = {
        "skipped": count,
        "of": last,
        "scale": scale,
        "gradients": bad[:LAST],
        "step": max(0, run.next_step - 1),
    }
    run.alert("most steps are skipped", text, "warning", key=f"scaler_skips/{run.next_step}", cause="scaler_skips",
              evidence=evidence, source="losslog")  # fmt: skip
