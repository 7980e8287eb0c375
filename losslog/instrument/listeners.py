"""Who listens to what a training program does with torch, keras, fastai and the COCO evaluators.

The methods run on the threads that do it. Contract:

- A listener's error never reaches the program, but for `losslog.StopTraining` and the user's own Ctrl-C.
- A forked child has no listeners.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from threading import get_ident
from time import thread_time
from typing import Any, Final

from losslog.errors import StopTraining
from losslog.instrument.datapass import Pass
from losslog.runtime.containment import attempt, long_form
from losslog.runtime.notices import now_and_then, warn

listeners: Final[list[Listener]] = []
_hearing: Final[dict[str, list[Callable[..., Any]]]] = {}
_errors = [0]
armed: Final[list[Any]] = []
"""The `losslog.instrument.usual.Usual` that takes what comes next, if any; who takes it out of here has it alone."""
disturbed: Final = [0]
"""How often anything was told."""


class Told(Exception):
    """An error of ours that was told already."""


class Listener:
    """Hears what it overrides.

    Attributes:
        sees_training: whether it sees the losses of the loop.
    """

    sees_training = False

    def script_logs(self) -> None:
        """The script uses losslog itself."""

    def module_loaded(self, name: str) -> None:
        """A module was imported whose functions are listened to."""

    def called(
        self, module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any, inner: list[tuple[Any, Any]]
    ) -> None:
        """A watched module was called from outside; ``inner`` are calls inside it that gave dicts of losses."""

    def yielded(self, data_pass: Pass) -> None:
        """A loader gave a batch."""

    def train_called(self, module: Any, *, was_training: bool) -> None:
        """``module.train(True)`` was called."""

    def compiled(self, module: Any) -> None:
        """A module was wrapped by ``torch.compile``; this is the wrapper."""

    def backward_begins(self, root: Any) -> None:
        """``torch.autograd.backward`` was called: a `losslog.instrument.roots.Root`."""

    def backward_ends(self, root: Any) -> None:
        """It has returned."""

    def made(self, optimizer: Any) -> None:
        """An optimizer was made."""

    def zeroed(self, owner: Any) -> None:
        """Gradients of an optimizer's, or of a module's, parameters were set to zero."""

    def step_begins(self, optimizer: Any) -> None:
        """An optimizer is asked to step."""

    def step_ends(self, optimizer: Any) -> None:
        """An optimizer has stepped."""

    def scaler_begins(self, optimizer: Any) -> None:
        """A GradScaler was asked to step an optimizer."""

    def scaler_ends(self, optimizer: Any, scaler: Any) -> None:
        """It has, or has not because of infinite gradients."""

    def summarized(self, evaluator: Any) -> None:
        """A ``COCOeval`` has its ``stats``."""

    def saved(self, thing: Any, file: Any) -> None:
        """``torch.save`` has written something."""

    def loaded(self, file: Any, thing: Any) -> None:
        """``torch.load`` has read something."""

    def restored(self, optimizer: Any) -> None:
        """An optimizer was given a state."""


class Meter:
    """What listening costs, of one step in many: CPU seconds of the thread that trains.

    Attributes:
        owner: whose step is measured now; None between.
    """

    def __init__(self) -> None:
        self.owner: Any = None
        self._thread = 0
        self._spent = self._entered = 0.0

    def start(self, owner: Any) -> None:
        """Measure in this thread from here on."""
        self.owner, self._thread, self._spent, self._entered = owner, get_ident(), 0.0, 0.0

    def enters(self) -> float:
        """We are called; 0 in a thread that is not measured."""
        if get_ident() != self._thread:
            return 0.0
        self._entered = thread_time()
        return self._entered

    def leaves(self, entered: float) -> None:
        """We have returned from a call that was entered then."""
        self._spent += thread_time() - entered

    def stop(self) -> float:
        """What was spent since `start`, up to the middle of a call that has not returned."""
        self.owner = None
        return self._spent + (thread_time() - self._entered if self._entered else 0.0)


meter: Final = Meter()


class Ear:
    """A prehook of autograd's that calls a function of ours with ``parts`` and the gradients."""

    __slots__ = ("_hear", "_parts")

    def __init__(self, hear: Callable[..., None], parts: Sequence[tuple[int, int]]) -> None:
        self._hear, self._parts = hear, parts

    def __call__(self, gradients: Any) -> None:
        """Gradients have come."""
        entered = meter.enters() if meter.owner is not None else 0.0
        _, error = attempt(self._hear, self._parts, gradients)
        if entered:
            meter.leaves(entered)
        if error is not None:
            failed(error)


def add(listener: Listener) -> None:
    """Tell a listener from now on."""
    unusual()
    listeners.append(listener)
    _hearing.clear()


def remove(listener: Listener) -> None:
    """Tell it no more."""
    unusual()
    if listener in listeners:
        listeners.remove(listener)
    _hearing.clear()


def hearing(what: str) -> list[Callable[..., Any]]:
    """The methods of that name, of those listeners that have more than `Listener` does."""
    found = _hearing.get(what)
    if found is None:
        methods = [getattr(each, what) for each in listeners]
        nothing = getattr(Listener, what)
        found = _hearing[what] = [each for each in methods if getattr(each, "__func__", None) is not nothing]
    return found


def usually(take: Callable[[Any], Callable[..., bool]], *args: Any) -> Any:
    """The unit that is armed, where it takes what happens; else None, it is armed no more, and all are to be told.

    Args:
        take: gives its method.
        args: what that is called with.
    """
    try:
        unit = armed.pop()
    except IndexError:  # another thread was quicker
        return None
    entered = meter.enters() if meter.owner is not None else 0.0
    taken, error = attempt(take(unit), *args)
    if entered and meter.owner is not None:
        meter.leaves(entered)
    if taken:
        armed.append(unit)
        return unit
    guarded(unit.hand_back)
    if error is not None:
        failed(error)
    return None


def unusual() -> None:
    """Something else happens than a unit takes."""
    disturbed[0] += 1
    if armed:
        with contextlib.suppress(IndexError):
            guarded(armed.pop().hand_back)


def tell(what: str, *args: Any, **kwargs: Any) -> None:
    """Call one method of every listener."""
    disturbed[0] += 1
    if armed:
        unusual()
    entered = meter.enters() if meter.owner is not None else 0.0
    methods = _hearing.get(what)
    for method in hearing(what) if methods is None else methods:
        _, error = attempt(method, *args, **kwargs)
        if error is not None:
            failed(error)
    if entered and meter.owner is not None:
        meter.leaves(entered)


def guarded(function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    """Call a function of ours from inside the user's program: an error is said on the 1st, 2nd, 4th ... time."""
    _, error = attempt(function, *args, **kwargs)
    if error is not None:
        failed(error)


def failed(error: BaseException) -> None:
    """An error of ours: it is said, or it is one that the loop is to have."""
    if isinstance(error, StopTraining):
        raise error
    if isinstance(error, Told):
        return
    _errors[0] += 1
    if now_and_then(_errors[0]):
        warn("watching the training loop failed (%d so far), training goes on:\n%s", _errors[0], long_form(error))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=listeners.clear)
    os.register_at_fork(after_in_child=_hearing.clear)
    os.register_at_fork(after_in_child=armed.clear)
