"""Steps that may have been skipped: a GradScaler's, on a device that only knows later.

Training thread. Contract:

- Nothing waits for a device but at the end of an epoch.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Any

import torch

from losslog.instrument.logbook import Logbook
from losslog.instrument.series import Entry
from losslog.instrument.skips import Skips
from losslog.values.snapshot import resolve


class _Waiting:
    """A step of a fused optimizer whose success only the device knows yet."""

    def __init__(self, entry: Entry, found_inf: Any) -> None:
        self.entry = entry
        self._value = found_inf.detach().clone().to("cpu", non_blocking=True)
        self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._event.record()

    def skipped(self, *, wait: bool) -> bool | None:
        """Whether it was skipped; None where that is not known without waiting."""
        if not wait and not self._event.query():  # type: ignore[no-untyped-call]
            return None
        self._event.synchronize()
        return bool(self._value.item())


class Held:
    """Steps in order, each when it is known whether it was taken.

    Args:
        logbook: where skipped ones count.

    Attributes:
        skips: says so where most are skipped.
    """

    def __init__(self, logbook: Logbook) -> None:
        self._logbook = logbook
        self._waiting: deque[_Waiting] = deque()
        self.skips = Skips()

    def waits(self, optimizer: Any) -> bool:
        """Whether it is not known yet, or not sure, that an optimizer that has stepped did something."""
        return bool(self._waiting) or getattr(optimizer, "found_inf", None) is not None

    def put(self, entry: Entry, optimizer: Any, emit: Callable[[Entry], None]) -> None:
        """An optimizer has stepped: record it now, or when it is known."""
        self._logbook.trained = True
        found_inf = getattr(optimizer, "found_inf", None)  # a fused optimizer under GradScaler steps, and does nothing
        if found_inf is None and not self._waiting:
            emit(entry)
            return
        if isinstance(found_inf, torch.Tensor) and found_inf.is_cuda:
            self._waiting.append(_Waiting(entry, found_inf))
            self.release(emit, wait=False)
            return
        self.release(emit, wait=True)
        if found_inf is not None and float(found_inf):
            self.skips.late(optimizer)
            self._logbook.unstepped(entry.reading, counted=True)
        else:
            emit(entry)

    def release(self, emit: Callable[[Entry], None], *, wait: bool) -> None:
        """Record those of which it is known."""
        while self._waiting:
            skipped = self._waiting[0].skipped(wait=wait)
            if skipped is None:
                return
            entry = self._waiting.popleft().entry
            if skipped:
                self.skips.late(entry.stepper.ref())
                self._logbook.unstepped(entry.reading, counted=True)
            else:
                emit(entry)


def finite(what: Any) -> bool:
    """Whether all values of a reading or an output are finite; waits for the device."""
    return all(map(math.isfinite, resolve(what.values)))


def is_fatal(output: Any) -> bool:
    """Whether the loop was left because of this loss: not finite, never backward, and data was still to come."""
    over = output.driver is not None and output.driver.exhausted
    return not output.reached and not over and not finite(output)
