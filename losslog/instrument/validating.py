"""What is computed without gradients: validation, a look at the data that is trained on, or something else.

Training thread. Contract:

- What counts is on other data than is trained on: the training loader's, the whole of the same data set, batches of
  lists that were trained on, and the batch that a step was just taken with are not validation.
- Losses have the names that they have in training, also where gradients are on and no backward pass follows.
- A criterion judges what a model gave before it: a copy of the model, or the model on data that is trained on.
"""

from __future__ import annotations

import weakref
from collections.abc import Collection, Sequence
from typing import Any, Final

from losslog.instrument.datapass import Pass
from losslog.instrument.family import Family
from losslog.instrument.fullbatch import FullBatch
from losslog.instrument.logbook import Logbook
from losslog.instrument.ordering import name_evaluated
from losslog.instrument.outputs import Loss, Output, of
from losslog.instrument.passes import EpochFinder
from losslog.instrument.readings import Computed, Reading, averaged
from losslog.instrument.wholes import nothing
from losslog.values.snapshot import resolve
from losslog.values.totals import TOTAL_NAMES

NEITHER: Final = (False, False)


class Validating:
    """Tells validation for one observer.

    Args:
        logbook: where validation goes.
        finder: knows what is trained on.

    Attributes:
        last: the pass that gave a batch last.
        input: gives what was given last to a module in training.
        given: the same, of a module that gave no losses.
        judged: whether what gave no losses last, without gradients, was a copy of a model, and was on trained data.
        full: tells other rows of the one batch that is trained on.
    """

    def __init__(self, logbook: Logbook, finder: EpochFinder) -> None:
        self._logbook, self._finder = logbook, finder
        self.last: Pass | None = None
        self.input: Any = nothing
        self.given: Any = nothing
        self.judged, self.full = NEITHER, FullBatch()
        self._forwards = 0  # of models that gave no losses
        self._amid: weakref.WeakSet[Pass] = weakref.WeakSet()  # that gave batches between steps, and had more
        self._unheard = False
        self._summed: dict[Family, list[Reading]] = {}  # calls for the batch at hand, which are one loss together

    def data(self, fresh: Sequence[Pass]) -> Pass | None:
        """The pass that data looked at without training comes from; None where they are of no loader.

        Args:
            fresh: passes that gave a batch since the last training forward.
        """
        last = self.last if fresh else None
        return last if last is not None and last.looked_at() else None

    def went_by(self, fresh: Sequence[Pass], driver: Pass | None = None) -> None:
        """Batches that were given since the last training forward, and with which nothing was trained.

        Args:
            fresh: the passes that gave them.
            driver: the one of them that is trained on.
        """
        for each in fresh:
            if each is driver or (driver is not None and each.same_data(driver)) or self._finder.trains_on(each):
                continue
            if not each.over:
                self._amid.add(each)
            elif each not in self._amid and self._logbook.trained:
                self._unheard = True

    def unheard(self) -> bool:
        """Whether whole passes over other data went by since the last call."""
        found, self._unheard = self._unheard, False
        return found

    def evaluated(
        self, family: Family | None, module: Any, losses: list[Loss], args: tuple[Any, ...], data: Pass | None,
        *, of_copy: bool = False, amid: bool = False,
    ) -> None:  # fmt: skip
        """A module was called without gradients.

        Args:
            family: whose; None of nobody that is watched.
            module: it, or a copy of it.
            losses: what it gave.
            args: what it was called with.
            data: the pass that its data come from.
            of_copy: whether it is a copy.
            amid: whether a batch is being trained on: its losses are there, and no backward pass was made yet.
        """
        known = self._finder.trains_on(data, args) or (
            data is None and (amid or any(each is one() for each in args[-1:] for one in (self.input, self.given)))
        )
        if not losses:
            self._forwards += 1
            self.judged = of_copy, known
            return
        if family is None or family.keys is None or not self._logbook.trained:
            return
        batch = self._forwards if data is None else (id(data), data.given)
        named, names = _named(family, [each.name for each in losses], losses[0].named, batch)
        if named is not None:
            losses[0].name, losses[0].named = named, True
        kept = [each for each in losses if each.name in names]
        whole = next((each for each in losses if each.name == family.whole), None)
        if whole is not None:
            whole = Loss(TOTAL_NAMES[-1], whole.tensor, True)
        if whole is not None and not losses[0].named:  # a criterion's: the total of what others give
            names, kept = (whole.name,), []
        kept += [] if whole is None else [whole]
        if not kept or (not module.training and len({each.name for each in kept}) < len(names)):
            return  # in eval mode a model may return other figures
        if True in self.judged and not family.parameters():  # a criterion: it judges what a model gave
            of_copy, known = of_copy or self.judged[0], known or self.judged[1]
        one = known and data is None and not amid and self._finder.before is None
        other = self.full.other(args) if one else None
        if known and other is None:
            self._logbook.trained_on()
        else:
            untold = data is None and self._finder.generated
            self._add(of(family, kept), (batch, of_copy), data or other, of_copy=of_copy, untold=untold)

    def unfollowed(self, given: Output) -> None:
        """No backward pass came to what was given with gradients, of data that is not trained on."""
        family, names, found, named = given.family, [*given.names], [(given.values, len(given.names))], given.named
        if family.details and (detail := given.detail) is not None:
            names, named = [*detail.names, TOTAL_NAMES[-1]], True
            found = [(detail.values, len(detail.names)), *found]
        batch = id(given.driver), given.batch
        only, wanted = _named(family, names, named, batch)
        names, named = (names, named) if only is None else ([only], True)
        kept = [(index, name) for index, name in enumerate(names) if name in wanted]
        if family.whole in names:  # of a criterion: the total of what others give
            kept, named = [*(kept if named else ()), (names.index(family.whole), TOTAL_NAMES[-1])], True
        if kept:
            values = Computed(lambda: [resolve(its)[place] for its, count in found for place in range(count)])
            chosen = Computed(lambda: [resolve(values)[index] for index, _ in kept])
            output = Output(family, tuple(name for _, name in kept), chosen, named=named)
            self._add(output, batch, given.driver)

    def _add(self, output: Output, batch: object, data: Any, **about: bool) -> None:
        """Record losses of a validation; calls of a criterion that are one loss together are added up by batch."""
        family, reading = output.family, averaged([output])
        if family.summed:
            before, family.batch = family.batch, batch
            if before == batch:
                self._summed[family].append(reading)
                return
            several = self._summed[family] = [reading]
            reading = reading._replace(values=Computed(lambda: [sum(resolve(each.values)[0] for each in several)]))
        self._logbook.validation(reading, family.name, data, **about)


def _named(family: Family, names: list[str], named: bool, batch: object) -> tuple[str | None, Collection[str]]:
    """The name that a single loss has in validation, where that is another one; and all names that count there.

    Args:
        family: who gave the losses.
        names: their names.
        named: whether they are the model's own.
        batch: calls for one batch have the same.
    """
    if not named and len(names) == 1 and (family.keys or family.apart):
        name = name_evaluated(family, names[0], batch)
        return name, (name,)
    return None, (*family.details, names[-1]) if family.details and named else family.keys or (family.name,)
