"""Losses that are summed, weighted, multiplied and detached in the loop: components, total, and what is said."""

from collections import namedtuple
from dataclasses import dataclass
from enum import Enum

import pytest
import torch
from torch import nn
from torch.nn import functional as F


@pytest.fixture
def said(caplog):
    """The lines that were said."""
    caplog.set_level("INFO", "losslog")
    return lambda: [each.getMessage() for each in caplog.records]


@pytest.fixture
def train(watch, read):
    """Trains a model on a loss for some steps; gives the journal's batches, their totals checked against the loop's."""

    def train(model, loss, steps=4, micro=1, backward=lambda loss: loss.backward(), weigh=1.0, attach=None, **options):
        optimizer = torch.optim.SGD(model.parameters(), 0.02)
        run = watch(attach or model, optimizer, **options)
        truth = []
        for _ in range(steps):
            optimizer.zero_grad()
            total = 0.0
            for _ in range(micro):
                found = loss(torch.randn(6, 4))
                backward(found)
                total += found.item() * weigh
            optimizer.step()
            truth.append(total)
        run.close()
        batches = read(run, "on_batch_losses")
        assert [each["total"] if "total" in each else each["losses"] for each in batches] == pytest.approx(truth)
        return batches

    torch.manual_seed(0)
    return train


def penalty(model):
    return 0.1 * sum(each.pow(2).sum() for each in model.parameters())


def gradient_penalty(model, x):
    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
    return gradient.pow(2).mean()


@pytest.mark.parametrize(
    "order",
    [
        "a + r",
        "r + a",
        "(a + r) / 2",
        "a + 3.0",
        "a + r.detach()",
        "2 * a + r",
        "1 + a + r",
        "torch.stack([a, r]).sum()",
        "a - r",
    ],
)
def test_a_criterion_and_a_term_of_the_loops_own(train, said, order):
    model, criterion, seen = nn.Linear(4, 2), nn.MSELoss(), []

    def loss(x):
        a, r = criterion(model(x), torch.ones(6, 2)), penalty(model)
        seen.append(a.item())
        return eval(order, {"a": a, "r": r, "torch": torch})

    batches = train(model, loss)
    assert [each["losses"] for each in batches] == [{"MSELoss": pytest.approx(each)} for each in seen]
    (line,) = [each for each in said() if "outside the model" in each]
    assert "comes from outside the model: the total logged is what was optimised" in line


@pytest.mark.parametrize("how", ["gradient penalty", "two passes", "a list", "a scalar model", "a tuple", "a dict"])
def test_other_ways_to_add_a_term(train, said, how):
    criterion, seen = nn.CrossEntropyLoss(), []
    labels = torch.randint(0, 2, (6,))

    class Scalar(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 2)

        def forward(self, x):
            y = self.linear(x)
            loss = nn.functional.cross_entropy(y, labels)
            return {"a scalar model": loss, "a tuple": (loss, y), "a dict": {"loss": loss, "logits": y}}[how]

    model = Scalar() if how in ("a scalar model", "a tuple", "a dict") else nn.Linear(4, 2)
    name = {"a scalar model": "Scalar", "a tuple": "Scalar", "a dict": "loss"}.get(how, "CrossEntropyLoss")
    terms = []

    def loss(x):
        y = model(x)
        a = {"a tuple": lambda: y[0], "a dict": lambda: y["loss"], "a scalar model": lambda: y}.get(
            how, lambda: criterion(y, labels)
        )()
        r = gradient_penalty(model, x) if how == "gradient penalty" else penalty(model)
        seen.append(a.item())
        terms[:] = [a, r]
        return a + r

    def backward(total):
        if how == "two passes":
            terms[0].backward()
            terms[1].backward()
        elif how == "a list":
            torch.autograd.backward(terms)
        else:
            total.backward()

    batches = train(model, loss, backward=backward)
    assert [each["losses"] for each in batches] == [{name: pytest.approx(each)} for each in seen]
    assert sum("outside the model" in each for each in said()) == 1


@pytest.mark.parametrize(
    "expression",
    [
        "a",
        "a / 3",
        "0 + a",
        "sum([a])",
        "a.sqrt()",
        "(a + 1e-6).sqrt()",
        "(a - .1).abs() + .1",
        "a * 2.0 + 0.0",
        "-(-a)",
        "a.float()",
        "a.mean()",
        "a + 0 * r.item()",
    ],
)
def test_a_scalar_that_is_all_there_is_stays_a_scalar(train, said, expression):
    model, criterion = nn.Linear(4, 2), nn.MSELoss()

    def loss(x):
        a = criterion(model(x), torch.ones(6, 2))
        return eval(expression, {"a": a, "r": penalty(model)})

    assert all(type(each["losses"]) is float for each in train(model, loss, micro=2))
    assert not any("outside" in each for each in said())


def test_a_criterion_called_for_two_losses(train, said):
    model, mse, seen = nn.Linear(4, 2), nn.MSELoss(), []

    def loss(x):
        y = model(x)
        first, second = mse(y[:, 0], torch.ones(6)), mse(y[:, 1], torch.zeros(6))
        seen.append({"MSELoss[0]": first.item(), "MSELoss[1]": second.item()})
        return second * 3 + first

    batches = train(model, loss)
    assert [each["losses"] for each in batches] == seen
    assert [each["weights"] for each in batches] == [{"MSELoss[1]": 3.0}] * 4
    assert not any("outside" in each for each in said())


def test_the_same_beside_another_and_over_accumulation(train):
    model, mse, l1 = nn.Linear(4, 2), nn.MSELoss(), nn.L1Loss()

    def loss(x):
        y = model(x)
        return (mse(y[:, 0], torch.ones(6)) + mse(y[:, 1], torch.zeros(6)) + l1(y, torch.ones(6, 2))) / 2

    for batch in train(model, loss, micro=2):
        assert set(batch["losses"]) == {"MSELoss[0]", "MSELoss[1]", "L1Loss"}
        assert batch["n"] == 2
        assert "weights" not in batch


def test_calls_whose_number_changes_are_summed_and_said(train, said):
    model, mse, steps = nn.Linear(4, 4), nn.MSELoss(), iter([2, 2, 3, 2])

    def loss(x):
        y = model(x)
        return sum(mse(y[:, each], torch.ones(6)) for each in range(next(steps)))

    batches = train(model, loss)
    assert [[*each["losses"]] for each in batches] == [["MSELoss[0]", "MSELoss[1]"]] * 2 + [["MSELoss"]] * 2
    assert batches[2]["losses"]["MSELoss"] == pytest.approx(batches[2]["total"])
    assert sum("MSELoss is called 3 times for one backward pass, and not always as often" in e for e in said()) == 1


def test_a_loss_for_each_time_step_is_one_loss(train, said):
    model, mse = nn.Linear(4, 4), nn.MSELoss()
    batches = train(model, lambda x: sum(mse(model(x)[:, each % 4], torch.ones(6)) for each in range(20)))
    assert all(type(each["losses"]) is float for each in batches)
    assert sum("MSELoss is called 20 times for one backward pass" in each for each in said()) == 1


@pytest.mark.parametrize("accumulated", ["loader", "model"])
def test_batches_summed_before_one_backward_pass_are_one_loss(watch, read, accumulated):
    torch.manual_seed(0)
    loader = torch.utils.data.DataLoader(torch.randn(16, 4), 4)

    class Scalar(nn.Linear):
        def forward(self, x):
            return super().forward(x).pow(2).mean()

    model, mse = (Scalar if accumulated == "model" else nn.Linear)(4, 2), nn.MSELoss()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    run = watch(model, optimizer)
    loss, truth = 0, []
    for index, x in enumerate(loader):
        loss = loss + (model(x) if accumulated == "model" else mse(model(x), torch.ones(4, 2))) / 2
        if index % 2:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            truth.append(loss.item())
            loss = 0
    run.close()
    assert [each["losses"] for each in read(run, "on_batch_losses")] == pytest.approx(truth)


def test_validation_of_criteria_has_the_components_of_training(watch, read):
    torch.manual_seed(0)
    model, mse, l1 = nn.Linear(4, 2), nn.MSELoss(), nn.L1Loss()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    run = watch(model, optimizer)

    def losses(x):
        y = model(x)
        return mse(y[:, 0], torch.ones(4)), mse(y[:, 1], torch.zeros(4)), l1(y, torch.ones(4, 2))

    for x in torch.utils.data.DataLoader(torch.randn(12, 4), 4):
        optimizer.zero_grad()
        sum(losses(x)).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        truth = [losses(x) for x in torch.utils.data.DataLoader(torch.randn(8, 4), 4)]
    run.close()
    (epoch,) = read(run, "on_epoch_end")
    means = [sum(each.item() for each in column) / 2 for column in zip(*truth, strict=True)]
    assert epoch["val_loss"] == pytest.approx(dict(zip(["MSELoss[0]", "MSELoss[1]", "L1Loss"], means, strict=True)))


@pytest.mark.parametrize("kind", ["loader", "list"])
def test_validation_with_fewer_calls_than_training(watch, read, kind):
    """Mixup, auxiliary heads: two calls in training, one in validation."""
    torch.manual_seed(0)
    model, criterion = nn.Linear(4, 2), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    run = watch(model, optimizer)
    data, valid = torch.randn(12, 4), torch.randn(12, 4)
    if kind == "loader":
        data, valid = (torch.utils.data.DataLoader(each, 4) for each in (data, valid))
    else:
        data, valid = data.split(4), valid.split(4)
    labels = torch.tensor([0, 1, 1, 0])
    for x in data:
        optimizer.zero_grad()
        (0.7 * criterion(model(x), labels) + 0.3 * criterion(model(x), labels.flip(0))).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        truth = [criterion(model(x), labels).item() for x in valid]
    run.close()
    (epoch,) = read(run, "on_epoch_end")
    assert epoch["val_loss"] == {"CrossEntropyLoss[0]": pytest.approx(sum(truth) / 3)}


class Dict(nn.Module):
    """Two losses."""

    def __init__(self, shape=dict):
        super().__init__()
        self.a, self.b, self.shape = nn.Linear(4, 2), nn.Linear(4, 2), shape

    def forward(self, x):
        return self.shape(loss_a=self.a(x).pow(2).mean() + 0.1, loss_b=self.b(x).abs().mean() + 0.1)


@pytest.mark.parametrize("kind", ["scalar", "dict", "vector", "list"])
def test_a_weight_given_to_backward_counts_in_the_total(train, said, kind):
    weight = torch.tensor(2.0)
    if kind == "scalar":
        model, criterion = nn.Linear(4, 2), nn.MSELoss()
        batches = train(
            model, lambda x: criterion(model(x), torch.ones(6, 2)), backward=lambda loss: loss.backward(weight), weigh=2
        )
        assert all(type(each["losses"]) is float for each in batches)
        return
    model = Dict()
    given = []

    def loss(x):
        given[:] = model(x).values()
        return sum(given)

    backward = {
        "dict": lambda total: total.backward(gradient=weight),
        "vector": lambda total: torch.stack(given).backward(torch.tensor([2.0, 2.0])),
        "list": lambda total: torch.autograd.backward(given, [weight, weight]),
    }[kind]
    batches = train(model, loss, backward=backward, weigh=2)
    assert [each["weights"] for each in batches] == [{"loss_a": 2.0, "loss_b": 2.0}] * 4
    assert not any("outside" in each or "not a weighted sum" in each for each in said())


@pytest.mark.parametrize("factor", [0.5, 64.0, 100.0, 128.0, 256.0, 1000.0])
@pytest.mark.parametrize("kind", ["dict", "scalar"])
def test_every_factor_by_hand_is_treated_alike(train, said, factor, kind):
    model, criterion = (Dict(), None) if kind == "dict" else (nn.Linear(4, 2), nn.MSELoss())
    for each in model.parameters():
        each.data *= 1e-3
    made = (lambda x: sum(model(x).values())) if kind == "dict" else lambda x: criterion(model(x), torch.ones(6, 2))
    for batch in train(model, lambda x: factor * made(x), steps=1):
        assert kind == "scalar" or batch["weights"] == {"loss_a": factor, "loss_b": factor}
    if kind == "dict":
        assert any(f"every component counts {factor:g} times in the total" in e for e in said()) == (factor >= 64)


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ("a + b.detach()", "loss_b"),
        ("b - a + 2 * a.detach()", ""),
        ("a + .5 * b.item()", "loss_b"),
        ("3 * a.detach() + b", "loss_a"),
    ],
)
def test_a_component_in_the_total_that_is_detached(train, said, expression, names, steps):
    model = Dict()

    def loss(x):
        losses = model(x)
        return eval(expression, {"a": losses["loss_a"], "b": losses["loss_b"]})

    train(model, loss, steps=steps)
    lines = [each for each in said() if "detached: it trains nothing" in each or "outside the model" in each]
    assert len(lines) == 1
    if names and (steps > 1 or expression == "a + b.detach()"):
        assert lines[0].startswith(f"{names}: in the total (")


def test_a_detached_criterion(train, said):
    model, mse, l1 = nn.Linear(4, 2), nn.MSELoss(), nn.L1Loss()
    train(model, lambda x: mse(model(x), torch.ones(6, 2)) + l1(model(x), torch.ones(6, 2)).detach())
    assert sum(each.startswith("L1Loss: in the total (") for each in said()) == 1


@pytest.mark.parametrize(
    "expression",
    [
        "a * b",
        "torch.log(a + b)",
        "(a + b) ** 2",
        "torch.logsumexp(torch.stack([a, b]), 0)",
        "a / b",
        "(a * a + b * b) / 2",
    ],
)
def test_a_total_that_is_no_weighted_sum(train, said, expression):
    model = Dict()

    def loss(x):
        losses = model(x)
        return eval(expression, {"a": losses["loss_a"], "b": losses["loss_b"], "torch": torch})

    assert all(set(each["losses"]) == {"loss_a", "loss_b"} for each in train(model, loss, steps=2))
    assert sum("the total is not a weighted sum of the components" in each for each in said()) == 1
    assert not any("outside" in each for each in said())


def test_learned_weights_are_still_said_as_from_outside(train, said):
    model = Dict()
    model.s = nn.Parameter(torch.tensor([0.3, 0.5]))

    def loss(x):
        a, b = model(x).values()
        return a * (-model.s[0]).exp() + b * (-model.s[1]).exp() + model.s.sum()

    train(model, loss)
    assert sum("outside the model" in each for each in said()) == 1


class Head(Enum):
    """Of a model with heads."""

    BOX, MASK = 1, 2


@dataclass
class Data:
    """What a model gives."""

    loss_a: torch.Tensor
    loss_b: torch.Tensor
    logits: object = None


@pytest.mark.parametrize(
    ("shape", "names"),
    [
        (namedtuple("Out", ["loss_a", "loss_b"]), ["loss_a", "loss_b"]),
        (Data, ["loss_a", "loss_b"]),
        (lambda loss_a, loss_b: (None, Data(loss_a, loss_b)), ["loss_a", "loss_b"]),
        (lambda loss_a, loss_b: {0: loss_a, 1: loss_b}, ["0", "1"]),
        (lambda loss_a, loss_b: {Head.BOX: loss_a, Head.MASK: loss_b}, ["Head.BOX", "Head.MASK"]),
        (lambda loss_a, loss_b: {("box", 1): loss_a, ("box", 2): loss_b}, ["('box', 1)", "('box', 2)"]),
        (lambda loss_a, loss_b: {"losses": {0: loss_a}, "aux": {1: loss_b}}, ["0", "aux.1"]),
    ],
)
def test_other_shapes_that_models_return(train, shape, names):
    model = Dict(shape)

    def leaves(output):
        if isinstance(output, torch.Tensor):
            return [output]
        if isinstance(output, Data):
            return [output.loss_a, output.loss_b]
        inner = output.values() if isinstance(output, dict) else output
        return [each for one in inner if one is not None for each in leaves(one)]

    for batch in train(model, lambda x: sum(leaves(model(x)))):
        assert [*batch["losses"]] == names


@pytest.mark.parametrize("late", [5, 20, 45])
@pytest.mark.parametrize("every", [1, 3])
def test_a_criterion_that_is_called_late_is_heard_at_once(watch, read, capsys, late, every):
    torch.manual_seed(0)
    model, first, second = torch.nn.Linear(4, 2), torch.nn.MSELoss(), torch.nn.L1Loss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    run, expected = watch(model, optimizer), []
    x, y = torch.randn(8, 4), torch.randn(8, 2)
    for step in range(60):
        loss = first(model(x), y)
        expected.append(None)
        if step >= late and step % every == 0:
            other = second(model(x), y)
            loss, expected[-1] = loss + 0.5 * other, other.item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    run.close()
    losses = [each["losses"] for each in read(run, "on_batch_losses")]
    found = [each.get("L1Loss") if isinstance(each, dict) else None for each in losses]
    assert found == expected
    assert "outside" not in capsys.readouterr().err


class Pair(nn.Module):
    """Gives two losses and what they are made of."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, x):
        y = self.linear(x)
        return y, {"loss_a": y[:, 0].pow(2).mean(), "loss_b": F.mse_loss(y, torch.ones(6, 2))}


@pytest.mark.parametrize("how", ["F.mse_loss(y, t)", "crit(y, t)", "((y - t) ** 2).mean()"])
def test_a_loss_that_the_loop_computes_once_more_is_not_called_detached(train, said, how):
    model, criterion = Pair(), nn.MSELoss()

    def loss(x):
        y, losses = model(x)
        return losses["loss_a"] + eval(how, {"F": F, "y": y, "t": torch.ones(6, 2), "crit": criterion})

    train(model, loss)
    assert not [each for each in said() if "trains nothing" in each or "outside the model" in each]


@pytest.mark.parametrize(
    "how", ["L.clamp(max=.5)", "torch.where(L > .5, L.detach() * 0 + .5, L)", "torch.nan_to_num(L / 0, posinf=.5)",
            "torch.minimum(L, torch.tensor(.5))"],
)  # fmt: skip
def test_a_total_that_is_cut_off_is_not_said_to_come_from_outside(train, said, how):
    model = Pair()
    train(model, lambda x: eval(how, {"L": sum(model(x)[1].values()), "torch": torch}))
    assert not [each for each in said() if "outside the model" in each or "detached" in each]


@pytest.mark.parametrize("factor", [1.0, 5.0])
@pytest.mark.parametrize("wrong", [False, True])
def test_a_loss_that_the_model_hands_out_computed_once_more(watch, read, said, factor, wrong):
    class Head(nn.Module):  # as in YOLOX: the product in the total and the one beside it are two tensors
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 2)

        def forward(self, x):
            y = self.linear(x)
            iou, conf = y[:, 0].pow(2).mean(), (y[:, 1] - 1).abs().mean()
            beside = factor * iou * (1.7 if wrong else 1.0)
            return {"total_loss": factor * iou + conf, "iou_loss": beside, "conf_loss": conf, "num_fg": 0.25}

    torch.manual_seed(0)
    model = Head()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    run, truth = watch(model, optimizer), []
    for _ in range(40):
        losses = model(torch.randn(6, 4))
        optimizer.zero_grad()
        losses["total_loss"].backward()
        optimizer.step()
        truth.append({name: losses[name].item() for name in ("total_loss", "iou_loss", "conf_loss")})
    run.close()
    batches = read(run, "on_batch_losses")
    assert [each["total"] for each in batches] == pytest.approx([each["total_loss"] for each in truth])
    assert not any("detached" in line for line in said())
    metrics = [each["metrics"] for each in read(run, "on_metrics")]
    assert all(each["num_fg"] == 0.25 for each in metrics)
    if wrong:
        return
    assert sum("computed there once more" in line for line in said()) == 1
    assert read(run, "on_alert") == []
    for batch, its in list(zip(batches, truth, strict=True))[10:]:
        assert batch["losses"] == pytest.approx({name: its[name] for name in ("iou_loss", "conf_loss")})
        assert "weights" not in batch


class Contrastive(nn.Module):
    """Gives features and the scale they are compared with, as CLIP does; ``towers`` says whether these are trained."""

    def __init__(self, form, towers):
        super().__init__()
        self.one, self.other, self.form = nn.Linear(4, 3), nn.Linear(4, 3), form
        self.one.requires_grad_(towers)
        self.other.requires_grad_(towers)
        self.scale, self.bias = nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.tensor(-1.0))

    def forward(self, x):
        found = {"left": self.one(x), "right": self.other(x), "logit_scale": self.scale.exp(), "bias": self.bias * 1}
        return found if self.form == "dict" else (*found.values(),)


class Compare(nn.Module):
    """The criterion."""

    def __init__(self, named, sigmoid):
        super().__init__()
        self.named, self.sigmoid = named, sigmoid

    def forward(self, left, right, logit_scale, bias):
        logits, wanted = logit_scale * left @ right.T + bias, torch.arange(len(left))
        if self.sigmoid:
            loss = -F.logsigmoid((2 * torch.eye(len(left)) - 1) * logits).sum() / len(left)
        else:
            loss = (F.cross_entropy(logits, wanted) + F.cross_entropy(logits.T, wanted)) / 2
        return {"contrastive_loss": loss} if self.named else loss


@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("towers", [True, False])
@pytest.mark.parametrize("named", [True, False, None])
@pytest.mark.parametrize("form", ["dict", "tuple"])
def test_what_losses_are_made_with_is_no_loss(watch, read, said, form, named, towers, sigmoid):
    torch.manual_seed(0)
    model, criterion = Contrastive(form, towers), Compare(named, sigmoid)
    optimizer = torch.optim.SGD([each for each in model.parameters() if each.requires_grad], 0.01)
    run, truth = watch(model, optimizer), []
    for _ in range(2):
        for x in torch.utils.data.DataLoader(torch.randn(24, 4), 4):
            found = model(x)
            found = found.values() if form == "dict" else found
            # None: the criterion is a function, which nobody hears
            loss = criterion(*found) if named is not None else criterion.forward(*found)
            loss = sum(loss.values()) if named else loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            truth.append(loss.item())
        with torch.no_grad():
            model(torch.randn(4, 4))
    run.close()
    batches = read(run, "on_batch_losses")
    expected = [{"contrastive_loss": each} if named else each for each in truth]
    assert [each["losses"] for each in batches] == [pytest.approx(each) for each in expected]
    assert not any("weights" in each for each in batches)
    assert not any("val_loss" in each for each in read(run, "on_epoch_end"))
    assert not any("outside" in line or "no component has it" in line for line in said())


@pytest.mark.parametrize("judge", [F.smooth_l1_loss, F.mse_loss, F.huber_loss, F.binary_cross_entropy_with_logits])
def test_a_value_that_is_judged_is_no_loss(watch, read, said, judge):
    class Policy(nn.Module):  # as of actors and critics: the value of a state is one number
        def __init__(self):
            super().__init__()
            self.actions, self.value = nn.Linear(4, 2), nn.Linear(4, 1)

        def forward(self, x):
            return self.actions(x).softmax(-1), self.value(x)

    torch.manual_seed(0)
    model = Policy()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    run, truth = watch(model, optimizer), []
    for _ in range(4):
        actors, critics = [], []
        for _ in range(3):
            actions, value = model(torch.randn(4))
            actors.append(-actions.log()[0] * (0.5 - value.item()))
            critics.append(judge(value, torch.tensor([0.5])))
        loss = torch.stack(actors).sum() + torch.stack(critics).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        truth.append(loss.item())
    run.close()
    assert [each["losses"] for each in read(run, "on_batch_losses")] == pytest.approx(truth)
    assert not any("weighted sum" in line for line in said())


class AddAuxiliaryLoss(torch.autograd.Function):
    """As mixtures of experts bring their loss in: it passes the features on, and its gradient is 1."""

    @staticmethod
    def forward(ctx, x, loss):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient, torch.ones(())


def test_what_a_function_of_the_users_own_is_given_stays_a_loss(watch, read):
    class Experts(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate, self.head = nn.Linear(4, 3), nn.Linear(4, 1)

        def forward(self, x):
            aux = self.gate(x).softmax(-1).mean(0).square().sum()
            return {"main_loss": self.head(AddAuxiliaryLoss.apply(x.requires_grad_(), aux)).square().mean(),
                    "aux_loss": aux, "": 0.5}  # fmt: skip

    torch.manual_seed(0)
    model = Experts()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    run = watch(model, optimizer)
    for _ in range(4):
        optimizer.zero_grad()
        model(torch.randn(6, 4))["main_loss"].backward()
        optimizer.step()
    run.close()
    assert all("aux_loss" in each["losses"] for each in read(run, "on_batch_losses"))
    assert read(run, "on_metrics") == []
