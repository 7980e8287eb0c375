"""Makes the pictures of the documentation from a real training run: terminal, TensorBoard, MLflow.

A run is trained in a pseudo-terminal, killed with SIGKILL in the middle of an epoch and resumed, so that the pictures
also show what a resume looks like. Needs chromium, and the packages of the `dev` extra. Look at what it made before
you commit it.

    python scripts/docs_pictures.py --data DIR        # DIR in COCO format; without it made-up shapes
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import fcntl
import html
import json
import os
import pty
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyte
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "img"
COLUMNS, LINES = 92, 30
CHROMIUM = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-component-update",
    "--disable-background-networking", "--disable-sync", "--hide-scrollbars",
)  # fmt: skip
COLOURS = {
    "black": "#000", "red": "#d9534f", "green": "#5cb85c", "brown": "#d6a243", "blue": "#5b9bd5",
    "magenta": "#b779c8", "cyan": "#4db6ac", "white": "#ddd", "default": "#ddd",
}  # fmt: skip


class Terminal:
    """A command in a pseudo-terminal, and what its screen shows."""

    def __init__(self, command: list[str], cwd: Path) -> None:
        self.screen = pyte.Screen(COLUMNS, LINES)
        self.stream = pyte.ByteStream(self.screen)
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(cwd)
            os.environ.update(OMP_NUM_THREADS="1", TERM="xterm-256color", COLUMNS=str(COLUMNS), LINES=str(LINES))
            for name in ("CI", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
                os.environ.pop(name, None)
            os.execv(command[0], command)
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))

    def read(self, enough: Callable[[], bool] = lambda: False) -> None:
        """Feed the screen until the command ends, or until ``enough()``."""
        while not enough():
            if not select.select([self.fd], [], [], 0.1)[0]:
                continue
            try:
                data = os.read(self.fd, 65536)
            except OSError:
                return
            if not data:
                return
            self.stream.feed(data)

    def text(self) -> str:
        """What the screen shows."""
        return "\n".join(self.screen.display)

    def kill(self) -> None:
        """End the command as a crash would."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    def page(self) -> str:
        """The screen as HTML."""
        lines = []
        for number in range(LINES):
            row, parts, skip = self.screen.buffer[number], [], False
            for column in range(COLUMNS):
                char = row[column]
                if skip:  # the second half of a wide character
                    skip = False
                    continue
                wide = len(char.data) > 0 and ord(char.data[0]) >= 0x1F300
                skip = wide
                colour = COLOURS.get(char.fg, f"#{char.fg}" if len(char.fg) == 6 else "#ddd")
                weight = "font-weight:bold;" if char.bold else ""
                width = 'class="wide"' if wide else ""
                parts.append(f'<span {width} style="color:{colour};{weight}">{html.escape(char.data or " ")}</span>')
            lines.append("".join(parts))
        while lines and not "".join(self.screen.display[len(lines) - 1]).strip():
            lines.pop()
        return (
            "<style>body{margin:0;background:#16181d}pre{margin:14px;font:14px/19px 'DejaVu Sans Mono',monospace,"
            "'Noto Color Emoji'}.wide{display:inline-block;width:2ch;height:19px;font-size:12px;"
            "vertical-align:top}</style><pre>" + "\n".join(lines) + "</pre>"
        )


class Browser:
    """A headless chromium, spoken to through a pipe; time passes as it does for people."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.profile = tempfile.mkdtemp()
        to_child, self.writer = os.pipe()
        self.reader, from_child = os.pipe()

        def wire() -> None:  # chromium reads from 3 and writes to 4
            first, second = os.dup(to_child), os.dup(from_child)
            os.dup2(first, 3)
            os.dup2(second, 4)

        self.process = subprocess.Popen(
            ["chromium", *CHROMIUM, "--remote-debugging-pipe", f"--user-data-dir={self.profile}",
             f"--window-size={size[0]},{size[1]}", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, close_fds=False, preexec_fn=wire,
        )  # fmt: skip
        os.close(to_child)
        os.close(from_child)
        self.number, self.received = 0, b""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        width, height = size
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def call(self, method: str, **params: Any) -> Any:
        """One command of the DevTools protocol, and its result."""
        self.number += 1
        message: dict[str, Any] = {"id": self.number, "method": method, "params": params}
        if method.partition(".")[0] not in ("Target", "Browser"):
            message["sessionId"] = self.session
        os.write(self.writer, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self.received:
                chunk = os.read(self.reader, 1 << 20)
                if not chunk:
                    raise RuntimeError("chromium has ended")
                self.received += chunk
            line, _, self.received = self.received.partition(b"\0")
            answer = json.loads(line)
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def evaluate(self, script: str) -> Any:
        """The value of a piece of JavaScript."""
        return self.call("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def close(self) -> None:
        """End it."""
        with contextlib.suppress(RuntimeError, OSError):
            self.call("Browser.close")
        self.process.wait(30)
        os.close(self.reader)
        os.close(self.writer)
        shutil.rmtree(self.profile, ignore_errors=True)


def shoot(url: str, out: Path, size: tuple[int, int], ready: str = "true", script: str = "", pause: float = 1) -> None:
    """A screenshot of a page.

    Args:
        url: the page.
        out: the picture.
        size: of the window.
        ready: JavaScript that is true when everything to be seen is drawn.
        script: JavaScript to run then.
        pause: seconds to wait after that.
    """
    browser = Browser(size)
    try:
        browser.call("Page.navigate", url=url)
        deadline = time.monotonic() + 90
        while not browser.evaluate(f"document.readyState === 'complete' && ({ready})"):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{url}: not drawn within 90 s")
            time.sleep(0.5)
        if script:
            browser.evaluate(script)
        time.sleep(pause)
        out.write_bytes(base64.b64decode(browser.call("Page.captureScreenshot")["data"]))
    finally:
        browser.close()


def shrink(path: Path, crop: tuple[int, int, int, int] | None = None) -> None:
    """A palette image of under 200 kB."""
    with Image.open(path) as image:
        part = image.convert("RGB").crop(crop) if crop else image.convert("RGB")
        part.quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path.name}: {path.stat().st_size // 1000} kB")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextlib.contextmanager
def server(command: list[str], cwd: Path, port: int, path: str) -> Iterator[str]:
    """A server on loopback, from its first answer on."""
    process = subprocess.Popen(
        command, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        deadline = time.monotonic() + 180
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5)
                break
            except OSError:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def picture_of(terminal: Terminal, out: Path, work: Path) -> None:
    """The terminal's screen as an image."""
    page = work / f"{out.stem}.html"
    page.write_text(terminal.page(), "utf-8")
    used = max(number for number, line in enumerate(terminal.screen.display) if line.strip()) + 1
    shoot(page.as_uri(), out, (COLUMNS * 9 - 10, used * 19 + 36))
    shrink(out)


def train(work: Path, data: Path, epochs: int, steps: int) -> None:
    """The run: killed in mid-epoch, resumed."""
    command = [
        sys.executable, "-m", "losslog", "train", "--data", str(data), "--backbone", "tiny", "--device", "cpu",
        "--optimizer", "adamw", "--lr", "3e-3", "--head-lr-multiplier", "1", "--schedule", "onecycle",
        "--batch-size", "4", "--epochs", str(epochs), "--steps-per-epoch", str(steps), "--name", "fruits",
        "--plugins", "console,tensorboard,mlflow,plateau", "-o", f"mlflow.tracking_uri=sqlite:///{work}/mlflow.db",
    ]  # fmt: skip
    doomed = f"Epoch {epochs // 2 + 1}/{epochs}"
    first = Terminal(command, work)
    first.read(lambda: f"{doomed} " in first.text() and f"{steps // 2}/{steps}" in first.text())
    first.kill()
    print(first.text())
    second = Terminal([*command, "--resume", "latest"], work)
    last = f"Epoch {epochs}/{epochs}"
    second.read(lambda: f"{last} " in second.text() and f" {steps // 2}/{steps}" in second.text())
    picture_of(second, IMAGES / "console.png", work)
    second.read()
    os.waitpid(second.pid, 0)
    print(second.text())


def tensorboard(work: Path, run: Path) -> None:
    """TensorBoard's pages of the run."""
    port = free_port()
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(run.relative_to(work)),
               "--host", "127.0.0.1", "--port", str(port)]  # fmt: skip
    with server(command, work, port, "/data/runs") as url:
        time.sleep(6)  # it loads in the background
        for name, page, size in (
            ("tensorboard", "#scalars&tagFilter=%5E(loss%7CmAP)%2F&_smoothingWeight=0", (1080, 1250)),
            ("tensorboard-components", "#custom_scalars&_smoothingWeight=0", (1080, 760)),
            ("tensorboard-resumed", "#scalars&tagFilter=batch%2Ftrain&_smoothingWeight=0", (1080, 900)),
        ):
            shoot(f"{url}/{page}", IMAGES / f"{name}.png", size, pause=12)
            shrink(IMAGES / f"{name}.png")


def mlflow(work: Path) -> None:
    """MLflow's page of the run."""
    from mlflow import MlflowClient

    uri, port = f"sqlite:///{work}/mlflow.db", free_port()
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("fruits")
    run = client.search_runs([experiment.experiment_id])[0]
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--host", "127.0.0.1",
               "--port", str(port), "--workers", "1"]  # fmt: skip
    with server(command, work, port, "/health") as url:
        page = f"{url}/#/experiments/{experiment.experiment_id}/runs/{run.info.run_id}/model-metrics"
        drawn = "document.querySelectorAll('svg.main-svg').length > 12"
        shoot(page, IMAGES / "mlflow.png", (1500, 1000), drawn, pause=4)
        shrink(IMAGES / "mlflow.png", (0, 0, 1115, 1000))  # without the assistant's pane


def main() -> None:
    """Train, or take the run that is there, and make the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="COCO-format data; unset: shapes as in losslog demo")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--steps", type=int, default=60, help="per epoch")
    parser.add_argument("--work", type=Path, help="keep the run here, and use the one that is there")
    parser.add_argument("--only", default="tensorboard,mlflow", help="pages to shoot")
    args = parser.parse_args()
    work = (args.work or Path(tempfile.mkdtemp())).resolve()
    work.mkdir(parents=True, exist_ok=True)
    IMAGES.mkdir(exist_ok=True)
    os.environ.update(MLFLOW_DISABLE_TELEMETRY="true")
    data = args.data.resolve() if args.data else None
    if data is None:
        from losslog.detection import write_shapes

        data = write_shapes(work / "shapes")
    if not (work / "runs").is_dir():
        train(work, data, args.epochs, args.steps)
    run = max((work / "runs" / "fruits").iterdir())
    if "tensorboard" in args.only:
        tensorboard(work, run)
    if "mlflow" in args.only:
        mlflow(work)
    if args.work is None:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
