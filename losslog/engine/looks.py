"""What is looked at beside training, in the graph of one batch. Runs on the training thread, before its backward pass.

Contract:

- Looks are taken at the first steps of an epoch, and where the run was asked for shares; other steps have none.
- Nothing here raises, and none of it changes what is trained.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from losslog.engine.batches import Forward, Losses, apart, as_losses
from losslog.engine.distributed import unwrap
from losslog.engine.optimization import MixedPrecision
from losslog.instrument.reached import Reached
from losslog.instrument.shares import Shares, edges_of
from losslog.instrument.tracing import Tracer


def tracer_of(model: nn.Module, forward: Forward, precision: MixedPrecision) -> Tracer:
    """What computes a batch again, as training does, whose losses are not finite."""

    def again(bare: nn.Module, batch: Any) -> Any:
        with precision.autocast():
            return as_losses(forward(bare, batch))

    return Tracer(unwrap(model), again)


def looking(
    model: nn.Module, reached: Reached, shares: Shares | None, epoch: int, step: int
) -> Callable[[Losses, Tensor], None] | None:
    """What looks at the first batch of the coming step; None where nobody wants to.

    Args:
        model: that is trained.
        reached: what the losses train.
        shares: what they have of the gradient.
        epoch: from 1.
        step: global step.
    """
    walks, measures = reached.due(step, fresh=epoch != reached.epoch), shares is not None and shares.due(step)
    if not (walks or measures):
        return None

    def look(losses: Losses, root: Tensor) -> None:
        if walks:
            fresh = epoch != reached.epoch
            reached.take(reached.walk(losses), epoch, step)
            if fresh:
                reached.measure()
                reached.units([root])
        if measures and shares is not None:
            components: Any = apart(losses)[0]
            shares.measure([root], edges_of(components), [model], step)

    return look
