"""The plugin: alerts, ends and (if wanted) epochs become messages to a person.

Runs on the plugin's lane, in losslog's follower process, which outlives a training that is killed. Contract:

- Hooks gather; `NotifyPlugin.on_flush` sends, several things to tell as one message.
- The cursor stands before what is held back or could not be sent, so that a kill loses nothing.
- What is older than ``max_age`` when it is first seen is left out and counted: a replay of an old run wakes nobody.
- The addresses come from the user alone, and are written nowhere.
"""

from __future__ import annotations

import importlib.util
import logging
import math
import os
import time as clock
from collections.abc import Mapping
from typing import Any, Final

from losslog import NotReady, hookimpl
from losslog.runtime.settings import OFF
from losslog_notify import facts
from losslog_notify.addresses import addresses, made
from losslog_notify.limit import Limit
from losslog_notify.messages import TEXT, Message, harmless
from losslog_notify.outbox import Outbox

VARIABLE: Final = "LOSSLOG_NOTIFY"
LEVELS: Final = ("info", "warning", "error")
KEPT: Final = 100  # epochs whose scores are remembered

logger = logging.getLogger("losslog")


class NotifyPlugin:
    """Tells a person what should be known of a run, through any service that apprise knows.

    Args:
        urls: addresses as apprise has them, one text or a list. None: ``LOSSLOG_NOTIFY``. Never written anywhere.
        alerts: the least level of an alert that is sent: ``info``, ``warning`` or ``error``; None sends none.
        end: send how the run ended, a crash too.
        epochs: send a summary of each epoch; a number n, of each n-th.
        burst: messages that may go out at once.
        every: seconds between messages beyond that; what is held back goes as one. 0: no limit.
        max_age: seconds after which what was not sent yet is left out, as in a replay; None sends it whatever its age.

    Raises:
        losslog.NotReady: apprise is not installed, or there is no address.
        TypeError, ValueError: an option is not what it may be.
    """

    consent_variables = (VARIABLE,)
    secret_options = ("urls",)
    journal_options = ("alerts", "end", "epochs")
    flush_every = 1.0

    def __init__(
        self,
        urls: str | list[str] | None = None,
        *,
        alerts: str | None = "warning",
        end: bool = True,
        epochs: bool | int = False,
        burst: int = 5,
        every: float = 60.0,
        max_age: float | None = 86400.0,
    ) -> None:
        if alerts is not None and alerts not in LEVELS:
            raise ValueError(f"notify option alerts={alerts!r}: pass {', '.join(LEVELS)}, or None for none")
        if not isinstance(end, bool):
            raise TypeError(f"notify option end={end!r}: pass True or False")
        if not isinstance(epochs, int) or epochs < 0:
            raise TypeError(f"notify option epochs={epochs!r}: pass True, False or a number of epochs")
        if type(burst) is not int or burst < 1:
            raise ValueError(f"notify option burst={burst!r}: pass a whole number, 1 or more")
        for name, value in (("every", every), ("max_age", max_age)):
            if value is None and name == "max_age":
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= math.inf:
                raise ValueError(f"notify option {name}={value!r}: pass a number of seconds, 0 or more")
        if importlib.util.find_spec("apprise") is None:
            raise NotReady("apprise is not installed: pip install apprise")
        given: Any = os.environ.get(VARIABLE, "") if urls is None else urls
        if isinstance(given, str) and (not given.strip() or given.strip().lower() in OFF):
            raise NotReady(f"it has no address: set {VARIABLE} to one that apprise takes, e.g. ntfys://ntfy.sh/TOPIC")
        self._urls = addresses(given)
        if not self._urls:
            raise NotReady(f"it has no address: set {VARIABLE}, or the option urls")
        self._alerts, self._end, self._epochs = alerts, end, int(epochs)
        self._max_age, self._outbox = max_age, Outbox(Limit(burst, every))
        self._scores: dict[int, dict[str, float]] = {}  # by epoch
        self._young: set[int] = set()  # seqs that were so when they were first seen, however long they wait
        self._old: set[int] = set()
        self._over = False

    @hookimpl
    def on_run_start(self, name: str, origin: Mapping[str, Any] | None, run: Any) -> None:
        """Remember what the run is, and look at the addresses: a wrong one is said now, not when it is needed."""
        host = (origin or {}).get("host")
        self._outbox.name = name or "losslog"
        self._outbox.signature = f"{run.id} on {host}" if host else str(run.id)
        self._outbox.to = self._outbox.to or made(self._urls)
        self._over = False

    @hookimpl
    def on_alert(
        self,
        level: str,
        title: str,
        text: str,
        component: str | None,
        step: int | None,
        epoch: int | None,
        cause: str | None,
        seq: int,
        time: float,
    ) -> None:
        """A message, if it is grave enough."""
        if self._alerts is not None and LEVELS.index(level) >= LEVELS.index(self._alerts):
            short = harmless(text.strip(), TEXT)
            told = facts.alert_text(short, epoch, step, component, cause, title)
            self._gather(Message(seq, level, title, told), time)

    @hookimpl
    def on_eval(self, epoch: int, split: str, metrics: Mapping[str, Any]) -> None:
        """What the summary of the epoch says of its scores."""
        if self._epochs and split == "val":
            self._scores = dict([*self._scores.items(), (epoch, facts.scores(metrics))][-KEPT:])

    @hookimpl
    def on_epoch_end(
        self, epoch: int, epochs: int | None, losses: Any, total: float | None, val_loss: Any, seq: int, time: float
    ) -> None:
        """A message, where it is wanted."""
        if self._epochs and epoch % self._epochs == 0:
            title = facts.epoch_title(epoch, epochs, total)
            self._gather(
                Message(seq, "info", title, facts.epoch_text(losses, val_loss, self._scores.get(epoch, {}))), time
            )

    @hookimpl
    def on_run_end(self, status: str, error: str | None, run: Any, seq: int, time: float) -> None:
        """A message that does not wait, and nothing that was held back before it either."""
        if self._end:
            title, text = facts.end_of(None if run is None else run.dir, status, error)
            level = facts.LEVELS.get(status, "error")
            self._gather(Message(seq, level, title, text, ends=True), time)
        self._over = True

    @hookimpl
    def on_flush(self) -> int | None:
        """Send what was gathered, as far as it may go out now; seq of the last record before what may not."""
        if self._old:
            logger.info("notify: %d messages are older than max_age=%g s: not sent", len(self._old), self._max_age)
            self._old = set()
        durable = self._outbox.flush(at_once=self._over)
        if durable is None:
            self._young.clear()
        return durable

    def _gather(self, message: Message, time: float) -> None:
        if self._max_age is None or message.seq in self._young or clock.time() - time <= self._max_age:
            self._young.add(message.seq)
            self._outbox.waiting.append(message)
        else:
            self._old.add(message.seq)
