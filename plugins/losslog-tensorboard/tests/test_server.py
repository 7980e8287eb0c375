"""The real server with its fast loader shows what EventAccumulator reads."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Get = Callable[..., Any]
RUN = "tensorboard"


@contextlib.contextmanager
def _server(folder: Path) -> Iterator[Get]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "tensorboard.main",
        "--logdir",
        str(folder),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    command += ["--load_fast", "true", "--samples_per_plugin", "scalars=100000"]
    environ = os.environ | {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environ) as process:
        try:
            yield lambda path, body=None, **query: _get(port, path, body, query)
        finally:
            process.terminate()


def _get(port: int, path: str, body: Any, query: dict[str, str]) -> Any:
    url = f"http://127.0.0.1:{port}/data/{path}" + (f"?{urllib.parse.urlencode(query)}" if query else "")
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"} if data else {})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=10) as answer:
        return json.load(answer)


def _wait(get: Get, done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            if done():
                return
        threading.Event().wait(0.05)
    pytest.fail("the server did not show the run")


@pytest.fixture(scope="module")
def shown(driver, tmp_path_factory) -> Iterator[Get]:
    """A run of ten steps, killed, continued from step 5 to step 8; with an evaluation, alerts, a config."""
    folder = tmp_path_factory.mktemp("server")
    run = driver(folder)
    run.start({"lr": 0.1, "amp": True})
    for step in range(10):
        run.batch(step, 1.0)
    run.eval(1, {"bbox": {"AP": 0.5}})
    run.epoch(1, {"a": float("nan"), "b": 2.0})
    run.alert("one", step=3)
    run.alert("two", step=3)
    run.again()
    run.start({"lr": 0.1, "amp": True}, resumed=True)
    run.resume(1, 5)
    for step in range(6, 9):
        run.batch(step, 2.0)
    run.epoch(2, {"a": 1.0, "b": 2.0})
    run.end()
    with _server(folder) as get:
        points = lambda: get("plugin/scalars/scalars", run=RUN, tag="loss/train_b")  # noqa: E731
        _wait(get, lambda: len(points()) == 2)
        _wait(get, lambda: len(get("plugin/scalars/scalars", run=f"{RUN}/batch", tag="batch/train")) == 9)
        yield get


def test_superseded_steps_are_gone(shown):
    points = shown("plugin/scalars/scalars", run=f"{RUN}/batch", tag="batch/train")
    assert [(step, value) for _, step, value in points] == [(s, 1.0) for s in range(6)] + [(s, 2.0) for s in (6, 7, 8)]


def test_a_value_that_is_not_finite_is_shown(shown):
    points = shown("plugin/scalars/scalars", run=RUN, tag="loss/train_a")
    assert [value for *_, value in points] == ["NaN", 1.0]


def test_both_alerts_of_one_step_are_shown(shown):
    texts = shown("plugin/text/text", run=f"{RUN}/batch", tag="alerts/text_summary")
    assert [text["step"] for text in texts] == [3, 4]


def test_the_layout_is_taken(shown):
    layout = shown("plugin/custom_scalars/layout")
    assert [category["title"] for category in layout["category"]] == ["losses", "mAP", "learning rate"]


def test_the_hyperparameters_are_shown(shown):
    experiment = shown("plugin/hparams/experiment", {})
    assert {info["name"] for info in experiment["hparamInfos"]} == {"amp", "lr"}


def test_the_last_map_stands_beside_the_hyperparameters(shown):
    name = {"tag": "mAP/bbox_AP", "group": ""}
    body = {"startIndex": 0, "sliceSize": 10, "colParams": [{"metric": name}], "allowedStatuses": ["STATUS_SUCCESS"]}
    (group,) = shown("plugin/hparams/session_groups", body)["sessionGroups"]
    assert [each["value"] for each in group["metricValues"] if each["name"] == name] == [0.5]
