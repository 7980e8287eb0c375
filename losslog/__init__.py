"""losslog: see every loss of a multi-loss training run, in every tracker, without hurting the run.

The public names; all else is an implementation detail. Importing this takes milliseconds and never imports torch.
"""

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

from losslog.errors import BackendUnavailable, LosslogError, NotReady, PluginError, RunLocked, StopTraining
from losslog.hookspecs import hookimpl, hookspec
from losslog.run import Run, log_training_metrics
from losslog.tags import batch_series, epoch_series, eval_series, lr_series, scalars

__version__ = "0.1.0"

__all__ = [
    "BackendUnavailable",
    "LosslogError",
    "NotReady",
    "PluginError",
    "Run",
    "RunLocked",
    "StopTraining",
    "attach",
    "batch_series",
    "epoch_series",
    "eval_series",
    "hookimpl",
    "hookspec",
    "log_training_metrics",
    "lr_series",
    "scalars",
]


def attach(
    model: Any,
    optimizer: Any,
    *,
    name: str | None = None,
    dir: str | PathLike[str] = "runs",
    config: Mapping[str, Any] | None = None,
    plugins: str | Sequence[Any] | None = "auto",
    options: Mapping[str, Mapping[str, Any]] | None = None,
    epochs: int | None = None,
    steps_per_epoch: int | None = None,
    passes_per_epoch: int | None = None,
    resume: str | PathLike[str] | None = None,
    resume_epoch: int | None = None,
    resume_step: int | None = None,
    run: Run | None = None,
) -> Run:
    """Log the losses a model returns, its learning rates, epochs and COCO results, without touching the loop.

    Args:
        model: a `torch.nn.Module` that returns a dict of scalar losses, or one scalar loss, when it is called in
            training; wrapped, compiled or not. Attaching it again replaces the earlier attachment.
        optimizer: the `torch.optim.Optimizer` that steps it, or a list of them.
        name: as for `Run`, like all that is not said otherwise.
        dir: where runs lie.
        config: hyper-parameters; None takes the model's class and the optimizer's defaults.
        plugins: which plugins are on.
        options: their options.
        epochs: planned epochs.
        steps_per_epoch: planned optimizer steps; they end an epoch where the loop's data gives no sign of it.
        passes_per_epoch: passes over data loaders that make an epoch, where it is not one.
        resume: continue this run.
        resume_epoch: the last epoch of the checkpoint continued from.
        resume_step: the last global step of that checkpoint.
        run: log to this run, instead of making one; everything above from ``name`` on is then the run's own.

    Returns:
        The run; closing it takes all hooks off. ``with losslog.attach(...) as run:`` works too.

    Raises:
        TypeError: an argument is of the wrong type.
        PluginError, JournalError, RunLocked, OSError: as for `Run`.
    """
    from losslog.instrument.attachment import attach as attach_to

    return attach_to(
        model,
        optimizer,
        name=name,
        dir=dir,
        config=config,
        plugins=plugins,
        options=options,
        epochs=epochs,
        steps_per_epoch=steps_per_epoch,
        passes_per_epoch=passes_per_epoch,
        resume=resume,
        resume_epoch=resume_epoch,
        resume_step=resume_step,
        run=run,
    )
