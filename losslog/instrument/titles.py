"""What the series of an optimizer are called, where several step in turn: after what it trains, as the script names it.

Training thread. Contract:

- The smallest module that has all its parameters, and none that another optimizer trains; else the modules that have
  them together: ``msd+mpd``. Of more than three, or none, the variable of the optimizer, else its class.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from inspect import CO_OPTIMIZED
from typing import Any, Final

from losslog.instrument.stepper import Stepper, parameters_of

DEEP: Final = 2000  # modules that are looked at for a name
MOST: Final = 3  # modules whose names are joined


def title_of(stepper: Stepper, others: Iterable[Stepper], modules: Sequence[Any]) -> str:
    """The name of an optimizer's series.

    Args:
        stepper: whose.
        others: the other optimizers.
        modules: where names are looked for.
    """
    optimizer = stepper.ref()
    wanted = {id(each): place for place, each in enumerate(parameters_of(optimizer))}
    theirs = {id(each) for other in others for each in parameters_of(other.ref())} - wanted.keys()
    return (
        _of_one(wanted, theirs, modules)
        or _of_several(wanted, modules)
        or _of_one(wanted, set(), modules)
        or _variable(optimizer)
        or type(optimizer).__name__.lower()
    )


def _of_one(wanted: dict[int, int], theirs: set[int], modules: Sequence[Any]) -> str | None:
    """The name of the smallest module that has all of these parameters, and none of theirs."""
    best: tuple[int, str, Any] | None = None
    for top in modules if wanted else ():
        for count, (path, module) in enumerate(top.named_modules()):
            if count > DEEP:
                break
            its = {id(each) for each in module.parameters()}
            if wanted.keys() <= its and theirs.isdisjoint(its) and (best is None or len(its) < best[0]):
                best = (len(its), path, module)
    return None if best is None else _name(*best[1:])


def _of_several(wanted: dict[int, int], modules: Sequence[Any]) -> str | None:
    """The names of the largest modules that have nothing else, in the order of the parameters."""
    found: list[tuple[int, str]] = []
    left = {*wanted}
    for top in modules:
        for count, (path, module) in enumerate(top.named_modules()):
            if count > DEEP:
                break
            its = {id(each) for each in module.parameters()}
            if its and its <= left:
                left -= its
                found.append((min(wanted[each] for each in its), _name(path, module)))
    names = dict.fromkeys(name for _, name in sorted(found))
    return "+".join(names) if 0 < len(names) <= MOST else None


def _name(path: str, module: Any) -> str:
    """A module's attribute, or the script's variable, else its class."""
    name = path.rpartition(".")[2]
    return (name if name.isidentifier() else "") or _variable(module) or type(module).__name__.lower()


def _variable(thing: Any) -> str | None:
    """The script's variable that holds a thing: a global one, or of its functions that run now, outermost first."""
    script = vars(sys.modules["__main__"])
    scopes, frame = [], sys._getframe().f_back
    while frame is not None:
        if frame.f_globals is script and frame.f_code.co_flags & CO_OPTIMIZED:
            scopes.append(frame.f_locals)
        frame = frame.f_back
    several = [script, *reversed(scopes)]
    found = (name for each in several for name, value in [*each.items()] if value is thing)
    name = next((name for name in found if not name.startswith("_") and name != "self"), None)
    for each in scopes:
        if type(each) is dict:  # before Python 3.13 a copy, which would keep a batch alive until its function returns
            each.clear()
    return name
