"""wandb-core is killed, as by the kernel when memory runs out: no row is lost, whenever it happens."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from losslog_wandb import WandbPlugin

import losslog
from losslog.control import RunHandle
from losslog.delivery.caller import Caller
from losslog.delivery.lane import Lane
from losslog.delivery.patience import Patience
from losslog.delivery.progress import Progress
from losslog.journal.cursors import Cursor
from losslog.journal.file import Writer
from losslog.journal.folder import JOURNAL
from losslog.journal.records import Record, encode
from losslog.journal.tail import Tail
from losslog.testing import tell
from losslog.testing.waiting import until

T0 = 1764000000.0
LIGHT = {"x_disable_stats": True, "x_save_requirements": False, "x_disable_machine_info": True}
STEPS = 500
KILLS = 50 if os.environ.get("LOSSLOG_FAULTS") == "full" else 3


def kill() -> bool:
    """Kill the wandb-core of this process; False where there is none."""
    from wandb.sdk.wandb_setup import singleton

    process: Any = singleton()
    for name in ("_connection", "_proc", "_process"):
        process = getattr(process, name, None)
    if process is None or process.poll() is not None:
        return False
    process.kill()
    process.wait()
    return True


@pytest.fixture
def lane(run: RunHandle, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Lane]]:
    """A lane of the real plugin over a journal with 500 batches and an end."""
    monkeypatch.setattr(Patience, "back_off", (0.02, 0.1))
    writer, lanes = Writer(run.dir), []

    def add(hook: str, **data: Any) -> None:
        writer.append([encode(Record(writer.seq, T0 + writer.seq, hook, data))])

    def start(**options: Any) -> Lane:
        add("on_run_start", name="maskrcnn", config={}, options={}, resumed=False)
        for step in range(STEPS):
            add("on_batch_losses", step=step, epoch=1, losses={"a": float(step)}, total=float(step))
        add("on_run_end", status="finished")
        progress = Progress(Cursor(run.dir, "wandb"))
        make = lambda: Caller("wandb", WandbPlugin(**LIGHT | options))  # noqa: E731
        found = Lane("wandb", make, Tail(run.dir / JOURNAL), progress, run)
        lanes.append(found)
        found.finish(writer.end)
        found.start()
        return found

    yield start
    for each in lanes:
        each.abandon()
    writer.close()


def seqs(local: Any) -> list[int]:
    return sorted(int(row["losslog/seq"]) for row in local.rows() if "losslog/seq" in row)


@pytest.mark.parametrize("number", range(KILLS))
def test_no_row_is_lost_whenever_it_dies(lane: Callable[..., Lane], run: Any, local: Any, number: int) -> None:
    dice = random.Random(number)
    lane_ = lane(mode="offline")
    until(lambda: lane_.delivered > dice.randrange(STEPS))
    time.sleep(dice.random() * 0.05)
    kill()
    until(lambda: lane_.patience.over)
    assert lane_.patience.state == "done", lane_.patience.reason
    assert seqs(local) == list(range(1, STEPS + 2))


def test_it_dies_again_and_again(lane: Callable[..., Lane], local: Any) -> None:
    lane_, over = lane(mode="offline"), threading.Event()

    def killer() -> None:
        for _ in range(4):
            if over.wait(0.3):
                return
            kill()

    thread = threading.Thread(target=killer, daemon=True)
    thread.start()
    until(lambda: lane_.patience.over)
    over.set()
    thread.join()
    assert lane_.patience.state == "done", lane_.patience.reason
    assert seqs(local) == list(range(1, STEPS + 2))


def test_it_is_noticed_though_no_further_record_comes(
    started: Callable[..., WandbPlugin], run: Any, local: Any
) -> None:
    plugin = started(mode="offline")
    for seq in range(1, 200):
        tell(plugin, "on_batch_losses", step=seq, losses={"a": 1.0}, lr=None, seq=seq, time=T0 + seq)
    kill()
    with pytest.raises(losslog.BackendUnavailable, match="wandb-core has died"):
        until(lambda: plugin.on_flush() is None)
    for seq in range(1, 200):
        tell(plugin, "on_batch_losses", step=seq, losses={"a": 1.0}, lr=None, seq=seq, time=T0 + seq)
    plugin.on_run_end(status="finished", seq=200, time=T0 + 200)
    until(lambda: plugin.on_flush() is None)
    assert seqs(local) == list(range(1, 201))


def test_it_dies_while_the_run_is_closed(started: Callable[..., WandbPlugin], run: Any, local: Any) -> None:
    plugin = started(mode="offline")
    log = lambda seqs: [  # noqa: E731
        tell(plugin, "on_batch_losses", step=seq, losses={"a": 1.0}, lr=None, seq=seq, time=T0 + seq) for seq in seqs
    ]
    log(range(1, 100))
    until(lambda: plugin.on_flush() is None)
    log(range(100, 120))
    kill()

    def end() -> None:
        plugin.on_run_end(status="finished", seq=120, time=T0 + 120)
        until(lambda: plugin.on_flush() is None)

    with pytest.raises(losslog.BackendUnavailable):
        end()
    log(range(100, 120))
    end()
    assert seqs(local) == list(range(1, 121))
