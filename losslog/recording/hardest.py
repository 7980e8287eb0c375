"""The batches of an epoch whose losses were highest, with the images in them.

Drain thread. Contract:

- Memory does not grow with the epoch: `MOST` batches for each of `COMPONENTS` losses, `IMAGES` ids each.
- A batch of which no image is known is left out; ids are asked for only where a loss is among the highest.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping
from typing import Any, Final

MOST: Final = 5
COMPONENTS: Final = 64
IMAGES: Final = 16

Entry = tuple[float, int, list[Any]]  # loss, step, image ids


class Hardest:
    """Keeps them.

    Args:
        images: the image ids of the batch of a step, [] where nothing is known.
    """

    def __init__(self, images: Callable[[int], list[Any]]) -> None:
        self._images = images
        self._found: dict[str, list[Entry]] = {}

    def take(self, step: int, losses: Mapping[str, float] | float) -> None:
        """A batch."""
        known: list[Any] | None = None
        for name, value in (losses if isinstance(losses, Mapping) else {"loss": losses}).items():
            kept = self._found.get(name)
            if kept is not None and len(kept) >= MOST and not value > kept[0][0]:
                continue
            if not math.isfinite(value) or (kept is None and len(self._found) >= COMPONENTS):
                continue
            known = self._images(step)[:IMAGES] if known is None else known
            if not known:
                return
            kept = self._found.setdefault(name, [])
            heapq.heappush(kept, (value, -step, known))  # of equals the first stays
            if len(kept) > MOST:
                heapq.heappop(kept)

    def result(self) -> dict[str, list[list[Any]]] | None:
        """``[loss, step, [ids]]`` by component, the highest first; a new epoch begins."""
        found, self._found = self._found, {}
        if not found:
            return None
        ranked = {name: sorted(kept, reverse=True, key=lambda each: each[:2]) for name, kept in found.items()}
        return {name: [[value, -step, ids] for value, step, ids in kept] for name, kept in ranked.items()}
