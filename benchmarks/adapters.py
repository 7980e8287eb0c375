"""What an adapter adds to a step, beside the framework's own logger: ``python -m benchmarks.adapters``.

A small module with five losses is fitted by each framework alone, with losslog's adapter, and with its TensorBoard
logger at every step, where it has one that needs nothing else. Lightning does it twice: in a loop that logs nothing, to
which its logger is added with the calls of ``self.log`` that it needs, and in one that calls it already. Each round
fits in each way, in shuffled order; what a way adds is the CPU time of the training thread a step less that of the
framework alone: of the quickest tenth of steps, the least of all rounds. Microseconds. Needs the environment of ``make
frameworks``, and tensorboard. Writes its table into docs/performance.md.
"""

from __future__ import annotations

import argparse
import functools
import logging
import random
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import harness, tables
from benchmarks.adapted import WARM, accelerate, fastai, ignite, keras, mmengine, net, quickest

PAGE = harness.ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- adapters: begin -->", "<!-- adapters: end -->"
GOAL = 0.1


def lightning(folder: str, steps: int, *, logs: bool = False) -> dict[str, Callable[[], float]]:
    """Ways to fit with Lightning; each gives seconds a step."""
    import lightning.pytorch as pl
    import torch
    from lightning.pytorch.loggers import TensorBoardLogger

    from losslog.compat.lightning import LosslogCallback

    class Module(pl.LightningModule):
        def __init__(self, logs: bool) -> None:
            super().__init__()
            self.net, self.logs = net(), logs

        def training_step(self, batch: Any, index: int) -> Any:
            losses = self.net(batch)
            if self.logs:
                self.log_dict(losses)
            return sum(losses.values())

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=1e-4)

    class Clock(pl.Callback):
        def __init__(self) -> None:
            self.times: list[float] = []

        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
            self.times.append(time.thread_time())

    def fit(callbacks: list[Any], logger: Any, logs: bool = logs) -> float:
        clock = Clock()
        pl.Trainer(
            max_epochs=1, accelerator="cpu", logger=logger, callbacks=[clock, *callbacks], log_every_n_steps=1,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        ).fit(Module(logs), torch.utils.data.DataLoader(torch.ones(8 * (steps + WARM), 64), 8))  # fmt: skip
        return quickest(clock.times)

    return {
        "bare": lambda: fit([], False),
        "losslog": lambda: fit([LosslogCallback(name="bench", dir=folder, plugins=None)], False),
        "own": lambda: fit([], TensorBoardLogger(folder), True),
    }


def transformers(folder: str, steps: int) -> dict[str, Callable[[], float]]:
    """The same with transformers."""
    import torch
    from transformers import Trainer, TrainerCallback, TrainingArguments
    from transformers.integrations import TensorBoardCallback

    from losslog.compat.transformers import LosslogCallback

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net()

        def forward(self, x: torch.Tensor) -> dict[str, Any]:
            losses = self.net(x)
            return {"loss": sum(losses.values()), "loss_dict": losses}

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.times: list[float] = []

        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.times.append(time.thread_time())

    data = [{"x": torch.ones(64)} for _ in range(8 * (steps + WARM))]

    def fit(callbacks: list[Any], every: int) -> float:
        clock = Clock()
        args = TrainingArguments(
            folder, num_train_epochs=1, per_device_train_batch_size=8, logging_steps=every, save_strategy="no",
            report_to=[], use_cpu=True, disable_tqdm=True,
        )  # fmt: skip
        found = Trainer(model=Model(), args=args, train_dataset=data, callbacks=[clock, *callbacks])
        found.train()
        return quickest(clock.times)

    return {
        "bare": lambda: fit([], 10**9),
        "losslog": lambda: fit([LosslogCallback(name="bench", dir=folder, plugins=None)], 10**9),
        "own": lambda: fit([TensorBoardCallback()], 1),
    }


WAYS: dict[str, Callable[[str, int], dict[str, Callable[[], float]]]] = {
    "Lightning, the loop logs nothing": lightning,
    "Lightning, `self.log_dict` is there": functools.partial(lightning, logs=True),
    "transformers": transformers,
    "ignite": ignite,
    "accelerate": accelerate,
    "mmengine": mmengine,
    "keras": keras,
    "fastai": fastai,
}


def measure(ways: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Microseconds: a bare step, and what each other way adds."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        order = list(ways)
        random.shuffle(order)
        for name in order:
            found[name].append(1e6 * ways[name]())
    least = {name: min(each) for name, each in found.items()}
    return {"bare": least["bare"], **{name: least[name] - least["bare"] for name in ways if name != "bare"}}


def main() -> None:
    """Measure, print, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--only", help="parts of names of frameworks")
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    for name in ("lightning.pytorch", "losslog"):
        logging.getLogger(name).setLevel(logging.ERROR)
    import torch

    torch.set_num_threads(1)
    rows = []
    for name, make in WAYS.items():
        if options.only and not any(each in name for each in options.only.split(",")):
            continue
        with tempfile.TemporaryDirectory() as folder:
            found = measure(make(folder, options.steps), options.rounds)
        share = found["losslog"] / found["own"] if found.get("own", 0) > 0 else None  # the machine was too busy
        own = tables.number(found["own"]) if "own" in found else "-"
        rows.append([name, tables.number(found["bare"]), tables.number(found["losslog"]), own,
                     "-" if share is None else f"{share:.2f}",
                     "-" if share is None else "reached" if share <= GOAL else "**not reached**"])  # fmt: skip
        print(rows[-1], flush=True)
    head = ["framework", "a bare step, us", "losslog's adapter adds, us", "its TensorBoard logger adds, us", "share",
            f"goal: {GOAL:g}"]  # fmt: skip
    text = tables.table(head, rows)
    print(text)
    tables.renew(options.page, text, BEGIN, END)


if __name__ == "__main__":
    main()
