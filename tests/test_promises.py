"""The promises of the first page, with the real console and the real TensorBoard, in processes of their own."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

pytest.importorskip("losslog_console")
pytest.importorskip("losslog_tensorboard")
pytest.importorskip("tensorboard")

pytestmark = [pytest.mark.timeout(180), pytest.mark.threaded]
STEPS = 500


def journal(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "journal.jsonl").read_bytes().split(b"\n")[:-1]
    return [json.loads(line) for line in lines]


def batches(folder: Path) -> list[dict[str, Any]]:
    return [each["data"] for each in journal(folder) if each["hook"] == "on_batch_losses"]


def tensorboard(folder: Path) -> dict[int, float]:
    """The batch totals that TensorBoard holds, by step."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder / "tensorboard" / "batch"), size_guidance={"scalars": 0}).Reload()
    if "batch/train_total" not in found.Tags()["scalars"]:
        return {}
    points = found.Scalars("batch/train_total")
    assert len({point.step for point in points}) == len(points)  # nothing doubled
    return {point.step: point.value for point in points}


def totals(folder: Path) -> dict[int, float]:
    return {each["step"]: pytest.approx(each["total"], rel=1e-6) for each in batches(folder)}


FAULTY = {
    "raising": "raise ValueError('always')",
    "leaving": "raise SystemExit(3)",
    "hanging": "import time\n        while True: time.sleep(0.05)",
}
LOOP = """
import sys
import losslog
plugins = ["console", "tensorboard", *sys.argv[1:]]
run = losslog.Run("promise", dir="runs", plugins=plugins, options={"console": {"batches": 1}})
for step in range(500):
    run.log_batch({"loss_mask": 1.0 + step, "loss_box_reg": 0.5}, lr=0.1)
    if step % 100 == 99:
        run.end_epoch()
run.close(12)
"""


@pytest.mark.parametrize("near", [False, True], ids=["far", "near"])
def test_plugins_that_raise_leave_and_hang_cost_nobody_else_anything(
    package: Callable[..., str], finished: Any, tmp_path: Path, near: bool
) -> None:
    for name, body in FAULTY.items():
        source = f"""
from losslog import hookimpl
class Plugin:
    near = {near}
    @hookimpl
    def on_batch_losses(self):
        {body}
"""
        package(source, name)
    done = finished(LOOP, *FAULTY)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "runs" / "promise").iterdir()
    assert [each["step"] for each in batches(folder)] == list(range(STEPS))
    shown = re.findall(r"^Epoch \d+ \[[\d/]+\]  total ([\d.]+)", done.stdout, re.M)
    assert [float(total) for total in shown] == [1.5 + step for step in range(STEPS)]
    assert tensorboard(folder) == totals(folder)
    for name, state in (("raising", "parked"), ("leaving", "parked"), ("hanging", "hung")):
        said = (
            rf"{state} .*undelivered: \d+" if near or state == "parked" else r"\d+ records to go \(\d+ s in one call\)"
        )
        assert re.search(rf"^losslog: {name}: {said}$", done.stderr, re.M), done.stderr
    assert re.search(r"losslog replay runs/promise/\S+ --to (\w+,)*(raising|leaving)", done.stderr)
    for process in psutil.process_iter(["pid", "cmdline"]):
        if str(folder) in " ".join(process.info["cmdline"] or []):
            process.kill()  # the follower that one of them hangs


KILLED = """
import time
import losslog
run = losslog.Run("killed", dir="runs", plugins=["tensorboard"])
print(run.dir, run.stats["follower"]["pid"], flush=True)
for step in range(10**9):
    run.log_batch({"loss_mask": 1.0 + step, "loss_box_reg": 0.5})
    if step % 100 == 99:
        run.end_epoch()
    print(step, flush=True)
    time.sleep(0.001)
"""


def test_after_kill_9_tensorboard_gets_what_there_is_and_the_run_is_ended(script: Any, until: Any) -> None:
    process = script(KILLED)
    folder, pid = process.stdout.readline().rsplit(None, 1)
    while int(process.stdout.readline()) < 400:
        pass
    process.kill()
    told = [400, *map(int, process.stdout.read().split())][-1]
    until(lambda: not psutil.pid_exists(int(pid)), "the follower ends", 60)
    found = journal(Path(folder))
    assert (found[-1]["hook"], found[-1]["data"]) == ("on_run_end", {"status": "crashed"})
    assert [each["step"] for each in batches(Path(folder))] == list(range(len(batches(Path(folder)))))
    # Steps of 1 ms and more: the promise is 0.2 s and one write; the thousand more are for a busy machine.
    assert told + 1 - len(batches(Path(folder))) <= 200 + 1000
    assert tensorboard(Path(folder)) == totals(Path(folder))


def test_after_kill_9_of_the_follower_nothing_is_missing_and_nothing_doubled(script: Any, tmp_path: Path) -> None:
    source = """
    import sys, time
    import losslog
    run = losslog.Run("restart", dir="runs", plugins=["tensorboard"])
    print(run.dir, flush=True)
    for part in range(3):
        for step in range(150):
            run.log_batch({"loss_mask": 1.0 + step, "loss_box_reg": 0.5})
            time.sleep(0.001)
        print(run.stats["follower"]["pid"], flush=True)
        while run.stats["follower"]["restarts"] < min(part + 1, 2):
            time.sleep(0.01)
    run.close()
    """
    process = script(source)
    folder = Path(process.stdout.readline().strip())
    for _ in range(2):
        os.kill(int(process.stdout.readline()), signal.SIGKILL)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert err.count("started again, nothing is lost") == 2
    assert [each["step"] for each in batches(folder)] == list(range(450))
    assert tensorboard(folder) == totals(folder)
