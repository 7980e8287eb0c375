"""Who offers a plugin: which distribution, and where it lies.

Caller of `losslog.Run`, commands and the follower; reads what is installed, imports nothing of it. Contract:

- losslog's own names (`OURS`) belong to the distributions ``losslog-NAME``. Another that offers one is asked for as
  ``DISTRIBUTION:NAME``, and so is a second one that offers any name.
- What lies in the working directory or beside the script comes last, and never offers a name of losslog's own: it may
  have come with data. That is not so where losslog itself lies there, or where packages are installed.
- losslog's own modules are not looked for there, either.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from losslog.journal.folder import absolute
from losslog.runtime.containment import attempt

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP: Final = "losslog.plugins"
OURS: Final = ("console", "mlflow", "notify", "plateau", "report", "tensorboard", "trackio", "wandb")
HOME: Final = Path(__file__).resolve().parents[2]  # where losslog itself lies


class Offer(NamedTuple):
    """A plugin that a distribution offers.

    Attributes:
        name: the plugin's; ``DISTRIBUTION:NAME`` where the short one is another's.
        distribution: name and version.
        entry: its entry point.
        reason: why it is used only where it is named, or "".
    """

    name: str
    distribution: str
    entry: EntryPoint
    reason: str = ""


def beside() -> set[str]:
    """The working directory and the script's folder, but for where things are installed."""
    import sysconfig

    script = os.environ.get("LOSSLOG_PROGRAM") or (sys.argv[0] if sys.argv else "")
    found = {_real(os.path.dirname(absolute(script)))} if script not in ("", "-c", "-m") else set()
    found.add(_real(os.curdir))
    paths = sysconfig.get_paths()
    return found - {os.path.realpath(each) for each in (HOME, paths["purelib"], paths["platlib"])}


def path_without(folders: set[str]) -> list[str]:
    """The import path without these."""
    return [each for each in sys.path if _real(each or os.curdir) not in folders]


def _real(path: str) -> str:
    """Where it is, with links resolved; as it is where the working directory was deleted."""
    return attempt(os.path.realpath, path)[0] or path


@contextlib.contextmanager
def from_elsewhere() -> Iterator[None]:
    """While losslog's own modules are imported: not from the working directory, or from beside the script."""
    before = sys.path[:]
    sys.path[:] = path_without(beside())
    try:
        yield
    finally:
        sys.path[:] = before


def offers() -> Iterator[Offer]:
    """Every plugin that is offered, the ones that may have their short name first."""
    from importlib.metadata import distributions  # 10 ms that worker processes need not pay

    near = beside()
    seen: set[tuple[str, str, str]] = set()
    found: list[tuple[bool, str, str, str, EntryPoint]] = []
    for dist in distributions():
        entries = [each for each in dist.entry_points if each.group == GROUP]
        if not entries:
            continue
        name = canonical(dist.metadata["Name"])
        local = _real(str(dist.locate_file(""))) in near
        for entry in entries:
            if (key := (name, entry.name, entry.value)) in seen and not local:
                continue
            seen.add(key)
            found.append((local, entry.name, name, f"{dist.metadata['Name']} {dist.version}", entry))
    taken: dict[str, str] = {}
    for local, short, name, label, entry in sorted(found, key=lambda each: each[:1]):
        asked = f"{name}:{short}"
        if short in OURS and (local or name != f"losslog-{short}"):
            why = "lies beside the script or in this folder" if local else "is not losslog's"
            yield Offer(asked, label, entry, f"{label} {why}, {short!r} is: name it as {asked!r} to use it")
        elif short in taken:
            if taken[short] != label:
                yield Offer(asked, label, entry, f"{short!r} is offered by {taken[short]}, too: name it as {asked!r}")
        else:
            taken[short] = label
            yield Offer(short, label, entry)


def canonical(name: str | None) -> str:
    """A distribution's name as names are compared."""
    return re.sub(r"[-_.]+", "-", name or "unknown").lower()
