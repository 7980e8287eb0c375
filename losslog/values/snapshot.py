"""Reading loss values: cheap on the training thread, waited for elsewhere.

`snapshot` runs on the training thread, `resolve` on the drain thread. Contract:

- CPU values are read at once with ``.tolist()``: 0.19 us each, no graph kept, and unlike ``.item()`` it keeps the GIL,
  so a busy lane cannot make it wait 5 ms.
- Values on a CUDA device are stacked, copied to pinned memory without blocking, and marked by an event: the training
  thread never synchronises, and later in-place changes of the tensors do not reach the copy.
- torch is reached through ``sys.modules``; this module never imports it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

from losslog.errors import LosslogError
from losslog.values.losses import as_float, check_names

Keys = tuple[str, ...] | None  # None: the loop gave one scalar
EXACT: Final = 1e-5  # a weight this near to 1 is 1
_FLOATS: Final = {float}
_checked: set[tuple[str, ...]] = set()


class Staged:
    """Values of one step on their way from a device to the host.

    Args:
        values: floats where known, tensors elsewhere; resolved in place.
        copies: for each device, (positions in ``values``, host tensor, event or None).
    """

    __slots__ = ("copies", "values")

    def __init__(self, values: list[Any], copies: list[tuple[list[int], Any, Any]]) -> None:
        self.values = values
        self.copies = copies

    def resolve(self) -> list[float]:
        """The values, after waiting for the device."""
        for positions, host, event in self.copies:
            if event is not None:
                event.synchronize()
            for position, number in zip(positions, host.tolist(), strict=True):
                self.values[position] = float(number)
        self.copies = []
        return self.values


def snapshot(losses: Any, total: Any = None, name: str = "losses") -> tuple[Keys, list[float] | Staged]:
    """What the losses are now.

    Args:
        losses: a dict of scalars by component, or one scalar; numbers, numpy scalars or one-element tensors.
        total: the optimised total, or None.
        name: what error messages call them.

    Returns:
        The component names (None for a scalar), and the values in their order; the total, where given, comes last.

    Raises:
        TypeError, ValueError: a key or value is not what a loss may be; the message names it.
    """
    if type(losses) is dict:
        keys = tuple(losses)
        values: list[Any] = []
        try:
            for value in losses.values():  # a comprehension costs a call
                values.append(value.tolist() if value.is_cpu else value)
        except (AttributeError, RuntimeError):  # a number of another kind, or a tensor that has no value
            values = [*losses.values()]
        if total is None and keys in _checked and _FLOATS.issuperset(map(type, values)):
            return keys, values
    return _careful(losses, total, name)


def weigher(weights: Mapping[str, Any]) -> Callable[[], dict[str, float]]:
    """What gives those weights that are not 1, once somebody may wait for them.

    Raises:
        TypeError, ValueError: a weight is no number; the message names it.
    """
    names, values = snapshot(dict(weights), name="weights")
    return lambda: {
        name: each for name, each in zip(names or (), resolve(values), strict=False) if abs(each - 1.0) > EXACT
    }


def _careful(losses: Any, total: Any, what: str) -> tuple[Keys, list[float] | Staged]:
    if isinstance(losses, Mapping):
        names = check_names(losses, what)
        keys: Keys = names
        named = [(f"{what}[{key!r}]", value) for key, value in losses.items()]
    else:
        keys, named = None, [(what, losses)]
    if total is not None:
        named.append(("total", total))
    values: list[Any] = []
    waiting: dict[Any, list[int]] = {}
    for name, value in named:
        if _on_device(value, name):
            waiting.setdefault(value.device, []).append(len(values))
            values.append(value)
        else:
            values.append(as_float(value, name))
    if keys is not None and len(_checked) < 10_000:  # a loop that invents names must not grow us
        _checked.add(keys)
    if not waiting:
        return keys, values
    return keys, Staged(values, [_stage(device, positions, values) for device, positions in waiting.items()])


def _on_device(value: Any, name: str) -> bool:
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(value, torch.Tensor) or value.device.type == "cpu":
        return False
    if value.device.type == "meta":
        raise TypeError(f"{name} is a tensor on the meta device: it has no value")
    if value.numel() != 1 or value.dtype == torch.bool or value.is_complex():
        raise TypeError(
            f"{name} is a tensor of shape {tuple(value.shape)}, dtype {value.dtype}: pass one real number per key"
        )
    return True


def _stage(device: Any, positions: list[int], values: list[Any]) -> tuple[list[int], Any, Any]:
    torch: Any = sys.modules["torch"]
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        raise LosslogError(
            "log_batch was called while a CUDA graph is being captured: the values do not exist yet. "
            "Log the graph's static output tensors after graph.replay()"
        )
    with torch.no_grad():
        tensors = [values[position].detach().reshape(()) for position in positions]
        if len({tensor.dtype for tensor in tensors}) > 1:
            tensors = [tensor.to(torch.float64) for tensor in tensors]
        stacked = torch.stack(tensors)
        for position in positions:
            values[position] = None  # do not keep the graph alive
        if device.type != "cuda":  # no pinned memory, no events: keep the copy and read it on the drain thread
            return positions, stacked, None
        host = stacked.to("cpu", non_blocking=True)
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(device))
    return positions, host, event


def begin() -> None:
    """A new run begins: sets of names seen by another one are looked at again."""
    _checked.clear()


def resolve(values: list[float] | Staged) -> list[float]:
    """Plain floats; waits for the device where values are staged."""
    return values.resolve() if isinstance(values, Staged) else values


def learning_rate(lr: Any) -> dict[str, float] | float | None:
    """A learning rate as plain data: a float, or floats by group name.

    Raises:
        TypeError: a value is not a number.
    """
    if lr is None or type(lr) is float:
        return lr
    if isinstance(lr, Mapping):
        return {str(name): as_float(value, f"lr[{name!r}]") for name, value in lr.items()}
    if isinstance(lr, list | tuple):
        return {str(index): as_float(value, f"lr[{index}]") for index, value in enumerate(lr)}
    return as_float(lr, "lr")


class Later:
    """Numbers by name, some of which may still be on a device.

    Args:
        keys: the names.
        values: as `snapshot` gave them.
    """

    def __init__(self, keys: tuple[str, ...], values: list[float] | Staged) -> None:
        self._keys, self._values = keys, values

    def now(self) -> dict[str, float]:
        """The numbers; waits for the device where needed."""
        return dict(zip(self._keys, resolve(self._values), strict=True))
