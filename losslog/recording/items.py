"""What a training thread leaves in the queue.

Plain data. Contract:

- An `Item` is never changed after it was queued.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from losslog.values.losses import Losses
from losslog.values.snapshot import Keys, Staged
from losslog.values.totals import Alone


class Batch(NamedTuple):
    """One `Run.log_batch`, as the training thread left it.

    Attributes:
        values: the components' in the order of ``keys``, and the total behind them where ``has_total``.
        stepped: False: forward passes without an optimizer step, which become no record.
        counted: False: they do not count in the epoch's means either.
        weights: gives the components' weights once the values are resolved; None where autograd told nothing.
        alone: gives what a scalar is made of, likewise.
    """

    time: float
    step: int
    epoch: int
    keys: Keys
    values: list[float] | Staged
    has_total: bool
    lr: Any
    batch_size: int | None
    n: int
    stepped: bool = True
    counted: bool = True
    weights: Callable[[], Mapping[str, float]] | None = None
    alone: Callable[[], Alone | None] | None = None


class Event(NamedTuple):
    """Any other hook call: its data is plain already, but for metrics that may be `losslog.values.snapshot.Later`.

    Attributes:
        heard: whether its validation losses are what was heard on this rank, so that other ranks have theirs.
    """

    time: float
    hook: str
    data: dict[str, Any]
    heard: bool = False


class Question:
    """Asks for the epoch means as they are after everything queued before.

    Attributes:
        answered: set when `means` is there.
    """

    def __init__(self) -> None:
        self.answered = threading.Event()
        self.means: Losses | None = None


Item = Batch | Event | Question
