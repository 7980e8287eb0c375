"""Gradients of several backward passes that a loop puts together by hand (PCGrad): one step, and its total."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F


def by_hand(optimizer, losses, model, put):
    """Each loss's gradients for itself, then their sum."""
    found = []
    for each in losses:
        optimizer.zero_grad()
        each.backward(retain_graph=True)
        found.append([None if p.grad is None else p.grad.clone() for p in model.parameters()])
    if put:
        for parameter, *its in zip(model.parameters(), *found, strict=True):
            parameter.grad = sum(each for each in its if each is not None)
    optimizer.step()


@pytest.mark.parametrize("put", [True, False])
@pytest.mark.parametrize("kind", ["dict", "functional", "criterion", "lists"])
def test_passes_of_one_forward_are_one_step(two, data, watch, read, caplog, kind, put):
    caplog.set_level("INFO", "losslog")
    optimizer, mse, truth = torch.optim.SGD(two.parameters(), 0.1), nn.MSELoss(), []
    run = watch(two, optimizer)
    for _ in range(2):
        for x in [*data[0]] if kind == "lists" else data[0]:
            if kind in ("dict", "lists"):
                losses = [*two(x).values()]
            else:
                y = two.linear(x)
                loss = F.mse_loss if kind == "functional" else mse
                losses = [loss(y[:, 0], x[:, 0]), loss(y[:, 1], x[:, 1])]
            by_hand(optimizer, losses, two, put)
            truth.append(sum(each.item() for each in losses[0 if put else 1 :]))
    run.close()
    batches = read(run, "on_batch_losses")
    assert [each["total"] for each in batches] == pytest.approx(truth)
    for end, its in zip(read(run, "on_epoch_end"), (truth[:5], truth[5:]), strict=True):
        assert end["total"] == pytest.approx(sum(its) / 5)
    wanted = "all 2 passes of a step are in its total" if put else "the gradients of the first are thrown away"
    assert sum(wanted in each for each in caplog.messages) == 1


def test_a_look_at_gradients_before_the_step_is_no_part_of_it(two, data, watch, read, caplog):
    optimizer, truth = torch.optim.SGD(two.parameters(), 0.1), []
    run = watch(two, optimizer)
    for x in data[0]:
        losses = two(x)
        losses["loss_a"].backward(retain_graph=True)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        truth.append(sum(each.item() for each in losses.values()))
    run.close()
    assert [each["total"] for each in read(run, "on_batch_losses")] == pytest.approx(truth)
    assert not [each for each in caplog.messages if "zero_grad" in each]
