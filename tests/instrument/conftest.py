"""Loops in these tests are what people write; `run` watches them, `records` is what it left."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

import losslog
from losslog.instrument import calls, signals

MEASURED = {"reach", "grad_norm", "update_ratio", "unchanged", "dead_units", "targets"}
EXAMPLES = Path(__file__).parents[2] / "examples"


torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def nothing_left_behind():
    yield
    assert signals.listening() == []
    assert signals._patches == []
    assert calls._classes == {}
    assert torch.autograd.backward.__module__ == "torch.autograd"
    assert "losslog" not in torch.autograd.backward.__code__.co_filename
    assert not any(type(each).__module__.startswith("losslog") for each in sys.meta_path)


@pytest.fixture(scope="session")
def shapes():
    """The examples' data and small Mask R-CNN."""
    spec = importlib.util.spec_from_file_location("shapes", EXAMPLES / "shapes.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def watch(tmp_path):
    """Attach with the journal alone; whatever is still open at the end is closed."""
    opened = []

    def attach(model, optimizer, **options):
        run = losslog.attach(model, optimizer, name="t", dir=tmp_path, plugins=None, **options)
        opened.append(run)
        return run

    yield attach
    for run in opened:
        run.close()


@pytest.fixture
def read():
    """The data of the records of a closed run, by hook; without what is measured at the first step of an epoch."""

    def records(run, hook=None):
        found = [json.loads(line) for line in (run.dir / "journal.jsonl").read_text().splitlines()]
        found = [each for each in found if each["hook"] != "on_metrics" or not MEASURED.issuperset(
            tag.partition("/")[0] for tag in each["data"]["metrics"])]  # fmt: skip
        return [each["data"] for each in found if each["hook"] == hook] if hook else [each["hook"] for each in found]

    return records


class Two(torch.nn.Module):
    """Gives two losses in training, features otherwise."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 2)

    def forward(self, x):
        y = self.linear(x)
        if not self.training:
            return [y]
        return {"loss_a": (y[:, 0] ** 2).mean(), "loss_b": (y[:, 1] - 1).abs().mean()}


@pytest.fixture
def two():
    torch.manual_seed(0)
    return Two()


@pytest.fixture
def data():
    """Five batches of four; two of validation."""
    torch.manual_seed(1)
    load = torch.utils.data.DataLoader
    return load(torch.randn(20, 4), 4), load(torch.randn(8, 4), 4)
