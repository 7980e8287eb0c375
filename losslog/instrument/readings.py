"""What was read off a loop, on its way to a run: values, weights and metrics that may be known only later.

Made on the training thread, resolved on the drain thread. Contract:

- A component's value in one backward pass is the sum over the calls it came through, and over several passes of one
  step their mean. Its contribution is gradient x value, summed; its weight is contribution / value.
- The total is the sum of the roots, whatever components explain of it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from losslog.values.means import mean_of
from losslog.values.snapshot import EXACT, Keys, Staged, resolve, snapshot
from losslog.values.totals import Alone

if TYPE_CHECKING:
    from losslog.instrument.outputs import Output
    from losslog.instrument.reach import Reach
    from losslog.instrument.roots import Root
    from losslog.values.losses import Losses
    from losslog.values.targets import Target

RESOLUTION: Final = 1e-3  # what half precision may leave unexplained
Weights = Callable[[], "dict[str, float]"]
Idle = Callable[[], "dict[str, float]"]

GIVEN_UP: Final = 1e-30
"""Scale of a GradScaler below which what it scaled tells neither total nor weights: float32 ends there."""


class Rest(Protocol):
    """Told of every step with components, when it is resolved.

    Attributes:
        coming: steps that it will be told of.
        weights: of components, in the last step that had them with a graph.
    """

    coming: int
    weights: dict[str, float]

    def divide(self, rest: float, total: float, values: Mapping[str, float]) -> dict[str, float]:
        """The weights of components that have no graph any more."""

    def unheard(self, rest: float, total: float, values: Mapping[str, float]) -> dict[str, float]:
        """The weights of components that no backward pass came to."""

    def __call__(self, total: float, rest: float, common: float, idle: Idle) -> None:
        """A step."""


class Beside(NamedTuple):
    """Numbers that came beside losses, by name."""

    keys: tuple[str, ...]
    values: list[float] | Staged


class Reading(NamedTuple):
    """Losses of a step, or of forward passes.

    Attributes:
        keys: component names, None for a scalar.
        values: in their order; with ``has_total`` the total comes last.
        has_total: whether it does.
        n: of how many passes they are means.
        weights: gives those that are not 1, after ``values`` were resolved; None where no backward pass was heard.
        beside: metrics of the same step.
        reach: what each loss trains, by its name; None where that was not looked at.
        shares: what each loss has of the gradient, by its name; None where that was not measured.
        targets: of the batch, where they name its images.
        alone: gives the one component that a scalar is made of, after ``values`` were resolved.
    """

    keys: Keys
    values: list[float] | Staged
    has_total: bool = False
    n: int = 1
    weights: Weights | None = None
    beside: Beside | None = None
    reach: Mapping[str, Reach] | None = None
    shares: Beside | None = None
    targets: Sequence[Target] = ()
    alone: Callable[[], Alone | None] | None = None

    def losses(self) -> Losses:
        """Plain losses, without the total; waits for the device."""
        numbers = resolve(self.values)
        return numbers[0] if self.keys is None else dict(zip(self.keys, numbers, strict=False))


REST: Final = (None, None, None, (), None)  # of a reading with nothing beside its losses


class Computed(Staged):
    """Values that are computed when they are asked for.

    Args:
        compute: gives them, after waiting for the device.
    """

    __slots__ = ("_compute",)

    def __init__(self, compute: Callable[[], list[float]]) -> None:
        super().__init__([], [])
        self._compute: Callable[[], list[float]] | None = compute

    def resolve(self) -> list[float]:
        """The values."""
        if self._compute is not None:
            self.values, self._compute = self._compute(), None
        return self.values


class Part(NamedTuple):
    """A component in one backward pass, or one of several calls of it there.

    Attributes:
        turn: which of the step's backward passes.
        output: what call gave it.
        place: which of its losses.
        gradient: that came to it.
    """

    turn: int
    output: Output
    place: int
    gradient: Any


class Told:
    """What autograd told of one step.

    Args:
        roots: the backward passes, in order.
        parts: components by name, in order; none: the total is all there is.
        rest: told the total, what components do not explain of it, the factor that all of them have, and ``idle``.
        idle: gives the values of losses that gradients did not come to.
        loose: names of components that have no graph.
        single: the one component that is all there is of the total.
        unheard: names of components that no backward pass came to.

    Attributes:
        weights: of components, those that are not 1.
        alone: that one component.
    """

    def __init__(
        self, roots: Sequence[Root], parts: dict[str, list[Part]], rest: Rest, idle: Idle = dict,
        loose: Collection[str] = (), single: tuple[str, list[Part]] | None = None, unheard: Collection[str] = (),
    ) -> None:  # fmt: skip
        numbers: list[Any] = []
        for root in roots:
            numbers += (root.value, root.scale)
        for several in parts.values():
            numbers += [each.gradient for each in several]
        numbers += [each.gradient for each in single[1]] if single is not None else ()
        self.alone: Alone | None = None
        self._single, self._unheard = single, unheard
        self._count, self._parts, self._rest, self._idle, self._loose = len(roots), parts, rest, idle, loose
        self._numbers = staged(numbers)
        rest.coming += bool(parts)
        self.weights: dict[str, float] = {}

    def values(self) -> list[float]:
        """Each component, then the total; finds the weights."""
        numbers = resolve(self._numbers)
        scales = numbers[1 : 2 * self._count : 2]
        if min(scales, default=1.0) < GIVEN_UP:
            return self._unscaled()
        total = sum(value / scale for value, scale in zip(numbers[0 : 2 * self._count : 2], scales, strict=True))
        gradients = iter(numbers[2 * self._count :])
        found, explained, weights = [], 0.0, {}
        for name, several in self._parts.items():
            value, weight, contribution = _weigh(several, gradients, scales)
            found.append(value)
            weights[name] = weight
            explained += 0.0 if name in self._loose else contribution
        if self._loose:
            values = {name: value for name, value in zip(weights, found, strict=True) if name in self._loose}
            told = self._rest.divide(total - explained, total, values)
            weights |= told
            explained += sum(told[name] * value for name, value in values.items())
        if self._unheard:
            values = {name: value for name, value in zip(weights, found, strict=True) if name in self._unheard}
            told = self._rest.unheard(total - explained, total, values)
            weights |= told
            explained += sum(told[name] * value for name, value in values.items())
        if self._single is not None:
            name, several = self._single
            value, weight, _ = _weigh(several, gradients, scales)
            self.alone, self._single = Alone(name, value, weight), None
        still = {*self._loose, *self._unheard}
        self._rest.weights.update({name: weight for name, weight in weights.items() if name not in still})
        self.weights = {name: weight for name, weight in weights.items() if weight != 1.0}
        if weights:
            self._rest(total, total - explained, common(weights.values()), self._idle)
        self._parts, self._idle = {}, dict
        return [*found, total]

    def _unscaled(self) -> list[float]:
        """Each component, and their sum."""
        found = []
        for several in self._parts.values():
            each = [resolve(output.values)[place] for _, output, place, _ in several]
            found.append(sum(each) / len({turn for turn, *_ in several}))
        self._parts, self._idle = {}, dict
        return [*found, sum(found)]


def _weigh(several: list[Part], gradients: Any, scales: list[float]) -> tuple[float, float, float]:
    """(value, weight, contribution) of one component."""
    values: dict[int, float] = {}
    contribution, factors = 0.0, []
    for turn, output, place, _ in several:
        value, gradient = resolve(output.values)[place], next(gradients) / scales[turn]
        values[turn] = values.get(turn, 0.0) + value
        contribution += gradient * value
        factors.append(gradient)
    mean = sum(values.values()) / len(values)
    if max(factors) - min(factors) <= EXACT * abs(factors[0]) or not mean:
        weight = len(values) * sum(factors) / len(factors)
    else:
        weight = contribution / mean
    return mean, 1.0 if abs(weight - 1.0) <= EXACT else weight, contribution


def common(weights: Collection[float]) -> float:
    """The factor that all components count with, or 1."""
    first = next(iter(weights), 1.0)
    return first if first != 1.0 and all(abs(each - first) <= EXACT * abs(first) for each in weights) else 1.0


def staged(numbers: list[Any]) -> list[float] | Staged:
    """Floats, or floats and tensors of which a copy is on its way."""
    if all(type(each) is float for each in numbers):
        return numbers
    return snapshot({str(index): each for index, each in enumerate(numbers)}, name="a gradient")[1]


def told(
    roots: Sequence[Root], parts: dict[str, list[Part]], keys: Keys, n: int, beside: Beside | None,
    rest: Rest, idle: Idle = dict, loose: Collection[str] = (), single: tuple[str, list[Part]] | None = None,
    unheard: Collection[str] = (),
) -> Reading:  # fmt: skip
    """A step as autograd told it; with ``keys`` but no parts the total is that one loss."""
    found = Told(roots, parts, rest, idle, loose, single if keys is None else None, unheard)
    if not parts:
        return Reading(keys, Computed(found.values), False, n, dict, beside, alone=lambda: found.alone)
    return Reading(keys, Computed(found.values), True, n, lambda: found.weights, beside)


def averaged(outputs: Sequence[Output], beside: Beside | None = None) -> Reading:
    """Outputs of which no backward pass told anything: each loss, its mean over those that had it."""
    named = [each for each in outputs if each.named] or outputs
    lists = [(kept(each), each.values) for each in named]
    keys: Keys = tuple(dict.fromkeys(name for names, _ in lists for _, name in names))
    if not named[0].named and len(keys or ()) == 1:
        keys = None
    means = Computed(lambda: _means(lists))
    return Reading(keys, means, False, len(outputs), None, beside)


def kept(output: Output) -> list[tuple[int, str]]:
    """Indexes and names of those entries that count as losses: with gradients, if any has one."""
    graded = output.graded
    return [(index, name) for index, name in enumerate(output.names) if not graded or output.marks[index] is not None]


def _means(lists: Sequence[tuple[list[tuple[int, str]], Any]]) -> list[float]:
    found: list[Losses] = []
    for names, values in lists:
        numbers = resolve(values)
        sums: dict[str, float] = {}
        for index, name in names:
            sums[name] = sums.get(name, 0.0) + numbers[index]
        found.append(sums)
    means = mean_of(found)
    return list(means.values()) if isinstance(means, dict) else [means]


def named(reading: Reading, outputs: Iterable[Any], heard: Iterable[Any]) -> Reading:
    """A step's reading, with the targets of its outputs and backward passes."""
    found: list[Target] = []
    for several in (outputs, heard):
        for each in several:
            if each.targets:
                found += each.targets
    return reading._replace(targets=found) if found else reading
