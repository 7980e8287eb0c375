"""One step's window: the backward passes that an optimizer stepped with, and what each loss was in them.

Training thread. Contract:

- A loss that is made of others, or is what backward was called on beside others, is their total and no component.
- A step of which one loss is all there is has that loss as its total.
- What a dict holds beside losses that were reached (an accuracy, a loss that nobody optimised) is a metric. A loss that
  was a component before, and has no graph any more, stays one: it counts once, as far as can be told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from losslog.instrument.optimizers import Heard
from losslog.instrument.outputs import Output
from losslog.instrument.readings import Beside, Computed, Part, Reading, told
from losslog.values.snapshot import resolve
from losslog.values.totals import TOTAL_NAMES


class Window:
    """What one step is made of.

    Args:
        heard: its backward passes, in order.
        owner: the observer whose outputs count.
    """

    def __init__(self, heard: Sequence[Heard], owner: Any) -> None:
        self.heard = heard
        self.outputs: list[Output] = []
        parts: dict[str, list[Part]] = {}
        whole: dict[str, list[Part]] = {}
        self._wholes: set[tuple[int, int]] = set()  # (identity of an output, index) of totals
        self.own: set[str] = set()
        for turn, each in enumerate(heard):
            alone, marks = [], each.root.marks
            count = 0
            for output, index, gradient in each.root.reached:
                if output.family.owner is not owner:
                    continue
                if output not in self.outputs:
                    self.outputs.append(output)
                name = output.names[index]
                if output.named:
                    self.own.add(name)
                part = Part(turn, output, index, gradient)
                if index in output.totals or output.marks[index] in marks:
                    alone.append((name, part))
                else:
                    count += 1
                    parts.setdefault(name, []).append(part)
            if count:
                self._keep_detached(turn, each, parts)
            for name, part in alone:
                if count or part.place in part.output.totals:
                    self._wholes.add((id(part.output), part.place))
                if not count:
                    whole.setdefault(name, []).append(part)
        self._parts, self._whole = self._sorted(parts), whole

    def _keep_detached(self, turn: int, heard: Heard, parts: dict[str, list[Part]]) -> None:
        """Take in what no gradient can come to any more."""
        for output in dict.fromkeys(output for output, _, _ in heard.root.reached):
            if output.named and None in output.marks:
                for index, name in enumerate(output.names):
                    if output.marks[index] is None and name in (output.family.keys or ()):
                        parts.setdefault(name, []).append(Part(turn, output, index, heard.root.scale))
                        self.own.add(name)

    def _sorted(self, parts: dict[str, list[Part]]) -> dict[str, list[Part]]:
        """In the order in which models gave them; backward passes come the other way round."""
        if len(parts) < 2:
            return parts
        if len(self.outputs) == 1:
            names: Iterable[str] = self.outputs[0].names
        else:
            self.outputs.sort(key=lambda each: each.number)
            names = [name for each in self.outputs for name in each.names]
        return {name: parts[name] for name in dict.fromkeys(names) if name in parts}

    def reading(self, *, dicts: bool, rest: Callable[[float, float, float], None]) -> Reading:
        """The step.

        Args:
            dicts: whether a single loss of no name of its own is a component too: earlier steps had several.
            rest: told of what components do not explain.
        """
        parts, roots = self._parts, [each.root for each in self.heard]
        if not parts and len(self._whole) > 1:  # a backward pass for each loss
            parts = self._whole
        elif parts and self._whole:
            parts = {**parts, **self._whole}
        n = max((len({part.turn for part in each}) for each in parts.values()), default=len(roots))
        beside = self._beside({*parts})
        if not parts or (len(parts) == 1 and parts.keys() <= set(TOTAL_NAMES)):
            name = next(iter(parts or self._whole), None)
            keys = (name,) if name is not None and name != "total" and (dicts or name in self.own) else None
            return told(roots, {}, keys, n, beside, rest)
        if len(parts) == 1 and not dicts and not self.own & parts.keys():
            return told(roots, {}, None, n, beside, rest)
        return told(roots, parts, tuple(parts), n, beside, rest)

    def _beside(self, losses: set[str]) -> Beside | None:
        found: dict[str, list[tuple[Any, int]]] = {}
        for output in self.outputs:
            if not output.named or len(output.names) == 1:
                continue
            for index, name in enumerate(output.names):
                total = index in output.totals or (id(output), index) in self._wholes
                if not total and name not in losses and name not in self._whole:
                    found.setdefault(name, []).append((output.values, index))
        return averages(found)


def averages(found: dict[str, list[tuple[Any, int]]]) -> Beside | None:
    """The mean of each of several values, by name."""
    if not found:
        return None

    def compute() -> list[float]:
        return [sum(resolve(values)[index] for values, index in several) / len(several) for several in found.values()]

    return Beside(tuple(found), Computed(compute))
