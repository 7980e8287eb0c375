"""What many ranks cost the logging rank: ``python -m benchmarks.ranks [--sizes 64,256,1024,4096] [--seconds 12]``.

A real TCPStore on loopback, the logging rank's real drain in this process, at 10 steps a second on every rank. In a
process beside it are the ranks that the logging rank hears itself, whose words go through the store: those of one that
joins others are the sums that it would have. One such rank, a real `Relay`, is measured with all ranks that it hears.
The other ranks' words to those that join them, which the store carries as well, are left out.

The drain's share is the CPU of its thread over the time; a record is complete where it is over all ranks.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from losslog.journal.file import Writer
from losslog.journal.folder import JOURNAL
from losslog.journal.lines import read
from losslog.journal.tail import Tail
from losslog.ranks.joining import Joiner
from losslog.ranks.mail import Outbox
from losslog.ranks.relay import Relay
from losslog.ranks.store import Store
from losslog.ranks.sums import Share, Sums, join
from losslog.ranks.tree import Tree
from losslog.recording.drain import Drain
from losslog.recording.intake import Queue
from losslog.recording.items import Batch
from losslog.values.snapshot import snapshot

RATE = 10  # steps a second
NAMES = ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg", "loss_mask")
TURN = 0.2


class Connection(Store):
    """A way to a TCPStore of ours."""

    def __init__(self, port: int, *, master: bool = False) -> None:
        import torch

        super().__init__(0)
        base = torch.distributed.TCPStore("127.0.0.1", port, is_master=master, wait_for_workers=False)
        self.port = base.port
        self._store, self._base = torch.distributed.PrefixStore("bench", base), base


def share(rank: int, step: int) -> Share:
    losses = {name: (rank + 1) / (step + place + 2) for place, name in enumerate(NAMES)}
    about = {"time": time.time(), "step": step, "lr": 0.1, "batch_size": 2, "n": 1, "weights": None}
    return Share(losses, sum(losses.values()), False, about)


def others(port: int, size: int, seconds: float, go: float, below: int | None) -> None:
    """The ranks that ``below`` hears, at their cadence; where it is 0, each with the sums of those that it joins."""
    store, tree = Connection(port), Tree(size)
    heard = tree.below(below or 0)
    outboxes = {rank: Outbox(store, rank) for rank in heard}
    joined = {rank: len(tree.joined_by(rank)) for rank in heard}
    every = max(TURN, tree.every)
    said = dict.fromkeys(heard, 0)
    turns = sorted((go + every * place / len(heard), rank) for place, rank in enumerate(heard))
    while turns:
        at, rank = turns.pop(0)
        time.sleep(max(0.0, at - time.time()))
        done = min(int((time.time() - go) * RATE), int(seconds * RATE))
        items: list[Any] = []
        for step in range(said[rank], done):
            one = share(rank, step)
            if joined[rank] > 1:
                sums = join([Sums.of(rank, one)])._replace(ranks=joined[rank])
                items.append({"sums": [1, step, *sums]})
            else:
                items.append({"batch": [1, step, *one]})
        outboxes[rank].send(below or 0, items)
        said[rank] = done
        if done < seconds * RATE:
            turns.append((at + every, rank))
            turns.sort()


def measure(size: int, seconds: float, below: int | None) -> dict[str, Any]:
    """One size: the drain of the logging rank, or (``below``) the turns of one relay."""
    store = Connection(0, master=True)
    go = time.time() + 4.0
    beside = multiprocessing.get_context("spawn").Process(target=others, args=(store.port, size, seconds, go, below))
    beside.start()
    tree = Tree(size)
    with tempfile.TemporaryDirectory() as place:
        writer = Writer(Path(place))
        joiner = Joiner(store, 0, size, lambda kind, data: None)
        drain = Drain(Queue(), writer, Tail(writer.path, own=True), joiner=joiner)
        drain.pace.active = False
        relay = Relay(store, below, tree) if below else None
        sent, turns, cpu, logged = [], [], 0.0, 0
        time.sleep(max(0.0, go - time.time()))
        end = go + seconds + 6.0 + 4 * tree.every  # what waits for late ranks is recorded, too
        while time.time() < end:
            began, used = time.perf_counter(), time.thread_time()
            done = min(int((time.time() - go) * RATE), int(seconds * RATE))
            if relay is not None:
                for step in range(logged, done):
                    relay.add_batch(1, step, share(below or 0, step))
                relay.receive()
                sent += [item for item in relay.ready() if "sums" in item]
            else:
                items = []
                for step in range(logged, done):
                    keys, values = snapshot(share(0, step).losses, None)
                    items.append(Batch(time.time(), step, 1, keys, values, False, 0.1, 2, 1))
                drain.take(items)
            logged = done
            turns.append(time.perf_counter() - began)
            if time.time() < go + seconds:
                cpu += time.thread_time() - used
            time.sleep(max(0.0, TURN - turns[-1]))
        beside.join()
        drain.close(0.0)
        if relay is not None:
            ranks = [item["sums"][-1] for item in sent]
        else:
            ranks = [each.data["ranks"] for _, each in read(Path(place) / JOURNAL) if each is not None]
    whole = len(tree.joined_by(below)) if below else size
    return {
        "ranks": size, "what": f"relay of {whole}" if below else "logging rank", "hears": len(tree.below(below or 0)),
        "share_percent": round(100 * cpu / seconds, 2), "records": len(ranks),
        "complete": sum(each == whole for each in ranks), "longest_turn_s": round(max(turns), 3),
        "median_turn_ms": round(1000 * statistics.median(turns), 1), "cadence_s": max(TURN, tree.every),
    }  # fmt: skip


def main() -> None:
    """Print a line of JSON for each size."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", default="64,256,1024,4096,16384")
    parser.add_argument("--seconds", type=float, default=12.0)
    args = parser.parse_args()
    for size in map(int, args.sizes.split(",")):
        print(json.dumps(measure(size, args.seconds, None)), flush=True)
        relay = max((rank for rank in Tree(size).below(0)), key=lambda rank: len(Tree(size).below(rank)))
        if Tree(size).below(relay):
            print(json.dumps(measure(size, args.seconds, relay)), flush=True)


if __name__ == "__main__":
    main()
