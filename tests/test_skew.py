"""Plugins made for another losslog: what fits is used, what does not is said, and nothing is fatal."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

import losslog
from losslog import PluginError
from losslog.delivery.discovery import API, Plugin, select

OLDER = """
from losslog import hookimpl
class Plugin:
    near = True
    seen = []
    @hookimpl
    def on_batch_losses(self, step, losses):
        self.seen.append((step, losses))
"""
UNKNOWN_HOOK = (
    OLDER
    + """
    @hookimpl
    def on_moonrise(self, phase):
        pass
"""
)
UNKNOWN_ARGUMENT = """
from losslog import hookimpl
class Plugin:
    @hookimpl
    def on_eval(self, metrics, phase):
        pass
"""


@pytest.fixture(autouse=True)
def _only_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOSSLOG_DISABLE", "console,tensorboard,wandb,mlflow,notify,plateau,trackio")


def found(name: str) -> Plugin:
    return next(each for each in select("auto") if each.name == name)


def batches_seen(folder: Path, name: str) -> list[tuple[int, object]]:
    (plugin,) = (each for each in select([name]) if each.name == name)
    plugin.object.seen.clear()
    with losslog.Run("skew", folder, plugins=[name], follower=False) as run:
        run.log_batch({"loss_mask": 0.5})
    return list(plugin.object.seen)


def test_a_plugin_made_for_fewer_arguments_gets_those_it_names(package: Callable[..., str], tmp_path: Path) -> None:
    package(OLDER, "older")
    assert batches_seen(tmp_path, "older") == [(0, {"loss_mask": 0.5})]


def test_an_unknown_hook_is_said_and_the_others_are_called(
    package: Callable[..., str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    package(UNKNOWN_HOOK, "moon")
    with caplog.at_level(logging.WARNING, "losslog"):
        assert batches_seen(tmp_path, "moon") == [(0, {"loss_mask": 0.5})]
    assert "plugin moon: on_moonrise is none of losslog's hooks: called where a script emits it" in caplog.text


def test_an_unknown_argument_is_said_and_the_plugin_skipped(package: Callable[..., str]) -> None:
    package(UNKNOWN_ARGUMENT, "phases")
    plugin = found("phases")
    assert plugin.state == "broken"
    assert "phase" in plugin.reason


def test_an_unknown_argument_of_a_plugin_asked_for_by_name_is_an_error(package: Callable[..., str]) -> None:
    package(UNKNOWN_ARGUMENT, "phases")
    with pytest.raises(PluginError, match="phase"):
        select(["phases"])


@pytest.mark.parametrize(("version", "advice"), [(API + 1, "upgrade losslog"), (API - 1, "upgrade the plugin")])
def test_another_api_version_is_said_and_the_plugin_skipped(
    package: Callable[..., str], version: int, advice: str
) -> None:
    package(OLDER.replace("near = True", f"near = True\n    losslog_api = {version}"), "versioned")
    plugin = found("versioned")
    assert plugin.state == "not ready"
    assert f"made for plugin API {version}" in plugin.reason
    assert advice in plugin.reason
    with pytest.raises(PluginError, match=advice):
        select(["versioned"])


def test_this_api_version_serves(package: Callable[..., str]) -> None:
    package(OLDER.replace("near = True", f"near = True\n    losslog_api = {API}"), "current")
    assert found("current").state == "ready"
