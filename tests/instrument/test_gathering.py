"""A wrapper that calls its model for pieces of a batch, and gathers a value of each loss: the means are the losses."""

import pytest
import torch
from torch import nn

Loader = torch.utils.data.DataLoader


class Model(nn.Module):
    """Gives two losses, as scalars or of one element each."""

    def __init__(self, how):
        super().__init__()
        self.linear, self.how = nn.Linear(4, 2), how

    def forward(self, x):
        cls, reg = self.linear(x).square().mean(0)
        return {"cls": cls[None], "reg": reg[None]} if self.how == "cat" else {"cls": cls, "reg": reg}


class Pieces(nn.Module):
    """Calls the model for so many pieces of a batch."""

    def __init__(self, module, pieces):
        super().__init__()
        self.module, self.pieces = module, pieces

    def forward(self, x):
        several = [self.module(each) for each in x.chunk(self.pieces)]
        gather = torch.cat if self.module.how == "cat" else torch.stack
        return {name: gather([each[name] for each in several]) for name in several[0]}


@pytest.mark.sampled(4)
@pytest.mark.parametrize("pieces", [2, 3])
@pytest.mark.parametrize("how", ["cat", "stack"])
@pytest.mark.parametrize("reduce", [torch.mean, torch.sum])
@pytest.mark.parametrize("attached", ["wrapper", "model"])
def test_what_a_wrapper_gathers_has_means(watch, read, pieces, how, reduce, attached):
    torch.manual_seed(0)
    net = Model(how)
    model = Pieces(net, pieces)
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    run = watch(model if attached == "wrapper" else net, optimizer)
    train, other, truth, valid = Loader(torch.randn(24, 4), 6), Loader(torch.randn(12, 4), 6), [], []
    for _ in range(6):
        for x in train:
            losses = model(x)
            total = reduce(losses["cls"]) + 0.5 * reduce(losses["reg"])
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            truth.append(({name: each.mean().item() for name, each in losses.items()}, total.item()))
        with torch.no_grad():
            found = [{name: each.mean().item() for name, each in model(x).items()} for x in other]
        valid.append({name: sum(each[name] for each in found) / len(found) for name in found[0]})
    run.close()
    batches, factor = read(run, "on_batch_losses"), 1 if reduce is torch.mean else pieces
    assert [each["losses"] for each in batches] == [pytest.approx(losses) for losses, _ in truth]
    assert [each["total"] for each in batches] == pytest.approx([total for _, total in truth])
    weights = {name: each for name, each in (("cls", factor), ("reg", 0.5 * factor)) if each != 1}
    assert [each.get("weights", {}) for each in batches] == [pytest.approx(weights)] * len(batches)
    for end, means in zip(read(run, "on_epoch_end"), valid, strict=True):
        assert {name: end["val_loss"][name] for name in means} == pytest.approx(means)


@pytest.mark.parametrize("give", ["sums", "scores"])
def test_a_wrapper_that_gathers_nothing_gives_what_it_gives(watch, read, give):
    class Twice(Pieces):
        def forward(self, x):
            a, b = self.module(x[:2]), self.module(x[2:])
            sums = {name: a[name] + b[name] for name in a}
            return sums if give == "sums" else sums | {"scores": self.module.linear(x[:2])[:, 0]}

    torch.manual_seed(0)
    model = Twice(Model("stack"), 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    run, truth = watch(model, optimizer), []
    for x in torch.randn(25, 4, 4):
        losses = model(x)
        optimizer.zero_grad()
        (losses["cls"] + losses["reg"]).backward()
        optimizer.step()
        truth.append({name: losses[name].item() for name in ("cls", "reg")})
    run.close()
    assert [each["losses"] for each in read(run, "on_batch_losses")] == [pytest.approx(each) for each in truth]
