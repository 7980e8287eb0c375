"""What can happen to the training process: the exit code is its own, and what is lost is bounded and said."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from losslog.journal.folder import JOURNAL
from losslog.journal.lines import read

FULL = os.environ.get("LOSSLOG_FAULTS") == "full"
STEPS = 300

pytestmark = pytest.mark.timeout(180)


def step_reached(outcome: Any, step: int) -> None:
    while True:
        line = outcome.process.stdout.readline()
        outcome.out += line
        if not line or line == f"step {step}\n":
            return


TELL = 'print("step", step, flush=True)'


def logged(outcome: Any) -> int:
    """How many steps the script had logged when it ended."""
    said = re.findall(r"^step (\d+)\n", outcome.out, re.M)  # whole lines: the kill may have come within one
    return int(said[-1]) + 1 if said else 0


def complete(outcome: Any, status: str) -> None:
    """The journal ends as it should, and both backends hold exactly it."""
    outcome.follower_ends()
    found = outcome.records()
    assert [each.seq for each in found] == list(range(len(found)))
    assert found[-1].data["status"] == status
    for name in ("witness", "faulty"):
        outcome.wait_for(name)
    outcome.complete_after_replay("witness")


@pytest.mark.parametrize("number", range(50 if FULL else 5))
def test_killed_at_a_random_moment(bench: Any, number: int) -> None:
    rng = random.Random(number)
    outcome = bench.start(steps=10**6, each=TELL, after="")
    step_reached(outcome, rng.randrange(5, 600))
    outcome.process.kill()
    at = time.time()
    outcome.finish()
    assert outcome.code == -signal.SIGKILL
    outcome.follower_ends()
    batches = [each for each in outcome.records() if each.hook == "on_batch_losses"]
    assert [each.data["step"] for each in batches] == list(range(len(batches)))
    lost = logged(outcome) - len(batches)
    seconds = at - batches[-1].time if batches else 0.0
    complete(outcome, "crashed")
    assert lost <= 200 + 1500  # of 1 ms: the promise is 0.2 s and one write; the rest is for a busy machine
    bench.measured("kill -9 at a random moment", max(lost, 0), seconds)


def test_sigterm(bench: Any) -> None:
    outcome = bench.start(steps=10**6, each=TELL, after="")
    step_reached(outcome, 100)
    outcome.process.terminate()
    at = time.time()
    outcome.finish()
    assert outcome.code == -signal.SIGTERM
    complete(outcome, "crashed")
    last = max(each.time for each in outcome.records() if each.hook == "on_batch_losses")
    bench.measured("SIGTERM (Python runs nothing then)", max(logged(outcome) - len(outcome.steps()), 0), at - last)


@pytest.mark.parametrize("before", ["", "import signal; signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))"])
def test_sigint_and_a_sigterm_that_exits(bench: Any, before: str) -> None:
    outcome = bench.start(steps=10**6, each=TELL, before=before, after="")
    step_reached(outcome, 100)
    outcome.process.send_signal(signal.SIGTERM if before else signal.SIGINT)
    outcome.finish()
    assert outcome.code == (143 if before else -signal.SIGINT)
    assert len(outcome.steps()) == logged(outcome) or len(outcome.steps()) == logged(outcome) + 1
    complete(outcome, "finished" if before else "stopped")
    bench.row("a SIGTERM handler that calls sys.exit" if before else "Ctrl-C", "until then", 0)


def test_sigint_twice(bench: Any) -> None:
    outcome = bench.start("on_batch_losses:hang", steps=10**6, each=TELL, after="", near=True)
    step_reached(outcome, 100)
    outcome.process.send_signal(signal.SIGINT)
    deadline = time.monotonic() + 1.0
    while time.monotonic() < deadline and outcome.process.poll() is None:
        time.sleep(0.05)  # it is closing, and waits for a plugin that hangs
    outcome.process.send_signal(signal.SIGINT)
    outcome.finish(20)
    outcome.follower_ends()
    outcome.wait_for("witness")
    bench.row(
        "Ctrl-C twice, with a plugin that hangs", "until then", 0, "what it had not got", "replay delivers it, once"
    )


POOL = "import concurrent.futures as f; f.ThreadPoolExecutor(2).submit(run.log_batch, {'loss_0': 1.0})"


@pytest.mark.parametrize(
    ("name", "end", "code", "status"),
    [
        ("sys.exit(3)", "sys.exit(3)", 3, "finished"),
        ("an exception in the loop", "raise LookupError('mine')", 1, "failed"),
        ("interpreter shutdown without close", "pass", 0, "finished"),
        ("a thread pool that logs at shutdown", POOL, 0, "finished"),
    ],
    ids=["exit", "exception", "shutdown", "pool"],
)  # fmt: skip
def test_an_end_without_close(bench: Any, expected: str, name: str, end: str, code: int, status: str) -> None:
    outcome = bench.start(after=end).finish()
    assert expected in outcome.out
    assert outcome.code == code
    assert outcome.steps()[:STEPS] == list(range(STEPS))
    assert ("LookupError: mine" in outcome.err) == (code == 1)
    complete(outcome, status)
    bench.row(name, STEPS, 0)


@pytest.mark.parametrize("code", [0, 4])
def test_os_exit(bench: Any, expected: str, code: int) -> None:
    outcome = bench.start(after=f"os._exit({code})").finish()
    assert expected in outcome.out
    assert outcome.code == code
    complete(outcome, "crashed")
    lost = STEPS - len(outcome.steps())
    assert lost <= 200 + 200  # of 1 ms
    bench.measured("os._exit without close", lost, 0.001 * lost)


def test_inside_with_an_exception(bench: Any) -> None:
    after = "run.__exit__(*([ValueError, ValueError('no'), None]))\nsys.exit(5)"
    outcome = bench.start(after=after).finish()
    assert outcome.code == 5
    complete(outcome, "failed")


def test_two_runs_in_one_process(bench: Any, expected: str) -> None:
    before = "import losslog as other; second = other.Run('second', dir='runs', plugins=['witness']); print_ = print"
    outcome = bench.start(
        before=before, each="second.log_batch(losses)", after="run.close(4); second.close(4)"
    ).finish()
    assert expected in outcome.out
    assert outcome.code == 0
    complete(outcome, "finished")
    bench.row("two runs in one process", f"{STEPS} each", 0)


def test_two_writers_on_one_folder(bench: Any, expected: str) -> None:
    outcome = bench.start(steps=10**6, each=TELL, after="")
    step_reached(outcome, 50)
    code = f"import losslog; losslog.Run(resume={str(outcome.folder)!r}, plugins=None)"
    second = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert second.returncode == 1
    assert "RunLocked" in second.stderr
    assert "being written by another live run" in second.stderr
    command = [sys.executable, "-m", "losslog", "replay", str(outcome.folder), "--to", "witness"]
    replay = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (replay.returncode, "still live" in replay.stderr) == (2, True)
    outcome.process.send_signal(signal.SIGINT)
    outcome.finish()
    complete(outcome, "stopped")
    bench.row(
        "a second writer on the same run folder", "until the end", 0, 0, "the second one is refused at its first line"
    )


def test_clocks_that_jump(bench: Any, expected: str) -> None:
    before = (
        "real, jumps = time.time, [0.0]\n"
        "def jumping():\n"
        "    jumps[0] += 1\n"
        "    return real() + (-1e6 if int(jumps[0]) % 3 == 0 else 1e6 if int(jumps[0]) % 3 == 1 else 0.0)\n"
        "time.time = jumping"
    )
    outcome = bench.start(before=before).finish()
    assert expected in outcome.out
    assert outcome.code == 0, outcome.err
    assert outcome.steps() == list(range(STEPS))
    complete(outcome, "finished")
    bench.row("a clock that jumps 12 days back and forth", STEPS, 0)


DESCRIPTORS = """
import resource
taken = []
def hook(step):
    if step == 100:
        run.flush(20)
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        try:
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            pass
    if step == 200:
        time.sleep(1.0)
        while taken:
            os.close(taken.pop())
"""


def test_no_descriptor_is_left_for_a_while(bench: Any, expected: str) -> None:
    outcome = bench.start(before=DESCRIPTORS, each="hook(step)", near=True, after="run.close(10)").finish()
    assert expected in outcome.out
    assert outcome.code == 0, outcome.err
    assert "Too many open files" in outcome.err
    assert outcome.steps() == list(range(STEPS))
    complete(outcome, "finished")
    bench.row("no file descriptor is left for a while", STEPS, 0)


HANDLER = """
import logging
class Chat(logging.Handler):
    def emit(self, record):
        raise ConnectionError("the chat is away")
logging.getLogger().addHandler(Chat())
"""


@pytest.mark.parametrize("near", [False, True])
def test_a_logging_handler_that_raises(bench: Any, expected: str, near: bool) -> None:
    outcome = bench.start("on_batch_losses:sometimes", before=HANDLER, near=near).finish()
    assert expected in outcome.out
    assert (outcome.code, outcome.err) == (0, "")
    outcome.wait_for("witness")
    kept = [each[2]["step"] for each in outcome.backend("faulty") if each[1] == "batch"]
    assert kept == [step for step in range(STEPS) if step % 7 != 3]
    if near:
        bench.row("a logging handler of the script that raises", STEPS, 0)


WORKERS = """
class Data(torch.utils.data.Dataset):
    def __len__(self):
        return 40
    def __getitem__(self, index):
        run = globals().get("run")
        if run is not None:
            run.log_batch(1e9)
            run.end_epoch()
        return torch.tensor(float(index))

def loader():
    return torch.utils.data.DataLoader(Data(), batch_size=4, num_workers=2, multiprocessing_context="{context}")
"""

LOADING = """
import os, sys, time, torch
import losslog
{workers}
if __name__ == "__main__":
    run = losslog.Run("workers", dir="runs", plugins=["witness"])
    print("run", run.dir, run.stats["follower"]["pid"], flush=True)
    for epoch in range({epochs}):
        for batch in loader():
            run.log_batch(batch.mean())
        run.end_epoch()
    run.close(10)
    print("threads", [each.name for each in __import__("threading").enumerate() if each.name.startswith("losslog")])
"""


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_loader_workers(bench: Any, script: Any, context: str) -> None:
    pytest.importorskip("torch")
    epochs = 2 if context == "fork" or FULL else 1  # each spawned worker imports torch
    source = LOADING.replace("{workers}", WORKERS.replace("{context}", context)).replace("{epochs}", str(epochs))
    process = script(source, flags=("-W", "ignore"))
    out, err = process.communicate(timeout=150)
    assert process.returncode == 0, err
    folder = out.split()[1]
    found = [record for _, record in read(Path(folder) / JOURNAL) if record is not None]
    totals = [each.data["total"] for each in found if each.hook == "on_batch_losses"]
    assert totals == [sum(range(first, first + 4)) / 4 for first in range(0, 40, 4)] * epochs
    assert [each.hook for each in found].count("on_run_end") == 1
    assert len(list(Path(folder).parent.iterdir())) == 1
    bench.row(f"DataLoader workers by {context} that log too", "those of the parent", "what the workers logged (inert)")


LAUNCHERS = [
    {"RANK": "1"},
    {"RANK": "1", "WORLD_SIZE": "2"},
    {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"},
    {"SLURM_PROCID": "3", "SLURM_NTASKS": "4"},
    {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"},
]


@pytest.mark.parametrize("variables", LAUNCHERS, ids=lambda each: ",".join(each))
def test_launcher_variables_alone(bench: Any, expected: str, variables: dict[str, str]) -> None:
    outcome = bench.start(env=variables, after="run.close(20)").finish()
    assert expected in outcome.out
    assert outcome.code == 0, outcome.err
    assert outcome.steps() == list(range(STEPS))
    outcome.wait_for("witness")
    outcome.wait_for("faulty")
    several = len(variables) > 1  # else nobody says that there are others
    assert outcome.err.count("this process is a run of its own") == several, outcome.err
    text = "variables of a launcher (torchrun, Slurm, Open MPI) in a process that meets no other"
    bench.row(text, STEPS, 0, 0, "nothing to do: it is a run of its own")
