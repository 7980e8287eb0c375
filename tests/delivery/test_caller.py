"""Calling one plugin's hooks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from losslog import hookimpl
from losslog.control import RunHandle
from losslog.delivery.caller import Caller, fresh

HANDLE = RunHandle(id="r", name="maskrcnn", dir=Path("r"), config={}, source="x", post=lambda kind, data: None)


class Taker:
    def __init__(self) -> None:
        self.got: list[Any] = []

    @hookimpl
    def on_run_start(self, name: str, config: Any, options: Any, origin: Any, resumed: bool, epochs: Any) -> None:
        self.got = [name, config, options, origin, resumed, epochs]

    @hookimpl
    def on_alert(self, level: str, title: str, text: str, source: str, key: str, component: Any) -> None:
        self.got = [level, title, text, source, key, component]

    @hookimpl
    def on_eval(self, split: str, metrics: Any) -> None:
        self.got = [split, metrics]

    @hookimpl
    def on_images(self, split: str, name: str, images: Any) -> None:
        self.got = [split, name, images]

    @hookimpl
    def on_metrics(self, metrics: Any, detail: Any) -> None:
        self.got = [metrics, detail]

    @hookimpl
    def on_run_end(self, status: str) -> None:
        self.got = [status]

    @hookimpl
    def on_checkpoint(self, path: str) -> None:
        self.got = [path]


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize(
    ("hook", "got"),
    [
        ("on_run_start", ["maskrcnn", {}, {}, {}, False, None]),
        ("on_alert", ["info", "", "", "", "", None]),
        ("on_eval", ["val", {}]),
        ("on_images", ["val", "images", []]),
        ("on_metrics", [{}, None]),
        ("on_run_end", ["crashed"]),
        ("on_checkpoint", []),
    ],
)
def test_what_a_plugin_may_rely_on_is_never_none(hook: str, got: list[Any], missing: bool) -> None:
    taker = Taker()
    keys = ("name", "config", "options", "origin", "resumed", "level", "title", "text", "source", "key", "split",
            "metrics", "images", "status", "path")  # fmt: skip
    Caller("taker", taker).call(hook, {} if missing else dict.fromkeys(keys), HANDLE, 0, 1.0)
    assert taker.got == got


def test_a_copy_shares_nothing() -> None:
    data = {"losses": {"a": 1.0}, "list": [{"b": [1]}]}
    copy = fresh(data)
    copy["losses"]["a"] = 2.0
    copy["list"][0]["b"].append(2)
    assert data == {"losses": {"a": 1.0}, "list": [{"b": [1]}]}
