"""A script that goes on from a checkpoint of its own, under ``losslog run``: no step is lost, none is there twice."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from losslog.history import records
from losslog.journal.resuming import past
from losslog.run import Run

ROOT = Path(__file__).parents[2]
SCRIPT = """
import io, json, os, shutil, sys, torch
torch.manual_seed(0)
how, left = sys.argv[1], int(sys.argv[2])
net = torch.nn.Linear(4, 2)
optimizer = torch.optim.SGD(net.parameters(), 0.1)
loader = torch.utils.data.DataLoader(torch.randn(20, 4, generator=torch.Generator().manual_seed(1)), 4)
begun = at = 0
def save(epoch, at):
    state = {"net": net.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch, "at": at}
    if how == "renamed":
        torch.save(state, "last.tmp"); os.replace("last.tmp", "last.pt")
    elif how == "renamed later":
        torch.save(state, f"new-{epoch}.pt"); os.replace(f"new-{epoch}.pt", "last.pt")
    elif how == "copied":
        torch.save(state, f"{epoch}.pt"); shutil.copy(f"{epoch}.pt", "last.pt")
    elif how == "by hand":
        buffer = io.BytesIO(); torch.save(state, buffer); open("last.pt", "wb").write(buffer.getvalue())
    else:
        torch.save(state, "last.pt")
if os.path.exists("last.pt"):
    state = torch.load(io.BytesIO(open("last.pt", "rb").read()) if how == "by hand" else "last.pt")
    net.load_state_dict(state["net"]); optimizer.load_state_dict(state["optimizer"])
    begun, at = state["epoch"], state["at"]
done = []
for epoch in range(begun, 4):
    for place, x in enumerate(loader):
        if epoch == begun and place < at:
            continue
        optimizer.zero_grad()
        loss = net(x).pow(2).mean()
        loss.backward()
        optimizer.step()
        done.append((epoch + 1, loss.item()))
        if how == "amid" and place == 2:
            save(epoch, 3)
        if len(done) == left:
            if how == "amid" and place == 2: os._exit(1)
            sys.exit(1)
    if how != "amid":
        save(epoch + 1, 0)
json.dump(done, open("done.json", "w"))
"""


def run(folder, how, left, *options):
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "LOSSLOG_DIR": str(folder / "runs")}
    command = [sys.executable, "-m", "losslog", "run", "--plugins", ",", *options, "script.py", how, str(left)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, encoding="utf-8")
    return done.stderr


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("how", "left"),
    [("in place", 13), ("renamed", 13), ("renamed later", 13), ("copied", 10), ("amid", 10), ("amid", 13)],
)
def test_a_script_goes_on_from_its_own_checkpoint(tmp_path, how, left):
    (tmp_path / "script.py").write_text(SCRIPT)
    run(tmp_path, how, left, "--resume", "auto")
    said = run(tmp_path, how, -1, "--resume", "auto")
    (folder,) = (tmp_path / "runs" / "script").iterdir()
    batches = [each.data for each in records(folder, hooks=("on_batch_losses",))]
    assert [each["step"] for each in batches] == [*range(20)]
    assert [each["epoch"] for each in batches] == [1 + step // 5 for step in range(20)]
    ends = [each.data for each in records(folder, hooks=("on_epoch_end",))]
    assert [(each["epoch"], each["step"]) for each in ends] == [(1, 4), (2, 9), (3, 14), (4, 19)]
    for each in ends:  # also of the epoch that the resume was amid
        its = [batch["total"] for batch in batches if batch["epoch"] == each["epoch"]]
        assert each["total"] == pytest.approx(sum(its) / 5)
    done = json.loads((tmp_path / "done.json").read_text())
    assert [(each["epoch"], each["total"]) for each in batches[-len(done) :]] == [
        (epoch, pytest.approx(loss)) for epoch, loss in done
    ]
    assert "resuming" in said
    assert "twice" not in said


def test_what_cannot_be_known_is_said(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    run(tmp_path, "by hand", 13, "--resume", "auto")
    assert "no file that is known as a checkpoint" in run(tmp_path, "by hand", -1, "--resume", "auto")


@pytest.mark.parametrize(("how", "line"), [
    ("in place", "the script goes on from"), ("by hand", "the script has loaded an optimizer's state"),
])  # fmt: skip
def test_a_new_run_for_a_script_that_goes_on_is_said(tmp_path, how, line):
    (tmp_path / "script.py").write_text(SCRIPT)
    assert line not in run(tmp_path, how, 13)
    said = run(tmp_path, how, -1)
    assert line in said
    assert "losslog run --resume" in said
    assert len([*(tmp_path / "runs" / "script").iterdir()]) == 2


@pytest.mark.parametrize("options", [(), ("--resume", "auto")])
@pytest.mark.parametrize(("how", "line"), [
    ("in place", "which is finished: a new run begins"), ("by hand", "the script has loaded an optimizer's state"),
])  # fmt: skip
def test_a_script_that_goes_on_from_a_finished_run_is_told_so(tmp_path, how, line, options):
    (tmp_path / "script.py").write_text(SCRIPT.replace("range(begun, 4)", "range(begun, 2)"))
    run(tmp_path, how, -1)
    (folder,) = (tmp_path / "runs" / "script").iterdir()
    (tmp_path / "script.py").write_text(SCRIPT.replace("range(begun, 4)", "range(begun, 3)"))
    said = run(tmp_path, how, -1, *options)
    assert line in said
    assert ("no run of its name is unfinished" in said) == (how == "by hand" and options != ())
    assert (f"losslog run --resume {folder}" if how == "in place" else "losslog run --resume RUN") in said
    assert len([*(tmp_path / "runs" / "script").iterdir()]) == 2


PUT_BACK = """
import copy, pickle, sys, torch
kind, how = sys.argv[1:]
net = torch.nn.Linear(4, 2)
def make(): return getattr(torch.optim, kind)(net.parameters(), 0.1)
optimizer = make()
if how == "own":
    optimizer.load_state_dict(optimizer.state_dict())
elif how == "copied":
    net.load_state_dict(torch.load("weights.pt"))
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
elif how == "anew":
    first, optimizer = optimizer, make(); optimizer.load_state_dict(first.state_dict())
elif how == "pickled":
    optimizer.load_state_dict(pickle.load(open("earlier.pickle", "rb")))
else:
    optimizer.load_state_dict(torch.load("earlier.pt")["all"][0]["optimizer"])
for _ in range(3):
    optimizer.zero_grad(); net(torch.randn(2, 4)).pow(2).mean().backward(); optimizer.step()
"""


@pytest.mark.parametrize(("kind", "how"), [
    ("Adam", "own"), ("Adagrad", "own"), ("SGD", "copied"), ("Adam", "anew"), ("Adam", "pickled"), ("SGD", "file"),
])  # fmt: skip
def test_a_state_of_no_step_is_none_of_an_earlier_training(tmp_path, kind, how):
    (tmp_path / "script.py").write_text(PUT_BACK)
    net = torch.nn.Linear(4, 2)
    optimizer = getattr(torch.optim, kind)(net.parameters(), 0.1)
    torch.save(net.state_dict(), tmp_path / "weights.pt")
    net(torch.randn(2, 4)).sum().backward()
    optimizer.step()
    (tmp_path / "earlier.pickle").write_bytes(pickle.dumps(optimizer.state_dict()))
    torch.save({"best": 1.0, "all": [{"optimizer": optimizer.state_dict()}]}, tmp_path / "earlier.pt")
    said = run(tmp_path, kind, how)
    assert ("the script has loaded an optimizer's state" in said) == (how in ("pickled", "file"))


@pytest.mark.parametrize("more", [0, 2])
def test_a_run_of_ones_own_goes_on_amid_an_epoch(tmp_path, more):
    """From a checkpoint of epoch 2 after 3 steps of 5; the run was left at once, or 2 steps later."""
    with Run("own", tmp_path, plugins=None, epochs=2) as first:
        for _ in range(5):
            first.log_batch(1.0)
        first.end_epoch()
        for _ in range(3):
            first.log_batch(2.0)
        (first.dir / "last.pt").write_bytes(b"1")
        first.log_checkpoint(first.dir / "last.pt")
        for _ in range(more):
            first.log_batch(3.0)
    assert (past(first.dir).epoch, past(first.dir).step) == (1, 7)
    with Run("own", tmp_path, plugins=None, resume="auto", epochs=2) as again:
        for _ in range(2):
            again.log_batch(4.0)
        again.end_epoch()
    last = [each.data for each in records(first.dir, hooks=("on_epoch_end",))][-1]
    assert (last["epoch"], last["step"], last["losses"]) == (2, 9, pytest.approx(14 / 5))
