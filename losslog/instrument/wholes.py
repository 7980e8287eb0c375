"""What a loader goes over: how many batches, and whether they are the whole of a data set, in whatever order.

Training thread. Contract:

- A data set is held weakly, where its kind allows that.
- A loader whose sampler may leave something out (a subset, one of the user's own) is taken to have data of its own.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, Final

from losslog.runtime.containment import attempt

SAMPLERS: Final = ("SequentialSampler", "RandomSampler", "DistributedSampler")  # those that leave nothing out


def nothing() -> None:
    """A reference to nothing: the data of a loader of which they cannot be known."""


def whole(loader: Any) -> Callable[[], Any]:
    """Gives the data set where a loader gives all of it, else None."""
    batches, data = getattr(loader, "batch_sampler", None), getattr(loader, "dataset", None)
    if batches is not None and type(batches).__name__ != "BatchSampler":
        return nothing
    sampler = getattr(loader if batches is None else batches, "sampler", None)
    source = getattr(sampler, "data_source", getattr(sampler, "dataset", None))
    if data is None or source is not data or type(sampler).__name__ not in SAMPLERS:
        return nothing
    return attempt(weakref.ref, data)[0] or (lambda: data)  # a list has no weak references


def length(loader: Any) -> int | None:
    """How many batches a loader says it has; torch must not think that the loop has asked."""
    asked = vars(loader).get("_IterableDataset_len_called")
    length: int | None = attempt(len, loader)[0]
    if "_IterableDataset_len_called" in vars(loader):
        loader._IterableDataset_len_called = asked
    return length
