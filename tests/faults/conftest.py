"""The bench of the fault suite: a training script, a healthy backend beside a faulty one, and a table of what was lost.

``LOSSLOG_FAULTS=full`` runs everything, ``WRITE_PAGES=1`` writes the table into docs/reliability.md.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

import losslog
from losslog.journal.folder import JOURNAL
from losslog.journal.lines import read
from losslog.testing.waiting import until

ROOT = Path(losslog.__file__).parent.parent
FULL = os.environ.get("LOSSLOG_FAULTS") == "full"
WRITE = bool(os.environ.get("WRITE_PAGES"))
STEPS = 300
ROWS = pytest.StashKey[list["Row"]]()
LOSSES = pytest.StashKey[dict[str, list[tuple[int, float]]]]()

BACKEND = '''
import json, os, pathlib, time
from losslog import hookimpl

NAME = "{name}"
WHERE, _, FAULT = os.environ.get("FAULTY", "").partition(":") if NAME == "faulty" else ("", "", "")
KEPT = []

class Odd(Exception):
    pass

def fault(where, **about):
    if where != WHERE:
        return
    if FAULT == "raise":
        raise Odd("on purpose")
    if FAULT == "sometimes":
        if about.get("step", 0) % 7 == 3:
            raise Odd("on purpose")
    elif FAULT == "SystemExit":
        raise SystemExit(7)
    elif FAULT == "KeyboardInterrupt":
        raise KeyboardInterrupt
    elif FAULT == "away":
        raise ConnectionRefusedError("nobody there")
    elif FAULT == "hang":
        while True:
            time.sleep(0.05)
    elif FAULT == "slow":
        time.sleep(0.2)
    elif FAULT == "mutate":
        for each in about.values():
            if isinstance(each, dict):
                each.clear()
                each["mutated"] = 1.0
    elif FAULT == "leak":
        KEPT.append((about, bytearray(10_000)))
    elif FAULT == "fork":
        if about.get("step") == 5:
            os.fork()
    elif FAULT == "crash":
        os._exit(9)

fault("import")

class Plugin:
    """Appends a line for each record when it is flushed."""

    near = NAME == "faulty" and os.environ.get("FAULTY_NEAR") == "1"
    flush_every = 0.05

    def __init__(self):
        self._lines = []
        fault("__init__")

    def _keep(self, hook, seq, **data):
        self._lines.append(json.dumps([seq, hook, data]) + "\\n")

    @hookimpl
    def on_run_start(self, name, seq, run):
        fault("on_run_start")

    @hookimpl
    def on_batch_losses(self, step, losses, run, seq):
        kept = dict(losses)
        fault("on_batch_losses", step=step, losses=losses, config=run.config)
        self._keep("batch", seq, step=step, losses=kept)

    @hookimpl
    def on_epoch_end(self, epoch, losses, seq):
        self._keep("epoch", seq, epoch=epoch, losses=losses)

    @hookimpl
    def on_run_end(self, status, seq):
        fault("on_run_end")
        self._keep("end", seq, status=status)

    @hookimpl
    def on_flush(self, run):
        try:
            fault("on_flush")
        except BaseException:
            self._lines.clear()  # it comes again
            raise
        lines, self._lines = self._lines, []
        with open(pathlib.Path(run.dir) / (NAME + ".jsonl"), "a") as file:
            file.writelines(lines)
'''

TRAINING = '''
import os, random, sys, time

def peak():
    """Largest memory so far, in MB; ru_maxrss would be that of the process that started this one."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) // 1024 for line in file if line.startswith("VmHWM"))

def train(steps, log, end_epoch):
    """A little gradient descent: what it arrives at must not depend on who is watching."""
    rng, weights = random.Random(3), [0.0] * 5
    for step in range(steps):
        losses = {}
        for place, weight in enumerate(weights):
            error = weight - place + 0.1 * rng.random()
            weights[place] = weight - 0.05 * error
            losses[f"loss_{place}"] = error * error
        log(step, losses)
        if step % 50 == 49:
            end_epoch()
    return "result " + " ".join(weight.hex() for weight in weights)
'''

SCRIPT = (
    TRAINING
    + """
steps, pause = int(sys.argv[1]), float(sys.argv[2])
@before@
import losslog
run = losslog.Run("fault", dir=os.environ.get("RUNS", "runs"), plugins=@plugins@, config={"lr": 0.1})
print("run", run.dir, run.stats["follower"]["pid"] if run.stats["follower"] else 0, flush=True)

def log(step, losses):
    run.log_batch(losses, lr=0.1)
    @each@
    if pause:
        time.sleep(pause)

result = train(steps, log, run.end_epoch)
print(result, flush=True)
@after@
print("memory", peak(), flush=True)
@end@
"""
)


def alone(steps: int) -> str:
    """What the training arrives at with nobody watching."""
    space: dict[str, Any] = {}
    exec(TRAINING, space)
    return str(space["train"](steps, lambda step, losses: None, lambda: None))


@pytest.fixture(scope="session")
def expected() -> str:
    """What the training arrives at with nobody watching."""
    return alone(STEPS)


@pytest.fixture(scope="session")
def arrives() -> Callable[[int], str]:
    """The same after any number of steps."""
    return alone


class Row(NamedTuple):
    """One line of the table in docs/reliability.md."""

    fault: str
    logged: str
    lost: str
    undelivered: str
    after: str


class Outcome:
    """A run that met a fault, and everything it left behind."""

    def __init__(self, bench: Bench, process: subprocess.Popen[str], folder: Path, follower: int) -> None:
        self.bench, self.process, self.folder, self.follower = bench, process, folder, follower
        self.out = self.err = ""
        self.code: int | None = None

    def finish(self, timeout: float = 90.0) -> Outcome:
        """Wait until the script ends."""
        out, self.err = self.process.communicate(timeout=timeout)
        self.out += out
        self.code = self.process.returncode
        return self

    @property
    def memory(self) -> int:
        """Largest memory of the training process, in MB."""
        return int(re.findall(r"^memory (\d+)$", self.out, re.M)[-1])

    def records(self) -> list[Any]:
        return [record for _, record in read(self.folder / JOURNAL) if record is not None]

    def steps(self) -> list[int]:
        """Steps in the journal."""
        return [record.data["step"] for record in self.records() if record.hook == "on_batch_losses"]

    def backend(self, name: str) -> list[Any]:
        """What a backend holds, in its order."""
        path = self.folder / f"{name}.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]  # it may be writing the last

    def wanted(self) -> list[Any]:
        """What a backend should hold, by the journal."""
        found = []
        for record in self.records():
            if record.hook == "on_batch_losses":
                data = {"step": record.data["step"], "losses": record.data["losses"]}
                found.append([record.seq, "batch", data])
            elif record.hook == "on_epoch_end":
                found.append([record.seq, "epoch", {key: record.data.get(key) for key in ("epoch", "losses")}])
            elif record.hook == "on_run_end":
                found.append([record.seq, "end", {"status": record.data["status"]}])
        return found

    def undelivered(self, name: str) -> int | None:
        """What the report said of a plugin; None where it said nothing."""
        found = re.findall(rf"^losslog: {name}: (?:.*undelivered: )?(\d+)(?: records? to go.*)?$", self.err, re.M)
        return int(found[-1]) if found else None

    def remedy(self, name: str) -> str:
        """What the report names for records that a plugin lacks, as the table says it."""
        folder = f"runs/fault/{self.folder.name}"
        if f"losslog: deliver what is missing with: losslog replay {folder} --to {name}\n" in self.err:
            return "replay delivers them, once"
        going = f"losslog: the follower goes on with {name} for up to 10 minutes; look with: losslog show {folder}\n"
        assert going in self.err, self.err
        return "the follower goes on for 10 minutes, then replay delivers them, once"

    def wait_for(self, name: str, seconds: float = 60.0) -> None:
        """Until a backend holds what it should."""
        until(lambda: self.backend(name) == self.wanted(), f"{name} has everything", seconds)

    def stop_follower(self) -> None:
        """Kill the follower where it hangs; where it does not, see it end by itself."""
        if self.follower and psutil.pid_exists(self.follower):
            os.kill(self.follower, signal.SIGKILL)
        self.follower_ends()

    def follower_ends(self, seconds: float = 60.0) -> None:
        until(lambda: not (self.follower and psutil.pid_exists(self.follower)), "the follower ends", seconds)

    def replay(self, *names: str, skipped: bool = False) -> None:
        """``losslog replay`` with a backend that is well again."""
        command = [sys.executable, "-m", "losslog", "replay", str(self.folder), "--to", ",".join(names)]
        command += ["--skipped"] if skipped else []
        environment = {key: value for key, value in os.environ.items() if key not in ("FAULTY", "FAULTY_NEAR")}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=90)
        assert done.returncode == 0, done.stderr

    def complete_after_replay(self, *names: str, once: bool = True) -> None:
        """A replay, and a second one, leave each backend with everything, once and in order.

        A process killed between what it wrote and its cursor leaves what `once` would not have.
        """
        self.replay(*names)
        first = {name: self.backend(name) for name in names}
        self.replay(*names)
        for name in names:
            assert (found := self.backend(name)) == first[name]
            assert (found if once else sorted({each[0]: each for each in found}.values())) == self.wanted()

    def doubled(self, name: str) -> int:
        return sum(count - 1 for count in Counter(seq for seq, *_ in self.backend(name)).values())


class Bench:
    """Starts training scripts that meet a fault."""

    def __init__(self, script: Callable[..., Any], config: pytest.Config) -> None:
        self._script, self._config = script, config
        self.started: list[Outcome] = []

    def start(
        self,
        fault: str = "",
        *,
        near: bool = False,
        steps: int = STEPS,
        pause: float = 0.001,
        env: dict[str, str] | None = None,
        before: str = "",
        each: str = "pass",
        after: str = "run.close(4)",
        end: str = "",
        plugins: str = '["witness", "faulty"]',
    ) -> Outcome:
        """A script, up to the moment when its run has begun."""
        environment = {"FAULTY": fault, "FAULTY_NEAR": "1" if near else "", **(env or {})}
        source = SCRIPT
        parts = {"before": before, "each": each, "after": after, "end": end, "plugins": plugins}
        for name, part in parts.items():
            source = source.replace(f"@{name}@", part)
        process = self._script(source, str(steps), str(pause), env=environment)
        line = process.stdout.readline()
        if not line.startswith("run "):
            raise AssertionError(process.communicate()[1])
        folder, follower = line[4:].rsplit(None, 1)
        self.started.append(Outcome(self, process, Path(folder), int(follower)))
        self.started[-1].out = line
        return self.started[-1]

    def measured(self, fault: str, batches: int, seconds: float) -> None:
        """Remember what a sudden end lost: the table says the most of all times."""
        self._config.stash[LOSSES].setdefault(fault, []).append((batches, seconds))

    def row(self, fault: str, logged: Any, lost: Any, undelivered: Any = 0, after: Any = "nothing to do") -> None:
        """Remember a line of the table."""
        self._config.stash[ROWS].append(Row(fault, str(logged), str(lost), str(undelivered), str(after)))


@pytest.fixture
def bench(package: Callable[..., str], script: Callable[..., Any], pytestconfig: pytest.Config) -> Iterator[Bench]:
    for name in ("witness", "faulty"):
        package(BACKEND.replace("{name}", name), name)
    found = Bench(script, pytestconfig)
    yield found
    for each in found.started:
        if each.follower and psutil.pid_exists(each.follower):
            os.kill(each.follower, signal.SIGKILL)


def pytest_configure(config: pytest.Config) -> None:
    config.stash[ROWS] = []
    config.stash[LOSSES] = {}


def pytest_sessionfinish(session: pytest.Session) -> None:
    rows = session.config.stash.get(ROWS, [])
    for fault, found in session.config.stash.get(LOSSES, {}).items():
        most = f"at most {max(batches for batches, _ in found)} batches, {max(seconds for _, seconds in found):.2f} s"
        times = f"{fault}, {len(found)} times" if len(found) > 1 else f"{fault}, once"
        rows.append(Row(times, "until then", most, "0", "the follower writes `crashed` and delivers the rest"))
    if WRITE and rows:
        write(ROOT / "docs" / "reliability.md", rows)


def name_of(row: Row) -> str:
    """A fault's name without how often it was made to happen."""
    return re.sub(r", (once|\d+ times)$", "", row.fault)


def write(path: Path, rows: list[Row]) -> None:
    """Put the table between its markers; lines of faults that did not run this time stay."""
    head = ["Fault", "Batches logged", "Lost", "Undelivered at exit", "Afterwards"]
    begin, end = "<!-- faults: begin -->", "<!-- faults: end -->"
    text = path.read_text("utf-8")
    start, stop = text.index(begin) + len(begin), text.index(end)
    found = [Row(*line.strip("| ").split(" | ")) for line in text[start:stop].splitlines()[3:]]
    table = {name_of(row): row for row in [*found, *rows]}
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [f"| {' | '.join(table[name])} |" for name in sorted(table)]
    path.write_text(text[:start] + "\n" + "\n".join(lines) + "\n" + text[stop:], "utf-8")
