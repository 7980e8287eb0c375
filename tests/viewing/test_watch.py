"""``losslog watch``: on a terminal of any size, in a pipe, over a run that ends badly, over a long one."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import losslog
from losslog.journal.folder import JOURNAL
from losslog.viewing.live import Live

Write = Callable[..., Path]
ROOT = Path(losslog.__file__).parent.parent


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}


# ------------------------------------------------------------------ what is seen of a run


def test_a_short_run_is_seen_as_it_is(tmp_path: Path, write_run: Write) -> None:
    live = Live(write_run(tmp_path / "r", "seen"))
    live.look()
    assert (live.name, live.status, live.epoch, live.epochs, live.step, live.position) == (
        "seen",
        "finished",
        4,
        4,
        199,
        (50, 50),
    )
    assert [row.name for row in live.rows][-2:] == ["loss_rpn_box_reg", "total"]
    assert sum(row.share or 0 for row in live.rows) == pytest.approx(1)
    assert live.rows[-1].value == pytest.approx(sum(row.value for row in live.rows[:-1]))
    assert live.scores == [("bbox_AP", pytest.approx(0.4), pytest.approx(0.4))]
    while live.look():  # the past is read a part at a time
        pass


def test_a_long_run_is_seen_from_its_end(tmp_path: Path, book: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("losslog.viewing.live.TAIL", 50_000)
    monkeypatch.setattr("losslog.viewing.live.PIECES", 1)
    made = book(tmp_path / "r")
    made.start("long", epochs=10, steps_per_epoch=1000)
    noise = random.Random(1)
    lines = []
    for step in range(8000):
        a, b = 2.0 ** (-step / 2000) * (1 + 0.1 * noise.random()), 0.5
        start = b'{"seq": %d, "time": 1.0, "hook": "on_batch_losses", "data": ' % (step + 1)
        data = b'{"step": %d, "epoch": %d, "losses": {"a": %r, "b": 0.5}, "total": %r}}\n'
        lines.append(start + data % (step, 1 + step // 1000, a, a + b))
        if step == 3000:
            with made.path.open("ab") as file:
                file.writelines(lines)
            lines = []
            made.alert("a has stalled", 3000, "a")
    with made.path.open("ab") as file:
        file.writelines(lines)
    live = Live(made.folder)
    live.look()
    assert (live.name, live.epochs, live.step, live.epoch) == ("long", 10, 7999, 8)
    curve = live.rows[0].curve
    assert curve[0] > 0.9
    assert curve[-1] < 0.1
    assert max(b / a for a, b in pairwise(curve)) < 1.2  # it falls all the way
    while live.look():
        assert live.status == "crashed"  # reading the past is no sign of life
    assert [each["title"] for each in live.alerts] == ["a has stalled"]
    assert live.rows[0].word == "a has stalled"


def test_a_run_that_grows_resumes_and_ends(tmp_path: Path, book: Any) -> None:
    made = book(tmp_path / "r")
    made.start("grows", epochs=3, steps_per_epoch=10)
    live = Live(made.folder)
    live.look()
    assert (live.rows, live.step, live.status) == ([], None, "crashed")
    for step in range(15):
        made.batch(step, {"a": 1.0, "b": 2.0}, 1 + step // 10)
    made.epoch(1, 9, {"a": 1.0, "b": 2.0}, duration=10.0)
    assert live.look()
    assert (live.step, live.position) == (14, (5, 10))
    made.add("on_resume", epoch=1, step=9)
    for step in range(10, 12):
        made.batch(step, {"a": 1.5, "b": 2.0}, 2)
    assert live.look()
    assert live.step == 11
    assert live.rows[0].name == "a"
    made.batch(12, {"a": float("nan"), "b": 2.0}, 2)
    live.look()
    assert live.rows[0].value != live.rows[0].value
    made.end("failed")
    live.look()
    assert live.status == "failed"


# ------------------------------------------------------------------ in a pipe


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, sys.path)), "PYTHONIOENCODING": "utf-8", **more}


def test_in_a_pipe_a_line_for_each_epoch(tmp_path: Path, write_run: Write) -> None:
    folder = write_run(tmp_path / "r", "piped", epochs=3)
    before = snapshot(folder)
    command = [sys.executable, "-m", "losslog", "watch", str(folder)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, encoding="utf-8", timeout=60)
    lines = done.stdout.splitlines()
    assert [line.split("  ")[0] for line in lines if line.startswith("Epoch")] == [
        "Epoch 1/3",
        "Epoch 2/3",
        "Epoch 3/3",
    ]
    assert "mAP/bbox_AP 0.3" in lines
    assert lines[-1] == "piped r: finished"
    assert snapshot(folder) == before


# ------------------------------------------------------------------ on a terminal


class Screen:
    """``losslog watch`` on a pseudo-terminal."""

    def __init__(self, folder: Path, columns: int, rows: int) -> None:
        import pty

        import pyte

        self._master, theirs = pty.openpty()
        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self.screen)
        self._size(theirs, columns, rows)
        command = [sys.executable, "-m", "losslog", "watch", str(folder), "--interval", "0.1"]
        self.process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
                                        env=environment(TERM="xterm-256color"))  # fmt: skip
        os.close(theirs)

    def _size(self, descriptor: int, columns: int, rows: int) -> None:
        import fcntl
        import struct
        import termios

        fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def resize(self, columns: int, rows: int) -> None:
        """Make the terminal another size."""
        self._size(self._master, columns, rows)
        self.screen.resize(rows, columns)

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._master, text.encode())

    def until(self, wanted: Callable[[list[str]], bool], seconds: float = 30) -> list[str]:
        """The lines shown as soon as they are as wanted."""
        import select

        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            ready, _, _ = select.select([self._master], [], [], 0.05)
            if ready:
                try:
                    self._stream.feed(os.read(self._master, 65536))
                except OSError:  # the other end is closed
                    break
            lines = [line.rstrip() for line in self.screen.display]
            if wanted(lines):
                return lines
        raise AssertionError("\n".join(self.screen.display))

    def close(self) -> int:
        """Quit, and what it exited with."""
        if self.process.poll() is None:
            self.type("q")
        try:
            return self.process.wait(20)
        finally:
            os.close(self._master)


@pytest.fixture
def screen() -> Iterator[Callable[..., Screen]]:
    if sys.platform == "win32":
        pytest.skip("needs a pseudo-terminal")
    pytest.importorskip("pyte")
    pytest.importorskip("losslog_console")
    opened: list[Screen] = []

    def start(folder: Path, columns: int = 80, rows: int = 20) -> Screen:
        opened.append(Screen(folder, columns, rows))
        return opened[-1]

    yield start
    for each in opened:
        if each.process.poll() is None:
            each.process.kill()
            each.process.wait()


@pytest.mark.parametrize("exported", [False, True])
def test_on_a_terminal(
    tmp_path: Path, write_run: Write, screen: Callable[..., Screen], exported: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("LINES", "24"), ("COLUMNS", "132")):  # of another terminal
        monkeypatch.setenv(name, value) if exported else monkeypatch.delenv(name, raising=False)
    folder = write_run(tmp_path / "r", "shown")
    before = snapshot(folder)
    shown = screen(folder)
    lines = shown.until(lambda lines: lines[:1] == ["shown r  finished"] and any("best" in line for line in lines))
    assert sum("loss_" in line for line in lines) == 5
    shown.resize(60, 12)
    lines = shown.until(lambda lines: len(lines) == 12 and any("loss_mask" in line for line in lines))
    shown.type("ss")
    shown.until(lambda lines: any("by change" in line for line in lines))
    assert shown.close() == 0
    assert snapshot(folder) == before


def test_a_killed_run_is_seen_to_have_crashed(tmp_path: Path, screen: Callable[..., Screen]) -> None:
    script = """
import itertools, sys, time, losslog
run = losslog.Run("killed", sys.argv[1], plugins=[], follower=False)
print(run.dir, flush=True)
for step in itertools.count():
    run.log_batch({"a": 1.0 / (step + 1), "b": 1.0})
    time.sleep(0.01)
"""
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], env=environment(), text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)  # fmt: skip
    try:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        shown = screen(folder)
        shown.until(lambda lines: "running" in lines[0])
        shown.until(lambda lines: any(line[2:4] == "b " for line in lines))
        process.send_signal(signal.SIGKILL)
        process.wait()
        shown.until(lambda lines: lines[0].endswith("crashed"))
        assert shown.close() == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()  # type: ignore[union-attr]


def test_without_the_console_plugin_there_are_lines(
    tmp_path: Path, write_run: Write, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from losslog.cli import main, watch

    monkeypatch.setattr(watch, "find_spec", lambda name: None)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert watch.drawer() is None
    assert main(["watch", str(write_run(tmp_path / "r"))]) == 0
    assert "Epoch 4/4" in capsys.readouterr().out


@pytest.mark.parametrize(("status", "planned"), [(None, 4), ("failed", 4), ("stopped", None)])
def test_in_a_pipe_it_is_said_where_a_run_ended(
    tmp_path: Path, book: Any, capsys: pytest.CaptureFixture[str], status: str | None, planned: int | None
) -> None:
    from losslog.cli import main

    run = book(tmp_path / "20260101-000000-aaaa")
    run.start("short", epochs=planned)
    for step in range(30):
        run.batch(step, {"a": 1.0}, 1 + step // 20)
    if status:
        run.add("on_run_end", status=status, error="ValueError: x\ny" if status == "failed" else None)
    assert main(["watch", str(run.folder)]) == 0
    why = ", ValueError: x y" if status == "failed" else ""
    of = " of 4" if planned else ""
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"short 20260101-000000-aaaa: {status or 'crashed'} after step 29, epoch 2{of}{why}; "
        "losslog show 20260101-000000-aaaa"
    )


def test_a_journal_that_vanishes_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from losslog.cli import main

    assert main(["watch", str(tmp_path / JOURNAL)]) == 2
    assert "no run" in capsys.readouterr().err
