"""A plugin begins, whatever the first line of the journal and its cursor file look like; and a disk may hiccup."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import losslog
from losslog.delivery.follower import BACK_OFF, RESTARTS, Follower
from losslog.journal.folder import JOURNAL
from tests.test_strangers import losslog_

Made = Callable[..., losslog.Run]
BEGUN = """
import json, pathlib
from losslog import hookimpl
class Plugin:
    begun = None
    @hookimpl
    def on_run_start(self, name, config, run):
        self.begun = name
    @hookimpl
    def on_batch_losses(self, step, seq, run):
        if self.begun is not None:
            with open(pathlib.Path(run.dir, "got.txt"), "a") as file:
                file.write(f"{self.begun} {seq} {step}\\n")
"""


@pytest.fixture
def folder(make_run: Made, package: Callable[..., str]) -> Path:
    package(BEGUN, "begun")
    run = make_run()
    for _ in range(20):
        run.log_batch({"a": 1.0})
    run.close()
    return run.dir


def got(folder: Path) -> list[str]:
    return (folder / "got.txt").read_text().splitlines()


ALL = [f"test {step + 1} {step}" for step in range(20)]


@pytest.mark.parametrize("at", [0, 5, 20, 60])
def test_one_bad_byte_in_the_first_line_costs_nothing_else(folder: Path, at: int) -> None:
    content = bytearray((folder / JOURNAL).read_bytes())
    content[at] = 0xFF
    (folder / JOURNAL).write_bytes(content)
    done = losslog_("replay", folder, "--to", "begun")
    assert (done.returncode, got(folder)) == (0, ALL), done.stderr
    assert "the run's first line cannot be read" in done.stderr


@pytest.mark.parametrize("start", [1, 300, 10**9])
def test_a_cursor_that_does_not_know_the_start_begins_at_the_nearest(folder: Path, start: int) -> None:
    (folder / "cursors").mkdir(exist_ok=True)
    (folder / "cursors" / "begun.json").write_text(json.dumps({"offset": 0, "seq": -1, "start": start}))
    done = losslog_("replay", folder, "--to", "begun")
    assert (done.returncode, got(folder)) == (0, ALL), done.stderr


@pytest.mark.parametrize("seq", [b"95", b"50", b"0"])
def test_a_flipped_digit_of_a_number_costs_no_record(folder: Path, seq: bytes) -> None:
    content = (folder / JOURNAL).read_bytes()
    (folder / JOURNAL).write_bytes(content.replace(b'{"seq": 5,', b'{"seq": ' + seq + b","))
    done = losslog_("replay", folder, "--to", "begun")
    assert (done.returncode, got(folder)) == (0, ALL), done.stderr
    assert "do not rise by one" in done.stderr


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES])
def test_a_disk_that_hiccups_at_the_beginning_parks_no_lane(
    make_run: Made, until: Any, probe: Any, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    from losslog.journal import cursors

    left = [OSError(number, "a hiccup")] * 2
    real = cursors.Cursor.acquire

    def acquire(self: Any) -> bool:
        if left and self.path is not None:
            raise left.pop()
        return real(self)

    monkeypatch.setattr(cursors.Cursor, "acquire", acquire)
    monkeypatch.setattr("losslog.delivery.patience.Patience.back_off", (0.01, 0.02))
    from losslog.delivery.discovery import Plugin

    run = make_run()
    found = Plugin.of_object(probe, "probe")
    run._delivery.add(found)
    run.log_batch(1.0)
    until(lambda: "on_batch_losses" in [call[0] for call in probe.calls])
    assert not left


def test_restarts_are_further_and_further_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from losslog.control import RunHandle

    handle = RunHandle(id="", name="", dir=tmp_path, config={}, source="", post=lambda *each: None)
    follower = Follower(handle, [], lambda kind, body: None)
    waited: list[float] = []
    started: list[int] = []
    monkeypatch.setattr(follower, "start", lambda: (started.append(1) and "") or "")
    monkeypatch.setattr(follower._leaving, "wait", lambda seconds: waited.append(seconds) or False)
    for _ in range(RESTARTS + 1):
        follower._died(1)
    assert waited == list(BACK_OFF)
    assert (len(started), follower.done.is_set()) == (RESTARTS, True)
    assert sum(BACK_OFF) > 10  # longer than a disk's hiccup


def test_a_follower_that_had_lived_is_not_counted_with_those_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from losslog.control import RunHandle

    handle = RunHandle(id="", name="", dir=tmp_path, config={}, source="", post=lambda *each: None)
    follower = Follower(handle, [], lambda kind, body: None)
    monkeypatch.setattr(follower, "start", lambda: "")
    monkeypatch.setattr(follower._leaving, "wait", lambda seconds: False)
    for _ in range(3 * RESTARTS):
        follower._started -= 100.0
        follower._died(1)
    assert not follower.done.is_set()
