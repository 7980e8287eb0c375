"""Several optimizers that step in turn on different losses: their series are kept apart.

Training thread. Contract:

- A GAN's two steps become ``g/...`` and ``d/...``, after the modules that each optimizer trains. Names that a model
  gives itself stay as they are where no other optimizer's losses bear them.
- Optimizers that step on the same backward pass (one for the head, one for the rest) are one series, with the learning
  rates of all.
- Optimizers made one after the other over copies of one model (a task each) are one series.
- The total of an epoch whose optimizers step in turn is the mean over all steps.
- The first records wait until that is known: until an optimizer steps for the second time, an epoch ends, or 32 came.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any, Final, NamedTuple

from losslog.control import group_name
from losslog.instrument.optimizers import CROWD
from losslog.instrument.readings import Beside, Computed, Reading
from losslog.instrument.stepper import CLOCK, Stepper, parameters_of
from losslog.instrument.titles import title_of
from losslog.runtime.containment import attempt
from losslog.values.snapshot import learning_rate, resolve

MOST: Final = 32  # records that wait


class Entry(NamedTuple):
    """A step that is to be recorded."""

    stepper: Stepper
    reading: Reading
    lr: Any
    own: Collection[str]  # names that are the model's own
    rates: Any = None  # of all optimizers that stepped with its passes, where there are others


class Series:
    """Puts steps in order, and gives their losses names.

    Args:
        emit: records a step.
        alive: the optimizers there are.
        modules: where names are looked for.

    Attributes:
        settled: whose further steps are recorded as they are, as long as no other optimizer steps.
    """

    def __init__(
        self,
        emit: Callable[[Reading, Any], None],
        alive: Callable[[], Iterable[Stepper]],
        modules: Callable[[], Iterable[Any]],
    ) -> None:
        self._emit, self._alive, self._modules = emit, alive, modules
        self._held: list[Entry] = []
        self.settled: Stepper | None = None
        self._decided = self._apart = False
        self._last: Stepper | None = None
        self._names: dict[Stepper, str] = {}
        self._bearers: dict[str, set[Stepper]] = {}  # which optimizers' steps had a component of that name
        self._elders: dict[Any, list[Stepper]] = {}  # by kind and shapes

    def put(self, entry: Entry) -> None:
        """A step was taken."""
        stepper = entry.stepper
        if not stepper.since:
            self._descends(stepper)
        elder = stepper.elder
        if self._last is elder and self._decided and not self._apart:
            stepper.steps += 1
            self.settled = stepper
            self._emit(entry.reading, entry.lr)
            return
        self.settled = None
        again = self._last is not None and self._last is not elder and elder.steps > 0
        if again and not self._apart and self._last not in _elders(stepper):
            self._apart = self._decided = True
        self._last = elder
        stepper.steps += 1
        for name in entry.reading.keys or ():
            self._bearers.setdefault(name, set()).add(elder)
        self._held.append(entry)
        if self._decided or not self._rivals(stepper) or len(self._held) >= MOST:
            self.flush()
        else:
            self.name_of(stepper)  # as long as its optimizer is there

    def _descends(self, stepper: Stepper) -> None:
        """One that was made after another of its kind had stepped goes on with its series."""
        stepper.since = next(CLOCK)
        optimizer = stepper.ref()
        kind = type(optimizer), *[tuple(each.shape) for each in parameters_of(optimizer)]
        elders = self._elders.setdefault(kind, [])
        elder = next((each for each in elders if each.since < stepper.born), None)
        if elder is None or len(kind) == 1:
            elders.append(stepper)
        else:
            stepper.elder = elder

    def joined(self, stepper: Stepper) -> None:
        """An optimizer has stepped with another one's passes: the steps that wait have the rates of both."""
        for index, each in enumerate(self._held):
            if each.stepper in stepper.partners:
                self._held[index] = each._replace(rates=self.rates(each.stepper, each.lr))

    def rates(self, stepper: Stepper, own: Any = None) -> Any:
        """Learning rates of all optimizers that step on one's passes, by their classes' names; in the order made.

        Args:
            stepper: whose passes.
            own: its rates, where they were read when it stepped.
        """
        found: dict[str, float] = {}
        if len(stepper.partners) >= CROWD:  # one for each parameter
            return rates(stepper.ref()) if own is None else own
        for each in self._alive():
            optimizer = each.ref()
            if optimizer is not None and (each is stepper or each in stepper.partners):
                its = own if each is stepper and own is not None else rates(optimizer)
                kind, count = type(optimizer).__name__, 1
                groups = {f"/{group}": rate for group, rate in its.items()} if isinstance(its, dict) else {"": its}
                while any(f"{kind}{group}" in found for group in groups):
                    count += 1
                    kind = f"{type(optimizer).__name__}_{count}"
                found |= {f"{kind}{group}": rate for group, rate in groups.items() if rate is not None}
        return found or None

    def _rivals(self, stepper: Stepper) -> bool:
        """Whether there are optimizers of which it is not known yet how they go together with this one."""
        return any(each is not stepper and not each.steps and each not in stepper.partners for each in self._alive())

    def flush(self) -> None:
        """Record what waits."""
        held, self._held = self._held, []
        if held:
            together = {held[0].stepper.elder, *_elders(held[0].stepper)}
            if any(each.stepper.elder not in together for each in held):
                self._apart = True
            self._decided = True
        for each in held:
            reading = self._named(each) if self._apart else each.reading
            self._emit(reading, each.lr if each.rates is None else each.rates)

    def _named(self, entry: Entry) -> Reading:
        stepper, reading = entry.stepper, entry.reading
        keys = reading.keys
        if keys is None:
            return _totalled(_prefixed(reading, self.name_of(stepper)), (f"{self.name_of(stepper)}/loss",))
        if all(name in entry.own and len(self._bearers.get(name, ())) < 2 for name in keys):
            return _totalled(reading, keys)
        before = self.name_of(stepper)
        told, weights = tuple(f"{before}/{name}" for name in keys), reading.weights
        if weights is not None:
            plain = weights
            reading = reading._replace(weights=lambda: {f"{before}/{name}": each for name, each in plain().items()})
        if reading.has_total:
            reading = reading._replace(beside=_with_total(reading, f"{before}/total"))
        return _totalled(_prefixed(reading, before), told)

    def name_of(self, stepper: Stepper) -> str:
        """What an optimizer's series are called: after what it trains, else after itself."""
        stepper = stepper.elder
        name = self._names.get(stepper)
        if name is None:
            others = [each for each in self._alive() if each.elder is not stepper]
            base = title_of(stepper, others, [*self._modules()])
            name, count = base, 1
            while name in self._names.values():
                count += 1
                name = f"{base}-{count}"
            self._names[stepper] = name
        return name


def rates(optimizer: Any) -> Any:
    """Learning rates: a number, or numbers by group name; None where they cannot be told."""
    groups = getattr(optimizer, "param_groups", None)
    if groups is None:  # keras; fastai
        return (
            attempt(lambda: float(optimizer.learning_rate))[0]
            or attempt(lambda: learning_rate(optimizer.hypers[-1]["lr"]))[0]
        )
    if len(groups) == 1:
        rate = groups[0].get("lr")
        return rate if type(rate) is float else learning_rate(rate)
    named = {group_name(index, group): group.get("lr") for index, group in enumerate(groups)}
    return learning_rate({name: rate for name, rate in named.items() if rate is not None}) or None


def _prefixed(reading: Reading, before: str) -> Reading:
    """With the names of what was looked at as those of the series are."""
    reach, shares = reading.reach, reading.shares
    reading = reading._replace(alone=None)  # a scalar of theirs is a component of its own
    if reach is not None:
        reading = reading._replace(reach={f"{before}/{name}": reach[name] for name in reach})
    if shares is not None:
        reading = reading._replace(shares=shares._replace(keys=tuple(f"{before}/{name}" for name in shares.keys)))
    return reading


def _elders(stepper: Stepper) -> set[Stepper]:
    """The first of each line of optimizers that step on the same passes."""
    return {each.elder for each in stepper.partners}


def _totalled(reading: Reading, keys: tuple[str, ...]) -> Reading:
    """With these names, and with a total: other steps have other losses, and the epoch's is the mean of theirs."""
    if reading.has_total:
        return reading._replace(keys=keys)
    plain = reading.values

    def compute() -> list[float]:
        values = resolve(plain)
        return [*values, sum(values)]

    return reading._replace(keys=keys, values=Computed(compute), has_total=True)


def _with_total(reading: Reading, name: str) -> Beside:
    """The metrics of a reading, and its total."""
    keys, values = reading.beside or Beside((), [])
    return Beside((*keys, name), Computed(lambda: [*resolve(values), resolve(reading.values)[-1]]))
