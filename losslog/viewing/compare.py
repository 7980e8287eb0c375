"""Two runs side by side: what was set differently, where they part, what it came to.

Any thread; reads only. Contract:

- Everything is said of the second run against the first.
- Runs are compared by steps, by images seen where their batches are not of one size, by epochs where one has no steps.
- Equal means equal to the last bit in every step that both have; apart is what `losslog.viewing.divergence` says.
"""

from __future__ import annotations

import math
import re
from typing import Any, Final

from losslog.journal.redaction import redact
from losslog.viewing.column import Column
from losslog.viewing.divergence import Point, lasting, why_not
from losslog.viewing.equality import differences
from losslog.viewing.figures import flat
from losslog.viewing.rates import rates
from losslog.viewing.steps import Steps
from losslog.viewing.story import Story

SAME: Final = 0.02  # batches whose sizes differ by less are of one size
MOST: Final = 100_000  # entries of a config
ADDRESS: Final = re.compile(r" at 0x[0-9a-fA-F]+")
Plain = dict[str, Any]
Curves = dict[str, list[Point]]


def compare(one: Story, two: Story) -> Plain:
    """Everything that is said of two runs, as plain data.

    Args:
        one: read.
        two: read; it is compared with ``one``.
    """
    both = (one, two)
    sizes = [_per_step(each.batches) for each in both]
    axis = "images" if min(sizes) > 0 and abs(sizes[0] - sizes[1]) > SAME * max(sizes) else "step"
    if not all(each.batches.steps for each in both):
        axis = "epoch"
    curves = [_curves(story, axis) for story in both]
    shared = [name for name in curves[0] if name in curves[1]]
    if axis == "epoch":
        differ, common, first = _epochs_apart(curves[0], curves[1], shared)
    else:
        differ, common, first = differences(one.path, two.path, shared)
    equal = min(differ.values(), default=common)
    broken = [each for run, story in enumerate(both) for each in _broken(story, axis, run)]
    lost = {each["component"] for each in broken if each["lasting"]}
    start = one.batches.images_at(equal) if differ and axis == "images" else equal
    parted, untold = [], {}
    for name in shared:
        if name not in differ or name in lost:
            continue
        mine, theirs = ([point for point in each[name] if math.isfinite(point[1])] for each in curves)
        if not mine or not theirs:
            continue
        end = min(mine[-1][0], theirs[-1][0])
        gap = lasting(mine, theirs, start, end)
        if gap is not None:
            parted.append({"component": name, "at": round(gap.x), "width": round(gap.width), "change": gap.change})
        elif why := why_not(mine, theirs, start, end):
            untold[name] = why
    told = {*(each["component"] for each in parted), *(each["component"] for each in broken), *untold}
    return {
        "runs": [{"name": each.name, "id": each.id} for each in both], "axis": axis,
        "config": _config(one, two), "equal": equal, "whole": not differ, "common": common, "first": first,
        "shared": shared,
        "apart": sorted(parted, key=lambda each: (each["at"], each["component"])), "not_finite": broken,
        "same": [name for name in shared if name not in differ and name not in told], "untold": untold,
        "together": [name for name in shared if name in differ and name not in told],
        "only": [[name for name in mine if name not in theirs] for mine, theirs in (curves, curves[::-1])],
        "scores": _scores(one, two), **rates(one, two, axis), "data": _data(one, two, sizes),
        "speed": [_pace(each.batches) for each in both],
    }  # fmt: skip


def _broken(story: Story, axis: str, run: int) -> list[Plain]:
    """The components of a run that were NaN or infinite: since when, or from where on and how often."""
    found = []
    if axis == "epoch":
        for name, points in _curves(story, axis).items():
            wrong = [x for x, value in points if not math.isfinite(value)]
            if wrong:
                last = next((x for x, value in reversed(points) if math.isfinite(value)), -1)
                since = next((x for x in wrong if x > last), None)
                found.append((name, since, wrong[0], len(wrong), len(points)))
    else:
        total = {"total": story.batches.total} if not any(each.bad for each in story.batches.losses.values()) else {}
        for name, column in (story.batches.losses | total).items():
            if column.bad_count:
                count = column.bad_count + sum(cell.n for cell in column.cells.values())
                found.append((name, column.bad_since, column.bad[0], column.bad_count, count))
    return [{"run": run, "component": name, "lasting": since is not None, "at": first if since is None else since,
             "first": first, "count": count, "of": of} for name, since, first, count, of in found]  # fmt: skip


def _epochs_apart(one: Curves, two: Curves, names: list[str]) -> tuple[dict[str, int], int, int | None]:
    """As `differences`, of the means of epochs."""
    found: dict[str, int] = {}
    common: set[float] = set()
    for name in names:
        mine, theirs = dict(one[name]), dict(two[name])
        both = sorted(mine.keys() & theirs.keys())
        common |= {*both}
        wrong = [x for x in both if mine[x] != theirs[x] and (mine[x] == mine[x] or theirs[x] == theirs[x])]
        if wrong:
            found[name] = int(wrong[0])
    before = [x for x in common if x < min(found.values(), default=math.inf)]
    return found, len(before), int(min(common)) if common else None


def _per_step(batches: Steps) -> float:
    return batches.images / batches.steps if batches.steps else 0.0


def _curves(story: Story, axis: str) -> Curves:
    """Points by component."""
    if axis == "epoch":
        found: Curves = {}
        for epoch, values in story.epoch_values("losses"):
            for name, value in values.items():
                found.setdefault(name, []).append((epoch, value))
        return found
    return {name: _points(column, story.batches, axis) for name, column in story.batches.losses.items()}


def _points(column: Column, batches: Steps, axis: str) -> list[Point]:
    middle = (column.width - 1) / 2
    where = batches.images_at if axis == "images" else float
    return [(where(x + middle), cell.sum / cell.n) for x, cell in column.ordered()]


def _config(one: Story, two: Story) -> list[list[str | None]]:
    """[key, first, second] of everything that was set differently; where an object lies in memory is no setting."""
    mine, theirs = (_settings(each) for each in (one, two))
    return [[key, mine.get(key), theirs.get(key)] for key in {**mine, **theirs} if mine.get(key) != theirs.get(key)]


def _settings(story: Story) -> dict[str, str]:
    plan = {key: story.start.get(key) for key in ("epochs", "steps_per_epoch")}
    config = redact(story.start.get("config") or {})
    told = config | {key: value for key, value in plan.items() if value is not None and key not in config}
    return {key: ADDRESS.sub("", text) for key, text in flat(told, most=MOST, exact=True).items()}


def _scores(one: Story, two: Story) -> list[Plain]:
    """The last value of every score that both have, in the order of the first run."""
    mine, theirs = (_last(each) for each in (one, two))
    return [
        {"tag": tag, "values": [mine[tag][0], theirs[tag][0]], "epochs": [mine[tag][1], theirs[tag][1]]}
        for tag in mine
        if tag in theirs
    ]


def _last(story: Story) -> dict[str, tuple[float, Any]]:
    return {tag: (value, each.get("epoch")) for each in story.evals for tag, value in each["series"].items()}


def _data(one: Story, two: Story, sizes: list[float]) -> Plain:
    both = (one, two)
    steps, epochs = [each.batches.steps for each in both], [len(each.epochs) for each in both]
    return {"batch": sizes, "images": [each.batches.images for each in both], "steps": steps, "epochs": epochs}


def _pace(batches: Steps) -> float | None:
    """Steps a second while batches came, evaluations and all."""
    if not batches.knots or batches.knots[-1][3] <= batches.began:
        return None
    return batches.steps / (batches.knots[-1][3] - batches.began)
