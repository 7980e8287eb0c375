"""A whole training run: epochs, validation, evaluation, checkpoints, resume. Runs on the training thread.

    for each epoch:
        train_one_epoch        batches        run.log_batch
        validation_losses                     (reported with the epoch's end)
        evaluate               evaluation     run.log_eval
        scheduler, by epoch
        end of epoch                          run.end_epoch
        checkpoint                            run.log_checkpoint

Contract:

- A resumed run repeats what an uninterrupted one would have done: checkpoints hold every state, random ones included,
  and validation leaves no trace.
- A stop asked for by a plugin ends training after the step at hand; the epoch it interrupts is not ended, evaluated or
  saved, so that resuming does it again from its start. Ctrl-C passes through to ``with losslog.Run(...)``.
- With several processes the main one validates, evaluates and saves; a stop takes effect on all at the same step.
- A checkpoint that the disk refuses becomes an alert, and training goes on; after the last epoch it is an error.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from losslog.engine.batches import Forward, Means, call_model
from losslog.engine.checkpoint import (
    CheckpointError,
    checkpoint_path,
    read_checkpoint,
    restore_checkpoint,
    save_checkpoint,
)
from losslog.engine.distributed import from_main, is_main, unwrap
from losslog.engine.epoch import Progress, train_one_epoch
from losslog.engine.keeping import Keeper
from losslog.engine.optimization import MixedPrecision, Warmup
from losslog.engine.validation import Evaluator, evaluate, evaluator_of, validation_losses
from losslog.errors import StopTraining
from losslog.runtime.containment import one_line
from losslog.runtime.notices import say, warn
from losslog.values.totals import total_of

if TYPE_CHECKING:
    from losslog import Run


@dataclass
class FitResult:
    """What training came to.

    Attributes:
        epoch: the last complete epoch, counted from 1; 0: none.
        step: the next global step.
        stopped: whether a plugin's request ended it early.
        losses: the epoch means of the last complete epoch.
        val_loss: its validation losses, None where there were none.
        metrics: the last evaluation.
        checkpoint: the last file written.
    """

    epoch: int = 0
    step: int = 0
    stopped: bool = False
    losses: Means | None = None
    val_loss: Means | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    checkpoint: Path | None = None


def fit(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    train_loader: Any,
    *,
    epochs: int,
    device: torch.device | str | None = None,
    run: Run | None = None,
    val_loader: Any = None,
    scheduler: Any = None,
    scheduler_every: Literal["epoch", "step"] = "epoch",
    amp: bool | torch.dtype = False,
    accumulate: int = 1,
    clip_norm: float | None = None,
    warmup_steps: int = 0,
    steps_per_epoch: int | None = None,
    validation: bool = True,
    evaluate_every: int = 1,
    evaluator: Callable[[], Evaluator] | None = None,
    checkpoint_every: int = 1,
    checkpoint_dir: str | Path | None = None,
    keep: int | None = None,
    best: str | None = None,
    resume: str | Path | Mapping[str, Any] | None = None,
    before_epoch: Callable[[int], None] | None = None,
    forward: Forward = call_model,
    metrics_every: int = 10,
    non_finite: Literal["warn", "stop", "skip", "trace"] = "warn",
    images: int | Sequence[Any] = 8,
    thumbnails: bool = False,
    gradients_every: int = 0,
) -> FitResult:
    """Trains a model and reports everything to a run.

    Args:
        model: returns a dict of scalar losses, or one scalar loss, in train mode; already on `device`; may be wrapped
            in `DistributedDataParallel`.
        optimizer: over the model's parameters.
        train_loader: gives batches; a sampler with ``set_epoch`` is told the epoch.
        epochs: the last epoch, counted from 1 (of the whole run, also after a resume).
        device: None: where the model's parameters are.
        run: records go there; None: nothing is logged.
        val_loader: held-out data; None: no validation, no evaluation.
        scheduler: a torch scheduler; `ReduceLROnPlateau` is given the validation loss (or the training loss).
        scheduler_every: whether the scheduler goes by epochs or by optimizer steps (OneCycleLR).
        amp: True: float16 with a `GradScaler` on CUDA, bfloat16 elsewhere; or the type to use.
        accumulate: batches per optimizer step.
        clip_norm: the largest total gradient norm; None: not clipped.
        warmup_steps: linear warm-up of the learning rate over this many global steps.
        steps_per_epoch: optimizer steps per epoch; None: one pass over the loader.
        validation: whether to compute the model's own losses on `val_loader` after every epoch.
        evaluate_every: epochs between evaluations (the last epoch always has one); 0: none.
        evaluator: makes a fresh evaluator; None: the data set's own; where that has none, nothing is evaluated.
        checkpoint_every: epochs between checkpoints (the last epoch always has one); 0: none.
        checkpoint_dir: the folder that gets ``checkpoints/``; None: the run's folder, nowhere without a run.
        keep: how many of the newest checkpoints stay; None: all.
        best: ``checkpoints/best.pth`` is the one with the highest of this metric, e.g. ``segm_AP``, or with the lowest
            ``val_loss``.
        resume: a checkpoint (a file, or from `read_checkpoint`) to go on from.
        before_epoch: called with the number of each epoch before it starts.
        forward: computes the losses from ``(model, batch)``.
        metrics_every: steps between reports of throughput, memory and gradient norm; 0: none.
        non_finite: what a NaN or infinite loss does besides its alert; see `train_one_epoch`.
        images: how many images of each kind an evaluation logs, or the ids of those that are fixed; 0: none.
        thumbnails: keep a small JPEG of each of them in the run folder.
        gradients_every: steps between looks at each loss's share of the gradient; see `train_one_epoch`; 0: none.

    Returns:
        The last epoch's figures.

    Raises:
        CheckpointError: `resume` cannot be used, or the disk refuses the last epoch's checkpoint.
        OSError: the checkpoint folder cannot be made.
        TypeError: the model returned no scalar losses.
        ValueError: a setting out of range, or a loader that gave no batches.
    """
    if epochs < 1 or evaluate_every < 0 or checkpoint_every < 0:
        raise ValueError("epochs is at least 1; evaluate_every and checkpoint_every are at least 0")
    device = torch.device(device) if device is not None else next(model.parameters()).device
    precision = MixedPrecision(device, bool(amp), amp if isinstance(amp, torch.dtype) else None)
    generator = getattr(train_loader, "generator", None)
    bare, main = unwrap(model), is_main()
    states: dict[str, Any] = {
        "model": bare,
        "optimizer": optimizer,
        "scheduler": scheduler,
        "scaler": precision.scaler,
        "generator": generator,
    }
    result = FitResult()
    if resume is not None:
        content = dict(resume) if isinstance(resume, Mapping) else read_checkpoint(resume)
        for line in restore_checkpoint(content, **states):
            say("resumed after epoch %d: %s", content["epoch"], line)
        result.epoch, result.step = content["epoch"], content["step"]
    progress = Progress(result.step)
    folder = checkpoint_dir if checkpoint_dir is not None else (run.dir if run is not None and run.id else None)
    if folder is not None and main and checkpoint_every:
        checkpoint_path(folder, 0).parent.mkdir(parents=True, exist_ok=True)  # better refused now than after an epoch
    keeper = Keeper(checkpoint_path(folder or ".", 0).parent, keep, best)

    try:
        for epoch in range(result.epoch + 1, epochs + 1):
            _tell_sampler(train_loader, epoch)
            if before_epoch is not None:
                before_epoch(epoch)
            losses = train_one_epoch(
                model,
                optimizer,
                train_loader,
                device,
                epoch,
                run,
                scheduler=scheduler if scheduler_every == "step" else None,
                request_scheduler=scheduler,
                precision=precision,
                accumulate=accumulate,
                clip_norm=clip_norm,
                warmup=Warmup(warmup_steps),
                steps=steps_per_epoch,
                progress=progress,
                forward=forward,
                metrics_every=metrics_every,
                non_finite=non_finite,
                gradients_every=gradients_every,
            )
            if progress.stopped:
                result.stopped = True
                break
            result.losses, result.epoch, result.step = losses, epoch, progress.step
            fresh: dict[str, Any] = {}
            if val_loader is not None and main:
                if validation:
                    result.val_loss = validation_losses(bare, val_loader, device, precision=precision, forward=forward)
                if _is_due(epoch, evaluate_every, epochs):
                    scorer = evaluator() if evaluator is not None else evaluator_of(val_loader)
                    if scorer is not None:
                        result.metrics = fresh = evaluate(
                            bare,
                            val_loader,
                            device,
                            evaluator=scorer,
                            run=run,
                            epoch=epoch,
                            step=progress.step - 1,
                            precision=precision,
                            images=images,
                            thumbnails=thumbnails,
                        )
            if scheduler is not None and scheduler_every == "epoch":
                _step_by_epoch(scheduler, result.val_loss if result.val_loss is not None else losses)
            if run is not None:
                run.end_epoch(epoch, val_loss=result.val_loss, lr=progress.lr)
            if folder is not None and main and _is_due(epoch, checkpoint_every, epochs):
                path = checkpoint_path(folder, epoch)
                try:
                    result.checkpoint = save_checkpoint(path, epoch=epoch, step=progress.step, **states)
                except OSError as error:
                    if epoch == epochs:
                        raise CheckpointError(f"{path} cannot be written: {one_line(error)}") from error
                    _say_not_saved(run, path, epoch, error)
                else:
                    if run is not None:
                        run.log_checkpoint(_inside(run.dir, path), epoch=epoch, step=progress.step - 1)
                    keeper.saved(path, epoch, fresh, result.val_loss)
            if run is not None and run.should_stop and epoch < epochs:
                result.stopped = True
                break
    except StopTraining as reason:  # of a plugin that is called inline
        result.stopped = True
        if run is not None:
            run.request_stop(str(reason) or "StopTraining")
            progress.stopped = run.should_stop
    if progress.shares is not None:
        progress.shares.ends()
        if progress.reached is not None:
            progress.reached.measures.close()
    return result


def _say_not_saved(run: Run | None, path: Path, epoch: int, error: OSError) -> None:
    title = f"the checkpoint of epoch {epoch} was not written"
    text = f"{path}: {one_line(error)}. Training goes on; make room before the next one is due."
    warn("%s. %s", title, text)  # at once: an alert waits for the journal, which may be on the same disk
    if run is not None:
        run.alert(title, text, "error", key=f"checkpoint/{epoch}", source="losslog")


def _is_due(epoch: int, every: int, epochs: int) -> bool:
    return bool(every) and (epoch % every == 0 or epoch == epochs)


def _inside(folder: Path, path: Path) -> Path:
    """The path as records give it: relative to the run folder, which may be moved, where it lies in there."""
    path = path.resolve()
    return path.relative_to(folder) if path.is_relative_to(folder) else path


def _tell_sampler(loader: Any, epoch: int) -> None:
    set_epoch = getattr(getattr(loader, "sampler", None), "set_epoch", None)
    if callable(set_epoch):
        set_epoch(epoch)


def _step_by_epoch(scheduler: Any, losses: Means) -> None:
    """Steps a scheduler that goes by epochs; ReduceLROnPlateau takes the loss it watches."""
    if "metrics" in inspect.signature(scheduler.step).parameters:
        scheduler.step(from_main(total_of(losses)))  # every process must cut at the same epoch
    else:
        scheduler.step()
