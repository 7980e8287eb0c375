"""The drain of a run that is switched off (``LOSSLOG=off``): nothing is kept but what a loop asks back.

Drain thread. Contract:

- Epoch means and requests to stop work as ever; there is no journal, no folder, and no plugin.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from losslog.control import Post
from losslog.recording.intake import Intake, Queue
from losslog.recording.items import Batch, Event, Item
from losslog.values.totals import Whole


class Nowhere(Intake):
    """Lets items go.

    Args:
        queue: see `Intake`.
        post: takes requests.
    """

    def __init__(self, queue: Queue, post: Post) -> None:
        super().__init__(queue, lambda step: "")
        self._post = post

    def on_batch(self, batch: Batch, whole: Whole, weights: Mapping[str, float] | None) -> None:
        """It is in the means already."""

    def on_event(self, event: Event) -> None:
        """Keep the means of an epoch that ends, carry out a request."""
        if event.hook == "on_epoch_end":
            self.last_means = self.take_means().result()[0]
        elif event.hook == "request":
            self._post(event.data["kind"], event.data["data"])

    def pass_on(self) -> None:
        """There is nobody to pass it on to."""

    def spill(self, items: Sequence[Item]) -> None:
        """Nothing here waits for a disk."""

    def close(self, deadline: float) -> None:
        """Nothing waits."""
