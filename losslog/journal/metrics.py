"""Metrics as readers take them: numbers in dicts of a few levels, whatever library they come from. Training thread.

No thread, no I/O. Contract:

- Every reader gets the same names: what is nested deeper than kind, metric and class is joined here, once.
- An AP or AR of -1 means that there was nothing to find (pycocotools, torchmetrics) and is left out.
- torchmetrics' mean average precision gives a tensor per class beside ``classes``: each becomes a metric of its class.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from losslog.journal.records import MAX_DEPTH, plain

SHARES: Final = "grad_share/"
DEPTH: Final = 3  # kind, metric, class; deeper names are joined to the last
_PRECISION: Final = re.compile(r"(?:.*[_/])?(?:m?AP|m?AR|map|mar)(?:[sml]|[\d@_.:/].*)?")
_TABLES: Final = frozenset({"ious", "precision", "recall", "scores"})  # of torchmetrics' extended summary: no numbers


def numbers(value: Any, path: str) -> dict[str, Any]:
    """Plain data with nothing but numbers in dicts, `DEPTH` deep: names further down are joined by ``/``.

    Args:
        value: what the user passed.
        path: its name in error messages.

    Raises:
        TypeError: something in it is not a number; the message names its path.
        ValueError: two names become one, or a whole number is too large for a float.
    """
    found = plain(_known(value, path, 0), path)
    _check_numbers(found, path)
    return _shallow(found, path, DEPTH)


def _shallow(value: dict[str, Any], path: str, depth: int) -> dict[str, Any]:
    if depth > 1:
        return {key: _shallow(item, f"{path}[{key!r}]", depth - 1) if type(item) is dict else item
                for key, item in value.items()}  # fmt: skip
    flat: dict[str, Any] = {}
    for key, item in value.items():
        inner = _shallow(item, path, 1) if type(item) is dict else None
        for name, number in ((key, item),) if inner is None else ((f"{key}/{each}", n) for each, n in inner.items()):
            if name in flat:
                raise ValueError(f"{path}: two entries are called {name!r}")
            flat[name] = number
    return flat


def _check_numbers(value: Any, path: str) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _check_numbers(item, f"{path}[{key!r}]")
    elif isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{path} is {value!r:.60}: pass a number, or leave it out")


def _known(value: Any, path: str, depth: int) -> Any:
    """``value`` without what evaluators mean as "nothing there", and with their tensors per class by name."""
    if not isinstance(value, Mapping):
        return value
    if depth > MAX_DEPTH:
        raise TypeError(f"{path}: nested more than {MAX_DEPTH} deep, or it contains itself")
    names = [name for name in value if isinstance(name, str)]
    classes = (
        _listed(value["classes"]) if "classes" in names and any(each.endswith("map_50") for each in names) else None
    )
    found: dict[Any, Any] = {}
    for name, item in value.items():
        if classes is not None and (name == "classes" or str(name).rpartition("_")[2] in _TABLES):
            continue
        each = _listed(item) if isinstance(name, str) and name.endswith("_per_class") else None
        if classes is not None and each is not None and len(each) == len(classes):
            found |= {f"{name}/{label}": number for label, number in zip(classes, each, strict=True) if number != -1}
        elif not (isinstance(name, str) and _PRECISION.fullmatch(name) and _listed(item) == [-1]):
            found[name] = _known(item, path, depth + 1)
    return found


def _listed(value: Any) -> list[Any] | None:
    """A number, or an array or tensor of one dimension, as a list; None for anything else."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return [value]
    tolist = getattr(value, "tolist", None)
    if tolist is None or len(getattr(value, "shape", (0, 0))) > 1:
        return None
    found = tolist()
    return found if isinstance(found, list) else [found]


def trained(known: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    """What is known of what each loss trains, and has of the gradient, with what a record of metrics adds to it.

    Args:
        known: Before.
        data: The record's.
    """
    detail, metrics = data.get("detail"), data.get("metrics")
    if isinstance(detail, dict) and "reach" in detail:
        kept = {key: known[key] for key in ("shares", "shared_at") if key in known}
        told = {key: value for key, value in detail.items() if key not in ("shares", "shared_at")}
        return {**told, "step": data.get("step"), **kept}
    if isinstance(metrics, dict) and any(tag.startswith(SHARES) for tag in metrics):
        shares = {tag.removeprefix(SHARES): value for tag, value in metrics.items() if tag.startswith(SHARES)}
        return {**known, "shares": shares, "shared_at": data.get("step")}
    return known
