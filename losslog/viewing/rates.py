"""Where the learning rates of two runs part.

No thread, no I/O. Contract:

- A rate is the same where both runs have it within `EQUAL`, however many steps a cell of either has.
- What a run did not log is not called the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from losslog.journal.records import count_in
from losslog.viewing.column import number
from losslog.viewing.story import Story

EQUAL: Final = 1e-6  # of the larger


class Span(NamedTuple):
    """A rate over some steps, images or an epoch.

    Attributes:
        start: where it begins.
        end: where the next begins.
        low: the lowest.
        high: the highest.
        mean: of it.
        n: how many values.
    """

    start: float
    end: float
    low: float
    high: float
    mean: float
    n: int


def rates(one: Story, two: Story, axis: str) -> dict[str, Any]:
    """By group where the learning rates begin to differ; which groups a single run has.

    Args:
        one: a run, read.
        two: the other.
        axis: ``step``, ``images`` or ``epoch``.
    """
    mine, theirs = (_spans(each, axis) for each in (one, two))
    found = []
    for group in sorted(mine.keys() & theirs.keys()):
        parting = _parting(mine[group], theirs[group], axis)
        if parting is not None:
            found.append({"group": group, "at": round(parting[0]), "values": [*parting[1:]]})
    only = [sorted(one.keys() - two.keys()) for one, two in ((mine, theirs), (theirs, mine))]
    return {"rates": found, "rates_only": only, "rates_both": sorted(mine.keys() & theirs.keys())}


def _spans(story: Story, axis: str) -> dict[str, list[Span]]:
    found: dict[str, list[Span]] = {}
    if axis == "epoch":
        for each in story.epochs:
            given, epoch = each.get("lr"), count_in(each, "epoch")
            for group, value in (given if isinstance(given, Mapping) else {"lr": given}).items():
                if value is not None:
                    rate = number(value)
                    found.setdefault(group, []).append(Span(epoch, epoch + 1, rate, rate, rate, 1))
        return found
    where = story.batches.images_at if axis == "images" else float
    for group, column in story.batches.rates.items():
        if column.cells:
            found[group] = [
                Span(where(x), where(x + column.width), cell.low, cell.high, cell.sum / cell.n, cell.n)
                for x, cell in column.ordered()
            ]
    return found


def _parting(one: list[Span], two: list[Span], axis: str) -> tuple[float, float, float] | None:
    """Where two rates begin to differ, and both there."""
    place = 0
    for span in one:
        while place < len(two) and two[place].end <= span.start:
            place += 1
        at = place
        while at < len(two) and two[at].start < span.end:
            reach = axis == "images"  # a cut falls between two images, and batches end elsewhere
            near = two[max(0, at - reach) : at + 1 + reach]
            if _differ(span, two[at], min(each.low for each in near), max(each.high for each in near)):
                return max(span.start, two[at].start), span.mean, two[at].mean
            at += 1
    return None


def _differ(one: Span, two: Span, low: float, high: float) -> bool:
    least = EQUAL * max(abs(one.low), abs(one.high), abs(low), abs(high))
    if one.low - high > least or low - one.high > least:
        return True
    return one[:2] == two[:2] and one.n == two.n and low == two.low and abs(one.mean - two.mean) > least
