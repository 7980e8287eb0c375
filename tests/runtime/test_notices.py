"""Notices: stderr as it is now, never stdout, and never an error."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO

import pytest

from losslog.runtime import notices


@pytest.fixture
def alone() -> Iterator[Callable[..., Any]]:
    """Makes it as in a program that never configured logging, with that stream as stderr."""
    root, ours = logging.getLogger(), notices.logger
    before = ours.handlers[:], ours.propagate, ours.level
    ours.handlers[:] = []
    ours.setLevel(logging.NOTSET)
    patch = pytest.MonkeyPatch()

    def begin(stream: TextIO | None) -> Any:
        patch.setattr(root, "handlers", [])
        patch.setattr(sys, "stderr", stream)
        notices.prepare()
        return stream

    yield begin
    patch.undo()
    ours.handlers[:], ours.propagate = before[0], before[1]
    ours.setLevel(before[2])


def test_a_notice_goes_to_stderr(alone: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    stderr = alone(io.StringIO())
    notices.say("%d steps", 5)
    assert stderr.getvalue() == "losslog: 5 steps\n"
    assert capsys.readouterr().out == ""


def test_a_program_that_configured_logging_keeps_it(caplog: pytest.LogCaptureFixture) -> None:
    notices.prepare()
    notices.warn("something")
    assert [(each.name, each.levelname) for each in caplog.records] == [("losslog", "WARNING")]


def test_preparing_twice_says_things_once(alone: Callable[..., Any]) -> None:
    stderr = alone(io.StringIO())
    notices.prepare()
    notices.prepare()
    notices.say("once")
    assert stderr.getvalue().count("once") == 1


def test_control_characters_do_not_reach_the_terminal(alone: Callable[..., Any]) -> None:
    stderr = alone(io.StringIO())
    notices.warn("plugin %s:\n\tfailed", "\x1b]0;title\x07\x9b31m")
    assert stderr.getvalue() == "losslog: plugin ?]0;title??31m:\n\tfailed\n"


def test_a_stream_that_cannot_say_it_gets_ascii(alone: Callable[..., None]) -> None:
    raw = io.BytesIO()
    alone(io.TextIOWrapper(raw, encoding="ascii", write_through=True))
    notices.say("größe 😀")
    assert raw.getvalue() == b"losslog: gr\\xf6\\xdfe \\U0001f600\n"


@pytest.mark.parametrize("kind", ["closed", "absent"])
def test_no_stream_is_no_error(alone: Callable[..., None], kind: str) -> None:
    stream = io.StringIO()
    stream.close()
    alone(stream if kind == "closed" else None)
    notices.say("nobody hears this")


LEVELS = """
import logging, logging.config, sys
import losslog
from losslog.runtime.notices import say, warn
{before}
losslog.Run("x", plugins=None)
{after}
say("plain")
warn("trouble")
"""
TO_OUT = '{"version": 1, "handlers": {"h": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout"}}, %s}'
ROOT = TO_OUT % '"root": {"level": "WARNING", "handlers": ["h"]}'
OURS = TO_OUT % '"loggers": {"losslog": {"level": "ERROR", "handlers": ["h"]}}'


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("does", "out", "err"),
    [
        ("pass", [], ["losslog: plain", "losslog: trouble"]),
        ("logging.getLogger('losslog').setLevel('WARNING')", [], ["losslog: trouble"]),
        ("logging.getLogger('losslog').setLevel('CRITICAL')", [], []),
        ("logging.disable(logging.INFO)", [], ["losslog: trouble"]),
        ("logging.basicConfig(stream=sys.stdout, format='%(name)s %(message)s')", ["losslog trouble"], []),
        ("logging.basicConfig(level='INFO', stream=sys.stdout, format='%(message)s')", ["plain", "trouble"], []),
        (f"logging.config.dictConfig({ROOT})", ["trouble"], []),
        (f"logging.config.dictConfig({OURS})", [], []),
    ],
)
def test_logging_is_configured_by_the_program(
    finished: Callable[..., Any], when: str, does: str, out: list[str], err: list[str]
) -> None:
    parts = {"before": "", "after": ""} | {when: does}
    done = finished(LEVELS.replace("{before}", parts["before"]).replace("{after}", parts["after"]))
    assert done.returncode == 0, done.stderr
    said = [[line for line in text.splitlines() if "plain" in line or "trouble" in line]
            for text in (done.stdout, done.stderr)]  # fmt: skip
    assert said == [out, err]


class Raising(logging.Handler):
    """As one that posts to a chat whose host is away."""

    def emit(self, record: logging.LogRecord) -> None:
        raise ConnectionError("the chat is away")


def test_a_handler_that_raises_is_no_error_of_ours() -> None:
    handler = Raising()
    notices.logger.addHandler(handler)
    try:
        notices.say("one")
        notices.warn("two")
    finally:
        notices.logger.removeHandler(handler)


@pytest.mark.parametrize("follower", [False, True])
def test_a_handler_that_raises_stops_no_lane(
    make_run: Callable[..., Any], package: Callable[..., str], follower: bool
) -> None:
    source = """
    from losslog import hookimpl
    class Plugin:
        @hookimpl
        def on_batch_losses(self, step, run):
            if step % 2:
                raise ValueError(f"step {step}")
            with open(run.dir / "steps", "a") as file:
                file.write(f"{step}\\n")
    """
    package(source, "fussy")
    handler = Raising()
    notices.logger.addHandler(handler)
    try:
        run = make_run(plugins=["fussy"], follower=follower)
        for _ in range(10):
            run.log_batch(1.0)
        run.close()
    finally:
        notices.logger.removeHandler(handler)
    assert (run.dir / "steps").read_text().split() == ["0", "2", "4", "6", "8"]
    assert run.stats["lanes"]["fussy"]["state"] == "done"
