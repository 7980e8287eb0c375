"""What is worth saying of an alert, an epoch and an end.

The plugin's lane; reads the journal once, at the end of a run. Contract:

- What the end says is read from the journal, so it is the same after a restart, a resume or a replay.
- A journal that cannot be read costs the figures, never the message.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from losslog.journal.records import count_in
from losslog.runtime.containment import attempt
from losslog.tags import eval_series, scalars

BEST: Final = ("mAP/bbox_AP", "mAP/segm_AP", "mAP/keypoints_AP")
COMPONENTS: Final = 5  # named in the summary of an epoch
LEVELS: Final = {"finished": "good", "stopped": "warning"}  # any other end is an error


def place(epoch: int | None, step: int | None) -> str:
    """``epoch 3, step 1,200``, as far as it is known."""
    told = [] if epoch is None else [f"epoch {epoch}"]
    return ", ".join(told + ([] if step is None else [f"step {step:,}"]))


def alert_text(
    text: str, epoch: int | None, step: int | None, component: str | None, cause: str | None, title: str
) -> str:
    """What an alert says, then where, which component and why, as far as these are known."""
    about = [] if component is None or component in title else [component]
    about += [each for each in (place(epoch, step), f"cause: {cause}" if cause else "") if each]
    return "\n".join(filter(None, (text.strip(), ", ".join(about))))


def scores(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The average precisions in an evaluation, as ``{"segm AP": 0.31}``."""
    series, _ = attempt(eval_series, metrics, "val")
    found = series or {}
    return {_kind(tag): found[tag] for tag in BEST if tag in found}


def epoch_title(epoch: int, epochs: int | None, total: float | None) -> str:
    """``epoch 3/26: total 1.2345``."""
    of = f"epoch {epoch}/{epochs}" if epochs else f"epoch {epoch}"
    return of if total is None else f"{of}: total {total:.4f}"


def epoch_text(losses: Any, val_loss: Any, found: Mapping[str, float]) -> str:
    """The largest components, the validation loss, the scores."""
    parts = []
    if isinstance(losses, Mapping):
        largest = sorted(losses.items(), key=lambda each: -abs(each[1]))[:COMPONENTS]
        parts.append(", ".join(f"{name} {value:.4f}" for name, value in largest))
        parts[0] += f" and {len(losses) - COMPONENTS} more" if len(losses) > COMPONENTS else ""
    if val_loss is not None:
        parts.append(f"validation loss {scalars('val', val_loss)['val']:.4f}")
    return "\n".join([*parts, *_scored(found.items())])


def end_of(folder: Path | None, status: str, error: str | None) -> tuple[str, str]:
    """How a run ended: a title, and what it came to.

    Args:
        folder: the run folder, where it is known.
        status: as in ``on_run_end``.
        error: likewise.
    """
    from losslog.recording.highlights import worst
    from losslog.viewing.summary import summary_of  # 20 ms that are needed once

    summary = None if folder is None else attempt(summary_of, folder, keep=False)[0]
    facts = {} if summary is None else summary.facts
    lines = [error or ""]
    if status == "crashed":
        lines = ["its process was killed, or the machine went away"]
    if not facts:
        return status, lines[0]
    last = facts["last_epoch"]
    epochs, steps = count_in(last, "epoch"), facts["counts"]["on_batch_losses"]
    planned = f"/{facts['epochs']}" if facts["epochs"] and facts["epochs"] != epochs else ""
    lines.append(", ".join(([f"{epochs}{planned} epochs"] if epochs else []) + [f"{steps:,} steps"]))
    if isinstance(total := last.get("total"), int | float):
        lines[-1] += f", total {total:.4f}"
    best = {_kind(tag): tuple(facts["best"][tag]) for tag in BEST if tag in facts["best"]}
    lines += [f"best {kind} {value:.4f} (epoch {epoch})" for kind, (value, epoch) in best.items()]
    gravest = worst(facts["alerts"])
    if gravest is not None:
        count = len(facts["alerts"])
        lines.append(f"{count} alert{'s' if count > 1 else ''}: {gravest.get('title')}")
    return f"{status} after {duration(facts['last'] - facts['started'])}", "\n".join(filter(None, lines))


def duration(seconds: float) -> str:
    """``2:13`` or ``1:02:13``."""
    minutes, rest = divmod(round(max(seconds, 0.0)), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


def _kind(tag: str) -> str:
    return tag.removeprefix("mAP/").replace("_", " ")


def _scored(found: Iterable[tuple[str, float]]) -> list[str]:
    told = ", ".join(f"{kind} {value:.4f}" for kind, value in found)
    return [told] if told else []
