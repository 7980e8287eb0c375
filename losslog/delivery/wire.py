"""What a training process and its follower say to each other: one line a message.

Any thread, no I/O. Contract:

- Commands go to the child's stdin: ``wake``, ``report``, ``finish OFFSET``; a `Hello` as JSON comes before them all.
- JSON lines come back on its stdout: ``stats``, ``notice``, ``alert``, ``stop``, ``lr`` and, last, ``done``.
- What is no message is passed over: the other end may be of another version, or print what it likes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from losslog.runtime.containment import attempt

WAKE: Final = b"wake"
REPORT: Final = b"report"
FINISH: Final = b"finish"
CANNOT: Final = 71  # exit code of a child that cannot start its threads: another would not either
REQUESTS: Final = ("alert", "stop", "lr")  # messages that are for the run


class Figures(NamedTuple):
    """How a plugin is doing.

    Attributes:
        state: ``starting``, ``live``, ``waiting``, ``hung``, ``parked``, ``off``, ``done`` or ``inline``.
        reason: why, where that is a question.
        delivered: hook calls that went well.
        errors: those that did not, flushes too.
        skipped: records that were given up for it.
        offset: bytes of the journal handed over.
        committed: bytes of it that are durable.
        seq: the last durable record.
        cpu: seconds of its thread.
    """

    state: str = "starting"
    reason: str = ""
    delivered: int = 0
    errors: int = 0
    skipped: int = 0
    offset: int = 0
    committed: int = 0
    seq: int = -1
    cpu: float = 0.0

    @classmethod
    def of(cls, data: Any) -> Figures:
        """From a message; what does not fit is left at its default."""
        given = data if isinstance(data, Mapping) else {}
        kinds = {name: type(default) for name, default in cls._field_defaults.items()}
        return cls(**{name: given[name] for name, kind in kinds.items() if type(given.get(name)) is kind})


class Hello(NamedTuple):
    """What the child must know of its parent.

    Attributes:
        sys_path: its import path.
        plugins: ``{"name": ..., "options": {...}}`` of each far plugin.
        name: the run's name.
        config: the run's config, secrets redacted.
        since: seq of its first record; earlier ones are of a run that it resumed.
    """

    sys_path: list[str]
    plugins: list[dict[str, Any]]
    name: str
    config: dict[str, Any]
    since: int = 0


def line_of(kind: str, **body: Any) -> bytes:
    """One message of the child's."""
    return json.dumps({"kind": kind, **body}).encode("ascii") + b"\n"


def message_of(line: bytes) -> dict[str, Any]:
    """A message of the child's; ``{}`` where the line is none."""
    message, _ = attempt(json.loads, line)
    return message if isinstance(message, dict) else {}


def command_of(line: bytes) -> tuple[bytes, int | None]:
    """A command to the child, and its number where it has one."""
    word, _, rest = line.strip().partition(b" ")
    return word, int(rest) if rest.isdigit() else None
