"""What lies in Trackio's store, read with its command, and what a kill and a full disk do to it."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trackio.cli
from losslog_trackio import TrackioPlugin
from trackio.sqlite_storage import SQLiteStorage

import losslog
from losslog.testing import tell

KILLED = """
import os, signal, sys, losslog
options = {"trackio": {"project": "killed"}}
run = losslog.Run("killed", sys.argv[1], plugins=["trackio"], options=options, follower=False)
for step in range(200):
    run.log_batch({"loss_mask": 0.5, "loss_box_reg": step / 100})
assert run.flush(30)
print(run.id, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def make_run(folder: Path, project: str, **options: Any) -> losslog.Run:
    plugins, options = ["trackio"], {"trackio": {"project": project, **options}}
    return losslog.Run("test", folder, {"lr": 0.1, "_secret": 1}, plugins, options, follower=False)


def command(*arguments: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", trackio.cli.__name__, *arguments, "--json"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_its_own_command_reads_the_run_back(tmp_path: Path) -> None:
    with make_run(tmp_path, "by-command") as run:
        for step in range(3):
            run.log_batch({"loss_mask": 0.5 + step, "loss_box_reg": 0.25})
        run.end_epoch()
    said = command("get", "metric", "--project", "by-command", "--run", run.id, "--metric", "loss/train_total")
    assert [(each["step"], each["value"]) for each in said["values"]] == [(1, 1.75)]


def test_an_alert_is_trackios_own(tmp_path: Path) -> None:
    with make_run(tmp_path, "alerts") as run:
        run.log_batch(0.5, step=7)
        run.alert("loss_mask has stalled", "No progress.", level="error")
    (alert,) = SQLiteStorage.get_alerts("alerts")
    assert (alert["title"], alert["text"], alert["level"], alert["step"]) == (
        "loss_mask has stalled", "No progress.", "error", 7,
    )  # fmt: skip


def test_the_config_is_kept_without_names_that_trackio_reserves(tmp_path: Path) -> None:
    with make_run(tmp_path, "configs", group="nightly") as run:
        run.log_batch(0.5)
    config = SQLiteStorage.get_run_config("configs", run.id, run_id=run.id)
    assert config is not None
    assert config["lr"] == 0.1
    assert "_secret" not in config
    assert config["_Group"] == "nightly"


def test_a_run_that_failed_says_so(tmp_path: Path) -> None:
    def train() -> None:
        with make_run(tmp_path, "failed") as run:
            run.log_batch(0.5)
            raise ZeroDivisionError("no images")

    with pytest.raises(ZeroDivisionError):
        train()
    (alert,) = SQLiteStorage.get_alerts("failed")
    assert alert["text"].startswith("status failed: ZeroDivisionError")


def test_a_kill_loses_nothing_that_was_flushed(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    rows = SQLiteStorage.get_logs("killed", done.stdout.strip(), run_id=done.stdout.strip())
    assert [row["step"] for row in rows] == list(range(200))


def test_a_store_that_cannot_be_written_is_not_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def locked(*arguments: Any, **options: Any) -> None:
        raise sqlite3.OperationalError("database is locked")

    monkeypatch.setattr(SQLiteStorage, "init_db", staticmethod(locked))
    plugin = TrackioPlugin(project="locked")
    handle: Any = type("Handle", (), {"id": "r1", "dir": tmp_path})()
    plugin.on_run_start("test", {}, handle, 1.0)
    tell(plugin, "on_batch_losses", step=0, losses=0.5, seq=1, time=1.0)
    with pytest.raises(losslog.BackendUnavailable, match="locked"):
        plugin.on_flush()
    monkeypatch.undo()
    plugin.on_flush()
    assert SQLiteStorage.get_logs("locked", "r1", run_id="r1") == []


@pytest.mark.parametrize("options", [{"project": 3}, {"group": 3}])
def test_a_wrong_option_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="pass a text"):
        TrackioPlugin(**options)
