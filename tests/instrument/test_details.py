"""A criterion that gives its total and, detached, the parts of it: components where they add up to it, else metrics."""

import warnings

import pytest
import torch
from torch import nn

Loader = torch.utils.data.DataLoader


class Criterion(nn.Module):
    """Gives a total and what `tell` makes of its parts."""

    def __init__(self, tell, factor=lambda y: 1.0):
        super().__init__()
        self.tell, self.factor = tell, factor

    def forward(self, y):
        box, cls = (y[:, 0] - 2).pow(2).mean(), y[:, 1].abs().mean()
        total = (box + cls) * self.factor(y)
        return self.tell(total, box.detach(), cls.detach())


class Model(nn.Module):
    """The same as a model."""

    def __init__(self, criterion):
        super().__init__()
        self.linear, self.criterion = nn.Linear(4, 2), criterion

    def forward(self, x):
        return self.criterion(self.linear(x))


def plain(total, box, cls):
    return total, {"box": box, "cls": cls}


def first(total, box, cls):
    return {"box": box, "cls": cls}, total


def numbers(total, box, cls):
    return [total, {"box": box.item(), "cls": cls.item()}]


def with_more(total, box, cls):
    return total, {"loss": total.detach(), "again": total.detach(), "box": box, "cls": cls, "acc": cls / 10}


def vector(total, box, cls):
    return total, torch.stack([box, cls])


def trained(watch, read, criterion, steps=1, add=lambda y: 0.0, inside=False):
    """Trains and validates; gives the journal's batches and epoch ends, and the truth."""
    torch.manual_seed(0)
    model = Model(criterion) if inside else nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    run, truth, valid = watch(model, optimizer), [], []
    data, other = Loader(torch.randn(20, 4), 8), Loader(torch.randn(8, 4), 4)
    give = model if inside else lambda x: criterion(model(x))

    def parts(x):
        y = (model.linear if inside else model)(x).detach()
        return (y[:, 0] - 2).pow(2).mean().item(), y[:, 1].abs().mean().item(), criterion.factor(y)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            model.train()
            for x in data:
                total = next(each for each in give(x) if isinstance(each, torch.Tensor) and each.requires_grad)
                truth.append((*parts(x), (total + add(x)).item()))
                optimizer.zero_grad()
                (total + add(x)).backward()
                optimizer.step()
            model.eval()
            with torch.no_grad():
                valid.append([(give(x), parts(x))[1] for x in other])
    run.close()
    return read(run), read(run, "on_batch_losses"), read(run, "on_epoch_end"), truth, valid


@pytest.mark.sampled(6)
@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("factor", [lambda y: 1.0, len, lambda y: 0.25])
@pytest.mark.parametrize("tell", [plain, first, numbers, with_more])
def test_parts_that_add_up_are_components(watch, read, tell, factor, inside):
    _, batches, ends, truth, valid = trained(watch, read, Criterion(tell, factor), inside=inside)
    assert len(batches) == 6
    for batch, (box, cls, count, total) in zip(batches, truth, strict=True):
        assert batch["losses"] == pytest.approx({"box": box, "cls": cls})
        assert batch.get("weights", {"box": 1.0, "cls": 1.0}) == pytest.approx({"box": count, "cls": count})
        assert batch.get("total", box + cls) == pytest.approx(total)
    for end, its in zip(ends, valid, strict=True):
        mean = [sum(each) / len(its) for each in zip(*its, strict=True)]
        assert end["val_loss"] == pytest.approx(
            {"box": mean[0], "cls": mean[1], "loss": sum((box + cls) * count for box, cls, count in its) / len(its)}
        )


def test_parts_without_names_are_numbered(watch, read):
    _, batches, ends, truth, _ = trained(watch, read, Criterion(vector, len))
    for batch, (box, cls, count, total) in zip(batches, truth, strict=True):
        assert batch["losses"] == pytest.approx({"Criterion[0]": box, "Criterion[1]": cls})
        assert batch["weights"] == pytest.approx({"Criterion[0]": count, "Criterion[1]": count})
        assert batch["total"] == pytest.approx(total)
    assert all(set(end["val_loss"]) == {"Criterion[0]", "Criterion[1]", "loss"} for end in ends)


def test_what_the_loop_adds_is_from_outside(watch, read, caplog):
    caplog.set_level("INFO", "losslog")
    _, batches, _, truth, _ = trained(watch, read, Criterion(plain, len), add=lambda y: 1.5)
    assert [each["total"] for each in batches] == pytest.approx([each[3] for each in truth])
    assert all(set(each["losses"]) == {"box", "cls"} for each in batches)
    assert [each.getMessage() for each in caplog.records if "from outside the model" in each.getMessage()]


def test_accumulation_counts_each_part(watch, read):
    torch.manual_seed(0)
    model, criterion = nn.Linear(4, 2), Criterion(plain, len)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    run, truth = watch(model, optimizer), []
    for x in torch.randn(4, 3, 8, 4):
        optimizer.zero_grad()
        found = []
        for each in x:
            total, parts = criterion(model(each))
            (total / 3).backward()
            found.append((parts["box"].item(), parts["cls"].item(), total.item() / 3))
        optimizer.step()
        truth.append([sum(each) for each in zip(*found, strict=True)])
    run.close()
    batches = read(run, "on_batch_losses")
    for batch, (box, cls, total) in zip(batches, truth, strict=True):
        assert batch["losses"] == pytest.approx({"box": box / 3, "cls": cls / 3})
        assert (batch["n"], batch["total"]) == (3, pytest.approx(total))
        assert batch["weights"] == pytest.approx({"box": 8.0, "cls": 8.0})


@pytest.mark.parametrize("inside", [False, True])
def test_parts_that_do_not_add_up_are_metrics(watch, read, inside):
    tell = lambda total, box, cls: (total, {"loss": total.detach(), "box": box * 0.3, "cls": cls})  # noqa: E731
    _, batches, ends, truth, valid = trained(watch, read, Criterion(tell), inside=inside)
    assert [each["losses"] for each in batches] == pytest.approx([each[3] for each in truth])
    assert [end["val_loss"] for end in ends] == pytest.approx(
        [sum(box + cls for box, cls, _ in its) / len(its) for its in valid]
    )


def test_they_are_recorded_with_their_step(watch, read):
    tell = lambda total, box, cls: (total, {"box": box * 0.3, "acc": cls})  # noqa: E731
    torch.manual_seed(0)
    model, criterion = nn.Linear(4, 2), Criterion(tell)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    run, truth = watch(model, optimizer), []
    for x in torch.randn(5, 8, 4):
        total, parts = criterion(model(x))
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        truth.append({name: each.item() for name, each in parts.items()})
    run.close()
    metrics = [each for each in read(run, "on_metrics") if "box" in each["metrics"]]
    assert [each["metrics"] for each in metrics] == [pytest.approx(each) for each in truth]
    assert [each["step"] for each in metrics] == [*range(5)]


@pytest.mark.parametrize("extra", [lambda y: y.detach()[:, 0], lambda y: torch.arange(3), lambda y: torch.ones(3, 2)])
def test_tensors_that_are_no_parts_are_nothing(watch, read, extra):
    class Beside(nn.Module):
        def forward(self, y):
            return y.pow(2).mean(), extra(y)

    torch.manual_seed(0)
    model, criterion = nn.Linear(4, 2), Beside()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    run = watch(model, optimizer)
    for x in torch.randn(5, 8, 4):
        optimizer.zero_grad()
        criterion(model(x))[0].backward()
        optimizer.step()
    run.close()
    assert all(isinstance(each["losses"], float) for each in read(run, "on_batch_losses"))
    assert "on_metrics" not in read(run)


@pytest.mark.parametrize("logs", [True, False])
@pytest.mark.parametrize("form", ["loss", "tuple"])
def test_a_criterion_that_calls_the_model_knows_the_total(watch, read, caplog, logs, form):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 2)

        def forward(self, x):
            y = self.linear(x)
            return {"y": y, "features_pen": y.square().mean()}

    class Criterion(nn.Module):  # as of fairseq's models
        def forward(self, model, x):
            found = model(x)
            first, second = (found["y"] - x[:, :2]).abs().sum(), 10.0 * found["features_pen"] * len(x)
            log = {"loss_0": first.item(), "loss_1": second.item(), "ntokens": len(x)} if logs else {"ntokens": len(x)}
            return (first + second, len(x), log) if form == "tuple" else first + second

    caplog.set_level("INFO", "losslog")
    torch.manual_seed(0)
    net, criterion = Net(), Criterion()
    optimizer = torch.optim.SGD(net.parameters(), 0.001)
    run, truth, validated = watch(net, optimizer), [], []
    loader, other = (torch.utils.data.DataLoader(torch.randn(count, 4), 4) for count in (20, 8))

    def total(x):
        found = criterion(net, x)
        return found[0] if form == "tuple" else found

    for _ in range(2):
        for x in loader:
            optimizer.zero_grad()
            loss = total(x)
            loss.backward()
            optimizer.step()
            truth.append(loss.item())
        with torch.no_grad():
            validated.append(sum(total(x).item() for x in other) / len(other))
    run.close()
    batches, ends = read(run, "on_batch_losses"), read(run, "on_epoch_end")
    assert [each["total"] for each in batches] == pytest.approx(truth)
    parts = {"loss_0", "loss_1"} if logs and form == "tuple" else {"features_pen"}
    assert all({*each["losses"]} == parts for each in batches)
    assert [each["val_loss"]["loss"] for each in ends] == pytest.approx(validated)
    assert "comes from outside" not in caplog.text
