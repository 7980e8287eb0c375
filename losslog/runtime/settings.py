"""The environment's say: switches, read where they count.

Any thread. Contract:

- A switch is off for 0, false, no and off, and on for 1, true, yes and on, in any case; anything else is said once, and
  leaves it as it is. Empty is as not set.
- A variable of ours that there is not is said once, with the nearest.
"""

from __future__ import annotations

import os
from typing import Final

from losslog.runtime.notices import Once, did_you_mean, say

OFF: Final = frozenset({"0", "false", "no", "off"})
ON: Final = frozenset({"1", "true", "yes", "on"})
VARIABLES: Final = ("LOSSLOG", *(f"LOSSLOG_{name}" for name in ("PLUGINS", "DISABLE", "DIR", "FOLLOWER", "STRICT",
                                                                "TRACE", "FANOUT", "NOTIFY", "NICE",
                                                                "LIGHTNING")))  # fmt: skip
# Between our own processes.
INNER: Final = frozenset({"LOSSLOG_PARENT_PID", "LOSSLOG_PROGRAM", "LOSSLOG_RANK_PID", "LOSSLOG_FAULTS"})
_once: Final = Once()
_told: Final[set[str]] = set()


def switch(name: str, default: bool) -> bool:
    """Whether a switch is on."""
    said = os.environ.get(name, "").strip().lower()
    if said and said not in OFF | ON:
        _once("%s=%s is neither 0 nor 1: left as it is, %s", name, said[:40], "on" if default else "off", key=name)
    return said in ON or (default and said not in OFF)


def off() -> bool:
    """Whether nothing is to be logged at all (``LOSSLOG=off``); said once."""
    if switch("LOSSLOG", True):
        return False
    if "off" not in _told:
        _told.add("off")
        say("LOSSLOG=%s: nothing is logged", os.environ["LOSSLOG"])
    return True


def check() -> None:
    """Say which variables look like ours and are not."""
    for name in os.environ:
        if name.startswith("LOSSLOG_") and name not in (*VARIABLES, *INNER):
            _once("%s is set, but there is no such variable%s", name, did_you_mean(name, VARIABLES), key=name)
