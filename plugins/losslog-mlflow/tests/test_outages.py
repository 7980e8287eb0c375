"""Against a real server: there, gone, frozen, never there, and locked."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from typing import Any

import pytest
from losslog_mlflow import MlflowPlugin

import losslog
from losslog.testing import tell

T0 = 1764000000.0
Started = Callable[..., MlflowPlugin]


def batches(plugin: MlflowPlugin, steps: range) -> None:
    for step in steps:
        tell(plugin, "on_batch_losses", step=step, losses={"a": float(step), "b": 0.5}, lr=0.1, time=T0 + step)


@pytest.fixture
def dead_uri() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def test_a_run_on_a_server(started: Started, run: Any, reader: Any, server: Any) -> None:
    plugin = started(tracking_uri=server.uri)
    batches(plugin, range(5))
    plugin.on_run_end(status="finished", error=None, time=T0 + 60)
    plugin.on_flush()
    there = reader(server.uri)
    assert there.series(run, "batch/train_a") == [(step, float(step)) for step in range(5)]
    assert there.run(run).info.status == "FINISHED"


def test_nothing_of_the_server_is_printed(
    started: Started, server: Any, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    plugin = started(tracking_uri=server.uri.replace("//", "//someone:hunter2@"))
    plugin.on_run_end(status="finished", error=None, time=T0)
    with caplog.at_level("INFO", "losslog"):
        plugin.on_flush()
    printed = "".join(capfd.readouterr()) + caplog.text
    assert "hunter2" not in printed
    assert "View run" not in printed


def test_never_reachable_is_not_now(started: Started, dead_uri: str) -> None:
    plugin = started(tracking_uri=dead_uri)
    batches(plugin, range(2))
    with pytest.raises(losslog.BackendUnavailable, match=f"{dead_uri} is away"):
        plugin.on_flush()


def test_what_was_not_sent_is_delivered_again_and_once(started: Started, run: Any, reader: Any, server: Any) -> None:
    plugin = started(tracking_uri=server.uri)
    batches(plugin, range(3))
    plugin.on_flush()
    server.stop()
    batches(plugin, range(3, 6))
    with pytest.raises(losslog.BackendUnavailable):
        plugin.on_flush()
    server.start()
    server.wait()
    batches(plugin, range(2, 6))  # the lane's cursor stood before step 2
    plugin.on_flush()
    assert reader(server.uri).series(run, "batch/train_a") == [(step, float(step)) for step in range(6)]


def test_an_end_that_was_not_sent_does_not_end_what_is_delivered_again(
    started: Started, run: Any, reader: Any, server: Any
) -> None:
    plugin = started(tracking_uri=server.uri)
    batches(plugin, range(1))
    plugin.on_flush()
    server.stop()
    plugin.on_run_end(status="finished", error=None, time=T0 + 60)
    with pytest.raises(losslog.BackendUnavailable):
        plugin.on_flush()
    server.start()
    server.wait()
    batches(plugin, range(2))  # record by record, as after a failed flush
    plugin.on_flush()
    assert reader(server.uri).run(run).info.status == "RUNNING"
    plugin.on_run_end(status="finished", error=None, time=T0 + 60)
    plugin.on_flush()
    assert reader(server.uri).run(run).info.status == "FINISHED"


def test_a_frozen_server_costs_one_time_out_and_no_point(
    started: Started, run: Any, reader: Any, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    plugin = started(tracking_uri=server.uri)
    plugin.on_flush()
    server.signal(signal.SIGSTOP)
    try:
        batches(plugin, range(3))
        with pytest.raises(losslog.BackendUnavailable):
            plugin.on_flush()
    finally:
        server.signal(signal.SIGCONT)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    batches(plugin, range(3))
    plugin.on_flush()
    assert reader(server.uri).series(run, "batch/train_a") == [(0, 0.0), (1, 1.0), (2, 2.0)]


def test_a_poisonous_point_is_not_an_outage(started: Started, run: Any, local: Any) -> None:
    plugin = started()
    plugin.on_flush()
    plugin._batch.points.append(("a//b", 1.0, 0, 0))  # a name that got past us
    with pytest.raises(Exception, match="Invalid value") as caught:
        plugin.on_flush()
    assert not isinstance(caught.value, losslog.BackendUnavailable)
    batches(plugin, range(1))
    plugin.on_flush()
    assert local.series(run, "batch/train_a") == [(0, 0.0)]


@pytest.mark.parametrize("login", [None, "wrong"])
def test_a_refused_login_keeps_the_data_and_says_what_to_set(
    started: Started, guarded: Any, monkeypatch: pytest.MonkeyPatch, login: str | None
) -> None:
    uri = guarded.uri
    if login:
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", login)
    with pytest.raises(losslog.BackendUnavailable, match="MLFLOW_TRACKING_USERNAME"):
        started(tracking_uri=uri).on_flush()


def test_a_login_in_the_address_is_used(
    started: Started, run: Any, reader: Any, guarded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("USERNAME", "PASSWORD"):
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", "")
    uri = guarded.uri
    plugin = started(tracking_uri=uri.replace("//", "//admin:correct-horse-battery@"))
    batches(plugin, range(2))
    plugin.on_flush()
    assert reader(uri).series(run, "batch/train_a") == [(0, 0.0), (1, 1.0)]
