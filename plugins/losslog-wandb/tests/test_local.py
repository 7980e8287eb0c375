"""What is on the disk after the process was killed, and that nothing is there twice."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from losslog_wandb import WandbPlugin
from losslog_wandb.localfiles import LocalFile, local_files

import losslog
from losslog.testing import tell
from losslog.testing.waiting import until

T0 = 1764000000.0
LIGHT = {"x_disable_stats": True, "x_save_requirements": False, "x_disable_machine_info": True}
Started = Callable[..., WandbPlugin]


def log(plugin: WandbPlugin, seqs: range) -> None:
    for seq in seqs:
        tell(plugin, "on_batch_losses", step=seq, losses={"a": float(seq)}, lr=None, seq=seq, time=T0 + seq)


def close(plugin: WandbPlugin, seq: int) -> None:
    plugin.on_run_end(status="finished", seq=seq, time=T0 + seq)
    until(lambda: plugin.on_flush() is None)


def kill_a_child(folder: Path, options: dict[str, Any], first: int, last: int) -> None:
    """Log rows in another process, wait until they are durable, kill it."""
    command = [sys.executable, str(Path(__file__).with_name("child.py")), str(folder), json.dumps(LIGHT | options)]
    environment = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    child = subprocess.Popen(
        [*command, str(first), str(last)], stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    assert child.stdout is not None
    with child.stdout:
        assert child.stdout.readline() == "READY\n"
        child.send_signal(signal.SIGKILL)
        child.wait()


def test_after_a_kill_every_durable_row_is_there_and_none_twice(started: Started, run: Any, local: Any) -> None:
    kill_a_child(run.dir, {"mode": "offline"}, 1, 101)
    plugin = started(mode="offline")
    assert plugin.delivered_upto(run) == 100
    log(plugin, range(90, 121))  # the cursor stood before
    close(plugin, 121)
    assert [row["losslog/seq"] for row in local.rows()] == list(range(1, 122))


def test_a_run_that_wrote_nothing_has_nothing(started: Started, run: Any) -> None:
    assert started(mode="offline").delivered_upto(run) == -1


def test_an_ended_run_has_everything_to_its_end(started: Started, run: Any) -> None:
    plugin = started(mode="offline")
    log(plugin, range(1, 4))
    close(plugin, 4)
    assert started(mode="offline").delivered_upto(run) == 4


def test_looking_again_at_an_ended_run_writes_nothing(started: Started, run: Any, local: Any) -> None:
    close(started(mode="offline"), 4)
    later = started(mode="offline")
    later.delivered_upto(run)
    later.on_flush()
    assert len(local.files) == 1


def test_another_project_is_another_target(started: Started, run: Any) -> None:
    close(started(mode="offline"), 4)
    assert started(mode="offline", project="fresh").delivered_upto(run) == -1


def test_a_flush_is_durable_when_the_row_is_in_the_file(started: Started, run: Any) -> None:
    plugin = started(mode="offline")
    log(plugin, range(1, 4))
    until(lambda: plugin.on_flush() is None)
    found = local_files(run.dir, run.id)
    close(plugin, 4)
    assert [file.seq for file in found] == [3]


def test_a_resumed_run_goes_on_in_a_file_of_its_own_under_the_same_id(started: Started, run: Any, local: Any) -> None:
    for first in (1, 4):
        plugin = started(mode="offline")
        log(plugin, range(first, first + 2))
        close(plugin, first + 2)
    assert [path.name for path in local.files] == [f"run-{run.id}.wandb"] * 2
    assert [row["losslog/seq"] for row in local.rows()] == [1, 2, 3, 4, 5, 6]


def test_when_wandb_core_dies_another_goes_on(started: Started, run: Any, local: Any) -> None:
    from wandb.sdk.wandb_setup import singleton

    plugin = started(mode="offline")
    log(plugin, range(1, 4))
    until(lambda: plugin.on_flush() is None)
    before = singleton()
    core: Any = before._connection
    core._proc._process.kill()
    core._proc.join()
    with pytest.raises(losslog.BackendUnavailable):
        log(plugin, range(4, 5000))  # until the broken connection is noticed
    assert singleton() is not before
    log(plugin, range(2, 6))
    close(plugin, 6)
    seqs = [row["losslog/seq"] for row in local.rows()]
    assert seqs == [1, 2, 3, 4, 5, 6]


@pytest.fixture
def file(started: Started, run: Any, local: Any) -> Path:
    """A file over several 32 KiB blocks."""
    plugin = started(mode="offline")
    log(plugin, range(1, 301))
    close(plugin, 301)
    return Path(local.files[0])


def test_records_over_block_borders_are_read(file: Path) -> None:
    found = LocalFile(file)
    assert (found.read(), found.ended, found.project, file.stat().st_size > 2 * 32768) == (301, True, "maskrcnn", True)


def test_a_torn_end_is_read_up_to_it_and_then_on(file: Path, tmp_path: Path) -> None:
    torn = tmp_path / "run-x.wandb"
    whole = file.read_bytes()
    torn.write_bytes(whole[: len(whole) // 2])
    found = LocalFile(torn)
    assert 0 < found.read() < 301
    torn.write_bytes(whole)
    assert found.read() == 301


def test_what_follows_a_damaged_byte_does_not_count(file: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "run-x.wandb"
    body = bytearray(file.read_bytes())
    body[len(body) // 2] ^= 0xFF
    damaged.write_bytes(bytes(body))
    assert 0 < LocalFile(damaged).read() < 301


def test_a_file_that_is_not_there_has_nothing(tmp_path: Path) -> None:
    assert LocalFile(tmp_path / "run-x.wandb").read() == -1


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_offline_tries_no_address_outside_and_needs_no_account(run: Any, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    code = (
        "import sys, time; from pathlib import Path; from losslog_wandb import WandbPlugin;"
        "from losslog.testing import tell;"
        "from losslog.control import RunHandle; folder = Path(sys.argv[1]);"
        "run = RunHandle(id='r', name='m', dir=folder, config={}, source='wandb', post=lambda *_: None);"
        "p = WandbPlugin(mode='offline'); p.on_run_start(name='m', config={}, run=run);"
        "tell(p, 'on_batch_losses', step=0, losses=1.0, lr=None, seq=1, time=time.time());"
        "p.on_run_end(status='finished', seq=2, time=time.time())"
    )
    environment = {
        name: value for name, value in os.environ.items() if name not in ("WANDB_SERVICE", "WANDB_ERROR_REPORTING")
    }
    strace = ["strace", "-f", "-qq", "-e", "trace=connect", "-e", "signal=none", "-o", str(trace)]
    subprocess.run([*strace, sys.executable, "-c", code, str(run.dir)], env=environment, check=True, timeout=60)
    calls = [line for line in trace.read_text().splitlines() if "AF_INET" in line]
    assert [line for line in calls if "127.0.0.1" not in line or "htons(53)" in line] == []


def test_records_that_come_again_after_the_end_open_nothing(started: Started, run: Any, local: Any) -> None:
    plugin = started(mode="offline")
    for _ in range(2):  # the second time to the same object, as after a flush whose answer was lost
        log(plugin, range(1, 4))
        close(plugin, 4)
    assert [row["losslog/seq"] for row in local.rows()] == [1, 2, 3, 4]
    assert len(local.files) == 1
