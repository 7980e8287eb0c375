"""The follower's life: ``losslog follow RUN --attached``, started by a training process, not by people.

Main thread of the follower process. Contract:

- Commands come on stdin; alerts, requests, notices and figures go back on stdout (`losslog.delivery.wire`). What
  plugins print goes to ``follower.log``.
- It outlives its parent: after a kill it writes ``on_run_end(status="crashed")``, delivers the rest and ends; after a
  normal end it goes on for up to 10 minutes. It makes room at once where another process resumes the run.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import math
import os
import queue
import signal
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO, Final

from losslog.delivery.delivery import lanes_for, need_home
from losslog.delivery.discovery import named
from losslog.delivery.trust import Trust
from losslog.delivery.wire import CANNOT, FINISH, REPORT, Hello, command_of, line_of
from losslog.errors import RunLocked
from losslog.journal.ends import noted
from losslog.journal.file import Writer, append_record
from losslog.journal.folder import JOURNAL
from losslog.journal.lines import whole_lines
from losslog.runtime.containment import attempt, long_form
from losslog.runtime.notices import logger
from losslog.runtime.pace import Bell, NoThread, start_thread
from losslog.runtime.settings import switch

LINGER: Final = 600.0  # seconds the follower goes on after the run's end
CATCH_UP: Final = 10.0  # seconds lanes get before a killed run is declared ended
STATS_EVERY: Final = 1.0
NICE: Final = 10  # so that the user's own workers come first
OBJECTS: Final = 20_000  # new ones between two looks of the garbage collector; trackers make many
SETTLED: Final = 5.0  # seconds after which what the trackers imported need not be looked at any more


class Outbox:
    """The child's way to its parent: a thread writes, so that a parent that does not read never blocks a lane."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._queue: queue.Queue[bytes] = queue.Queue()
        self.broken = False
        start_thread(self._write, "losslog-outbox")

    def put(self, kind: str, **body: Any) -> None:
        """Queue one message; stats only when none is waiting."""
        if kind == "stats" and not self._queue.empty():
            return
        if not self.broken:
            self._queue.put(line_of(kind, **body))

    def _write(self) -> None:
        while not self.broken:
            try:
                self._stream.write(self._queue.get())
                self._queue.task_done()
            except (OSError, ValueError):
                self.broken = True

    def drain(self, seconds: float) -> None:
        """Wait until everything queued is written, for so long at most."""
        deadline = time.monotonic() + seconds
        while self._queue.unfinished_tasks and not self.broken and time.monotonic() < deadline:
            time.sleep(0.005)


def to_log(text: str) -> None:
    """Say something in follower.log; where the disk is full it is not said."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")
        sys.stderr.flush()


class _Notices(logging.Handler):
    """Notices of the child's lanes go to the parent's terminal, and to follower.log."""

    def __init__(self, outbox: Outbox) -> None:
        super().__init__()
        self._outbox = outbox

    def emit(self, record: logging.LogRecord) -> None:
        self._outbox.put("notice", level=record.levelno, text=record.getMessage())
        to_log(record.getMessage())


class Commands:
    """What the parent said on stdin, kept up to date by a thread."""

    def __init__(self, stream: BinaryIO, wake: Bell) -> None:
        self.report = self.ended = False
        self.finish: int | None = None
        self._stream, self._wake = stream, wake
        start_thread(self._read, "losslog-commands")

    def _read(self) -> None:
        for line in self._stream:
            word, number = command_of(line)
            self.report = self.report or word == REPORT
            if word == FINISH and number is not None:
                self.finish = number
            self._wake.set()
        self.ended = True
        self._wake.set()


def attached(folder: Path) -> int:
    """The child's life: follow the run in ``folder`` for the parent on stdin and stdout."""
    stream = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what plugins print must not reach the parent as messages
    hello = Hello(**json.loads(sys.stdin.buffer.readline()))
    _like_parent(hello)
    if switch("LOSSLOG_NICE", True) and hasattr(os, "nice"):
        attempt(os.nice, NICE)
    gc.set_threshold(OBJECTS, 20, 20)
    need_home(folder)
    outbox, _ = attempt(Outbox, stream)
    if outbox is None:
        os._exit(CANNOT)
    logger.handlers[:] = [_Notices(outbox)]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    _, error = attempt(lambda: Child(folder, hello, outbox).live())
    if isinstance(error, NoThread):
        os._exit(CANNOT)
    if error is None:
        outbox.put("done")
    else:
        to_log(long_form(error))
    outbox.drain(1.0)
    os._exit(0 if error is None else 1)  # vendor threads and exit handlers must not keep it


def _like_parent(hello: Hello) -> None:
    """Give plugins the parent's import path."""
    sys.path[:] = hello.sys_path
    os.umask(os.umask(0o002) | 0o002)  # what plugins write is not everybody's to change
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the training process; we end when it does


class Child:
    """Far lanes, and what they need to outlive the parent."""

    def __init__(self, folder: Path, hello: Hello, outbox: Outbox) -> None:
        self.folder = folder
        self.journal = folder / JOURNAL
        self._outbox = outbox
        self._event = Bell()
        self._born_of = os.getppid() if hasattr(os, "getppid") else 0
        self._deadline: float | None = None
        self._grace = 0.0  # until when lanes may catch up before a killed run is ended
        self._late: list[dict[str, Any]] = []  # alerts that no parent takes any more
        self._finish: int | None = None
        self._refused = 0
        self._commands = Commands(sys.stdin.buffer, self._event)
        plugins = named(str(each["name"]) for each in hello.plugins)
        for plugin, each in zip(plugins, hello.plugins, strict=True):
            plugin.options = dict(each["options"])
        trust = Trust(hello.since)
        self._lanes = lanes_for(folder, plugins, self._post, trust, name=hello.name, config=hello.config)
        with contextlib.suppress(ValueError, OSError):
            signal.signal(signal.SIGTERM, self._hurried)

    def _hurried(self, *_: Any) -> None:
        self._deadline = time.monotonic() + 10.0
        self._event.set()

    def _post(self, kind: str, data: dict[str, Any]) -> None:
        self._outbox.put(kind, data=data)
        if kind == "alert" and self._orphaned():
            self._late.append(data)

    def live(self) -> None:
        """Until everything is delivered, or it is time to go."""
        for lane in self._lanes:
            lane.start()
        told, size = 0.0, -1
        settled = time.monotonic() + SETTLED
        while True:
            self._event.wait(0.25)
            self._event.clear()
            if time.monotonic() > settled:
                settled = math.inf
                gc.collect()
                gc.freeze()
            grown = self._size(size)
            if grown != size:
                size = grown
                for lane in self._lanes:
                    lane.wake()
            if self._commands.report or time.monotonic() - told > STATS_EVERY:
                told = time.monotonic()
                self._commands.report = False
                self._tell()
            if self._over(size):
                break
        self._tell()

    def _size(self, before: int) -> int:
        try:
            return self.journal.stat().st_size
        except OSError:  # gone or out of reach: its writer, or the disk, comes back
            return before

    def _tell(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()  # what plugins printed
        self._outbox.put("stats", lanes={lane.name: lane.figures()._asdict() for lane in self._lanes})

    def _over(self, size: int) -> bool:
        now = time.monotonic()
        if self._finish is None:
            if self._commands.finish is not None:
                self._end_at(self._commands.finish)
            elif self._orphaned() and not self._take_over():
                return True
        elif self._commands.finish is not None and size > self._finish and self._orphaned():
            self._abandon("the run was resumed: its new follower goes on")
            return True
        if self._finish is not None and all(lane.patience.over for lane in self._lanes):
            return True
        if self._deadline is not None and now > self._deadline:
            self._abandon("time is up")
            return True
        if self._finish is not None:
            self._event.wait(0.02)
        return False

    def _orphaned(self) -> bool:
        # A forked DataLoader worker keeps the pipe open, so the end of stdin alone does not tell.
        return self._commands.ended or (self._born_of != 0 and os.getppid() != self._born_of)

    def _end_at(self, offset: int) -> None:
        self._finish = offset
        self._deadline = self._deadline or time.monotonic() + LINGER
        for lane in self._lanes:
            lane.finish(offset)

    def _take_over(self) -> bool:
        """The parent died: end the run in its place; False where another process has resumed it already."""
        now = time.monotonic()
        self._grace = self._grace or now + CATCH_UP
        end = whole_lines(self.journal)
        if now < self._grace and any(not lane.patience.idle and lane.progress.at.offset < end for lane in self._lanes):
            for lane in self._lanes:
                lane.wake()
            return True  # they may still raise alerts; the folder stays free, so that the run can be resumed at once
        try:
            writer = Writer(self.folder)
        except OSError:
            return self._grace + CATCH_UP > now  # the folder is gone, perhaps for good
        except RunLocked:
            if self._born_of == 0 or os.getppid() == self._born_of:
                self._grace = 0.0
                return True  # alive: only the pipe was closed
            self._refused += 1
            if self._refused < 8:
                return True
            self._abandon("the run was resumed: its new follower goes on")
            return False
        if not writer.ended:
            for data in self._late:
                if data["key"] not in writer.alert_keys:
                    writer.alert_keys.add(data["key"])
                    append_record(writer, "on_alert", data)
            append_record(writer, "on_run_end", {"status": noted(self.folder) or "crashed"})
        self._end_at(writer.end)
        writer.close()
        return True

    def _abandon(self, why: str) -> None:
        to_log(why)
        for lane in self._lanes:
            lane.abandon()
        deadline = time.monotonic() + 5.0
        while time.monotonic() < deadline and not all(lane.patience.over or lane.patience.hung for lane in self._lanes):
            time.sleep(0.02)
