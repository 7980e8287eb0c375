"""A headless Chromium, spoken to over a pipe: no network, no driver, no package."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def find() -> str | None:
    """The browser's path, or None where none is installed."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


class Chromium:
    """One browser with one page.

    Attributes:
        requests: addresses the page asked for.
        messages: what it wrote to its console, and its errors.
    """

    def __init__(self) -> None:
        path = find()
        assert path is not None
        self._home = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        theirs = [fcntl.fcntl(each, fcntl.F_DUPFD, 10) for each in (theirs_in, theirs_out)]

        def place() -> None:  # the browser reads commands from descriptor 3 and writes answers to 4
            os.dup2(theirs[0], 3)
            os.dup2(theirs[1], 4)

        words = [path, "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run",
                 "--disable-dev-shm-usage", "--hide-scrollbars", "--disable-background-networking",
                 "--proxy-server=127.0.0.1:9", f"--user-data-dir={self._home.name}", "about:blank"]  # fmt: skip
        self._process = subprocess.Popen(words, pass_fds=(3, 4), preexec_fn=place, stdout=subprocess.DEVNULL,
                                         stderr=subprocess.DEVNULL)  # fmt: skip
        for each in (theirs_in, theirs_out, *theirs):
            os.close(each)
        self._buffer = b""
        self._count = 0
        self._session: str | None = None
        self.requests: list[str] = []
        self.messages: list[str] = []
        self._loaded = False
        (target,) = [each["targetId"] for each in self.tell("Target.getTargets")["targetInfos"]
                     if each["type"] == "page"]  # fmt: skip
        self._session = self.tell("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.tell(f"{domain}.enable")
        self.tell("Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=0, uploadThroughput=0)

    def tell(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command; its result."""
        self._count += 1
        body = {"id": self._count, "method": method, "params": parameters}
        if self._session is not None and not method.startswith("Target."):
            body["sessionId"] = self._session
        os.write(self._out, json.dumps(body).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._count:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            data = os.read(self._in, 1 << 20)
            assert data, "the browser has gone"
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\0")
        answer: dict[str, Any] = json.loads(line)
        told = answer.get("params", {})
        match answer.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(told["request"]["url"])
            case "Runtime.consoleAPICalled":
                self.messages.append(" ".join(str(each.get("value")) for each in told["args"]))
            case "Runtime.exceptionThrown":
                self.messages.append(json.dumps(told["exceptionDetails"]))
            case "Log.entryAdded":
                self.messages.append(told["entry"]["text"])
            case "Page.loadEventFired":
                self._loaded = True
        return answer

    def look(self, width: int, height: int = 900, *, dark: bool = False, ratio: float = 1) -> None:
        """Set the size and the colour scheme."""
        self.tell("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=ratio,
                  mobile=width < 600)  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.tell("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, path: Path) -> None:
        """Open a file, and wait until it stands."""
        self._loaded = False
        self.requests, self.messages = [], []
        self.tell("Page.navigate", url=path.absolute().as_uri())
        while not self._loaded:
            self._next()
        self.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        found = self.tell("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Press, move, let go."""
        for kind, (x, y), buttons in (("mouseMoved", start, 0), ("mousePressed", start, 1), ("mouseMoved", end, 1),
                                      ("mouseReleased", end, 0)):  # fmt: skip
            pressed = kind != "mouseMoved"
            self.tell("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left" if pressed else "none",
                      buttons=buttons, clickCount=int(pressed))  # fmt: skip

    def picture(self, path: Path, *, whole: bool = True) -> None:
        """Save a picture of the page."""
        found = self.tell("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))

    def pdf(self) -> bytes:
        """The page as it is printed."""
        return base64.b64decode(self.tell("Page.printToPDF", printBackground=False)["data"])

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(20)
        os.close(self._in)
        os.close(self._out)
        self._home.cleanup()
