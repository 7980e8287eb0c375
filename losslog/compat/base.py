"""What adapters of training frameworks share: one training under a framework, put to a run.

Training thread. Contract:

- An adapter says what the framework says; what that means is decided here, once.
- A record is one optimizer step (`losslog.compat.window`), with the learning rates that it was taken with. Components
  are those the framework was told of by name, else those that modules gave and a backward pass came to.
- Training that goes on from a checkpoint goes on with its run, without a gap or a doubled step.
- Nothing of ours raises into training; `losslog.StopTraining` of an inline plugin is a request.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from losslog.compat.ears import Ears
from losslog.compat.naming import apart
from losslog.compat.opening import opened
from losslog.errors import StopTraining
from losslog.instrument.listeners import failed, tell
from losslog.instrument.signals import listening
from losslog.runtime.containment import attempt
from losslog.values.totals import TOTAL_NAMES

PATIENCE: Final = 2.0  # seconds that a checkpoint waits for the journal
Method = TypeVar("Method", bound=Callable[..., Any])


class Guest:
    """What a framework's callback has of ours.

    Attributes:
        options: of `losslog.Run`.
        loop: the training that goes on, a `Loop`, or None.
        past: what a checkpoint said of the run that it is of, or None.
    """

    options: Mapping[str, Any]
    loop: Any = None
    past: Mapping[str, Any] | None = None

    @property
    def run(self) -> Any:
        """The run, once training has begun."""
        return None if self.loop is None else self.loop.run

    def leave(self) -> None:
        """An earlier training of this callback, that an error broke off where the framework does not tell of errors."""
        if self.loop is not None and not self.loop.closed:
            error = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
            self.loop.end(error or InterruptedError("training was broken off"))

    def __getstate__(self) -> dict[str, Any]:
        """A copy, or a pickle for another process, begins without a training."""
        return {name: value for name, value in vars(self).items() if name != "loop"}


def contained(method: Method) -> Method:
    """A method of a `Guest` that does nothing outside of a training, and never raises into it."""

    @functools.wraps(method)
    def call(self: Guest, *args: Any, **kwargs: Any) -> None:
        loop = self.loop
        if loop is not None and not loop.closed:
            _, error = attempt(method, self, *args, **kwargs)
            if error is not None:
                loop.failed(error)

    return call  # type: ignore[return-value]


def _leave(folder: str) -> None:
    """A training of this process that logged to the run that is gone on with now: an error broke it off."""
    for each in listening():
        if isinstance(each, Loop) and not each.closed and os.path.abspath(each.run.dir) == os.path.abspath(folder):
            each.end(InterruptedError("training was broken off"))


class _Save:
    """A method of a framework's object that is heard; a copy, or a pickle, of the object has its own again."""

    def __init__(self, loop: Loop, owner: Any, name: str, path_of: Callable[..., Any]) -> None:
        self._loop, self._path_of, self._own = loop, path_of, (owner, name)
        self._original = getattr(owner, name)
        functools.update_wrapper(self, self._original)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        result, loop = self._original(*args, **kwargs), self._loop
        if not loop.closed:
            loop.guarded(lambda: loop.checkpoint(self._path_of(*args, **kwargs) or result))
        return result

    def __reduce__(self) -> Any:
        return getattr, self._own


class Loop(Ears):
    """One training under a framework, from its begin to its end.

    Args:
        options: of `losslog.Run`, as the user gave them.
        config: hyper-parameters; what the user gave as ``config`` is added, and wins.
        epochs: planned.
        steps_per_epoch: planned optimizer steps.
        optimizers: whose rates are logged; None: of all that step.
        past: what `state` gave when the checkpoint was written that training goes on from.
        done: epochs behind it, where a framework's checkpoints cannot keep `past`; heeded if the user says ``resume``.

    Attributes:
        run: where it is logged.
    """

    def __init__(
        self,
        options: Mapping[str, Any],
        *,
        config: Mapping[str, Any],
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        optimizers: Sequence[Any] | None = None,
        past: Mapping[str, Any] | None = None,
        done: int | None = None,
    ) -> None:
        tell("script_logs")
        given = {"epochs": epochs, "steps_per_epoch": steps_per_epoch} | dict(options)
        given["config"] = {**config, **(given.get("config") or {})}
        self.run = opened(given, past, done, _leave)
        super().__init__(self.run, optimizers)
        self.run.watcher = self
        self._saving: list[tuple[Any, str, Any]] = []
        self._served = False
        self._validation: tuple[int, dict[str, Any]] | None = None
        self._main_set: str | None = None
        self._of_modules: Any = None  # what they gave on that set

    def guarded(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Call a function: its error is said, and training goes on."""
        _, error = attempt(function, *args, **kwargs)
        if error is not None:
            self.failed(error)

    def failed(self, error: BaseException) -> None:
        """An error of ours, or a plugin's request to stop."""
        try:
            failed(error)
        except StopTraining as why:
            self.run.request_stop(str(why) or "StopTraining")

    # ------------------------------------------------------------------ told by the adapter

    def step(self, lr: Any = None) -> None:
        """The window's batches were stepped on: one record.

        Args:
            lr: the rates that it was taken with; None: as the optimizers say behind it.
        """
        reading = self.take()
        if reading is not None:
            self.logbook.step(reading, self.lr() if lr is None else lr)

    @property
    def asked(self) -> bool:
        """Whether `should_stop` is to be called behind this step: the first, and where anything was asked for."""
        return not self._served or self.run.asked

    def should_stop(self, optimizers: Sequence[Any] | None = None, schedulers: Sequence[Any] = ()) -> bool:
        """Carry out requests: learning rates here; gives whether to stop."""
        self._served = True
        its = optimizers if optimizers is not None else self.optimizers
        if its and all(hasattr(each, "param_groups") for each in its):
            self.run.apply_requests([*its], [*schedulers])
        return self.run.should_stop

    def evaluated(
        self,
        values: Mapping[str, Any],
        *,
        split: str = "val",
        one_of: str | None = None,
        nested: Mapping[str, Any] | None = None,
    ) -> None:
        """An evaluation is over: losses of a validation go with the epoch's end, metrics are logged.

        Args:
            values: by name.
            split: what was evaluated.
            one_of: the name of this validation set where there are several: the first that comes is the validation,
                the others are splits of their own, since losses of several sets do not add up.
            nested: metrics in the form of `Run.log_eval`, beside.
        """
        if one_of is not None:
            seen, self._main_set = self.logbook.val_loss(), self._main_set or one_of
            if one_of == self._main_set:
                self._of_modules = seen or self._of_modules
            else:
                split = one_of
        self.logbook.log_evaluations()
        losses, metrics = apart(values)
        before = not self.logbook.trained and self.run.next_step == 0  # nothing was trained yet
        if before or split != "val":
            metrics, losses = metrics | losses, {}
        if metrics or nested:
            self.run.log_eval({**metrics, **(nested or {})}, split=split, epoch=0 if before else None)
        if losses:
            step = self.run.next_step - 1
            if self._validation is not None and self._validation[0] != step:
                self._superseded()
            self._validation = (step, {**self._validation[1], **losses} if self._validation is not None else losses)
            if not self.logbook.steps:  # the epoch has ended already
                self._superseded()

    def _superseded(self) -> None:
        """No epoch's end took the last validation with it: it becomes metrics, at its step."""
        if self._validation is not None:
            step, losses = self._validation
            self.run.log_metrics({f"val/{name}": value for name, value in losses.items()}, step=step)
            self._validation = None

    def end_epoch(self) -> None:
        """The open epoch is over; one without a step is none."""
        if self.logbook.steps:
            self.run.end_epoch()

    def checkpoint(self, path: str | os.PathLike[str]) -> None:
        """A checkpoint was written."""
        self.logbook.checkpoint(os.fspath(path))

    def saves(self, owner: Any, path_of: Callable[..., Any], *methods: str) -> None:
        """Log what methods of an object write, until the run ends; None: its ``save_checkpoint``.

        Args:
            owner: the framework's trainer, runner, model.
            path_of: gives the path, of the arguments that they are called with; None: it is what they return.
            methods: their names.
        """
        for name in methods or ("save_checkpoint",):
            self._hear_saves(owner, path_of, name)

    def _hear_saves(self, owner: Any, path_of: Callable[..., Any], name: str) -> None:
        save = _Save(self, owner, name, path_of)
        object.__setattr__(owner, name, save)  # a model of keras counts what is set on it as its own
        self._saving.append((owner, name, save))

    def detach(self) -> None:
        """Take everything of ours off."""
        super().detach()
        for owner, name, ours in self._saving:
            if vars(owner).get(name) is ours:
                object.__delattr__(owner, name)
        self._saving.clear()

    def state(self, *, epoch_done: bool = False) -> dict[str, Any]:
        """What a checkpoint has to know; waits until what was logged before it is in the journal.

        Args:
            epoch_done: whether training that goes on from it begins another epoch, though this one's end is to come.
        """
        self.run.flush(PATIENCE)
        done = self.run.epoch - 1 + int(epoch_done and self.logbook.steps > 0)
        return {"run": os.path.abspath(self.run.dir), "epoch": done, "step": self.run.next_step - 1}

    def end(self, error: BaseException | None = None) -> None:
        """Training is over; an exit that says nothing went wrong broke it off all the same."""
        if isinstance(error, SystemExit) and error.code in (None, 0):
            error = StopTraining(f"training was broken off by {type(error).__name__}")
        self.run.__exit__(None if error is None else type(error), error, None)

    def before_epoch_end(self) -> Any:
        """Record what belongs to the epoch; gives its validation losses."""
        seen = super().before_epoch_end()
        seen, self._of_modules = self._of_modules or seen, None
        if self.names and isinstance(seen, dict):  # of modules, whose losses have other names than the framework's
            seen = {name: value for name, value in seen.items() if name in self.names} or None
        _, losses = self._validation or (0, {})
        self._validation = None
        if losses.keys() <= set(TOTAL_NAMES) and isinstance(seen, dict):
            return {**seen, **losses}
        alone = len(losses) == 1 and next(iter(losses)) in TOTAL_NAMES
        return next(iter(losses.values())) if alone else losses or seen

    def cut_short(self, status: str) -> bool:
        """Whether the open epoch was left in the middle."""
        return status != "finished"

    def close(self, status: str) -> None:
        """Record what waits."""
        if self.cut_short(status) or not self.logbook.steps:
            self._superseded()
        super().close(status)
