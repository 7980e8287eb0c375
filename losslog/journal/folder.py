"""Run folders: ``<dir>/<name>/<run id>/``, with the journal, the cursors and what plugins and the engine put there.

No thread. Contract:

- A run id is the UTC second plus four random hex digits: ids sort by time, and two runs in one second differ.
- RUN, as commands take it, is a run folder, a run id (or its beginning), or ``latest``.
"""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Final

from losslog.errors import JournalError

JOURNAL: Final = "journal.jsonl"
LOCK: Final = "journal.lock"
CURSORS: Final = "cursors"
RUN_ID: Final = re.compile(r"\d{8}-\d{6}-[0-9a-f]{4}")


def clean_name(name: str) -> str:
    """``name`` as a folder name: no separators, no control characters, not empty, no leading dot."""
    text = re.sub(r"[^\w.+@=-]+", "-", name, flags=re.ASCII).strip("-.")
    return text[:100] or "run"


def create(directory: Path, name: str) -> Path:
    """A new run folder.

    Raises:
        OSError: it cannot be made.
    """
    parent = directory / clean_name(name)
    for each in (*reversed(parent.parents), parent):  # parents=True would leave them to the umask
        each.mkdir(mode=0o755, exist_ok=True)
    for _ in range(16):
        folder = parent / f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{os.urandom(2).hex()}"
        try:
            folder.mkdir(mode=0o755)
        except FileExistsError:
            continue
        return folder.resolve()
    raise FileExistsError(f"no free run id under {parent}")


def find(run: str | Path, directory: str | Path = "runs") -> Path:
    """The run folder that RUN means.

    Args:
        run: a run folder (or a file in it), a run id or its beginning, or ``latest``.
        directory: where runs lie.

    Raises:
        JournalError: there is none, or several.
    """
    path = Path(run)
    for folder in (path, path.parent, path.parent.parent):
        if (folder / JOURNAL).is_file() and path.exists():
            return folder.resolve()
    root = Path(directory)
    journals = sorted(root.glob(f"*/*/{JOURNAL}"), key=lambda each: each.parent.name)
    if str(run) == "latest":
        if not journals:
            raise JournalError(
                f"no runs under {root}/ yet (runs lie in <dir>/<name>/<run id>/; say --dir for another place)"
            )
        stamped = [each for each in journals if RUN_ID.fullmatch(each.parent.name)]
        return (stamped or journals)[-1].parent.resolve()
    matches = [each.parent for each in journals if each.parent.name.startswith(str(run))] if str(run) else []
    exact = [each for each in matches if each.name == str(run)]
    if len(exact or matches) == 1:
        return (exact or matches)[0].resolve()
    if matches:
        raise JournalError(
            f"{run} is the beginning of {len(matches)} run ids: {', '.join(each.name for each in matches[:5])}"
        )
    raise JournalError(f"no run {str(run)!r}: not a folder with a {JOURNAL}, and no run under {root}/ has that id")
