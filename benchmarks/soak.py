"""A long run: is memory flat, is the cost of a step flat, is everything there at the end?

    python benchmarks/soak.py     # 1,000,000 steps of 0.3 ms, console, TensorBoard and the journal
    python benchmarks/soak.py --steps 100000 --plugins console,tensorboard,mlflow,wandb,plateau

It prints a line per tenth of the run and ends with exit code 1 where memory or cost grew, or where data is missing.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import sqlite3
import sys
import tempfile
import time
from pathlib import Path

import psutil

import losslog
from losslog.journal.folder import JOURNAL
from losslog.journal.lines import read

COMPONENTS = ("loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg")
TOTAL = "batch/train_total"
PARTS = 10


def megabytes(pid: int) -> float:
    """Resident memory of a process, 0 where it is gone."""
    try:
        return psutil.Process(pid).memory_info().rss / 2**20
    except psutil.NoSuchProcess:
        return 0.0


def soak(options: argparse.Namespace, folder: str) -> list[str]:
    """Train; what is wrong, in words."""
    rng, trouble, rows = random.Random(0), [], []
    run = losslog.Run("soak", dir=folder, plugins=options.plugins.split(","), options={})
    follower = (run.stats["follower"] or {}).get("pid", 0)
    losses = dict.fromkeys(COMPONENTS, 1.0)
    length = max(options.steps // PARTS, 1)
    for _ in range(PARTS):
        began, inside = time.perf_counter(), 0.0
        for _step in range(length):
            for name in COMPONENTS:
                losses[name] = rng.random()
            before = time.perf_counter()
            run.log_batch(losses, lr=0.1)
            inside += time.perf_counter() - before
            if options.pause:
                time.sleep(options.pause)
        run.end_epoch()
        stats = run.stats
        row = {
            "steps": stats["steps"],
            "us_per_step": round(1e6 * inside / length, 2),
            "steps_per_s": round(length / (time.perf_counter() - began)),
            "memory_mb": round(megabytes(os.getpid()), 1),
            "follower_mb": round(megabytes(follower), 1) if follower else None,
            "dropped": stats["dropped"],
            "behind": max((lane["behind"] for lane in stats["lanes"].values()), default=0),
        }
        rows.append(row)
        print(json.dumps(row), file=sys.stderr, flush=True)
    closing = time.perf_counter()
    run.close(timeout=options.timeout)
    print(f"closed in {time.perf_counter() - closing:.1f} s", file=sys.stderr)
    early, late = rows[1], rows[-1]
    if late["memory_mb"] > early["memory_mb"] * 1.2 + 20:
        trouble.append(f"memory grew from {early['memory_mb']} to {late['memory_mb']} MB")
    if follower and early["follower_mb"] and late["follower_mb"] > early["follower_mb"] * 1.5 + 50:
        trouble.append(f"the follower's memory grew from {early['follower_mb']} to {late['follower_mb']} MB")
    if late["us_per_step"] > early["us_per_step"] * 2 + 5:
        trouble.append(f"a step's cost grew from {early['us_per_step']} to {late['us_per_step']} us")
    expected = PARTS * length
    steps = [each.data["step"] for _, each in read(run.dir / JOURNAL) if each and each.hook == "on_batch_losses"]
    if len(steps) + run.stats["dropped"] != expected:
        trouble.append(f"{expected - len(steps)} batches are missing, {run.stats['dropped']} were said to be dropped")
    if run.stats["dropped"]:
        trouble.append(f"{run.stats['dropped']} batches were dropped: the loop is faster than the drain (--pause)")
    for name in options.plugins.split(","):
        held = BACKENDS[name](run.dir) if name in BACKENDS else steps
        if sorted(held) != steps:
            trouble.append(f"{name} holds {len(held)} batches, {len(set(held))} of the {len(steps)} steps")
    trouble += [f"{name}: {lane['behind']} undelivered" for name, lane in run.stats["lanes"].items() if lane["behind"]]
    return trouble


def in_tensorboard(folder: Path) -> list[int]:
    """Steps of the batch totals in the event files."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    found = []
    for path in sorted((folder / "tensorboard" / "batch").glob("*tfevents*")):
        for event in EventFileLoader(str(path)).Load():
            found += [event.step for value in event.summary.value if value.tag == TOTAL]
    return found


def in_mlflow(folder: Path) -> list[int]:
    """The same in MLflow's local database."""
    with contextlib.closing(sqlite3.connect(folder.parent / "mlflow.db")) as database:
        return [step for (step,) in database.execute("SELECT step FROM metrics WHERE key = ?", (TOTAL,))]


def in_wandb(folder: Path) -> list[int]:
    """The same in W&B's offline files."""
    from losslog_wandb.localfiles import LocalFile
    from wandb.proto import wandb_internal_pb2

    found = []
    for path in sorted((folder / "wandb").glob("*run-*/*.wandb")):
        for payload in LocalFile(path)._payloads():
            items = wandb_internal_pb2.Record.FromString(payload).history.item  # type: ignore[attr-defined]
            row = {item.key or ".".join(item.nested_key): item.value_json for item in items}
            if TOTAL in row:
                found.append(int(float(row["batch/global_step"])))
    return found


BACKENDS = {"tensorboard": in_tensorboard, "mlflow": in_mlflow, "wandb": in_wandb}


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description="A long run.")
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--plugins", default="console,tensorboard")
    parser.add_argument("--pause", type=float, default=0.0003, help="seconds of training a step")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds that close may take")
    parser.add_argument("--dir", help="where the run lies; by default in a temporary folder that is removed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        trouble = soak(options, options.dir or temporary)
    for line in trouble:
        print(f"soak: {line}", file=sys.stderr)
    print("soak: " + ("failed" if trouble else "memory flat, cost flat, data complete"), file=sys.stderr)
    return 1 if trouble else 0


if __name__ == "__main__":
    sys.exit(main())
