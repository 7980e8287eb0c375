"""What `losslog.attach` begins: a model and its optimizer watched from outside, the loop untouched.

Training thread. Contract:

- A model has one attachment: attaching it again ends the earlier one (a notebook cell that runs twice).
- Closing the run takes every hook off.
- Where optimizer steps come without losses of the model, the model is looked for among all module calls (it may have
  been wrapped or compiled since), and if it is not there the user is told what to write instead.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch

from losslog.instrument.families import Discovery, Family, compiled_around
from losslog.instrument.forwards import read
from losslog.instrument.logbook import Logbook
from losslog.instrument.observer import Observer
from losslog.instrument.passes import EpochFinder
from losslog.instrument.signals import guarded, tell
from losslog.run import Run
from losslog.runtime.notices import warn

PATIENCE: Final = 3  # optimizer steps without losses before the user is told
_attached: weakref.WeakKeyDictionary[Any, Attachment] = weakref.WeakKeyDictionary()


class Attachment(Observer):
    """Watches models that were named, and their optimizers.

    Args:
        run: where records go.
        finder: finds epochs.
        owned: whether the run was made for this attachment, and ends with it.
    """

    def __init__(self, run: Run, finder: EpochFinder, *, owned: bool) -> None:
        super().__init__(Logbook(lambda: run), finder)
        self.run = self.logbook.run
        self.owned = owned
        self._handles: list[Any] = []
        self._discovery = Discovery(self._found)
        self._idle = 0
        run.watcher = self

    def watch(self, model: Any, optimizers: Sequence[Any]) -> None:
        """Hook a model and its optimizers."""
        family = Family(self.forward)
        for each in (model, *compiled_around(model)):
            family.add(each)
        family.optimizers = [weakref.ref(each) for each in optimizers]
        self.families.append(family)
        for each in optimizers:
            self._handles.append(each.register_step_post_hook(self._post_step))

    def drop(self, model: Any) -> None:
        """Watch a model no more; the run ends with its last one where it was made for it."""
        for family in [each for each in self.families if each.has(model)]:
            family.remove()
            self.families.remove(family)
        if self.families:
            return
        if self.owned:
            self.run.close()
        else:
            self.run_ends("finished")
            self.run.watcher = None

    def _post_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        guarded(self._stepped, optimizer)

    def _stepped(self, optimizer: Any) -> None:
        if self.stepped(optimizer):
            self._idle = 0
            self._discovery.stop()
            return
        if self.logbook.trained and self._idle >= PATIENCE:
            return  # a second optimizer of the same model: its steps bring nothing new
        self._idle += 1
        if self._idle < PATIENCE:
            self._discovery.start()
        elif self._idle == PATIENCE:
            self._discovery.stop()
            if not self.logbook.trained:
                warn(
                    "the optimizer has stepped %d times, and the model has returned no losses: a dict of scalars or a "
                    "scalar, from calling it (not its forward method). Log them in the loop: run.log_batch(losses)",
                    PATIENCE,
                )

    def _found(self, module: Any, output: Any) -> None:
        for family in self.families:
            if read(output) is not None and not family.has(module) and family.includes(module):
                family.add(module)
                self.forward(family, module, output)

    def detach(self) -> None:
        """Take everything off."""
        super().detach()
        self._discovery.stop()
        for handle in self._handles:
            handle.remove()
        self._handles = []


def begin(model: Any, optimizer: Any, run: Run | Callable[[dict[str, Any]], Run], finder: EpochFinder) -> Run:
    """Attach a model.

    Args:
        model: what is trained.
        optimizer: the optimizer that steps it, or a list of them.
        run: where to log, or what makes it of a config.
        finder: finds epochs, where the run has no attachment yet.

    Returns:
        The run.

    Raises:
        TypeError: a model or optimizer is none.
    """
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"attach: model must be a torch.nn.Module, got {type(model).__name__}")
    optimizers = [
        _torch_optimizer(each) for each in (optimizer if isinstance(optimizer, list | tuple) else [optimizer])
    ]
    tell("script_logs")
    earlier = _attached.pop(model, None)
    if earlier is not None and not earlier.closed:
        earlier.drop(model)
    if not isinstance(run, Run):
        attachment = Attachment(run(described(model, optimizers[0])), finder, owned=True)
    elif isinstance(run.watcher, Attachment):
        attachment = run.watcher
    else:
        attachment = Attachment(run, finder, owned=False)
    attachment.watch(model, optimizers)
    _attached[model] = attachment
    return attachment.run


def described(model: Any, optimizer: Any) -> dict[str, Any]:
    """A config for a run whose user gave none."""
    plain = {name: value for name, value in optimizer.defaults.items() if isinstance(value, int | float | str)}
    return {"model": type(model).__name__, "optimizer": type(optimizer).__name__, **plain}


def _torch_optimizer(optimizer: Any) -> Any:
    """The optimizer whose step hooks fire: the given one, or the one inside a wrapper.

    Raises:
        TypeError: it is no torch optimizer.
    """
    inner = optimizer
    for _ in range(4):
        if isinstance(inner, torch.optim.Optimizer) and "_optimizer_step_post_hooks" in vars(inner):
            return inner
        inner = getattr(inner, "optimizer", None)
    raise TypeError(f"attach: optimizer must be a torch.optim.Optimizer, got {type(optimizer).__name__}")
