"""What counts as validation: other data than is trained on, the last one of an epoch, through whatever wrapper."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

ROOT = Path(__file__).parents[2]
Loader = torch.utils.data.DataLoader


@pytest.fixture
def said(caplog):
    """The lines that were said."""
    caplog.set_level("INFO", "losslog")
    return lambda: [each.getMessage() for each in caplog.records]


class Dict(nn.Module):
    """Gives two losses."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, x):
        y = self.linear(x)
        return {"loss_a": y[:, 0].pow(2).mean(), "loss_b": (y[:, 1] - 1).abs().mean()}


class Plain(nn.Linear):
    """Gives no losses."""


class Wrap(nn.Module):
    """Around a model, as `DistributedDataParallel` is."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x)


class Loop:
    """A loop over a training loader; what a model or a criterion gives is the loss."""

    def __init__(self, watch, kind="dict", wrap=lambda net: net, data=None, attach="wrapper"):
        torch.manual_seed(0)
        self.set = torch.randn(20, 4)
        self.train = Loader(self.set, 4, shuffle=True) if data is None else data(self.set)
        self.kind, self.criterion = kind, nn.MSELoss()
        self.net = Dict() if kind == "dict" else Plain(4, 2)
        self.model = wrap(self.net)
        self.optimizer = torch.optim.SGD(self.model.parameters(), 0.05)
        self.run = watch(self.model if attach == "wrapper" else self.net, self.optimizer)

    def losses(self, x, model=None):
        found = (self.model if model is None else model)(x)
        return found if self.kind == "dict" else {"": self.criterion(found, torch.ones(len(x), 2))}

    def epoch(self, model=None):
        for x in self.train:
            self.optimizer.zero_grad()
            sum(self.losses(x, model).values()).backward()
            self.optimizer.step()

    def look(self, data, *, model=None, grad=False, eval_mode=False):
        """Compute the losses of some data; gives their means."""
        if eval_mode:
            self.model.eval()
        with torch.set_grad_enabled(grad):
            found = [{name: each.item() for name, each in self.losses(x, model).items()} for x in data]
        self.model.train()
        means = {name: sum(each[name] for each in found) / len(found) for name in found[0]}
        return means if self.kind == "dict" else means[""]

    def ends(self, read):
        self.run.close()
        return [each.get("val_loss") for each in read(self.run, "on_epoch_end")]


@pytest.mark.sampled(10)
@pytest.mark.parametrize("kind", ["dict", "criterion"])
@pytest.mark.parametrize("order", ["train first", "train last", "both sides", "train alone"])
@pytest.mark.parametrize("through", ["the loader", "another loader", "with gradients", "eval mode", "part of it"])
def test_an_evaluation_on_the_training_data_is_none(watch, read, said, kind, order, through):
    if kind == "criterion" and through == "with gradients" and order == "train alone":
        pytest.skip("the same as for a dict")
    loop, valid = Loop(watch, kind), Loader(torch.randn(8, 4), 4)
    again = Loader(loop.set, 10) if through == "another loader" else loop.train
    how = {"grad": through == "with gradients", "eval_mode": through == "eval mode"}
    truth = []
    for _ in range(2):
        loop.epoch()
        for what in {"train first": "tv", "train last": "vt", "both sides": "tvt", "train alone": "t"}[order]:
            if what == "v":
                truth.append(loop.look(valid, **how))
            elif through == "part of it":
                for index, x in enumerate(again):
                    if index == 2:
                        break
                    loop.look([x])
            else:
                loop.look(again, **how)
    assert loop.ends(read) == ([pytest.approx(each) for each in truth] or [None, None])
    lines = [each for each in said() if "an evaluation on the data that is trained on is in no record" in each]
    assert len(lines) == (order == "train alone")


@pytest.mark.parametrize("kind", ["dict", "criterion"])
@pytest.mark.parametrize("held_out", ["subset", "sampler", "copy", "tensors", "list", "one batch", "fetched ahead"])
def test_data_of_its_own_is_validation_after_a_look_at_the_training_data(watch, read, said, kind, held_out):
    loop = Loop(watch, kind)
    other = torch.randn(8, 4)
    valid = {
        "subset": Loader(torch.utils.data.Subset(loop.set, range(8)), 4),
        "sampler": Loader(loop.set, 4, sampler=torch.utils.data.SubsetRandomSampler(range(8), torch.Generator())),
        "copy": Loader(loop.set.clone(), 4),
        "tensors": [other],
        "list": other.split(4),
        "one batch": Loader(other, 4),
        "fetched ahead": Loader(other, 4),
    }[held_out]
    truth = []
    for _ in range(2):
        loop.epoch()
        loop.look(loop.train)
        data = valid
        if held_out == "one batch":
            data = [next(iter(valid))]
        elif held_out in ("fetched ahead", "sampler"):
            data = list(valid)
        truth.append(loop.look(data))
    assert loop.ends(read) == [pytest.approx(each) for each in truth]
    assert not any("trained on is in no record" in each for each in said())


@pytest.mark.parametrize("kind", ["dict", "criterion"])
def test_a_look_at_each_batch_after_its_step(watch, read, said, kind):
    torch.manual_seed(0)
    model, criterion = Dict() if kind == "dict" else nn.Linear(4, 2), nn.MSELoss()
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    run = watch(model, optimizer)
    for x, y in Loader(torch.utils.data.TensorDataset(torch.randn(20, 4), torch.randn(20, 2)), 4):
        losses = model(x) if kind == "dict" else {"": criterion(model(x), y)}
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        with torch.no_grad():
            model(x) if kind == "dict" else criterion(model(x), y)
    run.close()
    assert [each.get("val_loss") for each in read(run, "on_epoch_end")] == [None]
    assert sum("trained on is in no record" in each for each in said()) == 1


def test_training_data_in_lists(watch, read, said):
    for kind in ("dict", "criterion"):
        loop = Loop(watch, kind, data=lambda tensor: tensor.split(4))
        loop.epoch()
        truth = loop.look(torch.randn(8, 4).split(4))
        loop.look(loop.train)
        assert loop.ends(read) == [pytest.approx(truth)]
    assert not any("in no record" in each for each in said())


@pytest.mark.parametrize("kind", ["dict", "criterion"])
@pytest.mark.parametrize("how", ["no grad", "grad"])
def test_of_several_loaders_the_last_counts(watch, read, kind, how):
    loop = Loop(watch, kind)
    first, last = (Loader(torch.randn(n, 4), 4) for n in (12, 8))
    truth = []
    for _ in range(2):
        loop.epoch()
        loop.look(first, grad=how == "grad")
        truth.append(loop.look(last, grad=how == "grad"))
    assert loop.ends(read) == [pytest.approx(each) for each in truth]


def test_the_total_of_a_validation_is_weighed_as_in_training(watch, read):
    torch.manual_seed(0)
    loop = Loop(watch, "dict")
    valid, truth = Loader(torch.randn(8, 4), 4), []
    for _ in range(2):
        for x in loop.train:
            losses = loop.losses(x)
            loop.optimizer.zero_grad()
            (losses["loss_a"] + 3 * losses["loss_b"]).backward()
            loop.optimizer.step()
        means = loop.look(valid)
        truth.append(means | {"total": means["loss_a"] + 3 * means["loss_b"]})
    assert loop.ends(read) == [pytest.approx(each) for each in truth]


def test_criteria_that_judge_different_loaders_keep_their_own(watch, read):
    """Two tasks, a criterion and a validation set each."""
    torch.manual_seed(0)
    model, mse, l1 = nn.Linear(4, 2), nn.MSELoss(), nn.L1Loss()
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    run = watch(model, optimizer)
    for x in Loader(torch.randn(12, 4), 4):
        optimizer.zero_grad()
        (mse(model(x), torch.ones(4, 2)) + l1(model(x), torch.zeros(4, 2))).backward()
        optimizer.step()
    truth = {}
    with torch.no_grad():
        for name, criterion in (("MSELoss", mse), ("L1Loss", l1)):
            found = [criterion(model(x), torch.ones(4, 2)).item() for x in Loader(torch.randn(8, 4), 4)]
            truth[name] = sum(found) / 2
    run.close()
    assert [each["val_loss"] for each in read(run, "on_epoch_end")] == [pytest.approx(truth)]


def compiled(net):
    return torch.compile(net, backend="eager")


@pytest.mark.sampled(10)
@pytest.mark.parametrize(
    ("wrap", "trained", "validated"),
    [
        (Wrap, "wrapper", "net"),
        (lambda net: Wrap(Wrap(net)), "wrapper", "net"),
        (lambda net: Wrap(nn.Sequential(net)), "wrapper", "net"),
        (Wrap, "net", "wrapper"),
        (nn.DataParallel, "wrapper", "net"),
        (compiled, "wrapper", "net"),
        (compiled, "net", "wrapper"),
        (lambda net: Wrap(compiled(net)), "wrapper", "net"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("how", ["no grad", "eval mode", "grad"])
@pytest.mark.parametrize("attach", ["wrapper", "net"])
def test_validation_through_the_module_in_a_wrapper(watch, read, said, wrap, trained, validated, how, attach):
    loop, valid = Loop(watch, wrap=wrap, attach=attach), Loader(torch.randn(8, 4), 4)
    parts = {"wrapper": loop.model, "net": loop.net}
    truth = []
    for _ in range(2):
        loop.epoch(parts[trained])
        truth.append(loop.look(valid, model=parts[validated], grad=how == "grad", eval_mode=how == "eval mode"))
    assert loop.ends(read) == [pytest.approx(each) for each in truth]
    assert [len(each["losses"]) for each in read(loop.run, "on_batch_losses")] == [2] * 10
    assert not any("of a copy" in each for each in said())


def test_a_part_of_the_model_that_gives_other_losses_is_no_validation(watch, read):
    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.part, self.own = Dict(), nn.Linear(4, 1)

        def forward(self, x):
            return {"loss_c": self.own(x).pow(2).mean(), **self.part(x)}

    loop = Loop(watch, wrap=lambda net: Wrap(Whole()))
    loop.epoch()
    loop.look(Loader(torch.randn(8, 4), 4), model=loop.model.module.part)
    assert loop.ends(read) == [None]


@pytest.mark.parametrize("kind", ["deepcopy", "of what is wrapped", "averaged", "both", "on training data", "teacher"])
def test_a_criterion_judges_a_copy(watch, read, said, kind):
    loop = Loop(watch, "criterion", wrap=Wrap if kind == "of what is wrapped" else lambda net: net)
    valid = Loader(torch.randn(8, 4), 4)
    ema = torch.optim.swa_utils.AveragedModel(loop.net) if kind == "averaged" else copy.deepcopy(loop.net)
    truth = []
    for _ in range(2):
        if kind == "teacher":
            with torch.no_grad():
                [ema(x) for x in loop.train]
        loop.epoch()
        if kind in ("both", "teacher"):
            truth.append(loop.look(valid))
        if kind != "teacher":
            found = loop.look(loop.train if kind == "on training data" else valid, model=ema, eval_mode=True)
            truth += [] if kind in ("both", "on training data") else [found]
    assert loop.ends(read) == ([pytest.approx(each) for each in truth] or [None, None])
    lines = [each for each in said() if "val_loss is of a copy of the model" in each]
    assert len(lines) == (kind in ("deepcopy", "of what is wrapped", "averaged"))


SCRIPT = """
import json, os, torch
from torch import nn
torch.set_num_threads(1)
torch.manual_seed(0)
WORLD = int(os.environ.get("WORLD_SIZE", "1"))
if WORLD > 1:
    torch.distributed.init_process_group("gloo")
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 2)
    def forward(self, x):
        a, b = self.linear(x).square().mean(0).unbind()
        return {"loss_a": a, "loss_b": b}
net = Net()
model = nn.parallel.DistributedDataParallel(net) if WORLD > 1 else nn.DataParallel(net)
optimizer = torch.optim.SGD(model.parameters(), 0.05)
train = torch.utils.data.DataLoader(torch.randn(20, 4), 4, shuffle=True)
valid = torch.utils.data.DataLoader(torch.randn(8, 4), 4)
truth = []
for epoch in range(2):
    for x in train:
        optimizer.zero_grad(); sum(model(x).values()).backward(); optimizer.step()
    model.eval()
    with torch.no_grad():
        for x in train: net(x)
        found = [model.module(x)["loss_a"].item() for x in valid]
    model.train()
    truth.append(sum(found) / 2)
if int(os.environ.get("RANK", "0")) == 0:
    json.dump(truth, open("truth.json", "w"))
if WORLD > 1:
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
"""


@pytest.mark.parametrize("world", [1, 2])
def test_a_script_that_validates_the_module_in_its_wrapper(tmp_path, world):
    if world > 1 and not (torch.distributed.is_available() and torch.distributed.is_gloo_available()):
        pytest.skip("this torch has no torch.distributed with gloo")
    (tmp_path / "s.py").write_text(SCRIPT)
    launch = ["-m", "torch.distributed.run", f"--nproc-per-node={world}", "--standalone"] if world > 1 else []
    command = [sys.executable, *launch, "-m", "losslog", "run", "--plugins", ",", "s.py"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)
    assert ran.returncode == 0, ran.stderr[-3000:]
    (journal,) = tmp_path.glob("runs/*/*/journal.jsonl")
    records = [json.loads(line) for line in journal.read_text().splitlines()]
    ends = [each["data"] for each in records if each["hook"] == "on_epoch_end"]
    assert [each["val_loss"]["loss_a"] for each in ends] == pytest.approx(
        json.loads((tmp_path / "truth.json").read_text())
    )


class Holder(nn.Module):
    """An average that keeps its copy under a name of its own, and perhaps the model beside it."""

    def __init__(self, net, *, beside=False):
        super().__init__()
        self.ema_model = copy.deepcopy(net)
        self.online = net if beside else None
        self.register_buffer("updates", torch.zeros(1))

    def forward(self, x):
        return self.ema_model(x)


@pytest.mark.sampled(8)
@pytest.mark.parametrize("net", ["dict", "own", "Sequential", "Linear"])
@pytest.mark.parametrize("holder", ["named", "beside", "averaged", "object"])
@pytest.mark.parametrize("own", ["first", "not"])
def test_a_copy_in_a_wrapper_of_any_kind(watch, read, said, net, holder, own):
    kind = "dict" if net == "dict" else "criterion"
    shape = {"Linear": lambda net: nn.Linear(4, 2), "Sequential": lambda net: nn.Sequential(net)}
    loop = Loop(watch, kind, wrap=shape.get(net, lambda net: net))
    valid = Loader(torch.randn(8, 4), 4)
    ema = {"named": lambda net: Holder(net), "beside": lambda net: Holder(net, beside=True),
           "averaged": torch.optim.swa_utils.AveragedModel, "object": copy.deepcopy}[holder](loop.model)  # fmt: skip
    truth = []
    for _ in range(6):  # the last without looking at the calls of all modules
        loop.epoch()
        found = loop.look(valid) if own == "first" else None
        of_copy = loop.look(valid, model=ema)
        truth.append(pytest.approx(of_copy if own == "not" else found))
    assert loop.ends(read) == truth
    assert sum("val_loss is of a copy of the model" in each for each in said()) == (own == "not")


def test_a_compiled_wrapper_made_before(watch, read):
    net = Dict()
    compiled = torch.compile(net, backend="eager")
    loop = Loop(watch, wrap=lambda _: net)
    valid, truth = Loader(torch.randn(8, 4), 4), []
    for _ in range(3):
        loop.epoch()
        truth.append(pytest.approx(loop.look(valid, model=compiled, grad=True)))
    assert loop.ends(read) == truth


@pytest.mark.parametrize("order", ["after", "before"])
def test_a_criterion_without_gradients_amid_a_batch_is_no_validation(watch, read, order):
    """A part of the loss that is computed under ``no_grad`` on the batch at hand, also of a new epoch's first batch."""
    torch.manual_seed(0)
    model, first, second = nn.Linear(4, 2), nn.MSELoss(), nn.L1Loss()
    optimizer = torch.optim.SGD(model.parameters(), 0.02)
    run = watch(model, optimizer)
    data = Loader(torch.randn(20, 4), 4)
    for epoch in range(3):
        for x in data:
            found = [first(model(x), x[:, :2])] if order == "after" else []
            with torch.set_grad_enabled(epoch == 0):
                found.append(second(model(x), x[:, 2:]))
            found += [first(model(x), x[:, :2])] if order == "before" else []
            optimizer.zero_grad()
            sum(found).backward()
            optimizer.step()
    run.close()
    assert [each.get("val_loss") for each in read(run, "on_epoch_end")] == [None] * 3


FORMS = {
    "loss, logits": (lambda y, a, b: (a + b, y), lambda out: out[0], None),
    "logits, loss": (lambda y, a, b: (y, a + b), lambda out: out[1], None),
    "loss, accuracy": (lambda y, a, b: (a + b, (y > 0).float().mean()), lambda out: out[0], None),
    "loss, None": (lambda y, a, b: (a + b, None), lambda out: out[0], None),
    "two losses": (lambda y, a, b: (y, a, b), lambda out: out[1] + out[2], ["Net[1]", "Net[2]"]),
    "loss, dict": (lambda y, a, b: (a + b, {"loss_a": a, "loss_b": b}), lambda out: out[0], ["loss_a", "loss_b"]),
    "dict, logits": (lambda y, a, b: ({"a": a, "b": b, "acc": y.mean().detach()}, y),
                     lambda out: out[0]["a"] + out[0]["b"], ["a", "b"]),
    "loss": (lambda y, a, b: a + b, lambda out: out, None),
}  # fmt: skip


@pytest.mark.sampled(6)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("who", ["itself", "in a wrapper", "a copy"])
def test_losses_in_a_tuple_validate(watch, read, form, who):
    give, pick, names = FORMS[form]

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 2)

        def forward(self, x):
            y = self.linear(x)
            return give(y, y[:, 0].pow(2).mean(), (y[:, 1] - 1).abs().mean())

    torch.manual_seed(0)
    net = Net()
    model = Wrap(net) if who == "in a wrapper" else net
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    run, judged = watch(model, optimizer), copy.deepcopy(net) if who == "a copy" else net
    train, valid = Loader(torch.randn(20, 4), 4), Loader(torch.randn(8, 4), 4)
    truth, totals = [], []
    for _ in range(2):
        model.train()
        for x in train:
            optimizer.zero_grad()
            loss = pick(model(x))
            loss.backward()
            optimizer.step()
            totals.append(loss.item())
        model.eval()
        with torch.no_grad():
            truth.append(sum(pick(judged.eval()(x)).item() for x in valid) / 2)
    run.close()
    batches, ends = read(run, "on_batch_losses"), read(run, "on_epoch_end")
    assert [each["total"] for each in batches] == pytest.approx(totals)
    for each in batches:
        called = [name.replace("Wrap", "Net") for name in each["losses"]] if names else None
        assert called == names if names else isinstance(each["losses"], float)
    found = [sum(each["val_loss"].values()) if names else each["val_loss"] for each in ends]
    assert found == pytest.approx(truth)


UNHEARD = "a pass over data that is not trained on gave no loss"


def functional(y, t):
    return nn.functional.mse_loss(y, t)


def test_a_mean_that_the_loop_takes_of_a_criterion_is_said_to_be_unheard(watch, read, said):
    each = nn.MSELoss(reduction="none")
    ends = by_function(watch, read, lambda y, t: (each(y, t) * torch.tensor([1.0, 2.0])).mean(), "whole", 3)
    assert [end.get("val_loss") for end in ends] == [None] * 3
    (line,) = [line for line in said() if UNHEARD in line]
    assert "reduction='none'" in line


@pytest.mark.parametrize(("validate", "epochs"), [("whole", 3), ("whole", 1), ("cut", 2), ("one", 2), ("inside", 2)])
def test_a_validation_by_a_function_is_said_to_be_unheard(watch, read, said, validate, epochs):
    ends = by_function(watch, read, functional, validate, epochs)
    assert len(ends) == epochs
    assert not any("val_loss" in each for each in ends)
    assert sum(UNHEARD in each for each in said()) == 1


@pytest.mark.parametrize("validate", ["none", "trained on", "same data", "beside", "told", "before"])
def test_what_is_no_unheard_validation_is_not_said(watch, read, said, validate):
    by_function(watch, read, functional, validate, 3)
    assert not any(UNHEARD in each for each in said())


@pytest.mark.parametrize("validate", ["whole", "cut", "one"])
def test_a_validation_by_a_module_is_heard(watch, read, said, validate):
    ends = by_function(watch, read, nn.MSELoss(), validate, 3)
    assert all("val_loss" in each for each in ends)
    assert not any(UNHEARD in each for each in said())


def by_function(watch, read, loss, validate, epochs):
    """Trains with a loss, and validates in one of many ways."""
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    data = torch.randn(20, 4)
    train, other = Loader(data, 4, shuffle=True), Loader(torch.randn(1 if validate == "one" else 10, 4), 4)
    if validate == "before":
        sum(x.mean() for x in other)
    run = watch(model, optimizer)
    for _ in range(epochs):
        beside = iter(Loader(torch.randn(30, 4), 4))
        for x in train:
            if validate == "beside":
                x = torch.cat([x, next(beside)])
            found = loss(model(x), torch.ones(len(x), 2))
            optimizer.zero_grad()
            found.backward()
            optimizer.step()
        looked = {"trained on": train, "same data": Loader(data, 5)}.get(validate, other)
        values = []
        with torch.set_grad_enabled(validate == "inside"):
            for place, x in enumerate(looked if validate not in ("none", "before", "beside") else ()):
                with torch.no_grad():
                    values.append(loss(model(x), torch.ones(len(x), 2)).item())
                if validate == "cut" and place:
                    break
        if validate == "told":
            run.end_epoch(val_loss=sum(values) / len(values))
    run.close()
    return read(run, "on_epoch_end")


@pytest.mark.parametrize("data", ["slices", "lists", "loader"])
def test_data_that_cannot_be_told_from_training_data_are_said(watch, read, said, data):
    torch.manual_seed(0)
    tokens, others = torch.randn(400, 4), torch.randn(100, 4)

    def batch(source):  # as where windows of a long text are drawn
        starts = torch.randint(len(source) - 4, (2,)).tolist()
        return torch.cat([source[start : start + 4] for start in starts])

    train = {"slices": lambda: [batch(tokens) for _ in range(3)], "loader": lambda: loader}.get(data, lambda: kept)
    kept, loader = [batch(tokens) for _ in range(3)], Loader(tokens, 8)
    net = Dict()
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    run = watch(net, optimizer)
    for _ in range(3):
        net.train()
        for x in train():
            optimizer.zero_grad()
            sum(net(x).values()).backward()
            optimizer.step()
        net.eval()
        with torch.no_grad():
            for source in (tokens, others) if data == "slices" else (others,):
                net(batch(source))
    run.close()
    assert all("val_loss" in each for each in read(run, "on_epoch_end"))
    assert sum("no DataLoader gave the data" in line for line in said()) == (data == "slices")


def test_the_first_epoch_has_its_val_loss_beside_an_optimizer_that_never_steps(watch, read):
    torch.manual_seed(0)
    net = Dict()
    optimizer, later = torch.optim.SGD(net.parameters(), 0.01), torch.optim.Adam(net.parameters())
    train, other = Loader(torch.randn(20, 4), 4), Loader(torch.randn(8, 4), 4)
    run = watch(net, [optimizer, later])
    expected = []
    for _ in range(2):
        for x in train:
            optimizer.zero_grad()
            sum(net(x).values()).backward()
            optimizer.step()
        with torch.no_grad():
            losses = [net(x) for x in other]
        expected.append({name: sum(each[name].item() for each in losses) / len(losses) for name in losses[0]})
    run.close()
    assert [each["val_loss"] for each in read(run, "on_epoch_end")] == [pytest.approx(each) for each in expected]


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("parts", ["rest", "all", "outside"])
def test_a_validation_has_the_total_that_the_model_gives(watch, read, said, every, parts):
    class Mixture(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 2)

        def forward(self, x):
            y = self.linear(x)
            main, aux = y[:, 0].pow(2).mean(), y[:, 1].abs().mean()
            found = {"loss": main + 0.02 * aux, "aux_loss": aux, "features": y}
            return found | {"main_loss": main} if parts == "all" else found

    torch.manual_seed(0)
    net = Mixture()
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    train, other = Loader(torch.randn(24, 4), 4), Loader(torch.randn(8, 4), 4)
    run = watch(net, optimizer)
    totals, validated = [], []
    for _ in range(2):
        for index, x in enumerate(train):
            loss = net(x)["loss"] / every
            if parts == "outside":
                loss = loss + net.linear.weight.square().sum()
            loss.backward()
            totals.append(loss.item())
            if index % every == every - 1:
                optimizer.step()
                optimizer.zero_grad()
        with torch.no_grad():
            validated.append(sum(net(x)["loss"].item() for x in other) / len(other))
    run.close()
    batches, ends = read(run, "on_batch_losses"), read(run, "on_epoch_end")
    assert [each["total"] for each in batches] == pytest.approx(
        [sum(totals[start : start + every]) for start in range(0, len(totals), every)]
    )
    assert all(("main_loss" in each["losses"]) == (parts == "all") for each in batches)
    if parts == "outside":
        assert not any("loss" in each["val_loss"] for each in ends)
    else:
        assert [each["val_loss"]["loss"] for each in ends] == pytest.approx(validated)
    assert sum("the total that the model gives" in line for line in said()) == (parts == "rest")
    assert sum("comes from outside the model" in line for line in said()) == (parts == "outside")


@pytest.mark.parametrize("grad", [False, True])
def test_a_validation_has_the_total_of_a_criterion_that_is_made_of_what_the_model_gives(watch, read, said, grad):
    class Quantised(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 2)

        def forward(self, x):
            y = self.linear(x)
            return {"y": y, "commitment": y.abs().mean()}

    class Whole(nn.Module):
        def forward(self, found, x):
            return (found["y"] - x[:, :2]).square().mean() + 0.25 * found["commitment"], len(x)

    torch.manual_seed(0)
    net, criterion = Quantised(), Whole()
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    train, other = Loader(torch.randn(24, 4), 4), Loader(torch.randn(8, 4), 4)
    run, validated = watch(net, optimizer), []
    for _ in range(2):
        for x in train:
            optimizer.zero_grad()
            criterion(net(x), x)[0].backward()
            optimizer.step()
        with torch.set_grad_enabled(grad):
            validated.append(sum(criterion(net(x), x)[0].item() for x in other) / len(other))
    run.close()
    ends = read(run, "on_epoch_end")
    assert [each["val_loss"]["loss"] for each in ends] == pytest.approx(validated)
    assert all({*each["val_loss"]} == {"commitment", "loss"} for each in ends)
    assert not any("comes from outside" in line for line in said())
