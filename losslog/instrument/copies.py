"""Copies of a model that is trained: an average of its weights, an EMA, made whenever.

Training thread. Contract:

- A copy is of the same class and has parameters of the same shapes; nothing of ours is put on it.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

from losslog.instrument.family import Family

Shapes = list[tuple[int, ...]]


class Copies:
    """Tells whose copy a module is."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[Any], Family | None, int]] = {}

    def family_of(self, module: Any, families: Sequence[Family]) -> Family | None:
        """The family of which a module, or the one in a wrapper, is a copy; None where it is none."""
        inner = vars(module).get("_modules", {}).get("module")
        return self._of(module, families) or (None if inner is None else self._of(inner, families))

    def _of(self, module: Any, families: Sequence[Family]) -> Family | None:
        known = self._known.get(id(module))
        if known is not None and known[0]() is module and (known[1] in families or known[2] == len(families)):
            return known[1]
        trained = sorted(families, key=lambda each: each.keys is None)  # those that give losses first
        found = next((each for each in trained if any(_alike(module, its) for its in each.modules)), None)
        self._known = {key: each for key, each in self._known.items() if each[0]() is not None}
        self._known[id(module)] = weakref.ref(module), found, len(families)
        return found


def _alike(module: Any, other: Any) -> bool:
    if type(module) is not type(other) or module is other:
        return False
    return bool(shapes := _shapes(module)) and shapes == _shapes(other)


def _shapes(module: Any) -> Shapes:
    return [tuple(each.shape) for each in module.parameters()]
