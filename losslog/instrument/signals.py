"""What torch and pycocotools do, told to whoever listens: functions of theirs replaced by ones that also speak.

The functions run on the threads that call them. Contract:

- The original is called first, with its own arguments, and its result or exception is what the caller gets.
- A listener's error never reaches the caller, but for `losslog.StopTraining` and the user's own Ctrl-C.
- With nobody listening the originals are put back. A forked child has no listeners.
- torch and pycocotools are reached when they are there (``sys.modules``); this module imports neither.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import Any, Final

from losslog.errors import StopTraining
from losslog.instrument.finder import Finder
from losslog.instrument.passes import Pass
from losslog.runtime.containment import attempt, long_form
from losslog.runtime.notices import warn

LATE: Final = "torch.serialization"  # worth replacing only while it is imported: ``torch.save`` is bound then
MARK: Final = "_losslog_pass"
_listeners: list[Listener] = []
_patches: list[tuple[Any, str, Any, Any]] = []
_finders: list[Finder] = []
_errors = [0]


class Listener:
    """Hears what it overrides.

    Attributes:
        sees_training: whether it sees the losses of the loop.
    """

    sees_training = False

    def script_logs(self) -> None:
        """The script uses losslog itself."""

    def module_loaded(self, name: str) -> None:
        """One of the modules in `SITES` is there."""

    def yielded(self, data_pass: Pass) -> None:
        """A loader gave a batch."""

    def train_called(self, module: Any) -> None:
        """``module.train(True)`` was called."""

    def compiled(self, module: Any) -> None:
        """A module was compiled: in place, or it is the compiled wrapper of another."""

    def zeroed(self, optimizer: Any) -> None:
        """Gradients were set to zero."""

    def scaler_begins(self, optimizer: Any) -> None:
        """A GradScaler was asked to step an optimizer."""

    def scaler_ends(self, optimizer: Any) -> None:
        """It has, or has not because of infinite gradients."""

    def summarized(self, evaluator: Any) -> None:
        """A ``COCOeval`` has its ``stats``."""

    def saved(self, thing: Any, file: Any) -> None:
        """``torch.save`` has written something."""


def listen(listener: Listener) -> None:
    """Tell a listener from now on, also of what modules do that are imported later."""
    if not _finders:
        for name in SITES:
            if name != LATE:
                install(name)
        _finders.append(Finder([name for name in SITES if name not in sys.modules], _loaded))
        sys.meta_path.insert(0, _finders[0])
    _listeners.append(listener)


def forget(listener: Listener) -> None:
    """Do not tell it any more."""
    if listener in _listeners:
        _listeners.remove(listener)
    if not _listeners:
        _uninstall()


def listening() -> list[Listener]:
    """Who listens now."""
    return list(_listeners)


def tell(what: str, *args: Any) -> None:
    """Call one method of every listener."""
    for listener in list(_listeners):
        guarded(getattr(listener, what), *args)


def guarded(function: Callable[..., Any], *args: Any) -> None:
    """Call a function of ours from inside the user's program: an error is said on the 1st, 2nd, 4th ... time."""
    _, error = attempt(function, *args)
    if error is None:
        return
    if isinstance(error, StopTraining):
        raise error
    _errors[0] += 1
    if _errors[0] & (_errors[0] - 1) == 0:
        warn("watching the training loop failed (%d so far), training goes on:\n%s", _errors[0], long_form(error))


# ---------------------------------------------------------------------- where to listen


def _iterate(original: Any) -> Any:
    def __iter__(self: Any) -> Any:
        iterator = original(self)
        if _listeners:
            attempt(lambda: setattr(iterator, MARK, Pass(self, iterator)))
        return iterator

    return __iter__


def _next(original: Any) -> Any:
    def __next__(self: Any) -> Any:
        found = self.__dict__.get(MARK)
        try:
            batch = original(self)
        except StopIteration:
            if found is not None:
                found.exhausted = True
            raise
        if found is not None:
            for listener in _listeners:
                listener.yielded(found)
        return batch

    return __next__


def _train(original: Any) -> Any:
    def train(self: Any, mode: bool = True) -> Any:
        result = original(self, mode)
        if mode and _listeners:
            tell("train_called", self)
        return result

    return train


def _compile(original: Any) -> Any:
    def compile(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        tell("compiled", self)
        return result

    return compile


def _wrap_compiled(original: Any) -> Any:
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        tell("compiled", self)

    return __init__


def _zero_grad(original: Any) -> Any:
    def zero_grad(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        tell("zeroed", self)
        return result

    return zero_grad


def _scaler_step(original: Any) -> Any:
    def step(self: Any, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        tell("scaler_begins", optimizer)
        result = original(self, optimizer, *args, **kwargs)
        tell("scaler_ends", optimizer)
        return result

    return step


def _summarize(original: Any) -> Any:
    def summarize(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        tell("summarized", self)
        return result

    return summarize


def _save(original: Any) -> Any:
    def save(obj: Any, f: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(obj, f, *args, **kwargs)
        tell("saved", obj, f)
        return result

    return save


# module: (class or "", attribute, what replaces it)
SITES: Final[dict[str, tuple[tuple[str, str, Callable[[Any], Any]], ...]]] = {
    "torch.nn.modules.module": (("Module", "train", _train), ("Module", "compile", _compile)),
    "torch.optim.optimizer": (("Optimizer", "zero_grad", _zero_grad),),
    "torch.utils.data.dataloader": (("DataLoader", "__iter__", _iterate), ("_BaseDataLoaderIter", "__next__", _next)),
    "torch.amp.grad_scaler": (("GradScaler", "step", _scaler_step),),
    "torch._dynamo.eval_frame": (("OptimizedModule", "__init__", _wrap_compiled),),
    "torch.serialization": (("", "save", _save),),
    "pycocotools.cocoeval": (("COCOeval", "summarize", _summarize),),
}


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


def _uninstall() -> None:
    """Put the originals back, where nobody has replaced ours since."""
    while _finders:
        sys.meta_path.remove(_finders.pop())
    while _patches:
        owner, attribute, original, ours = _patches.pop()
        if vars(owner).get(attribute) is ours:
            setattr(owner, attribute, original)


def _after_fork() -> None:
    _listeners.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
