from __future__ import annotations

import os
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from losslog.runtime.pace import LONG_REST, REST, WORK, Pace, start_thread


def test_threads_are_daemons() -> None:
    ran = threading.Event()
    thread = start_thread(ran.set, "losslog-test")
    assert (thread.daemon, thread.name) == (True, "losslog-test")
    assert ran.wait(10)


def busy(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


@pytest.mark.parametrize(("urgent", "times"), [(True, REST), (False, LONG_REST)])
def test_work_is_followed_by_a_longer_rest(urgent: bool, times: int) -> None:
    pace = Pace(active=True, urgent=urgent)
    busy(2e-3)
    began = time.perf_counter()
    pace.rest()
    assert time.perf_counter() - began >= 2e-3 * times * 0.99


def test_who_is_not_urgent_waits_for_the_rests_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    clock = SimpleNamespace(perf_counter=lambda: 100.0, thread_time=lambda: 5.0, sleep=slept.append)
    monkeypatch.setattr("losslog.runtime.pace.time", clock)
    monkeypatch.setattr(Pace, "_free", 100.2)
    waiting, urgent = Pace(active=True), Pace(active=True, urgent=True)
    waiting._since = urgent._since = 100.0 - 1e-3
    waiting._used = urgent._used = 5.0 - 1e-3
    urgent.rest()
    waiting.rest()
    assert slept == pytest.approx([REST * 1e-3, 0.2 + (REST + LONG_REST) * 1e-3])


def test_a_rest_has_an_end() -> None:
    pace = Pace(active=True)
    pace._since -= 3600
    pace._used -= 3600
    began = time.perf_counter()
    pace.rest()
    assert time.perf_counter() - began < 5


def test_little_work_needs_no_rest() -> None:
    pace = Pace(active=True)
    slept = 0
    for _ in range(5):
        pace.fresh()
        began = time.perf_counter()
        pace.rest()
        slept += time.perf_counter() - began > WORK * REST
    assert slept < 5


def test_where_it_is_off_nobody_rests() -> None:
    pace = Pace(active=False)
    pace._since -= 3600
    began = time.thread_time()
    pace.rest()
    assert pace._since < time.perf_counter() - 3000  # it did not even look
    assert time.thread_time() - began < 1


def test_what_was_waited_is_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    clock = SimpleNamespace(perf_counter=lambda: 100.0, thread_time=lambda: 5.0, sleep=slept.append)
    monkeypatch.setattr("losslog.runtime.pace.time", clock)
    pace = Pace(active=True)
    pace._since = 90.0
    pace.rest()
    assert slept == []


FORKED = """
import os, signal, sys, threading
import losslog
from losslog.control import Requests
from losslog.journal import archive, locks
from losslog.runtime import notices, pace

run = losslog.Run("parent", dir="runs", plugins=None)
held, over = threading.Event(), threading.Event()

def hold():
    with pace._turns, notices._lock, locks._held_guard, archive._guard, run._requests._lock:
        held.set()
        over.wait()

threading.Thread(target=hold, daemon=True).start()
held.wait()
child = os.fork()
if child == 0:
    signal.alarm(20)
    run.request_stop("in the child")
    run.should_stop
    own = losslog.Run("child", dir="runs", plugins=None)
    for step in range(2000):
        own.log_batch({"a": float(step)})
    own.close(10)
    print(sum(b"on_batch_losses" in line for line in open(own.dir / "journal.jsonl", "rb")), flush=True)
    os._exit(0)
_, status = os.waitpid(child, 0)
over.set()
run.close(10)
print("child", status)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_that_is_forked_while_locks_are_held_logs_all_the_same(finished: Any) -> None:
    done = finished(FORKED, timeout=60)
    assert done.stdout.split() == ["2000", "child", "0"], done.stderr
