"""Against a server on loopback: there, gone from the start, gone in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from losslog_wandb import WandbPlugin
from losslog_wandb.host import why_offline

from losslog.testing import tell
from losslog.testing.waiting import until

T0 = 1764000000.0
LIGHT = {"x_disable_stats": True, "x_save_requirements": False, "x_disable_machine_info": True}
FAST = {"x_file_stream_transmit_interval": 1.0}  # below 1 wandb takes its default of 15
Started = Callable[..., WandbPlugin]


def log(plugin: WandbPlugin, seqs: range) -> None:
    for seq in seqs:
        tell(plugin, "on_batch_losses", step=seq, losses={"a": float(seq)}, lr=None, seq=seq, time=T0 + seq)


def close(plugin: WandbPlugin, seq: int, status: str = "finished") -> None:
    plugin.on_run_end(status=status, seq=seq, time=T0 + seq)
    until(lambda: plugin.on_flush() is None)


def seqs(server: Any, run: Any) -> list[int]:
    return [row["losslog/seq"] for row in server.buckets[run.id].history]


def test_a_run_arrives_with_its_rows_and_its_end(started: Started, run: Any, online: Any) -> None:
    plugin = started()
    log(plugin, range(1, 6))
    close(plugin, 6)
    bucket = online.buckets[run.id]
    assert seqs(online, run) == [1, 2, 3, 4, 5, 6]
    assert (bucket.project, bucket.display_name, bucket.exit_code) == ("maskrcnn", f"maskrcnn {run.id}", 0)
    assert bucket.config["lr"]["value"] == 0.1


def test_the_server_is_told_the_axes(started: Started, run: Any, online: Any) -> None:
    plugin = started()
    log(plugin, range(1, 2))
    tell(plugin, "on_epoch_end", epoch=1, losses=1.0, val_loss=2.0, lr=0.1, seq=2, time=T0)
    close(plugin, 3)
    axes = online.buckets[run.id].axes
    assert (axes["batch/*"], axes["loss/train*"], axes["mAP/*"]) == ("batch/global_step", "epoch", "epoch")


def test_an_alert_arrives(started: Started, run: Any, online: Any) -> None:
    plugin = started()
    plugin.on_alert(level="warning", title="stalled", text="loss_mask", seq=1, time=T0)
    close(plugin, 2)
    assert [(each["title"], each["severity"]) for each in online.buckets[run.id].alerts] == [("stalled", "WARN")]


def test_a_resumed_run_goes_on_under_the_same_id(started: Started, run: Any, online: Any) -> None:
    for first in (1, 4):
        plugin = started()
        log(plugin, range(first, first + 2))
        close(plugin, first + 2)
    assert seqs(online, run) == [1, 2, 3, 4, 5, 6]
    assert [row["_step"] for row in online.buckets[run.id].history] == [0, 1, 2, 3, 4, 5]


def test_without_a_key_it_is_offline_and_says_so(
    started: Started, online: Any, local: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("WANDB_API_KEY")
    plugin = started(mode="online")
    with caplog.at_level("INFO", "losslog"):
        close(plugin, 1)
    assert "offline (no API key)" in caplog.text
    assert "wandb sync" in caplog.text
    assert local.files[0].parent.name.startswith("offline-")


@pytest.mark.parametrize("key", ["short", "1" * 40])
def test_a_key_that_is_refused_means_offline(
    started: Started, online: Any, local: Any, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", key)
    online.op_Viewer = online.op_UpsertBucket = lambda _: None
    online.status = 401 if key != "short" else 200
    close(started(mode="online"), 1)
    assert local.files[-1].parent.name.startswith("offline-")


def test_a_dead_server_means_offline_and_a_later_sync_brings_every_row(
    started: Started, run: Any, online: Any, sync: Any, caplog: pytest.LogCaptureFixture
) -> None:
    online.stop()
    plugin = started()
    with caplog.at_level("INFO", "losslog"):
        log(plugin, range(1, 6))
    close(plugin, 6)
    assert "does not answer" in caplog.text
    online.start()
    sync()
    assert seqs(online, run) == [1, 2, 3, 4, 5, 6]


def test_a_server_lost_in_mid_run_blocks_nothing_and_a_later_sync_brings_every_row(
    started: Started, run: Any, online: Any, sync: Any, caplog: pytest.LogCaptureFixture
) -> None:
    plugin = started(**FAST, finish_timeout=1)
    log(plugin, range(1, 4))
    until(lambda: seqs(online, run) == [1, 2, 3])
    online.stop()
    log(plugin, range(4, 51))
    close(plugin, 51)
    assert "--include-online" in caplog.text
    online.start()
    sync("--include-online")
    # the sync sends the whole file, behind what was uploaded before: the first rows come again, under their own _step
    assert [row["_step"] + 1 for row in online.buckets[run.id].history] == seqs(online, run)
    assert set(seqs(online, run)) == set(range(1, 52))


def test_rows_queue_behind_those_that_are_not_uploaded_yet(
    started: Started, run: Any, online: Any, sync: Any, caplog: pytest.LogCaptureFixture
) -> None:
    online.stop()
    plugin = started()
    log(plugin, range(1, 4))
    close(plugin, 4)
    online.start()
    plugin = started()
    with caplog.at_level("INFO", "losslog"):
        log(plugin, range(5, 7))
    close(plugin, 7)
    assert "earlier rows" in caplog.text
    sync()
    assert seqs(online, run) == [1, 2, 3, 4, 5, 6, 7]


def test_after_a_kill_online_the_server_says_what_it_has(started: Started, run: Any, online: Any) -> None:
    child = subprocess.Popen(
        [
            sys.executable, str(Path(__file__).with_name("child.py")), str(run.dir),
            json.dumps(LIGHT | FAST | {"mode": "online"}), "1", "31",
        ],
        env={name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"},
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    until(lambda: run.id in online.buckets and len(online.buckets[run.id].history) > 0)
    child.send_signal(signal.SIGKILL)
    child.wait()
    plugin = started(**FAST)
    upto = plugin.delivered_upto(run)
    assert upto is not None
    assert seqs(online, run) == list(range(1, upto + 1))
    log(plugin, range(1, 41))  # a cursor that stood at the beginning
    close(plugin, 41)
    assert seqs(online, run) == list(range(1, 42))


@pytest.mark.parametrize("status", [500, 429])
def test_a_server_that_is_ill_is_not_asked_for_more(online: Any, status: int) -> None:
    online.status = status
    assert why_offline(online.url, "k", None) == f"127.0.0.1:{online.port} answers {status}"


@pytest.mark.parametrize("status", [200, 302, 404, 401])
def test_any_other_answer_is_an_answer(online: Any, status: int) -> None:
    online.status = status
    assert why_offline(online.url, "k", None) is None


def test_a_key_in_netrc_is_a_key(online: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1 login user password {'1' * 40}\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert why_offline(online.url, None, None) is None
