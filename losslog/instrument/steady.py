"""Steps that are like the steps before: weights are taken as they were where graph and total say that they still are.

Training thread. Contract:

- A hook on a loss costs more than all else that is done for a step. Of a model whose total is a weighted sum of its
  losses, all of them reached with the same gradients three times in a row, no hooks are put on the next outputs.
- When a backward pass begins the way from its root to the losses is read: it must have the same shape, be of linear
  nodes only, reach every loss, and the gradients heard last must explain the total to a millionth. Else hooks are put
  on now.
- A loss that is so small that another weight of it would not be seen in the total is listened to.
- Graphs are read, never kept; every 61st output is listened to in any case.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import repeat
from operator import mul
from typing import TYPE_CHECKING, Any, Final

import torch

from losslog.instrument.behind import LIMIT, kind
from losslog.instrument.listeners import Ear
from losslog.values.snapshot import EXACT as NEAR

if TYPE_CHECKING:
    from losslog.instrument.roots import Mark, Root

ALIKE: Final = 3  # steps in a row
LONGEST: Final = 1000  # steps between looks at a loop that is not like that
DEEP: Final = 64  # nodes between root and losses
EXACT: Final = 1e-6  # of the total
LEAST: Final = 1e-3  # share of the total from which on another weight is seen
_MANY: Final = {"Add", "Sub", "Stack", "Cat", "Sum", "Mean", "Unsqueeze", "View"}  # linear in all they are made of
_ONE: Final = {"Mul", "Neg", "Rsub"}  # where only one of these has a gradient
_known: Final[dict[type, int]] = {}  # of how many a kind of node may be made; -1: of the first alone
Shape = tuple[tuple[type, tuple[int | None, ...]], ...]


class Habit:
    """What the steps with one model's losses have in common.

    Attributes:
        known: whether the last ones were alike.
        outputs: how many came since one was listened to.
        weights: gives the weights that are not 1.
    """

    __slots__ = ("_alike", "_gradients", "_left", "_names", "_pause", "_shape", "known", "outputs", "weights")

    def __init__(self) -> None:
        self.known = False
        self._gradients: list[float] = []
        self._names: tuple[str, ...] = ()
        self.weights: Callable[[], dict[str, float]] = dict
        self.outputs = 0
        self._shape: Shape = ()
        self._alike = self._left = 0
        self._pause = 1

    def looks(self) -> bool:
        """Whether the backward pass that begins is looked at."""
        self._left -= self._left > 0
        return not self._left

    def fits(self, root: Root, output: Any) -> bool:
        """Whether a pass is as the last ones; if so it has come to all losses of an output."""
        if self.holds(root.node, output.names, output.marks, output.values, root.value):
            self.take(root, output)
            return True
        self._breaks()
        return False

    def holds(self, node: Any, names: tuple[str, ...], marks: Sequence[Mark], values: Any, total: Any) -> bool:
        """Whether the way from a root's node to losses is as it was, and the gradients they had explain its value."""
        if names != self._names or not self._shape:
            return False
        stack: list[Any] = []
        for expected, made in self._shape:
            behind = node.next_functions
            if type(node) is not expected or len(behind) != len(made):
                return False
            if made[0] == -1 and len(made) == 2 and (last := made[1]) != -1:  # as in a sum, of one term more each time
                (node, _), (child, place) = behind
                found = None if child is None else (child._sequence_nr(), place)
                if node is None or found != (None if last is None else marks[last]):
                    return False
                continue
            for (child, place), index in zip(behind, made):  # noqa: B905 - as long
                if child is None or index is None:
                    if child is not index:
                        return False
                elif index < 0:
                    stack.append(child)
                elif marks[index] != (child._sequence_nr(), place):
                    return False
            node = stack.pop() if stack else None
        return _explains(self._gradients, values, total)

    def take(self, root: Root, output: Any) -> None:
        """A pass is as the last ones: it has come to all losses of an output."""
        output.reached = True
        root.reached += zip(repeat(output), range(len(output.names)), self._gradients)

    def learn(self, root: Root, output: Any, shape: Shape) -> None:
        """A pass that was listened to has ended."""
        found: list[Any] = [None] * len(output.names)
        for each, index, gradient in root.reached:
            if each is output:
                found[index] = gradient if found[index] is None else None
        if not shape or None in found or not _explains(found, output.values, root.value):
            self._breaks()
        elif shape == self._shape and found == self._gradients and output.names == self._names:
            self._alike += 1
            if self._alike >= ALIKE:
                self.known, self._pause = True, 1
                weights = {name: each for name, each in zip(output.names, found, strict=True) if abs(each - 1.0) > NEAR}
                self.weights = weights.copy if weights else dict
        else:
            self._shape, self._gradients, self._alike, self.known = shape, found, 1, False
            self._names = output.names

    def _breaks(self) -> None:
        self.known, self._shape, self._alike = False, (), 0
        self._left = self._pause
        self._pause = min(2 * self._pause, LONGEST)


def _explains(gradients: Any, values: Any, total: Any) -> bool:
    """Whether a total is the weighted sum of these, each of which can be seen in it."""
    if type(total) is not float or type(values) is not list:
        return False
    parts = [*map(mul, gradients, values)]
    found = size = sum(parts)
    least = min(parts)
    if least <= 0.0:
        parts = [*map(abs, parts)]
        size, least = sum(parts), min(parts)
    return bool(abs(total - found) <= EXACT * size and least >= LEAST * size > 0.0)


def _way(root: Any, marks: Sequence[Mark]) -> Shape:
    """The way from a root's node to all of these losses, where it is linear and leads to nothing else; else ``()``.

    Returns:
        For each node on it the kind, and of what it is made: the index of a loss, -1 for another node, None for none.
    """
    places = {mark: index for index, mark in enumerate(marks)}
    shape: list[tuple[type, tuple[int | None, ...]]] = []
    stack = [root]
    while stack:
        node = stack.pop()
        made: list[int | None] = []
        for child, place in node.next_functions:
            made.append(None if child is None else places.get((child._sequence_nr(), place), -1))
            if made[-1] == -1:
                stack.append(child)
        rule = _rule(node)
        if len(made) - made.count(None) > abs(rule) or (rule < 0 and made[0] is None) or len(shape) >= DEEP:
            return ()
        shape.append((type(node), tuple(made)))
    met = {index for _, made in shape for index in made if index is not None and index >= 0}
    return tuple(shape) if len(met) == len(places) else ()


def _rule(node: Any) -> int:
    found = _known.get(type(node))
    if found is None:
        name = "" if isinstance(node, torch.autograd.function.BackwardCFunction) else kind(node)
        _known[type(node)] = found = -1 if name == "Div" else LIMIT if name in _MANY else int(name in _ONE)
    return found


def begins(heard: Any, pending: Sequence[Any]) -> None:
    """A backward pass begins: see whether it is as those before, and listen to what it may come to where it is not.

    Args:
        heard: the pass, a `losslog.instrument.optimizers.Heard`.
        pending: outputs that no step was taken with yet.
    """
    root, alone, count, deaf = heard.root, None, 0, False
    for output in pending:
        if not output.reached:
            count, alone = count + 1, output
        deaf = deaf or output.deaf
    if alone is not None and count == 1 and alone.plain and root.once and root.thread == alone.thread:
        habit = alone.family.habit
        if alone.deaf or habit.looks():
            if not alone.deaf:
                heard.looked = alone, _way(root.node, alone.marks)
            elif habit.fits(root, alone):
                alone.deaf = False
                return
    if deaf:
        _listen([each for each in pending if each.deaf], [each.grad_fn for each in root.tensors])


def learns(heard: Any) -> None:
    """A pass that was looked at, and listened to, has ended."""
    output, shape = heard.looked
    output.family.habit.learn(heard.root, output, shape)


def _listen(outputs: Iterable[Any], roots: Iterable[Any]) -> None:
    """Put hooks on those losses of outputs that lie behind roots and have none."""
    for output in outputs:
        if output.unheard is None:
            output.unheard = {}
            for index, (number, place) in enumerate(output.marks):
                output.unheard.setdefault(number, []).append((index, place))
        for number, node in nodes_behind(roots, output.unheard).items():
            node.register_prehook(Ear(output.hear, output.unheard.pop(number)))
        output.deaf = bool(output.unheard)


def nodes_behind(roots: Iterable[Any], numbers: Collection[int]) -> dict[int, Any]:
    """The nodes of these numbers that lie behind roots; only what was made after them is looked at."""
    first = min(numbers)
    found: dict[int, Any] = {}
    stack = [each for each in roots if each is not None]
    seen = {*stack}
    while stack and len(seen) < LIMIT:
        node = stack.pop()
        number = node._sequence_nr()
        if number in numbers:
            found[number] = node
        for child, _ in node.next_functions:
            if child is not None and child not in seen and child._sequence_nr() >= first:
                seen.add(child)
                stack.append(child)
    return found
