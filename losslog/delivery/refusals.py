"""Records that a backend refuses while it takes others.

The lane's thread. Contract:

- "Not now" that is answered, rather than met with silence, may be about one record: the lane narrows down to it.
- Refused alone for `Refusals.after` seconds, it is passed over for a moment. Where a later one is taken then, it gets a
  last try at once, and is skipped if it is refused again. Where none is, the backend is to blame: nothing is skipped,
  and its turn comes again, with those found meanwhile.
"""

from __future__ import annotations

import time
from typing import ClassVar, Final

from losslog.delivery.caller import Caller
from losslog.delivery.patience import Patience
from losslog.delivery.progress import Progress
from losslog.runtime.containment import answered, one_line
from losslog.runtime.notices import warn

MARKS: Final = ("on_run_start", "on_resume", "on_checkpoint")  # they may be taken without a word to the backend
SUSPECTS: Final = 256  # beyond, it is the backend


class Refusals:
    """What one plugin's backend refuses.

    Args:
        progress: how far it is; it waits with its flush while a record is passed over and no later one is handed over.
        patience: what becomes of a record that is given up is said there.

    Attributes:
        passing: whether suspects are passed over now.
        some: whether there are any records to pass over, now or later.
    """

    after: ClassVar[float] = 600.0

    def __init__(self, progress: Progress, patience: Patience) -> None:
        self.passing = self.some = False
        self._progress, self._patience = progress, patience
        self._suspects: set[int] = set()
        self._given_up: set[int] = set()
        self._since = 0.0
        self._last_try = False

    def not_now(self, error: BaseException, seq: int | None) -> None:
        """Go back to the last durable record; ``seq`` is the one whose call failed, None a flush."""
        alone, others = seq, self.passing
        if answered(error) and (seq is None or (self._progress.unflushed and not others)):
            alone = self._progress.at.seq if others else self._progress.narrow(seq is not None)
        self.passing = False
        self._progress.rewind()
        if answered(error) and alone is not None:
            self._alone(alone, error, others)

    def _alone(self, seq: int, error: BaseException, others: bool) -> None:
        """It was refused, and nothing else was sent with it; ``others`` were passed over for it."""
        self.some = True
        if others:
            if len(self._suspects) < SUSPECTS:
                self._suspects.add(seq)
        elif seq not in self._suspects:
            self._suspects, self._since, self._last_try = {seq}, time.monotonic(), False
        elif self._last_try:
            self._given_up.add(seq)
            self._patience.refuses(f"a record alone is refused while others are taken: {one_line(error)}")
        else:
            self.passing = time.monotonic() - self._since >= self.after

    def passes_over(self, seq: int) -> bool:
        """Whether a record is left out now: for good, or to see whether others are taken."""
        passing = self.passing and seq in self._suspects
        if not passing and seq not in self._given_up:
            return False
        self._progress.held = self._progress.held or passing
        self._progress.skip(seq)
        return True

    def handed(self, hook: str) -> bool:
        """A later record was handed over: whether its flush still waits for one that tells more."""
        return hook in MARKS

    def flushed(self, caller: Caller) -> bool:
        """A flush went well; False where those that were passed over are to have their last try now."""
        if self.passing:
            self._last_try = True
            return False
        self._suspects = {seq for seq in self._suspects if seq > self._progress.at.seq}
        self._given_up = {seq for seq in self._given_up if seq > self._progress.at.seq}
        self.some = bool(self._suspects or self._given_up)
        for seq, why in _told(caller, self._patience).items():
            self._progress.skip(seq)
            self._patience.refuses(why)
        return True


def _told(caller: Caller, patience: Patience) -> dict[int, str]:
    """What a plugin says that its backend will never have since it was last asked: by seq, each with the reason."""
    ask = getattr(caller.thing, "refused", None)
    if ask is None:
        return {}
    found, error = patience.guard(lambda: {int(seq): str(why) for seq, why in ask().items()})
    if error is not None:
        warn("plugin %s: refused failed: %s", caller.name, one_line(error))
    return found or {}
