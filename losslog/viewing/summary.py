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
import json
import math
import os
from pathlib import Path
from typing import Any, Final

from losslog.history import is_void
from losslog.journal.files import reading
from losslog.journal.folder import JOURNAL
from losslog.journal.records import Record, count_in
from losslog.runtime.containment import attempt
from losslog.tags import eval_series
from losslog.viewing.scan import BATCH, HEAD, blocks, record_of, resumes_upto
from losslog.viewing.state import lags, status_of

VERSION: Final = 1
EDGE: Final = 256  # bytes at either end by which a journal is known again
ALERTS: Final = 200
TAGS: Final = 400
WORST: Final = ("error", "warning", "info")


class Summary:
    """Counts, ends, bests and alerts of a run, from its journal.

    Args:
        folder: the run folder.

    Attributes:
        facts: what is kept, plain data.
        size: bytes of the journal that are in it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / JOURNAL
        self.size = self._looked = 0  # how far it is read, and how far it was searched for resumes
        self.facts: dict[str, Any] = _nothing()
        self._fences: list[Record] = []

    def read(self, pieces: int | None = None) -> bool:
        """Take what is new in the journal.

        Args:
            pieces: read at most so many megabytes now; None reads all.

        Returns:
            Whether anything came.

        Raises:
            OSError: the journal cannot be read.
        """
        fresh, self._looked = resumes_upto(self.path, max(self._looked, self.size))
        if fresh and self.size:
            self._forget()
            fresh, self._looked = resumes_upto(self.path, 0)
        self._fences += fresh
        before = self.size
        for number, (size, piece) in enumerate(blocks(self.path, self.size)):
            if number == pieces:
                break
            self._take(piece)
            self.size = size
        return self.size > before

    def _forget(self) -> None:
        self.size = self._looked = 0
        self.facts, self._fences = _nothing(), []

    def _take(self, piece: bytes) -> None:
        batches, last = 0, b""
        lines = piece.split(b"\n")[:-1]
        if self._fences:
            for line in lines:
                self._line(line)
            return
        for line in lines:
            if BATCH in line[:HEAD] and line.endswith(b"}}"):
                batches, last = batches + 1, line
            else:
                self._batches(batches, last)
                batches = 0
                self._line(line)
        self._batches(batches, last)

    def _batches(self, count: int, last: bytes) -> None:
        """Count batch records without decoding any but the last."""
        if count and self._line(last):
            self.facts["counts"]["on_batch_losses"] += count - 1

    def _line(self, line: bytes) -> bool:
        record = record_of(line)
        if record is None:
            self.facts["garbled"] += 1
            return False
        facts, data = self.facts, record.data
        facts["started"] = facts["started"] or record.time
        facts["last"], facts["ended"] = record.time, None
        if is_void(record, self._fences):
            return False
        facts["counts"].setdefault(record.hook, 0)
        facts["counts"][record.hook] += 1
        if record.hook == "on_run_start":
            first = facts["name"] or str(data.get("name") or "")
            facts |= {"name": first, "epochs": data.get("epochs")}
        elif record.hook == "on_batch_losses":
            facts["last_step"] = data
        elif record.hook == "on_epoch_end":
            facts["last_epoch"] = data
        elif record.hook == "on_eval":
            self._eval(data)
        elif record.hook == "on_alert":
            facts["alerts"] = [*facts["alerts"], data][-ALERTS:]
        elif record.hook == "on_run_end":
            facts["ended"] = str(data.get("status"))
        return True

    def _eval(self, data: dict[str, Any]) -> None:
        best = self.facts["best"]
        series, _ = attempt(eval_series, data.get("metrics") or {}, str(data.get("split") or "val"))
        for tag, value in (series or {}).items():
            known = best.get(tag)
            if math.isfinite(value) and (known is None or value > known[0]) and (known or len(best) < TAGS):
                best[tag] = [value, count_in(data, "epoch")]

    @property
    def status(self) -> str:
        """``running``, ``crashed``, or as it ended."""
        return status_of(self.folder, self.facts["ended"])

    def load(self) -> bool:
        """Start from the summary that is kept, where it belongs to this journal."""
        text, _ = attempt(lambda: kept_at(self.folder).read_bytes())
        body, _ = attempt(json.loads, text or b"")
        if not isinstance(body, dict) or body.get("version") != VERSION or type(body.get("size")) is not int:
            return False
        facts = body.get("facts")
        if not isinstance(facts, dict) or facts.keys() != _nothing().keys():
            return False
        if body.get("check") != _check(self.path, body["size"], facts):
            return False
        self.size, self.facts = body["size"], facts
        return True

    def keep(self) -> None:
        """Write it to the user's cache, whole or not at all; one that refuses is let be."""
        check = _check(self.path, self.size, self.facts)
        body = {"version": VERSION, "size": self.size, "check": check, "facts": self.facts}
        target, _ = attempt(kept_at, self.folder)
        if target is None:
            return
        temporary = target.with_suffix(f".{os.getpid()}")
        attempt(lambda: target.parent.mkdir(parents=True, exist_ok=True, mode=0o700))
        _, error = attempt(temporary.write_text, json.dumps(body), "ascii")
        if error is None:
            _, error = attempt(os.replace, temporary, target)
        if error is not None:
            attempt(temporary.unlink, missing_ok=True)


def kept_at(folder: Path) -> Path:
    """Where the summary of a run is kept.

    Raises:
        RuntimeError: this user has no home.
    """
    place = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or Path.home() / ".cache"
    name = hashlib.blake2b(os.fsencode(os.path.realpath(folder)), digest_size=16).hexdigest()
    return Path(place, "losslog", f"{name}.json")


def _nothing() -> dict[str, Any]:
    return {
        "name": "", "epochs": None, "started": 0.0, "last": 0.0, "ended": None, "garbled": 0,
        "counts": {"on_batch_losses": 0}, "last_epoch": {}, "last_step": {}, "best": {}, "alerts": [],
    }  # fmt: skip


def _check(path: Path, size: int, facts: dict[str, Any]) -> str:
    """A sum over both ends of the journal's first ``size`` bytes and over the facts."""
    digest = hashlib.blake2b(json.dumps(facts, sort_keys=True).encode("ascii"), digest_size=16)
    with reading(path) as file:
        digest.update(file.read(min(EDGE, size)))
        file.seek(max(0, size - EDGE))
        digest.update(file.read(min(EDGE, size)))
    return digest.hexdigest() if path.stat().st_size >= size else ""


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
        "best": best, "worst": worst(facts["alerts"]), "alerts": len(facts["alerts"]),
        "undelivered": [name for name, lag in behind.items() if not lag["complete"]], "folder": str(folder),
    }  # fmt: skip


def worst(alerts: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The gravest alert, of equals the latest."""
    ranked = [each for level in WORST for each in reversed(alerts) if each.get("level") == level]
    return {key: ranked[0].get(key) for key in ("level", "title", "component", "step")} if ranked else None
