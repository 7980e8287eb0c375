"""What each loss trains: a walk from a loss through the graph of its backward to the parameters it reaches.

Plain functions on tensors and modules; for the thread that holds the graph, after the forward pass and before or after
``backward()``. Contract:

- No numerics, no backward, no device is waited for: the graph that the loop's own backward uses is read, node by node,
  once for all losses together.
- What the graph hides is said, not guessed: a reentrant checkpoint keeps its inside to itself, and a leaf that is no
  parameter of the model (a shard, a copy) may stand for any. `Reach.certain` is then false for that loss.
- Parameters are compared by identity; nothing of the graph or of the model is kept alive by what is returned.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

import torch
from torch import Tensor, nn

# First match wins; prefixes of torchvision's detectors. Other models: their top-level modules.
DETECTOR: Final = (
    ("backbone.fpn.", "fpn"),
    ("backbone.", "backbone"),
    ("rpn.", "rpn"),
    ("roi_heads.box_", "box_head"),
    ("roi_heads.mask_", "mask_head"),
    ("roi_heads.keypoint_", "keypoint_head"),
    ("head.", "head"),
)
MOST: Final = 24
REST: Final = "the rest"
"""Parts of a model that has more of them than `MOST`."""
WRAPPERS: Final = ("module", "_orig_mod", "_fsdp_wrapped_module")
HIDING: Final = ("CheckpointFunctionBackward",)
"""Nodes whose parameters the graph does not show: a reentrant checkpoint computes its inside anew, in backward."""
PASSING: Final = "_DDPSinkBackward"
"""A node of DistributedDataParallel's that all outputs share; each passes through it to its own."""
MERGED: Final = "CompiledFunctionBackward"
"""The node of a compiled graph: what its outputs share of the inside cannot be told apart."""
FROZEN: Final = "requires_grad is False"
NO_GRAPH: Final = "no graph was recorded (no_grad, or detached)"


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a model.

    Attributes:
        name: ``backbone``, ``mask_head``; or the name of a top-level module.
        tensors: Parameters it has.
        trainable: Those with ``requires_grad``.
        size: Numbers in them.
        outside: Trainable parameters that are in no group of an optimizer.
        still: Trainable parameters whose group has a learning rate of 0.
        rates: Learning rates of its groups.
        evaluating: Whether all of its modules are in eval mode, though the model is trained.
    """

    name: str
    tensors: int
    trainable: int
    size: int
    outside: int = 0
    still: int = 0
    rates: tuple[float, ...] = ()
    evaluating: bool = False


@dataclass(frozen=True, slots=True)
class Reach:
    """What one loss trains.

    Attributes:
        tensors: Parameters it reaches, by part; parts it does not reach are left out.
        certain: Whether the graph hides nothing of it.
        attached: Whether it has a graph at all.
    """

    tensors: Mapping[str, int] = field(default_factory=dict)
    certain: bool = True
    attached: bool = True

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


class Parts:
    """Which part of a model each of its parameters belongs to.

    Args:
        models: Modules, also wrapped (DistributedDataParallel, torch.compile, FSDP). The parts of all but the first one
            begin with the class's name.
    """

    def __init__(self, *models: nn.Module) -> None:
        self.of: dict[int, str] = {}
        self._parameters: dict[str, list[weakref.ref[nn.Parameter]]] = {}
        self._owners: dict[str, list[weakref.ref[nn.Module]]] = {}
        self._tops = [weakref.ref(model) for model in models]
        for model in models:
            inner, prefix = _unwrapped(model)
            if self.of:
                prefix = f"{type(inner).__name__.lower()}.{prefix}"
            children = dict(inner.named_children())
            detector = "rpn" in children or "roi_heads" in children or hasattr(children.get("backbone"), "fpn")
            table = DETECTOR if detector else ()
            for name, parameter in inner.named_parameters():  # a shared parameter is listed once
                if id(parameter) in self.of:
                    continue
                part = next((part for start, part in table if name.startswith(start)), None)
                part = part or prefix + (name.partition(".")[0] if "." in name else "parameters")
                if part not in self._parameters and len(self._parameters) >= MOST:
                    part = REST
                self.of[id(parameter)] = part
                self._parameters.setdefault(part, []).append(weakref.ref(parameter))
            for module in inner.modules():
                for parameter in module.parameters(recurse=False):
                    self._owners.setdefault(self.of[id(parameter)], []).append(weakref.ref(module))
                    break

    def __len__(self) -> int:
        """How many parts there are."""
        return len(self._parameters)

    def signature(self) -> list[bool]:
        """What changes when the set of trainable parameters does; microseconds."""
        return [
            each.requires_grad for parameters in self._parameters.values() for ref in parameters if (each := ref())
            is not None
        ]  # fmt: skip

    def parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Every parameter that is alive, with its part."""
        for part, parameters in self._parameters.items():
            for ref in parameters:
                if (each := ref()) is not None:
                    yield part, each

    def summary(self, optimizers: Iterable[Any] = ()) -> dict[str, Part]:
        """Every part, and what the optimizers make of it.

        Args:
            optimizers: Anything with ``param_groups``; with none of them, nothing is known of groups.
        """
        rates = {
            id(p): float(group["lr"]) for each in optimizers for group in each.param_groups for p in group["params"]
        }
        known = any(key in rates for key in self.of)  # else they are copies of these: a master's, a shard's
        members: dict[str, list[nn.Parameter]] = {}
        for name, parameter in self.parameters():
            members.setdefault(name, []).append(parameter)
        training = any((top := ref()) is not None and top.training for ref in self._tops)
        found = {}
        for name, parameters in members.items():
            trainable = [p for p in parameters if p.requires_grad]
            grouped = [rates[id(p)] for p in trainable if id(p) in rates]
            found[name] = Part(
                name=name,
                tensors=len(parameters),
                trainable=len(trainable),
                size=sum(p.numel() for p in parameters),
                outside=len(trainable) - len(grouped) if known else 0,
                still=sum(rate == 0 for rate in grouped),
                rates=tuple(sorted(set(grouped))),
                evaluating=training and not any((m := ref()) is not None and m.training for ref in self._owners[name]),
            )
        return found


def reach(losses: Mapping[str, Any], parts: Parts) -> dict[str, Reach]:
    """Walk from each loss to what it trains.

    Args:
        losses: Tensors by name, as the model gave them; what is no tensor is left out.
        parts: The model's parts.
    """
    roots = {name: value for name, value in losses.items() if isinstance(value, Tensor)}
    nodes = [_node_of(value) for value in roots.values()]
    order = _order([node for node in nodes if node is not None])
    masks = dict.fromkeys(order, 0)
    for bit, node in enumerate(nodes):
        if node is not None:
            masks[node] |= 1 << bit
    counts: list[dict[str, int]] = [{} for _ in roots]
    uncertain, leaf = 0, _leaf_type()
    for node, children in order.items():  # every node after all that use it
        mask = masks[node]
        for child in children:
            masks[child] |= mask
        if children:
            kind = type(node).__name__
            if kind in HIDING or (kind == MERGED and mask & (mask - 1)):
                uncertain |= mask
        elif type(node) is leaf:
            part = parts.of.get(id(node.variable))
            if part is None:
                uncertain |= mask
                continue
            for bit, count in enumerate(counts):
                if mask >> bit & 1:
                    count[part] = count.get(part, 0) + 1
        elif type(node).__name__ in HIDING:
            uncertain |= mask
    found = {}
    for bit, (name, value) in enumerate(roots.items()):
        own = parts.of.get(id(value)) if value.grad_fn is None and value.requires_grad else None
        count = counts[bit] if own is None else {own: 1}
        found[name] = Reach(count, not uncertain >> bit & 1, value.requires_grad)
    return found


def _node_of(value: Tensor) -> Any:
    """The node behind a loss; of a wrapper's node, the one that this loss came from."""
    node, place = value.grad_fn, value.output_nr
    while node is not None and type(node).__name__ == PASSING and place < len(node.next_functions):
        node, place = node.next_functions[place]
    return node


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
        gone = [part for part in was.tensors if part not in now.tensors]
        frozen = [part for part in gone if part in parts and not parts[part].trainable]
        other = "detached" if now.attached or frozen else NO_GRAPH
        for part in gone:
            why = FROZEN if part in frozen else other
            if why == NO_GRAPH and part in parts and parts[part].evaluating:
                why += ", in eval mode"
            found.append(Loss(name, part, why, not now.tensors))
    return found


def told(losses: list[Loss], step: int) -> str:
    """What one component has stopped to train, in words.

    Args:
        losses: Of one component, at least one.
        step: Step of the later walk.
    """
    component, whole = losses[0].component, losses[0].whole
    reasons: dict[str, list[str]] = {}
    for each in losses:
        reasons.setdefault(each.why, []).append(each.part)
    because = "; ".join(f"{', '.join(parts)}: {why}" for why, parts in reasons.items())
    head = "trains nothing" if whole else f"no longer trains {', '.join(each.part for each in losses)}"
    return f"{component} {head} since step {step}: {because}"


def _order(roots: list[Any]) -> dict[Any, tuple[Any, ...]]:
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


def _unwrapped(model: nn.Module) -> tuple[nn.Module, str]:
    """The module inside wrappers and lonely parents, and the names of the parents."""
    prefix = ""
    while True:
        children = dict(model.named_children())
        own = next(iter(model.parameters(recurse=False)), None)
        if own is not None or len(children) != 1:
            return model, prefix
        (name, child), *_ = children.items()
        if next(child.parameters(), None) is None or not list(child.children()):
            return model, prefix
        prefix += "" if name in WRAPPERS else f"{name}."
        model = child


@cache
def _leaf_type() -> Any:
    """The type of the nodes that add a gradient to a parameter."""
    (node, _), *_ = torch.zeros(1, requires_grad=True).view(1).grad_fn.next_functions  # type: ignore[union-attr]
    return type(node)
