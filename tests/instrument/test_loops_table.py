"""The table of docs/existing-loops.md: each row is a loop that says itself what it optimised, under ``losslog run``.

Rows of frameworks run where the framework and ``../shared/frameworks`` are; the others anywhere.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "frameworks"
PAGE = ROOT / "docs" / "existing-loops.md"
ADAPTER = "the adapter, for the components"
START = """
import json, os, torch, torch.nn.functional as F
from torch import nn
torch.manual_seed(0)
T = []
def step(total, **losses): T.append({"total": float(total), "losses": {k: float(v) for k, v in losses.items()}})
class Net(nn.Module):
    def __init__(self): super().__init__(); self.a, self.b = nn.Linear(4, 2), nn.Linear(4, 2)
    def forward(self, x): return {"loss_a": self.a(x).pow(2).mean(), "loss_b": self.b(x).abs().mean()}
data = torch.utils.data.DataLoader(torch.randn(12, 4), 2)
"""
END = """
json.dump({"steps": T, "epochs": EPOCHS}, open(os.environ["TRUTH"], "w"))
"""


class Row(NamedTuple):
    """A loop, and what is seen of it: components, total, weights, epochs, steps."""

    loop: str
    script: str  # a file of the shared folder, or Python
    seen: tuple[str, str, str, str, str]
    helps: str = ""
    package: str = ""


ALL = ("yes", "yes", "yes", "yes", "yes")
TOTAL = ("no", "yes", "no", "yes", "yes")
PLAIN = """
EPOCHS, net = 2, Net()
optimizer = torch.optim.SGD(net.parameters(), 0.1)
for _ in range(2):
    for x in data:
        L = net(x); total = L["loss_a"] + {weight} * L["loss_b"]
        optimizer.zero_grad(); total.backward(); optimizer.step(); step(total, **L)
"""
FUNCTIONAL = """
EPOCHS, net = 2, nn.Linear(4, 3)
optimizer = torch.optim.SGD(net.parameters(), 0.1)
for _ in range(2):
    for x in data:
        loss = F.cross_entropy(net(x), torch.zeros(2, dtype=torch.long))
        optimizer.zero_grad(); loss.backward(); optimizer.step(); step(loss, loss=loss)
"""
CRITERION = FUNCTIONAL.replace("F.cross_entropy(", "nn.CrossEntropyLoss()(")
LISTS = PLAIN.replace("EPOCHS, net", "data = list(data); EPOCHS, net")
CYCLE = """
import itertools
EPOCHS, net = 2, Net()
optimizer = torch.optim.SGD(net.parameters(), 0.1)
for x in itertools.islice((torch.randn(2, 4) for _ in itertools.count()), 12):
    L = net(x); total = sum(L.values()); optimizer.zero_grad(); total.backward(); optimizer.step(); step(total, **L)
"""
FUNCTIONAL_PARTS = FUNCTIONAL.replace("loss=loss)", "part_a=loss / 2, part_b=loss / 2)")
ROWS = (
    Row("a dict of losses, summed", PLAIN.format(weight=1), ALL),
    Row("a dict of losses, weighted in the loop", PLAIN.format(weight=5), ALL),
    Row("`nn.CrossEntropyLoss` in the script", CRITERION, ALL),
    Row("`F.cross_entropy` in the script", FUNCTIONAL, ALL),
    Row("parts that no module returns", FUNCTIONAL_PARTS, TOTAL, "`run.log_batch(parts, total=loss)`"),
    Row("lists of batches", LISTS.format(weight=1), ALL),
    Row("a generator without an end", CYCLE, ("yes", "yes", "yes", "no", "yes"), "`steps_per_epoch=6`"),
    Row("DETR's engine: a criterion beside the model", "loop_detr_repo.py", ALL),
    Row("detectron2's loop, evaluated every N steps", "loop_d2spe.py", ALL),
    Row("a scalar loss in `DistributedDataParallel`", "loop_ddp_scalar.py", ALL),
    Row("accelerate", "loop_acc.py", ALL, package="accelerate"),
    Row("Lightning, a model that returns a dict", "loop_pl_dict.py", ALL, package="lightning"),
    Row("Lightning, losses in `training_step`", "loop_pl_functional.py", TOTAL, ADAPTER, "lightning"),
    Row("transformers `Trainer`, a language model", "loop_hf_lm.py", ALL, package="transformers"),
    Row("transformers `Trainer`, DETR with `loss_dict`", "loop_hf_detr.py", ALL, package="transformers"),
    Row("mmengine, epochs (mmdet's lists of losses)", "loop_mme.py", ALL, package="mmengine"),
    Row("mmengine, iterations", "loop_mm_iter.py", ALL, package="mmengine"),
    Row("ignite, `create_supervised_trainer`", "loop_ign_sup.py", ALL, package="ignite"),
    Row("timm", "loop_timm_loop.py", ALL, package="timm"),
    Row("ultralytics", "loop_yolo.py", TOTAL, ADAPTER, "ultralytics"),
    Row("keras on torch", "loop_ker.py", TOTAL, ADAPTER, "keras"),
)


def table() -> str:
    """The rows as Markdown."""
    lines = ["| loop | components | total | weights | epochs | steps | what helps |", "|---|---|---|---|---|---|---|"]
    lines += [f"| {row.loop} | {' | '.join(row.seen)} | {row.helps} |" for row in ROWS]
    return "\n".join(lines)


def test_the_page_has_the_table() -> None:
    assert table() in PAGE.read_text("utf-8")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.loop)
def test_a_row_is_what_is_seen(row: Row, tmp_path: Path) -> None:
    if row.package and importlib.util.find_spec(row.package) is None:
        pytest.skip(f"{row.package} is not installed")
    name = row.script
    if name.endswith(".py"):
        if not SHARED.exists():
            pytest.skip("needs ../shared/frameworks")
        for each in SHARED.glob("*.py"):
            (tmp_path / each.name).write_bytes(each.read_bytes())
    else:
        name = "train.py"
        (tmp_path / name).write_text(START + textwrap.dedent(row.script) + END)
    truth_file = tmp_path / "truth.json"
    environment = {**os.environ, "TRUTH": str(truth_file), "PYTHONPATH": str(ROOT), "KERAS_BACKEND": "torch"}
    done = subprocess.run(
        [sys.executable, "-m", "losslog", "run", "--plugins", ",", name],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    truth = json.loads(truth_file.read_text())
    (journal,) = tmp_path.glob("runs/*/*/journal.jsonl")
    records = [json.loads(line) for line in journal.read_text().splitlines()]
    assert seen(truth, records, running_means=row.package == "keras") == row.seen


def seen(truth: dict, records: list[dict], *, running_means: bool) -> tuple[str, ...]:
    """What the journal has of what a loop said itself."""
    batches = [each["data"] for each in records if each["hook"] == "on_batch_losses"]
    ends = sum(each["hook"] == "on_epoch_end" for each in records)
    components = total = weights = True
    for batch, step in zip(batches, truth["steps"], strict=False):
        losses = batch["losses"] if isinstance(batch["losses"], dict) else {"loss": batch["losses"]}
        expected = {n: v for n, v in step["losses"].items() if n not in ("<scalar>", "total")}
        whole = step.get("total")
        if "loss" in expected and (whole is None or len(expected) > 1):
            whole = expected.pop("loss")
        components &= all(name in losses and abs(losses[name] - v) < 1e-5 for name, v in expected.items())
        if whole is not None and not running_means:
            total &= abs(batch["total"] - whole) <= 1e-5 * max(abs(whole), 1e-9)
        explained = sum(batch.get("weights", {}).get(name, 1.0) * value for name, value in losses.items())
        weights &= components and abs(explained - batch["total"]) <= 1e-4 * abs(batch["total"])
    found = (components, total, weights, ends == truth["epochs"], len(batches) == len(truth["steps"]))
    return tuple("yes" if each else "no" for each in found)
