"""What is said: one thing to tell, and several of them as one message for a phone's screen.

No thread, no I/O. Contract:

- Nothing in a message steers a terminal or calls a crowd (``@everyone``, ``<!channel>``), whatever a name contains.
- What looks like a secret is left out.
- A message is short: of many things to tell, the gravest are named and the others counted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from losslog.journal.redaction import hide
from losslog.runtime.containment import printable

GRAVITY: Final = ("error", "warning", "good", "info")  # the gravest first
TITLE: Final = 120  # characters
NAME: Final = 40
TEXT: Final = 500
BODY: Final = 1600  # services take 2,000 at least, but for text messages
LISTED: Final = 200  # characters of one among several
_CROWD: Final = re.compile(r"(@|[<＠]\s*!|&lt;\s*!|＠)(?=\S)")


class Message(NamedTuple):
    """One thing to tell.

    Attributes:
        seq: the record's.
        level: ``error``, ``warning``, ``good`` or ``info``.
        title: one line.
        text: more lines, or "".
        ends: whether it says how the run ended.
    """

    seq: int
    level: str
    title: str
    text: str
    ends: bool = False


class Letter(NamedTuple):
    """What a service is given.

    Attributes:
        title, body: its text.
        level: the gravest of what is in it.
    """

    title: str
    body: str
    level: str


def harmless(text: str, most: int) -> str:
    """``text`` that steers nothing, calls nobody and has at most so many characters."""
    text = _CROWD.sub(r"\1 ", printable(hide(text)))
    return text if len(text) <= most else text[: most - 3].rstrip() + "..."


def line(text: str, most: int) -> str:
    """The same on one line."""
    return harmless(" ".join(text.split()), most)


def letter(name: str, messages: Sequence[Message], signature: str) -> Letter:
    """One message of one or more things to tell.

    Args:
        name: the run's name.
        messages: what to tell, in order; at least one.
        signature: the last line: which run it is, where.
    """
    level = min((each.level for each in messages), key=GRAVITY.index)
    name, last = line(name, NAME), messages[-1]
    if len(messages) == 1:
        parts = [harmless(last.text.strip(), BODY), line(signature, LISTED)]
        return Letter(line(f"{name}: {last.title}", TITLE), "\n".join(filter(None, parts)), level)
    told = f"{len(messages)} messages"
    title = f"{name}: {line(last.title, TITLE - NAME - 16)} ({told})" if last.ends else f"{name}: {told}"
    return Letter(title, f"{_list(messages)}\n{line(signature, LISTED)}", level)


def _list(messages: Sequence[Message]) -> str:
    """A line for each, as far as there is room; the gravest stay, in the order they came."""
    lines = {each.seq: line(_in_short(each), LISTED) for each in messages}
    lines |= {each.seq: line(each.text, LISTED) for each in messages[-1:] if each.ends}  # the title has the rest
    room, kept = BODY, set()
    for each in sorted(messages, key=lambda each: (not each.ends, GRAVITY.index(each.level), -each.seq)):
        room -= len(lines[each.seq]) + 1
        if room < 0:
            break
        kept.add(each.seq)
    shown = [lines[each.seq] for each in messages if each.seq in kept and lines[each.seq]]
    left = len(messages) - len(kept)
    return "\n".join([*shown, *([f"and {left} more"] if left else [])])


def _in_short(message: Message) -> str:
    said = f"{message.title}: {message.text}" if message.text else message.title
    return said if message.ends else f"{message.level}: {said}"
