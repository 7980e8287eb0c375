from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyte
import pytest
from losslog_console import ConsolePlugin

from losslog.control import RunHandle

LOSSES = {
    "loss_box_reg": 0.1234,
    "loss_classifier": 0.1456,
    "loss_mask": 0.3890,
    "loss_objectness": 0.0567,
    "loss_rpn_box_reg": 0.1087,
}


class Driver:
    """Calls the plugin as a lane does: every argument by name, with times that only go on."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.run = RunHandle(
            id="r1", name="demo", dir=folder, config={}, source="console", post=lambda kind, data: None
        )
        self.clock = 1000.0
        self.plugin = ConsolePlugin(**options)

    def start(self, epochs: int | None = 20, steps_per_epoch: int | None = None) -> None:
        self.plugin.on_run_start(epochs, steps_per_epoch, False, None)

    def batch(self, step: int, epoch: int = 1, losses: Any = None, seconds: float = 0.5) -> None:
        self.clock += seconds
        self.plugin.on_batch_losses(step, epoch, LOSSES if losses is None else losses, None, 0.1, self.clock)

    def eval(self, epoch: int, metrics: dict[str, Any], split: str = "val") -> None:
        self.plugin.on_eval(epoch, split, metrics)

    def epoch(
        self, epoch: int, losses: Any = None, val_loss: Any = None, epochs: int | None = 20, dropped: int = 0,
        lr: Any = None, duration: float | None = None, weights: dict[str, float] | None = None,
        total: float | None = None,
    ) -> None:  # fmt: skip
        self.clock += 1
        self.plugin.on_epoch_end(
            epoch,
            epochs,
            LOSSES if losses is None else losses,
            total,
            val_loss,
            dropped,
            self.clock,
            lr,
            duration,
            weights,
        )

    def checkpoint(self, path: str, epoch: int | None = None) -> None:
        self.plugin.on_checkpoint(epoch, path, self.run)

    def alert(self, title: str, text: str = "", level: str = "warning", step: int | None = None) -> None:
        self.plugin.on_alert(level, title, text, "plateau", step, None)

    def end(self, status: str = "finished", error: str | None = None) -> None:
        self.plugin.on_run_end(status, error)


@pytest.fixture
def drive(tmp_path: Path) -> Callable[..., Driver]:
    return lambda **options: Driver(tmp_path, **options)


class Terminal:
    """What a real terminal shows of a script's output."""

    def __init__(self, output: bytes, columns: int, rows: int) -> None:
        self.output = output.decode()
        self.screen = pyte.HistoryScreen(columns, rows, history=1000)
        pyte.Stream(self.screen).feed(self.output)

    @property
    def cursor_hidden(self) -> bool:
        return bool(self.screen.cursor.hidden)

    @property
    def lines(self) -> list[str]:
        past = ["".join(row[x].data for x in range(self.screen.columns)) for row in self.screen.history.top]
        lines = [line.rstrip() for line in [*past, *self.screen.display]]
        while lines and not lines[-1]:
            lines.pop()
        return lines


@pytest.fixture
def terminal(tmp_path: Path) -> Callable[..., Terminal]:
    """Runs a script on a pseudo-terminal; `run` is a Driver there, and `redraw()` makes the next batch redraw."""

    def show(script: str, columns: int = 100, rows: int = 30, **environ: str) -> Terminal:
        head = (
            "import os, sys, logging\nfrom pathlib import Path\nfrom conftest import Driver, LOSSES\n"
            f"folder = Path({str(tmp_path)!r})\n"
            "def redraw(): run.plugin._due = 0.0\n"
        )
        leader, follower = pty.openpty()
        fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        clean = {
            k: v for k, v in os.environ.items() if k not in ("CI", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE")
        }
        environ = {**clean, "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8", **environ}
        process = subprocess.Popen(
            [sys.executable, "-c", head + textwrap.dedent(script)],
            stdin=follower,
            stdout=follower,
            stderr=follower,
            env=environ,
            cwd=Path(__file__).parent,
        )
        os.close(follower)
        output = b""
        while True:
            try:
                chunk = os.read(leader, 65536)
            except OSError:  # EIO: the other end is closed
                break
            if not chunk:
                break
            output += chunk
        os.close(leader)
        code = process.wait(timeout=60)
        assert code == 0 or "exit" in environ, output.decode()
        return Terminal(output, columns, rows)

    return show
