"""transformers: ``Trainer(callbacks=[LosslogCallback()])``, and the trainers that are made of it (trl's).

Training thread, every rank. Contract:

- The total is what the Trainer calls backward on, added up over accumulation: also of language models, whose losses are
  sums over the tokens of a whole window. Components are what the model returns (``loss_dict``), or what
  ``compute_loss`` gives to ``self.log``.
- Evaluation belongs to the epoch that has just ended; what else the Trainer logs (``grad_norm``, trl's rewards) are
  metrics.
- The run's folder lies in ``trainer_state.json``: ``train(resume_from_checkpoint=...)`` goes on with the run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from losslog.compat.base import Guest, Loop, contained
from losslog.compat.naming import is_number, require
from losslog.runtime.containment import attempt

LOWEST: Final = "5.24"
require("transformers", LOWEST, "transformers")

from transformers import TrainerCallback  # noqa: E402 - it was looked at first
from transformers.trainer_callback import ExportableState  # noqa: E402

KNOWN: Final = frozenset({"loss", "learning_rate", "epoch", "step", "total_flos", "train_loss"})
FIGURES: Final = ("_runtime", "_per_second", "_time", "epoch")  # of an evaluation, or of the whole training


class LosslogCallback(Guest, TrainerCallback, ExportableState):  # type: ignore[misc]
    """Logs what a Trainer trains.

    Args:
        options: keyword arguments of `losslog.Run`.
    """

    def __init__(self, **options: Any) -> None:
        self.options = options
        self._over = self._inside = False  # an epoch whose evaluation may be to come; a step
        self._early: dict[str, Any] = {}  # of an evaluation, logged before it is over

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Training begins, or goes on."""
        self.leave()
        self._over = self._inside = False
        state.stateful_callbacks.setdefault(type(self).__name__, self.state())  # of a checkpoint without us
        whole = args.max_steps <= 0 and state.num_train_epochs == args.num_train_epochs
        past = (state.stateful_callbacks.get(type(self).__name__) or {}) if state.global_step else {}
        config = {key: value for key, value in args.to_sanitized_dict().items() if not isinstance(value, str) or value}
        self.loop = Loop(
            self.options,
            config=config | {"model": type(kwargs.get("model")).__name__},
            epochs=state.num_train_epochs or None,
            steps_per_epoch=(state.max_steps // state.num_train_epochs or None) if whole else None,
            past=(past[0] if isinstance(past, list) else past).get("attributes", {}).get("past"),
        )

    @contained
    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """What is logged from now on belongs to a step."""
        self._inside = True

    @contained
    def on_substep_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A batch of a window is over."""
        self.loop.window.batch()

    @contained
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """One record."""
        self._inside = False
        self.loop.window.batch()
        self.loop.step()
        self._over = float(state.epoch or 0.5).is_integer()
        if self.loop.asked:
            schedulers = [getattr(each, "scheduler", each) for each in [kwargs.get("lr_scheduler")] if each is not None]
            optimizer = kwargs.get("optimizer")
            if self.loop.should_stop(None if optimizer is None else [optimizer], schedulers):
                control.should_training_stop = True

    @contained
    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        """The Trainer, or somebody's ``compute_loss``, logs."""
        said = {name: value for name, value in (logs or {}).items() if name not in KNOWN and is_number(value)}
        self._early |= {name: value for name, value in said.items() if name.startswith("eval_")}
        said = {
            name: value for name, value in said.items() if not name.startswith("eval_") and not name.endswith(FIGURES)
        }
        if self._inside:
            for name, value in said.items():
                self.loop.window.value(name, value)
        elif said:
            self.loop.run.log_metrics(said)

    @contained
    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The epoch is over; where evaluations are due they come next."""
        self._over = True
        if not control.should_evaluate:
            self._close()

    def _close(self) -> None:
        if self._over:
            self._over = False
            self.loop.end_epoch()

    @contained
    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """An evaluation is over, of one of several data sets perhaps."""
        found, self._early = {**self._early, **(kwargs.get("metrics") or {})}, {}
        of = next((name.removesuffix("_runtime") for name in found if name.endswith("_runtime")), "eval")
        found = {name.removeprefix(f"{of}_"): each for name, each in found.items() if not name.endswith(FIGURES)}
        if of == "eval" or of.startswith("eval_"):
            self.loop.evaluated(found, one_of=of.removeprefix("eval_"))
        else:  # ``evaluate(metric_key_prefix="test")``
            self.loop.evaluated(found, split=of)

    @contained
    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The evaluations of the last epoch are over."""
        self._close()

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: behind an epoch's last step the epoch has ended, before it is written."""
        if self.loop is not None and not self.loop.closed:
            self.loop.guarded(self._close)
            self.past = self.loop.state()
        plain = {name: value for name, value in self.options.items() if attempt(json.dumps, value)[1] is None}
        return {"args": plain, "attributes": {"past": self.past}}

    @contained
    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A checkpoint was written."""
        self.loop.checkpoint(f"{args.output_dir}/checkpoint-{state.global_step}")

    @contained
    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Training is over."""
        self._close()
        self.loop.end()
