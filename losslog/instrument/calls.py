"""Calls of modules, seen without anything being put on a module: Python looks ``__call__`` up on its class.

Any thread that calls modules. Contract:

- Only classes change, and only while somebody watches: copies, pickles, scripted and exported modules carry nothing of
  ours. While torch compiles, the call is passed on, so that compiled code is what it is without us.
- The outermost watched call counts: of a wrapper and the model in it, the wrapper. Dicts that calls inside it gave come
  with it, since a wrapper may give less than the model.
- While anybody `look`s, the calls of all modules are watched. Afterwards those of criteria are, torch's and the known
  ones' classes, and of classes that may be criteria and were not called yet: a loop may take one up late, or make one
  for each batch. Without gradients those of all modules of the watched ones' classes are: one may be a copy; and of
  compiled wrappers.
"""

from __future__ import annotations

import contextlib
import operator
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import torch

from losslog.instrument.fields import fields_of
from losslog.instrument.listeners import armed, guarded, tell, usually

Module: Final = torch.nn.Module
Criterion: Final[Any] = torch.nn.L1Loss.__base__  # of all of torch's
_plain: Final = Module._wrapped_call_impl
_watched: Final[dict[int, list[Any]]] = {}  # by id: a weak reference, and how many watch it
_classes: Final[dict[type, tuple[Any, Any]]] = {}  # what stood there, or None, and ours
_looking: Final[list[Any]] = []
_before: Final[list[Callable[..., Any]]] = []  # told of calls from outside, before they are made
_attending: Final[list[Any]] = []  # who looked, and hears criteria still
_criteria: Final[set[type]] = set()  # classes of which one gave losses and has no parameters
_strange: Final[set[type]] = set()  # classes that may be criteria, of which none was called yet
_met: Final[set[type]] = set()  # classes of what was called while somebody looked
_gives: Final = operator.attrgetter("gives")
CRITERIA: Final = ("loss", "criterion")  # in the name of a class that gives losses, or of its module


class _Stack(threading.local):
    """Watched calls that run now: each the module, and what calls inside it gave."""

    def __init__(self) -> None:
        self.frames: list[tuple[Any, list[tuple[Any, Any]]]] = []
        self.through: Any = None


_stack: Final = _Stack()


def watch(module: Any) -> None:
    """See the calls of a module."""
    entry = _watched.get(id(module))
    if entry is None or entry[0]() is not module:
        _watched[id(module)] = entry = [weakref.ref(module, _forget(id(module))), 0]
    entry[1] += 1
    _strange.discard(type(module))
    if next(module.parameters(), None) is None:
        _criteria.add(type(module))
    if type(module) not in _classes:
        _replace(type(module))


def unwatch(module: Any) -> None:
    """See them no more."""
    entry = _watched.get(id(module))
    if entry is not None:
        entry[1] -= 1
        if entry[1] <= 0:
            del _watched[id(module)]
    tidy()


def look(who: Any) -> None:
    """See the calls of all modules."""
    if who not in _looking:
        _looking.append(who)
    if Module not in _classes:
        _replace(Module)


def look_away(who: Any, *, attending: bool = False, models: Iterable[Any] = ()) -> None:
    """See only those of the watched ones; where ``attending``, those of criteria too, which are no part of models."""
    for several in (_looking, _attending):
        if who in several:
            several.remove(who)
    if attending:
        _attending.append(who)
        parts = {type(each) for model in models for each in model.modules()}
        _strange.update(kind for kind in _kinds(Module) if kind not in _met | parts | _classes.keys())
        for kind in (*_attended(), *_strange, *_criteria):
            if kind not in _classes:
                _replace(kind)
    if not _looking:
        _met.clear()
    if not _attending:
        _strange.clear()
    tidy()


def _attended() -> set[Any]:
    """Torch's criteria, and what `torch.compile` puts around a model."""
    return {Criterion, getattr(sys.modules.get("torch._dynamo.eval_frame"), "OptimizedModule", Criterion)}


def precede(hear: Callable[..., Any]) -> None:
    """Tell of each watched call from outside, before it is made: ``hear(module, args, kwargs)``."""
    _before.append(hear)


def unprecede(hear: Callable[..., Any]) -> None:
    """Tell no more."""
    if hear in _before:
        _before.remove(hear)


@contextlib.contextmanager
def hidden() -> Iterator[None]:
    """Calls of this thread are ours, not the loop's, and nobody is told."""
    _stack.frames.append((None, []))
    try:
        yield
    finally:
        _stack.frames.pop()


def _kinds(kind: Any) -> Iterator[type]:
    """Classes of modules that may be criteria: the script's, and those whose names say it; torch's are known."""
    for each in kind.__subclasses__():
        name = each.__module__
        if name.partition(".")[0] not in ("torch", "losslog"):
            path = getattr(sys.modules.get(name), "__file__", None) or ""
            if "-packages" not in path or any(word in f"{name}.{each.__name__}".lower() for word in CRITERIA):
                yield each
        yield from _kinds(each)


def _forget(key: int) -> Callable[[Any], None]:
    def forget(reference: Any) -> None:
        entry = _watched.get(key)
        if entry is not None and entry[0] is reference:
            del _watched[key]

    return forget


def tidy() -> None:
    """Take what is ours off classes of which no watched module is alive."""
    alive = {type(module) for entry in list(_watched.values()) if (module := entry[0]()) is not None}
    if not _looking and not _attending:
        _criteria.clear()
    alive |= ({Module} if _looking else set()) | ({*_attended(), *_strange, *_criteria} if _attending else set())
    for kind in [each for each in _classes if each not in alive]:
        _restore(kind)


def _call(self: Any, *args: Any, **kwargs: Any) -> Any:
    """``__call__`` of a class that had none of its own. No closure: compiled code guards those of what it inlined."""
    if torch.compiler.is_compiling():
        return self._wrapped_call_impl(*args, **kwargs)
    there = Module.__call__
    if there is _plain or there is _call or _stack.through is self:
        return _seen(self, self._wrapped_call_impl, args, kwargs)
    before, _stack.through = _stack.through, self  # somebody who traces has replaced it, and may come back to us
    try:
        return _seen(self, there.__get__(self), args, kwargs)
    finally:
        _stack.through = before


def _around(own: Any) -> Any:
    """The same for a class that has one."""

    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            return own(self, *args, **kwargs)
        return _seen(self, own.__get__(self), args, kwargs)

    return __call__


def _wanted(module: Any, frames: list[Any]) -> bool:
    """Whether to see a call of a module that is not watched."""
    kind = type(module)
    if _looking:
        _met.add(kind)
    elif frames:
        return False
    elif torch.is_grad_enabled():
        heard = isinstance(module, Criterion) or kind in _criteria or kind in _strange
        if not (_attending and (heard or kind in _attended())):
            return False
    elif kind in _strange:
        return False
    return not getattr(module, "_is_replica", False)


def _seen(module: Any, original: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    frames = _stack.frames
    wanted = id(module) in _watched or _wanted(module, frames)
    if not wanted or (frames and frames[-1][0] is module):  # or a class and its base are both watched
        return original(*args, **kwargs)
    if _before and not frames:
        for each in _before:
            guarded(each, module, args, kwargs)
    inner: list[tuple[Any, Any]] = frames[0][1] if frames else []
    before = len(inner)
    frames.append((module, inner))
    try:
        output = original(*args, **kwargs)
    finally:
        frames.pop()
    if not frames:
        if armed and not inner and usually(_gives, module, args, kwargs, output):
            return output
        if type(module) not in _strange or inner or _gives_loss(output):
            tell("called", module, args, kwargs, output, inner)
    elif (fields := fields_of(output)) is not None and any(_may_be_loss(each, 1) for each in fields.values()):
        inner[before:] = [(module, output)]  # in the place of those that calls inside this one gave
    return output


def _replace(kind: Any) -> None:
    own = vars(kind).get("__call__")
    inherited = next((each for each in kind.__mro__[1:] if "__call__" in vars(each)), None)
    if kind is Module or (own is None and (inherited is Module or vars(inherited)["__call__"] is _call)):
        ours: Any = _call
    else:
        ours = _around(own or vars(inherited)["__call__"])
    _classes[kind] = (own, ours)
    kind.__call__ = ours


def _restore(kind: Any) -> None:
    own, ours = _classes.pop(kind)
    if vars(kind).get("__call__") is not ours:
        return  # replaced since (fx traces like that): ours passes on what it does not watch
    if own is None:
        del kind.__call__
    else:
        kind.__call__ = own


def _gives_loss(output: Any, deep: int = 2) -> bool:
    fields = fields_of(output)
    several = output if isinstance(output, list | tuple) else () if fields is None else fields.values()
    return _may_be_loss(output) or (deep > 0 and any(_gives_loss(each, deep - 1) for each in several))


def _may_be_loss(value: Any, dimensions: int = 0) -> bool:
    if not isinstance(value, torch.Tensor) or not value.requires_grad:
        return False
    return not value.dim() or (value.dim() <= dimensions and value.numel() == 1)
