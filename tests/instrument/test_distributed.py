"""Two processes with gloo (DDP, FSDP2), and compiled autograd: what is recorded of them, against what they did."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]

START = """
import json, os, sys, torch, losslog
from torch import nn
torch.set_num_threads(1)
torch.manual_seed(0)
RANK, WORLD = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
if WORLD > 1:
    torch.distributed.init_process_group("gloo")

class Net(nn.Module):
    def __init__(self, named):
        super().__init__()
        self.linear, self.named = nn.Linear(4, 2), named

    def forward(self, x):
        a, b = self.linear(x).square().mean(0).unbind()
        return {"loss_a": a, "loss_b": b} if self.named else a + b

def mean(values):
    found = torch.tensor(values, dtype=torch.float64)
    if WORLD > 1:
        torch.distributed.all_reduce(found)
    return (found / WORLD).tolist()

def train(model, named, backward=lambda total: total.backward()):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    run = losslog.attach(model, optimizer, name="t", dir="runs", plugins=None)
    torch.manual_seed(1 + RANK)
    truth = []
    for _ in range(6):
        out = model(torch.randn(8, 4))
        total = 2 * out["loss_a"] + out["loss_b"] if named else out
        optimizer.zero_grad()
        backward(total)
        optimizer.step()
        truth.append(mean([float(total), *map(float, out.values() if named else ())]))
    run.close()
    if not RANK:
        json.dump(truth, open("truth.json", "w"))

NAMED = sys.argv[1] == "dict"
"""
END = """
if WORLD > 1:
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
"""
DDP = START + "train(nn.parallel.DistributedDataParallel(Net(NAMED)), NAMED)" + END
FSDP = (
    START
    + """
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
try:
    net = fully_shard(Net(NAMED), mesh=init_device_mesh("cpu", (WORLD,)))
    net(torch.ones(8, 4))
except (RuntimeError, NotImplementedError, AssertionError, ValueError) as error:
    print("CANNOT", type(error).__name__, str(error)[:200])
    sys.stdout.flush()
    os._exit(0)
train(net, NAMED)
"""
    + END
)
VALIDATED = (
    START
    + """
net = nn.parallel.DistributedDataParallel(Net(NAMED))
optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
run, truth = losslog.attach(net, optimizer, name="t", dir="runs", plugins=None), []
data = torch.utils.data.DataLoader(torch.randn(16, 4), 4)
other = torch.utils.data.DataLoader(torch.randn(16, 4)[RANK::WORLD], 4)
for _ in range(3):
    for x in data:
        out = net(x)
        optimizer.zero_grad()
        (sum(out.values()) if NAMED else out).backward()
        optimizer.step()
    with torch.no_grad():
        found = [net.module(x) for x in other]
    lists = [[float(each) for each in (out.values() if NAMED else [out])] for out in found]
    truth.append(mean([sum(several) / len(several) for several in zip(*lists)]))
run.close()
if not RANK:
    json.dump(truth, open("truth.json", "w"))
"""
    + END
)
COMPILED = (
    START
    + """
from torch._dynamo import compiled_autograd
def backward(total):
    with compiled_autograd._enable(torch.compile(backend="eager")):
        total.backward()
train(Net(NAMED), NAMED, backward)
"""
)


def _start(script: str, shape: str, folder: Path, world: int) -> str:
    """Run it in so many processes; gives what they said."""
    (folder / "train.py").write_text(script)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    begun = []
    for rank in range(world):
        place = {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank)} if world > 1 else {}
        environment = {**os.environ, **place, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        begun.append(
            subprocess.Popen(
                [sys.executable, "train.py", shape],
                cwd=folder,
                env=environment,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        )
    said = [each.communicate(timeout=240)[0] for each in begun]
    assert all(each.returncode == 0 for each in begun), "\n".join(said)[-3000:]
    return "\n".join(said)


def _recorded(folder: Path, hook: str = "on_batch_losses") -> list[dict]:
    (journal,) = folder.glob("runs/*/*/journal.jsonl")
    records = [json.loads(line) for line in journal.read_text().splitlines()]
    return [each["data"] for each in records if each["hook"] == hook]


def _is_true(folder: Path, shape: str, *, weights: bool = True) -> None:
    """Each step's total and components are the means over the processes of what was optimised."""
    truth, steps = json.loads((folder / "truth.json").read_text()), _recorded(folder)
    assert len(steps) == len(truth) == 6
    for step, (total, *parts) in zip(steps, truth, strict=True):
        assert step["total"] == pytest.approx(total, rel=1e-5)
        if shape == "dict":
            assert step["losses"] == pytest.approx(dict(zip(("loss_a", "loss_b"), parts, strict=True)), rel=1e-5)
            if weights:
                assert step["weights"] == pytest.approx({"loss_a": 2.0})


@pytest.fixture
def gloo() -> None:
    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        pytest.skip("this torch has no torch.distributed with gloo")


@pytest.mark.parametrize("shape", ["scalar", "dict"])
def test_ddp_in_two_processes(gloo: None, shape: str, tmp_path: Path) -> None:
    said = _start(DDP, shape, tmp_path, 2)
    _is_true(tmp_path, shape)
    assert "Traceback" not in said
    assert "in no record" not in said


@pytest.mark.parametrize("shape", ["scalar", "dict"])
def test_validation_losses_are_means_over_the_processes(gloo: None, shape: str, tmp_path: Path) -> None:
    _start(VALIDATED, shape, tmp_path, 2)
    truth = json.loads((tmp_path / "truth.json").read_text())
    found = [each["val_loss"] for each in _recorded(tmp_path, "on_epoch_end")]
    assert [[*each.values()] if shape == "dict" else [each] for each in found] == [
        pytest.approx(each) for each in truth
    ]


@pytest.mark.parametrize("shape", ["scalar", "dict"])
def test_fsdp2_in_two_processes(gloo: None, shape: str, tmp_path: Path) -> None:
    pytest.importorskip("torch.distributed.fsdp", reason="this torch has no FSDP")
    if not hasattr(torch.distributed.fsdp, "fully_shard"):
        pytest.skip("this torch has no fully_shard (FSDP2)")
    said = _start(FSDP, shape, tmp_path, 2)
    if "CANNOT" in said:
        pytest.skip(f"FSDP2 does not run on this torch's CPU: {said[said.index('CANNOT') :][:200]}")
    _is_true(tmp_path, shape)
    assert "Traceback" not in said


@pytest.mark.parametrize("shape", ["scalar", "dict"])
def test_compiled_autograd(shape: str, tmp_path: Path) -> None:
    pytest.importorskip("torch._dynamo.compiled_autograd", reason="this torch has no compiled autograd")
    said = _start(COMPILED, shape, tmp_path, 1)
    _is_true(tmp_path, shape)
    assert "Traceback" not in said
