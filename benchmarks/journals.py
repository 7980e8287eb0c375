"""How long it takes to go on with a long run, to look at it, and to deliver it: ``python -m benchmarks.journals``.

Each command is a process of its own, as a person would start it; ``resume`` is the time `losslog.Run` itself takes.
The journal is generated: five losses, their total and a learning rate at every step, a hundred epochs with evaluations.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from losslog.journal.archive import size_of
from losslog.journal.file import Writer
from losslog.journal.folder import JOURNAL
from losslog.journal.records import Record, encode

NAMES = ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg", "loss_mask")
AT_ONCE = 2000
RESUME = """
import sys, time, losslog
began = time.perf_counter()
run = losslog.Run("big", dir=sys.argv[1], plugins=[], resume="auto")
print("resume", time.perf_counter() - began)
run.end_at_exit("crashed", None)
"""


def write(folder: Path, steps: int, epochs: int, *, ends: bool) -> None:
    """A run's journal, with its index, as a run itself would leave them."""
    folder.mkdir(parents=True)
    writer, draw, at = Writer(folder), random.Random(1), 1.764e9
    waiting: list[tuple[Record, bytes]] = []

    def add(hook: str, **data: object) -> None:
        record = Record(writer.seq + len(waiting), at, hook, data)
        waiting.append((record, encode(record)))

    def flush() -> None:
        end, found = writer.end, []
        writer.append([line for _, line in waiting])
        for record, line in waiting:
            end += len(line)
            found.append((end, record))
        writer.wrote(found)
        waiting.clear()

    add("on_run_start", name="big", config={"lr": 0.02}, epochs=epochs + 1, steps_per_epoch=None, options={},
        origin={}, resumed=False)  # fmt: skip
    for step in range(steps):
        at += 0.05
        level = 0.2 + 3.0 / (1 + step / (steps / 20))
        losses = {name: level * (1 + place / 3) * draw.lognormvariate(0, 0.2) for place, name in enumerate(NAMES)}
        epoch = 1 + step * epochs // steps
        add("on_batch_losses", step=step, epoch=epoch, losses=losses, total=sum(losses.values()), lr=0.02)
        if 1 + (step + 1) * epochs // steps > epoch:
            add("on_epoch_end", epoch=epoch, epochs=epochs + 1, step=step, losses=losses, total=sum(losses.values()),
                lr=0.02, duration=60.0)  # fmt: skip
            add("on_eval", epoch=epoch, step=step, split="val", metrics={"bbox": {"AP": 0.5 - 0.4 / epoch}})
        if len(waiting) >= AT_ONCE:
            flush()
    if ends:
        add("on_run_end", status="finished")
    flush()
    writer.close()


def timed(name: str, command: list[str]) -> dict[str, float]:
    """Wall and CPU seconds of a command and the peak memory so far; wall seconds those it prints itself, if any."""
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr or done.stdout}")
    found = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("resume ")]
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": float(found[0]) if found else seconds, "cpu": cpu, "peak_MB": after.ru_maxrss / 1024}


def main() -> None:
    """Write a journal, and time what is asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--only", default="resume,show,ls,watch,diagnose,report,replay,compress,show,cat")
    args = parser.parse_args()
    losslog = [sys.executable, "-m", "losslog"]
    with tempfile.TemporaryDirectory() as place:
        os.environ["XDG_CACHE_HOME"] = f"{place}/cache"
        folder = Path(place, "big", "20260101-000000-aaaa")
        began = time.perf_counter()
        write(folder, args.steps, 100, ends=False)
        print(json.dumps({"what": "write", "steps": args.steps, "seconds": time.perf_counter() - began,
                          "MB": size_of(folder / JOURNAL) / 1e6}), flush=True)  # fmt: skip
        for name in args.only.split(","):
            commands = {
                "resume": [sys.executable, "-c", RESUME, place],
                "ls": [*losslog, "ls", "--dir", place], "watch": [*losslog, "watch", str(folder), "--plain"],
                "replay": [*losslog, "replay", str(folder), "--to", "tensorboard"],
                "report": [*losslog, "report", str(folder), "-o", f"{place}/report.html"],
            }  # fmt: skip
            found = timed(name, commands.get(name) or [*losslog, name, str(folder)])
            packed = sum(each.stat().st_size for each in folder.glob(f"{JOURNAL}*"))
            print(json.dumps({"what": name, **found, "bytes_a_step": packed / args.steps}), flush=True)


if __name__ == "__main__":
    main()
