"""What is run: the variants of each measure, at three sizes.

Contract:

- A measure that is left out (``--only``) leaves its rows out, and nothing else changes.
- What is dear to set up (an MLflow file, the size of the training step) is set up once and handed to all children.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.harness import ROOT, Request
from benchmarks.subjects import FIVE, OPTIONAL

MEASURES = ("call", "loop", "detector", "ops", "memory", "imports", "journal")
OURS = ("losslog:", *(f"losslog:{name}" for name in FIVE), f"losslog:{','.join(FIVE)}")
ALL = f"losslog:{','.join(FIVE)}"
ALL_NEAR = f"losslog:!{','.join(FIVE)}"
NEAR = "losslog:console,plateau"
LOCAL = "losslog:console,tensorboard,plateau"
WRITER = "tensorboard.summary.writer.event_file_writer"
IMPORTS = ("losslog", "losslog.run", "pluggy", "torch", WRITER, "wandb", "mlflow")
SLOW = {"mlflow": 10, "four inline": 10}  # so many times fewer steps: milliseconds each


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    Attributes:
        repeats: fresh processes of each variant.
        steps: steps of the call alone.
        seconds: of a block of the loop.
        pairs: blocks with and without logging in a process.
        memory: steps of the memory measure.
        records: of the journal measure.
        backlog: records that lanes work off beside the small ops.
    """

    repeats: int
    steps: int
    seconds: float
    pairs: int
    memory: int
    records: int
    backlog: int


SCALES = {
    "quick": Scale(1, 2_000, 0.5, 1, 10_000, 5_000, 2_000),
    "default": Scale(1, 10_000, 1.5, 3, 60_000, 20_000, 4_000),
    "full": Scale(5, 10_000, 2.0, 6, 1_000_000, 100_000, 10_000),
}


def prepare(folder: Path, measures: list[str]) -> dict[str, Any]:
    """What all children share: a new MLflow file, the sizes of the training steps, and words on the machine."""
    setting: dict[str, Any] = {"machine": machine(), "store": "", "short": {}, "long": {}, "cuda": False}
    if "detector" in measures:
        code = "import torch; print(torch.cuda.is_available())"
        said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        setting["cuda"] = said.stdout.split()[-1] == "True"
    if {"call", "loop", "detector"} & set(measures) and find_spec("mlflow"):
        store = folder / "new.db"
        code = f"from mlflow import MlflowClient as C; C('sqlite:///{store}').search_experiments(max_results=1)"
        if subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=300).returncode == 0:
            setting["store"] = str(store)
    if "loop" in measures:
        for name, target in (("short", 1e-3), ("long", 20e-3)):
            code = (
                "import json, torch; torch.set_num_threads(1); from benchmarks.workload import calibrate; "
                f"print(json.dumps(calibrate({target})))"
            )
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
            setting[name] = json.loads(done.stdout.splitlines()[-1])
    return setting


def machine() -> str:
    """What it ran on, in words."""

    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "tensorboard", "wandb", "mlflow")
                         if find_spec(name))  # fmt: skip
    return f"{os.cpu_count()} CPU cores ({platform.machine()}), {platform.system()}, Python " \
           f"{platform.python_version()}, {packages}"  # fmt: skip


def requests(scale: Scale, setting: dict[str, Any], measures: list[str]) -> list[Request]:
    """All variants of these measures."""
    store = setting["store"]
    found: list[Request] = []
    peers = ["SummaryWriter", "wandb", "mlflow", "MetricLogger", "four inline"]
    peers += [name for name, module in OPTIONAL.items() if find_spec(module)]
    if "call" in measures:
        for subject in (*OURS, LOCAL, *peers):
            steps = scale.steps // SLOW.get(subject, 1)
            found.append({"measure": "tight", "subject": subject, "steps": steps, "store": store})
    if "loop" in measures:
        common = {"measure": "loop", "seconds": scale.seconds, "pairs": scale.pairs, "store": store}
        short, long = setting["short"]["size"], setting["long"]["size"]
        subjects = ("losslog:", NEAR, "losslog:tensorboard", "losslog:!tensorboard", ALL, ALL_NEAR, "losslog:burner",
                    "losslog:!burner", "SummaryWriter", "wandb", "four inline")  # fmt: skip
        few = min(scale.repeats, 2)
        found += [common | {"subject": subject, "size": short, "repeats": few} for subject in subjects]
        found += [common | {"subject": ALL, "size": long, "repeats": few, "seconds": 2 * scale.seconds}]
    if "detector" in measures:
        detector = {"measure": "loop", "subject": ALL, "pairs": scale.pairs, "store": store, "repeats": 1}
        size = {"size": 512, "seconds": 10.0} if setting["cuda"] else {"size": 128, "seconds": 4 * scale.seconds}
        found.append(detector | size | {"detector": "cuda" if setting["cuda"] else "cpu"})
    if "ops" in measures:
        for subject in ("losslog:", NEAR, ALL):
            found.append({"measure": "ops", "subject": subject, "backlog": scale.backlog, "rounds": 5, "store": store,
                          "repeats": min(scale.repeats, 2)})  # fmt: skip
    if "memory" in measures:
        found.append({"measure": "memory", "subject": LOCAL, "steps": scale.memory, "repeats": 1})
    if "imports" in measures:
        found += [{"measure": "imports", "subject": subject, "repeats": 2} for subject in IMPORTS]
    if "journal" in measures:
        found.append({"measure": "journal", "subject": "losslog:", "records": scale.records, "repeats": 2})
    return found
