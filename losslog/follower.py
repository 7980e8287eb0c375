"""The follower: far lanes in a process of their own, so that no backend's code runs in the training process.

`Follower` is the parent's end (drain thread, close), `attached` the child's whole life. Contract:

- The child reads the journal; commands come on its stdin (``wake``, ``report``, ``finish OFFSET``), and alerts,
  requests, notices and stats go back as JSON lines on its stdout. What plugins print goes to ``follower.log``.
- It outlives its parent: after a kill it writes ``on_run_end(status="crashed")``, delivers the rest and ends; after a
  normal end it goes on for up to 10 minutes.
- When it dies it is started again, up to 3 times; cursors make it continue where it was.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

import losslog
from losslog.control import RunHandle
from losslog.cursors import Cursor
from losslog.errors import PluginError, RunLocked
from losslog.folders import JOURNAL
from losslog.journal import Tail, Writer, read
from losslog.lanes import Lane
from losslog.notices import logger, warn
from losslog.pace import start_thread
from losslog.plugins import discover
from losslog.records import Record, encode

RESTARTS: Final = 3
LINGER: Final = 600.0  # seconds the follower goes on after the run's end
CATCH_UP: Final = 10.0  # seconds lanes get before a killed run is declared ended
STATS_EVERY: Final = 1.0
Post = Callable[[str, dict[str, Any]], None]


class Follower:
    """The parent's end.

    Args:
        folder: the run folder.
        plugins: ``{"name": ..., "options": {...}}`` for each far plugin.
        post: takes ``alert``, ``stop`` and ``lr`` messages; called on a thread of its own.
    """

    def __init__(self, folder: Path, plugins: Sequence[Mapping[str, Any]], post: Post) -> None:
        self.folder = folder
        self.restarts = 0
        self.lanes: dict[str, dict[str, Any]] = {}
        self.done = threading.Event()  # the child has nothing more to do, or cannot be had
        self.news = threading.Event()  # set at each stats message
        self._plugins = [dict(each) for each in plugins]
        self._post = post
        self._process: subprocess.Popen[bytes] | None = None
        self._finish: int | None = None
        self._left_alone = False

    @property
    def pid(self) -> int | None:
        """The child's process id."""
        return self._process.pid if self._process is not None else None

    def start(self) -> str:
        """Start the child.

        Returns:
            Why it could not be started; "" when it was.
        """
        if not sys.executable:
            return "this Python has no executable"
        home = str(Path(losslog.__file__).resolve().parent.parent)
        environment = dict(os.environ)
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [home, environment.get("PYTHONPATH")]))
        environment["LOSSLOG_PARENT_PID"] = str(os.getpid())
        environment["LOSSLOG_PROGRAM"] = os.path.abspath(sys.argv[0]) if sys.argv and sys.argv[0] else ""
        command = [sys.executable, "-P", "-m", "losslog", "follow", str(self.folder), "--attached"]
        hello = {
            "sys_path": [os.path.abspath(each) for each in sys.path],
            "pythonpath": os.environ.get("PYTHONPATH"),
            "plugins": self._plugins,
            "parent": os.getpid(),
        }
        apart: dict[str, Any] = {"start_new_session": True}
        if sys.platform == "win32":
            apart = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
        try:
            with open(self.folder / "follower.log", "ab") as log:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env=environment,
                    bufsize=0,
                    **apart,
                )
        except (OSError, ValueError) as error:
            return str(error)
        self._send(json.dumps(hello).encode("ascii"))
        start_thread(self._listen, "losslog-follower")
        return ""

    def _send(self, line: bytes) -> None:
        """Write one line; a child that does not read it never blocks us (a pipe holds some thousand of our lines)."""
        process = self._process
        if process is None or process.stdin is None:
            return
        with contextlib.suppress(OSError, ValueError):
            process.stdin.write(line + b"\n")

    def wake(self) -> None:
        """There is something worth reading now (the child also looks four times a second)."""
        self._send(b"wake")

    def report(self) -> None:
        """Ask for stats at once."""
        self.news.clear()
        self._send(b"report")

    def finish(self, offset: int) -> None:
        """The journal ends here: deliver what there is, then end."""
        self._finish = offset
        self._send(b"finish %d" % offset)

    def leave(self) -> None:
        """Go without it: it finishes by itself."""
        self._left_alone = True
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    def _listen(self) -> None:
        process = self._process
        assert process is not None
        assert process.stdout is not None
        for line in process.stdout:
            try:
                message = json.loads(line)
            except ValueError:
                continue
            self._take(message)
        process.stdout.close()
        process.wait()
        if self._left_alone or self.done.is_set():
            self.done.set()
            return
        self._died(process.returncode)

    def _take(self, message: dict[str, Any]) -> None:
        kind = message.get("kind")
        if kind == "stats":
            self.lanes = message["lanes"]
            self.news.set()
        elif kind == "done":
            self.done.set()
        elif kind == "notice":
            logger.log(int(message["level"]), "%s", message["text"])
        elif kind in ("alert", "stop", "lr"):
            self._post(kind, message["data"])

    def _died(self, code: int) -> None:
        if self.restarts >= RESTARTS:
            warn("the follower died %d times (last exit code %s, see follower.log): its plugins get no more records, "
                 "the journal keeps them", self.restarts + 1, code)  # fmt: skip
            self.done.set()
            return
        self.restarts += 1
        warn("the follower died (exit code %s): started again, nothing is lost", code)
        trouble = self.start()
        if trouble:
            warn("the follower could not be started again: %s", trouble)
            self.done.set()
        elif self._finish is not None:
            self.finish(self._finish)


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
            self._queue.put(json.dumps({"kind": kind, **body}).encode("ascii") + b"\n")

    def _write(self) -> None:
        while True:
            line = self._queue.get()
            try:
                if not self.broken:
                    self._stream.write(line)
                    self._stream.flush()
            except (OSError, ValueError):
                self.broken = True
            finally:
                self._queue.task_done()

    def drain(self, seconds: float) -> None:
        """Wait until everything queued is written, for so long at most."""
        deadline = time.monotonic() + seconds
        while self._queue.unfinished_tasks and not self.broken and time.monotonic() < deadline:
            time.sleep(0.005)


class _Notices(logging.Handler):
    """Notices of the child's lanes go to the parent's terminal, and to follower.log."""

    def __init__(self, outbox: Outbox) -> None:
        super().__init__()
        self._outbox = outbox

    def emit(self, record: logging.LogRecord) -> None:
        self._outbox.put("notice", level=record.levelno, text=record.getMessage())
        sys.stderr.write(f"{time.strftime('%H:%M:%S')} {record.getMessage()}\n")


class Commands:
    """What the parent said on stdin, kept up to date by a thread."""

    def __init__(self, stream: BinaryIO, wake: threading.Event) -> None:
        self.report = False
        self.finish: int | None = None
        self.ended = False
        self._stream = stream
        self._wake = wake
        start_thread(self._read, "losslog-commands")

    def _read(self) -> None:
        for line in self._stream:
            word, _, rest = line.strip().partition(b" ")
            if word == b"report":
                self.report = True
            elif word == b"finish":
                self.finish = int(rest)
            self._wake.set()
        self.ended = True
        self._wake.set()


def attached(folder: Path) -> int:
    """The child's life: follow the run in ``folder`` for the parent on stdin and stdout."""
    stream = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what plugins print must not reach the parent as messages
    hello = json.loads(sys.stdin.buffer.readline())
    _like_parent(hello)
    outbox = Outbox(stream)
    logger.handlers[:] = [_Notices(outbox)]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    child = Child(folder, hello, outbox)
    child.live()
    outbox.put("done")
    outbox.drain(1.0)
    sys.stderr.flush()
    os._exit(0)  # vendor threads and exit handlers must not keep it


def _like_parent(hello: Mapping[str, Any]) -> None:
    """Give plugins the parent's import path and environment."""
    sys.path[:] = hello["sys_path"]
    if hello["pythonpath"] is None:
        os.environ.pop("PYTHONPATH", None)
    else:
        os.environ["PYTHONPATH"] = hello["pythonpath"]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the training process; we end when it does


class Child:
    """Far lanes, and what they need to outlive the parent."""

    def __init__(self, folder: Path, hello: Mapping[str, Any], outbox: Outbox) -> None:
        self.folder = folder
        self.journal = folder / JOURNAL
        self._outbox = outbox
        self._event = threading.Event()
        self._parent = int(hello["parent"])
        self._born_of = os.getppid() if hasattr(os, "getppid") else 0
        self._deadline: float | None = None
        self._writer: Writer | None = None
        self._finish: int | None = None
        self._refused = 0
        self._commands = Commands(sys.stdin.buffer, self._event)
        self._lanes = far_lanes(folder, hello["plugins"], self._post)
        with contextlib.suppress(ValueError, OSError):
            signal.signal(signal.SIGTERM, self._hurried)

    def _hurried(self, *_: Any) -> None:
        self._deadline = time.monotonic() + 10.0
        self._event.set()

    def _post(self, kind: str, data: dict[str, Any]) -> None:
        writer = self._writer
        if writer is None:
            self._outbox.put(kind, data=data)
        elif kind == "alert" and data["key"] not in writer.alert_keys:  # the parent is gone: it becomes a record here
            writer.alert_keys.add(data["key"])
            _append(writer, "on_alert", data)

    def live(self) -> None:
        """Until everything is delivered, or it is time to go."""
        for lane in self._lanes:
            lane.start()
        told = 0.0
        size = -1
        while True:
            self._event.wait(0.25)
            self._event.clear()
            grown = self.journal.stat().st_size if self.journal.exists() else size
            if grown != size:
                size = grown
                for lane in self._lanes:
                    lane.wake()
            if self._commands.report or time.monotonic() - told > STATS_EVERY:
                told = time.monotonic()
                self._commands.report = False
                self._outbox.put("stats", lanes={lane.name: lane.stats() for lane in self._lanes})
            if self._over(size):
                break
        self._outbox.put("stats", lanes={lane.name: lane.stats() for lane in self._lanes})

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
        if self._finish is not None and all(lane.over for lane in self._lanes):
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
        try:
            self._writer = Writer(self.folder)
        except OSError:
            return True  # look again
        except RunLocked:
            if self._born_of == 0 or os.getppid() == self._born_of:
                return True  # alive: only the pipe was closed
            self._refused += 1
            if self._refused < 8:
                return True
            self._abandon("the run was resumed: its new follower goes on")
            return False
        deadline = time.monotonic() + CATCH_UP
        while time.monotonic() < deadline and any(
            not lane.idle and lane.offset < self._writer.end for lane in self._lanes
        ):
            for lane in self._lanes:
                lane.wake()
            time.sleep(0.05)
        if not self._writer.ended:
            _append(self._writer, "on_run_end", {"status": "crashed"})
        self._end_at(self._writer.end)
        self._writer.close()
        return True

    def _abandon(self, why: str) -> None:
        sys.stderr.write(f"{time.strftime('%H:%M:%S')} {why}\n")
        for lane in self._lanes:
            lane.abandon()
        deadline = time.monotonic() + 5.0
        while time.monotonic() < deadline and not all(lane.over or lane.hung for lane in self._lanes):
            time.sleep(0.02)


def _append(writer: Writer, hook: str, data: dict[str, Any]) -> None:
    try:
        writer.append([encode(Record(writer.seq, time.time(), hook, data))])
        writer.seq += 1
    except OSError as error:
        warn("the journal cannot be written: %s", error)


def far_lanes(folder: Path, plugins: Sequence[Mapping[str, Any]], post: Post) -> list[Lane]:
    """A lane for each named plugin over the journal in ``folder``; used by the follower and by ``losslog replay``.

    Raises:
        PluginError: a name is not installed.
    """
    start = next((record for _, record in read(folder / JOURNAL) if record is not None), None)
    about = start.data if start is not None else {}
    tail = Tail(folder / JOURNAL)
    installed = discover(disabled=())
    lanes = []
    for each in plugins:
        name = str(each["name"])
        if name not in installed:
            raise PluginError(f"no plugin named {name!r} is installed")
        plugin = installed[name]
        plugin.options = dict(each["options"])

        def make(plugin: Any = plugin) -> Any:
            error = plugin.make()
            if error is not None:
                raise error
            return plugin.object

        handle = RunHandle(
            id=folder.name, name=str(about.get("name", "")), dir=folder, config=about.get("config") or {},
            source=name, post=post,
        )  # fmt: skip
        every = int(plugin.options.get("batch_every", 1))
        lanes.append(Lane(name, make, tail, Cursor(folder, name), handle, batch_every=every))
    return lanes
