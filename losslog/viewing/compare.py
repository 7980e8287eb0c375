"""Two runs side by side: what was set differently, where they part, what it came to.

Any thread; reads only. Contract:

- Everything is said of the second run against the first.
- Runs are compared by steps, or by images seen where their batches are not of one size.
- Equal means equal to the last bit of every loss of every step; apart is what `losslog.viewing.divergence` says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

from losslog.journal.fences import is_void
from losslog.journal.records import Record
from losslog.journal.redaction import redact
from losslog.journal.scan import blocks, is_batch, record_of, resumes
from losslog.viewing.column import Column
from losslog.viewing.divergence import Point, lasting
from losslog.viewing.figures import flat
from losslog.viewing.steps import Steps
from losslog.viewing.story import Story

SAME: Final = 0.02  # batches whose sizes differ by less are of one size
AP: Final = ("AP", "AP50")
LOSSES: Final = b'"losses": '
STEP: Final = b'"step": '
Plain = dict[str, Any]


def compare(one: Story, two: Story) -> Plain:
    """Everything that is said of two runs, as plain data.

    Args:
        one: read.
        two: read; it is compared with ``one``.
    """
    sizes = [_per_step(each.batches) for each in (one, two)]
    axis = "images" if min(sizes) > 0 and abs(sizes[0] - sizes[1]) > SAME * max(sizes) else "step"
    first, common = first_difference(one.path, two.path)
    equal = common if first is None else first
    curves = [_curves(story, axis) for story in (one, two)]
    start = 0.0 if first is None else place(one.batches, first, axis)
    parted = []
    shared = [name for name in curves[0] if name in curves[1]]
    for name in shared if first is not None else ():
        ends = [points[-1][0] for points in (curves[0][name], curves[1][name]) if points]
        gap = lasting(curves[0][name], curves[1][name], start, min(ends)) if len(ends) == 2 else None
        if gap is not None:
            parted.append({"component": name, "at": round(gap.x), "width": round(gap.width), "change": gap.change})
    return {
        "runs": [{"name": each.name, "id": each.id} for each in (one, two)], "axis": axis,
        "config": _config(one, two), "equal": equal, "whole": first is None, "common": common,
        "apart": sorted(parted, key=lambda each: (each["at"], each["component"])),
        "together": [name for name in shared if name not in {each["component"] for each in parted}],
        "only": [[name for name in mine if name not in theirs] for mine, theirs in (curves, curves[::-1])],
        "scores": _scores(one, two), "rates": _rates(one, two, axis), "data": _data(one, two, sizes),
        "speed": [_pace(each.batches) for each in (one, two)],
    }  # fmt: skip


def first_difference(one: Path, two: Path) -> tuple[int | None, int]:
    """The first step at which the losses of two journals are not the same, and how many steps were compared.

    None where they are the same as far as both go.

    Raises:
        OSError: a journal cannot be read.
    """
    count = 0
    for mine, theirs in zip_longest(_batches(one), _batches(two)):
        if mine is None or theirs is None:
            break
        if _essence(mine) != _essence(theirs):
            ours, other = (record_of(line) for line in (mine, theirs))
            if ours is None or other is None or _told(ours) != _told(other):
                return (count if ours is None else int(ours.data.get("step") or 0)), count
        count += 1
    return None, count


def _told(record: Record) -> tuple[Any, str]:
    losses = record.data.get("losses")
    return record.data.get("step"), repr(sorted(losses.items()) if isinstance(losses, dict) else losses)


def _essence(line: bytes) -> tuple[bytes, bytes]:
    """A batch's step and losses as they are written."""
    step, losses = line.find(STEP), line.find(LOSSES)
    return line[step : line.find(b",", step)], line[losses : line.find(b"}", losses)]


def _batches(path: Path) -> Iterator[bytes]:
    fences = resumes(path)
    for _, piece in blocks(path):
        for line in piece.split(b"\n"):
            if is_batch(line):
                record = record_of(line) if fences else None
                if record is None or not is_void(record, fences):
                    yield line


def _per_step(batches: Steps) -> float:
    return batches.images / batches.steps if batches.steps else 0.0


def place(batches: Steps, step: float, axis: str) -> float:
    """Where a step stands on the axis."""
    if axis == "step" or not batches.knots:
        return step
    before = (-1.0, 0.0)
    for at, _, images, _ in batches.knots:
        if step <= at:
            return before[1] + (step - before[0]) / (at - before[0]) * (images - before[1])
        before = (at, images)
    return before[1] / (before[0] + 1) * (step + 1)


def _curves(story: Story, axis: str) -> dict[str, list[Point]]:
    """Points by component; by epoch where there are no steps."""
    if not story.batches.steps:
        found: dict[str, list[Point]] = {}
        for epoch, values in story.epoch_values("losses"):
            for name, value in values.items():
                found.setdefault(name, []).append((epoch, value))
        return found
    return {name: _points(column, story.batches, axis) for name, column in story.batches.losses.items()}


def _points(column: Column, batches: Steps, axis: str) -> list[Point]:
    middle = (column.width - 1) / 2
    return [(place(batches, x + middle, axis), cell.sum / cell.n) for x, cell in column.ordered()]


def _config(one: Story, two: Story) -> list[list[str | None]]:
    """[key, first, second] of everything that was set differently."""
    mine, theirs = (flat(redact(each.start.get("config") or {})) for each in (one, two))
    for key in ("epochs", "steps_per_epoch"):
        for told, story in ((mine, one), (theirs, two)):
            told.setdefault(key, str(story.start.get(key)))
    return [[key, mine.get(key), theirs.get(key)] for key in {**mine, **theirs} if mine.get(key) != theirs.get(key)]


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


def _rates(one: Story, two: Story, axis: str) -> list[Plain]:
    """By group whose learning rate is not the same: where it begins to differ, and both rates there."""
    found = []
    mine, theirs = (
        {group: _points(column, story.batches, axis) for group, column in story.batches.rates.items()}
        for story in (one, two)
    )
    for group in mine.keys() & theirs.keys():
        values = dict(theirs[group])
        for x, rate in mine[group]:
            other = values.get(x)
            if other is not None and abs(other - rate) > 1e-6 * max(abs(other), abs(rate)):
                found.append({"group": group, "at": round(x), "values": [rate, other]})
                break
    return sorted(found, key=lambda each: str(each["group"]))


def _data(one: Story, two: Story, sizes: list[float]) -> Plain:
    both = (one, two)
    steps, epochs = [each.batches.steps for each in both], [len(each.epochs) for each in both]
    return {"batch": sizes, "images": [each.batches.images for each in both], "steps": steps, "epochs": epochs}


def _pace(batches: Steps) -> float | None:
    """Steps a second while batches came, evaluations and all."""
    if not batches.knots or batches.knots[-1][3] <= batches.began:
        return None
    return batches.steps / (batches.knots[-1][3] - batches.began)


def lines_of(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is said, as (what it is about, the text)."""
    axis = {"step": "step", "images": "image"}[found["axis"]]
    said = parting_of(found) + _score_lines(found["scores"])
    rates = [
        f"{each['group']}: {each['values'][0]:.4g} -> {each['values'][1]:.4g} from {axis} {each['at']}"
        for each in found["rates"]
    ]
    said += [("learning rate", text) for text in rates or ["the same"]]
    for key, what in (("batch", "images a step"), ("steps", "steps"), ("epochs", "epochs")):
        a, b = found["data"][key]
        if a != b:
            said.append(("data", f"{what}: {a:g} -> {b:g}"))
    a, b = found["speed"]
    if a and b:
        said.append(("speed", f"{a:.3g} -> {b:.3g} steps/s ({100 * (b / a - 1):+.0f} %)"))
    return said


def parting_of(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The part of it that says what was set differently, and where the losses part."""
    said = [("config", f"{key}: {_absent(a)} -> {_absent(b)}") for key, a, b in found["config"]]
    said = said or [("config", "the same")]
    if found["whole"]:
        said.append(("losses", f"equal to the last bit in all {found['common']} steps that both have"))
    elif found["common"]:
        said.append(("losses", f"equal to the last bit before step {found['equal']}"))
    else:
        said.append(("losses", "not equal from the first step on"))
    things = {"step": "steps", "images": "images"}[found["axis"]]
    for each in found["apart"]:
        where = f"{things[:-1]} {each['at']} (a block is {each['width']} {things})"
        said.append((each["component"], f"apart for good from {where}, {100 * each['change']:+.0f} % at the end"))
    rest = found["together"]
    if rest and not found["whole"]:
        count = f"the other {len(rest)}" if found["apart"] else f"all {len(rest)}"
        said.append((", ".join(rest) if len(rest) <= 2 else count, "no lasting gap"))
    for names, run in zip(found["only"], found["runs"], strict=True):
        if names:
            said.append((", ".join(names[:6]), f"only in {run['name']} {run['id']}"))
    return said


def _absent(text: str | None) -> str:
    return "(not set)" if text is None else text


def _score_lines(scores: list[Plain]) -> list[tuple[str, str]]:
    """Overall scores, and of the classes those that changed most."""
    said = []
    for each in scores:
        a, b = each["values"]
        overall = each["tag"].startswith("mAP") and not each["tag"].startswith("mAP_class")
        if overall and each["tag"].endswith("_AP"):
            when = (
                ""
                if each["epochs"][0] == each["epochs"][1]
                else f", epochs {each['epochs'][0]} and {each['epochs'][1]}"
            )
            said.append((each["tag"], f"{a:.3f} -> {b:.3f} ({100 * (b - a):+.1f}){when}"))
        elif not each["tag"].startswith("mAP"):
            said.append((each["tag"], f"{a:.4g} -> {b:.4g}"))
    classes = [each for each in scores if each["tag"].startswith("mAP_class")]
    classes.sort(key=lambda each: -abs(each["values"][1] - each["values"][0]))
    most = [each for each in classes[:4] if abs(each["values"][1] - each["values"][0]) >= 0.01]
    if most:
        told = [
            f"{each['tag'].partition('/')[2]} {100 * (each['values'][1] - each['values'][0]):+.1f}" for each in most
        ]
        said.append(("by class", ", ".join(told)))
    return said
