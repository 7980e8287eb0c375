"""What waits to be sent, and to whom.

The plugin's lane. Contract:

- A service has a message once: it is asked again only for what it has not answered.
- A service that is away while others work is tried again here, after 1 s, doubling, 60 s at most. Where all are, or the
  run is over, the lane waits instead, and says so.
- A message is lost only where every service refuses it for good; then it is tried by itself, and the lane is told.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Final

from losslog import BackendUnavailable, LosslogError
from losslog_notify.addresses import Address
from losslog_notify.limit import Limit
from losslog_notify.messages import Message, letter

WAITS: Final = (1.0, 60.0)  # seconds between attempts

logger = logging.getLogger("losslog")


class Refused(LosslogError):
    """Every service refuses a message for good."""


class Outbox:
    """Messages of one run.

    Args:
        limit: how often one may go out.

    Attributes:
        to: the services.
        waiting: what not every service has answered.
        name, signature: the run's name, and the last line of each message.
    """

    def __init__(self, limit: Limit) -> None:
        self.to: list[Address] = []
        self.waiting: list[Message] = []
        self.name, self.signature = "losslog", ""
        self._limit = limit
        self._probing = False  # one was refused by all: each goes by itself, until one is taken
        self._told: set[str] = set()

    def flush(self, *, at_once: bool) -> int | None:
        """Send what may go out now.

        Args:
            at_once: all of it, however much went out before: the run is over.

        Returns:
            None where nothing waits any more, else the seq before the first that does.

        Raises:
            BackendUnavailable: no service can be had; what waits is forgotten, since it comes again.
            Refused: none takes what waits, for good; likewise.
        """
        if not self.waiting or not self.to:  # nobody to tell where on_run_start was refused
            return None
        before = {each.number: each.upto for each in self.to}
        held = self._send_all(time.monotonic(), at_once=at_once)
        last = self.waiting[-1].seq
        away = [each for each in self.to if each.delay and each.upto < last]
        if away and (at_once or not any(each.works for each in self.to)):
            for each in away:
                each.delay = each.retry = 0.0  # the lane waits now
            self.waiting = []
            raise BackendUnavailable("; ".join(each.why for each in away))
        if away or held:
            done = min(each.upto for each in self.to)
            self.waiting = [each for each in self.waiting if each.seq > done]
            return self.waiting[0].seq - 1
        self.waiting = []
        if last > max(each.reached for each in self.to):
            self._probing = True
            for each in self.to:
                each.upto = before[each.number]
            raise Refused("; ".join(each.why for each in self.to))
        return None

    def _send_all(self, now: float, *, at_once: bool) -> bool:
        """Send to each service what it has not answered; whether something is held back."""
        free = at_once or self._probing or self._limit.allows(now)
        held = taken = False
        for each in self.to:
            due = [message for message in self.waiting if message.seq > each.upto]
            if not due or now < each.retry:
                continue
            if not free and not each.delay:
                held = True
                continue
            taken = self._send(each, due, now) or taken
        if taken:
            self._probing = False
            self._limit.spend()
        return held

    def _send(self, to: Address, due: Sequence[Message], now: float) -> bool:
        """Send messages to one service; whether it has them."""
        outcome = to.send(letter(self.name, due, self.signature))
        to.works = outcome == "taken"
        if outcome == "not now":
            to.delay = min(max(to.delay * 2, WAITS[0]), WAITS[1])
            to.retry = now + to.delay
            return False
        to.delay = to.retry = 0.0
        to.upto = due[-1].seq
        if outcome == "taken":
            to.reached = to.upto
        elif len(self.to) > 1 and to.why not in self._told:
            self._told.add(to.why)
            logger.warning("notify: %s: it gets no message that it refuses (said once)", to.why)
        return to.works
