"""Watching a script of which nothing is known: its models and optimizers are found as it uses them.

Training thread; imported only after torch. Contract:

- A model is what is called from outside, with gradients on, and gives losses: a dict of scalars, or one scalar from a
  module that is not one of torch's own. Where a script has both, the dicts count; several scalars in one step are
  components by class name.
- The run is made with the first thing to record. A script that uses losslog itself is left alone.
- All modules are watched only until optimizer steps come with losses, and again for a while when they come without.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Final

import torch

from losslog.instrument.families import Discovery, Family
from losslog.instrument.forwards import Forward, Reading, merge, read
from losslog.instrument.logbook import Logbook
from losslog.instrument.observer import Observer
from losslog.instrument.passes import EpochFinder
from losslog.instrument.signals import guarded
from losslog.run import Run
from losslog.runtime import endings
from losslog.runtime.containment import attempt
from losslog.runtime.notices import warn

PATIENCE: Final = 20  # optimizer steps without losses for which all modules are watched
LOOKED_AT: Final = 50  # entries of a dict that are looked at to tell whether it is a state dict


class ScriptObserver(Observer):
    """Watches whatever trains.

    Args:
        make: makes the run; gets a config.
        finder: finds epochs.
    """

    def __init__(self, make: Callable[[dict[str, Any]], Run], finder: EpochFinder) -> None:
        from torch.optim.optimizer import register_optimizer_step_post_hook

        super().__init__(Logbook(self._make_run), finder)
        self._make = make
        self._about: dict[str, Any] = {}
        self._dicts = False
        self._names: dict[Family, str] = {}
        self._idle: dict[int, int] = {}
        self._saved: list[str] = []
        self._discovery = Discovery(self._found)
        self._discovery.start()
        self._handle = register_optimizer_step_post_hook(self._post_step)

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

    # ------------------------------------------------------------------ models

    def _found(self, module: Any, output: Any) -> None:
        if not torch.is_grad_enabled() or self.closed:
            return
        reading = read(output)
        if reading is None or reading.node is None:
            return
        if reading.keys is None and (self._dicts or type(module).__module__.startswith("torch.nn.")):
            return
        family = next((each for each in self.families if each.includes(module)), None)
        if family is None:
            family = Family(self.forward)
            self.families.append(family)
            self._names[family] = self._free_name(type(module).__name__)
        if not family.has(module):
            family.add(module)
            self.forward(family, module, output)

    def _free_name(self, name: str) -> str:
        taken, count = set(self._names.values()), 1
        while (name if count == 1 else f"{name}_{count}") in taken:
            count += 1
        return name if count == 1 else f"{name}_{count}"

    def _training_forward(self, family: Family, reading: Reading) -> None:
        if reading.keys is not None:
            if not self._dicts:
                self._pending = [each for each in self._pending if each.reading.keys is not None]
            self._dicts = True
        elif self._dicts:
            return
        if self.logbook.made is None and endings.open_runs():
            self.script_logs()
            return
        super()._training_forward(family, reading)

    def compiled(self, module: Any) -> None:
        """A module was compiled: hooks on all modules would make it compile twice, so it is watched by itself."""
        super().compiled(module)
        if not self._discovery.looking:
            return
        self._discovery.stop()
        if not any(family.has(module) for family in self.families):
            family = Family(self.forward)
            family.add(module)
            self.families.append(family)
            self._names[family] = self._free_name(type(getattr(module, "_orig_mod", module)).__name__)

    # ------------------------------------------------------------------ steps

    def _post_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        guarded(self._stepped, optimizer)

    def _stepped(self, optimizer: Any) -> None:
        if self.closed:
            return
        if self.stepped(optimizer):
            self._discovery.stop()
            return
        idle = self._idle[id(optimizer)] = self._idle.get(id(optimizer), 0) + 1
        if idle == PATIENCE:
            self._discovery.stop()
            if not self.logbook.trained:
                warn(
                    "the script has made %d optimizer steps, and no model returned losses (a dict of scalars, or a "
                    "scalar). Log them in the loop: run = losslog.Run(); run.log_batch(losses)",
                    PATIENCE,
                )
        elif 1 < idle < PATIENCE:
            self._discovery.start()

    def _record(self, optimizer: Any, window: list[Forward]) -> None:
        if not self._about:
            model = next(iter(window[-1].family.modules), None)
            plain = {key: value for key, value in optimizer.defaults.items() if isinstance(value, int | float | str)}
            self._about = {"model": type(model).__name__, "optimizer": type(optimizer).__name__, **plain}
        super()._record(optimizer, window)

    def _merge(self, window: list[Forward]) -> tuple[Reading, int]:
        families = list(dict.fromkeys(each.family for each in window))
        if len(families) == 1 or any(each.reading.keys is not None for each in window):
            return super()._merge(window)
        named = [each.reading._replace(keys=(self._names[each.family],)) for each in window]
        return merge(named), max(sum(each.family is family for each in window) for family in families)

    # ------------------------------------------------------------------ the rest

    def saved(self, thing: Any, file: Any) -> None:
        """Record a checkpoint, where training has begun."""
        path = path_of(file)
        if path is not None and self.logbook.trained and not self.closed and is_checkpoint(thing):
            self.logbook.checkpoint(path)

    def detach(self) -> None:
        """Take everything off."""
        super().detach()
        self._discovery.stop()
        self._handle.remove()


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
