"""What a loader gives and a model returns: batches to a device, calls, losses. Plain functions on the training thread.

Contract:

- A batch is ``(inputs, targets)`` (any tuple or list: positional arguments) or a dict (keyword arguments).
- In train mode a model returns one scalar loss or a dict of scalar losses; a `Forward` of the user's own adapts others.
- What is optimised is one rule, `losslog.values.totals`, here and in what is logged.
- Nothing here waits for a CUDA device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from losslog.values.totals import total_name

Losses = dict[str, Tensor] | Tensor
Means = dict[str, float] | float
Forward = Callable[[nn.Module, Any], Any]


def to_device(value: Any, device: torch.device) -> Any:
    """Moves the tensors in nested lists, tuples and dicts; everything else stays as it is."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, Mapping):
        return {key: to_device(item, device) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):  # a named tuple takes its fields one by one
        return type(value)(*(to_device(item, device) for item in value))
    if isinstance(value, list | tuple):
        return type(value)(to_device(item, device) for item in value)
    return value


def call_model(model: nn.Module, batch: Any) -> Any:
    """Calls the model with a batch: the default `Forward`."""
    if isinstance(batch, Mapping):
        return model(**batch)
    if isinstance(batch, list | tuple):
        return model(*batch)
    return model(batch)


def as_losses(output: Any) -> Losses:
    """Takes the losses out of what a model returned.

    Args:
        output: a 0-d tensor, or a mapping; entries that are no 0-d floating-point tensors (logits) are passed over.

    Returns:
        The scalar, or a dict of scalars.

    Raises:
        TypeError: there is no scalar loss in it.
    """
    if isinstance(output, Tensor) and output.ndim == 0:
        return output
    if isinstance(output, Mapping):
        losses = {
            str(key): value
            for key, value in output.items()
            if isinstance(value, Tensor) and value.ndim == 0 and value.is_floating_point()
        }
        if losses:
            return losses
    described = (
        f"a tensor of shape {tuple(output.shape)}" if isinstance(output, Tensor) else f"a {type(output).__name__}"
    )
    raise TypeError(
        f"in train mode the model must return a dict of scalar losses or one scalar loss, not {described}; "
        "adapt it with forward=, a function of (model, batch)"
    )


def total_of(losses: Losses) -> Tensor:
    """Returns what is optimised: the scalar, the entry that is the total by its name, else the sum of the entries."""
    if isinstance(losses, Tensor):
        return losses
    name = total_name(losses)
    return losses[name] if name is not None else torch.stack(list(losses.values())).sum()


def apart(losses: Losses) -> tuple[Losses, Tensor | None]:
    """Returns the components, and what was optimised where that is an entry of its own: what `Run.log_batch` takes."""
    name = None if isinstance(losses, Tensor) else total_name(losses)
    if isinstance(losses, Tensor) or name is None:
        return losses, None
    return {key: value for key, value in losses.items() if key != name}, losses[name]


def count_images(batch: Any) -> int:
    """Returns how many images (samples) a batch holds: the length of its first part."""
    first = batch
    if isinstance(batch, Mapping):
        first = next(iter(batch.values()), ())
    elif isinstance(batch, list | tuple) and batch:
        first = batch[0]
    return len(first) if hasattr(first, "__len__") else 1


def targets_of(batch: Any) -> list[Any]:
    """Returns a detection batch's target dicts, for the core's report on a loss that is not finite; else nothing."""
    if isinstance(batch, list | tuple) and len(batch) == 2 and isinstance(batch[1], list | tuple):
        return list(batch[1])
    return []


class LossMeans:
    """Means of the losses over forwards, each component over those that had it; summed on their device in float64."""

    def __init__(self) -> None:
        # One sum and one count for each set of names: a single addition a step, whatever the number of components.
        self._sums: dict[tuple[str, ...] | None, Tensor] = {}
        self._counts: dict[tuple[str, ...] | None, int] = {}

    def add(self, losses: Losses, n: int = 1) -> None:
        """Adds the losses of one step, the means of its `n` forwards."""
        if isinstance(losses, Tensor):
            names, values = None, losses.detach().reshape(1)
        else:
            names, values = tuple(losses), torch.stack([value.detach() for value in losses.values()])
        values = values.float() if values.device.type == "mps" else values.double()  # no float64 on MPS
        values = values * n
        self._sums[names] = self._sums[names] + values if names in self._sums else values
        self._counts[names] = self._counts.get(names, 0) + n

    def means(self) -> Means:
        """Returns the dict of means, or a float where all losses were scalars; waits for the device.

        Raises:
            ValueError: nothing was added.
        """
        if not self._sums:
            raise ValueError("the loader gave no batches")
        if set(self._sums) == {None}:
            return float(self._sums[None].tolist()[0] / self._counts[None])
        sums: dict[str, float] = {}
        counts: dict[str, int] = {}
        for names, values in self._sums.items():
            for name, value in zip(names or (), values.tolist(), strict=False):
                sums[name] = sums.get(name, 0.0) + value
                counts[name] = counts.get(name, 0) + self._counts[names]
        return {name: value / counts[name] for name, value in sums.items()}


def mean_losses(parts: list[Losses]) -> Losses:
    """Returns the mean over the forwards of one optimizer step, each component over the forwards that had it."""
    if len(parts) == 1:
        return parts[0]
    scalars = [part.detach() for part in parts if isinstance(part, Tensor)]
    if scalars:
        return torch.stack(scalars).mean()
    gathered: dict[str, list[Tensor]] = {}
    for part in parts:
        assert isinstance(part, dict)
        for name, value in part.items():
            gathered.setdefault(name, []).append(value.detach())
    return {name: torch.stack(values).mean() for name, values in gathered.items()}
