"""Values that are not finite, in nested data. Any thread; waits for the device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn

DEEP: Final = 5


def first_bad(value: Any, path: str, depth: int = 0, *, data: bool = False) -> tuple[str, Tensor] | None:
    """The first tensor in nested data that is not finite, and where it is; if ``data``, of those without a graph."""
    if isinstance(value, Tensor):
        if data and value.requires_grad:
            return None
        if value.is_floating_point() and value.layout == torch.strided and not torch.isfinite(value.detach()).all():
            return path, value.detach()
        return None
    if depth >= DEEP:
        return None
    if isinstance(value, Mapping):
        parts = [(f"{path}.{key}", each) for key, each in value.items()]
    elif isinstance(value, list | tuple):
        parts = [(f"{path}[{index}]", each) for index, each in enumerate(value)]
    elif hasattr(value, "__dict__") and not isinstance(value, nn.Module | type):
        parts = [(f"{path}.{key}", each) for key, each in vars(value).items()]
    else:
        return None
    return next(
        (found for place, each in parts if (found := first_bad(each, place, depth + 1, data=data)) is not None), None
    )
