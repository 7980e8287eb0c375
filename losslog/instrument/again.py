"""When a thing that was said may be said again: once what it was about was whole for a while.

On the thread that trains; plain data.
"""

from __future__ import annotations

from typing import Final

LASTING: Final = 3
"""Epochs in which a loss must be seen to train all that it did before losing some is news; twice as many each time."""


class Again:
    """Of all losses of one run."""

    def __init__(self) -> None:
        self._times: dict[str, int] = {}
        self._whole: dict[str, set[int | None]] = {}

    def told(self, name: str) -> int:
        """It is told to have lost something; how often it was by now."""
        self._times[name] = self._times.get(name, 0) + 1
        return self._times[name]

    def lost(self, name: str) -> None:
        """It does not train all that it did."""
        self._whole.pop(name, None)

    def whole(self, name: str, epoch: int | None) -> bool:
        """It does again; whether that has lasted, where it was told of."""
        if name not in self._times:
            return False
        epochs = self._whole.setdefault(name, set())
        epochs.add(epoch)
        return len(epochs) >= LASTING << (self._times[name] - 1)
