"""Losses that change their form within an epoch: means are over the steps that had a component."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

Loader = torch.utils.data.DataLoader


class Net(nn.Module):
    """Gives what it is asked for: some of three losses, or one scalar."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, x, kind):
        y = self.linear(x)
        found = {"a": (y[:, 0] ** 2).mean(), "b": (y[:, 1] - 1).abs().mean(), "c": (y.sum(1) - 2).abs().mean()}
        return found["a"] if kind == "scalar" else {f"loss_{each}": found[each] for each in kind}


def gives(model, x, kind):
    """The model's own losses."""
    losses = model(x, kind)
    return (losses, {"Net": losses}) if kind == "scalar" else (sum(losses.values()), losses)


mse, l1 = nn.MSELoss(), nn.L1Loss()


def criteria(model, x, kind):
    """Two criteria, or one of them."""
    y = model.linear(x)
    losses = {"MSELoss": mse(y, torch.ones(4, 2)), "L1Loss": l1(y, torch.zeros(4, 2))}
    chosen = {name: each for name, each in losses.items() if name[0].lower() in kind}
    if kind == "m/3":
        return chosen["MSELoss"] / 3, chosen
    return sum(chosen.values()), chosen


def functional(model, x, kind):
    """A loss that nobody gave, or the model's."""
    return (F.mse_loss(model.linear(x), torch.ones(4, 2)), {}) if kind == "f" else gives(model, x, kind)


@pytest.mark.parametrize(
    ("loss", "kinds"),
    [
        (gives, ["scalar"] * 3 + ["ab"] * 3),
        (gives, ["ab"] * 3 + ["scalar"] * 3),
        (gives, ["ab", "scalar", "c", "scalar", "bc"]),
        (gives, ["a"] * 3 + ["ab"] * 3 + ["abc"] * 2),
        (gives, ["abc"] * 3 + ["b"] * 2 + ["scalar"]),
        (criteria, ["m"] * 4 + ["ml"] * 5),
        (criteria, ["m"] + ["ml"] * 5),
        (criteria, ["m/3"] * 4 + ["ml"] * 4),
        (criteria, ["ml"] * 4 + ["m"] * 5),
        (criteria, ["m"] * 4 + ["l"] * 3),
        (criteria, ["m", "l"] * 4),
        (functional, ["f"] * 3 + ["ab"] * 4),
        (functional, ["ab"] * 3 + ["f"] * 4),
    ],
)
def test_means_are_those_of_the_steps_that_had_it(watch, read, loss, kinds):
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), 0.02)
    run = watch(model, optimizer)
    data, truth = Loader(torch.randn(4 * len(kinds), 4), 4), []
    for _ in range(2):
        totals, parts = [], {}
        for kind, x in zip(kinds, data, strict=True):
            total, losses = loss(model, x, kind)
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            totals.append(total.item())
            for name, each in losses.items():
                parts.setdefault(name, []).append(each.item())
        truth.append((sum(totals) / len(totals), {name: sum(each) / len(each) for name, each in parts.items()}))
    run.close()
    assert len(read(run, "on_batch_losses")) == 2 * len(kinds)
    for end, (total, means) in zip(read(run, "on_epoch_end"), truth, strict=True):
        assert end["total"] == pytest.approx(total)
        assert end["losses"] == pytest.approx(means)
