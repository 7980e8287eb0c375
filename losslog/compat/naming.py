"""What values are called under frameworks, and which of them are losses; which versions adapters work with.

No thread. Contract:

- A value is a loss by its name, or since it has a gradient and no name of a metric.
- What a name says of the place where it was logged (``train/``, ``_step``) is no part of it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from importlib import metadata
from typing import Any, Final

from losslog.values.totals import TOTAL_NAMES, sounds_like_a_metric

TRAINING: Final = ("train/", "train_", "training/", "training_")  # what people put before a name
VALIDATION: Final = ("val/", "val_", "valid/", "valid_", "validation/", "validation_", "eval/", "eval_")


def require(framework: str, lowest: str, extra: str, *packages: str) -> None:
    """Check that a framework is there, and new enough.

    Args:
        framework: what people call it.
        lowest: the lowest version that the tests pass with.
        extra: losslog's extra that installs it.
        packages: its distributions; one of them is enough.

    Raises:
        ImportError: none is installed, or all are too old.
    """
    found: dict[str, str] = {}
    for each in packages or (framework,):
        try:
            found[each] = metadata.version(each)
        except metadata.PackageNotFoundError:
            continue
    if any(_numbers(version) >= _numbers(lowest) for version in found.values()):
        return
    there = ", ".join(f"{name} {version} is installed" for name, version in found.items()) or "it is not installed"
    raise ImportError(f"this adapter needs {framework} >= {lowest}: {there}. pip install 'losslog[{extra}]'")


def _numbers(version: str) -> list[int]:
    return [int("".join(filter(str.isdigit, part)) or 0) for part in version.partition("+")[0].split(".")[:3]]


@functools.lru_cache(maxsize=4096)
def plain_name(name: str, prefixes: tuple[str, ...] = TRAINING) -> str:
    """A value's name without what says only where it was logged: ``train/loss_cls`` and ``loss_cls_step``."""
    before = next((each for each in prefixes if name.startswith(each) and len(name) > len(each)), "")
    return name.removeprefix(before).removesuffix("_step")


def is_loss(name: str, value: Any = None) -> bool:
    """Whether a value is a loss: by its name, or since it has a gradient and is not called like a metric."""
    return "loss" in name.lower() or (getattr(value, "requires_grad", False) and not sounds_like_a_metric(name))


def is_number(value: Any) -> bool:
    """Whether a value is one number: Python's, numpy's or a tensor's."""
    if type(value) is float:
        return True
    if isinstance(value, (bool, str, bytes)):  # of classes: a union is three times as slow
        return False
    shape = getattr(value, "shape", None)
    if shape is None:
        return isinstance(value, int | float)
    one = not len(shape) or math.prod(shape) == 1
    return one and hasattr(value, "item") and not _is_bool(getattr(value, "dtype", None))


@functools.lru_cache(maxsize=64)
def _is_bool(dtype: Any) -> bool:
    return str(dtype).endswith("bool")


def apart(values: Mapping[str, Any], prefixes: tuple[str, ...] = VALIDATION) -> tuple[dict[str, Any], dict[str, Any]]:
    """The losses among an evaluation's values, and the metrics, under plain names; what is no number is left out.

    What is called like a total is that of the losses beside it.
    """
    named = {plain_name(str(name), prefixes): value for name, value in values.items() if is_number(value)}
    losses = {name: value for name, value in named.items() if is_loss(name)}
    if losses:
        losses |= {name: named[name] for name in TOTAL_NAMES if name in named}
    return losses, {name: value for name, value in named.items() if name not in losses}
