"""One training, one thread: what another thread trains meanwhile is not mixed into its steps.

Any thread that trains. Contract:

- The thread that trains first is followed, and the next one only when that has ended.
- That another thread trains too is said once, with what to do; nothing of it is recorded here.
"""

from __future__ import annotations

import threading

from losslog.runtime.notices import Once


class OneThread:
    """The thread that one observer follows.

    Args:
        strict: whether whoever calls a model may be another training; else a call of the model tells.

    Attributes:
        mine: the thread that is followed.
        others: threads that trained beside it.
    """

    def __init__(self, *, strict: bool = False) -> None:
        self._strict = strict
        self.mine: int | None = None
        self.others: set[int] = set()
        self._once = Once()

    def trains(self) -> bool:
        """This thread trains; whether it is the one that is followed."""
        here = threading.get_ident()
        if here == self.mine:
            return True
        if not self._alive():
            self.follow()
            return True
        self.others.add(here)
        self._once(
            "a second training runs in thread %s: its steps are not recorded here. Start it in a process of its own, "
            "or give each its own run: losslog.attach(model, optimizer)",
            threading.current_thread().name,
            key="second",
        )
        return False

    def follow(self) -> None:
        """Follow this thread from now on."""
        self.mine = threading.get_ident()
        self.others.discard(self.mine)

    def called(self) -> None:
        """A watched model computes in this thread, with gradients."""
        if not self._strict and self.mine != threading.get_ident():
            self.follow()

    def _alive(self) -> bool:
        return self.mine is not None and any(each.ident == self.mine for each in threading.enumerate())

    @property
    def elsewhere(self) -> bool:
        """Whether another thread than this one is followed."""
        return self.mine is not None and self.mine != threading.get_ident() and self._alive()

    @property
    def refused(self) -> bool:
        """Whether this thread trains beside the one that is followed."""
        return bool(self.others) and threading.get_ident() in self.others
