"""Validation: the model's own losses, and its evaluation, on held-out data. Runs on the training thread.

Contract:

- Both leave weights, buffers (batch-norm statistics), every submodule's train/eval flag and the random state (python,
  numpy, torch, CUDA, the loader's generator) exactly as found: training goes on as if they had not run.
- No autograd graph is made; one read from the device at the end of `validation_losses`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn

from losslog.engine.batches import Forward, LossMeans, Means, as_losses, call_model, to_device
from losslog.engine.optimization import MixedPrecision
from losslog.instrument.rng import preserved_rng
from losslog.runtime.containment import attempt, one_line
from losslog.runtime.notices import warn

if TYPE_CHECKING:
    from losslog import Run

# Modules whose train mode changes what they compute or what they remember, and which no loss needs in train mode.
_FIXED = (
    nn.modules.batchnorm._NormBase,
    nn.modules.dropout._DropoutNd,
)


class Evaluator(Protocol):
    """Scores a model's outputs: `losslog.detection.CocoEvaluator`, or one of your own."""

    def update(self, targets: Any, outputs: Any) -> None:
        """Adds a batch."""

    def compute(self) -> dict[str, Any]:
        """Returns the metrics, nested or flat."""


def validation_losses(
    model: nn.Module,
    loader: Iterable[Any],
    device: torch.device | str,
    *,
    precision: MixedPrecision | None = None,
    forward: Forward = call_model,
    seed: int = 0,
) -> Means:
    """Computes the model's own losses on validation data.

    torchvision's detectors give losses in train mode only. So the model is put into train mode, except normalisation
    and dropout, which stay in eval mode: the losses are those of the model that evaluation sees. Anchors and proposals
    are sampled from `seed`, so that the same weights give the same losses in every epoch.

    Args:
        model: returns a dict of scalar losses, or one scalar loss, in train mode.
        loader: gives batches with targets.
        device: the model's device.
        precision: mixed precision; None: off.
        forward: computes the losses from ``(model, batch)``.
        seed: torch's seed during the computation.

    Returns:
        The mean over batches of each component, or of the scalar loss.

    Raises:
        TypeError: the model returned no scalar losses.
        ValueError: the loader gave no batches.
    """
    device = torch.device(device)
    precision = precision or MixedPrecision(device)
    means = LossMeans()
    with untouched(model), preserved_rng(seed, getattr(loader, "generator", None)), torch.no_grad():
        model.train()
        for module in model.modules():
            if isinstance(module, _FIXED):
                module.eval()
        for batch in loader:
            with precision.autocast():
                means.add(as_losses(forward(model, to_device(batch, device))))
    return means.means()


@torch.no_grad()
def evaluate(
    model: nn.Module,
    loader: Any,
    device: torch.device | str,
    *,
    evaluator: Evaluator | None = None,
    run: Run | None = None,
    epoch: int | None = None,
    step: int | None = None,
    split: str = "val",
    precision: MixedPrecision | None = None,
    images: int | Sequence[Any] = 8,
    thumbnails: bool = False,
) -> dict[str, Any]:
    """Evaluates a model in eval mode.

    With an evaluator that can look at images (`losslog.detection.CocoEvaluator` can), the run also gets a table of
    mistakes with the AP that each kind costs, and two records of images: ``fixed``, the same in every epoch and run,
    and ``hardest``, those with most mistakes.

    Args:
        model: called with the inputs alone.
        loader: gives batches ``(inputs, targets)``.
        device: the model's device.
        evaluator: scores the outputs; None: what the loader's data set offers (`losslog.detection.CocoDataset` does).
        run: the metrics are logged there with ``run.log_eval``; None: they are only returned.
        epoch: counted from 1; None: the run's open epoch.
        step: global step; None: the run's last one.
        split: the name of the data.
        precision: mixed precision; None: off.
        images: how many images of each kind, or the ids of those that are fixed; 0: no images.
        thumbnails: keep a small JPEG of each of them in the run folder; see `losslog.Run.log_images`.

    Returns:
        For COCO data ``{"bbox": {"AP": ..., "AP50": ..., "classes": {name: AP}}, "segm": {...}}``.

    Raises:
        TypeError: no evaluator was given and the data set offers none.
    """
    device = torch.device(device)
    precision = precision or MixedPrecision(device)
    evaluator = evaluator or evaluator_of(loader)
    if evaluator is None:
        name = type(getattr(loader, "dataset", loader)).__name__
        raise TypeError(
            f"{name} offers no evaluator: pass evaluator=, for example losslog.detection.CocoEvaluator(...)"
        )
    with untouched(model), preserved_rng(generator=getattr(loader, "generator", None)):
        model.eval()
        for inputs, targets in loader:
            with precision.autocast():
                outputs = model(to_device(inputs, device))
            evaluator.update(targets, outputs)
    metrics = evaluator.compute()
    if run is not None and metrics:  # none where there was nothing to find, which the data set has said
        run.log_eval(metrics, epoch=epoch, step=step, split=split)
        _, error = attempt(_log_images, run, evaluator, epoch, step, split, images, thumbnails)
        if error is not None:  # a lack of images is no reason to end a training
            warn("evaluate: no images and no table of mistakes (%s)", one_line(error))
    return metrics


def _log_images(
    run: Run, evaluator: Any, epoch: int | None, step: int | None, split: str, images: int | Sequence[Any],
    thumbnails: bool,
) -> None:  # fmt: skip
    look = getattr(evaluator, "looked_at", None)
    if look is None or not run.logging_rank:
        return
    seen = look()
    epoch = run.open_epoch if epoch is None else epoch
    if mistakes := seen.metrics(split):
        run.log_metrics(mistakes, epoch=epoch)
    shown = {"fixed": seen.fixed(images), "hardest": seen.hardest(images if isinstance(images, int) else 8)}
    for name, chosen in shown.items() if images else ():
        if chosen:
            run.log_images(split, chosen, name=name, folder=getattr(evaluator, "folder", None), epoch=epoch, step=step,
                           thumbnails=thumbnails)  # fmt: skip


def evaluator_of(loader: Any) -> Evaluator | None:
    """Returns a fresh evaluator from the loader's data set (also inside `torch.utils.data.Subset`), or None."""
    dataset = getattr(loader, "dataset", None)
    while dataset is not None:
        if hasattr(dataset, "evaluator"):
            evaluator: Evaluator = dataset.evaluator()
            return evaluator
        dataset = getattr(dataset, "dataset", None)
    return None


@contextlib.contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Runs a block that leaves the train/eval flags and the buffers of all submodules as it found them.

    The same tensor objects stay in place, since CUDA graphs and DistributedDataParallel hold on to them.
    """
    flags = [(module, module.training) for module in model.modules()]
    buffers = [
        (module, name, buffer, buffer.detach().clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for module, name, buffer, value in buffers:
                buffer.copy_(value)
                module._buffers[name] = buffer
        for module, training in flags:
            module.training = training
