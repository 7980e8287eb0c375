"""What `losslog.attach` begins: a model and its optimizer watched from outside, the loop untouched.

Training thread. Contract:

- A model has one attachment: attaching it again ends the earlier one (a notebook cell that runs twice). Where the cell
  makes the model anew, the run of the same name whose models are no more has finished.
- Closing the run takes everything of ours off.
- Losses count that a backward pass came to which fed an optimizer of the model's, whoever gave them.
- A further optimizer over the model's parameters is watched too.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch

from losslog.instrument.family import Family
from losslog.instrument.listeners import guarded, tell
from losslog.instrument.logbook import Logbook
from losslog.instrument.observer import Observer
from losslog.instrument.passes import EpochFinder
from losslog.instrument.script import described
from losslog.instrument.shares import Shares
from losslog.instrument.signals import listening
from losslog.instrument.silence import framework
from losslog.instrument.stepper import Heard, Stepper
from losslog.run import Run
from losslog.runtime.notices import warn

_attached: weakref.WeakKeyDictionary[Any, Attachment] = weakref.WeakKeyDictionary()


class Attachment(Observer):
    """Watches models that were named, and their optimizers.

    Args:
        run: where records go.
        finder: finds epochs.
        owned: whether the run was made for this attachment, and ends with it.

    Attributes:
        asked: the name that the run was given; None without.
    """

    def __init__(self, run: Run, finder: EpochFinder, *, owned: bool) -> None:
        super().__init__(Logbook(lambda: run), finder)
        self.run = self.logbook.run
        self.owned = owned
        self.asked: str | None = None
        self._named: list[Family] = []
        self._followed_wrappers: list[tuple[Any, Any]] = []
        self.silence.how = "run.log_batch(losses)"
        run.watcher = self

    def watch(self, model: Any, optimizers: Sequence[Any]) -> None:
        """Watch a model and its optimizers."""
        family = self.sightings.adopt(model)
        self._named.append(family)
        for each in optimizers:
            self.steppers.add(each)
        own = {id(each) for each in model.parameters()}
        stepped = {id(each) for one in optimizers for group in one.param_groups for each in group["params"]}
        if own and stepped and own.isdisjoint(stepped):
            self.silence.foreign(optimizers, family.name)
        self.discovery.start()

    def drop(self, model: Any) -> None:
        """Watch a model no more; the run ends with its last one where it was made for it."""
        for family in [each for each in self._named if each.has(model)]:
            family.remove()
            self._named.remove(family)
            self.sightings.families.remove(family)
        if self._named:
            return
        if self.owned:
            self.run.close()
        else:
            self.run_ends("finished")
            self.run.watcher = None

    @property
    def abandoned(self) -> bool:
        """Whether all models that were named are no more."""
        return not any(family.modules for family in self._named)

    def close(self, status: str) -> None:
        """Say so where there was nothing to record."""
        super().close(status)
        if self.silence.nothing and status == "finished" and not self.run.next_step:
            warn(
                "no step was logged: neither a backward pass nor a step of the optimizer was seen between "
                "losslog.attach and the end. Attach the model and the optimizer that are trained, before the loop, in "
                "its process"
            )

    def follow(self, wrapper: Any, optimizer: Any) -> None:
        """Count the steps of a wrapper that changes parameters without the optimizer inside it."""
        original = getattr(wrapper, "step", None)
        if not callable(original) or not hasattr(wrapper, "__dict__"):
            return

        def step(*args: Any, **kwargs: Any) -> Any:
            stepper = None if self.closed else self.steppers.get(optimizer)
            before = None if stepper is None else (stepper.ended, stepper.values())
            result = original(*args, **kwargs)
            if stepper is not None and before is not None and not self.closed:
                guarded(self._followed, stepper, *before)
            return result

        wrapper.step = step
        self._followed_wrappers.append((wrapper, step))

    def _followed(self, stepper: Stepper, ended: int, values: list[Any]) -> None:
        if stepper.ended == ended and stepper.values() != values:
            tell("step_ends", stepper.ref())

    def detach(self) -> None:
        """Take everything of ours off."""
        super().detach()
        for wrapper, step in self._followed_wrappers:
            if vars(wrapper).get("step") is step:
                del wrapper.step
        self._followed_wrappers = []

    def trains(self, optimizer: Any) -> bool:
        """One over parameters of a model that was named."""
        family = next((each for each in self._named if Stepper(optimizer).owns(each.parameters())), None)
        if family is not None:
            self.silence.adopted(optimizer, family.name)
        return family is not None

    def follows(self) -> bool:
        """The thread in which the optimizer stepped last; another may train another model."""
        return not self.thread.elsewhere

    def may_feed(self, heard: Heard, stepper: Stepper) -> bool:
        """A pass that came to losses of a model that was named, or where an optimizer's gradients cannot be seen."""
        return not stepper.probes or any(output.family in self._named for output, _, _ in heard.root.reached)

    def drives(self, stepper: Stepper, family: Family) -> bool:
        """An optimizer changes the models that it was named with, and those whose parameters it has."""
        return family in self._named and (len(self._named) == 1 or super().drives(stepper, family))


def begin(
    model: Any,
    optimizer: Any,
    run: Run | Callable[[dict[str, Any]], Run],
    finder: EpochFinder,
    name: str | None = None,
    gradients_every: int = 0,
    *,
    trace: bool = False,
) -> Run:
    """Attach a model.

    Args:
        model: what is trained.
        optimizer: the optimizer that steps it, or a list of them.
        run: where to log, or what makes it of a config.
        finder: finds epochs, where the run has no attachment yet.
        name: of the run that is made, as it was given.
        gradients_every: steps between measurements of gradient shares; 0: none.
        trace: whether to find where losses that are not finite come from.

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
        _finish_abandoned(name)
        attachment = Attachment(run(described(model, optimizers[0])), finder, owned=True)
        attachment.asked = name
    elif isinstance(run.watcher, Attachment):
        attachment = run.watcher
    else:
        attachment = Attachment(run, finder, owned=False)
    if gradients_every:
        attachment.reaching.shares = Shares(gradients_every)
    if trace:
        attachment.reaching.trace()
    attachment.watch(model, optimizers)
    for given, inner in zip(optimizer if isinstance(optimizer, list | tuple) else [optimizer], optimizers, strict=True):
        if given is not inner:
            attachment.follow(given, inner)
    _attached[model] = attachment
    return attachment.run


def _finish_abandoned(name: str | None) -> None:
    """Close runs of that name whose models are no more: the cell, or the function, that made them runs again."""
    earlier = [
        each for each in listening()
        if isinstance(each, Attachment) and each.owned and not each.closed and each.asked == name
    ]  # fmt: skip
    if any(not each.abandoned for each in earlier):
        gc.collect()  # a model may hold itself
    for each in earlier:
        if each.abandoned:
            each.run.close()


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
    if (its := framework(optimizer)) is not None:
        raise TypeError(f"attach: a {its[0]} optimizer steps by itself. Use {its[1]}")
    raise TypeError(f"attach: optimizer must be a torch.optim.Optimizer, got {type(optimizer).__name__}")
