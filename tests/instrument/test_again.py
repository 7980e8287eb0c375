"""The same cell run again, folds, copies of a model, and loops in which nothing is trained."""

import copy
import subprocess
import sys
import textwrap
from contextlib import suppress

import pytest
import torch
from torch import nn


@pytest.fixture
def said(caplog):
    """The lines that were said."""
    caplog.set_level("INFO", "losslog")
    return lambda: [each.getMessage() for each in caplog.records]


def model_of(kind):
    torch.manual_seed(0)
    return nn.Linear(4, 2) if kind == "plain" else Cyclic()


class Cyclic(nn.Linear):
    """Holds itself."""

    def __init__(self):
        super().__init__(4, 2)
        self.hook = lambda: self


def steps(model, optimizer, count):
    for _ in range(count):
        optimizer.zero_grad()
        model(torch.randn(6, 4)).pow(2).mean().backward()
        optimizer.step()


@pytest.mark.parametrize("kind", ["plain", "cyclic"])
def test_a_cell_that_makes_its_model_anew_finishes_the_earlier_run(watch, read, said, kind):
    runs = []
    for _ in range(3):
        model = model_of(kind)
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        runs.append(watch(model, optimizer))
        steps(model, optimizer, 30)
    assert [read(each, "on_run_end")[0]["status"] for each in runs[:2]] == ["finished", "finished"]
    assert not read(runs[2], "on_run_end")
    runs[2].close()
    assert [len(read(each, "on_batch_losses")) for each in runs] == [30, 30, 30]
    assert not any("are in no record" in each for each in said())


def test_folds_that_do_not_close_their_run(watch, read, said):
    models, runs = [], []
    for _ in range(3):
        models.append(model_of("plain"))
        optimizer = torch.optim.SGD(models[-1].parameters(), 0.01)
        runs.append(watch(models[-1], optimizer))
        steps(models[-1], optimizer, 30)
    for each in runs:
        assert not read(each, "on_run_end")
        each.close()
    assert [len(read(each, "on_batch_losses")) for each in runs] == [30, 30, 30]
    assert not any("are in no record" in each for each in said())


def test_an_attachment_that_never_steps_beside_one_that_does(watch, read, said):
    idle, model = model_of("plain"), model_of("plain")
    first = watch(idle, torch.optim.SGD(idle.parameters(), 0.01))
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    second = watch(model, optimizer)
    steps(model, optimizer, 30)
    first.close()
    second.close()
    assert len(read(second, "on_batch_losses")) == 30
    assert not any("are in no record" in each for each in said())
    assert sum("no step was logged" in each for each in said()) == 1


def test_passes_that_nobody_watches_are_still_said(watch, said):
    model, other = model_of("plain"), model_of("plain")
    run = watch(model, torch.optim.SGD(model.parameters(), 0.01))
    steps(other, torch.optim.SGD(other.parameters(), 0.01), 30)
    run.close()
    assert any("30 backward passes were heard" in each for each in said())


@pytest.mark.parametrize("status", ["finished", "failed"])
def test_an_attached_loop_without_a_step_says_so(watch, two, said, status):
    with suppress(ValueError), watch(two, torch.optim.SGD(two.parameters(), 0.01)):
        for _ in range(3):
            two(torch.randn(4, 4))
        if status == "failed":
            raise ValueError
    assert sum("no step was logged: neither" in each for each in said()) == (status == "finished")


def test_a_run_that_the_loop_logs_to_by_hand_is_not_called_empty(watch, two, said):
    run = watch(two, torch.optim.SGD(two.parameters(), 0.01))
    run.log_batch({"loss_a": 1.0})
    run.close()
    assert not any("no step was logged" in each for each in said())


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("print('hello')", True),
        ("import torch; torch.nn.Linear(2, 2)(torch.ones(1, 2))", True),
        ("raise SystemExit(3)", False),
        ("import losslog\nwith losslog.Run('x', plugins=None) as run: run.log_batch({'loss': 1.0})", False),
        ("import torch; m = torch.nn.Linear(2, 1); o = torch.optim.SGD(m.parameters(), .1)\n"
         "m(torch.ones(1, 2)).sum().backward(); o.step()", False),
    ],
)  # fmt: skip
def test_a_script_that_trains_nothing_is_told_so(tmp_path, script, says):
    (tmp_path / "s.py").write_text(script)
    command = [sys.executable, "-m", "losslog", "run", "--plugins", ",", "s.py"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert ("nothing was logged: s.py" in ran.stderr) == says, ran.stderr
    assert "nothing was logged" not in ran.stdout


FOLDS = """
import torch
from torch import nn
kept = []
data = torch.utils.data.DataLoader(torch.randn(8, 4), 4)
def fold(build):
    model = build()
    optimizer = torch.optim.SGD(model.parameters(), .1)
    for _ in range(2):
        for x in data:
            optimizer.zero_grad(); model(x).pow(2).mean().backward(); optimizer.step()
    if KEEP: kept.append((model, optimizer))
    return model
def linear(): return nn.Linear(4, 2)
"""


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("loop", "says"),
    [
        ("KEEP = False\nfor _ in range(3): fold(linear)", 1),
        ("KEEP = True\nfor _ in range(3): fold(linear)", 1),
        ("KEEP = False\none = linear()\nfor _ in range(3): fold(lambda: one)", 0),
        ("KEEP = False\none = nn.Sequential(linear(), nn.Linear(2, 2))\nfold(lambda: one[0]); fold(lambda: one)", 0),
        ("KEEP = False\nfold(linear)", 0),
        ("KEEP = True\na, b = linear(), linear()\np, q = (torch.optim.SGD(e.parameters(), .1) for e in (a, b))\n"
         "for x in data:\n    for m, o in ((a, p), (b, q)):\n"
         "        o.zero_grad(); m(x).pow(2).mean().backward(); o.step()", 0),
    ],
)  # fmt: skip
def test_folds_in_one_script_are_said_once(tmp_path, loop, says):
    (tmp_path / "s.py").write_text(textwrap.dedent(FOLDS) + loop)
    command = [sys.executable, "-m", "losslog", "run", "--plugins", ",", "s.py"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert ran.stderr.count("a new model with a new optimizer") == says, ran.stderr


class Dict(nn.Module):
    """Gives its losses in train and in eval mode."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, x):
        y = self.linear(x)
        return {"loss_a": y[:, 0].pow(2).mean(), "loss_b": y[:, 1].abs().mean()}


@pytest.mark.parametrize("kind", ["deepcopy", "deepcopy before", "averaged", "both", "another class", "teacher"])
def test_validation_on_a_copy_of_the_model(watch, read, said, kind):
    torch.manual_seed(0)
    loader, valid = (torch.utils.data.DataLoader(torch.randn(n, 4), 4) for n in (80, 8))
    model = Dict()
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    copied = copy.deepcopy(model) if kind == "deepcopy before" else None
    run = watch(model, optimizer)
    if kind == "averaged":
        copied = torch.optim.swa_utils.AveragedModel(model)
    elif kind == "another class":
        copied = type("Other", (Dict,), {})()
    elif copied is None:
        copied = copy.deepcopy(model)
    truth = []
    for _ in range(2):
        for x in loader:
            if kind == "teacher":
                with torch.no_grad():
                    copied(x)
            losses = model(x)
            optimizer.zero_grad()
            sum(losses.values()).backward()
            optimizer.step()
            if kind == "averaged":
                copied.update_parameters(model)
        copied.eval()
        if kind != "teacher":
            with torch.no_grad():
                found = [(model if kind == "both" else copied)(x) for x in valid]
                if kind == "both":
                    [copied(x) for x in valid]
            truth.append({name: sum(each[name].item() for each in found) / 2 for name in ("loss_a", "loss_b")})
    run.close()
    val = [each.get("val_loss") for each in read(run, "on_epoch_end")]
    if kind in ("another class", "teacher"):
        assert val == [None, None]
    else:
        assert val == [pytest.approx(each) for each in truth]
    lines = [each for each in said() if "of a copy of the model" in each]
    assert len(lines) == (kind in ("deepcopy", "deepcopy before", "averaged"))
    assert len(read(run, "on_batch_losses")) == 40


def test_a_plan_that_the_data_does_not_keep_is_said_once(watch, two, said, read):
    optimizer = torch.optim.SGD(two.parameters(), 0.01)
    run = watch(two, optimizer, steps_per_epoch=4)
    for _ in range(2):
        for x in torch.utils.data.DataLoader(torch.randn(24, 4), 4):
            optimizer.zero_grad()
            sum(two(x).values()).backward()
            optimizer.step()
    run.close()
    assert len(read(run, "on_epoch_end")) == 2
    assert sum("steps_per_epoch=4" in each for each in said()) == 1


def test_a_plan_that_fits_is_not_mentioned(watch, two, said):
    optimizer = torch.optim.SGD(two.parameters(), 0.01)
    run = watch(two, optimizer, steps_per_epoch=3)
    for _ in range(2):
        for index, x in enumerate(torch.utils.data.DataLoader(torch.randn(24, 4), 4)):
            sum(two(x).values()).backward()
            if index % 2:
                optimizer.step()
                optimizer.zero_grad()
    run.close()
    assert not any("steps_per_epoch" in each for each in said())
