"""One optimizer step: mixed precision, accumulation, clipping, warm-up. Runs on the training thread.

Contract:

- On CUDA nothing here reads a value back; a `GradScaler` reads its one flag inside its own ``step``.
- Warm-up multiplies the rates while a step is taken and puts them back, so that every scheduler goes with it unchanged,
  and a resumed run continues it from the step number alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Final

import torch
from torch import Tensor, nn

from losslog.control import group_name
from losslog.engine.batches import Forward, Losses, as_losses, mean_losses, targets_of, to_device, total_of
from losslog.instrument.tracing import Tracer
from losslog.values.totals import total_name

LearningRates = dict[str, float] | float


class MixedPrecision:
    """Autocast for the forward pass, and loss scaling where float16 needs it.

    Args:
        device: where the model runs.
        enabled: False makes this a no-op.
        dtype: None: float16 on CUDA (with a `GradScaler`), bfloat16 elsewhere (needs no scaling).
    """

    def __init__(self, device: torch.device, enabled: bool = False, dtype: torch.dtype | None = None) -> None:
        self._device = device
        self.enabled = enabled
        self.dtype = dtype or (torch.float16 if device.type == "cuda" else torch.bfloat16)
        scaling = enabled and self.dtype == torch.float16
        self.scaler = torch.amp.GradScaler(device.type) if scaling else None

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Returns the context for a forward pass."""
        if not self.enabled:
            return contextlib.nullcontext()
        return torch.autocast(self._device.type, dtype=self.dtype)


class Warmup:
    """Linear warm-up: the scheduled rates times a factor that grows from `start` to 1 over the first `steps` steps.

    torchvision's detection reference does the same in its first epoch (start 1/1000, up to 1000 steps).
    """

    def __init__(self, steps: int, start: float = 1e-3) -> None:
        self.steps = steps
        self.start = start

    def factor(self, step: int) -> float:
        """Returns the factor at a global step, counted from 0."""
        return 1.0 if step >= self.steps else self.start + (1 - self.start) * step / self.steps

    @contextlib.contextmanager
    def applied(self, optimizer: torch.optim.Optimizer, step: int) -> Iterator[None]:
        """Scales the optimizer's rates inside the block."""
        factor = self.factor(step)
        if factor == 1.0:
            yield
            return
        kept = [group["lr"] for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            group["lr"] = group["lr"] * factor
        try:
            yield
        finally:
            for group, lr in zip(optimizer.param_groups, kept, strict=True):
                group["lr"] = lr


def learning_rates(optimizer: torch.optim.Optimizer) -> LearningRates:
    """Returns the rate of the one parameter group, or a dict by group name (the index where a group has none)."""
    groups = optimizer.param_groups
    if len(groups) == 1:
        return float(groups[0]["lr"])
    return {group_name(index, group): float(group["lr"]) for index, group in enumerate(groups)}


WHOLE: Final = ""


def _hear(losses: Losses, heard: dict[str, Tensor]) -> None:
    """Have the gradients of components and total kept, where the model gives a total of its own."""
    whole = None if isinstance(losses, Tensor) else total_name(losses)
    if isinstance(losses, Tensor) or whole is None:
        return
    for name, value in losses.items():
        if value.grad_fn is not None:
            key, place = WHOLE if name == whole else name, value.output_nr

            def keep(gradients: Any, key: str = key, place: int = place) -> None:
                if gradients[place] is not None:
                    heard[key] = gradients[place].detach()

            value.grad_fn.register_prehook(keep)


class Stepper:
    """Takes optimizer steps.

    Args:
        model: in train mode.
        optimizer: over the model's parameters.
        device: batches are moved there.
        forward: returns the losses for ``(model, batch)``.
        precision: mixed precision.
        clip_norm: gradients are scaled down to this total norm; None: not clipped.
        skip_non_finite: take no step where the gradient norm is not finite. After DDP's all-reduce it is the same on
            every process, so all skip alike; looking at it waits for the device once a step.
        tracer: told of each batch, to find where losses that are not finite come from.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        device: torch.device,
        forward: Forward,
        precision: MixedPrecision,
        clip_norm: float | None,
        skip_non_finite: bool = False,
        tracer: Tracer | None = None,
    ) -> None:
        self._tracer = tracer
        self._skip_non_finite = skip_non_finite
        self._model = model
        self._optimizer = optimizer
        self._device = device
        self._forward = forward
        self._precision = precision
        self._clip_norm = clip_norm
        self._parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self.moved = False
        self.weights: dict[str, Tensor] = {}
        self._hook = optimizer.register_step_post_hook(self._note_step)

    def _note_step(self, *_: Any) -> None:
        self.moved = True

    def close(self) -> None:
        """Takes the hook off the optimizer."""
        self._hook.remove()

    def step(
        self, batches: list[Any], *, want_norm: bool = False, look: Callable[[Losses, Tensor], None] | None = None
    ) -> tuple[Losses, Tensor | None]:
        """Runs the forwards and backwards of one optimizer step, and takes it.

        Args:
            batches: one, or several whose gradients are averaged.
            want_norm: whether to compute the gradient norm even where nothing is clipped.
            look: given the first batch's losses and what backward is called on, before that, while the graph is there.

        Returns:
            The mean losses over the batches, and the total gradient norm before clipping (a 0-d tensor), if known.
            `moved` tells whether the optimizer moved: a `GradScaler` skips steps with infinite gradients. `weights` has
            how often each component counts in the total, where that is an entry of its own.
        """
        scaler = self._precision.scaler
        self._optimizer.zero_grad(set_to_none=True)
        parts: list[Losses] = []
        heard: dict[str, Tensor] = {}
        self.weights = {}
        for batch in batches:
            batch = to_device(batch, self._device)
            if self._tracer is not None:
                self._tracer.before()
            with self._precision.autocast():
                losses = as_losses(self._forward(self._model, batch))
            if self._tracer is not None:
                self._tracer.after(losses, batch, targets_of(batch))
            total = total_of(losses) / len(batches) if len(batches) > 1 else total_of(losses)
            root = scaler.scale(total) if scaler else total
            if look is not None:
                look(losses, root)
                look = None
            _hear(losses, heard)
            root.backward()  # type: ignore[no-untyped-call]
            parts.append(losses)
        if heard:
            self.weights = {name: each / heard[WHOLE] for name, each in heard.items() if name != WHOLE}
        norm = self._gradient_norm(want_norm or self._skip_non_finite)
        self.moved = False
        if self._skip_non_finite and norm is not None and not torch.isfinite(norm).item():
            self._optimizer.zero_grad(set_to_none=True)
            if scaler:
                scaler.update()
        elif scaler:
            scaler.step(self._optimizer)
            scaler.update()
        else:
            self._optimizer.step()
        return mean_losses(parts), norm

    def _gradient_norm(self, want_norm: bool) -> Tensor | None:
        if self._clip_norm is None and not want_norm:
            return None
        if self._precision.scaler:
            self._precision.scaler.unscale_(self._optimizer)
        if self._clip_norm is not None:
            return nn.utils.clip_grad_norm_(self._parameters, self._clip_norm)
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        return nn.utils.get_total_norm(gradients) if gradients else None
