"""What a loop may hand over as its losses, told at the door: a dict of scalars or one scalar.

No thread, no I/O. Contract:

- `as_float` accepts Python and numpy numbers and one-element tensors; all else is a TypeError naming key and type.
- `normalise` gives plain floats; it is what plugins' helpers use, so their hooks called directly take tensors too.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

Losses = dict[str, float] | float


def as_float(value: Any, name: str) -> float:
    """``value`` as a float.

    Args:
        value: a Python or numpy number or a tensor of one element (read with ``.item()``, which waits for a device).
        name: what the error message calls it, e.g. ``losses['loss_mask']``.

    Raises:
        TypeError: it is none of these; None, bools, strings and containers are refused.
        ValueError: it is a whole number too large for a float.
    """
    if type(value) is float:
        return value
    if isinstance(value, bool) or type(value).__name__ in ("bool_", "bool"):
        raise TypeError(f"{name} is a bool ({value!r}): pass a number")
    if isinstance(value, int | float):
        try:
            return float(value)
        except OverflowError as error:
            raise ValueError(f"{name} is too large for a float") from error
    if value is None or isinstance(value, str | bytes | Mapping | list | tuple | set):
        raise TypeError(f"{name} is {_describe(value)}: {_advice(value)}")
    shape = getattr(value, "shape", None)
    item = getattr(value, "item", None)
    if shape is None or item is None:
        try:
            return float(value)  # Decimal, Fraction: whatever calls itself a real number
        except (TypeError, ValueError) as error:
            raise TypeError(f"{name} is {_describe(value)}: pass a number or a 0-d tensor") from error
    if math.prod(shape) != 1:
        raise TypeError(f"{name} is {_describe(value)}: pass one number per key, e.g. its .mean()")
    if type(value).__module__.startswith("numpy.ma") and getattr(value, "mask", False):
        raise TypeError(f"{name} is masked: leave the key out, or pass a number")
    number = item()
    if isinstance(number, bool | complex):
        raise TypeError(f"{name} is {_describe(value)}: pass a real number")
    return float(number)


def _describe(value: Any) -> str:
    kind = type(value).__name__
    if value is None:
        return "None"
    if isinstance(value, Mapping):
        return f"a nested {kind}"
    shape = getattr(value, "shape", None)
    if shape is not None:
        return f"a {kind} of shape {tuple(shape)}, dtype {getattr(value, 'dtype', '?')}"
    return f"a {kind} ({value!r:.60})"


def _advice(value: Any) -> str:
    if value is None:
        return "leave the key out, or pass a number"
    if isinstance(value, Mapping):
        return 'flatten it, e.g. {"rpn_loss": ..., "mask_loss": ...}'
    return "pass a number or a 0-d tensor"


def check_names(losses: Collection[Any], name: str = "losses") -> tuple[str, ...]:
    """The component names of a dict of losses, or of its names, in their order.

    Raises:
        TypeError: a key is not a string.
        ValueError: the dict is empty, or a key is.
    """
    if not losses:
        raise ValueError(f"{name} is an empty dict: pass at least one component, or a scalar")
    for key in losses:
        if not isinstance(key, str):
            raise TypeError(f"{name}: keys must be strings, got {key!r} of type {type(key).__name__}")
        if not key.strip():
            raise ValueError(f"{name}: a component has an empty name ({key!r})")
    return tuple(losses)


def normalise(losses: Any, name: str = "losses") -> Losses:
    """Plain floats: a dict stays a dict, a scalar becomes a float.

    Raises:
        TypeError, ValueError: as `as_float` and `check_names` say.
    """
    if type(losses) is dict and set(map(type, losses.values())) == {float} and set(map(type, losses)) == {str}:
        return losses  # a record's losses are plain already
    if isinstance(losses, Mapping):
        check_names(losses, name)
        return {key: as_float(value, f"{name}[{key!r}]") for key, value in losses.items()}
    return as_float(losses, name)
