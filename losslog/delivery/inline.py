"""Plugins that are called in the training thread, in step, with resolved values.

Training thread. Contract:

- They pay for it knowingly: on a GPU every step waits for its values.
- What they raise is contained, except `losslog.StopTraining` and the user's Ctrl-C; with ``strict`` everything passes.
- ``seq`` is -1: the record is stamped later, on the drain thread.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from losslog.control import RunHandle
from losslog.delivery.caller import Caller
from losslog.errors import StopTraining
from losslog.runtime.containment import attempt, long_form
from losslog.runtime.notices import warn


class Inline:
    """One such plugin.

    Args:
        caller: calls its hooks.
        handle: the ``run`` argument.
        strict: let every error pass.
    """

    def __init__(self, caller: Caller, handle: RunHandle, strict: bool) -> None:
        self.name = caller.name
        self.delivered = self.errors = 0
        self._caller, self._handle, self._strict = caller, handle, strict

    def call(self, hook: str, data: Mapping[str, Any]) -> None:
        """Call one hook now.

        Raises:
            StopTraining: the plugin asks for it.
        """
        if not self._caller.implements(hook):
            return
        self._handle.handling(hook, self.delivered)
        _, error = attempt(self._caller.call, hook, data, self._handle, -1, time.time())
        self.delivered += 1
        if error is None:
            return
        if self._strict or isinstance(error, StopTraining):
            raise error
        self.errors += 1
        if self.errors & (self.errors - 1) == 0:
            warn("inline plugin %s failed in %s (%d so far):\n%s", self.name, hook, self.errors, long_form(error))

    def stats(self, seq: int, end: int) -> dict[str, Any]:
        """Figures in the form of `losslog.delivery.lane.Lane.stats`."""
        return {"state": "inline", "reason": "", "delivered": self.delivered, "errors": self.errors,
                "offset": end, "committed": end, "seq": seq, "cpu": 0.0}  # fmt: skip
