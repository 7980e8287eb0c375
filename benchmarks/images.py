"""What looking at images costs: an evaluation with and without it, and the steps beside the drawing.

    python benchmarks/images.py                 # the demo's data and model, CPU, one thread; some minutes
    python benchmarks/images.py --rounds 20

A small Mask R-CNN learns the demo's shapes for a while. Then rounds with and without take turns, in one process, on the
same weights: one evaluation, and steps right behind it, while the follower draws the sheets for TensorBoard. Printed:
medians of the thread's CPU time and of wall time, the ratio of both, and the steps' p50 and p99.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

import losslog
from losslog import engine
from losslog.detection import CocoDataset, HorizontalFlip, build_maskrcnn, collate, write_shapes


class Bare:
    """The evaluator alone, as it is where nobody looks at images."""

    def __init__(self, evaluator: Any) -> None:
        self.update, self.compute = evaluator.update, evaluator.compute


class Loop:
    """The demo's training, one step at a time."""

    def __init__(self, folder: Path) -> None:
        torch.manual_seed(0)
        train_set = CocoDataset(folder / "images", folder / "annotations_train.json", transform=HorizontalFlip())
        val_set = CocoDataset(folder / "images", folder / "annotations_val.json", categories=train_set.categories)
        self.loader = DataLoader(train_set, 4, shuffle=True, collate_fn=collate)
        self.val_loader = DataLoader(val_set, 8, collate_fn=collate)
        self.model = build_maskrcnn(train_set.categories.num_classes, "tiny")
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=2e-3)
        self.batches: Any = iter(())

    def step(self, run: losslog.Run) -> float:
        """One step; gives its seconds."""
        batch = next(self.batches, None)
        if batch is None:
            self.batches = iter(self.loader)
            batch = next(self.batches)
        began = time.perf_counter()
        self.model.train()
        losses = self.model(*batch)
        self.optimizer.zero_grad()
        sum(losses.values()).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self.optimizer.step()
        run.log_batch(losses, targets=batch[1])
        return time.perf_counter() - began

    def evaluate(self, run: losslog.Run, *, looks: bool) -> tuple[float, float]:
        """One evaluation; gives its CPU seconds and its seconds."""
        evaluator: Any = engine.validation.evaluator_of(self.val_loader)
        began, cpu = time.perf_counter(), time.thread_time()
        engine.evaluate(self.model, self.val_loader, "cpu", evaluator=evaluator if looks else Bare(evaluator), run=run)
        return time.thread_time() - cpu, time.perf_counter() - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="of each kind")
    parser.add_argument("--steps", type=int, default=15, help="behind each evaluation")
    parser.add_argument("--learn", type=int, default=100, help="steps before anything is measured")
    options = parser.parse_args()
    torch.set_num_threads(1)
    evaluations: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    steps: dict[bool, list[float]] = {True: [], False: []}
    with tempfile.TemporaryDirectory() as scratch:
        loop = Loop(write_shapes(Path(scratch) / "shapes", train=100, val=60))
        with losslog.Run("images", Path(scratch) / "runs", plugins="tensorboard") as run:
            for _ in range(options.learn):
                loop.step(run)
            for turn in range(2 * options.rounds + 2):
                looks = (turn + turn // 2) % 2 == 0  # with, without, without, with: neither is always the later
                found = loop.evaluate(run, looks=looks)
                times = [loop.step(run) for _ in range(options.steps)]
                if turn > 1:  # the first of each warms up
                    evaluations[looks].append(found)
                    steps[looks] += times
            run.end_epoch()
    for name, place in (("CPU", 0), ("wall", 1)):
        one, other = (statistics.median(each[place] for each in evaluations[looks]) for looks in (True, False))
        pairs = [a[place] / b[place] for a, b in zip(evaluations[True], evaluations[False], strict=True)]
        print(f"evaluation, {name:4}  with {one:.3f} s, without {other:.3f} s: {100 * (one / other - 1):+.1f} %"
              f" (median of pairs {100 * (statistics.median(pairs) - 1):+.1f} %)")  # fmt: skip
    for share in (50, 99):
        one, other = (statistics.quantiles(steps[looks], n=100)[share - 1] for looks in (True, False))
        print(
            f"step, p{share}  with {1e3 * one:.0f} ms, without {1e3 * other:.0f} ms: {100 * (one / other - 1):+.1f} %"
        )


if __name__ == "__main__":
    main()
