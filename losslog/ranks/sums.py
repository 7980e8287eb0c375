"""One batch over several ranks, as it is handed on: sums, counts, and the smallest and the largest with their ranks.

No thread, no I/O. Contract:

- Whatever is joined first, the means and the spread are those over all ranks that had the component.
- Scalars count only where no rank had losses by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from losslog.values.losses import Losses
from losslog.values.totals import Whole

VALIDATED: Final = "validated"
"""Among the sums of an epoch: validation losses that were heard."""
SUM, COUNT, LEAST, LEAST_AT, MOST, MOST_AT = range(6)


class Share(NamedTuple):
    """One rank's part of one batch; it travels as a JSON list.

    Attributes:
        losses: components, or one float.
        total: the batch's total.
        given: whether the loop gave that total itself.
        about: time, step, lr, batch_size, n, and weights where autograd told them.
    """

    losses: Losses
    total: float
    given: bool
    about: dict[str, Any]

    @classmethod
    def of(cls, batch: Any, whole: Whole, weights: Mapping[str, float] | None = None) -> Share:
        """This rank's part of a `losslog.recording.items.Batch`."""
        about = {key: getattr(batch, key) for key in ("time", "step", "lr", "batch_size", "n")}
        return cls(whole.losses, whole.total, whole.given, about | {"weights": weights})


class Sums(NamedTuple):
    """What several ranks had of one batch; it travels as a JSON list.

    Attributes:
        parts: by component the sum, how many ranks had it, the smallest and its rank, the largest and its rank; of
            scalars under "".
        total: the sum of the totals.
        given: whether any loop gave its total itself.
        about: of the first rank, as `Share.about`.
        ranks: how many they are.
    """

    parts: dict[str, list[Any]]
    total: float
    given: bool
    about: dict[str, Any]
    ranks: int = 1

    @classmethod
    def of(cls, rank: int, share: Share) -> Sums:
        """One rank's."""
        named = share.losses if isinstance(share.losses, dict) else {"": share.losses}
        parts = {name: [value, 1, value, rank, value, rank] for name, value in named.items()}
        return cls(parts, share.total, share.given, share.about)

    def result(self) -> tuple[Losses, float, dict[str, list[float]]]:
        """(losses, total, spread) over the ranks that had each component."""
        parts = {name: part for name, part in self.parts.items() if name} or self.parts
        means = {name: part[SUM] / part[COUNT] for name, part in parts.items()}
        spread = {name or "loss": [part[LEAST], part[MOST]] for name, part in parts.items()}
        losses: Losses = means.get("", means)
        mixed = len(parts) < len(self.parts)
        total = self.total / self.ranks if self.given or mixed else sum(means.values())
        return losses, total, spread


def sums_in(rank: int, word: Mapping[str, Any]) -> tuple[int, int, Sums] | None:
    """(epoch, index of the batch in it, sums) of a rank's word about a batch; None for any other word."""
    if "batch" in word:
        epoch, index, *rest = word["batch"]
        return epoch, index, Sums.of(rank, Share(*rest))
    if "sums" in word:
        epoch, index, *rest = word["sums"]
        return epoch, index, Sums(*rest)
    return None


def join(several: Iterable[Sums]) -> Sums:
    """All of them as one; what is about the batch is the first one's."""
    first, *others = several
    parts = {name: part.copy() for name, part in first.parts.items()}
    total, given, ranks = first.total, first.given, first.ranks
    for other in others:
        total, given, ranks = total + other.total, given or other.given, ranks + other.ranks
        for name, part in other.parts.items():
            mine = parts.get(name)
            if mine is None:
                parts[name] = part.copy()
                continue
            mine[SUM] += part[SUM]
            mine[COUNT] += part[COUNT]
            if part[LEAST] < mine[LEAST]:
                mine[LEAST], mine[LEAST_AT] = part[LEAST], part[LEAST_AT]
            if part[MOST] > mine[MOST]:
                mine[MOST], mine[MOST_AT] = part[MOST], part[MOST_AT]
    return Sums(parts, total, given, first.about, ranks)


def validation(losses: Losses) -> dict[str, list[Any]]:
    """Validation losses of one rank: each, or a scalar under "", and that one rank had it."""
    return {name: [value, 1] for name, value in (losses if isinstance(losses, dict) else {"": losses}).items()}


def validations(several: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Those of several ranks: sums, and how many had it."""
    found: dict[str, list[Any]] = {}
    for each in several:
        for name, (value, count) in each.items():
            mine = found.setdefault(name, [0.0, 0])
            mine[SUM] += value
            mine[COUNT] += count
    return found


def val_loss_of(found: Mapping[str, Any]) -> Losses | None:
    """Their means, or None."""
    means = {name: each[SUM] / each[COUNT] for name, each in found.items() if name or len(found) == 1}
    return means.get("", means) if means else None
