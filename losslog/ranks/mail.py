"""What ranks hand over to each other, through their store, and who has been heard.

Drain threads only. Contract:

- In order, each word once. By the store's queues; where torch has none yet, by numbered keys, which only the logging
  rank reads: then there is no tree.
- A rank that says nothing for 30 s is reported and no longer waited for, until it speaks again; one that cannot be
  read, for good.
- Whoever speaks is heard: a rank whose joiner is gone hands over to the next one up.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from losslog.ranks.store import Store
from losslog.ranks.tree import Tree
from losslog.runtime.containment import attempt, one_line

SILENT: Final = 30.0  # seconds without a word after which a rank is not waited for
FIRST_WORD: Final = 15.0  # the same for a rank that has never spoken: perhaps its script made no run
AT_ONCE: Final = 2000  # items of a chunk: it stays below a megabyte
TURN: Final = 0.1  # seconds of listening, after which the rest waits for the next turn


class Outbox:
    """What one rank hands over.

    Args:
        store: the ranks' store.
        rank: this one.
    """

    def __init__(self, store: Store, rank: int) -> None:
        self._store, self._rank, self._count = store, rank, 0

    def send(self, to: int, items: list[Any]) -> list[Any]:
        """Hand over items, at least an empty list of them; those that the store did not take.

        Args:
            to: the rank that is to have them.
            items: plain data.
        """
        for start in range(0, max(len(items), 1), AT_ONCE):
            chunk = json.dumps(items[start : start + AT_ONCE]).encode("ascii")
            queues = self._store.queues
            if queues:
                sent = self._store.push(f"to/{to}", b"%d %b" % (self._rank, chunk))
            else:
                sent = queues is not None and self._store.put(f"{self._rank}/{self._count}", chunk)
            if not sent:
                return items[start:] or [None]
            self._count += 1
        return []


class Inbox:
    """What others hand over to one rank.

    Args:
        store: the ranks' store.
        rank: this one.
        tree: all ranks.
        tell: takes what a person should know.

    Attributes:
        gone: ranks that have said goodbye, or cannot be read.
    """

    def __init__(self, store: Store, rank: int, tree: Tree, tell: Callable[[str], None]) -> None:
        self._store, self._rank, self._tree, self._tell = store, rank, tree, tell
        self._next = dict.fromkeys(tree.below(rank), 0)  # chunks that were heard of each
        self._heard = dict.fromkeys(self._next, time.monotonic())
        self._silent: set[int] = set()
        self.gone: set[int] = set()

    @property
    def waiting_for(self) -> list[int]:
        """Ranks that have not said goodbye and are not given up."""
        return [other for other in self._next if other not in self.gone and other not in self._silent]

    def receive(self, take: Callable[[int, Any], None]) -> None:
        """Hear what the others have handed over.

        Args:
            take: gets a rank and each of its items; what it raises makes that rank one that cannot be read.
        """
        now = time.monotonic()
        for other, chunk in self._chunks():
            if other not in self._next:
                self._next[other] = 0
            self._next[other] += 1
            self._heard[other] = now
            self._silent.discard(other)
            _, error = attempt(self._hear, other, chunk, take)
            if error is not None and other not in self.gone:
                self.gone.add(other)
                self._tell(f"what rank {other} hands over cannot be read ({one_line(error)}): it is left out")
        for other in self._next:
            patience = (SILENT if self._next[other] else FIRST_WORD) + 2 * self._tree.every
            if other not in self.gone | self._silent and now - self._heard[other] > patience:
                self._silent.add(other)
                self._tell(
                    f"{self._tree.named(other)} has said nothing for {patience:.0f} s: the losses go on without it"
                )

    def _hear(self, other: int, chunk: bytes, take: Callable[[int, Any], None]) -> None:
        for item in json.loads(chunk):
            if item is None:
                continue
            if "bye" in item:
                self.gone.add(other)
            else:
                take(other, item)

    def _chunks(self) -> Iterable[tuple[int, bytes]]:
        queues = self._store.queues
        if queues is None:
            return ()
        return self._queued() if queues else self._numbered()

    def _queued(self) -> Iterator[tuple[int, bytes]]:
        began = time.perf_counter()
        for word in self._store.pull(f"to/{self._rank}"):
            sender, _, chunk = word.partition(b" ")
            if sender.isdigit() and int(sender) < self._tree.size:
                yield int(sender), chunk
            if time.perf_counter() - began > TURN:
                return

    def _numbered(self) -> Iterator[tuple[int, bytes]]:
        for other in range(self._tree.size) if self._rank == 0 else ():
            if other == self._rank or other in self.gone:
                continue
            self._heard.setdefault(other, time.monotonic())
            self._next.setdefault(other, 0)
            while (chunk := self._store.take(f"{other}/{self._next[other]}")) is not None:
                yield other, chunk
