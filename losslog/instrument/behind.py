"""What stands between the root of a backward pass and the losses behind it.

Plain functions on nodes of a graph that is there: while the backward pass runs, or before it. Contract:

- A graph is read, never changed or kept, and only what was made after the losses is looked at.
- What a function of the user's own computes is taken to be linear: it cannot be known.
"""

from __future__ import annotations

import math
from typing import Any, Final

import torch

_JUDGES: Final = ("Loss", "Loss2D", "CrossEntropy", "WithLogits", "KlDiv")  # torch's: what comes to them is predicted
_GATHERING: Final = {"Stack", "Cat", "CopySlices", "Copy", "IndexPut", "Index"}  # put scalars side by side
LIMIT: Final = 10_000  # nodes of a graph that are looked at
DEEP: Final = 32  # nodes in a row
_FACTORS: Final = {"Mul", "Dot", "Mv", "Mm", "Bmm", "Addmm"}  # linear in each of what they multiply
_LINEAR: Final = _FACTORS | {
    "Add", "Sub", "Rsub", "Neg", "Div", "Sum", "Mean", "Stack", "Cat", "Unsqueeze", "Squeeze", "View", "Reshape",
    "ReshapeAlias", "UnsafeView", "Select", "Slice", "Index", "Unbind", "Split", "ToCopy", "Clone", "Expand", "Alias",
    "CopySlices", "Copy", "AsStrided", "T", "Permute", "Transpose", "Lerp", "Identity",
}  # fmt: skip


def kind(node: Any) -> str:
    """What a node computes: ``Mul`` of ``MulBackward0``."""
    return type(node).__name__.lstrip("_").partition("Backward")[0]


def _is_linear(node: Any) -> bool:
    return kind(node) in _LINEAR or isinstance(node, torch.autograd.function.BackwardCFunction)


def lone(root: Any) -> dict[int, bool]:
    """The nodes that are all there is behind a root, one after the other, down to where several meet.

    Returns:
        Their numbers; and whether something without a gradient was added on the way, and the way is linear: then a
        loss that lies here may not be all of the total.
    """
    found: dict[int, bool] = {}
    node, adds, linear = root, False, True
    while node is not None and len(found) < DEEP:
        found[node._sequence_nr()] = adds and linear
        behind = node.next_functions
        children = [child for child, _ in behind if child is not None]
        if len(children) != 1:
            break
        adds = adds or (len(behind) > 1 and kind(node) in ("Add", "Sub", "Rsub", "Stack", "Cat")) or (
            len(behind) == 1 and kind(node) in ("Rsub",))  # fmt: skip
        linear = linear and _is_linear(node)
        node = children[0]
    return found


def is_curved(root: Any, losses: set[tuple[int, int]]) -> bool:
    """Whether a root is something else than a weighted sum of losses.

    Args:
        root: the root's node.
        losses: marks of the losses.
    """
    numbers = {number for number, _ in losses}
    if root is None or not numbers or root._sequence_nr() in numbers:
        return False
    first = min(numbers)
    reaches: dict[Any, bool] = {}
    stack = [(root, False)]
    while stack and len(reaches) < LIMIT:
        node, left = stack.pop()
        if left:
            hits = [
                place for place, (child, _) in enumerate(node.next_functions)
                if child is not None and (child._sequence_nr() in numbers or reaches.get(child, False))
            ]  # fmt: skip
            if hits and (not _is_linear(node) or (kind(node) in _FACTORS and len(hits) > 1)
                         or (kind(node) == "Div" and hits[-1] == 1)):  # fmt: skip
                return True
            reaches[node] = bool(hits)
        elif node not in reaches:
            reaches[node] = False
            stack.append((node, True))
            stack += [
                (child, False) for child, _ in node.next_functions
                if child is not None and child not in reaches and first < child._sequence_nr() not in numbers
            ]  # fmt: skip
    return False


def leads_elsewhere(root: Any, losses: set[tuple[int, int]]) -> bool:
    """Whether gradients go from a root to parameters by another way than through these losses."""
    numbers = {number for number, _ in losses}
    stack, seen = [root] if root is not None else [], {root}
    while stack and len(seen) < LIMIT:
        node = stack.pop()
        if node._sequence_nr() in numbers:
            continue
        if kind(node) == "AccumulateGrad" or hasattr(node, "variable"):
            return True
        for child, _ in node.next_functions:
            if child is not None and child not in seen:
                seen.add(child)
                stack.append(child)
    return False


def is_beside(root: Any, loss: tuple[int, int], others: set[tuple[int, int]]) -> bool:
    """Whether a root is made of other losses beside one that is computed from them: that is no total.

    Args:
        root: the root's node.
        loss: mark of the one.
        others: marks of the others.
    """
    numbers = {number for number, _ in others} - {loss[0]}
    if root is None or not numbers or root._sequence_nr() == loss[0]:
        return False
    first, stack, seen = min(numbers), [root], {root}
    through = beside = False
    while stack and len(seen) < LIMIT:
        for child, _ in stack.pop().next_functions:
            if child is None or child in seen:
                continue
            number = child._sequence_nr()
            seen.add(child)
            through, beside = through or number == loss[0], beside or number in numbers
            if number > first and number not in numbers and number != loss[0]:
                stack.append(child)
    return through and beside


def entwined(root: Any, losses: set[tuple[int, int]]) -> set[int]:
    """Those scalars that a root is made with and not of.

    They scale or shift a larger tensor (a temperature), or a function of torch's for losses judges them (a value).

    Args:
        root: the root's node.
        losses: marks of the scalars.

    Returns:
        Numbers of their nodes. A scalar that also is added, stacked or multiplied as one is none of them, nor is
        what a function of the user's own is given.
    """
    numbers = {number for number, _ in losses}
    if root is None or not numbers or root._sequence_nr() in numbers:
        return set()
    first = min(numbers)
    within: set[int] = set()
    alone: set[int] = set()
    start = (root, False, False)
    seen, stack = {start}, [start]
    while stack and len(seen) < LIMIT:
        node, curved, spread = stack.pop()  # whether what follows bends a large tensor; whether it is one made large
        large, name = _size(node) > 1, kind(node)
        known = not isinstance(node, torch.autograd.function.BackwardCFunction)
        judges = known and name.endswith(_JUDGES)
        children = [child for child, _ in node.next_functions if child is not None]
        curved = curved or (large and (not _is_linear(node) or (name in _FACTORS and len(children) > 1)))
        for child in children:
            number = child._sequence_nr()
            made_large = large and known and _size(child) == 1 and name not in _GATHERING
            its = spread or judges or (made_large and curved)
            if number in numbers:
                (within if its else alone).add(number)
            elif number > first and (state := (child, curved, its)) not in seen:
                seen.add(state)
                stack.append(state)
    return within - alone if not stack else set()  # of a graph that is too large nothing is known


def _size(node: Any) -> int:
    """Of what a node has computed; 1 where that is not told."""
    about = getattr(node, "_input_metadata", None)
    return math.prod(about[0].shape) if about else 1
