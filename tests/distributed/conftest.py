"""Real processes under torchrun, with gloo on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="several ranks need torch")

PREAMBLE = """
import json, os, sys, time
import torch, torch.distributed as dist
import losslog
counted = []
for name in ("all_reduce", "reduce", "broadcast", "all_gather", "gather", "scatter", "barrier", "all_gather_object",
             "broadcast_object_list", "reduce_scatter", "all_to_all", "gather_object"):
    def wrapped(*args, _call=getattr(dist, name), _name=name, **kwargs):
        counted.append(_name)
        return _call(*args, **kwargs)
    setattr(dist, name, wrapped)
out = sys.argv[1]
def tell(**what):
    with open(f"{out}/told-{os.environ['RANK']}.json", "w") as file:
        json.dump(what, file)
"""


class Launched:
    """What a launch left behind."""

    def __init__(self, folder: Path, output: str) -> None:
        self.folder = folder
        self.output = output

    def told(self, rank: int) -> dict[str, Any]:
        return json.loads((self.folder / f"told-{rank}.json").read_text())

    def journals(self) -> list[Path]:
        return sorted(self.folder.glob("runs/*/*/journal.jsonl"))

    def records(self, hook: str, name: str = "*") -> list[dict[str, Any]]:
        (journal,) = self.folder.glob(f"runs/{name}/*/journal.jsonl")
        lines = [json.loads(line) for line in journal.read_text().splitlines()]
        return [line["data"] for line in lines if line["hook"] == hook]


def start(folder: Path, body: str, ranks: int = 2, options: tuple[str, ...] = (), **variables: str) -> Launched:
    """Run a script's text on several ranks, with options of torchrun and environment variables."""
    script = folder / "script.py"
    script.write_text(PREAMBLE + body)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "LOSSLOG_PLUGINS": "", **variables}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", *options]
    command = [*launcher, str(script), str(folder)]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return Launched(folder, done.stdout + done.stderr)


@pytest.fixture
def launch(tmp_path: Path) -> Callable[..., Launched]:
    """Run a script's text on several ranks."""
    return partial(start, tmp_path)


@pytest.fixture(scope="session")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Launched:
    """Two ranks with unlike keys and unlike numbers of batches; the group is destroyed before the run is closed."""
    return start(
        tmp_path_factory.mktemp("uneven"),
        """
dist.init_process_group("gloo")
rank = dist.get_rank()
run = losslog.Run("uneven", dir=out + "/runs", plugins=None)
before = len(counted)
for i in range(20 if rank == 0 else 30):
    run.log_batch({"a": 1.0 if rank == 0 else 3.0, **({"only": 5.0} if rank == 1 else {})})
run.end_epoch()
for i in range(5):
    run.log_batch({"a": float("nan") if rank == 1 and i == 3 else 1.0 + rank})
run.end_epoch()
dist.destroy_process_group()
run.close()
tell(collectives=counted[before:])
""",
    )
