"""A run's past as it counts: the journal without what a resume superseded.

Any thread; reads only. Contract:

- `records` gives what counts, in order; with ``superseded=True`` what no longer does.
- `series` gives one value per (tag, x): of two that count, the later one.
- A resume from step s and epoch e supersedes earlier records of later steps, and evaluations and ends of later epochs.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from losslog.journal.fences import is_void
from losslog.journal.folder import JOURNAL
from losslog.journal.index import index_of
from losslog.journal.lines import read
from losslog.journal.records import Record
from losslog.journal.scan import blocks, is_batch, record_of
from losslog.tags import points_of

OTHERS: Final = ("on_epoch_end", "on_eval", "on_metrics")  # with series, besides batches


def records(
    folder: str | os.PathLike[str], *, superseded: bool = False, hooks: Collection[str] = ()
) -> Iterator[Record]:
    """The records of a run.

    Args:
        folder: the run folder.
        superseded: give those that a resume made void, instead of those that count.
        hooks: only records of these; without ``on_batch_losses`` among them batches are passed over undecoded, which
            makes a long run quick to read.

    Raises:
        OSError: the journal cannot be read.
    """
    fences, path = resumes(folder), Path(folder) / JOURNAL
    rare = hooks and "on_batch_losses" not in hooks
    for record in _rare(path) if rare else (each for _, each in read(path)):
        if record is not None and (not hooks or record.hook in hooks) and is_void(record, fences) == superseded:
            yield record


def _rare(path: Path) -> Iterator[Record | None]:
    for _, piece in blocks(path):
        yield from (record_of(line) for line in piece.split(b"\n")[:-1] if not is_batch(line))


def resumes(folder: str | os.PathLike[str]) -> list[Record]:
    """The run's ``on_resume`` records.

    Raises:
        OSError: the journal cannot be read.
    """
    return index_of(Path(folder)).fences


def series(folder: str | os.PathLike[str], *, batches: bool = True) -> dict[str, dict[int, float]]:
    """Every series of a run: ``{tag: {x: value}}``, x = epoch or global step as the tag's axis says.

    Args:
        folder: the run folder.
        batches: give those of batch records, too.

    Raises:
        OSError: the journal cannot be read.
    """
    found: dict[str, dict[int, float]] = {}
    for record in records(folder, hooks=() if batches else OTHERS):
        for tag, x, value in points(record):
            found.setdefault(tag, {})[x] = value
    return found


def points(record: Record) -> Iterator[tuple[str, int, float]]:
    """(tag, x, value) of everything a record puts into a backend."""
    found = points_of(record.hook, record.data)
    if found is not None:
        for tag, value in found.series.items():
            yield tag, found.x, value
