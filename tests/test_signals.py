"""Every public method may be called from a signal handler, while another is inside."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from losslog.runtime.pace import Bell

SECONDS = os.environ.get("LOSSLOG_STORM", "4")
STORM = """
import signal, sys, time
import losslog

run = losslog.Run("storm", dir="runs", plugins=[], epochs=10)
made = losslog.Run("inner", dir="runs", plugins=None)
calls = [
    lambda: run.log_batch({"a": 1.0, "b": 2.0}, lr=0.1),
    lambda: run.log_metrics({"x": 1.0}),
    lambda: run.log_eval({"bbox": {"AP": 0.5}}),
    lambda: run.log_checkpoint("x.pt"),
    lambda: run.alert("preempted"),
    lambda: run.request_stop("preempted"),
    lambda: run.request_lr(0.5),
    lambda: run.should_stop,
    lambda: run.stop_reason,
    lambda: run.stats,
    lambda: run.end_epoch(),
    lambda: run.epoch_means(timeout=0.5),
    lambda: run.flush(timeout=0.5),
    lambda: made.close(1.0),
]
count = depth = 0

def storm(*_):
    global count, depth
    if depth > 3:
        return
    depth += 1
    count += 1
    calls[count % len(calls)]()
    depth -= 1

signal.signal(signal.SIGALRM, storm)
signal.setitimer(signal.ITIMER_REAL, 0.003, 0.003)
end = time.monotonic() + float(sys.argv[1])
turn = 0
while time.monotonic() < end:
    turn += 1
    calls[turn * 7 % (len(calls) - 1)]()
run.close(20.0)
signal.setitimer(signal.ITIMER_REAL, 0.0)
print("ended after", count)
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs interval timers")
def test_a_storm_of_signals_hangs_nothing(finished: Any) -> None:
    done = finished(STORM, SECONDS, timeout=60 + 2 * float(SECONDS))
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout.split()[-1]) > 100
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs interval timers")
def test_a_bell_can_be_rung_while_it_is_rung() -> None:
    bell = Bell()
    before = signal.signal(signal.SIGALRM, lambda *_: (bell.set(), bell.clear(), bell.is_set(), bell.set()))
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        for _ in range(200_000):
            bell.set()
            bell.clear()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def test_a_bell_waits_as_an_event_does() -> None:
    bell = Bell()
    assert not bell.wait(0.01)
    bell.set()
    bell.set()
    assert bell.wait(0.01)
    assert bell.is_set()
    bell.clear()
    assert not bell.is_set()
    assert not bell.wait(0.0)
