"""Watching a script of which nothing is known: its models and optimizers are found as it uses them.

Training thread; imported only after torch. Contract:

- Every optimizer is watched, and whatever gives losses that a backward pass comes to.
- The run is made with the first thing to record. A script that uses losslog itself is left alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

import torch

from losslog.instrument.logbook import Logbook
from losslog.instrument.observer import Observer
from losslog.instrument.onethread import OneThread
from losslog.instrument.outputs import Output
from losslog.instrument.passes import EpochFinder
from losslog.instrument.readings import Reading
from losslog.instrument.shares import Shares
from losslog.instrument.stepper import Heard, Stepper
from losslog.instrument.succession import Succession
from losslog.run import Run
from losslog.runtime import endings
from losslog.runtime.containment import attempt

LOOKED_AT: Final = 50  # entries of a dict that are looked at to tell whether it is a state dict


class ScriptObserver(Observer):
    """Watches whatever trains.

    Args:
        make: makes the run; gets a config.
        finder: finds epochs.
        gradients_every: steps between measurements of gradient shares; 0: none.
        trace: whether to find where losses that are not finite come from.
    """

    knows_all = True

    def __init__(self, make: Callable[[dict[str, Any]], Run], finder: EpochFinder, gradients_every: int = 0,
                 *, trace: bool = False) -> None:  # fmt: skip
        super().__init__(Logbook(self._make_run), finder)
        self._make = make
        self._about: dict[str, Any] = {}
        self._succession = Succession(self.modules, lambda: self.steppers.alive)
        self.thread = OneThread(strict=True)
        self.reaching.shares = Shares(gradients_every)
        if trace:
            self.reaching.trace()
        self.discovery.start()

    def script_logs(self) -> None:
        """Leave a script alone that logs by itself."""
        if not self.closed:
            self.detach()

    def _make_run(self) -> Run:
        run, error = attempt(self._make, self._about)
        if run is None:
            self.detach()  # there is nowhere to log to, and asking again at every step does not help
            raise error or RuntimeError("no run")
        run.watcher = self
        return run

    def trains(self, optimizer: Any) -> bool:
        """Every optimizer."""
        return True

    def follows(self) -> bool:
        """The thread that trained first: a script is one training."""
        return self.thread.trains()

    def may_feed(self, heard: Heard, stepper: Stepper) -> bool:
        """Any pass."""
        return True

    def _record(self, stepper: Stepper, reading: Reading, outputs: list[Output], own: Collection[str]) -> None:
        if self.logbook.made is None and endings.open_runs():
            self.script_logs()
            return
        if not self._about:
            self._about = described(self._trained_by(stepper, outputs), stepper.ref())
        made = self.logbook.made  # else all records wait
        self._succession.stepped(stepper, *(0, 1) if made is None else (made.next_step, made.epoch))
        super()._record(stepper, reading, outputs, own)

    def _trained_by(self, stepper: Stepper, outputs: list[Output]) -> Any:
        """The model that an optimizer trains."""
        given = [module for each in outputs for module in each.family.modules]
        for module in (*given, *self.discovery.tops()):
            if stepper.owns({id(each) for each in module.parameters()}):
                return module
        return given[0] if given else None

    # ------------------------------------------------------------------ the rest

    def saved(self, thing: Any, file: Any) -> None:
        """Record a checkpoint, where training has begun."""
        path = path_of(file)
        if path is not None and self.logbook.trained and not self.closed and is_checkpoint(thing):
            self.logbook.checkpoint(path)


def described(model: Any, optimizer: Any) -> dict[str, Any]:
    """A config for a run whose user gave none."""
    defaults = getattr(optimizer, "defaults", {})
    plain = {name: value for name, value in defaults.items() if isinstance(value, int | float | str)}
    return {"model": type(model).__name__, "optimizer": type(optimizer).__name__, **plain}


def is_checkpoint(thing: Any) -> bool:
    """Whether ``torch.save`` was given a model, or a dict that holds one or its state."""
    if isinstance(thing, torch.nn.Module):
        return True
    if not isinstance(thing, Mapping):
        return False
    values = list(thing.values())[:LOOKED_AT]
    if any(isinstance(each, torch.nn.Module) for each in values):
        return True
    states = [thing, *(each for each in values if isinstance(each, Mapping))]
    if any(hasattr(each, "_metadata") or each.keys() >= {"state", "param_groups"} for each in states):
        return True  # of a module, however flat; of an optimizer
    return any(
        isinstance(key, str) and "." in key and isinstance(value, torch.Tensor)
        for state in states
        for key, value in list(state.items())[:LOOKED_AT]
    )


def path_of(file: Any) -> str | None:
    """Where a checkpoint was written; None for a buffer."""
    name = file if isinstance(file, str | os.PathLike) else getattr(file, "name", None)
    name = os.fspath(name) if isinstance(name, str | os.PathLike) else None
    return name if isinstance(name, str) and os.path.exists(name) else None
