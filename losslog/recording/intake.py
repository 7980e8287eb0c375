"""What a training thread leaves in the queue, and its first stop on the drain thread: values become floats.

Drain thread only. Contract:

- Values are waited for here, whole totals are recognised here, and non-finite losses are noticed here: on every rank.
- What becomes of a batch is the subclass's business: `losslog.recording.drain.Drain` records it,
  `losslog.ranks.joining.Sender` hands it to the logging rank.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from losslog.runtime.containment import attempt, long_form
from losslog.runtime.notices import warn
from losslog.runtime.pace import Pace
from losslog.values.losses import Losses, close, find_total, total_of
from losslog.values.means import EpochMeans
from losslog.values.snapshot import Keys, Later, Staged, resolve


class Batch(NamedTuple):
    """One `Run.log_batch`, as the training thread left it."""

    time: float
    step: int
    epoch: int
    keys: Keys
    values: list[float] | Staged
    has_total: bool
    lr: Any
    batch_size: int | None
    n: int
    stepped: bool = True  # False: forward passes without an optimizer step, which become no record
    counted: bool = True  # False: they do not count in the epoch's means either


class Event(NamedTuple):
    """Any other hook call: its data is plain already, but for metrics that may be `Later`."""

    time: float
    hook: str
    data: dict[str, Any]


class Question:
    """Asks for the epoch means as they are after everything queued before.

    Attributes:
        answered: set when `means` is there.
    """

    def __init__(self) -> None:
        self.answered = threading.Event()
        self.means: Losses | None = None


class Share:
    """One rank's part of one batch.

    Args:
        losses: components, or one float.
        total: the batch's total.
        given: whether the loop gave that total itself.
        about: time, step, lr, batch_size and n.
    """

    def __init__(self, losses: Losses, total: float, given: bool, about: dict[str, Any]) -> None:
        self.losses, self.total, self.given, self.about = losses, total, given, about

    @classmethod
    def of(cls, batch: Batch, losses: Losses, total: float, given: bool) -> Share:
        """This rank's part."""
        about = {"time": batch.time, "step": batch.step, "lr": batch.lr, "batch_size": batch.batch_size, "n": batch.n}
        return cls(losses, total, given, about)

    def plain(self) -> list[Any]:
        """As JSON."""
        return [self.losses, self.total, self.given, self.about]


class Intake:
    """Turns items into floats and passes them on.

    Args:
        culprit: told the step of a non-finite loss; gives what is known of that batch, for the alert.
    """

    def __init__(self, culprit: Callable[[int], str]) -> None:
        self.pace = Pace(active=True, urgent=True)
        self.means = EpochMeans()
        self.last_means: Losses | None = None
        self._questions: list[Question] = []
        self._culprit = culprit
        self._totals: dict[tuple[str, ...], str | None] = {}
        self._told: set[str] = set()

    def take(self, items: Sequence[Any]) -> None:
        """Process items in order, and pass on what they give."""
        self.pace.fresh()
        for item in items:
            _, error = attempt(self._take, item)
            if error is not None:  # a defect of ours costs this item, not those beside it
                self.once("internal error while recording, something is missing:\n%s", long_form(error))
            self.pace.rest()
        self.pass_on()
        for question in self._questions:
            question.answered.set()
        self._questions.clear()

    def pass_on(self) -> None:
        """Write, or hand over, what the items gave; then their questions are answered."""
        raise NotImplementedError

    def _take(self, item: Any) -> None:
        if isinstance(item, Batch):
            self._batch(item)
        elif isinstance(item, Event):
            data = item.data
            if isinstance(data.get("metrics"), Later):
                item = item._replace(data=data | {"metrics": data["metrics"].now()})
            self.on_event(item)
        else:
            self.answer(item)

    def on_batch(self, batch: Batch, losses: Losses, total: float, given: bool) -> None:
        """A batch has come, its total ``given`` by the loop or summed up."""
        raise NotImplementedError

    def on_event(self, event: Event) -> None:
        """Any other call has come."""
        raise NotImplementedError

    def answer(self, question: Question) -> None:
        """Answer a `Question`."""
        question.means = self.means.result()[0] if self.means.batches else self.last_means
        self._questions.append(question)

    def _batch(self, item: Batch) -> None:
        values = resolve(item.values)
        total = values[-1] if item.has_total else None
        losses: Losses
        if item.keys is None:
            losses = values[0]
        else:
            losses = dict(zip(item.keys, values, strict=False))
            losses, total = self.without_total(item.keys, losses, total)
        parts = total_of(losses)
        whole = parts if total is None else total
        if total is not None and not close(whole, parts):
            self.once("the total given (%.6g) is not the sum of the components (%.6g): it is kept", whole, parts)
        if item.counted:
            self.means.add(losses, whole, total is not None, item.n)
        if self.means.mixed:
            self.once("dict and scalar losses mix in one epoch: the epoch's losses are those of the dicts")
        if item.stepped:
            self.on_batch(item, losses, whole, total is not None)
        if not math.isfinite(parts + whole):
            self._not_finite(item, losses, whole)

    def without_total(
        self, keys: tuple[str, ...], losses: dict[str, float], total: float | None
    ) -> tuple[dict[str, float], float | None]:
        """Take a component that is the sum of the others as the total."""
        if keys not in self._totals:
            try:
                self._totals[keys] = find_total(losses)
            except ValueError as error:  # only values on a device come so far: the caller is told late, but told
                self.once("%s. The component is left out", error)
                self._totals[keys] = "total"
                return {name: value for name, value in losses.items() if name != "total"}, total
            if self._totals[keys] is not None:
                self.once("losses[%r] is the sum of the others: taken as the total", self._totals[keys])
        name = self._totals[keys]
        if name is not None:
            own = losses.pop(name)
            total = own if total is None else total
        return losses, total

    def _not_finite(self, item: Batch, losses: Losses, total: float) -> None:
        named = losses if isinstance(losses, dict) else {"loss": losses}
        bad = {name: value for name, value in named.items() if not math.isfinite(value)} or {"total": total}
        for name, value in bad.items():
            text = f"{name} is {value} at step {item.step} (epoch {item.epoch})."
            data = {
                "level": "error", "title": f"{name} is {value}", "source": "losslog", "step": item.step,
                "text": " ".join(filter(None, [text, self._culprit(item.step)])), "epoch": item.epoch,
                "component": name if item.keys is not None else None, "key": f"non_finite/{name}",
            }  # fmt: skip
            self.on_event(Event(item.time, "on_alert", data))

    def once(self, text: str, *args: Any) -> None:
        """Warn about a topic, the first time it comes up."""
        if text not in self._told:
            self._told.add(text)
            warn(text + " (said once)", *args)
