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
from losslog.delivery.wire import Figures
from losslog.errors import StopTraining
from losslog.runtime.containment import attempt, long_form
from losslog.runtime.notices import now_and_then, warn


class Inline:
    """One such plugin.

    Args:
        caller: calls its hooks.
        handle: the ``run`` argument.
        strict: let every error pass.
        alone: with other ranks that would wait for this one for ever, `losslog.StopTraining` is a request instead.
    """

    def __init__(self, caller: Caller, handle: RunHandle, strict: bool, alone: bool = True) -> None:
        self.name = caller.name
        self.delivered = self.errors = 0
        self._caller, self._handle, self._strict, self._alone = caller, handle, strict, alone

    def call(self, hook: str, data: Mapping[str, Any]) -> None:
        """Call one hook now.

        Raises:
            StopTraining: the plugin asks for it.
        """
        if not self._caller.implements(hook):
            return
        self._handle.handling = (hook, time.time_ns())  # not a seq yet, but no other call's either
        _, error = attempt(self._caller.call, hook, data, self._handle, -1, time.time())
        self.delivered += 1
        if error is None:
            return
        if isinstance(error, StopTraining) and not self._alone:
            self._handle.request_stop(str(error) or hook)
            return
        if self._strict or isinstance(error, StopTraining):
            raise error
        self.errors += 1
        if now_and_then(self.errors):
            where = self._caller.called or hook
            warn("inline plugin %s failed in %s (%d so far):\n%s", self.name, where, self.errors, long_form(error))

    def figures(self, seq: int, end: int) -> Figures:
        """How it is doing; it has everything up to the record ``seq``, which ends at the offset ``end``."""
        return Figures("inline", "", self.delivered, self.errors, self.errors, end, end, seq)
