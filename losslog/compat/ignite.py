"""ignite: ``losslog.compat.ignite.attach(trainer, evaluators=evaluator)`` before ``trainer.run(...)``.

Training thread. Contract:

- The total is what goes backward; components are what the update function gives as a dict, else what modules give. One
  record an optimizer step.
- Evaluators that run between two epochs belong to the earlier one, whatever the order in which handlers were added.
- What `attach` returns has ``state_dict`` and ``load_state_dict``: ``Checkpoint(to_save={"losslog": ...})`` resumes.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Final

from losslog.compat.base import Guest, Loop, contained
from losslog.compat.naming import is_number, require

LOWEST: Final = "0.4.13"


def attach(trainer: Any, evaluators: Any = None, *, optimizers: Sequence[Any] | None = None, **options: Any) -> Guest:
    """Log what an Engine trains.

    Args:
        trainer: the Engine whose update function trains.
        evaluators: an Engine that evaluates, or several by the name of what they evaluate (``val`` first of all).
        optimizers: whose rates are logged; None: of all that step.
        options: keyword arguments of `losslog.Run`.

    Returns:
        What logs: its ``run`` is the run, once training has begun; for ``to_save`` of ignite's ``Checkpoint``.

    Raises:
        ImportError: ignite is too old.
    """
    require("pytorch-ignite", LOWEST, "ignite")
    guest = _Handlers(options, optimizers)
    guest.add(trainer, evaluators if isinstance(evaluators, Mapping) else {"val": evaluators} if evaluators else {})
    return guest


class _Handlers(Guest):
    def __init__(self, options: dict[str, Any], optimizers: Sequence[Any] | None) -> None:
        self.options, self._optimizers = options, optimizers
        self._over = False
        self._trainer: Any = None
        self._at, self._last = 0, None  # the iteration that was recorded last, and its output

    def add(self, trainer: Any, evaluators: Mapping[str, Any]) -> None:
        from ignite.engine import Events

        self._trainer = trainer
        trainer.add_event_handler(Events.STARTED, self._started)
        trainer.add_event_handler(Events.EPOCH_STARTED, lambda engine: self._close())
        trainer.add_event_handler(Events.ITERATION_COMPLETED, self._iterated)
        trainer.add_event_handler(Events.EPOCH_COMPLETED, self._ended)
        trainer.add_event_handler(Events.COMPLETED, self._completed)
        trainer.run = self._running(trainer.run)
        for split, each in evaluators.items():
            each.add_event_handler(Events.STARTED, self._evaluates)
            each.add_event_handler(Events.COMPLETED, self._evaluated, split)

    def _started(self, engine: Any) -> None:
        self.leave()
        self._over, self._at, self._last = False, engine.state.iteration, None
        self.loop = Loop(
            self.options,
            config={},
            epochs=engine.state.max_epochs,
            optimizers=self._optimizers,
            past=self.past if engine.state.iteration else None,
        )

    @contained
    def _iterated(self, engine: Any) -> None:
        if engine.state.iteration == self._at:
            return
        self._at, self._last = engine.state.iteration, engine.state.output
        output, window = engine.state.output, self.loop.window
        for name, value in (output if isinstance(output, Mapping) else {}).items():
            window.value(str(name), value)
        window.batch(output if is_number(output) else None)
        if self.loop.stepped or not window.heard:
            self.loop.step()
            if self.loop.asked and self.loop.should_stop(self._optimizers):
                engine.terminate()

    @contained
    def _ended(self, engine: Any) -> None:
        self._over = True

    @contained
    def _close(self) -> None:
        if self._over:
            self._over = False
            self.loop.end_epoch()

    @contained
    def _evaluates(self, engine: Any) -> None:
        """A handler that was added before ours evaluates: the step that it is behind comes first."""
        output = self._trainer.state.output
        if self.loop.stepped and (output is None or output is not self._last):
            self._iterated(self._trainer)

    @contained
    def _evaluated(self, engine: Any, split: str) -> None:
        self.loop.evaluated(engine.state.metrics, split=split)

    def _completed(self, engine: Any) -> None:
        if self.loop is not None and not self.loop.closed:
            self._close()
            self.past = self.loop.state()
            self.loop.end()

    def _running(self, run: Any) -> Any:
        """Training that ends otherwise; a handler of EXCEPTION_RAISED would keep errors from those who call ``run``."""

        @functools.wraps(run)
        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return run(*args, **kwargs)
            except BaseException as error:
                if self.loop is not None:
                    self.loop.end(error)
                raise
            finally:
                self._completed(None)

        return call

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        if self.loop is not None and not self.loop.closed:
            self.past = self.loop.state(epoch_done=self._over)
        return dict(self.past or {})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Training is to go on."""
        self.past = dict(state) or None
