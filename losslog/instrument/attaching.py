"""``losslog.attach``, written once: its arguments are looked at here, torch is imported when it is called.

Training thread. Contract:

- What is of the wrong type raises at the caller's line, before anything is made or hooked.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from losslog.instrument.passes import EpochFinder
from losslog.run import Run


def attach(
    model: Any,
    optimizer: Any,
    *,
    name: str | None = None,
    dir: str | os.PathLike[str] = "runs",
    config: Mapping[str, Any] | None = None,
    plugins: str | Sequence[Any] | None = "auto",
    options: Mapping[str, Mapping[str, Any]] | None = None,
    epochs: int | None = None,
    steps_per_epoch: int | None = None,
    passes_per_epoch: int | None = None,
    resume: str | os.PathLike[str] | None = None,
    resume_epoch: int | None = None,
    resume_step: int | None = None,
    run: Run | None = None,
    images: str | os.PathLike[str] | None = None,
    gradients_every: int = 0,
    non_finite: Literal["warn", "stop", "trace"] = "warn",
) -> Run:
    """Log the losses a model returns, its learning rates, epochs and COCO results, without touching the loop.

    Args:
        model: a `torch.nn.Module` that returns a dict of scalar losses, or one scalar loss, when it is called in
            training; wrapped, compiled or not. Attaching it again replaces the earlier attachment; where it
            was made anew and the earlier model is no more, the earlier run of the same name is closed.
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
        images: the folder that file names in COCO annotations are relative to, where no data set with a ``root`` tells.
        gradients_every: steps between measurements of the share that each loss has of the gradient at the shared trunk
            (``grad_share/<component>``), for up to one backward pass more each; 0: none.
        non_finite: what a NaN or infinite loss does besides its alert: nothing (warn); a request to stop; or trace,
            which makes the calls of that batch once more, at most three times in a run, to name the first module whose
            output was not finite. It keeps the arguments of these calls until the next batch, reads the random state
            at each, and waits for the device at each step.
        run: log to this run, instead of making one; everything above from ``name`` on is then the run's own.

    Returns:
        The run; closing it takes all hooks off. ``with losslog.attach(...) as run:`` works too.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: ``non_finite`` is none of the three.
        PluginError, JournalError, RunLocked, OSError: as for `Run`.
    """
    from losslog.instrument import attachment

    if run is not None and not isinstance(run, Run):
        raise TypeError(f"attach: run must be a losslog.Run, got {type(run).__name__}")
    for what, value in (("passes_per_epoch", passes_per_epoch), ("steps_per_epoch", steps_per_epoch)):
        if value is not None and (type(value) is not int or value < 1):
            raise TypeError(f"attach: {what} must be a whole number >= 1, got {value!r}")

    if type(gradients_every) is not int or gradients_every < 0:
        raise TypeError(f"attach: gradients_every must be a whole number >= 0, got {gradients_every!r}")
    if non_finite not in ("warn", "stop", "trace"):
        raise ValueError(f"attach: non_finite must be 'warn', 'stop' or 'trace', got {non_finite!r}")
    if run is not None and non_finite == "stop":
        run.non_finite = "stop"
    if run is not None and images is not None:
        run.images = os.path.abspath(os.fsdecode(images))

    def make(about: dict[str, Any]) -> Run:
        return Run(
            name,
            dir,
            config if config is not None else about,
            plugins,
            options,
            epochs=epochs,
            steps_per_epoch=steps_per_epoch,
            resume=resume,
            resume_epoch=resume_epoch,
            resume_step=resume_step,
            images=images,
            non_finite="stop" if non_finite == "stop" else "warn",
        )

    finder = EpochFinder(passes_per_epoch, steps_per_epoch)
    return attachment.begin(model, optimizer, run or make, finder, name, gradients_every, trace=non_finite == "trace")
