"""Which losses of two journals are the same to the last bit, and from which step on the others are not.

Any thread; reads only. Contract:

- Steps are matched by their number: one that a single journal has is not compared.
- Losses are compared as they are written; a line of another hand is decoded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from losslog.journal.fences import is_void
from losslog.journal.records import count_in
from losslog.journal.scan import blocks, is_batch, record_of, resumes
from losslog.viewing.column import number

_WRITTEN: Final = re.compile(
    rb'"data": \{"step": (-?\d+), "epoch": -?\d+, "losses": (\{.*?\}|[^{,]+)(?:, "[a-z_]+": |\}\}$)'
)
_PAIR: Final = re.compile(rb'("(?:[^"\\]|\\.)*"): ("[^"]*"|[^,}]+)')
Batch = tuple[int, bytes]  # its step, its losses as they are written


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
        first = left[0] if first is None else first
        if left[1] != right[1]:
            parts, others = _parts(left[1]), _parts(right[1])
            for name in names:
                if name not in found and not _same(parts.get(name), others.get(name)):
                    found[name] = left[0]
        count += not found
        left, right = next(mine, None), next(theirs, None)
    return found, count, first


def _same(one: bytes | None, two: bytes | None) -> bool:
    if one is None or two is None:
        return one is two
    first, second = one.strip(b'"').decode(), two.strip(b'"').decode()
    return first == second or number(first) == number(second)  # 1 and 1.0


def _parts(text: bytes) -> dict[str, bytes]:
    """The losses of one line by name."""
    if not text.startswith(b"{"):
        return {"loss": text}
    return {
        str(json.loads(name)) if b"\\" in name else name[1:-1].decode(): value for name, value in _PAIR.findall(text)
    }


def _batches(path: Path) -> Iterator[Batch]:
    fences = resumes(path)
    for _, piece in blocks(path):
        for line in piece.split(b"\n"):
            if not is_batch(line):
                continue
            written = None if fences else _WRITTEN.search(line)
            if written is not None:
                yield int(written[1]), written[2]
                continue
            record = record_of(line)
            if record is not None and not is_void(record, fences):
                yield count_in(record.data, "step"), _text(record.data.get("losses"))


def _text(losses: Any) -> bytes:
    return json.dumps(dict(losses) if isinstance(losses, Mapping) else losses).encode()
