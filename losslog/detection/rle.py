"""COCO's compressed run lengths read with numpy alone, whole or at some of their pixels. No thread, no I/O.

Contract:

- What a text says is checked before anything is made of it: garbled counts are a ValueError, and cost no memory.
- `sampled` takes memory in proportion to what is asked for, whatever the size of the image.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

MOST: Final = 1 << 28  # pixels of a mask that is made whole


def ends(rle: Mapping[str, Any]) -> npt.NDArray[np.int64]:
    """Where each run ends, zeros and ones in turn, counted down the columns.

    Raises:
        ValueError: the counts are garbled, or do not add up to the size.
    """
    text = rle["counts"]
    height, width = rle["size"]
    data = text if isinstance(text, bytes) else text.encode("ascii", "replace")
    chars = np.frombuffer(data, np.uint8).astype(np.int64) - 48
    if not chars.size or chars.min() < 0 or chars.max() > 63 or chars[-1] & 32:
        raise ValueError("garbled run lengths")
    stops = np.flatnonzero((chars & 32) == 0)  # a number ends at each character without the bit 32
    starts = np.concatenate(([0], stops[:-1] + 1))
    lengths = stops - starts + 1
    if lengths.max() > 8:  # 40 bits
        raise ValueError("garbled run lengths")
    place = np.arange(chars.size) - np.repeat(starts, lengths)
    runs = np.add.reduceat((chars & 31) << (5 * place), starts)
    runs -= np.where(chars[stops] & 16, np.int64(1) << (5 * lengths), 0)
    for first in (1, 2):  # from the fourth on, a number is the difference to the last but one
        runs[first::2] = np.cumsum(runs[first::2])
    found: npt.NDArray[np.int64] = np.cumsum(runs)
    if runs.min() < 0 or found[-1] != height * width:
        raise ValueError("run lengths do not add up to the image")
    return found


def decode(rle: Mapping[str, Any]) -> npt.NDArray[np.bool_]:
    """The mask ``[height, width]``.

    Raises:
        ValueError: it is garbled, or larger than `MOST`.
    """
    height, width = rle["size"]
    if height * width > MOST:
        raise ValueError(f"a mask of {height} x {width} pixels is not made whole")
    lengths = np.diff(ends(rle), prepend=0)
    flat = np.repeat(np.arange(lengths.size) % 2 == 1, lengths)
    return flat.reshape(width, height).T


def around(rle: Mapping[str, Any]) -> list[int] | None:
    """The corners x1, y1, x2, y2 of a mask; None of one without a pixel.

    Raises:
        ValueError: it is garbled.
    """
    height = rle["size"][0]
    edges = ends(rle)
    starts, stops = edges[0:-1:2], edges[1::2] - 1
    full = np.flatnonzero(stops >= starts)
    if not full.size:
        return None
    starts, stops = starts[full], stops[full]
    over = bool((starts // height != stops // height).any())  # a run goes over into the next column
    rows = (0, height) if over else (int((starts % height).min()), int((stops % height).max()) + 1)
    return [int(starts[0] // height), rows[0], int(stops[-1] // height) + 1, rows[1]]


def sampled(
    rle: Mapping[str, Any], rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]
) -> tuple[slice, slice, npt.NDArray[np.bool_]]:
    """The mask at some rows and columns.

    Args:
        rle: the mask.
        rows: of the image, ascending.
        columns: likewise.

    Returns:
        Which of the rows and of the columns it may have anything in, and the mask there.

    Raises:
        ValueError: it is garbled.
    """
    height = rle["size"][0]
    edges = ends(rle)
    starts, stops = edges[0:-1:2], edges[1::2] - 1  # of the ones: first and last pixel
    full = np.flatnonzero(stops >= starts)
    if not full.size:
        return slice(0, 0), slice(0, 0), np.zeros((0, 0), bool)
    starts, stops = starts[full], stops[full]
    across = _part(columns, starts[0] // height, stops[-1] // height)
    inside = bool((starts // height == stops // height).all())  # no run goes over into the next column
    down = _part(rows, (starts % height).min(), (stops % height).max()) if inside else slice(0, len(rows))
    places = columns[across][None, :] * height + rows[down][:, None]
    return down, across, np.searchsorted(edges, places, side="right") % 2 == 1


def _part(places: npt.NDArray[np.int64], first: int, last: int) -> slice:
    return slice(int(np.searchsorted(places, first)), int(np.searchsorted(places, last, side="right")))
