"""The random state of a process: python, numpy, torch, CUDA. Plain functions on the caller's thread.

Contract:

- `rng_state` is made of tensors and plain values only, so that a checkpoint with it loads with ``weights_only=True``.
- A source that is not there (numpy not imported, CUDA not initialised) is left out and left alone.
"""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Iterator
from typing import Any

import torch


def rng_state(generator: torch.Generator | None = None) -> dict[str, Any]:
    """Returns the random state.

    Args:
        generator: one more torch generator, such as a DataLoader's own.

    Returns:
        A dict for `set_rng_state`.
    """
    version, internal, gauss = random.getstate()
    state: dict[str, Any] = {"python": (version, list(internal), gauss), "torch": torch.get_rng_state()}
    if (numpy := sys.modules.get("numpy")) is not None:
        name, keys, position, has_gauss, cached = numpy.random.get_state()
        state["numpy"] = (name, torch.tensor(keys.tolist(), dtype=torch.int64), position, has_gauss, cached)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        state["cuda"] = torch.cuda.get_rng_state_all()
    if generator is not None:
        state["generator"] = generator.get_state()
    return state


def set_rng_state(state: dict[str, Any], generator: torch.Generator | None = None) -> None:
    """Puts a state of `rng_state` back.

    Args:
        state: from `rng_state`, perhaps of another process.
        generator: set from the state's own generator, where both are there.
    """
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    torch.set_rng_state(state["torch"])
    numpy = sys.modules.get("numpy")
    if numpy is not None and "numpy" in state:
        name, keys, *rest = state["numpy"]
        numpy.random.set_state((name, numpy.array(keys.tolist(), dtype=numpy.uint32), *rest))
    if "cuda" in state and torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    if generator is not None and "generator" in state:
        generator.set_state(state["generator"])


@contextlib.contextmanager
def preserved_rng(seed: int | None = None, generator: torch.Generator | None = None) -> Iterator[None]:
    """Runs a block that leaves the random state as it found it.

    Args:
        seed: torch's seed inside the block; None: the block goes on from the present state.
        generator: one more torch generator to preserve.
    """
    state = rng_state(generator)
    try:
        if seed is not None:
            torch.manual_seed(seed)
        yield
    finally:
        set_rng_state(state, generator)
