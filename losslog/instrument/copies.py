"""Copies of a model that is trained: an average of its weights, an EMA, made whenever.

Training thread. Contract:

- A copy is of the same class and has parameters of the same shapes; nothing of ours is put on it.
- A module that holds a copy, under whatever name, and no other parameters but those of what is trained is one too.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Sequence
from typing import Any, Final

from losslog.instrument.family import Family

MOST: Final = 64  # modules in a wrapper that are looked at
Shapes = list[tuple[int, ...]]


class Copies:
    """Tells whose copy a module is."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[Any], Family | None, int]] = {}

    def family_of(self, module: Any, families: Sequence[Family]) -> Family | None:
        """The family of which a module, or one in it, is a copy; None where it is none."""
        known = self._known.get(id(module))
        if known is not None and known[0]() is module and (known[1] in families or known[2] == len(families)):
            return known[1]
        trained = sorted(families, key=lambda each: each.keys is None)  # those that give losses first
        found = next((each for each in trained if any(_copied(module, its) for its in each.modules)), None)
        self._known = {key: each for key, each in self._known.items() if each[0]() is not None}
        self._known[id(module)] = weakref.ref(module), found, len(families)
        return found


def _copied(module: Any, other: Any) -> bool:
    """Whether a module is a copy of another, or is around one and has nothing else but perhaps that other."""
    if _alike(module, other):
        return True
    held = [*itertools.islice(module.modules(), 1, MOST)]
    copy = next((each for each in held if _alike(each, other)), None)
    if copy is None:
        return False
    known = {id(each) for one in (copy, other) for each in one.parameters()}
    return all(id(each) in known for each in module.parameters())


def _alike(module: Any, other: Any) -> bool:
    if type(module) is not type(other) or module is other:
        return False
    return bool(shapes := _shapes(module)) and shapes == _shapes(other)


def _shapes(module: Any) -> Shapes:
    return [tuple(each.shape) for each in module.parameters()]
