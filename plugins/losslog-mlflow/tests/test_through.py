"""A whole run: training process, journal, follower process, server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from losslog.testing.waiting import until

STEPS = 120


def train(folder: Path, uri: str, fate: str = "end") -> SimpleNamespace:
    """Run a training script; returns its run, as far as reading back goes."""
    command = [sys.executable, str(Path(__file__).with_name("train.py")), str(folder), str(STEPS), fate]
    options = json.dumps({"mlflow": {"tracking_uri": uri}})
    environment = {name: value for name, value in os.environ.items() if name != "RUST_LOG"}
    done = subprocess.run(
        [*command, options], capture_output=True, text=True, timeout=60, env=environment, check=fate == "end"
    )
    place = Path(done.stdout.splitlines()[0])
    return SimpleNamespace(id=place.name, dir=place, said=done.stderr)


def follower_gone(run: SimpleNamespace) -> bool:
    listing = subprocess.run(["ps", "-ewwo", "args"], capture_output=True, text=True, check=True).stdout
    return run.id not in listing


def test_every_point_arrives_in_the_server(tmp_path: Path, server: Any, reader: Any) -> None:
    run = train(tmp_path, server.uri)
    there = reader(server.uri)
    until(lambda: there.run(run).info.status == "FINISHED")
    assert there.series(run, "batch/train_loss_box") == [(step, 1.0 + step) for step in range(STEPS)]
    assert there.run(run).data.tags["mlflow.source.name"] == str(Path(__file__).with_name("train.py"))


def test_after_a_kill_the_run_is_failed_and_complete(tmp_path: Path, server: Any, reader: Any) -> None:
    run = train(tmp_path, server.uri, "kill")
    there = reader(server.uri)
    until(lambda: follower_gone(run))
    assert there.run(run).info.status == "FAILED"
    assert there.series(run, "batch/train_loss_box") == [(step, 1.0 + step) for step in range(STEPS)]


def test_a_server_that_comes_back_gets_everything_from_the_follower(tmp_path: Path, server: Any, reader: Any) -> None:
    server.stop()
    run = train(tmp_path, server.uri)
    assert "is away" in run.said
    assert "the follower goes on with mlflow" in run.said
    server.start()
    server.wait()
    until(lambda: follower_gone(run))
    there = reader(server.uri)
    assert there.series(run, "batch/train_loss_box") == [(step, 1.0 + step) for step in range(STEPS)]
    assert there.run(run).info.status == "FINISHED"
