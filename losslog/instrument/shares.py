"""How much of the gradient at the shared trunk comes from each loss: ``grad_share/<component>``.

On the thread that trains, before its backward pass, at one step of many. Contract:

- The trunk's outputs are read off the graph: where what most losses have in common ends, and their own heads begin.
  Nothing is put on a module or a parameter, and no gradient of a parameter is touched.
- Each loss counts as the root counts it: with its weight in the total, and a GradScaler's scale.
- What the heads change while they compute anew (checkpointing) is put back: random state, and buffers.
- Refused, in words, once, and never again in this run: a graph that shows no inside (torch.compile), one that must not
  be run twice (reentrant checkpointing, functions of the user's own), shards, and what may talk to other processes.
- No device is waited for. It never raises.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from losslog.instrument.parts import is_sharded
from losslog.instrument.reach import HIDING, MERGED, PASSING, leaf_type, ordered
from losslog.instrument.readings import Beside, Computed, staged
from losslog.instrument.rng import preserved_rng
from losslog.runtime.containment import attempt, one_line
from losslog.runtime.notices import say
from losslog.values.snapshot import resolve

if TYPE_CHECKING:
    from losslog import Run

Edges = Mapping[str, Sequence[GradientEdge]]
MOST: Final = 1000
"""Outputs of a trunk: a graph with more of them has none to speak of."""
PURE: Final = ("torch.", "torchvision.", "mmcv.", "detectron2.")
"""Whose functions with a backward in Python may be run twice."""
TALKING: Final = ("SyncBatchNorm", "AllReduce", "AllGather", "ReduceScatter", "AllToAll", "c10d", "Broadcast")


class Refused(Exception):
    """A graph of which no shares are taken; its text says why."""


class Shares:
    """Measures for one run.

    Args:
        every: Steps from one measurement to the next; 0 is never.

    Attributes:
        every: 0 too where it has failed.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self._last: int | None = None
        self._found: Beside | None = None

    def due(self, step: int) -> bool:
        """Whether the backward pass of a step is to be measured; the first one of it is.

        Args:
            step: Global step.
        """
        return bool(self.every) and step % self.every == 0 and step != self._last

    def measure(self, root: Sequence[Tensor], losses: Edges, models: Iterable[nn.Module], step: int) -> None:
        """Measure what each loss sends into the trunk, before a backward pass.

        Args:
            root: What backward is going to be called on.
            losses: Where each component is in the graph; fewer than two have nothing to share.
            models: Those that are trained.
            step: Global step.
        """
        if len(losses) < 2:
            return
        self._last = step
        norms, error = attempt(_norms, root, losses, [*models])
        if error is not None:
            self.every = 0
            why = str(error) if isinstance(error, Refused) else one_line(error)
            say("gradient shares are not measured in this run: %s", why)
        if norms:
            values = staged([*norms.values()])
            self._found = Beside((*norms,), Computed(lambda: _shared(resolve(values))))

    def ends(self) -> None:
        """The training is over: say so where there was nothing to measure."""
        if self.every and self._last is None:
            self.every = 0
            say("gradient shares were not measured: no backward pass came from several losses that are known by name")

    def take(self) -> Beside | None:
        """What was measured since the last call: shares by component, for who may wait for the device."""
        found, self._found = self._found, None
        return found


def log(run: Run, shares: Beside | None, step: int) -> None:
    """Log shares as ``grad_share/<component>``.

    Args:
        run: Gets them.
        shares: From `Shares.take`.
        step: Global step.
    """
    if shares is not None:
        run.log_later(tuple(f"grad_share/{name}" for name in shares.keys), shares.values, step=step)


def edges_of(losses: Mapping[str, Any] | Tensor) -> dict[str, list[GradientEdge]]:
    """Where losses are in their graph; what has none is left out."""
    named = losses if isinstance(losses, Mapping) else {"loss": losses}
    return {
        name: [GradientEdge(each.grad_fn, each.output_nr)]
        for name, each in named.items()
        if isinstance(each, Tensor) and each.grad_fn is not None
    }


def _shared(norms: Sequence[float]) -> list[float]:
    """Shares of norms; NaN where there is no gradient, or one that is not finite."""
    total = sum(norms)
    return [norm / total if total else math.nan for norm in norms]


def _norms(root: Sequence[Tensor], losses: Edges, models: Sequence[nn.Module]) -> dict[str, Tensor]:
    if any(each.numel() != 1 for each in root):
        raise Refused("backward() is called with a gradient of its own")
    trunk = _trunk(losses, models)
    if not trunk:
        raise Refused("no part of the model is shared by several losses")
    edges = [edge for several in losses.values() for edge in several]
    buffers = [(each, each.detach().clone()) for model in models for each in model.buffers()]
    with preserved_rng():
        try:
            arriving = torch.autograd.grad(root, edges, retain_graph=True, allow_unused=True)
            weights = dict(zip([id(edge) for edge in edges], arriving, strict=True))
            return {name: _norm(several, weights, trunk, root[0]) for name, several in losses.items()}
        finally:
            for buffer, value in buffers:
                buffer.data.copy_(value)  # another way, a graph that knows the version would refuse its backward


def _norm(
    edges: Sequence[GradientEdge], weights: Mapping[int, Tensor | None], trunk: Sequence[GradientEdge], root: Tensor
) -> Tensor:
    """The norm at the trunk of what one loss sends there."""
    sent = [(edge, weight) for edge in edges if (weight := weights[id(edge)]) is not None]
    none = torch.zeros((), device=root.device)
    if not sent:
        return none
    gradients = torch.autograd.grad(
        [_below(edge) for edge, _ in sent], trunk, [weight for _, weight in sent], retain_graph=True, allow_unused=True
    )
    norms = [
        torch.linalg.vector_norm(each, dtype=torch.promote_types(each.dtype, torch.float32)).to(root.device)
        for each in gradients if each is not None
    ]  # fmt: skip
    return torch.linalg.vector_norm(torch.stack(norms)) if norms else none


def _below(edge: GradientEdge) -> GradientEdge:
    """Where a loss comes from: not the node that DistributedDataParallel has put before all of them."""
    node: Any = edge.node
    place = edge.output_nr
    while type(node).__name__ == PASSING and place < len(node.next_functions):
        node, place = node.next_functions[place]
    return GradientEdge(node, place)


def _trunk(losses: Edges, models: Sequence[nn.Module]) -> list[GradientEdge]:
    """The outputs of what most losses share.

    Raises:
        Refused: The way there must not be gone twice.
    """
    if is_sharded(models):
        raise Refused("the parameters are shards (FSDP), and only this process would ask for them")
    starts: dict[Any, int] = {}
    for bit, several in enumerate(losses.values()):
        for edge in several:
            node = _below(edge).node
            starts[node] = starts.get(node, 0) | 1 << bit
    order = ordered([*starts])
    masks = {node: starts.get(node, 0) for node in order}
    counts: dict[int, int] = {}
    leaf = leaf_type()
    for node, children in order.items():  # every node after all that use it
        mask = masks[node]
        counts[mask] = counts.get(mask, 0) + (type(node) is not leaf)
        for child in children:
            masks[child] |= mask
    common = max(counts, key=lambda mask: (mask.bit_count(), counts[mask]))
    if common.bit_count() < 2:
        return []
    together = torch.distributed.is_available() and torch.distributed.is_initialized()
    found: dict[tuple[Any, int], None] = {}
    for node in order:
        if masks[node] & common and masks[node] != common:
            _may_run_twice(node, together=together)
            for child, place in node.next_functions:
                if child is not None and masks[child] == common and type(child) is not leaf:
                    found[child, place] = None
    for node in starts:  # the trunk gives the losses itself
        if masks[node] == common:
            _may_run_twice(node, together=together)
            raise Refused("the losses are computed by one function: what they share cannot be told apart")
    if len(found) > MOST:
        raise Refused(f"the losses share more than {MOST} tensors")
    return [GradientEdge(node, place) for node, place in found]


def _may_run_twice(node: Any, *, together: bool) -> None:
    """Whether the backward of a node does no harm.

    Raises:
        Refused: It may.
    """
    kind = type(node).__name__
    if kind in HIDING:
        raise Refused("reentrant checkpointing computes its inside only in backward() (use_reentrant=False does not)")
    if kind == MERGED:
        raise Refused("torch.compile has merged the losses with what they share")
    origin = str(getattr(getattr(node, "_forward_cls", None), "__module__", ""))
    if together and (origin.startswith("torch.distributed") or any(each in kind for each in TALKING)):
        raise Refused(f"{kind.partition('Backward')[0]} talks to the other processes, which do not measure")
    if isinstance(node, torch.autograd.function.BackwardCFunction) and not origin.startswith(PURE):
        raise Refused(f"{kind.partition('Backward')[0]} has a backward of its own, which may not bear two calls")
