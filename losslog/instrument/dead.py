"""Units that are zero for everything they were shown: dead ReLUs, by part of a model, read off the graph of one step.

On the thread that trains, before its backward pass. Contract:

- Nothing is put on a module: what a ReLU gave is in the graph, saved for the backward pass, and is looked at there.
- A ReLU belongs to the layer before it, whose units are counted; several calls of one layer are one. What is frozen,
  compiled or checkpointed is left out, and so are layers that were shown fewer than 64 values a unit, and outputs
  without a batch (a ReLU on a loss).
- No device is waited for, and nothing is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import torch
from torch import Tensor

from losslog.instrument.parts import Parts
from losslog.instrument.reach import leaf_type, ordered

SHOWN: Final = 64
RELU: Final = "ReluBackward0"
LAYERS: Final = ("Convolution", "Addmm", "Mm", "Bmm", "Linear", "Mkldnn")
"""What computes the units of a layer: what lies behind it belongs to another one."""
TURNING: Final = ("T", "Transpose", "Permute", "ToCopy", "View")
"""What weights may go through on their way into a layer."""
NEAR: Final = 16
"""Nodes between a ReLU and its layer."""


def dead_units(tensors: Iterable[Any], parts: Parts) -> dict[str, Tensor]:
    """The share of units that are zero throughout.

    Args:
        tensors: The losses of one step, or the root of its backward pass.
        parts: The model's parts.

    Returns:
        ``dead_units/<part>``, from 0 to 1, of parts that have ReLUs.
    """
    alive: dict[tuple[int, int], Tensor] = {}
    owners: dict[tuple[int, int], str] = {}
    for node in ordered([each.grad_fn for each in tensors if isinstance(each, Tensor) and each.grad_fn is not None]):
        if type(node).__name__ != RELU:
            continue
        leaf = _leaf_behind(node)
        part = None if leaf is None else parts.of.get(id(leaf))
        given = None if leaf is None or part is None else _given(node)
        if leaf is None or part is None or given is None:
            continue
        if given.dim() < 2:  # of a loss, of one figure for each sample: no units
            continue
        count = leaf.shape[0]
        axis = next((axis for axis in (1, given.dim() - 1) if given.dim() > axis and given.shape[axis] == count), None)
        if axis is None or given.numel() < SHOWN * count:
            continue
        others = [each for each in range(given.dim()) if each != axis]
        found = given.amax(others) != 0  # NaN is not dead
        key = id(leaf), count
        alive[key] = alive[key] | found if key in alive else found
        owners[key] = part
    by_part: dict[str, list[Tensor]] = {}
    for key, found in alive.items():
        by_part.setdefault(owners[key], []).append(found)
    return {f"dead_units/{part}": 1 - torch.cat(several).float().mean() for part, several in by_part.items()}


def _given(node: Any) -> Tensor | None:
    """What a ReLU gave; None where it is not at hand."""
    saved = getattr(node, "_raw_saved_result", None)
    if getattr(saved, "unpack_hook", saved) is not None:  # to ask for it would compute it, or torch does not say
        return None
    try:
        result = node._saved_result
    except RuntimeError:  # changed in place since
        return None
    return result.detach() if isinstance(result, Tensor) and result.layout == torch.strided else None


def _leaf_behind(node: Any) -> Any:
    """A parameter of the layer before a ReLU, its bias rather than its weight; None where none of it is trained."""
    leaf = leaf_type()
    level, seen = [child for child, _ in node.next_functions if child is not None], 0
    while level and seen < NEAR:
        following = []
        for each in level:
            seen += 1
            kind = type(each).__name__
            if kind == RELU or type(each) is leaf:
                continue
            found = sorted(_leaves(each, leaf), key=lambda parameter: parameter.dim())
            if found:
                return found[0]
            if not kind.startswith(LAYERS):
                following += [child for child, _ in each.next_functions if child is not None]
        level = following
    return None


def _leaves(node: Any, leaf: Any) -> Iterator[Any]:
    """The parameters that go straight into a node."""
    for child, _ in node.next_functions:
        while child is not None and type(child).__name__.partition("Backward")[0] in TURNING:
            child = next((each for each, _ in child.next_functions), None)
        if child is not None and type(child) is leaf and child.variable.dim():
            yield child.variable
