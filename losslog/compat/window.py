"""The window of accumulation: what was logged since the last optimizer step, on its way to one record.

Training thread; values that are on a device are computed with on the drain thread. Contract:

- Losses and metrics are means over the batches that had them. What the framework was told by name goes before what was
  seen of modules.
- The total is the sum of what ``backward`` was called on, without a GradScaler's scale, times what the framework
  divides by; else what the framework calls the loss.
- Nothing waits for a device, and no graph is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from torch import Tensor

from losslog.compat.naming import is_loss, is_number, plain_name
from losslog.instrument.readings import REST, Beside, Computed, Reading, staged
from losslog.instrument.roots import Root
from losslog.values.means import mean_of
from losslog.values.snapshot import Keys, Staged, resolve, snapshot
from losslog.values.totals import TOTAL_NAMES

MOST: Final = 1000
TOTALS: Final = frozenset(TOTAL_NAMES)
FLOAT: Final = {float}
_new: Final = tuple.__new__  # of a named tuple: without a call of Python's
Numbers = list[float] | Staged
Values = tuple[Keys, Numbers]


class Window:
    """Collects until a step is taken.

    Attributes:
        divided: what the framework divides a loss by before backward.
        batches: since the last step.
        hears: whether the total is what ``backward`` was called on.
        full: whether the step is being taken: backward passes from now on are not counted (LBFGS looks again).
    """

    def __init__(self) -> None:
        self.divided, self.hears = 1, True
        self._known: set[tuple[str, ...]] = set()  # sets of names that were looked at
        self._short: dict[str, str] = {}  # names of losses, and what they are called here
        self._now: dict[str, Any] = {}
        self._beside: dict[str, Any] = {}
        self._clear()

    def _clear(self) -> None:
        self.batches, self.full = 0, False
        self._roots: list[Root] = []
        self._losses: list[Values] = []
        self._totals: list[Values] = []
        self._metrics: list[Values] = []

    def backward(self, root: Root) -> None:
        """A backward pass has ended."""
        if self.hears and not self.full:
            self._roots.append(root)

    @property
    def heard(self) -> bool:
        """Whether a backward pass was heard since the last step."""
        return bool(self._roots)

    @property
    def named(self) -> bool:
        """Whether the framework has named components since the last step."""
        return bool(self._losses)

    def value(self, name: str, value: Any) -> None:
        """Something was logged in this batch: a loss or a metric."""
        number = value if type(value) is float else _read(value)
        if number is None:
            return
        short = self._short.get(name)
        if short is None:
            short = plain_name(name)
            if (short in TOTAL_NAMES or is_loss(short)) and len(self._short) < MOST:
                self._short[name] = short
            elif not is_loss(short, value):
                self._beside[name] = number
                return
        self._now[short] = number

    def batch(self, losses: Any = None, metrics: Mapping[str, Any] | None = None) -> None:
        """A batch is over.

        Args:
            losses: components by name, perhaps with their total, or one loss; beside what `value` was told.
            metrics: logged with the step.
        """
        if losses is not None:
            self._now |= losses if isinstance(losses, Mapping) else {"loss": losses}
        now, self._now = self._now, {}
        beside, self._beside = self._beside | dict(metrics or {}), {}
        self.batches += 1
        totals = TOTALS & now.keys()
        if totals:
            whole = next(name for name in TOTAL_NAMES if name in totals)
            self._totals.append(self._numbers({whole: now[whole]}))
            now = {name: value for name, value in now.items() if name not in totals}
        if now:
            self._losses.append(self._numbers(now))
        if beside:
            self._metrics.append(self._numbers(beside, "metrics"))

    def _numbers(self, values: dict[str, Any], name: str = "losses") -> Values:
        keys = tuple(values)
        if keys in self._known and set(map(type, values.values())) == FLOAT:
            return keys, list(values.values())
        found = snapshot(values, name=name)
        if len(self._known) < MOST:
            self._known.add(keys)
        return found

    def take(self, seen: Sequence[tuple[str, Reading]]) -> Reading | None:
        """What the step was made of; None where nothing was said of it.

        Args:
            seen: what modules gave, by optimizer; the names of several come with what to put before them.
        """
        if len(seen) == 1 and self.batches == 1 == len(self._roots) and (found := self._alone(seen[0][1])) is not None:
            return found
        n, total, weights = max(self.batches, 1), None, None
        whole = self.divided in (1, n)
        if self._roots:
            total = _total(self._roots, 1.0 if whole else self.divided / n)
        elif self._totals:
            total = _means(self._totals)[1]
        keys, values = _means(self._losses) if self._losses else (None, [])
        beside = _means(self._metrics) if self._metrics else None
        parts = [(before, each) for before, each in seen if each.keys] if keys is None else []
        if parts:
            keys = tuple(f"{before}/{name}" if before else name for before, each in parts for name in each.keys or ())
            values = Computed(lambda: [x for _, each in parts for x in resolve(each.values)[: len(each.keys or ())]])
            weights = parts[0][1].weights if whole and len(parts) == 1 else None
            more = [each.beside for _, each in parts if each.beside is not None]
            beside = more[0] if beside is None and more else beside
        heard = bool(self._roots)
        self._clear()
        if total is None and keys is None:
            return None
        if total is not None:
            values = _joined(values, total)
        if weights is None and (parts or heard):
            weights = dict  # not known; nobody gave a total that could be another than they add up to
        return Reading(keys, values, keys is not None and total is not None, n, weights, beside and Beside(*beside))

    def _alone(self, reading: Reading) -> Reading | None:
        """A step of one batch of which the framework said nothing: what was seen of it as it is."""
        keys, values, has_total, n, weights, beside = reading[:6]
        if not has_total or n != 1 or self.divided != 1 or self._losses or self._totals or self._metrics:
            return None
        self._clear()
        return _new(Reading, (keys, values, True, 1, weights, beside, *REST[1:]))


def _read(value: Any) -> Any:
    """A number as it is now, whatever the loop does to its tensor afterwards; on a device a copy there; else None."""
    if type(value) is Tensor and value.is_cpu and not value.dim() and value.is_floating_point():
        return value.tolist()
    if not is_number(value):
        return None
    if not hasattr(value, "detach"):
        return value
    value = value.detach()
    return value.reshape(()).tolist() if value.is_cpu else value.clone()


def _means(several: Sequence[Values]) -> tuple[tuple[str, ...], Numbers]:
    """Means by name over the batches that had it."""
    if len(several) == 1:
        return several[0][0] or (), several[0][1]
    names = tuple(dict.fromkeys(name for keys, _ in several for name in keys or ()))

    def compute() -> list[float]:
        found = mean_of([dict(zip(keys or (), resolve(values), strict=True)) for keys, values in several])
        assert isinstance(found, dict)
        return [found[name] for name in names]

    return names, compute() if all(type(values) is list for _, values in several) else Computed(compute)


def _total(roots: Sequence[Root], factor: float) -> Numbers:
    if all(type(each.value) is float and type(each.scale) is float for each in roots):
        return [factor * sum(each.value / each.scale for each in roots)]
    numbers = staged([each for root in roots for each in (root.value, root.scale)])

    def compute() -> list[float]:
        found = resolve(numbers)
        return [factor * sum(value / scale for value, scale in zip(found[::2], found[1::2], strict=True))]

    return Computed(compute)


def _joined(first: Numbers, second: Numbers) -> Numbers:
    if type(first) is list and type(second) is list:
        return [*first, *second]
    return Computed(lambda: [*resolve(first), *resolve(second)])
