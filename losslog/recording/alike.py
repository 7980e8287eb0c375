"""Batches that are alike, many at a time: what each alone would become, in half the time.

Drain thread. Contract:

- Only what nearly every loop logs: named floats, none of them a total or a metric, nothing said of ranks, weights or
  sizes. The rest goes the careful way, one by one.
- Nothing is changed here: batches that turn out to be otherwise have left no trace.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain, count, islice
from typing import Any, Final, NamedTuple

from losslog.journal.records import Record, template_of
from losslog.recording.items import Batch, Item
from losslog.values.snapshot import resolve
from losslog.values.totals import Totals, agree

AT_ONCE: Final = 32  # half a millisecond of work
_REST: Final = (None, 1, True, True, None, None)  # what a `Batch` says beside its values and its learning rate
_RATES: Final = ({float}, {type(None)})


class Alike(NamedTuple):
    """Batches, told apart.

    Attributes:
        fresh: each as a record, with its line.
        columns: the values of each component.
        totals: one of each batch.
        given: whether the loop said what they are.
    """

    fresh: list[tuple[Record, bytes]]
    columns: dict[str, Sequence[float]]
    totals: Sequence[float]
    given: bool


def alike(hand: Sequence[Item], seq: int, rule: Totals) -> Alike | None:
    """The batches at the front that are alike; None where there are not several.

    Args:
        hand: what waits.
        seq: of the first record.
        rule: knows which names are components.
    """
    found: list[Any] = []
    for item in islice(hand, AT_ONCE):
        if type(item) is not Batch or item[7:] != _REST or (found and item[3:6:2] != found[0][3:6:2]):
            break
        found.append(item)
    if len(found) < 2 or not rule.knows(names := found[0].keys):
        return None
    times, steps, epochs, _, several, givens, rates, *_ = zip(*found, strict=True)
    rows = [resolve(values)[: len(names)] for values in several]
    totals = sums = list(map(sum, rows))
    if givens[0]:
        totals = [resolve(values)[-1] for values in several]
        for row, total, its in zip(rows, totals, sums, strict=True):
            if not agree(total, its):
                rule.whole(dict(zip(names, row, strict=True)), total)  # which says so, once
                break
    tails = list(zip(totals) if rates[0] is None else zip(totals, rates, strict=True))
    numbers = [*sums, *chain.from_iterable(tails)]
    if set(map(type, rates)) not in _RATES or set(map(type, chain(numbers, *rows))) != {float}:
        return None
    fields = ("step", "epoch", "losses", "total", "lr")[: 3 + len(tails[0])]
    template = template_of(fields, names)
    if template is None or "\\ud" in template or not all(map(math.isfinite, numbers)):
        return None
    fresh = []
    for number, at, step, epoch, row, tail in zip(count(seq), times, steps, epochs, rows, tails, strict=False):
        data = dict(zip(fields, (step, epoch, dict(zip(names, row, strict=True)), *tail), strict=True))
        line = template % (number, at, step, epoch, *row, *tail)
        fresh.append((Record(number, at, "on_batch_losses", data), line.encode("ascii")))
    return Alike(fresh, dict(zip(names, zip(*rows, strict=True), strict=True)), totals, givens[0])
