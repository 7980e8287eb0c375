"""The fixtures of the pytest plugin, loaded as an author's conftest loads them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import losslog
from losslog.testing import Flaky, Hanging, Recorder

CONFTEST = 'pytest_plugins = ["losslog.testing.plugin"]\n'
TESTS = """
import pytest
import losslog


def test_a_recorder_remembers_every_call(make_run, recorder):
    with make_run(plugins=[recorder], epochs=1) as run:
        run.log_batch({"loss_mask": 0.5, "loss_box_reg": 0.25}, lr=0.1)
        run.log_eval({"bbox": {"AP": 0.5}})
        run.log_metrics({"speed": 3.0})
        run.log_checkpoint("a.pth")
        run.alert("look")
        run.end_epoch(val_loss=0.75)
    assert recorder.hooks == ["on_run_start", "on_batch_losses", "on_eval", "on_metrics", "on_checkpoint", "on_alert",
                              "on_epoch_end", "on_run_end"]
    assert recorder.of("on_run_end")[0]["status"] == "finished"
    assert recorder.series["loss/train_total"] == [(1, 0.75)]
    assert recorder.series["batch/train_loss_mask"] == [(0, 0.5)]
    assert recorder.series["mAP/bbox_AP"] == [(1, 0.5)]
    assert recorder.series["speed"] == [(0, 3.0)]
    assert recorder.flushes > 0


def test_a_flaky_backend_loses_nothing(make_run, flaky, journal_lines):
    plugin = flaky(fails=1, error=losslog.BackendUnavailable("made up"))
    run = make_run(plugins=[plugin])
    run.end_epoch(1, losses=0.5)
    run.end_epoch(2, losses=0.25)
    assert plugin.wait_for("on_epoch_end", times=2)
    run.close(20)
    assert [call["epoch"] for call in plugin.of("on_epoch_end")] == [1, 2]
    assert plugin.fails == 0
    assert [record.hook for record in journal_lines(run.dir)] == ["on_run_start", "on_epoch_end", "on_epoch_end",
                                                                  "on_run_end"]


def test_a_flaky_flush(make_run, flaky):
    plugin = flaky(fails=1, hook="on_flush")
    run = make_run(plugins=[plugin])
    run.end_epoch(1, losses=0.5)
    assert plugin.wait_for("on_run_start", times=2)
    assert plugin.wait_for("on_epoch_end")
    run.close(20)
    assert plugin.flushes > 0


def test_a_hanging_backend_does_not_hold_the_run(make_run, hanging, recorder):
    plugin = hanging(hook="on_epoch_end")
    run = make_run(plugins=[plugin, recorder])
    run.end_epoch(1, losses=0.5)
    assert plugin.hangs.wait(10)
    run.close(1)
    assert recorder.of("on_epoch_end")
    assert plugin.of("on_epoch_end") == []


def test_journal_lines_of_a_run_that_goes_on(make_run, journal_lines):
    run = make_run()
    run.log_batch(0.5, step=7)
    assert journal_lines(run)[-1].data["step"] == 7
"""


def test_the_fixtures_do_what_they_say(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_inner.py").write_text(TESTS)
    root = Path(losslog.__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "-p", "no:cacheprovider", "-W", "error", "."],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(root)}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 passed" in done.stdout


def test_nothing_of_the_kit_loads_by_itself() -> None:
    code = "import sys, losslog; assert 'pytest' not in sys.modules; assert 'losslog.testing' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_doubles_are_plugins() -> None:
    from losslog.delivery.caller import Caller, implemented
    from losslog.hookspecs import HOOKS

    for double in (Recorder(), Flaky(), Hanging()):
        assert set(implemented(double)) == set(HOOKS) - {"on_scalars"}
        Caller("double", double)
