"""The losses that a run's journal already holds, for a plugin that was not there: another process wrote them.

- Read only. A line is ``{"seq": ..., "hook": ..., "data": {...}}``; a torn or foreign line is skipped.
- Batches that a later ``on_resume`` superseded are left out.
- Gives the processor away after every few lines: it runs in a thread of the training process.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

JOURNAL: Final = "journal.jsonl"
LOSSES: Final = ("on_run_start", "on_batch_losses", "on_epoch_end", "on_metrics", "on_alert")
LINES_AT_A_TIME: Final = 8


def has_past(run: Any) -> bool:
    """Whether the run (the ``run`` argument of a hook) has a journal to read."""
    folder = getattr(run, "dir", None)
    return folder is not None and (Path(folder) / JOURNAL).exists()


def past_records(run: Any, before: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Hook names and arguments of what counts, in order.

    Args:
        run: The ``run`` argument of a hook; without a journal there are no records.
        before: Only records with a smaller ``seq``.
    """
    if not has_past(run):
        return
    path = Path(run.dir) / JOURNAL
    resumes = [
        (seq, data.get("step"), data.get("epoch"))
        for seq, hook, data in _lines(path, before + 1)
        if hook == "on_resume"
    ]
    for seq, hook, data in _lines(path, before):
        if hook in LOSSES and not _superseded(seq, data, resumes):
            yield hook, data


def _superseded(seq: int, data: dict[str, Any], resumes: list[tuple[int, int | None, int | None]]) -> bool:
    for at, step, epoch in resumes:
        if at <= seq:
            continue
        if step is not None and data.get("step") is not None:
            if data["step"] > step:
                return True
        elif epoch is not None and isinstance(data.get("epoch"), int) and data["epoch"] > epoch:
            return True
    return False


def _lines(path: Path, before: int) -> Iterator[tuple[int, str, dict[str, Any]]]:
    with path.open("rb") as journal:
        for count, line in enumerate(journal):
            if count % LINES_AT_A_TIME == 0:
                time.sleep(0)
            try:
                record = json.loads(line)
                seq, hook, data = record["seq"], record["hook"], record["data"]
            except (ValueError, KeyError, TypeError):
                continue
            if seq >= before:
                return
            yield seq, hook, data
