"""A step as most are: one backward pass, which came once to each loss of one output that is nothing but losses.

Made on the training thread, resolved on the drain thread. Contract:

- It gives what `losslog.instrument.window` would, for less.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from losslog.instrument.readings import GIVEN_UP, REST, Reading, Rest, common
from losslog.values.snapshot import EXACT, Staged

if TYPE_CHECKING:
    from losslog.instrument.datapass import Pass
    from losslog.instrument.outputs import Output
    from losslog.instrument.roots import Root


class Plain(Staged):
    """What autograd told of a step of one backward pass, which came once to each loss of one plain output."""

    __slots__ = ("_output", "_rest", "_root", "found")

    def __init__(self, root: Root, output: Output, rest: Rest) -> None:
        self.values: list[float] = []
        self._root: Root | None = root
        self._output, self._rest = output, rest
        rest.coming += 1
        self.found: dict[str, float] = {}

    def resolve(self) -> list[float]:
        """Each component, then the total; finds the weights."""
        root, self._root = self._root, None
        if root is None:
            return self.values
        output, scale = self._output, root.scale
        if scale < GIVEN_UP:
            assert isinstance(output.values, list)
            self.values = [*output.values, sum(output.values)]
            return self.values
        total, explained, values = root.value / scale, 0.0, output.values
        assert isinstance(values, list)
        weights = [1.0] * len(values)
        for _, index, gradient in root.reached:
            weight = gradient / scale
            explained += weight * values[index]
            weights[index] = 1.0 if abs(weight - 1.0) <= EXACT else weight
        if weights.count(1.0) != len(weights):
            self.found = {name: each for name, each in zip(output.names, weights, strict=True) if each != 1.0}
        self._rest.weights.update(zip(output.names, weights, strict=True))
        self._rest(total, total - explained, common(weights), dict)
        self.values = [*values, total]
        return self.values

    def weights(self) -> dict[str, float]:
        """Those that are not 1."""
        return self.found


def drivers_of(root: Root, owner: Any) -> list[Pass | None]:
    """The passes over data that gave the batches behind a backward pass, in order; those of an owner's outputs."""
    reached = root.reached
    ours = {output for output, _, _ in reached if output.family.owner is owner}
    return [each.driver for each in sorted(ours, key=lambda each: each.number)]


def plainly(root: Root, owner: Any, rest: Rest) -> Reading | None:
    """A step of one backward pass, where it is as plain as most are; None where it is not."""
    reached = root.reached
    if not reached:
        return None
    output: Output = reached[0][0]
    if not output.plain or len(reached) != len(output.names) or output.family.owner is not owner:
        return None
    for each, _, gradient in reached:
        if each is not output or type(gradient) is not float:
            return None
    if type(root.value) is not float or type(root.scale) is not float or (root.marks and root.marks[0] in output.marks):
        return None
    if owner.sightings.left_out.waiting:
        owner.sightings.left_out.whole(output)
    found = Plain(root, output, rest)
    return tuple.__new__(Reading, (output.names, found, True, 1, found.weights, *REST))  # no call of Python's
