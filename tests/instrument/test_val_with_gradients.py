"""A validation that leaves gradients on has the losses that one without them has."""

import contextlib

import pytest
import torch
from torch import nn

Loader = torch.utils.data.DataLoader


class Net(nn.Module):
    """Gives what a form makes of its two losses."""

    def __init__(self, form):
        super().__init__()
        self.linear, self.form = nn.Linear(4, 2), form

    def forward(self, x):
        y = self.linear(x)
        return self.form(y, y[:, 0].pow(2).mean(), (y[:, 1] - 1).abs().mean())


def plain(y, a, b):
    return y


MODELS = {
    "dict": (lambda y, a, b: {"a": a, "b": b}, lambda out: out["a"] + 2 * out["b"]),
    "dict with a total": (lambda y, a, b: {"loss": a + 2 * b, "a": a, "b": b}, lambda out: out["loss"]),
    "dict with a total of its name": (lambda y, a, b: {"a": a, "b": b, "whole": a + 2 * b}, lambda out: out["whole"]),
    "dict with a part": (lambda y, a, b: {"loss": a + 2 * b, "b": b}, lambda out: out["loss"]),
    "parts beside": (lambda y, a, b: (a + b, {"a": a.detach(), "b": b.detach()}), lambda out: out[0]),
    "loss, logits": (lambda y, a, b: (a + b, y), lambda out: out[0]),
    "two losses": (lambda y, a, b: (y, a, b), lambda out: out[1] + out[2]),
}  # fmt: skip
one, other, third = nn.MSELoss(), nn.L1Loss(), nn.MSELoss()
CRITERIA = {
    "one": lambda y: one(y, torch.ones_like(y)),
    "one twice": lambda y: one(y[:, 0], y.new_ones(len(y))) + 2 * one(y[:, 1], y.new_zeros(len(y))),
    "one often": lambda y: sum(one(y[:, 0], y.new_full([len(y)], each)) for each in range(10)),
    "two": lambda y: one(y, torch.ones_like(y)) + 2 * other(y, torch.zeros_like(y)),
    "two alike": lambda y: one(y, torch.ones_like(y)) + 2 * third(y, torch.zeros_like(y)),
    "one twice and another": lambda y: one(y, 0 * y) + one(y, y.new_ones(y.shape)) + 3 * other(y, torch.ones_like(y)),
}


@pytest.mark.parametrize("kind", [*MODELS, *CRITERIA])
@pytest.mark.parametrize("eval_mode", [False, True])
@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("size", [3, 9])
def test_the_total_of_a_validation(watch, read, kind, eval_mode, grad, size):
    torch.manual_seed(0)
    form, total = MODELS.get(kind, (plain, CRITERIA.get(kind)))
    model = Net(form)
    optimizer = torch.optim.SGD(model.parameters(), 0.02)
    run = watch(model, optimizer)
    train, valid, truth = Loader(torch.randn(20, 4), 4, shuffle=True), Loader(torch.randn(9, 4), size), []
    for _ in range(3):
        for x in train:
            optimizer.zero_grad()
            total(model(x)).backward()
            optimizer.step()
        model.train(not eval_mode)
        with contextlib.nullcontext() if grad else torch.no_grad():
            found = [total(model(x)).item() for x in valid]
        model.train()
        truth.append(sum(found) / len(found))
    run.close()
    ends = read(run, "on_epoch_end")
    found = [each["val_loss"] for each in ends]
    assert [
        each.get("total", each.get("loss", sum(each.values()))) if isinstance(each, dict) else each for each in found
    ] == pytest.approx(truth)
    if isinstance(found[0], dict):
        assert {*found[0]} - {"total", "loss"} == {*ends[0]["losses"]}
