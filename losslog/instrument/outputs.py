"""What a call gave: the losses in it, read at once, and ears on their nodes for the gradients that come back.

`read`, `of` and `again` run on the training thread, an ear on autograd's. Contract:

- Losses are floating tensors of one element in a dict (a named tuple, a dataclass), in one under ``loss_dict`` or
  ``losses``, in a tuple or list, or alone; a list of them under one name is their sum, a vector (one per GPU) its mean.
- Values are read when the call returns, so that what the loop does to its tensors afterwards does not matter.
- No tensor and no graph is kept: an ear hangs on the graph's own node, and pickling the tensors works as before.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterator, Mapping, Sequence
from itertools import repeat
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final

import torch

from losslog.instrument.behind import LIMIT, lone
from losslog.instrument.fields import fields_of, name_of
from losslog.instrument.listeners import Ear
from losslog.instrument.roots import Mark, mark_of, number, running
from losslog.values.snapshot import Staged, snapshot
from losslog.values.totals import TOTAL_NAMES

if TYPE_CHECKING:
    from losslog.instrument.datapass import Pass
    from losslog.instrument.family import Family
    from losslog.instrument.reach import Reach
    from losslog.values.targets import Target

Tensor: Final = torch.Tensor
NESTED: Final = ("loss_dict", "losses")  # dicts of losses beside a total
EVERY: Final = 61  # outputs of which one is listened to in any case
MOST: Final = 64  # entries of a tuple that are looked at
NONE: Final[frozenset[int]] = frozenset()
_FLOATS: Final = {float}
_TENSORS: Final = {torch.Tensor}
_is_cpu, _node, _place = map(operator.attrgetter, ("is_cpu", "grad_fn", "output_nr"))
_number: Final = operator.methodcaller("_sequence_nr")


class Loss:
    """One loss of an output while it is being looked at."""

    __slots__ = ("name", "named", "node", "place", "tensor")

    def __init__(self, name: str, tensor: Any, named: bool, place: int | None = None) -> None:
        self.name, self.tensor, self.named, self.place = name, tensor, named, place
        self.node = tensor.grad_fn


class Output:
    """The losses that one call gave.

    Attributes:
        family: whose call it was.
        names: of each loss; a list of losses gives one name several times.
        named: whether the names are the model's own, from a dict.
        values: of each.
        marks: of each, None without gradient.
        totals: indexes of those that are made of others.
        plain: whether all have gradients and names of their own, and none is a total.
        reached: whether a backward pass came to any of them.
        thread: that called the module.
        number: outputs come in this order.
        driver: the pass over data that the batch came from.
        reach: what each loss trains, where that was looked at.
        targets: of the batch, where it names its images.
        batch: outputs of one batch of a loader have the same.
        deaf: whether nobody listens yet for the gradients that come to (some of) them.
        detail: the parts that come beside its one loss without a graph.
        factor: of such parts how often they count in that loss; None of all others.
        unheard: the numbers of the nodes that nobody listens at, and the losses of each; None where that is all.
    """

    reached = deaf = False
    totals: frozenset[int] = NONE
    driver: Pass | None = None
    reach: list[Reach] | None = None
    targets: Sequence[Target] = ()
    batch = 0
    vectors: dict[int, Any] | None = None
    unheard: dict[int, list[tuple[int, int]]] | None = None
    detail: Output | None = None
    factor: Any = None
    _numbers = itertools.count()

    def __init__(
        self, family: Family, names: tuple[str, ...], values: list[float] | Staged, *, named: bool, plain: bool = False
    ) -> None:
        self.family, self.names, self.values = family, names, values
        self.number = next(self._numbers)
        self.thread = get_ident()
        self.named, self.plain = named, plain
        self.marks: list[Mark | None] = []

    @property
    def graded(self) -> bool:
        """Whether gradients can come back to any of them."""
        return any(mark is not None for mark in self.marks)

    def hear(self, parts: Sequence[tuple[int, int]], gradients: Any) -> None:
        """Gradients have come to some of the losses."""
        root = running(self.thread)
        if root is None:
            return
        self.reached = True
        reached, many = root.reached, len(gradients)
        for index, place in parts:
            gradient = gradients[place] if place < many else None
            if gradient is None:
                continue
            if self.vectors is not None and index in self.vectors:  # as if it had been their mean
                vector = self.vectors[index]
                mean = vector.mean()
                gradient = (gradient * vector).sum() / mean if mean else gradient.sum()
            plain = gradient.is_cpu and not gradient.dim()
            reached.append((self, index, gradient.tolist() if plain else number(gradient)))
        if not self.plain and root.lone is None and root.node is not None:
            root.lone = lone(root.node)


def of(family: Family, losses: list[Loss]) -> Output:
    """An output of losses that were found, with ears on them."""
    try:
        values = [each.tensor.tolist() if each.tensor.is_cpu else None for each in losses]
    except RuntimeError:  # a tensor that has no value
        values = [None]
    kept: Any = values
    if not _FLOATS.issuperset(map(type, values)):
        kept = snapshot({str(index): _scalar(each.tensor) for index, each in enumerate(losses)}, name="an output")[1]
    output = Output(family, tuple([each.name for each in losses]), kept, named=losses[0].named)
    ears: dict[Any, list[tuple[int, int]]] = {}
    for index, each in enumerate(losses):
        if each.node is None:
            output.marks.append(None)
            continue
        output.marks.append(mark_of(each.tensor, each.node))
        ears.setdefault(each.node, []).append((index, each.tensor.output_nr))
        if each.tensor.dim() and each.tensor.numel() > 1:
            output.vectors = {**(output.vectors or {}), index: each.tensor.detach().clone()}
    for node, parts in ears.items():
        node.register_prehook(Ear(output.hear, parts))
    return output


def again(family: Family, output: Any) -> Output | None:
    """The same for a model that gives what it gave before: a plain dict of losses. None where it does not."""
    names, habit = family.plain, family.habit
    if names is None or (read := read_plain(names, output)) is None:
        return None
    values, marks = read
    found = Output(family, names, values, named=True, plain=True)
    found.marks = [*marks]
    habit.outputs += 1
    if habit.known and habit.outputs < EVERY:
        found.deaf = True
        return found
    habit.outputs = 0
    ears: dict[Any, list[tuple[int, int]]] = {}
    for index, (tensor, (_, place)) in enumerate(zip(output.values(), marks, strict=True)):
        ears.setdefault(tensor.grad_fn, []).append((index, place))
    for node, parts in ears.items():
        node.register_prehook(Ear(found.hear, parts))
    return found


def read_plain(names: tuple[str, ...], output: Any) -> tuple[list[float], list[Mark]] | None:
    """The values and marks in a plain dict of losses with these names; None of another output."""
    if type(output) is not dict or (*output,) != names:
        return None
    tensors = [*output.values()]
    if not (_TENSORS.issuperset(map(type, tensors)) and all(map(_is_cpu, tensors))):
        return None
    nodes, places = [*map(_node, tensors)], [*map(_place, tensors)]
    if None in nodes:
        return None
    values: list[Any] = [*map(Tensor.tolist, tensors)]
    if not _FLOATS.issuperset(map(type, values)):
        return None
    one = nodes.count(nodes[0]) == len(nodes)  # as of ``unbind``
    return values, [*zip(repeat(nodes[0]._sequence_nr()) if one else map(_number, nodes), places)]  # noqa: B905


def read(output: Any, label: str, *, spread: bool = False, places: Sequence[int | None] = ()) -> list[Loss]:
    """The losses in what a module returned, and scalars beside them.

    Args:
        output: what it returned.
        label: name of a loss that has none.
        spread: whether one-dimensional tensors are losses too, a value per GPU.
        places: where they stood in a tuple while there were gradients, which tell.
    """
    if isinstance(output, Tensor):
        return [Loss(label, output, False)] if _is_loss(output, spread) else []
    if (fields := fields_of(output)) is not None:
        found = list(_entries(fields, "", spread))
        if any(loss.node is not None for loss in found):  # numbers beside losses are metrics
            numbers = {name_of(key): each for key, each in fields.items() if type(each) is float}
            found += [Loss(name, torch.tensor(each), True) for name, each in numbers.items() if name]
        return found
    if type(output) not in (tuple, list) or len(output) > MOST:
        return []
    for place, each in enumerate(output):
        if (fields := fields_of(each)) is not None:
            named = list(_entries(fields, "", spread))
            if place in places or any(loss.node is not None for loss in named):
                for loss in named:
                    loss.place = place
                return named
    several = [Loss(f"{label}[{place}]", each, False, place) for place, each in enumerate(output)
               if isinstance(each, Tensor) and (each.requires_grad or place in places)
               and _is_loss(each, spread)]  # fmt: skip
    if len(several) == 1:
        several[0].name = label
    return several


def _entries(output: Mapping[Any, Any], before: str, spread: bool) -> Iterator[Loss]:
    for key, value in output.items():
        if not (key := name_of(key)):
            continue
        if isinstance(value, Tensor):
            if _is_loss(value, spread or "loss" in key):
                yield Loss(before + key, value, True)
        elif (fields := fields_of(value)) is not None:
            yield from _entries(fields, before if key in NESTED else f"{before}{key}.", spread)
        elif type(value) in (list, tuple) and "loss" in key and _are_losses(value):
            for each in value:
                yield Loss(before + key, each, True)


def _are_losses(values: Any) -> bool:
    return 0 < len(values) <= MOST and all(isinstance(each, Tensor) and _is_loss(each, True) for each in values)


def _is_loss(tensor: Any, spread: bool) -> bool:
    if not tensor.is_floating_point() or tensor.is_meta:
        return False
    dimensions = tensor.dim()
    if dimensions == 0 or (dimensions == 1 and (spread or tensor.numel() == 1) and tensor.numel()):
        return type(tensor) in (Tensor, torch.nn.Parameter) or hasattr(tensor, "to_local")
    return False


def _scalar(tensor: Any) -> Any:
    local = getattr(tensor, "to_local", None)
    tensor = tensor.detach() if local is None else local().detach()
    return tensor.mean() if tensor.dim() else tensor


def totals_among(losses: list[Loss], earlier: set[Mark]) -> frozenset[int]:
    """Indexes of those losses that are made of others, or are the same tensor as another.

    Args:
        losses: of one output.
        earlier: marks of losses that were given before.
    """
    found = set()
    marks = {index: mark_of(each.tensor, each.node) for index, each in enumerate(losses) if each.node is not None}
    for index, mark in marks.items():
        twins = [other for other, its in marks.items() if its == mark and other != index]
        if mark in earlier or any(_gives_way(losses[index].name, losses[other].name, index, other) for other in twins):
            found.add(index)
            continue
        others = {its[0] for other, its in marks.items() if other not in twins and its[0] != mark[0]}
        others |= {its[0] for its in earlier}
        if others and _reaches(losses[index].node, others):
            found.add(index)
    return frozenset(found)


def _gives_way(name: str, other: str, index: int, place: int) -> bool:
    """Which of two names for one tensor is the total: ``loss``, else the later one."""
    return (name in TOTAL_NAMES, index) > (other in TOTAL_NAMES, place)


def _reaches(node: Any, numbers: set[int]) -> bool:
    """Whether any of these nodes lies behind a node; only what was made after the first of them is looked at."""
    first, last = min(numbers), node._sequence_nr()
    stack, seen = [node], {node}
    while stack and len(seen) < LIMIT:
        for each, _ in stack.pop().next_functions:
            if each is None or each in seen:
                continue
            place = each._sequence_nr()
            if place in numbers:
                return True
            if first < place <= last:
                seen.add(each)
                stack.append(each)
    return False
