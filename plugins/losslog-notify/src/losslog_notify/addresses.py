"""Where messages go: the addresses a user gave, and the way to each through apprise.

The constructor's part is pure; the rest runs on the plugin's lane. Contract:

- An address is a secret. None is ever in an error, a notice or a log; it is called by its service and its number.
- apprise answers yes or no; why stands in what it logs meanwhile. That is taken here and goes no further.
- "No" is for good where the service answered that it refuses (4xx but for 408, 409, 423, 425, 429); any other is
  "not now", and what cannot be told too, since then nothing is lost.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, Literal

from losslog.runtime.containment import attempt
from losslog_notify.messages import Letter

KINDS: Final = {"error": "failure", "warning": "warning", "good": "success", "info": "info"}
LOGGERS: Final = ("apprise", "urllib3.connectionpool", "requests", "requests_oauthlib", "oauthlib")
PASSING: Final = frozenset({408, 409, 423, 425, 429})
_SCHEME: Final = re.compile(r"([A-Za-z0-9]{1,32})://\S")
_BETWEEN: Final = re.compile(r"[\s,;]+(?=[A-Za-z0-9]{1,32}://)")
_STATUS: Final = re.compile(r"\berror=(\d{3})\b")

logger = logging.getLogger("losslog")
_lines: Final[ContextVar[list[str] | None]] = ContextVar("losslog_notify_lines", default=None)


def addresses(given: str | Sequence[str]) -> list[str]:
    """The addresses in a text, or in a list of texts: separated by white space, commas or semicolons.

    Raises:
        TypeError, ValueError: it is not that. The address is not in the message.
    """
    if not isinstance(given, str) and not (
        isinstance(given, Sequence) and all(isinstance(each, str) for each in given)
    ):
        raise TypeError("notify option urls: pass an address such as json://127.0.0.1:8000, or a list of them")
    texts = [given] if isinstance(given, str) else given
    found = [part for text in texts for part in _BETWEEN.split(text.strip(" \t\r\n,;")) if part]
    for number, each in enumerate(found, 1):
        if not _SCHEME.match(each):
            raise ValueError(f"notify: address {number} is none: write SERVICE://..., as apprise has it")
    return list(dict.fromkeys(found))


class Address:
    """One service.

    Args:
        number: which of the addresses it is, from 1.
        url: the address.

    Attributes:
        number, name: what it is called.
        usable: whether apprise knows such a service.
        works: whether it took what it was last given; True before anything was.
        upto: seq of the last message that it has, or refused for good.
        reached: seq of the last message that it has.
        why: what became of the last attempt, where that failed.
        delay, retry: seconds between attempts, and the time of the next on the monotonic clock; 0 where it is not away.
    """

    def __init__(self, number: int, url: str) -> None:
        from apprise import Apprise, AppriseAsset

        scheme = url.partition("://")[0].lower()
        self.number, self.name = number, f"{scheme} (address {number})"
        self.works = True
        self.upto = self.reached = -1
        self.delay = self.retry = 0.0
        self._apprise: Any = Apprise(asset=AppriseAsset(app_id="losslog", app_desc="losslog", app_url=""))
        with _taken():
            added, error = attempt(self._apprise.add, url)
        self.usable = bool(added) and len(self._apprise) == 1
        self.why = "" if error is None else f": {type(error).__name__}"

    def send(self, letter: Letter) -> Literal["taken", "not now", "refused"]:
        """Hand a message over."""
        with _taken() as lines:
            sent, error = attempt(
                self._apprise.notify, letter.body, letter.title, KINDS[letter.level], body_format="text"
            )
        if sent:
            return "taken"
        found = _STATUS.findall("\n".join(lines))
        status = int(found[-1]) if found else 0
        self.why = f"{self.name} does not take messages"
        if error is not None:
            self.why = f"{self.name} fails with {type(error).__name__}"
        elif status:
            self.why = f"{self.name} answers {status}"
        elif any("onnection error" in each for each in lines):
            self.why = f"{self.name} cannot be reached"
        return "refused" if 400 <= status < 500 and status not in PASSING else "not now"


class _Taking(logging.Filter):
    """Takes the lines that are logged on behalf of a message."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether somebody else may see it."""
        lines = _lines.get()
        if lines is None:
            return True
        text, _ = attempt(record.getMessage)
        lines.append(text or "")
        return False


_TAKING: Final = _Taking()


@contextmanager
def _taken() -> Iterator[list[str]]:
    """While it lasts, what apprise and those below it log for this thread comes here and nowhere else."""
    for name in LOGGERS:
        logging.getLogger(name).addFilter(_TAKING)  # once, however often it is added
    lines: list[str] = []
    token = _lines.set(lines)
    try:
        yield lines
    finally:
        _lines.reset(token)


def made(urls: Sequence[str]) -> list[Address]:
    """The services that apprise knows, of these addresses; the others are said.

    Raises:
        ValueError: it knows none.
    """
    found = [Address(number, url) for number, url in enumerate(urls, 1)]
    unknown = [each.name + each.why for each in found if not each.usable]
    text = f"apprise takes no such address: {', '.join(unknown)}; see its list of services for how each is written"
    if len(unknown) == len(found):
        raise ValueError(text)
    if unknown:
        logger.warning("notify: %s", text)
    return [each for each in found if each.usable]
