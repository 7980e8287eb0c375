"""A run as a table: one row a step, or one an epoch, in CSV, JSON lines or Parquet.

Any thread; reads runs, writes what it is given. Contract:

- What a resume made void is left out; the columns are the tags that backends get, so each row is what was drawn.
- In bounded memory: the journal is read twice, once for the columns. Rows of up to `OPEN` steps are kept open for what
  comes late; what comes later still is a row of its own.
- A value that is not there is empty (null); NaN and the infinities are themselves, but null in JSON.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Final

from losslog.errors import LosslogError
from losslog.history import records
from losslog.tags import points_of

FORMATS: Final = ("csv", "parquet", "jsonl")
OPEN: Final = 4096
GROUP: Final = 50_000  # rows of a Parquet row group
CELLS: Final = 50_000_000  # of one, where there are many columns

Row = dict[str, float | int]


def columns(folder: Path, by: str) -> list[str]:
    """The tags of a run by step or by epoch, in the order in which they came.

    Raises:
        OSError: the journal cannot be read.
    """
    found: dict[str, None] = {}
    for record in records(folder):
        points = points_of(record.hook, record.data)
        if points is not None and points.axis == by:
            found.update(dict.fromkeys(points.series))
    return [*found]


def rows(folder: Path, by: str) -> Iterator[Row]:
    """The rows, in order as far as `OPEN` reaches.

    Raises:
        OSError: the journal cannot be read.
    """
    waiting: dict[int, Row] = {}
    for record in records(folder):
        points = points_of(record.hook, record.data)
        if points is None or points.axis != by:
            continue
        row = waiting.setdefault(points.x, {by: points.x, "time": record.time})
        row |= points.series
        if len(waiting) > OPEN:
            for x in sorted(waiting)[: OPEN // 2]:
                yield waiting.pop(x)
    for x in sorted(waiting):
        yield waiting.pop(x)


def write_csv(names: Sequence[str], found: Iterator[Row], out: IO[str]) -> None:
    """As CSV, with a line of headings."""
    writer = csv.DictWriter(out, names, restval="", lineterminator="\n")
    writer.writeheader()
    for row in found:
        writer.writerow(row)


def write_jsonl(_: Sequence[str], found: Iterator[Row], out: IO[str]) -> None:
    """As JSON, an object a line."""
    for row in found:
        plain = {key: value if math.isfinite(value) else None for key, value in row.items()}
        out.write(f"{json.dumps(plain)}\n")


def write_parquet(names: Sequence[str], found: Iterator[Row], path: Path) -> None:
    """As Parquet.

    Raises:
        LosslogError: pyarrow is not installed.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise LosslogError("Parquet needs pyarrow: pip install pyarrow, or say --to csv") from error
    kinds = [pyarrow.int64(), *(pyarrow.float64() for _ in names[1:])]
    most = max(1, min(GROUP, CELLS // len(names)))
    schema = pyarrow.schema(list(zip(names, kinds, strict=True)))
    with parquet.ParquetWriter(path, schema) as writer:
        group: list[Row] = []

        def close() -> None:
            arrays = [pyarrow.array([row.get(name) for row in group], kind)
                      for name, kind in zip(names, kinds, strict=True)]  # fmt: skip
            writer.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))
            group.clear()

        for row in found:
            group.append(row)
            if len(group) >= most:
                close()
        close()


TEXTS: Final[dict[str, Callable[[Sequence[str], Iterator[Row], IO[str]], None]]] = {
    "csv": write_csv,
    "jsonl": write_jsonl,
}


def named(folder: Path, by: str) -> list[str]:
    """All columns: the step or epoch, the time, the tags.

    Raises:
        LosslogError: the run has no values of that kind.
        OSError: the journal cannot be read.
    """
    tags = columns(folder, by)
    if not tags:
        raise LosslogError(f"{folder.name} has no values by {by} yet")
    return [by, "time", *tags]


def export(folder: Path, kind: str, by: str, out: Any) -> None:
    """Write a run.

    Args:
        folder: the run folder.
        kind: one of `FORMATS`.
        by: ``step`` or ``epoch``.
        out: a path for Parquet, a text file for the others.

    Raises:
        LosslogError: there is nothing to be written, or a library is missing.
        OSError: the journal cannot be read, or the table not be written.
    """
    write = TEXTS.get(kind, write_parquet)
    write(named(folder, by), rows(folder, by), out)
