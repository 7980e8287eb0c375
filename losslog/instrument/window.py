"""One step's window: the backward passes that an optimizer stepped with, and what each loss was in them.

Training thread. Contract:

- A loss that is made of others, or is what backward was called on beside others, is their total and no component.
- A step of which one loss is all there is has that loss as its total; with something added it is a component.
- What a dict holds beside losses that were reached (an accuracy, a loss that nobody optimised) is a metric. A loss that
  was a component before, and has no graph any more, stays one: it counts as far as the others do not explain the total.
  So does one that has a graph and that no backward pass comes to, where one optimizer steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from losslog.instrument.leftout import LeftOut
from losslog.instrument.outputs import Output
from losslog.instrument.readings import RESOLUTION, Beside, Computed, Part, Reading, Rest, told
from losslog.instrument.roots import Root
from losslog.instrument.stepper import Heard, Stepper
from losslog.values.snapshot import resolve
from losslog.values.totals import TOTAL_NAMES


class Window:
    """What one step is made of.

    Args:
        heard: its backward passes, in order.
        owner: the observer whose outputs count.
        stepper: whose step it is; None: of nobody's.
        detached: outputs without gradients since the last step.
    """

    def __init__(
        self, heard: Sequence[Heard], owner: Any, stepper: Stepper | None = None, detached: Sequence[Output] = ()
    ) -> None:
        self.heard, self._stepper = heard, stepper
        self._known: set[str] = owner.silence.rest.detached
        self._loose: list[Output] = []
        self._unheard: set[str] = set()  # components that no backward pass came to
        self._left_out: LeftOut | None = None
        self.outputs: list[Output] = []
        parts: dict[str, list[Part]] = {}
        whole: dict[str, list[Part]] = {}
        self._wholes: set[tuple[int, int]] = set()  # (identity of an output, index) of totals
        self.own: set[str] = set()
        self._more = False  # whether totals have more in them than a single loss of no name of its own
        for turn, each in enumerate(heard):
            alone, marks = [], each.root.marks
            count, ours = 0, []
            whole_of = _told_in_parts(each.root)
            for output, index, gradient in each.root.reached:
                if output.family.owner is not owner or output.names[index] in output.family.ingredients:
                    continue
                if whole_of is not None and output is not whole_of:
                    continue
                ours.append((output, index, gradient))
                if output not in self.outputs:
                    self.outputs.append(output)
                if output.detail is not None:
                    if output.detail not in self.outputs:
                        self.outputs.append(output.detail)
                    if output.family.details:
                        count += 1
                        self._take_detail(turn, output, gradient, parts)
                        continue
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
            self._more = self._more or _has_more(each.root, ours)
            for name, part in alone:
                if count and part.output.family.whole is None:
                    part.output.family.whole = owner.silence.rest.whole = name if _is_whole(each.root, part) else ""
                if count or part.place in part.output.totals:
                    self._wholes.add((id(part.output), part.place))
                if not count:
                    whole.setdefault(name, []).append(part)
        if stepper is not None and parts:
            batches = [(each.batch, each.driver) for each in self.outputs]
            waiting = [each for each in owner.sightings.pending
                       if not each.reached and (each.batch, each.driver) in batches]  # fmt: skip
            self._left_out = owner.sightings.left_out if len(owner.steppers.alive) == 1 else None
            idle = waiting if self._left_out is not None else []
            owner.sightings.left_out.stepped(heard, [*self.outputs], idle, owner.silence.rest)
            detached = [*detached, *(each for each in waiting if each.family.left_out)]
            self._keep_left_out(parts, owner.silence.rest.again)
        if detached and parts:
            self._take_detached(detached, parts)
        self._parts, self._whole = self._sorted(parts), whole
        if stepper is not None and self._parts:
            alive, feeds = owner.steppers.alive, heard[-1].feeds
            if len(alive) == 1 or all(each in feeds for each in alive):  # else of a GAN, e.g. real and fake of its D
                self._parts = stepper.ordering.apart(self._parts)

    def _take_detail(self, turn: int, output: Output, gradient: Any, parts: dict[str, list[Part]]) -> None:
        """Take in the parts beside a loss in its place."""
        detail: Any = output.detail
        for place, name in enumerate(detail.names):
            if name in (output.family.details or ()):
                parts.setdefault(name, []).append(Part(turn, detail, place, gradient * detail.factor))
                self.own.add(name)

    def _keep_detached(self, turn: int, heard: Heard, parts: dict[str, list[Part]]) -> None:
        """Take in what no gradient can come to any more."""
        for output in dict.fromkeys(output for output, _, _ in heard.root.reached):
            if output.named and None in output.marks:
                for index, name in enumerate(output.names):
                    if output.marks[index] is None and (name in output.family.ever or name in self._known):
                        parts.setdefault(name, []).append(Part(turn, output, index, heard.root.scale))
                        self.own.add(name)

    def _lacks(self, output: Output) -> list[str]:
        """What an output has that was a component until now."""
        counts = self._left_out
        return [name for name in output.names if counts is not None and counts.lacks(output.family, name)]

    def _keep_left_out(self, parts: dict[str, list[Part]], again: frozenset[str]) -> None:
        """Take in what the loop adds no more, or detached, or once more: what it counts is known with the total."""
        missing = {
            name for output in self.outputs
            for name in {*output.family.left_out, *self._lacks(output), *again.intersection(output.names)}
        } - parts.keys()  # fmt: skip
        self._unheard |= missing
        for turn, heard in enumerate(self.heard if missing else ()):
            for output in dict.fromkeys(output for output, _, _ in heard.root.reached):
                for index, name in enumerate(output.names):
                    if name in missing and output.marks[index] is not None:
                        parts.setdefault(name, []).append(Part(turn, output, index, 0.0))
                        self.own.add(name)

    def _take_detached(self, detached: Sequence[Output], parts: dict[str, list[Part]]) -> None:
        """Take in calls over the same batches that gave nothing with a graph."""
        graded = {*parts}
        for turn, heard in enumerate(self.heard):
            batches = [(each.batch, each.driver) for each in {output for output, _, _ in heard.root.reached}]
            for output in detached:
                if (output.batch, output.driver) in batches and output not in self._loose:
                    self._loose.append(output)
                    for index, name in enumerate(output.names):
                        if name not in graded and (name in output.family.ever or name in self._known):
                            gradient = heard.root.scale if output.marks[index] is None else 0.0
                            self._unheard.add(name)
                            parts.setdefault(name, []).append(Part(turn, output, index, gradient))
                            if output not in self.outputs:
                                self.outputs.append(output)

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

    def reading(self, pending: Sequence[Output], *, dicts: bool, rest: Rest) -> Reading:
        """The step.

        Args:
            pending: outputs that no step was taken with.
            dicts: whether a single loss of no name of its own is a component too: earlier steps had several.
            rest: told of what components do not explain.
        """
        parts, roots = self._parts, [each.root for each in self.heard]
        if not parts and (len(self._whole) > 1 or self._more):  # a backward pass for each loss
            parts = self._whole
        elif parts and self._whole:
            parts = {**parts, **self._whole}
        dicts = dicts or self._is_another(parts or self._whole)
        n = max((len({part.turn for part in each}) for each in parts.values()), default=len(roots))
        beside = self._beside({*parts})
        if not parts or (len(parts) == 1 and parts.keys() <= set(TOTAL_NAMES) and not self._more):
            name = next(iter(parts or self._whole), None)
            keys = (name,) if name is not None and name != "total" and (dicts or name in self.own) else None
            single = None if name is None or name in TOTAL_NAMES else (name, (parts or self._whole)[name])
            return told(roots, {}, keys, n, beside, rest, single=single)
        if len(parts) == 1 and not dicts and not self.own & parts.keys() and not self._more:
            return told(roots, {}, None, n, beside, rest, single=next(iter(parts.items())))
        pending = [*pending, *self._loose]
        loose = {name for name, several in parts.items() if all(_mark(each) is None for each in several)}
        unheard = self._unheard & parts.keys() - loose
        idle = partial(self._idle, parts, pending)
        return told(roots, parts, tuple(parts), n, beside, rest, idle, loose, unheard=unheard)

    def _is_another(self, parts: Mapping[str, Any]) -> bool:
        """Whether a single loss is another one than the optimizer's steps had before: criteria that take turns."""
        stepper, name = self._stepper, next(iter(parts), None)
        if stepper is None or len(parts) != 1 or name in self.own or name in TOTAL_NAMES:
            return False
        stepper.alone = stepper.alone or name
        return stepper.alone != name

    def _idle(self, parts: dict[str, list[Part]], pending: Sequence[Output]) -> dict[str, float]:
        """The values of losses that gradients could have come to, and did not."""
        reached = {(part.output, part.place) for several in parts.values() for part in several} | {
            (output, index) for each in self.heard for output, index, _ in each.root.reached
        }
        found: dict[str, float] = {}
        for output in dict.fromkeys((*self.outputs, *pending)):
            for index, name in enumerate(output.names):
                known = (output, index) in reached or index in output.totals or output.factor is not None
                if not known and (output.marks[index] is not None or "loss" in name or not output.named):
                    found[name] = found.get(name, 0.0) + resolve(output.values)[index]
        return found

    def _beside(self, losses: set[str]) -> Beside | None:
        found: dict[str, list[tuple[Any, int]]] = {}
        for output in self.outputs:
            if not output.named or (len(output.names) == 1 and output.factor is None):
                continue
            for index, name in enumerate(output.names):
                total = index in output.totals or (id(output), index) in self._wholes
                if not total and name not in losses and name not in self._whole:
                    found.setdefault(name, []).append((output.values, index))
        return averages(found)


def _told_in_parts(root: Root) -> Output | None:
    """What gave a total that is made of what others gave, and the parts of it (a criterion that calls the model)."""
    several = (output for output, index, _ in root.reached if output.family.details and index in output.totals)
    return next(several, None)


def _mark(part: Part) -> Any:
    return part.output.marks[part.place] if part.output.factor is None else part.output


def _has_more(root: Root, ours: Sequence[tuple[Output, int, Any]]) -> bool:
    """Whether a loss, or calls of one criterion, are not all that the root of a backward pass is made of."""
    if len(ours) == 1:
        output, index, _ = ours[0]
        mark = output.marks[index]
        if mark is None or mark in root.marks or root.lone is None:
            return len(root.marks) > 1
        if not root.lone.get(mark[0], True):
            return False  # it is all there is, whatever is computed of it
        if mark[0] not in root.lone:
            return True
    elif any(each.named or each.family is not ours[0][0].family for each, _, _ in ours):
        return False
    return not ours or _adds(root, ours)


def _adds(root: Root, ours: Sequence[tuple[Output, int, Any]]) -> bool:
    """Whether the values say that something is added; on a device they are asked once."""
    family = ours[0][0].family
    on_device = type(root.value) is not float or any(type(each.values) is not list for each, _, _ in ours)
    if family.adds is None or not on_device:
        explained = sum(float(gradient) * resolve(output.values)[index] for output, index, gradient in ours)
        family.adds = abs(float(root.value) - explained) > RESOLUTION * abs(float(root.value))
    return family.adds


def _is_whole(root: Root, part: Part) -> bool:
    """Whether a total that a model gives is all of a backward pass's root, times something; waits for the device."""
    found, value = float(root.value), float(part.gradient) * resolve(part.output.values)[part.place]
    return abs(found - value) <= RESOLUTION * abs(found)


def averages(found: dict[str, list[tuple[Any, int]]]) -> Beside | None:
    """The mean of each of several values, by name."""
    if not found:
        return None

    def compute() -> list[float]:
        return [sum(resolve(values)[index] for values, index in several) / len(several) for several in found.values()]

    return Beside(tuple(found), Computed(compute))
