"""``replay --wait`` and ``follow --wait`` end in bounded time, whatever a plugin does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import losslog

PLUGIN = """
import atexit, os, threading, time
from losslog import BackendUnavailable, hookimpl

class Plugin:
    flush_every = 0.05

    def __init__(self, fault=""):
        self._fault = fault

    @hookimpl
    def on_batch_losses(self, step):
        if self._fault == "hangs in a hook" and step == 3:
            time.sleep(3600)
        if self._fault == "hangs at exit, too" and step == 3:
            atexit.register(time.sleep, 3600)
            time.sleep(3600)
        if self._fault == "is slow":
            time.sleep(0.05)

    @hookimpl
    def on_flush(self):
        if self._fault == "hangs in its flush":
            time.sleep(3600)
        if self._fault == "is away":
            raise BackendUnavailable("nobody there")
        if self._fault == "is never durable":
            return 1
        if self._fault == "reads a pipe":
            os.mkfifo("pipe")
            open("pipe").read()
"""
FAULTS = {
    "hangs in a hook": "hung",
    "hangs at exit, too": "hung",
    "hangs in its flush": "hung",
    "reads a pipe": "hung",
    "is away": "waiting BackendUnavailable: nobody there",
    "is never durable": "live on_flush says that",
}


@pytest.fixture
def command(make_run: Callable[..., losslog.Run], package: Callable[..., str]) -> Callable[..., tuple[int, str]]:
    """Runs a command on a run with 40 batches; one that takes a minute has no bound."""
    package(PLUGIN)
    run = make_run(plugins=None)
    for step in range(40):
        run.log_batch({"a": float(step)})
    run.close()

    def call(name: str, fault: str, wait: str = "1") -> tuple[int, str]:
        words = [sys.executable, "-m", "losslog", name, str(run.dir), "--to", "probe", "--wait", wait]
        done = subprocess.run(
            [*words, "-o", f"probe.fault={fault}"], capture_output=True, text=True, timeout=60, cwd=run.dir.parent,
            env=os.environ.copy(),
        )  # fmt: skip
        return done.returncode, done.stderr

    return call


@pytest.mark.sampled(6)
@pytest.mark.parametrize("name", ["replay", "follow"])
@pytest.mark.parametrize("fault", FAULTS)
def test_it_ends_and_says_why(command: Callable[..., tuple[int, str]], name: str, fault: str) -> None:
    if fault == "reads a pipe" and not hasattr(os, "mkfifo"):
        pytest.skip("no pipes in folders here")
    code, said = command(name, fault)
    assert code == 1
    assert f"not complete: {FAULTS[fault]}" in said


@pytest.mark.parametrize("name", ["replay", "follow"])
def test_what_goes_on_is_waited_for_however_long_it_takes(command: Callable[..., tuple[int, str]], name: str) -> None:
    code, said = command(name, "is slow", "0.2")
    assert (code, "not complete" in said) == (0, False), said


def test_a_pipe_among_event_files_is_no_event_file(command: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    pytest.importorskip("losslog_tensorboard", reason="needs losslog-tensorboard")
    run = next(tmp_path.rglob("journal.jsonl")).parent
    target = tmp_path / "elsewhere"
    target.mkdir()
    os.mkfifo(target / "events.out.tfevents.0000000001.host.1.1")
    done = subprocess.run(
        [sys.executable, "-m", "losslog", "replay", str(run), "--to", "tensorboard", "--wait", "4",
         "-o", f"tensorboard.log_dir={target}"],
        capture_output=True, text=True, timeout=60, cwd=run.parent, env=os.environ.copy(),
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "tensorboard: 42 records delivered\n")
