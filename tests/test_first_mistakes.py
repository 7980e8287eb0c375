"""Where a beginner errs there is one line, not silence; training goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import losslog


def test_epochs_from_0_and_steps_before_0_are_said_once(
    make_run: Callable[..., losslog.Run], caplog: pytest.LogCaptureFixture, records: Any
) -> None:
    run = make_run()
    for epoch in range(2):
        run.log_batch({"a": 1.0}, epoch=epoch, step=epoch - 1)
        run.log_batch({"a": 1.0}, epoch=epoch, step=epoch - 1)
        run.end_epoch(epoch)
    run.close()
    assert caplog.messages == [
        "epoch=0: epochs are counted from 1, pass epoch + 1; logged as it is (said once)",
        "step=-1: steps are counted from 0; logged as it is (said once)",
    ]
    assert [each.data["epoch"] for each in records(run.dir) if each.hook == "on_epoch_end"] == [0, 1]


def test_an_evaluation_before_the_first_epoch_is_no_mistake(
    make_run: Callable[..., losslog.Run], caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run()
    run.log_eval({"AP": 0.0}, epoch=0)
    run.close()
    assert caplog.messages == []


def test_a_checkpoint_that_is_not_there_is_said(
    make_run: Callable[..., losslog.Run], caplog: pytest.LogCaptureFixture, tmp_path: Any
) -> None:
    run = make_run()
    (tmp_path / "there.pth").touch()
    (run.dir / "inside.pth").touch()
    for path in (tmp_path / "there.pth", "inside.pth", "modle.pth"):
        run.log_checkpoint(path)
    run.close()
    assert caplog.messages == [
        f"log_checkpoint: there is no file modle.pth, here or in {run.dir}; logged as it is (said once)"
    ]


def test_requests_that_nobody_carried_out_are_said_when_the_run_ends(
    make_run: Callable[..., losslog.Run], caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run()
    run.request_stop("flat")
    run.request_lr(0.1)
    run.close()
    assert caplog.messages == [
        "nobody looked at run.should_stop: a request to stop was not seen (flat)",
        "nobody called run.apply_requests(optimizer): learning-rate requests that wait: 1",
    ]


def test_a_request_that_comes_too_late_for_a_loop_that_looks_is_no_mistake(
    make_run: Callable[..., losslog.Run], caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run()
    run.apply_requests(None)
    assert not run.should_stop
    run.request_stop("flat")
    run.request_lr(0.1)
    run.close()
    assert caplog.messages == []


def test_a_loop_that_never_ends_an_epoch_is_told(
    make_run: Callable[..., losslog.Run], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "losslog")
    run = make_run()
    run.log_batch({"a": 1.0})
    run.close()
    assert caplog.messages[-1] == "no epoch was ended: series by epoch (loss/train_*) come with run.end_epoch()"


def test_the_traceback_of_an_error_that_comes_again_is_shown_once(
    make_run: Callable[..., losslog.Run], caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        @losslog.hookimpl
        def on_batch_losses(self, step: int) -> None:
            raise ValueError(f"no step {step}")

    run = make_run(plugins=[Broken()])
    for _ in range(5):
        run.log_batch(1.0)
    run.close()
    told = [each for each in caplog.messages if "failed in" in each]
    assert [each.count("Traceback") for each in told] == [1, 0, 0]
    assert told[1] == (
        "plugin Broken failed in on_batch_losses (2 so far), record skipped:\nValueError: no step 1 (as before)"
    )
