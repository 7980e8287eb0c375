"""Units that are zero for all they were shown are counted by part, whatever form their ReLU has."""

import json

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from losslog.instrument.dead import dead_units
from losslog.instrument.parts import Parts


class Net(nn.Module):
    """Two parts that end in ReLUs; of the head's eight units so many are dead."""

    def __init__(self, dead=0, relu=nn.ReLU(), norm=False):  # noqa: B008
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True))
        self.head = nn.ModuleDict({"conv": nn.Conv2d(6, 8, 1), "out": nn.Linear(8, 1)})
        if norm:
            self.head["norm"] = nn.BatchNorm2d(8)
        self.relu = relu
        with torch.no_grad():
            for layer in (self.head.get_submodule("norm" if norm else "conv"),):
                layer.bias[:dead] = -1e4

    def forward(self, x):
        hidden = self.head["conv"](self.body(x))
        if "norm" in self.head:
            hidden = self.head["norm"](hidden)
        return self.head["out"](self.relu(hidden).mean((2, 3)))


def shares(model, images=2, size=16, run=None):
    loss = (run or model)(torch.randn(images, 3, size, size)).mean()
    return {part: round(float(share), 4) for part, share in dead_units([loss], Parts(model)).items()}


@pytest.mark.parametrize("dead", [0, 3, 8])
@pytest.mark.parametrize("norm", [False, True], ids=["conv", "norm"])
@pytest.mark.parametrize(
    "relu", [nn.ReLU(), nn.ReLU(inplace=True), torch.relu, nn.functional.relu, lambda x: x.relu_()],
    ids=["module", "in place", "torch", "functional", "method"],
)  # fmt: skip
def test_by_part(dead, norm, relu):
    assert shares(Net(dead, relu, norm)) == {"dead_units/body": 0.0, "dead_units/head": dead / 8}


def test_a_unit_that_one_of_several_calls_wakes_is_alive():
    model = Net()

    def twice(x):
        return sum(model.head["conv"](each).relu().mean() for each in (x - 1e3, x, x + 1e3))

    found = dead_units([twice(torch.randn(1, 6, 16, 16))], Parts(model))
    assert float(found["dead_units/head"]) == 0.0


def test_few_values_prove_nothing():
    assert shares(Net(8), images=1, size=7) == {}


def test_what_is_frozen_is_left_out_and_not_somebody_elses():
    model = Net(8)
    model.head.requires_grad_(False)
    assert shares(model) == {"dead_units/body": 0.0}


def test_what_would_have_to_be_computed_again_is_left_out():
    model, calls = Net(8), []
    model.head["conv"].register_forward_hook(lambda *_: calls.append(1))
    assert shares(model, run=lambda x: checkpoint(model, x, use_reentrant=False)) == {}
    assert len(calls) == 1


def test_nan_is_not_dead():
    model = Net()
    with torch.no_grad():
        model.head["conv"].weight.fill_(float("nan"))
    assert shares(model)["dead_units/head"] == 0.0


def test_linear_layers_over_tokens():
    layer = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    with torch.no_grad():
        layer[0].bias[:2] = -1e4
    found = dead_units([layer(torch.randn(4, 20, 4)).mean()], Parts(layer))
    assert float(found["dead_units/0"]) == 0.25


def test_once_an_epoch_under_attach(watch):
    model = Net(6)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    run, criterion = watch(model, optimizer), nn.MSELoss()
    loader = torch.utils.data.DataLoader(torch.randn(12, 3, 16, 16), 4)
    for _ in range(3):
        for images in loader:
            optimizer.zero_grad()
            criterion(model(images), torch.zeros(4, 1)).backward()
            optimizer.step()
    run.close()
    lines = [json.loads(each) for each in (run.dir / "journal.jsonl").read_text().splitlines()]
    found = [each["data"] for each in lines if "dead_units/head" in (each["data"].get("metrics") or {})]
    assert [each["step"] for each in found] == [0, 3, 6]
    assert all(each["metrics"]["dead_units/head"] == 0.75 for each in found)


@pytest.mark.parametrize("shown", [lambda y: y.mean(), lambda y: y[0, 0], lambda y: y[:, 0], lambda y: y[0]])
def test_a_relu_on_a_loss_has_no_units(shown):
    layer = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    loss = nn.functional.relu(shown(layer(torch.randn(80, 4)))).sum()
    assert dead_units([loss], Parts(layer)).keys() == {"dead_units/0"}


@pytest.mark.parametrize(
    "broken", ["losslog.instrument.measures.dead_units", "losslog.instrument.gradients.Gradients.end"]
)
def test_an_instrument_that_fails_leaves_the_others_alone(broken, watch, monkeypatch, caplog):
    def fail(*_):
        raise IndexError("no axis")

    monkeypatch.setattr(broken, fail)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    optimizer, criterion = torch.optim.SGD(model.parameters(), lr=0.1), nn.MSELoss()
    run = watch(model, optimizer)
    for batch in torch.utils.data.DataLoader(torch.randn(320, 4), 80):
        optimizer.zero_grad()
        criterion(model(batch), torch.zeros(80, 1)).backward()
        optimizer.step()
    run.close()
    lines = [json.loads(each) for each in (run.dir / "journal.jsonl").read_text().splitlines()]
    found = {tag.partition("/")[0] for each in lines for tag in each["data"].get("metrics") or {}}
    assert found >= ({"grad_norm"} if "dead" in broken else {"dead_units"})
    assert not found & ({"dead_units"} if "dead" in broken else {"grad_norm"})
    assert [each for each in caplog.messages if "not measured in this run: IndexError: no axis" in each] != []
