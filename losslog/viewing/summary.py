"""What a run came to, kept in the user's cache so that a thousand runs are listed in a second.

Any thread. Contract:

- The journal is the truth: a summary counts only for the bytes it was made from, and only while these are still there;
  what the journal has beyond is read, and a summary that is missing, torn, of another version or of another journal
  is made anew.
- Nothing is written into the run folder: it may be somebody else's. A cache that cannot be written to costs the
  keeping, never the summary.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from losslog.journal.index import Index
from losslog.journal.records import count_in
from losslog.recording.highlights import worst
from losslog.runtime.containment import attempt
from losslog.viewing.state import lags, status_of


class Summary(Index):
    """A run's index, which readers keep for each other where the run has not."""

    @property
    def status(self) -> str:
        """``running``, ``crashed``, or as it ended."""
        return status_of(self.folder, self.lasting["ended"])

    def load(self, place: Path | None = None) -> bool:
        """Start from the better of the run's own and the one in the user's cache."""
        own = super().load(place)
        cached, _ = attempt(kept_at, self.folder)
        return (cached is not None and super().load(cached)) or own

    def keep(self, place: Path | None = None) -> None:
        """Write it to the user's cache, whole or not at all; one that refuses is let be."""
        target, _ = attempt(kept_at, self.folder)
        if target is not None:
            attempt(lambda: target.parent.mkdir(parents=True, exist_ok=True, mode=0o700))
            super().keep(target)


def kept_at(folder: Path) -> Path:
    """Where the summary of a run is kept.

    Raises:
        RuntimeError: this user has no home.
    """
    place = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or Path.home() / ".cache"
    name = hashlib.blake2b(os.fsencode(os.path.realpath(folder)), digest_size=16).hexdigest()
    return Path(place, "losslog", f"{name}.json")


def summary_of(folder: Path, *, keep: bool = True) -> Summary:
    """The run's summary, up to its last record.

    Args:
        folder: the run folder.
        keep: write it to the user's cache where that helps the next reader.

    Raises:
        OSError: the journal cannot be read.
    """
    summary = Summary(folder)
    loaded, _ = attempt(summary.load)
    if (summary.read() or not loaded) and keep:
        summary.keep()
    return summary


def row_of(folder: Path) -> dict[str, Any]:
    """A run's line in ``losslog ls``, as plain data.

    Raises:
        OSError: the journal cannot be read.
    """
    summary = summary_of(folder)
    facts = summary.facts
    best = {tag: value for tag, (value, _) in facts["best"].items() if tag.startswith("mAP/") and tag.endswith("_AP")}
    behind = lags(folder, summary.size)
    last = facts["last_epoch"] or facts["last_step"]
    return {
        "name": facts["name"], "id": folder.name, "status": summary.status, "started": facts["started"],
        "seconds": max(0.0, facts["last"] - facts["started"]), "epoch": count_in(facts["last_epoch"], "epoch"),
        "epochs": facts["epochs"], "steps": facts["counts"]["on_batch_losses"], "total": last.get("total"),
        "best": best, "worst": _about(worst(facts["alerts"])), "alerts": len(facts["alerts"]),
        "undelivered": [name for name, lag in behind.items() if not lag["complete"]], "folder": str(folder),
    }  # fmt: skip


def _about(alert: dict[str, Any] | None) -> dict[str, Any] | None:
    return alert and {key: alert.get(key) for key in ("level", "title", "component", "step")}
