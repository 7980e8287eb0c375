"""``batch_every=n``: a backend that gets the mean over n steps, while the journal keeps all of them.

Lane threads. Contract:

- A window is n consecutive steps of one epoch; it goes out with its last step's step, seq, time and learning rate.
- An open window goes out before any other kind of record, so that order and epoch means stay true.
- A plugin that only shows (``newest_only``) need not be told every batch that waits: `newest`.
- `pending_seq` is the first record of the open window: the lane's cursor may not pass it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from losslog.journal.records import Record, count_in
from losslog.values.means import mean_of


def newest(found: list[tuple[int, Record | None]]) -> list[tuple[int, Record | None]]:
    """Records without the batches between the first and the last of those that follow each other in one epoch."""
    epochs = [each.data.get("epoch") if each is not None and each.hook == "on_batch_losses" else None
              for _, each in found]  # fmt: skip
    around = zip([None, *epochs], epochs, [*epochs[1:], None], strict=False)
    return [each for each, (before, epoch, after) in zip(found, around, strict=True)
            if epoch is None or not before == epoch == after]  # fmt: skip


class Thinner:
    """Gathers batch records into windows.

    Args:
        every: steps in a window; 1 passes everything on.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self._window: list[Record] = []

    @property
    def pending_seq(self) -> int | None:
        """Seq of the first record that has not gone out, or None."""
        return self._window[0].seq if self._window else None

    def clear(self) -> None:
        """Forget the open window: its records come again."""
        self._window.clear()

    def take(self, record: Record) -> Iterator[Record]:
        """The records to deliver now that this one has come."""
        if self.every == 1:
            yield record
        elif record.hook == "on_batch_losses":
            self._window.append(record)
            step = count_in(record.data, "step")
            if len(self._window) >= self.every or (step + 1) % self.every == 0:
                yield self._close()
        else:
            if self._window:
                yield self._close()
            yield record

    def _close(self) -> Record:
        window, self._window = self._window, []
        last = window[-1]
        data: dict[str, Any] = {**last.data}
        for key in ("losses", "total"):
            if known := [each.data[key] for each in window if each.data.get(key) is not None]:
                data[key] = mean_of(known)
        data["n"] = sum(int(each.data.get("n") or 1) for each in window)
        return last._replace(data=data)
