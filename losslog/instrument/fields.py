"""What a module returned by name, in whatever a model may return it: a dict, a named tuple, a dataclass.

Plain functions, training thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def fields_of(output: Any) -> Mapping[Any, Any] | None:
    """Entries by name; None where there are no names."""
    if isinstance(output, Mapping):
        return output
    kind = type(output)
    names = getattr(kind, "_fields", None) if isinstance(output, tuple) else getattr(kind, "__dataclass_fields__", None)
    return None if names is None else {name: getattr(output, name, None) for name in names}


def name_of(key: Any) -> str:
    """An entry's name; "" where it has none."""
    return (key if isinstance(key, str) else str(key)).strip() and str(key)
