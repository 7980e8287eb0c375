"""What Lightning's modules log, heard on their class: copies and pickles of a module carry nothing of ours.

Training thread. Contract:

- ``LightningModule.log`` is replaced while somebody hears, and put back afterwards; ``log_dict`` calls it.
- The original is called with its own arguments first.
"""

from __future__ import annotations

import functools
import weakref
from typing import Any, Final

_hearing: Final[weakref.WeakKeyDictionary[Any, Any]] = weakref.WeakKeyDictionary()  # callbacks by module
_originals: Final[dict[Any, Any]] = {}  # by class


def hears(module: Any) -> Any:
    """The callback that hears what a module logs, or None."""
    return _hearing.get(module)


def hear(module: Any, callback: Any) -> None:
    """Tell a callback: its ``heard(trainer, name, value)`` is called."""
    _hearing[module] = callback
    owner: Any = next(each for each in reversed(type(module).__mro__) if "log" in vars(each))
    if owner in _originals:
        return
    original = _originals[owner] = owner.log

    @functools.wraps(original)
    def log(self: Any, name: str, value: Any, *args: Any, **kwargs: Any) -> None:
        original(self, name, value, *args, **kwargs)
        who = _hearing.get(self)
        if who is not None:
            who.heard(self.trainer, name, value)

    owner.log = log


def forget(module: Any) -> None:
    """Tell nobody any more."""
    _hearing.pop(module, None)
    while not _hearing and _originals:
        owner, original = _originals.popitem()
        owner.log = original
