"""What each loss trains: a walk from a loss through the graph of its backward to the parameters it reaches.

Plain functions on tensors and modules; for the thread that holds the graph, after the forward pass and before or after
``backward()``. Contract:

- No numerics, no backward, no device is waited for: the graph that the loop's own backward uses is read, node by node,
  once for all losses together.
- What the graph hides is said, not guessed: a reentrant checkpoint keeps its inside to itself, and a parameter that is
  not the model's (a shard, a copy) may stand for any. `Reach.certain` is then false for that loss.
- A leaf that is no parameter is an input, unless a parameter of its shape is reached by no loss: then it may be a copy.
  One that an optimizer has, as it has those parameters, is trained beside them: nothing is claimed of its loss.
- Parameters are compared by identity; nothing of the graph or of the model is kept alive by what is returned.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

import torch
from torch import Tensor, nn

from losslog.instrument.parts import Part, Parts

MOST: Final = 64
"""Components in the table of what they train."""
HIDING: Final = ("CheckpointFunctionBackward",)
"""Nodes whose parameters the graph does not show: a reentrant checkpoint computes its inside anew, in backward."""
PASSING: Final = "_DDPSinkBackward"
"""A node of DistributedDataParallel's that all outputs share; each passes through it to its own."""
MERGED: Final = "CompiledFunctionBackward"
"""The node of a compiled graph: what its outputs share of the inside cannot be told apart."""
FOREIGN: Final = "a tensor that is no parameter of the model is trained, beside it or in place of one"
STRANGE: Final = (
    "a parameter that is trained is of no model that was seen being called (one in a compiled function, a copy)"
)
CHECKPOINT: Final = "reentrant checkpointing (use_reentrant=True) hides its inside"
COMPILED: Final = "torch.compile has merged several losses"
FROZEN: Final = "requires_grad is False"
NO_GRAPH: Final = "no graph was recorded (no_grad, or detached)"


@dataclass(frozen=True, slots=True)
class Reach:
    """What one loss trains.

    Attributes:
        tensors: Parameters it reaches, by part; parts it does not reach are left out.
        certain: Whether the graph hides nothing of it.
        attached: Whether it has a graph at all.
        hidden: What hides some of it, in words.
        line: Number of the optimizer that steps on it; one with other parameters has another.
    """

    tensors: Mapping[str, int] = field(default_factory=dict)
    certain: bool = True
    attached: bool = True
    hidden: str = ""
    line: int = 0

    @property
    def total(self) -> int:
        """Parameters it reaches."""
        return sum(self.tensors.values())


@dataclass(frozen=True, slots=True)
class Loss:
    """A part that a loss has stopped to train.

    Attributes:
        component: Name of the loss.
        part: Name of the part.
        why: "requires_grad is False", "detached", or "no graph was recorded (no_grad, or detached)".
        whole: Whether the loss trains nothing at all any more.
    """

    component: str
    part: str
    why: str
    whole: bool


def reach(losses: Mapping[str, Any], parts: Parts, moved: Iterable[int] = ()) -> dict[str, Reach]:
    """Walk from each loss to what it trains.

    Args:
        losses: Tensors by name, as the model gave them; what is no tensor is left out.
        parts: The model's parts.
        moved: Identities of what optimizers have.
    """
    roots = {name: value for name, value in losses.items() if isinstance(value, Tensor)}
    nodes = [_node_of(value) for value in roots.values()]
    order = ordered([node for node in nodes if node is not None])
    masks = dict.fromkeys(order, 0)
    for bit, node in enumerate(nodes):
        if node is not None:
            masks[node] |= 1 << bit
    counts: list[dict[str, int]] = [{} for _ in roots]
    uncertain, leaf, why = 0, leaf_type(), ""
    inputs: list[tuple[Tensor, int]] = []
    moved = {*moved}
    beside = 0
    met: set[int] = set()
    for node, children in order.items():  # every node after all that use it
        mask = masks[node]
        for child in children:
            masks[child] |= mask
        if children:
            kind = type(node).__name__
            if kind in HIDING or (kind == MERGED and mask & (mask - 1)):
                uncertain, why = uncertain | mask, CHECKPOINT if kind in HIDING else COMPILED
        elif type(node) is leaf:
            variable = node.variable
            part = parts.of.get(id(variable))
            if part is None:
                if type(variable) is nn.Parameter:
                    uncertain, why = uncertain | mask, STRANGE
                elif isinstance(variable, nn.Parameter) or hasattr(variable, "to_local"):
                    uncertain, why = uncertain | mask, FOREIGN
                else:
                    inputs.append((variable, mask))
                continue
            met.add(id(variable))
            for bit, count in enumerate(counts):
                if mask >> bit & 1:
                    count[part] = count.get(part, 0) + 1
        elif type(node).__name__ in HIDING:
            uncertain, why = uncertain | mask, CHECKPOINT
    if inputs:
        unmet = [each for _, each in parts.parameters() if id(each) not in met]
        shapes, left = {each.shape for each in unmet}, {each.shape for each in unmet if id(each) not in moved}
        for each, mask in inputs:
            if id(each) in moved and each.shape not in left:  # in an optimizer, as are all that it could stand for
                beside |= mask
            elif each.shape in shapes:
                uncertain, why = uncertain | mask, FOREIGN
    found = {}
    for bit, (name, value) in enumerate(roots.items()):
        own = parts.of.get(id(value)) if value.grad_fn is None and value.requires_grad else None
        count = counts[bit] if own is None else {own: 1}
        certain = not uncertain >> bit & 1 and bool(count or not beside >> bit & 1)
        found[name] = Reach(count, certain, value.requires_grad, "" if certain else why)
    return found


def _node_of(value: Tensor) -> Any:
    """The node behind a loss; of a wrapper's node, the one that this loss came from."""
    node, place = value.grad_fn, value.output_nr
    while node is not None and type(node).__name__ == PASSING and place < len(node.next_functions):
        node, place = node.next_functions[place]
    return node


def is_empty(value: Any) -> bool:
    """Whether a value is a loss of exactly 0 that has no graph."""
    plain = isinstance(value, Tensor) and not value.requires_grad and value.numel() == 1
    return plain and not float(value)


def is_loss(name: str, found: Reach) -> bool:
    """Whether an entry is a loss: one that never had a graph may be a metric beside the losses."""
    return found.attached or name.startswith("loss_") or name.endswith("Loss")


def lost(before: Mapping[str, Reach], after: Mapping[str, Reach], parts: Mapping[str, Part]) -> list[Loss]:
    """What losses have stopped to train between two walks: whole parts only, and only where the graph hides nothing.

    Args:
        before: The earlier walk.
        after: The later one.
        parts: The parts at the later one, from `Parts.summary`.
    """
    found = []
    for name, now in after.items():
        was = before.get(name)
        if was is None or not (was.certain and now.certain):
            continue
        gone = [part for part in was.tensors if part not in now.tensors and part in parts]
        frozen = [part for part in gone if not parts[part].trainable]
        other = "detached" if now.attached or frozen else NO_GRAPH
        for part in gone:
            why = FROZEN if part in frozen else other
            if why == NO_GRAPH and parts[part].evaluating:
                why += ", in eval mode"
            found.append(Loss(name, part, why, not now.tensors))
    return found


def named(losses: list[Loss]) -> tuple[str, str]:
    """Title and cause of what one component has stopped to train."""
    component, part = losses[0].component, losses[0].part
    if losses[0].whole:
        return f"{component} trains nothing", "not_trained"
    return f"{component} no longer trains {part}", "part_not_trained"


def told(losses: list[Loss], step: int, good: int | None = None) -> str:
    """What one component has stopped to train, in words.

    Args:
        losses: Of one component, at least one.
        step: Step of the later walk.
        good: Of the earlier one, where it began at any step between.
    """
    component, whole = losses[0].component, losses[0].whole
    reasons: dict[str, list[str]] = {}
    for each in losses:
        reasons.setdefault(each.why, []).append(each.part)
    because = "; ".join(f"{', '.join(parts)}: {why}" for why, parts in reasons.items())
    head = "trains nothing" if whole else f"no longer trains {', '.join(each.part for each in losses)}"
    since = f"since step {step}" if good is None else f"(seen at step {step}, not yet at step {good})"
    return f"{component} {head} {since}: {because}"


def frozen(parts: Mapping[str, Part]) -> list[str]:
    """Names of the parts of which nothing may train."""
    return [name for name, part in parts.items() if part.tensors and not part.trainable]


def frozen_told(names: list[str], step: int) -> tuple[str, str]:
    """Title and text on parts that are frozen at the first look; of what was before a later step none knows."""
    since = f"at step {step}" if step else "from the start"
    looked = ", where this process began" if step else ""
    return f"parts frozen {since}", f"Frozen {since}{looked}: {', '.join(names)} ({FROZEN})."


def detail_of(found: Mapping[str, Reach], parts: Mapping[str, Part], left_out: Sequence[str] = ()) -> dict[str, Any]:
    """What each component trains, by part, and what the optimizers make of the parts: plain data.

    With the names of losses that are in no backward pass, where there are others.

    A part that is frozen just now, and was not when a loss was walked, is trained by turns.
    """
    trained = {part: max(each.tensors.get(part, 0) for each in found.values()) for part in parts if found}
    return {
        "reach": {name: dict(found[name].tensors) for name in [*found][:MOST]},
        "parts": {
            name: {"tensors": part.tensors, "trainable": part.trainable or trained.get(name, 0), "size": part.size,
                   "lr": list(part.rates), "outside": part.outside}
            for name, part in parts.items()
        },
        **({"left_out": others} if (others := [name for name in left_out if name not in found]) else {}),
    }  # fmt: skip


def ordered(roots: list[Any]) -> dict[Any, tuple[Any, ...]]:
    """All nodes below the roots with their children, every node before its children."""
    children: dict[Any, tuple[Any, ...]] = {}
    done: list[Any] = []
    stack = [(root, False) for root in roots]
    while stack:
        node, left = stack.pop()
        if left:
            done.append(node)
        elif node not in children:
            below = children[node] = tuple(child for child, _ in node.next_functions if child is not None)
            stack.append((node, True))
            stack += [(child, False) for child in below if child not in children]
    return {node: children[node] for node in reversed(done)}


@cache
def leaf_type() -> Any:
    """The type of the nodes that add a gradient to a parameter."""
    (node, _), *_ = torch.zeros(1, requires_grad=True).view(1).grad_fn.next_functions  # type: ignore[union-attr]
    return type(node)
