"""Criteria that a loop makes anew for each batch, takes up late, or validates with: heard from their first step."""

import pytest
import torch
from torch import nn

Loader = torch.utils.data.DataLoader


class Own(nn.Module):
    """A criterion of the loop's own."""

    def forward(self, found, wanted):
        return (found - wanted).pow(4).mean()


def trained(watch, read, loss, epochs=2, validate=None, **options):
    """Trains; gives the journal, and the truth: each step's parts, which ``loss`` returns."""
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.02)
    run = watch(model, optimizer, **options)
    data, other, truth = Loader(torch.randn(32, 4), 4), Loader(torch.randn(8, 4), 4), []
    for _ in range(epochs):
        for x in data:
            parts = loss(model(x), torch.ones(4, 2), len(truth))
            optimizer.zero_grad()
            sum(parts.values()).backward()
            optimizer.step()
            truth.append({name: each.item() for name, each in parts.items()})
        if validate is not None:
            with torch.no_grad():
                for x in other:
                    validate(model(x), torch.ones(4, 2))
    run.close()
    return read(run, "on_batch_losses"), read(run, "on_epoch_end"), truth


def two(y, t, step):
    return {"MSELoss": nn.MSELoss()(y, t), "Own": Own()(y, t)}


def kept(y, t, step):
    first, second = nn.MSELoss(), nn.MSELoss()
    return {"MSELoss": first(y[:, 0], t[:, 0]), "MSELoss_2": second(y[:, 1], t[:, 1])}


def twice(y, t, step):
    return {f"MSELoss[{each}]": nn.MSELoss()(y[:, each], t[:, each]) for each in range(2)}


@pytest.mark.parametrize("loss", [two, kept, twice])
def test_criteria_that_are_made_for_each_batch_are_the_same_losses(watch, read, loss):
    batches, ends, truth = trained(watch, read, loss, epochs=4)
    assert [each["losses"] for each in batches] == [pytest.approx(each) for each in truth]
    assert [{*each["losses"]} for each in ends] == [{*truth[0]}] * 4


def test_one_that_is_made_for_each_batch_validates(watch, read):
    batches, ends, _ = trained(watch, read, lambda y, t, step: {"": nn.MSELoss()(y, t)},
                               validate=lambda y, t: nn.MSELoss()(y, t))  # fmt: skip
    assert all(type(each["losses"]) is float for each in batches)
    assert all(type(each["val_loss"]) is float for each in ends)


@pytest.mark.parametrize("made", ["before", "late", "anew"])
def test_one_of_the_scripts_own_class_is_heard_from_its_first_step(watch, read, made, caplog):
    class Late(Own):
        """Not called until then."""

    criteria = {"MSELoss": nn.MSELoss()} | ({"Late": Late()} if made == "before" else {})

    def loss(y, t, step):
        if step >= 50 and (made == "anew" or "Late" not in criteria):
            criteria["Late"] = Late()
        return {name: each(y, t) for name, each in criteria.items() if name != "Late" or step >= 50}

    batches, ends, truth = trained(watch, read, loss, epochs=8)
    assert [each["losses"] for each in batches[50:]] == [pytest.approx(each) for each in truth[50:]]
    assert {*ends[6]["losses"]} == {*ends[7]["losses"]} == {"MSELoss", "Late"}
    assert not [each for each in caplog.messages if "outside" in each]
