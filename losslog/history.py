"""A run's past as it counts: the journal without what a resume superseded.

Any thread; reads only. Contract:

- `records` gives what counts, in order; with ``superseded=True`` what no longer does.
- `series` gives one value per (tag, x): of two that count, the later one.
- A resume from step s and epoch e supersedes earlier records of later steps, and evaluations and ends of later epochs.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from losslog.journal.fences import is_void
from losslog.journal.folder import JOURNAL
from losslog.journal.index import index_of
from losslog.journal.lines import read
from losslog.journal.records import Record
from losslog.tags import points_of


def records(folder: Path, *, superseded: bool = False) -> Iterator[Record]:
    """The records of a run.

    Args:
        folder: the run folder.
        superseded: give those that a resume made void, instead of those that count.

    Raises:
        OSError: the journal cannot be read.
    """
    fences = resumes(folder)
    for _, record in read(folder / JOURNAL):
        if record is not None and is_void(record, fences) == superseded:
            yield record


def resumes(folder: Path) -> list[Record]:
    """The run's ``on_resume`` records.

    Raises:
        OSError: the journal cannot be read.
    """
    return index_of(folder).fences


def series(folder: Path) -> dict[str, dict[int, float]]:
    """Every series of a run: ``{tag: {x: value}}``, x = epoch or global step as the tag's axis says.

    Raises:
        OSError: the journal cannot be read.
    """
    found: dict[str, dict[int, float]] = {}
    for record in records(folder):
        for tag, x, value in points(record):
            found.setdefault(tag, {})[x] = value
    return found


def points(record: Record) -> Iterator[tuple[str, int, float]]:
    """(tag, x, value) of everything a record puts into a backend."""
    found = points_of(record.hook, record.data)
    if found is not None:
        for tag, value in found.series.items():
            yield tag, found.x, value
