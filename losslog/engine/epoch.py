"""Training for one epoch. Runs on the training thread.

    for batches of one optimizer step:     forward, backward, clip, step, scheduler
        run.log_batch(losses, lr)          a snapshot: no wait, no I/O
        run.apply_requests, should_stop    a learning rate cut or a stop that a plugin asked for

Contract:

- Works without a run too, and for any model that `losslog.engine.batches` describes.
- Never reads a value back from a CUDA device before the epoch's end.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from losslog.engine.batches import Forward, LossMeans, Means, apart, call_model, count_images, targets_of
from losslog.engine.distributed import is_main
from losslog.engine.labels import Labels
from losslog.engine.looks import looking, tracer_of
from losslog.engine.optimization import LearningRates, MixedPrecision, Stepper, Warmup, learning_rates
from losslog.instrument import shares
from losslog.instrument.reached import Reached
from losslog.instrument.shares import Shares
from losslog.instrument.skips import Skips
from losslog.instrument.tracing import Tracer
from losslog.runtime.containment import attempt

if TYPE_CHECKING:
    from losslog import Run


@dataclass
class Progress:
    """Where a run is.

    Attributes:
        step: the next global optimizer step, counted from 0.
        stopped: whether a plugin's request to stop ended the epoch early.
        lr: the learning rate, or rates by group, that the last step was taken with.
        reached: what the losses were found to train.
        shares: what each of them has of the gradient at the trunk.
        tracer: finds where losses that are not finite come from.
        skips: says so where a GradScaler skips most steps.
    """

    step: int = 0
    stopped: bool = False
    lr: LearningRates | None = None
    reached: Reached | None = None
    shares: Shares | None = None
    tracer: Tracer | None = None
    skips: Skips = field(default_factory=Skips)


def train_one_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loader: Iterable[Any],
    device: torch.device | str,
    epoch: int,
    run: Run | None = None,
    *,
    scheduler: Any = None,
    precision: MixedPrecision | None = None,
    accumulate: int = 1,
    clip_norm: float | None = None,
    warmup: Warmup | None = None,
    steps: int | None = None,
    progress: Progress | None = None,
    forward: Forward = call_model,
    metrics_every: int = 10,
    request_scheduler: Any = None,
    non_finite: Literal["warn", "stop", "skip", "trace"] = "warn",
    gradients_every: int = 0,
) -> Means:
    """Trains for one epoch and reports every optimizer step to the run.

    The epoch is left open: evaluate next, then call ``run.end_epoch(epoch)``; `losslog.engine.fit` does both.

    Args:
        model: returns a dict of scalar losses, or one scalar loss, in train mode.
        optimizer: over the model's parameters; named groups are logged by name.
        loader: gives batches; see `losslog.engine.batches`.
        device: the model's device; batches are moved there.
        epoch: counted from 1.
        run: records go there; None: nothing is logged.
        scheduler: stepped after each optimizer step. One that goes by epochs is the caller's to step.
        precision: mixed precision; None: off.
        accumulate: batches per optimizer step; their gradients and logged losses are averaged.
        clip_norm: the largest total gradient norm; None: not clipped.
        warmup: linear warm-up of the learning rate over the first global steps.
        steps: exactly this many optimizer steps, from as many passes over the loader as that takes; None: one pass.
        progress: the global step, carried from epoch to epoch; None: the run counts, warm-up counts from 0.
        forward: computes the losses from ``(model, batch)``.
        metrics_every: steps between reports of throughput, memory and gradient norm; 0: none.
        request_scheduler: the scheduler whose rates a plugin's learning-rate request scales, where `scheduler` is None
            because it goes by epochs.
        non_finite: what a NaN or infinite loss does besides its alert: nothing (warn); a stop at the same step on every
            rank; skip, which takes no optimizer step where the gradient norm is not finite; or trace, which computes
            the batch once more, at most three times in a run, to name the first module whose output was not finite.
            The last two wait for the device at each step to know.
        gradients_every: steps between measurements of the share that each loss has of the gradient at the shared trunk
            (``grad_share/<component>``), which cost 0.5 to 1.2 of a backward pass each; 0: none.

    Returns:
        The epoch means: of each component, or of the loss where the model returns a scalar. With a run they are the
        run's (of all ranks together); an empty dict if the run cannot tell (its disk hangs).

    Raises:
        TypeError: the model returned no scalar losses.
        ValueError: the loader gave no batches.
    """
    device = torch.device(device)
    precision = precision or MixedPrecision(device)
    position = progress or Progress()
    position.stopped = False
    means = LossMeans()
    meter = _Meter(device, metrics_every)
    model.train()
    tracer = position.tracer = (
        position.tracer or tracer_of(model, forward, precision) if non_finite == "trace" else None
    )
    stepper = Stepper(model, optimizer, device, forward, precision, clip_norm, non_finite == "skip", tracer)
    if run is not None and non_finite == "stop":
        run.non_finite = "stop"
    warmup = warmup or Warmup(0)
    if run is not None and is_main() and position.reached is None:
        position.reached, position.shares = Reached(lambda: [model], lambda: [optimizer]), Shares(gradients_every)
    reached = position.reached
    if reached is not None:
        reached.planned(steps or -(-(length_of(loader) or 0) // accumulate))
    labels = Labels(run, loader) if run is not None and is_main() and position.step == run.next_step == 0 else None
    try:
        for batches in step_batches(loader, accumulate, steps):
            if labels is not None and not labels.done:
                labels.take(batches)
            with warmup.applied(optimizer, position.step):
                position.lr = learning_rates(optimizer)
                look = None
                if reached is not None and run is not None:
                    at = position.step if progress is not None else run.next_step
                    look = looking(model, reached, position.shares, epoch, at)
                losses, norm = stepper.step(batches, want_norm=run is not None and meter.is_due(), look=look)
                if precision.scaler is not None:
                    position.skips.asked(precision.scaler, optimizer, run, lambda: [model], skipped=not stepper.moved)
                if reached is not None:
                    reached.measures.computed(batches)
                    if stepper.moved:
                        reached.measures.moved(optimizer)
            if scheduler is not None and stepper.moved:
                scheduler.step()
            if run is None:
                means.add(losses, len(batches))
            step = position.step if progress is not None else None
            position.step += 1
            if tracer is not None and run is None:
                tracer.tell(None)
            if run is not None:
                components, total = apart(losses)
                run.log_batch(
                    components,
                    total=total,
                    lr=position.lr,
                    epoch=epoch,
                    step=step,
                    targets=[target for batch in batches for target in targets_of(batch)],
                    n=len(batches),
                    weights=stepper.weights if total is not None and _has_all(stepper.weights, components) else None,
                )
                if tracer is not None:
                    tracer.tell(run)
                if reached is not None:
                    reached.tell(run, step)
                    if position.shares is not None:
                        shares.log(run, position.shares.take(), run.next_step - 1)
                if report := meter.count(batches, norm):
                    run.log_metrics(report, step=step)
                run.apply_requests(optimizer, scheduler if scheduler is not None else request_scheduler)
                if run.should_stop:
                    position.stopped = True
                    break
    finally:
        stepper.close()
        if labels is not None:
            labels.finish()
    if run is not None and (report := meter.rest()):
        run.log_metrics(report, step=position.step - 1 if progress is not None else None)
    if run is None:
        return means.means()
    logged = run.epoch_means()
    return logged if logged is not None else {}


def length_of(loader: Any) -> int | None:
    """How many batches a loader says it has."""
    length: int | None = attempt(len, loader)[0]
    return length


def _has_all(weights: Mapping[str, Any], losses: Any) -> bool:
    """Whether there is a weight for each loss: what has no gradient may be a metric beside them."""
    return bool(weights) and isinstance(losses, Mapping) and weights.keys() == losses.keys()


def step_batches(loader: Iterable[Any], accumulate: int, steps: int | None) -> Iterator[list[Any]]:
    """Groups a loader's batches by optimizer step; what is left at the end of the last pass is a smaller group.

    Args:
        loader: gives batches; iterated again when `steps` needs more.
        accumulate: batches per group, at least 1.
        steps: number of groups; None: one pass.

    Raises:
        ValueError: `accumulate` or `steps` below 1, or a loader that gives nothing.
    """
    if accumulate < 1 or (steps is not None and steps < 1):
        raise ValueError(f"accumulate and steps are at least 1, not {accumulate} and {steps}")
    batches = iter(loader) if steps is None else _passes(loader)
    groups = iter(lambda: list(itertools.islice(batches, accumulate)), [])
    return itertools.islice(groups, steps)


def _passes(loader: Iterable[Any]) -> Iterator[Any]:
    while True:
        empty = True
        for batch in loader:
            empty = False
            yield batch
        if empty:
            raise ValueError("the loader gave no batches")


class _Meter:
    """Throughput, peak memory and gradient norm over windows of steps, from host-side clocks and counters."""

    def __init__(self, device: torch.device, every: int) -> None:
        self._device = device
        self._every = every
        self._steps = self._images = 0
        self._since = time.perf_counter()
        self._norm: Tensor | None = None
        if device.type == "cuda" and every:
            torch.cuda.reset_peak_memory_stats(device)

    def is_due(self) -> bool:
        """Whether the coming step ends a window."""
        return bool(self._every) and (self._steps + 1) % self._every == 0

    def count(self, batches: list[Any], norm: Tensor | None) -> dict[str, Any]:
        """Counts a step; returns the window's figures when it is full."""
        if not self._every:
            return {}
        self._steps += 1
        self._images += sum(count_images(batch) for batch in batches)
        self._norm = norm if norm is not None else self._norm
        return self.rest() if self._steps >= self._every else {}

    def rest(self) -> dict[str, Any]:
        """Returns the figures of the window so far and opens the next one; nothing for an empty window."""
        if not self._steps:
            return {}
        now = time.perf_counter()
        report: dict[str, Any] = {"perf/images_per_s": self._images / max(now - self._since, 1e-9)}
        if (memory := peak_memory(self._device)) is not None:
            report["perf/peak_memory_mb"] = memory
        if self._norm is not None:
            report["grad_norm"] = self._norm
        self._steps = self._images = 0
        self._since, self._norm = now, None
        return report


def peak_memory(device: torch.device) -> float | None:
    """Returns the peak memory in MiB: of the CUDA device in this epoch, else of the process; None where unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)  # bytes on macOS, KiB elsewhere
