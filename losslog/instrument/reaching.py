"""When the graph behind a loop's losses is looked at, for one observer: what each loss trains, what it sends there.

Training thread. Contract:

- A visit begins with the first output of an epoch (of a new pass over the data, where its end is not known yet), and
  where the set of trainable parameters has changed; it is over when every optimizer has stepped, or 8 steps later.
- Only whole steps count: one of which an output was not looked at proves nothing.
- Shares are measured when the first backward pass of a step begins that comes from several losses.
- Plain figures are kept, neither graph nor tensor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from torch.autograd.graph import GradientEdge

from losslog.instrument.outputs import Output
from losslog.instrument.reach import Reach, ordered
from losslog.instrument.reached import Reached
from losslog.instrument.readings import Reading
from losslog.instrument.retracing import Retracer
from losslog.instrument.roots import Root
from losslog.instrument.shares import Shares
from losslog.instrument.stepper import Heard, Stepper
from losslog.instrument.succession import Lines
from losslog.runtime.containment import attempt
from losslog.values.snapshot import resolve
from losslog.values.totals import TOTAL_NAMES

STEPS: Final = 8  # optimizers that step more seldom are not waited for
MOST: Final = 16  # outputs of one visit that are looked at: some criteria are called for every sample


class Reaching:
    """Looks for one observer.

    Args:
        owner: the observer.

    Attributes:
        visiting: whether the outputs at hand are looked at.
        units: whether the coming backward pass is the first one of an epoch.
        shares: measures what each loss has of the gradient.
        tracing: finds where losses that are not finite come from, where that was asked for.
        measures: what else is measured at the first steps of an epoch.
        taken: steps.
        still: whether the parameters that can be trained are as they were.
    """

    def __init__(self, owner: Any) -> None:
        self._owner = owner
        self._reached = Reached(owner.modules, self._optimizers, certain=owner.knows_all, idle=self._idle)
        self.measures, self.still = self._reached.measures, self._reached.still
        owner.logbook.reached = self._reached
        self.visiting = self._measured = False
        self._epoch: int | None = None
        self._driver: Any = None
        self._left: set[Stepper] = set()
        self._steps = self._looked = self.taken = 0
        self.units = False
        self._graded: dict[tuple[str, ...], list[bool]] = {}  # which losses had a graph, by their names
        self._plain: tuple[str, ...] | None = None  # the names of the last output, where all of it had one
        self.shares = Shares(0)
        self.tracing: Retracer | None = None
        self._lines = Lines()

    def trace(self) -> None:
        """Find where losses that are not finite come from."""
        if self.tracing is None:
            self.tracing = self._owner.logbook.tracing = Retracer()

    def quiet(self, output: Output) -> int:
        """For how many further steps with such outputs nothing is due, as long as it is `still`."""
        due = self.visiting or self.units or self.measures.counting or self.measures.measuring or self._reached.waiting
        other = output.names is not self._plain or output.driver is not self._driver or self._is_new()
        if due or other or self.tracing is not None or (run := self._owner.logbook.made) is None:
            return 0
        quiet = self._reached.quiet(run.next_step)
        return min(quiet, -self.taken % self.shares.every) if self.shares.every else quiet

    def ends(self) -> None:
        """The loop is over."""
        self.measures.close()
        self.shares.ends()
        if self.tracing is not None:
            self.tracing.close()

    def _idle(self) -> Iterable[Any]:
        return self._optimizers([each for each in self._owner.steppers.alive if not each.ended])

    def _optimizers(self, steppers: Iterable[Stepper] | None = None) -> Iterable[Any]:
        alive = [each.ref() for each in (self._owner.steppers.alive if steppers is None else steppers)]
        return [each for each in alive if hasattr(each, "param_groups")]  # keras' and fastai's have none

    def look(self, output: Output, tensors: Iterable[Any]) -> None:
        """Losses were given."""
        if self.tracing is not None:
            tensors = [*tensors]
            self.tracing.gave(output.names, tensors, output.targets)
        run, changed = self._owner.logbook.made, False
        fresh = output.driver is not self._driver or self._epoch != (1 if run is None else run.epoch)
        if not output.plain or output.names is not self._plain:
            graded = [mark is not None for mark in output.marks]
            changed = self._graded.get(output.names, graded) != graded
            self._graded[output.names] = graded
            self._plain = output.names if output.plain else None
        step = 0 if run is None else run.next_step
        if self._reached.due(step, fresh=fresh, changed=changed) or fresh or self.visiting:
            self._driver = output.driver
            self._begin()
            if self.visiting and self._looked < MOST:
                self._looked += 1
                found = self._reached.walk({str(place): each for place, each in enumerate(tensors)})
                if found is not None:
                    output.reach = [found.get(str(place), NOTHING) for place in range(len(output.names))]
            self._measure(fresh)

    def heard(self, heard: Heard) -> None:
        """A backward pass begins, perhaps of losses that nobody gave."""
        if self.tracing is not None:
            sightings = self._owner.sightings
            targets = sightings.pending[-1].targets if sightings.pending else sightings.naming.at_hand
            self.tracing.heard(heard.root, targets)
        if not self._owner.sightings.pending:
            fresh = self._is_new()
            if self._reached.due(self._at(), fresh=fresh) or fresh or self.visiting:
                self._begin()
                if self.visiting and self._looked < MOST:
                    self._looked += 1
                    tensors = {str(place): each for place, each in enumerate(heard.root.tensors)}
                    heard.reach = self._reached.walk(tensors)
                self._measure(fresh)
        if self.units:
            self.units = False
            self._reached.units(heard.root.tensors)
        if self.shares.due(self.taken):
            self._share(heard.root)

    def _share(self, root: Root) -> None:
        """Measure what each loss has of the gradient, in the backward pass that begins."""
        run = self._owner.logbook.made
        if run is None or run.logging_rank:
            losses, error = attempt(_edges, root, self._owner.sightings.pending)
            if losses and error is None:
                self.shares.measure(root.tensors, losses, self._owner.modules(), self.taken)

    def _now(self) -> int:
        run = self._owner.logbook.made
        return 1 if run is None else run.epoch

    def _at(self) -> int:
        run = self._owner.logbook.made
        return 0 if run is None else run.next_step

    def _is_new(self) -> bool:
        run = self._owner.logbook.made
        return self._epoch != (1 if run is None else run.epoch)

    def _measure(self, fresh: bool) -> None:
        """Measure the steps of a visit that begins an epoch."""
        if fresh and self.visiting and not self._measured:
            self._measured = self.units = True
            self._reached.measure()

    def _begin(self) -> None:
        run = self._owner.logbook.made
        if not self.visiting and (run is None or run.logging_rank):
            self.visiting, self._measured = True, False
            self._steps = self._looked = 0
            self._left = {*self._owner.steppers.alive}

    def stepped(self, stepper: Stepper, reading: Reading, outputs: Sequence[Output], heard: Sequence[Heard]) -> Reading:
        """A step was taken: its reading, with what its losses train where all of it was looked at."""
        self.taken += 1
        if self.shares.every and (shares := self.shares.take()) is not None:
            reading = reading._replace(shares=shares)
        if not self.visiting:
            return reading
        self._steps += 1
        self._left -= {stepper, *stepper.partners}
        if not self._left or self._steps >= STEPS:
            self.visiting = False
            self._epoch = self._now()
        found = self._found(reading, outputs, heard)
        if found and (line := self._lines.number_of(stepper)):
            found = {name: replace(each, line=line) for name, each in found.items()}
        return reading._replace(reach=found)

    def _found(self, reading: Reading, outputs: Sequence[Output], heard: Sequence[Heard]) -> Mapping[str, Reach] | None:
        driver = outputs[0].driver if outputs else None
        if driver is not None and len(self._owner.steppers.alive) == 1:
            self._reached.planned((driver.length or 0) // max(1, reading.n))
        self._reached.left_out = self._owner.sightings.left_out.names
        found: dict[str, Reach] = {}
        for output in [each for each in outputs if each.factor is None]:
            reached = output.reach if output.graded else [GONE if each else NOTHING for each in resolve(output.values)]
            if reached is None:
                return None
            for index, (name, each) in enumerate(zip(output.names, reached, strict=True)):
                key = "loss" if reading.keys is None else name
                total = index in output.totals or (name in TOTAL_NAMES and len(output.names) > 1)
                total = total or name in output.family.left_out
                counts = each.attached if reading.keys is None else name in reading.keys or not each.attached
                if each is not NOTHING and counts and not total:
                    found[key] = _joined(found.get(key), each)
        if not outputs:
            for backward in heard:
                if backward.reach is None:
                    return None
                for its in backward.reach.values():
                    found["loss"] = _joined(found.get("loss"), its)
        return found


NOTHING: Final = Reach(certain=False)
"""Of a loss that tells nothing: an entry of exactly 0 without a graph."""
GONE: Final = Reach(attached=False)
"""Of a loss without a graph."""


def _edges(root: Root, pending: Sequence[Output]) -> dict[str, list[GradientEdge]]:
    """Where the losses behind a root are in its graph."""
    wanted: dict[tuple[int, int], str] = {}
    for output in pending:
        for index, (name, mark) in enumerate(zip(output.names, output.marks, strict=True)):
            total = index in output.totals or (name in TOTAL_NAMES and len(output.names) > 1)
            if mark is not None and mark not in root.marks and not total:
                wanted[mark] = name
    numbers = {number for number, _ in wanted}
    found: dict[str, list[GradientEdge]] = {}
    seen = set()
    for node in ordered([each.grad_fn for each in root.tensors if each.grad_fn is not None]) if len(wanted) > 1 else ():
        for child, place in node.next_functions:
            if child is not None and child._sequence_nr() in numbers:
                mark = child._sequence_nr(), place
                if mark in wanted and mark not in seen:
                    seen.add(mark)
                    found.setdefault(wanted[mark], []).append(GradientEdge(child, place))
    return {name: found[name] for name in dict.fromkeys(wanted.values()) if name in found}


def _joined(one: Reach | None, other: Reach) -> Reach:
    """What a loss trains by two calls of it."""
    if one is None:
        return other
    parts = dict.fromkeys((*one.tensors, *other.tensors))
    tensors = {part: max(one.tensors.get(part, 0), other.tensors.get(part, 0)) for part in parts}
    return Reach(tensors, one.certain and other.certain, one.attached or other.attached)
