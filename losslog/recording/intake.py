"""The queue between the training thread and the drain thread, and its first stop there: values become floats.

`Queue.put` is called on the training thread and by lanes, all else on the drain thread. Contract:

- The queue is bounded: beyond its limit everything but `KEPT` is dropped and counted.
- Values are waited for here, totals are told apart here, and non-finite losses are noticed here: on every rank.
- What becomes of a batch is the subclass's business: `losslog.recording.drain.Drain` records it,
  `losslog.recording.sender.Sender` hands it to the logging rank.
"""

from __future__ import annotations

import copy
import math
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, Self

from losslog.recording.alike import AT_ONCE
from losslog.recording.items import Batch, Event, Item, Question
from losslog.runtime.containment import attempt, long_form
from losslog.runtime.notices import Once
from losslog.runtime.pace import Bell, Pace
from losslog.values.losses import Losses
from losslog.values.snapshot import Later, Staged
from losslog.values.totals import EpochMeans, Totals, Whole, told

QUEUE_LIMIT: Final = 200_000  # batches; at 0.5 kB each 100 MB, where a disk hangs
PATIENCE: Final = 1.0  # seconds after which more batches have come than are being recorded: no time for rests
KEPT: Final = frozenset({"on_run_start", "on_resume", "on_epoch_end", "on_alert", "on_run_end", "request"})


class Queue:
    """Items the drain thread has not taken yet.

    Attributes:
        items: in order.
        bell: set when they should not wait for the drain's next turn.
        lost: batches that were refused.
        lost_others: anything else that was.
        steps: batches logged; the training thread counts them here.
        components: names that are losses though they sound like metrics.
        targets: whether batches come with their targets.
    """

    def __init__(self, components: Collection[str] = ()) -> None:
        self.components, self.targets = components, False
        self.items: deque[Item] = deque()
        self.bell = Bell()
        self.lost = self.lost_others = 0
        self.steps = 0
        self._in_hand, self._turn_began = 0, 0.0

    def put_batch(self, batch: Batch) -> None:
        """Queue a batch; it is recorded at the drain's next turn."""
        if len(self.items) < QUEUE_LIMIT:
            self.items.append(batch)
        else:
            self.lost += 1

    def put(self, item: Event | Question) -> None:
        """Queue something else, and have it recorded soon."""
        if len(self.items) >= QUEUE_LIMIT and type(item) is Event and item.hook not in KEPT:
            self.lost_others += 1
            return
        self.items.append(item)
        self.bell.set()

    def take(self) -> list[Item]:
        """Everything that is waiting."""
        found = [self.items.popleft() for _ in range(len(self.items))]
        self._in_hand, self._turn_began = len(found), time.monotonic()
        return found

    def pressed(self) -> bool:
        """Whether the loop is faster than the drain with its rests."""
        return len(self.items) > self._in_hand and time.monotonic() - self._turn_began > PATIENCE


class Intake(ABC):
    """Turns items into floats and passes them on.

    Args:
        queue: where they come from.
        culprit: told the step of a non-finite loss; gives what is known of that batch, for the alert.

    Attributes:
        totals: the rule of the total.
        end: length of the journal that this process writes.
        waiting_for: ranks that have yet to say goodbye.
        patience: for how much of the time for closing they are waited for.
        hand: items that were taken and are still to be dealt with.
    """

    end: int = 0
    patience: float = 1.0
    waiting_for: Sequence[int] = ()

    def __init__(self, queue: Queue, culprit: Callable[[int], str]) -> None:
        self.pace = Pace(active=True, urgent=True, pressed=queue.pressed)
        self.means, self._told_of = EpochMeans(), frozenset[str]()
        self.last_means: Losses | None = None
        self.once = Once()
        self.queue, self._culprit = queue, culprit
        self.totals = Totals(self.once, queue.components)
        self._questions: list[Question] = []
        self.hand: deque[Item] = deque()
        self._kinds: dict[type, Callable[[Any], None]] = {
            Batch: self._batch, Event: self._event, Question: self._question}  # fmt: skip

    def take(self, items: Sequence[Item]) -> None:
        """Process items in order, and pass on what they give."""
        self.pace.fresh()
        hand, careful = deque(items), 0
        self.hand = hand
        while hand:
            if careful or len(hand) < 2 or not attempt(self.several, hand)[0]:
                careful = (careful or AT_ONCE) - 1
                item = hand.popleft()
                _, error = attempt(self._kinds[type(item)], item)
                if error is not None:  # a defect of ours costs this item, not those beside it
                    self.once("internal error while recording, something is missing:\n%s", long_form(error))
            if self.means.mixed:
                self.once("dict and scalar losses mix in one epoch: the epoch's losses are those of the dicts, its "
                          "total of all its batches")  # fmt: skip
            self.pace.rest()
        self.pass_on()
        for question in self._questions:
            question.answered.set()
        self._questions.clear()

    def twin(self) -> Self:
        """A copy that goes on from here on its own, and touches nothing of this one's."""
        other = copy.copy(self)
        other.means, other.pace = copy.deepcopy(self.means), Pace(active=False)
        other.queue = Queue(self.queue.components)
        other._questions = []
        other._kinds = {Batch: other._batch, Event: other._event, Question: other._question}
        return other

    # ------------------------------------------------------------------ what becomes of them

    def several(self, hand: deque[Item]) -> bool:
        """Take batches at the front that are alike, at once; False where they are not, and nothing was done."""
        return False

    @abstractmethod
    def on_batch(self, batch: Batch, whole: Whole, weights: Mapping[str, float] | None) -> None:
        """A batch has come, with those weights that are not 1 where autograd told them."""

    @abstractmethod
    def on_event(self, event: Event) -> None:
        """Any other call has come."""

    @abstractmethod
    def pass_on(self) -> None:
        """Write, or hand over, what the items gave; then their questions are answered."""

    @abstractmethod
    def close(self, deadline: float) -> None:
        """Nothing more comes: let nothing wait, within a time on the monotonic clock."""

    @abstractmethod
    def spill(self, items: Sequence[Item]) -> None:
        """The disk hangs, and time is up: save elsewhere what these give, and what waits for it; closing thread."""

    def figures(self) -> dict[str, Any]:
        """What `losslog.Run.stats` says of it."""
        return {"dropped": self.queue.lost, "dropped_others": self.queue.lost_others, "records": 0, "unwritten": 0,
                "journal": "", "journal_bytes": self.end, "seq": -1}  # fmt: skip

    def take_means(self) -> EpochMeans:
        """The sums of the epoch that ends; a new one begins."""
        means, self.means = self.means, EpochMeans()
        return means

    # ------------------------------------------------------------------ items

    def _question(self, question: Question) -> None:
        question.means = self.means.result()[0] if self.means.batches else self.last_means
        self._questions.append(question)

    def _event(self, event: Event) -> None:
        metrics = event.data.get("metrics")
        if type(metrics) is Later:
            event = event._replace(data=event.data | {"metrics": metrics.now()})
        self.on_event(event)

    def _batch(self, item: Batch) -> None:
        values = item.values.resolve() if isinstance(item.values, Staged) else item.values
        total = values[-1] if item.has_total else None
        losses = values[0] if item.keys is None else dict(zip(item.keys, values, strict=False))
        weights: Mapping[str, float] | None = None
        metrics: dict[str, float] = {}
        if item.weights is None:
            losses, metrics = self.totals.apart(losses)
            whole = self.totals.whole(losses, total)
        else:
            whole, weights = told(losses, total), item.weights() or None
        if item.counted:
            self.means.add(whole, item.n, weights, item.alone() if item.alone is not None else None)
        if item.stepped:
            self.on_batch(item, whole, weights)
            if metrics:
                self.on_event(Event(item.time, "on_metrics", {"step": item.step, "epoch": None, "metrics": metrics}))
        parts = whole.losses.values() if isinstance(whole.losses, dict) else (whole.losses,)
        if not (math.isfinite(whole.total) and all(map(math.isfinite, parts))):
            self._not_finite(item, whole)

    def _not_finite(self, item: Batch, whole: Whole) -> None:
        named = whole.losses if isinstance(whole.losses, dict) else {"loss": whole.losses}
        bad = {name: value for name, value in named.items() if not math.isfinite(value)} or {"total": whole.total}
        names = [name for name in bad if name not in self._told_of]
        if not names:
            return
        self._told_of |= {*names}
        kinds, several, first = {str(bad[name]) for name in names}, len(names) > 1, names[0]
        are = f"{'are' if several else 'is'} {kinds.pop() if len(kinds) == 1 else 'not finite'}"
        others = f" and {len(names) - 1} other{'s' * (len(names) > 2)}" if several else ""
        text = f"{', '.join(names)} {are} at step {item.step} (epoch {item.epoch})."
        data = {
            "level": "error", "title": f"{first}{others} {are}", "source": "losslog", "step": item.step,
            "text": " ".join(filter(None, [text, self._culprit(item.step)])), "epoch": item.epoch,
            "component": first if item.keys is not None and not several else None,
            "key": f"non_finite/{','.join(names)}", "evidence": {"losses": names} if several else None,
        }  # fmt: skip
        self.on_event(Event(item.time, "on_alert", data))
