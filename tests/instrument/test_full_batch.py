"""Training on one batch for ever, as of a graph: validation is on other rows of it."""

import pytest
import torch
from torch import nn

ROWS = 24
TRAIN, VAL, TEST = (torch.arange(ROWS) // 8 == each for each in range(3))


class Net(nn.Module):
    """Gives values of all rows, or the losses of those that are asked for."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, x, edges, y=None, mask=None):
        found = edges @ self.linear(x)
        if mask is None:
            return found
        error = (found - y)[mask]
        return {"a": error[:, 0].pow(2).mean(), "b": error[:, 1].abs().mean()}


FORMS = ["criterion", "model", "keywords", "data"]


@pytest.fixture
def loop(watch):
    """Trains and evaluates on rows; gives the truth."""

    class Loop:
        def __init__(self, form, sparse=False):
            torch.manual_seed(0)
            self.x, self.y, self.edges = torch.randn(ROWS, 4), torch.randn(ROWS, 2), torch.eye(ROWS)
            if sparse:
                self.edges = self.edges.to_sparse()
            self.model, self.criterion, self.form = Net(), nn.MSELoss(), form
            self.whole = {"x": self.x, "edges": self.edges}
            self.optimizer = torch.optim.SGD(self.model.parameters(), 0.05)
            self.run = watch(self.model, self.optimizer)

        def loss(self, *masks):
            if self.form == "model":
                return [sum(self.model(self.x, self.edges, self.y, mask).values()) for mask in masks]
            if self.form == "keywords":
                return [sum(self.model(x=self.x, edges=self.edges, y=self.y, mask=mask).values()) for mask in masks]
            found = self.model(**self.whole) if self.form == "data" else self.model(self.x, self.edges)
            return [self.criterion(found[mask], self.y[mask]) for mask in masks]

        def train(self):
            self.model.train()
            self.optimizer.zero_grad()
            self.loss(TRAIN)[0].backward()
            self.optimizer.step()

        def look(self, *masks):
            self.model.eval()
            with torch.no_grad():
                return [each.item() for each in self.loss(*masks)]

    return Loop


def total(val_loss):
    return sum(val_loss.values()) if isinstance(val_loss, dict) else val_loss


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("masks", ["v", "tv", "vt", "tvx"])
def test_other_rows_are_validation(loop, read, caplog, form, masks):
    caplog.set_level("INFO", "losslog")
    it, truth = loop(form), []
    for _ in range(4):
        it.train()
        found = it.look(*({"t": TRAIN, "v": VAL, "x": TEST}[each] for each in masks))
        truth.append(found[max(masks.find("v"), masks.find("x"))])  # of several the last counts
    it.run.close()
    ends = read(it.run, "on_epoch_end")
    assert [total(each["val_loss"]) for each in ends] == pytest.approx(truth)
    assert not [each for each in caplog.messages if "in no record" in each]


@pytest.mark.parametrize("form", FORMS)
def test_the_rows_that_are_trained_on_are_not(loop, read, caplog, form):
    caplog.set_level("INFO", "losslog")
    it = loop(form)
    for _ in range(3):
        it.train()
        it.look(TRAIN)
    it.run.close()
    assert [each.get("val_loss") for each in read(it.run, "on_epoch_end")] == [None] * 3
    assert len([each for each in caplog.messages if "trained on is in no record" in each]) == 1


def test_what_cannot_be_compared(loop, read):
    it, truth = loop("criterion", sparse=True), []
    for _ in range(3):
        it.train()
        truth += it.look(VAL)
    it.run.close()
    assert [each["val_loss"] for each in read(it.run, "on_epoch_end")] == pytest.approx(truth)
