"""Real runs: what arrives of an alert, an end, a crash; once each, and no address anywhere."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import losslog
from losslog.cli import main
from losslog.testing.waiting import until

SCRIPT = """
import os, signal, sys, losslog
run = losslog.Run("maskrcnn", sys.argv[1], config={"lr": 0.1}, plugins=["notify"], epochs=2, resume=sys.argv[2] or None)
for step in range(20):
    run.log_batch({"loss_mask": 0.5, "loss_box_reg": 0.25})
run.log_eval({"bbox": {"AP": 0.5}, "segm": {"AP": 0.25}})
run.end_epoch()
if not sys.argv[2]:
    run.alert("loss_mask has stalled", "Lower the rate.", component="loss_mask", key="k", cause="lr_cut")
run.flush(20)
print(run.dir, flush=True)
if sys.argv[3] == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[3] == "raise":
    raise ZeroDivisionError("no images: password=hunter2")
run.close(30)
"""


def train(folder: Path, endpoint: Any, how: str = "", resume: Any = "") -> tuple[Path, str]:
    environment = os.environ | {"LOSSLOG_NOTIFY": endpoint.url}
    command = [sys.executable, "-c", SCRIPT, str(folder), str(resume), how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    expected = {"kill": -signal.SIGKILL, "raise": 1}.get(how, 0) if os.name != "nt" else done.returncode
    assert done.returncode == expected, done.stderr
    return Path(done.stdout.split("\n")[0]), done.stdout + done.stderr


def is_nowhere(secret: str, folder: Path) -> None:
    assert [str(each) for each in folder.rglob("*") if each.is_file() and secret.encode() in each.read_bytes()] == []


def test_an_alert_and_the_end_of_a_run(tmp_path: Path, endpoint: Any) -> None:
    folder, said = train(tmp_path, endpoint)
    endpoint.has("loss_mask has stalled", "finished after")
    assert [each["title"] for each in endpoint.taken].count("maskrcnn: loss_mask has stalled") == 1
    last = endpoint.taken[-1]
    assert (last["title"].partition(" after ")[0], last["type"]) == ("maskrcnn: finished", "success")
    assert "20 steps, total 0.7500" in last["body"]
    assert "best segm AP 0.2500 (epoch 1)" in last["body"]
    assert "1 alert: loss_mask has stalled" in last["body"]
    assert folder.name in last["body"]
    first = endpoint.taken[0]["body"]
    assert "Lower the rate." in first
    assert "cause: lr_cut" in first
    assert "s3cret" not in said
    is_nowhere("s3cret", tmp_path)


def test_a_run_that_fails_says_why_without_a_secret(tmp_path: Path, endpoint: Any) -> None:
    train(tmp_path, endpoint, "raise")
    endpoint.has("maskrcnn: failed after", "ZeroDivisionError: no images")
    assert endpoint.taken[-1]["type"] == "failure"
    assert "hunter2" not in endpoint.text


@pytest.mark.skipif(os.name == "nt", reason="kill -9")
def test_a_crash_is_told_and_a_resume_tells_nothing_again(tmp_path: Path, endpoint: Any) -> None:
    folder, _ = train(tmp_path, endpoint, "kill")
    endpoint.has("crashed after", "its process was killed", "loss_mask has stalled")
    titles = [each["title"] for each in endpoint.taken]
    assert titles.count("maskrcnn: loss_mask has stalled") == 1
    assert sum(each.startswith("maskrcnn: crashed") for each in titles) == 1
    until(lambda: b'"crashed"' in (folder / "journal.jsonl").read_bytes(), "the end of the run")
    count = len(endpoint.taken)
    train(tmp_path, endpoint, resume=folder)
    endpoint.has("maskrcnn: finished after")
    assert len(endpoint.taken) == count + 1
    is_nowhere("s3cret", tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="kill -9")
def test_a_crash_while_the_service_is_away_is_told_once_it_is_back(tmp_path: Path, endpoint: Any) -> None:
    endpoint.close()
    folder, said = train(tmp_path, endpoint, "kill")
    log = folder / "follower.log"
    until(lambda: log.exists() and "cannot be reached" in log.read_text("utf-8"), "the outage in follower.log")
    endpoint.open()
    endpoint.has("maskrcnn: crashed after", "loss_mask has stalled")
    time.sleep(0.05)
    assert endpoint.text.count("warning: loss_mask has stalled") == 1
    assert endpoint.text.count("maskrcnn: crashed") == 1
    assert "s3cret" not in said
    is_nowhere("s3cret", tmp_path)


@pytest.mark.parametrize("follower", [True, False])
def test_far_and_near_with_options(
    tmp_path: Path, endpoint: Any, follower: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    options = {"notify": {"urls": [endpoint.url], "epochs": True, "alerts": "error", "max_age": 3600}}
    run = losslog.Run("maskrcnn", tmp_path, {}, "notify", options, follower=follower)
    for epoch in (1, 2):
        run.log_batch({"loss_mask": 0.5, "loss_box_reg": 0.25})
        run.end_epoch()
        run.alert(f"a warning {epoch}", "", key=f"w{epoch}")
    run.alert("an error", "it is bad", level="error", key="e")
    run.close(30)
    endpoint.has("epoch 1: total 0.7500", "epoch 2: total 0.7500", "an error", "finished after")
    assert "warning: a warning" not in endpoint.text
    assert "s3cret" not in caplog.text
    is_nowhere("s3cret", tmp_path)
    journal = (run.dir / "journal.jsonl").read_text("utf-8")
    assert '"urls": "[redacted]"' in journal


def test_an_outage_during_the_run_loses_and_doubles_nothing(tmp_path: Path, endpoint: Any) -> None:
    options = {"notify": {"urls": endpoint.url, "burst": 100}}
    run = losslog.Run("maskrcnn", tmp_path, {}, "notify", options)
    for number in range(6):
        run.log_batch({"loss_mask": 0.5})
        run.alert(f"alert-{number}.", "", key=str(number))
        run.flush(20)
        if number == 1:
            endpoint.has("alert-1.")
            endpoint.close()
        if number == 3:
            until(lambda: run.stats["lanes"]["notify"]["state"] == "waiting", "the lane waits")
            endpoint.status = 503
            endpoint.open()
        if number == 4:
            asked = endpoint.asked
            until(lambda asked=asked: endpoint.asked > asked, "another attempt")  # type: ignore[misc]
            endpoint.status = 200
    endpoint.has(*(f"alert-{number}." for number in range(6)))
    run.close(30)
    endpoint.has("finished after")
    listed = "\n".join(each["title"] + "\n" + each["body"].partition("alerts: ")[0] for each in endpoint.taken)
    assert [listed.count(f"alert-{number}.") for number in range(6)] == [1] * 6


def test_a_replay_goes_where_its_user_says_and_sends_once(
    tmp_path: Path, endpoint: Any, other: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = losslog.Run("maskrcnn", tmp_path, {}, None)
    run.alert("loss_mask has stalled", "", key="k")
    run.close()
    journal = run.dir / "journal.jsonl"
    text = journal.read_text("utf-8")
    assert '"options": {}' in text
    journal.write_text(text.replace('"options": {}', f'"options": {{"notify": {{"urls": "{other.url}"}}}}'), "utf-8")
    assert main(["replay", str(run.dir), "--to", "notify"]) != 0  # a stranger's address is nobody's wish
    assert "LOSSLOG_NOTIFY" in capsys.readouterr().err
    monkeypatch.setenv("LOSSLOG_NOTIFY", endpoint.url)
    for _ in range(2):
        assert main(["replay", str(run.dir), "--to", "notify"]) == 0
    assert endpoint.text.count("warning: loss_mask has stalled") == 1
    assert len(endpoint.taken) == 1
    assert other.taken == []


def test_a_replay_of_an_old_run_wakes_nobody_unless_asked(
    tmp_path: Path, endpoint: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = losslog.Run("maskrcnn", tmp_path, {}, None)
    run.alert("loss_mask has stalled", "", key="k")
    run.close()
    monkeypatch.setenv("LOSSLOG_NOTIFY", endpoint.url)
    caplog.set_level(logging.INFO)
    now = time.time
    monkeypatch.setattr("losslog_notify.plugin.clock.time", lambda: now() + 100 * 86400)
    assert main(["replay", str(run.dir), "--to", "notify"]) == 0
    assert endpoint.taken == []
    assert "2 messages are older than max_age=86400 s" in caplog.text
    again = ["replay", str(run.dir), "--to", "notify", "--from-start", "-o", "notify.max_age=null"]
    assert main(again) == 0
    assert "loss_mask has stalled" in endpoint.text


def test_the_command_line_of_a_run_shows_no_address(tmp_path: Path, endpoint: Any) -> None:
    script = "import losslog, sys\nwith losslog.Run('r', sys.argv[1], plugins=None) as run:\n    run.log_batch(0.5)\n"
    words = ["-o", f"notify.urls={endpoint.url}", "--notify-url", "slack://s3cret/x", "discord://s3cret/y"]
    command = [sys.executable, "-c", script, str(tmp_path), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    is_nowhere("s3cret", tmp_path)
