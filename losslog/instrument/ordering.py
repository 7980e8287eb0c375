"""One criterion that is called for several losses of one backward pass: ``MSELoss[0]``, ``MSELoss[1]``.

Training thread. Contract:

- Calls are numbered in their order, and each is a component: in training and in validation.
- Accumulation is no such thing: calls of several backward passes, of several batches of a loader, and of a model.
- Where their number changes from step to step, or is large, their sum is the loss; that is said once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from losslog.instrument.readings import Part
from losslog.runtime.notices import say

if TYPE_CHECKING:
    from losslog.instrument.family import Family

MOST: Final = 8  # calls that are told apart
SUM: Final = 0  # they are not, any more


class Ordering:
    """What one optimizer's steps have shown."""

    def __init__(self) -> None:
        self._calls: dict[Family, int] = {}  # of one backward pass; `SUM`: their number has changed

    def apart(self, parts: dict[str, list[Part]]) -> dict[str, list[Part]]:
        """The components of a step, with several calls of a criterion told apart."""
        found: dict[str, list[Part]] = {}
        for name, several in parts.items():
            family = several[0].output.family
            if several[0].output.named or (len(several) == 1 and family not in self._calls):
                found[name] = several
                continue
            numbered = self._numbered(family, several)
            if numbered is None:
                found[name] = several
                continue
            for place, part in numbered:
                names = [*part.output.names]
                names[part.place] = f"{name}[{place}]"
                part.output.names = tuple(names)
                found.setdefault(names[part.place], []).append(part)
        return found

    def _numbered(self, family: Family, several: list[Part]) -> list[tuple[int, Part]] | None:
        """Each call with its number within its backward pass; None where they are one loss."""
        turns: dict[int, list[Part]] = {}
        for part in sorted(several, key=lambda each: each.output.number):
            turns.setdefault(part.turn, []).append(part)
        counts = {len(each) for each in turns.values()}
        known = self._calls.get(family)
        if known == SUM or (known is None and (counts == {1} or not _is_criterion(family, several))):
            return None
        if len(counts) > 1 or known not in (None, *counts) or max(counts) > MOST:
            self._calls[family] = family.apart = SUM
            family.summed = True
            changes = known is not None or len(counts) > 1
            say(
                "%s is called %d times for one backward pass%s: the sum is its loss. To see them apart give each loss "
                "a criterion of its own",
                family.name,
                max(*counts, known or 0),
                ", and not always as often" if changes else "",
            )
            return None
        self._calls[family] = family.apart = max(counts)
        return [(place, part) for each in turns.values() for place, part in enumerate(each)]


def _is_criterion(family: Any, several: list[Part]) -> bool:
    """Whether these are calls of a criterion for different losses: not of a model, nor for the batches of a loader."""
    batches: dict[int, set[int]] = {}
    for part in several:
        batches.setdefault(part.turn, set()).add(part.output.batch)
    outputs = {id(part.output) for part in several}
    return len(outputs) == len(several) and all(len(each) == 1 for each in batches.values()) and not family.parameters()


def name_evaluated(family: Family, name: str, batch: object) -> str:
    """The name that a criterion's loss has in validation: the component's, where it is one in training.

    Args:
        family: the criterion.
        name: of what it gave.
        batch: calls for one batch have the same: they are numbered anew with the next.
    """
    if family.apart:
        if batch != family.batch:
            family.batch, family.evaluated = batch, 0
        name = f"{name}[{family.evaluated % family.apart}]"
        family.evaluated += 1
    return name
