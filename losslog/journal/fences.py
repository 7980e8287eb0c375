"""What a resume makes void.

No thread, no I/O. Contract:

- A resume from step s and epoch e supersedes earlier records of later steps, and evaluations and ends of later epochs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from losslog.journal.records import Record

BY_EPOCH: Final = ("on_epoch_end", "on_eval", "on_images", "on_checkpoint")
VOIDABLE: Final = ("on_batch_losses", *BY_EPOCH, "on_metrics")


def is_void(record: Record, fences: list[Record]) -> bool:
    """Whether one of these resumes superseded the record."""
    return bool(fences) and any(_void(record, fence) for fence in fences)


def _void(record: Record, fence: Record) -> bool:
    if record.seq > fence.seq:
        return False
    step, epoch = fence.data.get("step"), fence.data.get("epoch")
    if record.hook in BY_EPOCH and epoch is not None:
        return bool(int(record.data.get("epoch") or 0) > epoch)
    if record.hook in VOIDABLE:
        if step is not None and record.data.get("step") is not None:
            return bool(int(record.data["step"]) > step)
        return epoch is not None and int(record.data.get("epoch") or 0) > epoch
    return False


def leaves(top: Sequence[int], step: int | None, epoch: int | None) -> bool:
    """Whether a resume from there makes nothing void of what went so far."""
    return (step is None or top[0] <= step) and (epoch is None or top[1] <= epoch)


def counts(batch: tuple[int, int, int], fences: Sequence[Record]) -> bool:
    """Whether a batch of this seq, step and epoch counts."""
    seq, step, epoch = batch
    for fence in fences:
        if seq <= fence.seq:
            upto, last = fence.data.get("step"), fence.data.get("epoch")
            if step > upto if upto is not None else last is not None and epoch > last:
                return False
    return True
