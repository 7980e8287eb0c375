"""Who gives losses: a model with the wrappers around it, or a criterion.

Training thread. Contract:

- Its modules are held weakly; their calls are watched until `remove`.
"""

from __future__ import annotations

import weakref
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Final

from losslog.instrument import calls
from losslog.instrument.steady import Habit

DEEP: Final = 4  # wrappers in one another


class Family:
    """One giver of losses.

    Args:
        owner: the observer it belongs to.
        name: what its losses are called where they have no names.
        kind: the class of its first module.
        ready_made: whether it is of torch's own making (a criterion): its losses count only with a backward pass.

    Attributes:
        keys: the components seen in training; None before, empty for a scalar.
        ever: names of all that were components of any step.
        left_out: those of them that no backward pass comes to any more.
        totals: which indexes are totals, by the names of an output and of those before it.
        plain: names of the dict it gives, where all are losses with gradients and none is a total.
        adds: whether something is added to its one loss before backward, where that was asked on a device.
        apart: how many calls of it one batch's losses are made of, where they are told apart.
        summed: whether they are one loss together.
        batch: of validation, that it was last called for; None in training.
        evaluated: calls of it for that batch.
        habit: what its steps have in common.
        places: where its losses stand in the tuple it gives; None: in none.
        details: of what parts, that come beside its one loss without a graph, it is made; None: not known yet.
        describes: whether any of those have names.
        gathers: whether it is a wrapper that calls a model several times, and gives a value of each loss for each call.
        whole: the name under which it gives what is optimised, beside its components; None: not known yet, "": none.
        ingredients: names of what it gives that losses are made with, and that are none (a temperature).
        unreached: steps for which no backward pass came to its outputs, before any did.
    """

    def __init__(self, owner: Any, name: str, kind: type, *, ready_made: bool = False) -> None:
        self.owner, self.name, self.kind, self.ready_made = owner, name, kind, ready_made
        self.keys: tuple[str, ...] | None = None
        self.ever: set[str] = set()
        self.left_out: set[str] = set()
        self.ingredients: set[str] = set()
        self.totals: dict[Any, frozenset[int]] = {}
        self.unreached = self.apart = self.evaluated = 0
        self.adds: bool | None = None
        self.whole: str | None = None
        self.details: tuple[str, ...] | None = None
        self.describes = self.gathers = self.summed = False
        self.batch: object = None
        self.habit = Habit()
        self.plain: tuple[str, ...] | None = None
        self.places: tuple[int | None, ...] = ()
        self._members: list[weakref.ref[Any]] = []

    @property
    def modules(self) -> list[Any]:
        """Its modules that are alive."""
        return [module for member in self._members if (module := member()) is not None]

    def has(self, module: Any) -> bool:
        """Whether a module is watched already."""
        return any(member() is module for member in self._members)

    def includes(self, module: Any) -> bool:
        """Whether a module is one of ours, contains one, or is contained in one."""
        mine = self.modules
        return any(
            any(part is each for part in module.modules()) or any(part is module for part in each.modules())
            for each in mine
        )

    def add(self, module: Any) -> None:
        """Watch a module's calls."""
        if not self.has(module):
            self._members = [*(each for each in self._members if each() is not None), weakref.ref(module)]
            calls.watch(module)

    def remove(self) -> None:
        """Watch none any more."""
        for module in self.modules:
            calls.unwatch(module)
        calls.tidy()  # also after those that died
        self._members = []

    def gave(self, names: tuple[str, ...], keys: tuple[str, ...] | None) -> None:
        """A step of these components was made with losses of these names; None: of a scalar."""
        self.ever.update(name for name in names if name in (keys or ()))
        if names is keys:
            self.keys = keys
        elif self.keys is None or keys is not None:
            mine = tuple(name for name in dict.fromkeys(names) if name in (keys or ()))
            self.keys = mine or self.keys or ()

    def uses(self, names: Sequence[str], marks: Sequence[Any], numbers: Collection[int]) -> None:
        """Losses are made with those of these, each with its mark, that have their nodes among such numbers."""
        its = {name for name, mark in zip(names, marks, strict=True) if mark and mark[0] in numbers}
        self.ingredients |= its
        self.totals.clear()  # what is made with those is made of nothing
        if its:
            self.plain = None

    def parameters(self) -> set[int]:
        """Identities of the parameters that can be trained."""
        return {id(each) for module in self.modules for each in module.parameters() if each.requires_grad}


def wrapped_by(module: Any) -> Iterator[Any]:
    """The modules that a wrapper is around: of no class of torch's own, and with all of its parameters."""
    own = [id(each) for each in module.parameters()]
    for _ in range(DEEP if own else 0):
        inner = [*module.children()]
        if len(inner) != 1 or [id(each) for each in inner[0].parameters()] != own:
            return
        module = inner[0]
        if type(module).__module__.partition(".")[0] != "torch":
            yield module
