"""What stands beside the model that is trained: other optimizers, teachers, later models, tensors of their own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import losslog
from losslog.instrument.passes import EpochFinder
from losslog.instrument.script import ScriptObserver

Loader = torch.utils.data.DataLoader


@pytest.fixture
def said(caplog):
    caplog.set_level("INFO", "losslog")
    return lambda: [each.getMessage() for each in caplog.records]


@pytest.fixture
def unaware(tmp_path):
    """Runs a loop as ``losslog run`` would, that is to say without a word in it; gives its run."""

    def run(loop):
        made = lambda about: losslog.Run("t", dir=tmp_path, plugins=None, config=about)  # noqa: E731
        observer = ScriptObserver(made, EpochFinder())
        try:
            loop()
        finally:
            observer.run_ends("finished")
        observer.logbook.run.close()
        return observer.logbook.run

    return run


def batches(steps=10):
    torch.manual_seed(1)
    return Loader(torch.randn(4 * steps, 4), 4)


def step(optimizer, loss):
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def made(width=8, out=3):
    return nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, out))


def sgd(*modules):
    return torch.optim.SGD([each for one in modules for each in one.parameters() if each.requires_grad], lr=0.01)


@pytest.mark.parametrize("first", ["critic", "maker"])
@pytest.mark.parametrize("several", [1, 3])
@pytest.mark.parametrize("how", ["run", "both", "critic", "maker"])
def test_what_is_frozen_only_in_another_optimizers_turn_is_not_frozen_from_the_start(
    watch, unaware, read, first, several, how
):
    torch.manual_seed(0)
    critic, maker = made(out=1), nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 4))
    of_critic, of_maker = sgd(critic), sgd(maker)

    def judge(batch):
        critic.requires_grad_(True)
        for _ in range(several):
            step(of_critic, (critic(maker(torch.randn(4, 2)).detach()) - critic(batch)).mean())

    def make(batch):
        critic.requires_grad_(False)
        step(of_maker, -critic(maker(torch.randn(4, 2))).mean())

    def loop():
        for _ in range(3):
            for batch in batches():
                for each in (judge, make) if first == "critic" else (make, judge):
                    each(batch)

    if how == "run":
        run = unaware(loop)
    else:
        run = watch(critic, of_critic) if how != "maker" else watch(maker, of_maker)
        if how == "both":
            watch_too = losslog.attach(maker, of_maker, run=run)
            assert watch_too is run
        loop()
        run.close()
    assert [each["text"] for each in read(run, "on_alert")] == []


def test_what_one_optimizer_trains_by_turns_is_not_frozen_from_the_start(watch, read):
    torch.manual_seed(0)
    model = made()
    run = watch(model, optimizer := sgd(model))
    for _ in range(3):
        for batch in batches():
            for which in (0, 2):
                model[0].requires_grad_(which == 0)
                model[2].requires_grad_(which == 2)
                step(optimizer, model(batch).square().mean())
    run.close()
    assert [each["text"] for each in read(run, "on_alert")] == []


def test_what_is_frozen_and_in_the_optimizer_is_frozen_from_the_start(unaware, read):
    torch.manual_seed(0)
    first, second = made(), made(out=1)
    optimizers = sgd(first), sgd(second)
    first[0].requires_grad_(False)

    def loop():
        for _ in range(3):
            for batch in batches():
                step(optimizers[0], first(batch).square().mean())
                step(optimizers[1], (second(batch) - 1).square().mean())

    (alert,) = read(unaware(loop), "on_alert")
    assert (alert["level"], alert["text"]) == ("info", "Frozen from the start: 0 (requires_grad is False).")


@pytest.mark.parametrize("kind", ["copy", "other", "trained alike"])
@pytest.mark.parametrize("how", ["run", "attach"])
def test_frozen_teacher_beside_the_model_is_no_part_of_it(watch, unaware, read, kind, how):
    torch.manual_seed(0)
    student, teacher = made(), made(16 if kind == "other" else 8)
    teacher.requires_grad_(kind == "trained alike")  # what is called is looked at under no_grad then
    student[0].requires_grad_(False)
    optimizer = sgd(student)

    def loop():
        for _ in range(3):
            for batch in batches():
                with torch.set_grad_enabled(kind != "trained alike"):
                    given = teacher(batch)
                step(optimizer, (student(batch) - given).square().mean())

    if how == "run":
        run = unaware(loop)
    else:
        run = watch(student, optimizer)
        loop()
        run.close()
    (alert,) = read(run, "on_alert")
    assert (alert["level"], alert["text"]) == ("info", "Frozen from the start: 0 (requires_grad is False).")
    details = [each["detail"] for each in read(run, "on_metrics") if each.get("detail")]
    assert all({*each["parts"]} == {"0", "2"} for each in details)


@pytest.mark.parametrize("kind", ["criterion", "dict"])
@pytest.mark.parametrize("freeze", [True, False])
@pytest.mark.parametrize("loss", ["frozen", "detached"])
def test_a_second_phase_with_a_model_and_an_optimizer_of_its_own_is_told_as_that(
    unaware, read, said, kind, freeze, loss
):
    """Pretraining, then a probe on features of what was trained."""

    class Pair(nn.Module):
        def __init__(self, body):
            super().__init__()
            self.body, self.head = body, nn.Linear(3, 2)

        def forward(self, x):
            return {"loss_a": self.head(self.body(x)).square().mean(), "loss_b": self.body(x).abs().mean()}

    class Probe(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, x):
            return {"loss_a": self.first(x).square().mean(), "loss_b": (self.second(x) - 1).abs().mean()}

    torch.manual_seed(0)
    body, mse = made(), nn.MSELoss()
    pair = Pair(body)

    def loop():
        optimizer = sgd(pair)
        for _ in range(3):
            for batch in batches():
                step(
                    optimizer,
                    sum(pair(batch).values()) if kind == "dict" else mse(pair.head(body(batch)), batch[:, :2]),
                )
        body.requires_grad_(not freeze)
        probe = Probe() if kind == "dict" else nn.Linear(3, 2)
        later = sgd(probe)
        for _ in range(3):
            for batch in batches():
                with torch.set_grad_enabled(loss == "frozen" and freeze):
                    given = body(batch)
                found = probe(given)
                step(later, sum(found.values()) if kind == "dict" else nn.L1Loss()(found, batch[:, :2]))
        assert optimizer

    run = unaware(loop)
    assert [each["text"] for each in read(run, "on_alert")] == []
    (told,) = [each for each in said() if "a new model with a new optimizer" in each]
    assert "from step 30, epoch 4 on: folds, trials or phases go on in one run" in told


def test_pretraining_of_one_of_two_adversaries_is_no_new_model(unaware, read, said):
    torch.manual_seed(0)
    critic, maker = made(out=1), nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 4))

    def loop():
        of_critic, of_maker = sgd(critic), sgd(maker)
        for epoch in range(6):
            for batch in batches():
                if epoch != 3:
                    step(of_critic, (critic(maker(torch.randn(4, 2)).detach()) - critic(batch)).mean())
                if epoch > 2:
                    step(of_maker, -critic(maker(torch.randn(4, 2))).mean())

    assert [each["text"] for each in read(unaware(loop), "on_alert")] == []
    assert not [each for each in said() if "a new model with a new optimizer" in each]


def test_a_loss_that_no_longer_trains_a_part_in_a_later_optimizer_over_the_rest_of_it_is_told(watch, read):
    torch.manual_seed(0)
    model = made()
    run = watch(model, sgd(model))
    optimizer = sgd(model)
    for epoch in range(4):
        if epoch == 2:
            model[0].requires_grad_(False)
            optimizer = sgd(model)
        for batch in batches(60):
            step(optimizer, model(batch).square().mean())
    run.close()
    assert [each["title"] for each in read(run, "on_alert")] == ["loss no longer trains 0"]


@pytest.mark.parametrize("leaf", ["alone", "with the model"])
@pytest.mark.parametrize("freeze", [False, True])
def test_a_tensor_in_an_optimizer_is_trained_beside_the_model(unaware, read, said, leaf, freeze):
    torch.manual_seed(0)
    model, scale = made(out=1), torch.zeros(1, requires_grad=True)
    optimizer = sgd(model)
    own = torch.optim.SGD([scale], lr=0.01)
    if leaf == "with the model":
        optimizer.add_param_group({"params": [scale]})

    def loop():
        for epoch in range(3):
            model[0].requires_grad_(not (freeze and epoch == 2))
            for batch in batches(120):
                loss = model(batch).square().mean() + (0.0 if leaf == "alone" else 1e-3 * scale.exp().sum())
                step(optimizer, loss)
                if leaf == "alone":
                    step(own, scale.exp().sum() * loss.detach())

    told = [each["title"].rpartition("/")[2] for each in read(unaware(loop), "on_alert")]
    assert told == ["loss no longer trains 0"] * freeze
    assert not [each for each in said() if "is not told" in each]
