"""What is measured, each function in a fresh process; figures are microseconds unless their name says otherwise.

- ``tight``: the call, in a loop of nothing else: its time, the CPU of all it causes, and how long the end takes.
- ``loop``: real training steps, in blocks with and without logging that take turns in one process.
- ``ops``: a hundred small ops beside lanes that work off a backlog.
- ``memory``, ``imports``, ``journal``: as they say.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

WARM_UP = 100  # steps before anything is measured


def spread(times: list[float]) -> dict[str, float]:
    """Median, mean and 99th percentile, in us, of times in seconds."""
    ordered = sorted(times)
    count = len(ordered)
    return {
        "p50": 1e6 * ordered[count // 2],
        "mean": 1e6 * sum(ordered) / count,
        "p99": 1e6 * ordered[count * 99 // 100],
    }


def settle(run: Any) -> None:
    """Wait until a run has nothing left to do; other subjects do their work in the call."""
    if run is not None:
        run.flush(120)
        time.sleep(0.3)


def tight(subject: str, folder: Path, steps: int, store: str = "") -> dict[str, Any]:
    """The call alone, ``steps`` times without a pause."""
    from benchmarks import cpu, subjects, workload

    cpu.adopt()
    log, close, run = subjects.make(subject, folder, store)
    losses = workload.ready_losses()
    values = list(losses.values())
    clock = time.perf_counter
    calls, floor = [], []
    for step in range(WARM_UP):
        log(losses, step)
    settle(run)
    before = cpu.tree()
    began = clock()
    for step in range(WARM_UP, WARM_UP + steps):
        start = clock()
        log(losses, step)
        calls.append(clock() - start)
        if step % 4 == 0:
            start = clock()
            [value.item() for value in values]
            floor.append(clock() - start)
    wall = clock() - began
    start = clock()
    close()
    ending = clock() - start
    found = {"calls": spread(calls), "floor": spread(floor), "wall_us": 1e6 * wall / steps, "close_s": ending}
    if run is not None:
        found["stats"] = run.stats
        found["lanes"] = lanes(run.stats)
    cpu.reap()
    found["cpu_s_per_10k"] = (cpu.tree() - before) / steps * 10_000
    return found


def lanes(stats: dict[str, Any]) -> dict[str, float]:
    """CPU microseconds of each lane's own thread per record of the run (one that only shows is handed few)."""
    return {name: 1e6 * each["cpu"] / max(stats["records"], 1) for name, each in stats["lanes"].items()}


def loop(
    subject: str, folder: Path, size: int, seconds: float, pairs: int, store: str = "", detector: str = ""
) -> dict[str, Any]:
    """Training steps in blocks with and without logging, in the order on off off on...

    Args:
        subject: who logs.
        folder: where it may write.
        size: of the images.
        seconds: of a block.
        pairs: blocks of each kind.
        store: a new MLflow file.
        detector: a device: train a small Mask R-CNN there instead of the conv net.
    """
    from benchmarks import cpu, subjects, workload

    log, close, run = subjects.make(subject, folder, store)
    train = workload.Detector(size, detector) if detector else workload.Step(size)
    waits = detector.startswith("cuda")  # `.item()` would wait for the device: left out there
    clock = time.perf_counter
    calls: list[float] = []
    floor: list[float] = []
    logged = 0

    def block(on: bool) -> tuple[float, float, float]:
        """(mean step, median step, CPU of other threads per step), in us."""
        nonlocal logged
        times = []
        others = cpu.others()
        began = last = clock()
        while last - began < seconds:
            losses = train()
            if not waits:  # in both kinds of block: the floor of the call's time
                start = clock()
                [value.item() for value in losses.values()]
                floor.append(clock() - start)
            if on:
                start = clock()
                log(losses, logged)
                calls.append(clock() - start)
                logged += 1
            now = clock()
            times.append(now - last)
            last = now
        wall = last - began
        time.sleep(0.5)  # what the block caused is done, and counts for it
        others = cpu.others() - others
        return 1e6 * wall / len(times), 1e6 * statistics.median(times), 1e6 * others / len(times)

    for _ in range(3 if detector else 20):
        block_losses = train()
        for _ in range(5):
            log(block_losses, logged)
            logged += 1
    settle(run)
    block(True)
    calls.clear()
    floor.clear()
    added, added_median, others_on, off = [], [], [], []
    for pair in range(pairs):
        order = (True, False) if pair % 2 == 0 else (False, True)
        found = {on: block(on) for on in order}
        added.append(found[True][0] / found[False][0] - 1)
        added_median.append(found[True][1] / found[False][1] - 1)
        others_on.append(max(found[True][2] - found[False][2], 0.0))
        off.append(found[False][1])
    result = {
        "step_us": statistics.median(off), "added": added, "added_median": added_median,
        "calls": spread(calls), "floor": spread(floor or [0.0]), "others_us": statistics.median(others_on),
        "others_min_us": min(others_on),
    }  # fmt: skip
    start = clock()
    close()
    result["close_s"] = clock() - start
    if run is not None:
        result["lanes"] = lanes(run.stats)
    return result


def ops(subject: str, folder: Path, backlog: int, rounds: int, store: str = "") -> dict[str, Any]:
    """A hundred small ops while there is a backlog and while there is none, in turns."""
    import torch

    from benchmarks import subjects, workload

    log, close, run = subjects.make(subject, folder, store)
    losses = workload.ready_losses()
    tensor = torch.rand(1000)
    idle: list[float] = []
    busy: list[float] = []
    logged = 0
    for _ in range(rounds):
        for _ in range(backlog):
            log(losses, logged)
            logged += 1
        fresh: list[float] = []
        while behind(run, logged) and len(fresh) < 100_000:
            fresh += [workload.small_ops(tensor) for _ in range(20)]
        busy += fresh
        settle(run)
        idle += [workload.small_ops(tensor) for _ in range(max(len(fresh), 100))]
    close()
    return {"idle": spread(idle), "busy": spread(busy), "count": len(busy)}


def behind(run: Any, logged: int) -> bool:
    """Whether the drain or a plugin in this process has not had all that was logged."""
    stats = run.stats
    near = [stats["lanes"][name] for name in run._recorder.delivery.lanes]
    return stats["records"] < logged or any(each["offset"] < stats["journal_bytes"] for each in near)


def memory(subject: str, folder: Path, steps: int, store: str = "") -> dict[str, Any]:
    """Resident memory over the steps: of this process and of the follower."""
    from benchmarks import cpu, subjects, workload

    log, close, run = subjects.make(subject, folder, store)
    losses = workload.ready_losses()
    pid = run.stats["follower"]["pid"] if run.stats["follower"] else None
    rows = []
    for step in range(steps + 1):
        if step % max(steps // 50, 1) == 0:
            settle(run)
            rows.append((step, cpu.resident() / 1024, cpu.resident(pid) / 1024 if pid else 0.0))
        elif step % 2000 == 0:
            run.flush(120)
        log(losses, step)
    close()
    late = rows[len(rows) // 2 :]
    names = ("training_kB", "follower_kB")
    found: dict[str, Any] = {"steps": steps, "dropped": run.stats["dropped"]}
    for index, name in enumerate(names, 1):
        slope, _ = statistics.linear_regression([row[0] for row in late], [row[index] for row in late])
        found[name] = {"first": rows[1][index], "half": late[0][index], "last": rows[-1][index], "per_1k": 1000 * slope}
    return found


def imports(subject: str, folder: Path) -> dict[str, Any]:
    """Milliseconds that an import takes in a fresh interpreter."""
    code = (
        f"import time; t = time.perf_counter(); import {subject}; t = time.perf_counter() - t; import sys, json; "
        "print(json.dumps([t, [m for m in ('torch', 'numpy') if m in sys.modules]]))"
    )
    rows = []
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    for _ in range(4):  # the first may compile, for all that come later
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=180
        )
        if done.returncode:
            return {"absent": done.stderr.strip().splitlines()[-1]}
        rows.append(json.loads(done.stdout.strip().splitlines()[-1]))
    return {"ms": 1e3 * min(row[0] for row in rows), "pulls_in": rows[0][1]}


def journal(subject: str, folder: Path, records: int) -> dict[str, Any]:
    """Writing a record, its bytes, reading it, and replaying it into TensorBoard."""
    import losslog
    from benchmarks import cpu, workload
    from losslog.journal.file import Writer
    from losslog.journal.lines import read
    from losslog.journal.tail import Tail
    from losslog.recording.drain import Drain
    from losslog.recording.intake import Queue
    from losslog.recording.items import Batch
    from losslog.values.snapshot import snapshot

    writer = Writer(folder)
    drain = Drain(Queue(), writer, Tail(writer.path, own=True))
    drain.pace.active = False
    now = time.time()
    batches = []
    for step in range(records):
        if step % 50 == 0:
            losses = workload.ready_losses()
        keys, values = snapshot(losses)
        batches.append(Batch(now + step, step, 1, keys, values, False, workload.LR, None, 1))
    writing = []
    for start in range(0, records, 200):
        began = time.thread_time()
        drain.take(batches[start : start + 200])
        writing.append((time.thread_time() - began) / 200)
    writer.close()
    path = folder / "journal.jsonl"
    reading, parsing = [], []
    lines = path.read_bytes().splitlines()
    for _ in range(5):
        began = time.thread_time()
        count = sum(1 for _ in read(path))
        reading.append((time.thread_time() - began) / count)
        began = time.thread_time()
        for line in lines:
            json.loads(line)
        parsing.append((time.thread_time() - began) / count)
    run = losslog.Run("replayed", dir=folder / "runs", plugins=[], config={})
    for step in range(records):
        run.log_batch(losses, lr=workload.LR)
        if step % 2000 == 1999:
            run.flush(60)
    run.close()
    before, began = cpu.tree(), time.perf_counter()
    command = [sys.executable, "-m", "losslog", "replay", str(run.dir), "--to", "tensorboard"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    wall = time.perf_counter() - began
    return {
        "write_us": 1e6 * statistics.median(writing), "bytes": path.stat().st_size / records,
        "read_us": 1e6 * min(reading), "json_loads_us": 1e6 * min(parsing), "records": records,
        "replay_s": wall, "replay_cpu_s": cpu.tree() - before, "replay_ok": done.returncode == 0,
    }  # fmt: skip
