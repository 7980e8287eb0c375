"""What Lightning's modules log, heard on their class: copies and pickles of a module carry nothing of ours.

Training thread. Contract:

- ``LightningModule.log`` is replaced while somebody hears, and put back afterwards; ``log_dict`` calls it.
- The original is called with its own arguments first.
"""

from __future__ import annotations

import functools
import weakref
from typing import Any, Final

_hearing: Final[dict[int, tuple[weakref.ref[Any], Any]]] = {}  # modules and callbacks, by the module's id
_originals: Final[dict[Any, Any]] = {}  # by class


def hears(module: Any) -> Any:
    """The callback that hears what a module logs, or None."""
    found = _hearing.get(id(module))
    return found[1] if found is not None and found[0]() is module else None


def hear(module: Any, callback: Any) -> None:
    """Tell a callback: its ``heard(module, name, value)`` is called."""
    _hearing[id(module)] = weakref.ref(module, functools.partial(_gone, id(module))), callback
    owner: Any = next(each for each in reversed(type(module).__mro__) if "log" in vars(each))
    if owner in _originals:
        return
    original = _originals[owner] = owner.log

    @functools.wraps(original)
    def log(self: Any, name: str, value: Any, *args: Any, **kwargs: Any) -> None:
        original(self, name, value, *args, **kwargs)
        who = hears(self)
        if who is not None:
            who.heard(self, name, value)

    owner.log = log


def _gone(key: int, reference: Any) -> None:
    if key in _hearing and _hearing[key][0] is reference:
        del _hearing[key]


def forget(module: Any) -> None:
    """Tell nobody any more."""
    if hears(module) is not None:
        del _hearing[id(module)]
    while not _hearing and _originals:
        owner, original = _originals.popitem()
        owner.log = original
