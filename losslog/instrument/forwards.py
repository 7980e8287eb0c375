"""What a model gave: the losses in it, read at once, and the means over several forward passes.

`read` runs on the training thread, `Computed.resolve` on the drain thread. Contract:

- A dict gives its 0-d floating entries (of ``{"loss": ..., "logits": ...}`` the loss), a 0-d tensor is a scalar loss.
  Tuples and lists are never looked into: a detector's parts return tuples with dicts in them.
- No tensor and no autograd graph is kept; whether a backward pass went through the losses is learnt from a hook on the
  graph's own node, so that pickling the tensors works as before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from losslog.values.snapshot import Keys, Staged, resolve, snapshot

if TYPE_CHECKING:
    from losslog.instrument.families import Family
    from losslog.instrument.passes import Pass

_selections: dict[tuple[Any, ...], tuple[str, ...]] = {}


class Reading(NamedTuple):
    """Losses as `losslog.values.snapshot` read them.

    Attributes:
        keys: component names, None for a scalar.
        values: in their order; with ``has_total`` the total comes last.
        has_total: whether the model gave a component called ``total``.
        node: of the autograd graph, or None where no gradient flows.
    """

    keys: Keys
    values: list[float] | Staged
    has_total: bool
    node: Any


class Forward:
    """One forward pass in training. Called by autograd, it notes that a backward pass has gone through it."""

    __slots__ = ("driver", "family", "reached", "reading")

    def __init__(self, family: Family, reading: Reading, driver: Pass | None) -> None:
        self.family, self.driver = family, driver
        self.reached = False
        if reading.node is not None:
            reading.node.register_prehook(self)
        self.reading = reading._replace(node=None)

    def __call__(self, _gradients: Any) -> None:
        """A backward pass has come here."""
        self.reached = True


def read(output: Any) -> Reading | None:
    """The losses in what a model returned; None where there are none."""
    if isinstance(output, torch.Tensor):
        if output.dim() or not output.is_floating_point():
            return None
        keys, values = snapshot(output)
        return Reading(keys, values, False, output.grad_fn)
    if not isinstance(output, Mapping) or not output:
        return None
    names = tuple(output)
    chosen = _selections.get(names)
    if chosen is None:
        chosen = _select(output)
        if len(_selections) < 1000:
            _selections[names] = chosen
    if not chosen:
        return None
    try:
        return _take(output, chosen)
    except (TypeError, ValueError):  # an entry has another shape than last time
        chosen = _selections[names] = _select(output)
        return _take(output, chosen) if chosen else None


def _select(output: Mapping[Any, Any]) -> tuple[str, ...]:
    return tuple(
        name
        for name, value in output.items()
        if isinstance(name, str) and isinstance(value, torch.Tensor) and not value.dim() and value.is_floating_point()
    )


def _take(output: Mapping[str, Any], chosen: tuple[str, ...]) -> Reading:
    losses: Any = output if type(output) is dict and len(chosen) == len(output) else {n: output[n] for n in chosen}
    node = None
    for value in losses.values():
        if value.requires_grad:
            node = value.grad_fn
            break
    if "total" not in losses:
        keys, values = snapshot(losses)
        return Reading(keys, values, False, node)
    total = losses["total"]
    rest = {name: value for name, value in losses.items() if name != "total"}
    keys, values = snapshot(rest, total) if rest else snapshot(total)
    return Reading(keys, values, bool(rest), node)


class Computed(Staged):
    """Values that are computed when they are asked for.

    Args:
        compute: gives them, after waiting for the device.
    """

    __slots__ = ("_compute",)

    def __init__(self, compute: Callable[[], list[float]]) -> None:
        super().__init__([], [])
        self._compute: Callable[[], list[float]] | None = compute

    def resolve(self) -> list[float]:
        """The values."""
        if self._compute is not None:
            self.values, self._compute = self._compute(), None
        return self.values


def merge(readings: Sequence[Reading]) -> Reading:
    """One reading for several: means, resolved later. Where dicts and scalars mix, the dicts count."""
    if len(readings) == 1:
        return readings[0]
    named = [each for each in readings if each.keys is not None]
    if not named:
        return Reading(None, Computed(lambda: _means(readings)), False, None)
    keys = tuple(dict.fromkeys(name for each in named for name in each.keys or ()))
    return Reading(keys, Computed(lambda: _means(named)), all(each.has_total for each in named), None)


def _means(readings: Sequence[Reading]) -> list[float]:
    found: dict[str, list[float]] = {}
    totals: list[float] = []
    for each in readings:
        numbers = resolve(each.values)
        for name, value in zip(each.keys or ("",), numbers, strict=False):
            found.setdefault(name, []).append(value)
        if each.has_total:
            totals.append(numbers[-1])
    means = [sum(values) / len(values) for values in found.values()]
    return [*means, sum(totals) / len(totals)] if len(totals) == len(readings) else means
