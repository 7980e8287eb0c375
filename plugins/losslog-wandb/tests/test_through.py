"""A whole run: training process, journal, follower process, local file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from losslog.testing.waiting import until

STEPS = 100
LIGHT = {"x_disable_stats": True, "x_save_requirements": False, "x_disable_machine_info": True}


def start(folder: Path, fate: str = "end") -> tuple[subprocess.Popen[str], SimpleNamespace]:
    """Start a training script; returns its process and its run, as far as reading back goes."""
    command = [sys.executable, str(Path(__file__).with_name("train.py")), str(folder), str(STEPS), fate]
    options = json.dumps({"wandb": {"mode": "offline", **LIGHT}})
    environment = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    process = subprocess.Popen(
        [*command, options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    place = Path(process.stdout.readline().strip())
    return process, SimpleNamespace(id=place.name, dir=place)


def followers(run: SimpleNamespace) -> list[int]:
    listing = subprocess.run(["ps", "-ewwo", "pid,args"], capture_output=True, text=True, check=True).stdout
    return [int(line.split()[0]) for line in listing.splitlines() if run.id in line and "losslog" in line]


def steps(rows: list[dict[str, Any]]) -> list[int]:
    return [row["batch/global_step"] for row in rows if "batch/global_step" in row]


def finish(process: subprocess.Popen[str], run: SimpleNamespace) -> None:
    process.communicate(timeout=60)
    until(lambda: not followers(run))


def test_every_row_is_in_the_file_and_no_secret(tmp_path: Path, reader: Any) -> None:
    process, run = start(tmp_path)
    finish(process, run)
    local = reader(run)
    assert steps(local.rows()) == list(range(STEPS))
    assert (local.summary()["exit_code"], local.summary()["config"]) == (0, {"api_key": "[redacted]"})
    files = [path for path in run.dir.rglob("*") if path.is_file()]
    assert [path for path in files if b"hunter2" in path.read_bytes()] == []


def test_after_a_kill_of_training_the_file_is_closed_and_complete(tmp_path: Path, reader: Any) -> None:
    process, run = start(tmp_path, "kill")
    finish(process, run)
    local = reader(run)
    assert steps(local.rows()) == list(range(STEPS))
    assert (local.summary()["exit_code"], local.summary()["summary"]["losslog/status"]) == (1, "crashed")


def test_a_kill_of_the_follower_neither_loses_nor_doubles_rows(tmp_path: Path, reader: Any) -> None:
    process, run = start(tmp_path, "pause")
    local = reader(run)
    until(lambda: bool(local.files) and local.files[0].stat().st_size > 10_000)
    os.kill(followers(run)[0], signal.SIGKILL)
    (tmp_path / "go").touch()
    finish(process, run)
    assert steps(local.rows()) == list(range(STEPS))
    assert len(local.files) == 2
