from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import losslog
from losslog.runtime import settings


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "_once", settings.Once())
    monkeypatch.setattr(settings, "_told", set())


@pytest.mark.parametrize("default", [False, True])
def test_a_switch(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, default: bool) -> None:
    found = {}
    for said in ("", " ", "0", "false", "No", "OFF", "1", "True", "yes", "on"):
        monkeypatch.setenv("LOSSLOG_STRICT", said)
        found[said] = settings.switch("LOSSLOG_STRICT", default)
    monkeypatch.delenv("LOSSLOG_STRICT")
    assert settings.switch("LOSSLOG_STRICT", default) is default
    assert found == {"": default, " ": default, "0": False, "false": False, "No": False, "OFF": False, "1": True,
                     "True": True, "yes": True, "on": True}  # fmt: skip
    assert caplog.messages == []


def test_a_switch_that_says_neither_is_said_and_left(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("LOSSLOG_FOLLOWER", "flase")
    assert [settings.switch("LOSSLOG_FOLLOWER", True) for _ in range(2)] == [True, True]
    assert caplog.messages == ["LOSSLOG_FOLLOWER=flase is neither 0 nor 1: left as it is, on (said once)"]


def test_a_variable_that_there_is_not_is_said_with_the_nearest(
    make_run: Callable[..., losslog.Run], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("LOSSLOG_DISABEL", "wandb")
    for _ in range(2):
        make_run()
    assert caplog.messages == [
        "LOSSLOG_DISABEL is set, but there is no such variable (did you mean 'LOSSLOG_DISABLE'?) (said once)"
    ]


def test_a_plugin_that_is_disabled_and_not_there_is_said(
    make_run: Callable[..., losslog.Run], package: Callable[..., str], monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    package("class Plugin: pass", "influx")
    monkeypatch.setenv("LOSSLOG_DISABLE", "inflx,wandb")
    make_run()
    assert caplog.messages == [
        "LOSSLOG_DISABLE names 'inflx': no such plugin is installed (did you mean 'influx'?) (said once)"
    ]


def test_off_logs_nothing_and_keeps_what_a_loop_asks_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, probe: Any
) -> None:
    monkeypatch.setenv("LOSSLOG", "off")
    caplog.set_level("INFO", "losslog")
    with losslog.Run("x", dir=tmp_path / "runs", plugins=["console", probe, "no such plugin"], resume="auto") as run:
        run.register(probe)
        for value in (1.0, 3.0):
            run.log_batch({"a": value})
        run.log_eval({"AP": 0.5})
        run.log_metrics({"x": 1.0})
        run.log_checkpoint("nowhere.pth")
        run.alert("look")
        assert run.epoch_means() == {"a": 2.0}
        run.end_epoch()
        assert run.flush()
        with pytest.raises(TypeError, match=r"losses\['a'\] is None"):
            run.log_batch({"a": None})
        run.request_stop("enough")
        assert run.flush()
        assert run.should_stop
    assert not os.listdir(tmp_path)
    assert run.dir.is_dir()  # for a loop that saves beside its run
    assert probe.calls == []
    assert caplog.messages == ["LOSSLOG=off: nothing is logged", "stop requested: enough"]
