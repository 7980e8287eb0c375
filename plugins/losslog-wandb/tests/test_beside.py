"""Beside a run of the user's own in the same process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from losslog_wandb import WandbPlugin
from losslog_wandb.localfiles import LocalFile
from losslog_wandb.session import _own_service

from losslog.testing import tell
from losslog.testing.waiting import until

T0 = 1764000000.0
Started = Callable[..., WandbPlugin]


@pytest.fixture
def users(tmp_path: Path) -> Iterator[Any]:
    """The user's live ``wandb.run``."""
    import wandb

    folder = tmp_path / "users"
    folder.mkdir()
    settings = wandb.Settings(silent=True, console="off", x_disable_stats=True, x_transaction_log_flush_interval=0.1)
    live = wandb.init(project="theirs", id="theirs", dir=str(folder), mode="offline", settings=settings)
    yield live
    live.finish()


def log(plugin: WandbPlugin, seqs: range) -> None:
    for seq in seqs:
        tell(plugin, "on_batch_losses", step=seq, losses=1.0, lr=None, seq=seq, time=T0)


def close(plugin: WandbPlugin, seq: int) -> None:
    plugin.on_run_end(status="finished", seq=seq, time=T0)
    until(lambda: plugin.on_flush() is None)


def finish(live: Any) -> LocalFile:
    """End the user's run; wandb-core may still be writing when ``finish`` has returned."""
    live.finish()
    file = LocalFile(Path(live.settings.sync_file))
    until(lambda: file.read() >= -1 and file.ended)
    return file


def rows(live: Any) -> list[int]:
    """The user's values in the file of their finished run, read with wandb's own reader."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", live.settings.sync_file]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    records = [json.loads(line) for line in done.stdout.splitlines() if line.strip()]
    rows = [record["history"]["item"] for record in records if "history" in record]
    return [row["users"] for row in rows if "users" in row]


def test_without_a_live_run_there_are_no_live_options() -> None:
    assert WandbPlugin.live_options() == {}


def test_ours_is_a_sibling_in_project_group_and_mode(users: Any) -> None:
    assert WandbPlugin.live_options() == {"project": "theirs", "group": "theirs", "mode": "offline"}


def test_the_users_rows_survive_also_with_step(users: Any, started: Started, local: Any) -> None:
    plugin = started(**WandbPlugin.live_options())
    for step in range(10):
        log(plugin, range(step * 10, step * 10 + 10))
        users.log({"users": step}, step=step)
    close(plugin, 100)
    finish(users)
    assert rows(users) == list(range(10))
    assert [row["losslog/seq"] for row in local.rows()] == list(range(101))


def test_the_users_run_stays_the_live_one(users: Any, started: Started) -> None:
    import wandb

    plugin = started(**WandbPlugin.live_options())
    log(plugin, range(1))
    live = wandb.run
    close(plugin, 1)
    assert live is users


def test_reuse_writes_into_the_users_run_and_does_not_finish_it(users: Any, started: Started, local: Any) -> None:
    plugin = started(reuse=True)
    log(plugin, range(3))
    close(plugin, 3)
    users.log({"users": 1})
    assert finish(users).seq == 3
    assert local.files == []
    assert rows(users) == [1]


def test_reuse_is_near(users: Any) -> None:
    assert (WandbPlugin(reuse=True).near, WandbPlugin().near) == (True, False)


def test_the_follower_starts_a_wandb_core_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_SERVICE", "the-training-process")
    monkeypatch.setenv("LOSSLOG_PARENT_PID", str(os.getpid() + 1))
    _own_service()
    assert "WANDB_SERVICE" not in os.environ
