"""What components do not explain of a total, and what is said of it.

`look` runs on the training thread, the rest on the drain thread. Contract:

- A line is said once, and says what is known: a component that is in the total but detached (or perhaps computed once
  more, where gradients have another way), a total that is no weighted sum of its components, or else that something
  comes from outside the model.
- A single step could mean many things, so that the second one, or the end, brings the line.
- What components without a graph may explain of a total they explain: with their last weights, or one for all of them.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping
from typing import Any, Final

from losslog.instrument.behind import entwined, is_beside, is_curved, leads_elsewhere
from losslog.instrument.readings import RESOLUTION, Idle
from losslog.runtime.notices import Once
from losslog.runtime.pace import Guard

COARSE: Final = 1e-2
SAME: Final = 2e-3  # two ratios that are one
FACTOR: Final = 64.0  # a factor on all components alike from here on is told
LOOKS: Final = 3  # backward passes whose graphs are looked at


def _is_coarse(total: float) -> bool:
    """Whether a total came in bfloat16: sums of those leave rests of their own."""
    return math.isfinite(total) and not struct.pack(">f", min(max(total, -3e38), 3e38))[2:].strip(b"\0")


class Rests:
    """Told of every step that has components.

    Args:
        quiet: say nothing.

    Attributes:
        look_again: whether components left a rest for the first time.
        looks: how many of the coming backward passes are looked at.
        coming: steps that are read off the loop, and that it will be told of.
        weights: of components, in the last step that had them with a graph.
        whole: the name under which a model gives the total that is optimised, beside its components; "": it does not.
        again: losses with a graph that the total has by their values, computed once more.
        detached: losses that were found in a total without ever having had a graph.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.look_again = False
        self.coming = self._come = 0
        self._derived: set[str] = set()
        self.weights: dict[str, float] = {}
        self.whole = ""
        self.detached: set[str] = set()
        self.again: frozenset[str] = frozenset()
        self._graded: set[str] = set()
        self._once = Once()
        self._lock = Guard()
        self.looks = LOOKS
        self._said = quiet
        self._ratios: dict[str, float] = {}
        self._curved = self._over = self._outside = self._elsewhere = False
        self._waiting: tuple[float, float, dict[str, float]] | None = None  # rest, total, and ratios of the first step

    def look(self, root: Any, pending: Iterable[Any]) -> None:
        """A backward pass begins: see how its root is made of the losses that were given."""
        if self.looks:
            self.looks -= 1
            marks = {mark for output in pending for mark in output.marks if mark is not None}
            parts = {
                mark: output.names[index] for output in pending for index, mark in enumerate(output.marks)
                if mark is not None and index not in output.totals
            }  # fmt: skip
            if ingredients := entwined(root.node, {*parts}):
                marks = {mark for mark in marks if mark[0] not in ingredients}
                for output in pending:
                    output.family.uses(output.names, output.marks, ingredients)
            self._curved = is_curved(root.node, marks)
            self._elsewhere = leads_elsewhere(root.node, marks & parts.keys())
            self._graded |= {parts[mark] for mark in marks & parts.keys()}
            self._derived |= {
                output.names[index] for output in pending for index in output.totals
                if (mark := output.marks[index]) is not None and is_beside(root.node, mark, marks)
            }  # fmt: skip

    def asks(self) -> bool:
        """Whether the calls of all modules should be looked at once more."""
        asked, self.look_again = self.look_again, False
        return asked

    def __call__(self, total: float, rest: float, common: float, idle: Idle) -> None:
        """A step.

        Args:
            total: of the step.
            rest: what components do not explain of it.
            common: the factor that all of them count with; 1.0 where they differ.
            idle: gives the values of losses that gradients did not come to.
        """
        if common >= FACTOR:
            self._once(
                "every component counts %g times in the total, which is what backward() was called on: a factor by "
                "hand is part of it, also where gradients are divided afterwards; torch.amp.GradScaler's is not",
                common,
            )
        self._come += 1
        tolerance = (COARSE if _is_coarse(total) else RESOLUTION) * max(abs(total), abs(total - rest))
        if not self._said and abs(rest) > tolerance and math.isfinite(rest):
            ratios = {name: rest / value for name, value in idle().items() if value}
            before, self._waiting = self._waiting, (rest, total, ratios)
            if before is not None or self._curved:
                self._say(rest, total, ratios, {} if before is None else before[2])
            else:
                self.look_again, self.looks = True, LOOKS
        with self._lock:
            self._last()

    def divide(self, rest: float, total: float, values: Mapping[str, float]) -> dict[str, float]:
        """The weights of components that have no graph any more.

        Args:
            rest: what the others do not explain of the total.
            total: of the step.
            values: of the components.
        """
        known = {name: self.weights.get(name, 1.0) for name in values}
        told = sum(known[name] * value for name, value in values.items())
        if self._outside or abs(rest - told) <= SAME * abs(total):
            return known
        whole = sum(values.values())
        if not whole or not math.isfinite(rest) or not math.isfinite(whole):
            return known
        factor = rest / whole
        return dict.fromkeys(values, factor if abs(rest) > RESOLUTION * abs(total) else 0.0)

    def unheard(self, rest: float, total: float, values: Mapping[str, float]) -> dict[str, float]:
        """The weights of components that have a graph, and that no backward pass came to.

        Args:
            rest: what the others do not explain of the total.
            total: of the step.
            values: of the components.

        Returns:
            0, or what they count where they are in the total by their value: as before, or alike in two steps.
        """
        found = dict.fromkeys(values, 0.0)
        close = (COARSE if _is_coarse(total) else SAME) * abs(total)
        known = {name: self.weights.get(name, 1.0) for name in values}
        if not math.isfinite(rest) or abs(rest) <= close:  # what is that small, and was in the total, still may be
            return found | {name: known[name] for name in self.again & known.keys() if abs(values[name]) <= close}
        for names in ([*values], *([name] for name in values)):
            if abs(rest - sum(known[name] * values[name] for name in names)) <= close:
                return found | {name: known[name] for name in names}
        if len(values) == 1 and (value := sum(values.values())):
            (name,) = values
            before, ratio = self._ratios.get(name), rest / value
            self._ratios[name] = ratio
            if before is not None and abs(ratio - before) <= SAME * abs(ratio):
                found[name] = ratio
        return found

    def ends(self) -> None:
        """The loop is over."""
        with self._lock:
            self._over = True
            self._last()

    def _last(self) -> None:
        """Say what waits for a second step, where none comes any more."""
        if self._over and self._waiting is not None and not self._said and self._come >= self.coming:
            self._say(*self._waiting, {})

    def _say(self, rest: float, total: float, ratios: Mapping[str, float], before: Mapping[str, float]) -> None:
        self._said = True
        found = next((name for name, ratio in ratios.items() if abs(ratio - 1.0) <= SAME), None) or next(
            (name for name, each in ratios.items() if name in before and abs(each - before[name]) <= SAME * abs(each)),
            None,
        )
        parts = 1.0 / sum(1.0 / each for each in ratios.values()) if len(ratios) > 1 and all(ratios.values()) else 0.0
        if found is None and abs(parts - 1.0) <= SAME:
            found = ", ".join(ratios)
        if found is not None and self._elsewhere and self._graded.issuperset(names := found.split(", ")):
            self.again |= {*names}
            text = (
                "%s: in the total by its value (%.3g of %.3g), computed there once more: no gradient comes to what the "
                "model gives under that name"
            )
            self._once(text, found, rest, total, key="rest")
        elif found is not None and self._elsewhere:
            text = (
                "%s: in the total by its value (%.3g of %.3g), and no gradient comes to it: the loop computes it once "
                "more, or detaches it"
            )
            self._once(text, found, rest, total, key="rest")
        elif found is not None:
            self.detached |= {*found.split(", ")}
            self._once(
                "%s: in the total (%.3g of %.3g), but detached: it trains nothing", found, rest, total, key="rest"
            )
        elif self._derived:
            text = (
                "%s: in the total, and computed from another loss: its gradient is part of that one's weight, and it "
                "is no component; the total logged is what was optimised (%.3g)"
            )
            self._once(text, ", ".join(sorted(self._derived)), total, key="rest")
        elif self._curved:
            text = (
                "the total is not a weighted sum of the components: weights are its derivatives, and what is logged is "
                "what was optimised (%.3g)"
            )
            self._once(text, total, key="rest")
        elif self.whole:
            self._outside = True
            text = "%.3g of %.3g is in %s, the total that the model gives, and under no other name: no component has it"
            self._once(text, rest, total, self.whole, key="rest")
        else:
            self._outside = True
            text = (
                "%.3g of %.3g comes from outside the model: the total logged is what was optimised, and a val_loss "
                "that is heard lacks it"
            )
            self._once(text, rest, total, key="rest")
