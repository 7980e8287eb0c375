"""Whose step it is: several optimizers, later ones, wrappers, models made later; what is said where less is seen."""

import copy
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import losslog

ROOT = Path(__file__).parents[2]


@pytest.fixture
def said(caplog):
    caplog.set_level("INFO", "losslog")
    return lambda: [each.getMessage() for each in caplog.records]


@pytest.fixture
def script(tmp_path, read):
    """Runs a script under ``losslog run`` with the journal alone; its run, and what was said."""

    def run(text, *options):
        (tmp_path / "train.py").write_text(textwrap.dedent(text))
        command = [sys.executable, "-m", "losslog", "run", "--plugins", ",", *options, "train.py"]
        environment = {"PYTHONPATH": str(ROOT), "PATH": "", "HOME": str(tmp_path)}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120,
                              check=False)  # fmt: skip
        assert done.returncode == 0, done.stderr
        found = list(tmp_path.glob("runs/*/*"))
        return (type("Run", (), {"dir": found[0]}) if found else None), done.stderr

    return run


GAN = """
import torch, torch.nn as nn
class Generator(nn.Module):
    def __init__(self): super().__init__(); self.l = nn.Linear(4, 4)
    def forward(self, x): return self.l(x)
class Critic(Generator): pass
torch.manual_seed(0); G, D, bce = Generator(), Critic(), nn.BCEWithLogitsLoss()
og, od = torch.optim.Adam(G.parameters(), 1e-3), torch.optim.Adam(D.parameters(), 1e-3)
one = lambda p, real: bce(p, torch.full_like(p, real))
def g():
    x = torch.randn(2, 4); loss = one(D(G(x)), 1.0)
    og.zero_grad(); loss.backward(); og.step(); print("G", loss.item())
def d():
    x = torch.randn(2, 4); od.zero_grad(); loss = one(D(x), 1.0) + one(D(G(x).detach()), 0.0)
    loss.backward(); od.step(); print("D", loss.item())
"""


@pytest.mark.parametrize("order", ["gd", "dg", "dddg"])
def test_a_gan_has_two_series(script, read, order):
    run, _ = script(GAN + f"for _ in range(4):\n    for which in {order!r}: {{'g': g, 'd': d}}[which]()\n")
    batches = read(run, "on_batch_losses")
    names = [*dict.fromkeys(name for each in batches for name in each["losses"])]
    assert set(names) == {"G/loss", "D/loss"}
    assert [next(iter(each["losses"]))[0].lower() for each in batches] == list(order) * 4
    means = read(run, "on_epoch_end")[0]["losses"]
    assert set(means) == {"G/loss", "D/loss"}


def test_a_gan_in_a_function_has_its_variables_names(script, read):
    text = """
    import torch
    from torch import nn
    bce = nn.BCEWithLogitsLoss()

    def update(net, optimizer, loss):
        optimizer.zero_grad(); loss.backward(); optimizer.step()

    def main():
        G, D = nn.Sequential(nn.Linear(4, 6)), nn.Sequential(nn.Linear(6, 1))
        first, second = torch.optim.Adam(G.parameters()), torch.optim.Adam(D.parameters())
        one = torch.ones(4, 1)
        for _ in range(5):
            fake = G(torch.randn(4, 4))
            update(D, second, bce(D(torch.randn(4, 6)), one) + bce(D(fake.detach()), 0 * one))
            update(G, first, bce(D(fake), one))

    main()
    """
    run, _ = script(text)
    assert [{*each["losses"]} for each in read(run, "on_batch_losses")] == [{"D/loss"}, {"G/loss"}] * 5


SEVERAL = """
import itertools, torch, torch.nn as nn
class Net(nn.Module):
    def __init__(self): super().__init__(); self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
    def forward(self, x): return self.b(self.a(x).relu())
torch.manual_seed(0)
G, msd, mpd, more = Net(), Net(), Net(), [Net(), Net()]
factor = nn.Parameter(torch.ones(()))
both = nn.ModuleDict({"gen": G, "d": nn.ModuleList([msd, mpd])})
def critics(x): return sum(each(x).pow(2).mean() for each in judges)
HOW
def run(optim_g, optim_d):
    for _ in range(4):
        x = torch.randn(2, 4)
        for optimizer, sign in ((optim_d, 1), (optim_g, -1)):
            both.zero_grad(); optimizer.zero_grad(); (sign * critics(G(x)) * factor).backward(); optimizer.step()
run(torch.optim.AdamW(G.parameters()), torch.optim.AdamW(trained))
"""


@pytest.mark.parametrize(("how", "name"), [
    ("judges = [mpd, msd]; trained = itertools.chain(msd.parameters(), mpd.parameters())", "msd+mpd"),
    ("judges = [msd]; trained = [*msd.parameters(), factor]", "msd"),
    ("judges = [msd]; trained = [*msd.a.parameters(), *msd.b.parameters()]", "msd"),
    ("judges = [msd]; trained = msd.b.parameters()", "b"),
    ("judges = [msd, mpd, *more]; "
     "trained = [p for net in judges for each in net.children() for p in each.parameters()]", "msd+mpd+net"),
    ("judges = [msd, mpd]; trained = [factor]", "optim_d"),
])  # fmt: skip
def test_an_optimizer_over_several_modules_has_their_names(script, read, how, name):
    run, _ = script(SEVERAL.replace("HOW", how))
    assert [{*each["losses"]} for each in read(run, "on_batch_losses")] == [{f"{name}/loss"}, {"G/loss"}] * 4


def test_two_optimizers_that_step_on_one_loss_are_one_series(two, data, watch, read):
    first, second = torch.optim.SGD([two.linear.weight], 0.1), torch.optim.Adam([two.linear.bias], 0.01)
    run = watch(two, [first, second])
    for batch in data[0]:
        loss = sum(two(batch).values())
        first.zero_grad()
        second.zero_grad()
        loss.backward()
        first.step()
        second.step()
    run.close()
    batches = read(run, "on_batch_losses")
    assert len(batches) == 5
    assert {*batches[0]["losses"]} == {"loss_a", "loss_b"}


@pytest.fixture
def pair():
    class Pair(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = torch.nn.Linear(4, 1), torch.nn.Linear(4, 1)

        def forward(self, x):
            return {"loss_left": self.left(x).square().mean(), "loss_right": self.right(x).abs().mean()}

    return Pair()


@pytest.mark.parametrize("every", [1, 2])
def test_the_rates_of_all_optimizers_of_one_series_are_recorded(pair, data, watch, read, every):
    trunk, (weight, bias) = torch.optim.SGD(pair.left.parameters(), lr=0.05), pair.right.parameters()
    groups = [{"params": [weight], "name": "weights"}, {"params": [bias], "lr": 0.002}]
    head = torch.optim.Adam(groups, lr=0.01)
    schedule = torch.optim.lr_scheduler.ExponentialLR(head, 0.5)
    run = watch(pair, [trunk, head])
    for step, batch in enumerate(data[0]):
        sum(pair(batch).values()).backward()
        trunk.step()
        trunk.zero_grad()
        if step % every == every - 1:
            head.step()
            head.zero_grad()
        if step == len(data[0]) - 2:
            schedule.step()
    run.close()
    rates = [each["lr"] for each in read(run, "on_batch_losses")]
    expected = {"SGD": 0.05, "Adam/weights": 0.01, "Adam/1": 0.002}
    assert rates[:-1] == [expected] * (len(rates) - 1)
    assert rates[-1] == {"SGD": 0.05, "Adam/weights": 0.005, "Adam/1": 0.001}


def test_two_optimizers_of_one_kind_have_rates_by_number(pair, data, watch, read):
    one, other = torch.optim.SGD(pair.left.parameters(), lr=0.1), torch.optim.SGD(pair.right.parameters(), lr=0.2)
    run = watch(pair, [one, other])
    for batch in data[0]:
        sum(pair(batch).values()).backward()
        for each in (one, other):
            each.step()
            each.zero_grad()
    run.close()
    assert read(run, "on_batch_losses")[-1]["lr"] == {"SGD": 0.1, "SGD_2": 0.2}
    assert read(run, "on_epoch_end")[-1]["lr"] == {"SGD": 0.1, "SGD_2": 0.2}


def test_folds_lose_no_step(script, read):
    run, _ = script("""
        import torch, torch.nn.functional as F
        data = torch.utils.data.DataLoader(torch.randn(4, 4), 4)
        for fold in range(5):
            model = torch.nn.Linear(4, 1)
            optimizer = torch.optim.SGD(model.parameters(), 0.1)
            for epoch in range(3):
                for batch in data:
                    loss = model(batch).pow(2).mean()
                    optimizer.zero_grad(); loss.backward(); optimizer.step()
        """)
    batches = read(run, "on_batch_losses")
    assert len(batches) == 15
    assert all(isinstance(each["losses"], float) for each in batches)
    assert len(read(run, "on_epoch_end")) == 15


@pytest.mark.parametrize("named", [True, False])
def test_a_later_optimizer_is_watched_and_said_once(two, data, watch, read, said, named):
    heads = torch.optim.SGD([two.linear.bias], lr=0.1)
    made_before = torch.optim.SGD([two.linear.weight], lr=0.1)
    run = watch(two, heads)
    second = torch.optim.Adam(two.parameters(), lr=0.01) if named else made_before
    for optimizer in (heads, second):
        for batch in data[0]:
            loss = sum(two(batch).values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    run.close()
    assert len(read(run, "on_batch_losses")) == 10
    assert sum("over parameters of Two is watched too" in each for each in said()) == 1


class Sharp(torch.optim.Optimizer):
    """SAM as people write it: two looks, and the step of an optimizer inside."""

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})
        self.base = torch.optim.SGD(self.param_groups, lr=lr)

    @torch.no_grad()
    def first_step(self):
        self.moved = {}
        for parameter in self.param_groups[0]["params"]:
            self.moved[parameter] = parameter.clone()
            parameter.add_(parameter.grad, alpha=0.05)
        self.zero_grad()

    @torch.no_grad()
    def second_step(self):
        for parameter, value in self.moved.items():
            parameter.copy_(value)
        self.base.step()
        self.zero_grad()


def test_sam_counts_once_a_batch(two, data, watch, read):
    optimizer = Sharp(two.parameters(), 0.1)
    run = watch(two, optimizer)
    second = []
    for batch in data[0]:
        sum(two(batch).values()).backward()
        optimizer.first_step()
        loss = sum(two(batch).values())
        loss.backward()
        optimizer.second_step()
        second.append(loss.item())
    run.close()
    assert [each["total"] for each in read(run, "on_batch_losses")] == pytest.approx(second)
    assert read(run, "on_epoch_end")[0]["total"] == pytest.approx(sum(second) / 5)


@pytest.mark.parametrize("calls_inner", [True, False])
def test_a_wrapper_that_never_calls_the_inner_step(two, data, watch, read, calls_inner):
    class Wrapper:
        def __init__(self, optimizer):
            self.optimizer = optimizer

        def step(self):
            if calls_inner:
                self.optimizer.step()
                return
            for parameter in two.parameters():
                parameter.data -= 0.1 * parameter.grad

    wrapper = Wrapper(torch.optim.SGD(two.parameters(), 0.1))
    run = watch(two, wrapper)
    for batch in data[0]:
        wrapper.optimizer.zero_grad()
        sum(two(batch).values()).backward()
        wrapper.step()
    run.close()
    assert "step" not in vars(wrapper)
    assert len(read(run, "on_batch_losses")) == 5


def test_attaching_in_the_middle_of_a_step_says_what_it_missed(two, data, watch, read, said):
    optimizer = torch.optim.SGD(two.parameters(), 0.1)
    batches = list(data[0])
    sum(two(batches[0]).values()).backward()
    run = watch(two, optimizer)
    optimizer.step()
    for batch in batches[1:]:
        optimizer.zero_grad()
        sum(two(batch).values()).backward()
        optimizer.step()
    run.close()
    assert len(read(run, "on_batch_losses")) == 4
    assert any("the step under way when losslog.attach was called is not recorded" in each for each in said())


def test_attaching_before_backward_misses_nothing_of_the_total(two, data, watch, read):
    optimizer = torch.optim.SGD(two.parameters(), 0.1)
    loss = sum(two(next(iter(data[0]))).values())
    run = watch(two, optimizer)
    loss.backward()
    optimizer.step()
    run.close()
    assert [each["total"] for each in read(run, "on_batch_losses")] == [loss.item()]


def test_an_endless_loader_and_a_plan(two, watch, read):
    class Endless(torch.utils.data.IterableDataset):
        def __iter__(self):
            while True:
                yield torch.randn(4)

    optimizer = torch.optim.SGD(two.parameters(), 0.01)
    run = watch(two, optimizer, steps_per_epoch=4)
    loader = iter(torch.utils.data.DataLoader(Endless(), 2))
    for _ in range(12):
        optimizer.zero_grad()
        sum(two(next(loader)).values()).backward()
        optimizer.step()
    run.close()
    assert [each["epoch"] for each in read(run, "on_batch_losses")] == [1] * 4 + [2] * 4 + [3] * 4


@pytest.mark.parametrize("accumulate", [1, 4])
def test_batches_fetched_ahead_and_train_before_every_forward(two, watch, read, accumulate):
    optimizer = torch.optim.SGD(two.parameters(), 0.01)
    run = watch(two, optimizer)
    data = torch.utils.data.DataLoader(torch.randn(32, 4), 1)
    for _ in range(2):
        batches = iter(data)
        for window in range(32 // accumulate):
            fetched = [next(batches) for _ in range(accumulate)]
            if window == 32 // accumulate - 1:
                next(batches, None)
            for batch in fetched:
                two.train()
                (sum(two(batch).values()) / accumulate).backward()
            optimizer.step()
            optimizer.zero_grad()
    run.close()
    steps = 32 // accumulate
    assert [each["epoch"] for each in read(run, "on_batch_losses")] == [1] * steps + [2] * steps


@pytest.mark.parametrize("steps", [3, 25])
def test_never_silent_where_no_optimizer_of_torch_steps(script, steps):
    run, said = script(f"""
        import torch
        model = torch.nn.Linear(4, 1)
        for _ in range({steps}):
            model(torch.randn(2, 4)).pow(2).mean().backward()
            with torch.no_grad():
                for each in model.parameters(): each -= 0.1 * each.grad; each.grad = None
        """)
    assert run is None
    assert said.count("backward passes were heard, and no step") == (1 if steps == 3 else 2)
    assert f"{steps} backward passes were heard" in said
    assert "run.log_batch(losses)" in said


@pytest.mark.parametrize("steps", [3, 25])
def test_never_silent_where_no_losses_are_seen(script, steps):
    run, said = script(f"""
        import torch
        model = torch.nn.Linear(4, 1); optimizer = torch.optim.SGD(model.parameters(), 0.1)
        for _ in range({steps}):
            for each in model.parameters(): each.grad = torch.ones_like(each)
            optimizer.step()
        """)
    assert run is None
    assert said.count("neither a backward pass nor a model gave losses") == (1 if steps == 3 else 2)


def test_an_optimizer_of_other_parameters_is_said(watch, caplog):
    watch(nn.Linear(4, 1), torch.optim.SGD(nn.Linear(4, 1).parameters(), 0.1)).close()
    assert "(SGD) trains no parameter of the model (Linear)" in caplog.text


def test_optimizers_with_some_or_frozen_parameters_are_fine(watch, caplog):
    model, other = nn.Linear(4, 1).requires_grad_(False), nn.Linear(4, 1)
    watch(model, [torch.optim.SGD(other.parameters(), 0.1), torch.optim.Adam([model.bias])]).close()
    assert "trains no parameter" not in caplog.text


def test_optimizers_of_others_name_their_adapter(two):
    kinds = {
        package: type("Adam", (type("Optimizer", (), {"__module__": f"{package}.optimizer"}),), {"__module__": "mine"})
        for package in ("keras", "fastai")
    }
    for package, kind in kinds.items():
        with pytest.raises(TypeError, match=f"losslog.compat.{package}.LosslogCallback"):
            losslog.attach(two, kind(), plugins=None)


def test_a_model_that_no_backward_pass_comes_to_gives_metrics(watch, read):
    """As trl's DPO, whose model computes a loss of its own that nobody optimises."""

    class Language(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x):
            logits = self.layer(x)
            return {"loss": logits.pow(2).mean(), "logits": logits}

    model = Language()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    run = watch(model, optimizer)
    found = []
    for batch in torch.utils.data.DataLoader(torch.randn(20, 4), 4):
        output = model(batch)
        loss = -F.logsigmoid(output["logits"]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append((loss.item(), output["loss"].item()))
    run.close()
    assert [each["losses"] for each in read(run, "on_batch_losses")] == pytest.approx([each for each, _ in found])
    assert [each["metrics"] for each in read(run, "on_metrics")] == [{"Language.loss": each} for _, each in found[1:]]


def test_a_frozen_criterion_is_the_trained_models(watch, read):
    class Perceptual(nn.Module):
        def __init__(self):
            super().__init__()
            self.features = nn.Linear(4, 4).requires_grad_(False)

        def forward(self, a, b):
            return {"loss_pix": (a - b).abs().mean(), "loss_feat": (self.features(a) - self.features(b)).pow(2).mean()}

    model, criterion = nn.Linear(4, 4), Perceptual()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    run = watch(model, optimizer)
    for _ in range(3):
        x = torch.randn(2, 4)
        optimizer.zero_grad()
        sum(criterion(model(x), x).values()).backward()
        optimizer.step()
    run.close()
    assert [{*each["losses"]} for each in read(run, "on_batch_losses")] == [{"loss_pix", "loss_feat"}] * 3


def test_a_teacher_that_is_a_copy_changes_nothing(two, data, watch, read):
    teacher = copy.deepcopy(two)
    optimizer = torch.optim.SGD(two.parameters(), 0.1)
    run = watch(two, optimizer)
    for batch in data[0]:
        with torch.no_grad():
            teacher(batch)
        optimizer.zero_grad()
        sum(two(batch).values()).backward()
        optimizer.step()
    run.close()
    assert len(read(run, "on_batch_losses")) == 5


def test_another_optimizer_that_is_adopted_has_missed_no_step(two, data, watch, read, said):
    parameters = [*two.parameters()]
    first, second = torch.optim.SGD(parameters[:1], 0.1), torch.optim.SGD(parameters[1:], 0.1)
    run = watch(two, first)
    for batch in data[0]:
        first.zero_grad()
        second.zero_grad()
        sum(two(batch).values()).backward()
        first.step()
        second.step()
    run.close()
    assert len(read(run, "on_batch_losses")) == len(data[0])
    assert not any("under way" in each for each in said())


def test_steps_that_a_scaler_skipped_are_named_so(two, data, watch, said):
    optimizer, scaler = torch.optim.SGD(two.parameters(), 0.1), torch.amp.GradScaler("cpu", init_scale=2.0**120)
    run = watch(two, optimizer)
    for batch in [*data[0]] * 5:
        optimizer.zero_grad()
        scaler.scale(sum(two(batch).values()) * 1e20).backward()
        scaler.step(optimizer)
        scaler.update(2.0**120)
    run.close()
    told = " ".join(said())
    assert "no step was taken, the GradScaler skipped" in told
    assert "no step of an optimizer" not in told


REPTILE = """
import copy, itertools, torch
from torch import nn
torch.manual_seed(0)
m, c = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1)), nn.MSELoss()
outer = torch.optim.{outer}(m.parameters(), 1e-2)
kept = []
for task in range(8):
    f = copy.deepcopy(m); inner = torch.optim.SGD(f.parameters(), 0.1)
    if {keep}: kept.append((f, inner))
    for _ in range(3):
        x = torch.randn(8, 1); loss = c(f(x), x.sin())
        inner.zero_grad(); loss.backward(); inner.step(); print("INNER", loss.item())
    outer.zero_grad()
    if {meta}:
        x = torch.randn(8, 1); loss = c(m(x), x.sin()); loss.backward(); print("OUTER", loss.item())
    else:
        for p, q in zip(m.parameters(), f.parameters()): p.grad = p.data - q.data
    outer.step()
"""


@pytest.mark.sampled(2)
@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("outer", ["SGD", "Adam"])
def test_optimizers_made_for_each_task_are_one_series(script, read, outer, keep):
    run, told = script(REPTILE.format(outer=outer, keep=keep, meta=False))
    batches, (end,) = read(run, "on_batch_losses"), read(run, "on_epoch_end")
    assert len(batches) == 24
    assert all(isinstance(each["losses"], float) for each in batches)
    assert end["losses"] == pytest.approx(sum(each["losses"] for each in batches) / 24)
    assert f"8 steps of {outer} had neither a backward pass nor losses" in told
    assert "folds, trials or phases" not in told


@pytest.mark.parametrize("keep", [False, True])
def test_with_losses_of_the_whole_there_are_two(script, read, keep):
    run, told = script(REPTILE.format(outer="Adam", keep=keep, meta=True))
    batches, (end,) = read(run, "on_batch_losses"), read(run, "on_epoch_end")
    assert [[*each["losses"]] for each in batches] == [*[["f/loss"]] * 3, ["m/loss"]] * 8
    assert end["total"] == pytest.approx(sum(each["total"] for each in batches) / 32)
    assert "steps of Adam" not in told
    assert "folds, trials or phases" not in told


def test_networks_alike_with_optimizers_from_the_start_are_several_series(watch, read):
    torch.manual_seed(0)
    pair = nn.ModuleDict({"a": nn.Linear(4, 1), "b": nn.Linear(4, 1)})
    optimizers = [torch.optim.SGD(each.parameters(), 0.1) for each in pair.values()]
    run, mse = watch(pair, optimizers), nn.MSELoss()
    for x in torch.randn(5, 4, 4):
        for net, optimizer in zip(pair.values(), optimizers, strict=True):
            optimizer.zero_grad()
            mse(net(x), torch.ones(4, 1)).backward()
            optimizer.step()
    run.close()
    batches, (end,) = read(run, "on_batch_losses"), read(run, "on_epoch_end")
    assert [[*each["losses"]] for each in batches] == [["a/loss"], ["b/loss"]] * 5
    assert set(end["losses"]) == {"a/loss", "b/loss"}
    assert end["total"] == pytest.approx(sum(each["total"] for each in batches) / 10)


@pytest.mark.parametrize("named", ["both", "one"])
def test_an_optimizer_that_is_seen_late_is_no_heir(watch, read, named):
    torch.manual_seed(0)
    pair = nn.ModuleDict({"a": nn.Linear(4, 1), "b": nn.Linear(4, 1)})
    first, second = (torch.optim.SGD(each.parameters(), 0.1) for each in pair.values())
    run, mse = watch(pair, [first, second] if named == "both" else first), nn.MSELoss()
    for x in torch.randn(40, 4, 4):
        for net, optimizer in (("a", first), ("b", second)):
            optimizer.zero_grad()
            mse(pair[net](x), torch.ones(4, 1)).backward()
            optimizer.step()
    run.close()
    assert {name for each in read(run, "on_batch_losses")[-8:] for name in each["losses"]} == {"a/loss", "b/loss"}


def test_a_gans_epoch_total_is_the_mean_of_its_steps(script, read):
    run, _ = script(GAN + "for _ in range(4):\n    for which in 'dddg': {'g': g, 'd': d}[which]()\n")
    batches, (end,) = read(run, "on_batch_losses"), read(run, "on_epoch_end")
    assert end["total"] == pytest.approx(sum(next(iter(each["losses"].values())) for each in batches) / 16)


COMPILED = """
import torch, torch.nn.functional as F
from torch import nn
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
optimizer = torch.optim.SGD(model.parameters(), 0.1)
@torch.compile(backend="aot_eager")
def losses(x): y = model(x); return F.mse_loss(y, torch.ones_like(y)), 0.01 * y.pow(2).mean()
for x in torch.randn(6, 8, 4):
    optimizer.zero_grad(); sum(losses(x)).backward(); optimizer.step()
"""


def test_parameters_of_a_model_in_a_compiled_function_are_parameters(script):
    _, told = script(COMPILED)
    assert "no parameter of the model" not in told
    assert "of no model that was seen being called (one in a compiled function, a copy)" in told


def test_passes_of_an_optimizer_that_is_not_watched_are_not_called_stepless(watch, read, caplog):
    """Of a GAN only D is attached: G's passes leave gradients in D, which its next step throws away."""
    torch.manual_seed(0)
    d, g = torch.nn.Linear(4, 1), torch.nn.Linear(2, 4)
    first, second = torch.optim.SGD(d.parameters(), 0.01), torch.optim.SGD(g.parameters(), 0.01)
    run, criterion, truth = watch(d, first), torch.nn.MSELoss(), []
    loader = torch.utils.data.DataLoader(torch.randn(20, 4), 4)
    for _ in range(2):
        losses = []
        for x in loader:
            d.zero_grad()
            fake = g(torch.randn(4, 2))
            loss = criterion(d(x), torch.ones(4, 1)) + criterion(d(fake.detach()), torch.zeros(4, 1))
            loss.backward()
            first.step()
            losses.append(loss.item())
            g.zero_grad()
            criterion(d(fake), torch.ones(4, 1)).backward()
            second.step()
        truth.append(sum(losses) / len(losses))
    run.close()
    assert [each["total"] for each in read(run, "on_epoch_end")] == pytest.approx(truth)
    assert "no step" not in caplog.text


@pytest.mark.parametrize("divided", [True, False])
@pytest.mark.parametrize("named", [True, False])
def test_a_rest_of_accumulation_counts_in_the_epoch_as_other_passes(two, watch, read, divided, named):
    optimizer, loader = torch.optim.SGD(two.parameters(), 0.01), torch.utils.data.DataLoader(torch.randn(28, 4), 4)
    run, truth = watch(two, optimizer), []
    for _ in range(2):
        losses = []
        optimizer.zero_grad()
        for index, x in enumerate(loader):  # seven batches, two a step: of the last nothing comes
            loss = sum(two(x).values()) if named else two.linear(x).square().mean()
            (loss / 2 if divided else loss).backward()
            losses.append(loss.item() * (1 if divided else 2))
            if index % 2:
                optimizer.step()
                optimizer.zero_grad()
        truth.append(sum(losses) / len(losses))
    run.close()
    assert [each["total"] for each in read(run, "on_epoch_end")] == pytest.approx(truth)
