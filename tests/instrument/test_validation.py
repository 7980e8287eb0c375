"""Which losses without gradients are the validation's, and what counts of batches that no step followed."""

import pytest
import torch

Loader = torch.utils.data.DataLoader


def evaluate(model, loader):
    """The mean of the sums, as a loop prints it."""
    with torch.no_grad():
        totals = [sum(model(x).values()).item() for x in loader]
    return sum(totals) / len(totals)


def total_of(val_loss):
    return sum(val_loss.values())


@pytest.mark.parametrize("order", ["train val", "val train", "val", "train", "val val2 train"])
def test_the_last_pass_over_other_data_counts(two, data, watch, read, order):
    optimizer = torch.optim.SGD(two.parameters(), 0.1)
    run = watch(two, optimizer)
    train, val = data
    loaders, truth = {"train": train, "val": val, "val2": Loader(torch.randn(12, 4), 4)}, []
    for _ in range(3):
        for x in train:
            optimizer.zero_grad()
            sum(two(x).values()).backward()
            optimizer.step()
        found = {name: evaluate(two, loaders[name]) for name in order.split()}
        truth += [found[name] for name in ("val2", "val") if name in found][:1]
    run.close()
    ends = read(run, "on_epoch_end")
    assert [total_of(each["val_loss"]) for each in ends if "val_loss" in each] == pytest.approx(truth)
    assert len(ends) == 3


@pytest.mark.parametrize("how", ["zero_grad", "none", "none at the top"])
@pytest.mark.parametrize("as_list", [True, False])
def test_batches_that_the_loop_leaves_out_count_in_their_epoch(two, data, watch, read, caplog, how, as_list):
    optimizer, means = torch.optim.SGD(two.parameters(), 0.1), []
    batches = [*data[0]]
    run = watch(two, optimizer, steps_per_epoch=3 if as_list else None)
    for _ in range(3):
        totals = []
        for number, x in enumerate([each.clone() for each in batches] if as_list else data[0]):
            if how == "none at the top":
                for each in two.parameters():
                    each.grad = None
            loss = sum(two(x).values())
            loss.backward()
            totals.append(loss.item())
            if number in (2, 4):
                if how != "none at the top":
                    for each in two.parameters():
                        each.grad = None
                if how == "zero_grad":
                    optimizer.zero_grad()
                continue
            optimizer.step()
            optimizer.zero_grad() if how != "none at the top" else None
        means.append(sum(totals) / 5)
    run.close()
    assert len(read(run, "on_batch_losses")) == 9
    assert [each["total"] for each in read(run, "on_epoch_end")] == pytest.approx(means)
    assert sum("followed by no step" in each for each in caplog.messages) == 1


class Wrap(torch.nn.Module):
    """Around a model, as DistributedDataParallel is."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x)


@pytest.mark.parametrize("attached", ["outer", "inner"])
def test_a_model_validates_without_its_wrapper(two, data, watch, read, attached):
    outer, truth = Wrap(Wrap(two)), []
    optimizer = torch.optim.SGD(two.parameters(), 0.1)
    run = watch(outer if attached == "outer" else two, optimizer)
    for _ in range(6):
        for x in data[0]:
            optimizer.zero_grad()
            sum(outer(x).values()).backward()
            optimizer.step()
        truth.append(evaluate(two, data[1]))
    run.close()
    assert len(read(run, "on_batch_losses")) == 30
    assert [total_of(each["val_loss"]) for each in read(run, "on_epoch_end")] == pytest.approx(truth)
