"""What modules give as an observer sees it: losses of the batch at hand, validation, and which pass over data it is.

Training thread. Contract:

- Forward passes during a backward pass are recomputation, and those under a function transform are not the loop's.
- Losses without gradients of a model that was trained are validation; of a copy of it, where their data are a
  loader's that is not trained on.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping, Sequence
from threading import get_ident
from typing import Any, Final

import torch

from losslog.instrument.calls import CRITERIA
from losslog.instrument.copies import Copies
from losslog.instrument.datapass import Pass
from losslog.instrument.details import described, evaluated
from losslog.instrument.discovery import Discovery
from losslog.instrument.families import NOBODY, Families, gathered
from losslog.instrument.family import Family
from losslog.instrument.leftout import LeftOut
from losslog.instrument.leftovers import Leftovers
from losslog.instrument.logbook import Logbook
from losslog.instrument.naming import Naming
from losslog.instrument.outputs import Loss, Output, again, of, read, totals_among
from losslog.instrument.passes import EpochFinder
from losslog.instrument.plain import drivers_of
from losslog.instrument.rests import LOOKS
from losslog.instrument.rounds import batches_in
from losslog.instrument.validating import NEITHER, Validating
from losslog.values.targets import Target

_level: Final = torch._C._functorch.maybe_current_level
_tracing: Final = torch._C._is_tracing
_running: Final = torch._C._current_graph_task_id  # -1 outside of backward passes
MOST_DETACHED: Final = 64
MOST_WAITING: Final = 20_000  # outputs without a step, e.g. somebody who only runs a model in train mode


class Sightings:
    """The eyes of one observer.

    Args:
        owner: the observer.
        logbook: where validation goes.
        finder: told of passes over data.
        discovery: told of models.
        leftovers: told when the loop goes on to a new batch.

    Attributes:
        families: who gives losses.
        pending: outputs that no step was taken with yet.
        detached: what losses gave without gradients, in training, since the last step.
        batch: how many times the loop has gone on with new data of a loader.
        naming: names the images of the batch at hand.
        left_out: told which losses steps came to.
        validating: tells validation.
    """

    def __init__(
        self, owner: Any, logbook: Logbook, finder: EpochFinder, discovery: Discovery, leftovers: Leftovers
    ) -> None:
        self._owner, self._logbook, self._finder = owner, logbook, finder
        self._discovery, self._leftovers = discovery, leftovers
        self._kin = kin = Families(owner)
        self.families, self.family_of, self.adopt, self._by_id = kin.families, kin.family_of, kin.adopt, kin.by_id
        self.pending: list[Output] = []
        self.detached: list[Output] = []
        self.batch = 0
        self._fresh: list[Pass] = []
        self._copies = Copies()
        self.naming = Naming()
        self.left_out = LeftOut(logbook)
        self.validating = Validating(logbook, finder)
        self._since: set[Any] = set()  # who has used the batch at hand
        logbook.unheard = self._unheard

    def yielded(self, data_pass: Pass) -> None:
        """A loader gave a batch."""
        if self._owner.thread.others and self._owner.thread.refused:
            return
        self.validating.last = data_pass
        if not self._fresh or (self._fresh[-1] is not data_pass and data_pass not in self._fresh):
            data_pass.seen()
            if self._owner.reaching.tracing is not None and not self.pending:
                self._owner.reaching.tracing.over()
            self._fresh.append(data_pass)

    def called(
        self, module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any, inner: list[tuple[Any, Any]]
    ) -> None:
        """A watched module was called from outside."""
        thread = self._owner.thread
        if self._owner.closed or (thread.others and thread.refused):
            return
        if _running() != -1 or _level() is not None or _tracing():  # recomputation, a transform (vmap, grad), a tracer
            return
        grad = torch.is_grad_enabled()
        reference, family = self._by_id.get(id(module), NOBODY)
        if family is None or reference() is not module or family not in self.families:
            family = self.family_of(module)
        if family is not None and grad:
            if thread.mine != get_ident():
                thread.called()
            found = again(family, output)
            if found is not None:
                self._computes(args, kwargs)
                self._trained(found, output.values())
                return
        gathers = grad and gathered(output, inner)
        spread = gathers or type(module).__name__ == "DataParallel" or (family is not None and family.gathers)
        if family is None and not grad and self._kin.wraps(module):
            family = self.adopt(module)
        if family is None and not grad:
            copied = self._copies.family_of(module, self.families)
            original = copied or self._kin.successor_of(module, alive=True)
            if original is not None:
                losses = read(output, original.name, spread=spread, places=original.places)
                losses = evaluated(output, losses, original)
                data = self.validating.data(self._fresh)
                other = data is not None and not self._finder.trains_on(data)
                if copied is None or other or copied.keys is None or (data is None and not losses):  # else a teacher
                    self._evaluated(original, module, losses, args or (kwargs,), data, of_copy=copied is not None)
                return
        places = () if grad or family is None else family.places
        losses = read(output, type(module).__name__ if family is None else family.name, spread=spread, places=places)
        givers = [(module, losses)]
        if inner and not (losses and losses[0].named):
            givers = [(each, read(its, "", spread=spread)) for each, its in inner]
            if losses and {id(each) for each in module.modules()}.isdisjoint(id(each) for each, _ in inner):
                givers.append((module, losses))  # a criterion that calls the model
        if not grad or not any(each.node is not None for _, given in givers for each in given):
            if grad and module.training:
                self._computes(args, kwargs)
                if not losses:
                    self.validating.given = self.validating.input
                self._discovery.trained(module)
                self._ungraded(family, module, losses)
            else:
                losses = evaluated(output, losses, family)
                self._evaluated(family, module, losses, args or (kwargs,), self.validating.data(self._fresh))
            return
        self._computes(args, kwargs)
        if givers[0][0] is not module:
            self._discovery.trained(module)
        for giver, given in givers:
            if given:
                self._found(giver, given, output)
        if gathers and (family := self.family_of(module)) is not None:
            family.gathers = True

    def idle(self, output: Output) -> bool:
        """Whether nothing waits, and nobody but the one that gave this was called with its batch."""
        waiting = self.pending or self.detached or self.left_out.waiting or self._logbook.evaluations
        return not waiting and self._since == {output.family}

    def goes_on(
        self, module: Any, family: Family, driver: Pass | None, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> bool:
        """Whether a call is one of a family's on the next batch of this pass; then that is seen to."""
        reference, found = self._by_id.get(id(module), NOBODY)
        if found is not family or reference() is not module:
            return False
        fresh = self._fresh
        if driver is None:
            if fresh or self._finder.before is not None:
                return False
        elif len(fresh) != 1 or not fresh[0] is self._finder.before is driver or driver.over:
            return False
        self._computes(args, kwargs)
        if driver is not None:
            driver.unused = max(driver.unused - 1, 0)
            self.batch += 1
            self._fresh, self.validating.judged = [], NEITHER
        return True

    def _ungraded(self, family: Family | None, module: Any, losses: list[Loss]) -> None:
        """A module was called in training, and no gradient can come back: a metric, or a loss that is detached."""
        if family is None and losses and any(word in type(module).__name__.lower() for word in CRITERIA):
            family = self.adopt(module)
            if not losses[0].named and len(losses) == 1:
                losses[0].name = family.name
        if family is not None and losses:
            output = of(family, losses)
            output.driver = self._fresh[-1] if self._fresh else self._finder.before
            output.batch = self.batch + bool(self._fresh)
            self.detached.append(output)
            del self.detached[:-MOST_DETACHED]

    def _computes(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """A batch goes through a model in training."""
        if self.naming.looking:
            self.naming.computes(args, kwargs)
        if args and isinstance(args[-1], torch.Tensor):
            self.validating.input = weakref.ref(args[-1])
        measures, before = self._owner.reaching.measures, self._finder.before
        if measures.counting:
            measures.computed([args])
        if before is None or before.over:  # no loader gives batches now
            first = args[0] if args else kwargs
            for batch in (first,) if type(first) is torch.Tensor else batches_in(first):
                if not batch.requires_grad:
                    self._finder.batch(batch)
            if (one := self._finder.one_batch) or self.validating.full.trained:
                self.validating.full.trains(args, kwargs, one_batch=one)

    def _found(self, module: Any, losses: list[Loss], given: Any) -> None:
        """A module has given losses with gradients, or one inside it has."""
        family = self.family_of(module)
        if family is None:
            family = self.adopt(module)
            if not losses[0].named and len(losses) == 1:
                losses[0].name = family.name
            self._owner.silence.rest.looks = LOOKS
        for each in losses if family.ingredients else ():
            if each.name in family.ingredients:
                each.node = None
        family.places = tuple([each.place for each in losses])
        output, family.batch = of(family, losses), None
        if len(losses) == 1 and losses[0].place is not None and not losses[0].named:
            output.detail = described(given, losses[0], family)
        key = (output.names, *[each.family.name for each in self.pending])
        totals = family.totals.get(key)
        if totals is None:
            earlier = {mark for each in self.pending if each.thread == output.thread for mark in each.marks if mark}
            totals = family.totals[key] = totals_among(losses, earlier)
        output.totals = totals
        flat = output.named and not totals and None not in output.marks and len({*output.names}) == len(output.names)
        family.plain = output.names if flat and not self.pending else None
        self._trained(output, [each.tensor for each in losses])
        if output.detail is not None:
            output.detail.driver, output.detail.batch = output.driver, output.batch

    def _trained(self, output: Output, tensors: Iterable[Any]) -> None:
        if self._logbook.evaluations:
            self._owner.log_evaluations()
        output.driver = driver = self.drive(output.family)
        output.batch = self.batch
        if self.naming.found or driver is not None:
            output.targets = self.naming.take(driver)
        self._owner.reaching.look(output, tensors)
        self.pending.append(output)
        if len(self.pending) > MOST_WAITING:
            del self.pending[: MOST_WAITING // 2]

    def drive(self, who: Any) -> Pass | None:
        """The pass that the batch at hand comes from; a new batch where somebody computes with it again."""
        fresh = self._fresh
        if fresh or who in self._since or not self._since:
            if self._leftovers.again:
                new = bool(fresh) or self._finder.before is None
                self._leftovers.computes(new_batch=new, same=who is None and not fresh)
            if len(self._since) != 1 or who not in self._since:
                self._since = {who}
            if not fresh:
                return None if self._finder.before is None else self._finder.driver(fresh)
            driver = self._finder.driver(fresh)
            if len(fresh) > 1:
                self.validating.went_by(fresh, driver)
            self.batch += 1
            self._fresh = []
            self.validating.judged = NEITHER
            return driver
        self._since.add(who)
        return self._finder.before

    def driven(self, heard: Any) -> None:
        """Learn which pass over data a backward pass belongs to."""
        if found := drivers_of(heard.root, self._owner):
            heard.drivers = found
            return
        if self._logbook.evaluations:
            self._owner.log_evaluations()
        driver, heard.targets = self.unseen()
        heard.drivers = [driver]

    def unseen(self) -> tuple[Pass | None, Sequence[Target]]:
        """A backward pass of losses that nobody gave: the pass over data its batch comes from, and its targets."""
        driver = self.drive(None)
        return driver, self.naming.take(driver)

    def _unheard(self) -> bool:
        """Whether other data went by since it was asked last, and steps were told by backward passes alone."""
        self.validating.went_by(self._fresh)
        return self.validating.unheard() and all(each.keys is None for each in self.families)

    def _evaluated(self, *given: Any, of_copy: bool = False) -> None:
        if self._fresh:
            self._fresh[-1].evaluated = True
        amid = not self._fresh and bool(self.pending) and not self.pending[-1].reached
        self.validating.evaluated(*given, of_copy=of_copy, amid=amid)
