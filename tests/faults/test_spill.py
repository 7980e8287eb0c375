"""A disk that hangs: nothing waits for it, the counts are right, and what it did not take is elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from losslog.journal.folder import JOURNAL
from losslog.journal.lines import read
from losslog.testing.waiting import until

STEPS = 3000
SCRIPT = """
import os, sys, time
import losslog
from losslog.journal.file import Writer

def hang(*_):
    time.sleep(3600)

run = losslog.Run("hangs", dir="runs", plugins=["far"])
print(run.dir, flush=True)
for step in range({steps}):
    if step == 700:
        run.flush(5)
        {fault}
    if step % 100 == 0:
        time.sleep(0.02)  # a drain's turn
    run.log_batch({{"a": float(step)}})
run.log_eval({{"AP": 0.5}})
run.end_epoch()
run.close(2)
print(run.stats["queued"] + run.stats["unwritten"], run.stats["spilt"], flush=True)
os._exit(0)
"""
FAULTS = {"write": "Writer.append = hang", "fsync": "Writer.sync = hang; run.end_epoch()"}


def lines_of(folder: Path) -> list[tuple[str, int | None]]:
    return [(each.hook, each.data.get("step")) for _, each in read(folder / JOURNAL) if each is not None]


@pytest.mark.parametrize("fault", FAULTS)
def test_what_a_disk_that_hangs_did_not_take_is_taken_back(
    fault: str, finished: Callable[..., subprocess.CompletedProcess[str]], package: Callable[..., str],
    far_source: str, tmp_path: Path,
) -> None:  # fmt: skip
    package(far_source, "far")
    done = finished(SCRIPT.format(steps=STEPS, fault=FAULTS[fault]))
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.splitlines()[0])
    waited, spilt = map(int, done.stdout.splitlines()[-1].split())
    in_time = sum(hook == "on_batch_losses" for hook, _ in lines_of(folder))
    assert 700 <= in_time < STEPS
    assert spilt >= STEPS - in_time
    assert waited >= STEPS - in_time
    command = re.search(r"losslog replay (\S+) --to far --spill (\S+) delivers them", done.stderr)
    assert command is not None, done.stderr
    assert f"the disk did not take {spilt} records in time" in done.stderr
    assert Path(command[2]) == Path(f"losslog-spill-{folder.name}.jsonl")

    def over() -> bool:  # the follower sees its parent gone, and ends the run
        listing = subprocess.run(["ps", "-ewwo", "args"], capture_output=True, text=True, check=True).stdout
        return folder.name not in listing

    until(over)
    words = [sys.executable, "-m", "losslog", "replay", command[1], "--to", "far", "--spill", command[2]]
    for time in range(2):
        again = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60, env=os.environ.copy())
        assert again.returncode == 0, again.stderr
        assert ("\n" + again.stderr).count("\n0 records taken back") == time, again.stderr
    hooks = lines_of(folder)
    assert [step for hook, step in hooks if hook == "on_batch_losses"] == list(range(STEPS))
    assert hooks[-1][0] == "on_run_end"
    assert [hook for hook, _ in hooks].count("on_eval") == 1
    last = [each for _, each in read(folder / JOURNAL) if each is not None][-1]
    assert last.data["status"] == "finished"
    far = (folder / "far.txt").read_text().splitlines()
    assert [each for each in far if each.startswith("batch")] == [
        f"batch {step} {float(step)!r}" for step in range(STEPS)
    ]


def test_a_spill_file_of_another_run_is_refused(
    finished: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    done = finished("import losslog; run = losslog.Run('x', dir='runs', plugins=None); run.close(); print(run.dir)")
    other = tmp_path / "other.jsonl"
    for content in ('{"losslog_spill": "20260101-000000-0000"}\n', "", "no\n", "[]\n"):
        other.write_text(content)
        words = [sys.executable, "-m", "losslog", "replay", done.stdout.strip(), "--to", "tensorboard", "--spill"]
        again = subprocess.run([*words, str(other)], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert again.returncode == 2
        assert "is no spill file of the run" in again.stderr
