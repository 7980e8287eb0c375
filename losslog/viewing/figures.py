"""A run as plain data for a page: every series in a few hundred points, everything else as text.

No thread, no I/O. Contract:

- The size is bounded by `CELLS`, over all runs of a page: more series have fewer points each, down to `FEWEST`.
- A single step's value survives as its cell's lowest or highest, and the highest with its step.
- Numbers have four significant digits, more where a series moves little; one that moves by no more than a float32 is
  rounded is one value. What is not finite is null, and its step is told.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

from losslog.journal.records import count_in
from losslog.journal.redaction import redact
from losslog.runtime.containment import attempt
from losslog.values.totals import TOTAL_NAMES, total_of
from losslog.viewing.column import Column
from losslog.viewing.story import Story
from losslog.viewing.trained import cells

CELLS: Final = 40_000
FEWEST: Final = 24
MOST: Final = 1024
DIGITS: Final = 4  # significant ones, more where a series moves little
POINT: Final = 7  # significant digits of what has few points, and of a series that does not move
NOISE: Final = 1e-6  # of its size; a series that moves less is drawn as one value
TEXTS: Final = 200  # alerts, checkpoints, config entries shown of each
LONGEST: Final = 2000  # characters of a text
CUT: Final = 0.6  # a rate that falls below this part of itself in one step was cut
Plain = dict[str, Any]


def fit(stories: Sequence[Story]) -> None:
    """Narrow the series of all runs of a page to what the page may hold."""
    columns = [column for story in stories for column in _columns(story)]
    limit = max(FEWEST, min(MOST, CELLS // max(1, len(columns))))
    for column in columns:
        column.narrow(limit)


def _columns(story: Story) -> list[Column]:
    batches = story.batches
    kinds = (batches.losses, batches.rates, batches.weights, story.metrics)
    return [batches.total, *(column for kind in kinds for column in kind.values())]


def figures(story: Story, verdicts: Mapping[str, str] | None = None) -> Plain:
    """Everything of one run that a page draws.

    Args:
        story: the run, read.
        verdicts: a word on each component, e.g. ``stalled``.
    """
    batches = story.batches
    shared: list[list[int]] = []
    ends = {count_in(each, "epoch"): _step_of(each) for each in story.epochs}
    return {
        "name": story.name, "id": story.id, "status": story.status, "began": batches.began,
        "seconds": round(story.seconds, 1), "steps": batches.steps, "epochs": story.start.get("epochs"),
        "epoch": count_in(story.epochs[-1], "epoch") if story.epochs else 0, "garbled": batches.garbled,
        "error": _text((story.ended or {}).get("error") or ""),
        "config": flat(redact(story.start.get("config") or {})), "about": _about(story),
        "alerts": [_alert(each) for each in story.alerts[-TEXTS:]], "verdicts": dict(verdicts or {}),
        "resumes": [[each.get("step"), each.get("epoch")] for each in story.resumes[:TEXTS]],
        "cuts": _cuts(story), "marks": [[epoch, step] for epoch, step in ends.items() if step is not None],
        "knots": [[step, epoch, images, round(at - batches.began, 1)] for step, epoch, images, at in batches.knots],
        "losses": {_text(name): _drawn(column, shared) for name, column in batches.losses.items()},
        "total": _drawn(batches.total, shared),
        "means": _by_epoch(story, "losses", ends), "val": _by_epoch(story, "val_loss", ends),
        "totals": [[_middle(count_in(each, "epoch"), ends), short(each.get("total"), POINT)] for each in story.epochs
                   if isinstance(each.get("losses"), Mapping)],
        "rates": {_text(name): _drawn(column, shared, band=False) for name, column in batches.rates.items()},
        "weights": {_text(name): _drawn(column, shared, band=False) for name, column in batches.weights.items()},
        "metrics": {_text(name): _drawn(column, shared) for name, column in story.metrics.items()},
        "evals": _evals(story, ends), "xs": shared,
        "checkpoints": [[_text(each.get("path")), each.get("epoch"), each.get("step")]
                        for each in story.checkpoints[-TEXTS:]],
        "plugins": [[name, lag["complete"], lag["behind"], lag["seq"]] for name, lag in story.lags().items()],
        "cost": flat((story.ended or {}).get("cost") or {}), "records": batches.records, "bytes": story.offset,
        "hardest": {_text(name): [[short(value), step, _text(", ".join(map(str, ids)))] for value, step, ids in batches]
                    for name, batches in story.hardest.get("batches", {}).items()},
        "trains": [[_text(cell) for cell in row] for row in cells(story.trains)[: TEXTS]],
        "trainsAt": _step_of(story.trains), "hardestEpoch": story.hardest.get("epoch"),
        "leftOut": sum(len(kind.left_out) for kind in (batches.losses, batches.rates, batches.weights, story.metrics)),
    }  # fmt: skip


def short(value: Any, digits: int = DIGITS) -> float | None:
    """Four significant digits, or so many; None where it is no finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    rounded = float(f"{value:.{digits}g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded


def flat(value: Any, path: str = "", *, most: int = TEXTS, exact: bool = False) -> dict[str, str]:
    """Nested plain data as text by dotted key.

    Args:
        value: the data.
        path: where it stands.
        most: entries, at most.
        exact: quote text that reads as another value, so that values that differ have texts that differ.
    """
    if not isinstance(value, Mapping) or (path and not value):
        return {path: _value(value, exact)}
    found: dict[str, str] = {}
    for key, item in value.items():
        below = flat(item, f"{path}.{key}" if path else _text(key), most=most, exact=exact)
        for name, text in below.items():
            if len(found) < most:
                found[name] = text
    return found


def _value(value: Any, exact: bool) -> str:
    if value is None:
        return "null"
    if isinstance(value, str) and (value != value.strip() or not value or (exact and _reads(value))):
        return json.dumps(value, ensure_ascii=False)
    return _text(value)


def _reads(text: str) -> bool:
    """Whether a text reads as a number, a truth value or the like."""
    return attempt(json.loads, text)[1] is None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        value = "" if value is None else json.dumps(value, ensure_ascii=False)
    text: str = value
    text = text.encode("utf-8", "replace").decode("utf-8")  # half a surrogate pair cannot be written
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def _drawn(column: Column, shared: list[list[int]], *, band: bool = True) -> Plain | None:
    cells = column.ordered()
    if not cells:
        return _with_bad({"x": [], "mean": []}, column) if column.bad_count else None
    xs = [x for x, _ in cells]
    if xs not in shared:
        shared.append(xs)
    low, high = min(cell.low for _, cell in cells), max(cell.high for _, cell in cells)
    size = max(abs(low), abs(high))
    spread = high - low
    if spread <= NOISE * size:
        middle = short(low + spread / 2, POINT)
        return _with_bad({"x": shared.index(xs), "w": column.width, "mean": [middle] * len(cells)}, column)
    digits = DIGITS + math.ceil(max(0.0, math.log10(size) - math.log10(spread) - 1))
    means = [short(cell.sum / cell.n, digits) for _, cell in cells]
    drawn: Plain = {"x": shared.index(xs), "w": column.width, "mean": means}
    if band and column.width > 1:
        drawn["lo"] = [short(cell.low, digits) for _, cell in cells]
        drawn["hi"] = [short(cell.high, digits) for _, cell in cells]
        drawn["at"] = [cell.at - x for x, cell in cells]
    return _with_bad(drawn, column)


def _with_bad(drawn: Plain, column: Column) -> Plain:
    """What is drawn, and where it is not finite."""
    if column.bad_count:
        drawn |= {"bad": column.bad, "badCount": column.bad_count, "badSince": column.bad_since}
    return drawn


def _step_of(data: Plain) -> int | None:
    step = data.get("step")
    return step if type(step) is int else None


def _place(data: Plain, ends: Mapping[int, int | None]) -> int:
    """Where a thing told by epoch stands on the axis of steps; the epoch itself in a run without steps."""
    epoch = count_in(data, "epoch")
    step = _step_of(data)
    step = ends.get(epoch) if step is None else step
    return epoch if step is None else step


def _middle(epoch: int, ends: Mapping[int, int | None]) -> float:
    """Where a mean over an epoch stands: halfway between its ends."""
    end, before = ends.get(epoch), ends.get(epoch - 1, -1 if epoch <= 1 else None)
    if end is None or before is None or before >= end:
        return _place({"epoch": epoch}, ends)
    return (before + 1 + end) / 2


def _by_epoch(story: Story, key: str, ends: Mapping[int, int | None]) -> dict[str, list[list[Any]]]:
    found: dict[str, list[list[Any]]] = {}
    for epoch, values in story.epoch_values(key):
        for name, value in values.items():
            at = _middle(epoch, ends) if key == "losses" else _place({"epoch": epoch}, ends)
            found.setdefault(_text(name), []).append([at, short(value, POINT)])
    scalar = "loss" in story.batches.losses or any(
        not isinstance(each.get("losses"), Mapping | type(None)) for each in story.epochs
    )
    if key == "val_loss" and not scalar:
        for name in TOTAL_NAMES:  # beside components it is their total
            found.pop(name, None)
        found["total"] = [
            [_place({"epoch": epoch}, ends), short(total_of(values), POINT)]
            for epoch, values in story.epoch_values(key)
        ]
    return found


def _evals(story: Story, ends: Mapping[int, int | None]) -> dict[str, list[list[Any]]]:
    """By tag: [step, value, epoch] of each evaluation; of classes the best and the last alone."""
    found: dict[str, list[list[Any]]] = {}
    for each in story.evals:
        for tag, value in each["series"].items():
            kept = found.setdefault(_text(tag), [])
            point = [_place(each, ends), short(value, POINT), count_in(each, "epoch")]
            if tag.startswith("mAP_class") and len(kept) == 2:  # [the best, the last]
                kept[:] = [kept[0] if (kept[0][1] or 0) >= (kept[1][1] or 0) else kept[1], point]
            else:
                kept.append(point)
    return dict(list(found.items())[:1000])


def _alert(data: Plain) -> Plain:
    keys = ("level", "title", "text", "source", "component", "key")
    return {key: _text(data.get(key)) for key in keys} | {
        "title": _text(data.get("title"))[:300], "step": data.get("step"), "epoch": data.get("epoch")}  # fmt: skip


def _about(story: Story) -> dict[str, str]:
    """What the run's first record says besides its name, plan and config: script, host, versions."""
    known = {"name", "config", "options", "epochs", "steps_per_epoch", "resumed", "time"}
    return flat(redact({key: value for key, value in story.start.items() if key not in known and value is not None}))


def _cuts(story: Story) -> list[int]:
    found: set[int] = set()
    for column in story.batches.rates.values():
        cells = column.ordered()
        top = max((cell.high for _, cell in cells), default=0.0)
        for (_, before), (x, after) in pairwise(cells):
            if before.low > 0.02 * top and after.high < CUT * before.low:
                found.add(x)
    return sorted(found)[:20]
