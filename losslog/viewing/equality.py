"""Which losses of two journals are the same to the last bit, and from which step on the others are not.

Any thread; reads only. Contract:

- Steps are matched by their number: one that a single journal has is not compared.
- Losses are compared as they are written; a line of another hand is decoded.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from losslog.journal.fences import is_void
from losslog.journal.records import count_in
from losslog.journal.scan import blocks, is_batch, record_of, resumes
from losslog.viewing.column import number

_WRITTEN: Final = re.compile(
    rb'"data": \{"step": (-?\d{1,19}), "epoch": -?\d+, "losses": (\{.*?\}|[^{,]+)(?:, "[a-z_]+": |\}\}$)'
)
Batch = tuple[int, bytes, bytes]  # its step, its losses as they are written, its line


def differences(one: Path, two: Path, names: Collection[str]) -> tuple[dict[str, int], int, int | None]:
    """Where two journals differ. Once every component has differed no more is read.

    Args:
        one: a journal.
        two: the other.
        names: the components that both have.

    Returns:
        The first step at which they differ by component, how many steps are wholly equal before the first of these, and
        the first step that both have.

    Raises:
        OSError: a journal cannot be read.
    """
    found: dict[str, int] = {}
    count, first = 0, None
    mine, theirs = _batches(one), _batches(two)
    left, right = next(mine, None), next(theirs, None)
    while left is not None and right is not None and len(found) < len(names):
        if left[0] != right[0]:
            if left[0] < right[0]:
                left = next(mine, None)
            else:
                right = next(theirs, None)
            continue
        if left[1] != right[1]:
            parts, others = _parts(left[2]), _parts(right[2])
            if parts is None or others is None:  # no record, whatever it looks like
                left = next(mine, None) if parts is None else left
                right = next(theirs, None) if others is None else right
                continue
            for name in names:
                if name not in found and not _same(parts.get(name), others.get(name)):
                    found[name] = left[0]
        first = left[0] if first is None else first
        count += not found
        left, right = next(mine, None), next(theirs, None)
    return found, count, first


def _same(one: float | None, two: float | None) -> bool:
    return one == two or (one is not None and two is not None and math.isnan(one) and math.isnan(two))


def _parts(line: bytes) -> dict[str, float] | None:
    """The losses of one line by name; None where it is no record."""
    record = record_of(line)
    if record is None:
        return None
    losses = record.data.get("losses")
    named = losses if isinstance(losses, Mapping) else {"loss": losses}
    return {str(name): number(each) for name, each in named.items()}


def _batches(path: Path) -> Iterator[Batch]:
    fences = resumes(path)
    for _, piece in blocks(path):
        for line in piece.split(b"\n"):
            if not is_batch(line):
                continue
            written = None if fences else _WRITTEN.search(line)
            if written is not None:
                yield int(written[1]), written[2], line
                continue
            record = record_of(line)
            if record is not None and not is_void(record, fences):
                yield count_in(record.data, "step"), _text(record.data.get("losses")), line


def _text(losses: Any) -> bytes:
    return json.dumps(dict(losses) if isinstance(losses, Mapping) else losses).encode()
