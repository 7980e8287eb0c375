"""Listening: functions of torch and others are replaced while somebody listens, and put back afterwards.

Training thread. Contract:

- With nobody listening the originals are back in place, unless somebody has replaced ours since: ours then pass on.
- torch and the others are reached when they are there (``sys.modules``); this module imports none of them.
"""

from __future__ import annotations

import functools
import operator
import sys
from typing import Any

from losslog.instrument.finder import Finder
from losslog.instrument.listeners import Listener, add, armed, guarded, listeners, remove, tell, usually
from losslog.instrument.sites import LATE, SITES
from losslog.instrument.uncompiled import keep_out

OPTIMIZERS = "torch.optim.optimizer"
_patches: list[tuple[Any, str, Any, Any]] = []
_handles: list[Any] = []
_finders: list[Finder] = []
_steps = operator.attrgetter("steps")


def listen(listener: Listener) -> None:
    """Tell a listener from now on, also of what modules do that are imported later."""
    if not _finders:
        for name in SITES:
            if name != LATE:
                install(name)
        _finders.append(Finder([name for name in SITES if name not in sys.modules], _loaded))
        sys.meta_path.insert(0, _finders[0])
    keep_out()
    add(listener)


def forget(listener: Listener) -> None:
    """Do not tell it any more."""
    remove(listener)
    if not listeners:
        _uninstall()


def listening() -> list[Listener]:
    """Who listens now."""
    return list(listeners)


def _loaded(name: str) -> None:
    guarded(install, name)
    tell("module_loaded", name)


def install(name: str) -> None:
    """Replace the functions of one module, where it is loaded and they are not replaced."""
    module = sys.modules.get(name)
    for owner_name, attribute, make in SITES[name] if module is not None else ():
        owner = getattr(module, owner_name, None) if owner_name else module
        original = vars(owner).get(attribute) if owner is not None else None
        if original is None or any(original is each[3] for each in _patches):
            continue  # replaced already, or another version of torch: that signal is not there, the rest is
        ours = functools.wraps(original)(make(original))
        setattr(owner, attribute, ours)
        _patches.append((owner, attribute, original, ours))
    if name == OPTIMIZERS and module is not None and not _handles:
        _handles.append(module.register_optimizer_step_pre_hook(_step_begins))
        _handles.append(module.register_optimizer_step_post_hook(_step_ends))


def _step_begins(optimizer: Any, args: Any, kwargs: Any) -> None:
    if len(args) > 1 or kwargs:  # a closure: it computes while it steps
        tell("step_begins", optimizer)


def _step_ends(optimizer: Any, args: Any, kwargs: Any) -> None:
    if not armed or not usually(_steps, optimizer):
        tell("step_ends", optimizer)


def _uninstall() -> None:
    """Put the originals back, where nobody has replaced ours since."""
    while _finders:
        sys.meta_path.remove(_finders.pop())
    while _handles:
        _handles.pop().remove()
    while _patches:
        owner, attribute, original, ours = _patches.pop()
        if vars(owner).get(attribute) is ours:
            setattr(owner, attribute, original)
