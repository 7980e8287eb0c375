"""Names that MLflow accepts.

No thread, no I/O. Contract:

- A name that MLflow accepts is left as it is; losslog's own layout always is.
- Any other gets a name of its own, the same in every process: one bad component name must not fail its whole batch,
  and two must not fall together.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

LONGEST: Final = 250
_CUT: Final = 200
_REFUSED: Final = re.compile(r"[^/\w.\- ]" if os.name == "nt" else r"[^/\w.\- :]")


def clean(name: str) -> str:
    """``name`` where MLflow accepts it, else a readable one that ends in a digest of it."""
    if 0 < len(name) <= LONGEST and not _REFUSED.search(name) and _is_plain_path(name):
        return name
    parts = [part if part.strip(".") else "_" for part in _REFUSED.sub("_", name).split("/") if part]
    text = "/".join(parts)[:_CUT].rstrip("/ ") or "_"
    return f"{text}.{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def key_of(name: str) -> str:
    """``name`` as the key of a picture, in which MLflow takes no letters but the Latin ones."""
    plain = re.sub(r"[^a-zA-Z0-9_\-./ ]", "_", clean(name))
    return plain if plain == name else f"{plain[:_CUT]}.{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def _is_plain_path(name: str) -> bool:
    """MLflow takes a name for a file's and refuses what another name would also lead to."""
    return posixpath.normpath(name) == name and not name.startswith(("/", "..")) and name != "."


def flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested config as ``("model.backbone", value)`` pairs."""
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
