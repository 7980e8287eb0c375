"""The follower: far lanes in a process of their own, so that no backend's code runs in the training process.

This is the parent's end: called from the training and the drain thread, it listens on a thread of its own. The child's
life is `losslog.delivery.attached`. Contract:

- The child reads the journal; commands go to its stdin, and alerts, requests, notices and figures come back on its
  stdout (`losslog.delivery.wire`). What plugins print goes to ``follower.log``.
- It outlives its parent: after a kill it writes ``on_run_end(status="crashed")``, delivers the rest and ends; after a
  normal end it goes on for up to 10 minutes.
- When it dies it is started again, up to 3 times within a minute each, after 0.2, 3 and 20 s; cursors make it continue
  where it was.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from losslog.control import Post, RunHandle
from losslog.delivery.installed import HOME, beside, path_without
from losslog.delivery.wire import CANNOT, FINISH, REPORT, REQUESTS, WAKE, Figures, Hello, message_of
from losslog.journal.files import opened
from losslog.journal.folder import absolute
from losslog.runtime.containment import attempt
from losslog.runtime.notices import say, warn
from losslog.runtime.pace import Bell, NoThread, start_thread
from losslog.runtime.settings import switch

if TYPE_CHECKING:
    import subprocess

RESTARTS: Final = 3  # of one that has lived for less than `SETTLED` seconds each time
BACK_OFF: Final = (0.2, 3.0, 20.0)  # seconds before each: a disk that is away for a moment is away for all of them
SETTLED: Final = 60.0
# Not ``-m losslog`` with ``PYTHONPATH``: that would stand before the standard library, where a package's ``typing.py``
# is no matter here.
BOOT: Final = "import sys; sys.path[:] = sys.argv.pop().split(chr(10)); from losslog.cli import main; sys.exit(main())"


def no_python() -> str:
    """Why this process cannot start a Python of its own; "" where it can.

    Where the executable is the program itself, it would begin anew, make a run, start a follower, and so on.
    """
    name = os.path.basename(sys.executable or "").lower()
    if getattr(sys, "frozen", False) or not any(each in name for each in ("python", "pypy", "graalpy")):
        return f"its executable {name!r} is no Python" if name else "this Python has no executable"
    return "this process is the child of one" if os.environ.get("LOSSLOG_PARENT_PID") else ""


def _flags() -> list[str]:
    """What makes another process the same Python as this one."""
    flags, given = ["-P"], sys.flags
    letters = {"isolated": "-I", "ignore_environment": "-E", "no_user_site": "-s", "no_site": "-S",
               "dont_write_bytecode": "-B"}  # fmt: skip
    flags += [letter for name, letter in letters.items() if getattr(given, name)]
    return flags + ["-O"] * given.optimize + (["-X", "utf8"] if given.utf8_mode else [])


def _own_path() -> str:
    """The import path with which the child finds losslog: this process's, in its order, and where losslog is now."""
    paths = [absolute(each) for each in path_without(beside()) if "\n" not in each]
    return "\n".join(paths if str(HOME) in map(os.path.realpath, filter(os.path.isabs, paths)) else [*paths, str(HOME)])


class Follower:
    """The parent's end.

    Args:
        handle: the run that is followed.
        plugins: ``{"name": ..., "options": {...}}`` for each far plugin.
        post: takes ``alert``, ``stop`` and ``lr`` messages; called on a thread of its own.
        since: seq of the run's first record in this process.
    """

    def __init__(self, handle: RunHandle, plugins: Sequence[Mapping[str, Any]], post: Post, since: int = 0) -> None:
        self.restarts = 0
        self.lanes: dict[str, Figures] = {}
        self.done = threading.Event()  # the child has nothing more to do, or cannot be had
        self.news = Bell()  # set at each stats message
        self._handle = handle
        self._plugins = [dict(each) for each in plugins]
        self._post, self._since = post, since
        self._process: subprocess.Popen[bytes] | None = None
        self._finish: int | None = None
        self._leaving = threading.Event()
        self._deaths, self._started = 0, time.monotonic()

    @property
    def pid(self) -> int | None:
        """The child's process id."""
        return self._process.pid if self._process is not None else None

    def start(self) -> str:
        """Start the child.

        Returns:
            Why it could not be started; "" when it was.
        """
        import subprocess  # 10 ms that processes without a run need not pay

        if trouble := no_python():
            return trouble
        environment = dict(os.environ)
        environment["LOSSLOG_PARENT_PID"] = str(os.getpid())
        environment["LOSSLOG_PROGRAM"] = absolute(sys.argv[0]) if sys.argv and sys.argv[0] else ""
        command = [sys.executable, *_flags(), "-c", BOOT, "follow", str(self._handle.dir), "--attached", _own_path()]
        hello = Hello(list(map(absolute, sys.path)), self._plugins, self._handle.name, self._handle.config, self._since)
        apart: dict[str, Any] = {"start_new_session": True}
        if sys.platform == "win32":
            below = subprocess.BELOW_NORMAL_PRIORITY_CLASS if switch("LOSSLOG_NICE", True) else 0
            apart = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | below}
        try:
            mode = os.O_WRONLY | os.O_CREAT | os.O_APPEND
            with open(opened(self._handle.dir / "follower.log", mode), "ab") as log:
                pipe = subprocess.PIPE
                process = subprocess.Popen(
                    command, stdin=pipe, stdout=pipe, stderr=log, env=environment, bufsize=0, **apart
                )
        except (OSError, ValueError) as error:
            return str(error)
        assert process.stdin is not None
        with contextlib.suppress(OSError):  # it is dead already: its end is noticed as any other
            process.stdin.write(json.dumps(hello._asdict()).encode("ascii") + b"\n")
        if sys.platform != "win32":
            os.set_blocking(process.stdin.fileno(), False)  # short lines: whole or not at all (PIPE_BUF)
        self.restarts += self._process is not None
        self._started = time.monotonic()
        self._process = process  # from here on other threads send commands: the greeting comes before them all
        try:
            start_thread(self._listen, "losslog-follower")
        except NoThread as error:  # nobody would hear it
            process.kill()
            process.communicate()
            return str(error)
        return ""

    def _send(self, line: bytes) -> None:
        """Write one line; where a child that is frozen has let the pipe run full, it is dropped."""
        process = self._process
        if process is None or process.stdin is None:
            return
        with contextlib.suppress(OSError, ValueError):
            process.stdin.write(line + b"\n")

    def wake(self) -> None:
        """There is something worth reading now (the child also looks four times a second)."""
        self._send(WAKE)

    def report(self) -> None:
        """Ask for stats at once."""
        self.news.clear()
        if self._finish is not None:  # the first time it may have been dropped
            self.finish(self._finish)
        self._send(REPORT)

    def finish(self, offset: int) -> None:
        """The journal ends here: deliver what there is, then end."""
        self._finish = offset
        self._send(b"%s %d" % (FINISH, offset))

    def leave(self) -> None:
        """Go without it: it finishes by itself."""
        self._leaving.set()
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    def _listen(self) -> None:
        process = self._process
        assert process is not None
        assert process.stdout is not None
        for line in process.stdout:
            attempt(self.take, message_of(line))  # another version's may be otherwise
        process.stdout.close()
        process.wait()
        if process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()
        if self._leaving.is_set() or self.done.is_set():
            self.done.set()
            return
        self._died(process.returncode)

    def take(self, message: Mapping[str, Any]) -> None:
        """One message of the child's."""
        kind, data = message.get("kind"), message.get("data")
        if kind == "stats" and isinstance(message.get("lanes"), dict):
            self.lanes = {name: Figures.of(each) for name, each in message["lanes"].items()}
            self.news.set()
        elif kind == "done":
            self.done.set()
        elif kind == "notice":
            (warn if message.get("level", 0) > logging.INFO else say)("%s", message.get("text"))
        elif kind in REQUESTS and isinstance(data, dict):
            self._post(str(kind), data)

    def _died(self, code: int) -> None:
        if code == CANNOT:
            warn("the follower cannot have the threads it needs (a limit on processes?): its plugins get no records, "
                 "the journal keeps them")  # fmt: skip
            self._lost("no thread can be had")
            return
        if time.monotonic() - self._started > SETTLED:
            self._deaths = 0
        if self._deaths >= RESTARTS:
            warn("the follower died %d times (last exit code %s, see follower.log): its plugins get no more records, "
                 "the journal keeps them", self.restarts + 1, code)  # fmt: skip
            self._lost("its process died again and again")
            return
        warn("the follower died (exit code %s): started again, nothing is lost", code)
        self._deaths += 1
        if self._leaving.wait(BACK_OFF[self._deaths - 1]):
            self.done.set()
            return
        trouble = self.start()
        if trouble:
            warn("the follower could not be started again: %s", trouble)
            self._lost(trouble)
        elif self._finish is not None:
            self.finish(self._finish)

    def _lost(self, why: str) -> None:
        names = [str(each["name"]) for each in self._plugins]
        self.lanes = {name: self.lanes.get(name, Figures())._replace(state="parked", reason=why) for name in names}
        self.done.set()
