"""What losses train, seen from outside: loops as people write them are silent, and their faults are told."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import weakref

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from losslog.cli.show import summarise
from losslog.history import records
from losslog.viewing.trained import table

EPOCHS, STEPS = 3, 10


class Net(nn.Module):
    """A trunk and two heads, two losses."""

    def __init__(self, wrap=None):
        super().__init__()
        self.trunk, self.left, self.right = nn.Linear(4, 8), nn.Linear(8, 1), nn.Linear(8, 1)
        self.wrap = wrap

    def forward(self, x):
        y = self.trunk(x) if self.wrap is None else self.wrap(self.trunk, x)
        return {"loss_left": self.left(y).square().mean(), "loss_right": (self.right(y) - 1).square().mean()}


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net()


def batches(steps=STEPS):
    torch.manual_seed(1)
    return torch.utils.data.DataLoader(torch.randn(4 * steps, 4), 4)


def alerts(run):
    return [each.data for each in records(run.dir) if each.hook == "on_alert"]


def grave(run):
    return [each for each in alerts(run) if each["level"] != "info"]


def metrics(run, tag):
    found = [each.data for each in records(run.dir) if each.hook == "on_metrics"]
    return [(each["step"], each["metrics"][tag]) for each in found if tag in each["metrics"]]


def train(model, watch, change=None, optimizer=None, total=lambda losses: sum(losses.values()), **options):
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.01)
    run = watch(model, optimizer, **options)
    for epoch in range(1, EPOCHS + 1):
        for batch in batches():
            if change is not None:
                change(epoch)
            loss = total(model(batch))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    run.close()
    return run


def test_walked_at_the_first_step_of_each_epoch(net, watch):
    run = train(net, watch)
    assert grave(run) == []
    assert metrics(run, "reach/loss_left") == [(0, 4), (STEPS, 4), (2 * STEPS, 4)]
    assert [step for step, _ in metrics(run, "grad_norm/left")] == [0, STEPS, 2 * STEPS]
    details = [each.data["detail"] for each in records(run.dir) if each.data.get("detail")]
    assert details[0]["reach"] == {"loss_left": {"trunk": 2, "left": 2}, "loss_right": {"trunk": 2, "right": 2}}
    assert (details[0]["parts"]["left"]["lr"], details[0]["steps_per_epoch"]) == ([0.01], STEPS)


def test_gradient_norm_is_that_of_the_step(net, watch):
    seen = {}

    def total(losses):
        return sum(losses.values())

    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    run = watch(net, optimizer)
    for batch in batches(2):
        before = net.left.weight.detach().clone()
        optimizer.zero_grad()
        total(net(batch)).backward()
        seen.setdefault("norm", nn.utils.get_total_norm([each.grad for each in net.left.parameters()]).item())
        optimizer.step()
        seen.setdefault("moved", (net.left.weight.detach() - before).norm().item() > 0)
    run.close()
    assert metrics(run, "grad_norm/left")[0][1] == pytest.approx(seen["norm"])
    (_, ratio), *_ = metrics(run, "update_ratio/left")
    assert 0 < ratio < 0.1


class Asked(Net):
    """Its input requires grad, as for saliency, a gradient penalty, or adapters on a frozen embedding."""

    def forward(self, x):
        return super().forward(x.clone().requires_grad_())


def test_input_that_requires_grad_hides_nothing(watch, caplog):
    torch.manual_seed(0)
    net = Asked()
    with caplog.at_level("INFO"):
        run = train(net, watch, change=frozen_at(net, 15), gradients_every=5)
    (alert,) = alerts(run)
    assert (alert["title"], alert["step"]) == ("loss_left no longer trains left", 15)
    assert metrics(run, "reach/loss_left") == [(0, 4), (STEPS, 4), (STEPS + 5, 2), (2 * STEPS, 2)]
    assert metrics(run, "grad_share/loss_left")
    assert "only in part" not in caplog.text


def test_weights_that_are_handed_over_as_tensors_are_not_told_and_that_is_said(watch, caplog):
    class Called(Net):
        own = True

        def forward(self, x):
            if self.own:
                return super().forward(x)
            copies = {name: each.detach().clone().requires_grad_() for name, each in self.left.named_parameters()}
            y = self.trunk(x)
            left = torch.func.functional_call(self.left, copies, (y,))
            return {"loss_left": left.square().mean(), "loss_right": (self.right(y) - 1).square().mean()}

    torch.manual_seed(0)
    net = Called()
    with caplog.at_level("INFO"):
        run = train(net, watch, change=lambda epoch: setattr(net, "own", epoch < 2))
    assert grave(run) == []
    assert caplog.text.count("told, or only in part: a tensor that is no parameter") == 1


class Two(nn.Module):
    """Two heads; the losses are the loop's."""

    def __init__(self):
        super().__init__()
        self.trunk, self.left, self.right = nn.Linear(4, 8), nn.Linear(8, 1), nn.Linear(8, 1)

    def forward(self, x):
        y = self.trunk(x).tanh()
        return self.left(y), self.right(y)


def weights_of(data):
    return data.get("weights") or {}


class Pair(nn.Module):
    """Gives two losses by name."""

    def forward(self, left, right):
        return {"loss_left": left.square().mean(), "loss_right": (right - 1).abs().mean()}


def criteria(watch, at, *, weight=1.0, first=False, pair=False, accumulate=1):
    """A loop in which the right loss is detached from a step on."""
    torch.manual_seed(0)
    net, mse, mae, both = Two(), nn.MSELoss(), nn.L1Loss(), Pair()
    optimizer, zeros, ones = torch.optim.SGD(net.parameters(), lr=0.01), torch.zeros(4, 1), torch.ones(4, 1)
    run, step = watch(net, optimizer), 0
    for _ in range(EPOCHS):
        for batch in batches():
            left, right = net(batch)
            right = right.detach() if step >= at else right
            if pair:
                losses = both(left, right)
                loss = losses["loss_left"] + weight * losses["loss_right"]
            elif first:
                loss = weight * mae(right, ones) + mse(left, zeros)
            else:
                loss = mse(left, zeros) + weight * mae(right, ones)
            (loss / accumulate).backward()
            step += 1
            if not step % accumulate:
                optimizer.step()
                optimizer.zero_grad()
    run.close()
    return run


@pytest.mark.parametrize("weight", [1.0, 0.5])
@pytest.mark.parametrize("first", [False, True])
def test_criterion_that_is_detached_is_told_and_stays_a_component(watch, caplog, weight, first):
    run = criteria(watch, STEPS, weight=weight, first=first)
    (alert,) = grave(run)
    assert (alert["title"], alert["component"]) == ("L1Loss trains nothing", "L1Loss")
    assert "outside the model" not in caplog.text
    last = [each.data for each in records(run.dir) if each.hook == "on_batch_losses"][-1]
    assert {*last["losses"]} == {"MSELoss", "L1Loss"}
    assert last["total"] == pytest.approx(last["losses"]["MSELoss"] + weight * last["losses"]["L1Loss"])
    assert weights_of(last).get("L1Loss", 1.0) == pytest.approx(weight)


@pytest.mark.parametrize("weight", [1.0, 0.5])
def test_criterion_that_is_detached_from_the_start_is_told(watch, caplog, weight):
    run = criteria(watch, 0, weight=weight)
    assert "L1Loss: in the total" in caplog.text
    assert "but detached: it trains nothing" in caplog.text
    assert "outside the model" not in caplog.text
    last = [each.data for each in records(run.dir) if each.hook == "on_batch_losses"][-1]
    assert {*last["losses"]} == {"MSELoss", "L1Loss"}


@pytest.mark.parametrize(("weight", "accumulate"), [(5.0, 1), (1.0, 5), (3.0, 2)])
def test_detached_loss_of_a_weight_leaves_no_rest(watch, caplog, weight, accumulate):
    run = criteria(watch, STEPS, weight=weight, pair=True, accumulate=accumulate)
    assert "outside the model" not in caplog.text
    last = [each.data for each in records(run.dir) if each.hook == "on_batch_losses"][-1]
    assert weights_of(last).get("loss_right", 1.0) == pytest.approx(weight, rel=1e-4)


def test_metric_computed_by_a_criterion_beside_the_losses_is_no_fault(watch, caplog):
    torch.manual_seed(0)
    net, mse, mae = Two(), nn.MSELoss(), nn.L1Loss()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    run = watch(net, optimizer)
    for _ in range(EPOCHS):
        for batch in batches():
            left, right = net(batch)
            loss = mse(left, torch.zeros(4, 1)) + mse(right, torch.ones(4, 1))
            mae(right.detach(), torch.ones(4, 1)), mse(left.detach(), torch.ones(4, 1))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    run.close()
    assert grave(run) == []
    assert "detached" not in caplog.text
    assert not any("L1Loss" in each.data["losses"] for each in records(run.dir) if each.hook == "on_batch_losses")


def adding(add):
    """A sum that has the right loss where ``add(step)`` says so."""
    step = [0]

    def total(losses):
        step[0] += 1
        return losses["loss_left"] + (losses["loss_right"] if add(step[0] - 1) else 0)

    return total


class Long(Net):
    """Gives a metric beside its losses."""

    def forward(self, x):
        found = super().forward(x)
        return {**found, "acc": found["loss_left"].detach() * 2}


def test_loss_that_the_loop_adds_no_more_is_told_and_stays_with_weight_0(watch):
    torch.manual_seed(0)
    run = train(Long(), watch, total=adding(lambda step: step < 8))
    (alert,) = grave(run)
    assert (alert["title"], alert["level"]) == ("loss_right is in no backward pass", "warning")
    assert (alert["cause"], alert["evidence"]["step"]) == ("not_trained", 8)
    last = [each.data for each in records(run.dir) if each.hook == "on_batch_losses"][-1]
    assert weights_of(last) == {"loss_right": 0.0}
    assert last["total"] == pytest.approx(last["losses"]["loss_left"])


def test_loss_that_was_never_added_is_information_once(watch):
    torch.manual_seed(0)
    run = train(Long(), watch, total=adding(lambda step: False))
    assert grave(run) == []
    (alert,) = alerts(run)
    assert (alert["title"], alert["component"]) == ("loss_right is in no backward pass", "loss_right")


@pytest.mark.parametrize("add", [lambda step: step % 2, lambda step: not step % 7, lambda step: step // 5 % 2])
def test_losses_of_one_model_that_take_turns_are_no_fault(watch, add):
    torch.manual_seed(0)
    assert alerts(train(Long(), watch, total=adding(add))) == []


def test_adversaries_of_one_forward_pass_are_no_fault(watch):
    torch.manual_seed(0)
    net = Net()
    first = torch.optim.SGD([*net.trunk.parameters(), *net.left.parameters()], 0.01)
    second = torch.optim.SGD(net.right.parameters(), 0.01)
    run = watch(net, [first, second])
    for _ in range(EPOCHS):
        for batch in batches():
            for optimizer, name in ((first, "loss_left"), (second, "loss_right")):
                optimizer.zero_grad()
                net(batch)[name].backward()
                optimizer.step()
    run.close()
    assert alerts(run) == []


def test_criterion_that_the_loop_adds_no_more_is_told(watch):
    torch.manual_seed(0)
    net, mse, mae = Two(), nn.MSELoss(), nn.L1Loss()
    optimizer, step = torch.optim.SGD(net.parameters(), lr=0.01), 0
    run = watch(net, optimizer)
    for _ in range(EPOCHS):
        for batch in batches():
            left, right = net(batch)
            other = mae(right, torch.ones(4, 1))
            loss = mse(left, torch.zeros(4, 1)) + (other if step < 8 else 0)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
    run.close()
    (alert,) = grave(run)
    assert (alert["title"], alert["evidence"]["step"]) == ("L1Loss is in no backward pass", 8)


@pytest.mark.parametrize("of", [lambda loss: (loss - 0.01) ** 2, lambda loss: (loss - 0.2).clamp(min=0)])
def test_loss_that_is_computed_from_another_is_named(watch, caplog, of):
    class Derived(Net):
        def forward(self, x):
            found = super().forward(x)
            return {**found, "loss_extra": of(found["loss_right"])}

    torch.manual_seed(0)
    train(Derived(), watch)
    assert "loss_extra: in the total, and computed from another loss" in caplog.text
    assert "outside the model" not in caplog.text


def test_total_beside_something_from_outside_is_not_called_computed_from_another(watch, caplog):
    class Whole(Net):
        def forward(self, x):
            found = super().forward(x)
            return {**found, "objective": found["loss_left"] + found["loss_right"]}

    torch.manual_seed(0)
    net = Whole()
    train(net, watch, total=lambda losses: losses["objective"] + 0.1 * net.trunk.weight.square().sum())
    assert "computed from another" not in caplog.text
    assert "outside the model" in caplog.text


@pytest.mark.parametrize("zero", [False, True])
def test_part_whose_gradients_are_cleared_before_the_step_is_unchanged(zero, net, watch):
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    run = watch(net, optimizer)
    for _ in range(EPOCHS):
        for batch in batches():
            optimizer.zero_grad()
            sum(net(batch).values()).backward()
            net.left.zero_grad(set_to_none=not zero)
            optimizer.step()
    run.close()
    assert metrics(run, "unchanged/left") == [(STEPS, 1.0), (2 * STEPS, 1.0)]
    assert [value for _, value in metrics(run, "grad_norm/left")] == ([0.0] * EPOCHS if zero else [])
    assert [value for _, value in metrics(run, "unchanged/right")] == [0.0, 0.0]


def frozen_at(net, step):
    count = [0]

    def change(epoch):
        if count[0] == step:
            net.left.requires_grad_(False)
        count[0] += 1

    return change


def test_part_frozen_in_the_middle_of_an_epoch_is_told_at_that_step(net, watch):
    run = train(net, watch, frozen_at(net, STEPS + 4))
    (alert,) = alerts(run)
    assert (alert["component"], alert["cause"], alert["step"]) == ("loss_left", "part_not_trained", STEPS + 4)
    said = f"loss_left no longer trains left since step {STEPS + 4}: left: requires_grad is False. Do they take turns? "
    assert (alert["level"], alert["text"]) == (
        "info",
        f"{said}If it lasts for {2 * STEPS + 8} steps, that is a warning.",
    )


def test_second_freeze_is_told_where_a_thaw_had_lasted(net, watch):
    frozen = {3, 7, 9}  # the thaw before 9 was short

    run = watch(net, optimizer := torch.optim.SGD(net.parameters(), lr=0.01))
    longer = batches(15 * STEPS)
    for epoch in range(1, 11):
        net.left.requires_grad_(epoch not in frozen)
        for batch in longer:
            optimizer.zero_grad()
            sum(net(batch).values()).backward()
            optimizer.step()
    run.close()
    told = [(each["step"], each["cause"], each["source"]) for each in grave(run)]
    assert told == [(30 * STEPS, "part_not_trained", "losslog"), (90 * STEPS, "part_not_trained", "losslog")]


def test_part_that_trained_before_a_resume_is_not_said_to_be_frozen_from_the_start(net, watch):
    run = train(net, watch)
    net.left.requires_grad_(False)
    again = train(net, watch, resume=run.dir)
    (alert,) = alerts(again)
    assert (alert["title"], alert["level"]) == (f"parts frozen at step {EPOCHS * STEPS}", "info")
    third = train(net, watch, resume=run.dir)
    assert len(alerts(third)) == 1


def test_loss_that_is_detached_is_told_when_the_steps_after_it_agree(net, watch):
    detach = [False]

    class Detaching(Net):
        def forward(self, x):
            losses = super().forward(x)
            return losses if not detach[0] else {**losses, "loss_left": losses["loss_left"].detach()}

    net.__class__ = Detaching
    run = train(net, watch, lambda epoch: detach.__setitem__(0, epoch > 1))
    (alert,) = grave(run)
    assert (alert["component"], alert["cause"], alert["step"]) == ("loss_left", "not_trained", STEPS + 4)
    assert alert["evidence"]["step"] == STEPS
    assert "no graph was recorded" in alert["text"]
    rows = [each.data for each in records(run.dir) if each.hook == "on_batch_losses"]
    assert {tuple(each["losses"]) for each in rows} == {("loss_left", "loss_right")}  # its series goes on
    assert all(each["total"] == pytest.approx(sum(each["losses"].values())) for each in rows)


def test_batches_without_anything_to_learn_from_are_no_fault(net, watch):
    class Sparse(Net):
        def forward(self, x):
            losses = super().forward(x)
            return losses if x[0, 0] > 0.5 else {**losses, "loss_left": torch.zeros(())}

    net.__class__ = Sparse
    assert grave(train(net, watch)) == []


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing(reentrant, watch):
    net = Net(lambda module, x: checkpoint(module, x.requires_grad_(), use_reentrant=reentrant))
    assert grave(train(net, watch)) == []


def test_what_a_reentrant_checkpoint_hides_is_not_claimed(watch):
    net = Net(lambda module, x: checkpoint(module, x.requires_grad_(), use_reentrant=True))
    run = train(net, watch, frozen_at(net, STEPS))
    assert grave(run) == []
    assert metrics(run, "reach/loss_left") == []


def test_autocast_and_a_scaler(net, watch):
    optimizer, scaler = torch.optim.SGD(net.parameters(), lr=0.01), torch.amp.GradScaler("cpu", init_scale=1024.0)
    run = watch(net, optimizer)
    for _ in range(EPOCHS):
        for batch in batches():
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = sum(net(batch).values())
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
    run.close()
    assert grave(run) == []
    assert all(value < 100 for _, value in metrics(run, "grad_norm/trunk"))  # unscaled


def test_accumulation_is_seen_as_a_whole(net, watch):
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    run = watch(net, optimizer)
    for _ in range(EPOCHS):
        for index, batch in enumerate(batches()):
            losses = net(batch)
            if index % 2:  # each half trains one head
                losses = {**losses, "loss_left": losses["loss_left"]}
            (sum(losses.values()) / 2).backward()
            if index % 2:
                optimizer.step()
                optimizer.zero_grad()
    run.close()
    assert grave(run) == []
    details = [each.data["detail"] for each in records(run.dir) if each.data.get("detail")]
    assert details[0]["steps_per_epoch"] == STEPS // 2


def test_compiled_whole_or_by_part(net, watch):
    assert grave(train(torch.compile(net, backend="aot_eager"), watch)) == []
    torch._dynamo.reset()


def test_adversaries_that_freeze_each_other(watch):
    torch.manual_seed(0)
    maker, judge = nn.Sequential(nn.Linear(2, 8), nn.Linear(8, 4)), nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 1))
    first, second = torch.optim.Adam(maker.parameters(), 1e-3), torch.optim.Adam(judge.parameters(), 1e-3)
    criterion = nn.BCEWithLogitsLoss()
    run = watch(maker, [first, second])
    for _ in range(EPOCHS):
        for batch in batches():
            judge.requires_grad_(True)
            fake = maker(torch.randn(4, 2))
            second.zero_grad()
            loss = criterion(judge(batch), torch.ones(4, 1)) + criterion(judge(fake.detach()), torch.zeros(4, 1))
            loss.backward()
            second.step()
            judge.requires_grad_(False)
            first.zero_grad()
            criterion(judge(fake), torch.ones(4, 1)).backward()
            first.step()
    run.close()
    assert alerts(run) == []
    details = [each.data["detail"] for each in records(run.dir) if each.data.get("detail")]
    assert len(details[-1]["reach"]) == 2
    assert all(part["trainable"] == part["tensors"] and part["lr"] for part in details[-1]["parts"].values())


def test_tasks_that_take_turns_are_no_fault(watch):
    """One criterion; each batch is of a task of its own, drawn by lot."""
    torch.manual_seed(0)
    trunk = nn.ModuleDict({"trunk": nn.Linear(4, 8), "a": nn.Linear(8, 2), "b": nn.Linear(8, 2)})
    criterion, optimizer = nn.CrossEntropyLoss(), torch.optim.SGD(trunk.parameters(), lr=0.01)
    run = watch(trunk, optimizer)
    for epoch in range(8):
        for index, batch in enumerate(batches()):
            task = "ab"[torch.randint(2, ()).item()] if index else "ab"[epoch % 2]
            loss = criterion(trunk[task](trunk["trunk"](batch)), torch.zeros(4, dtype=torch.long))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    run.close()
    assert grave(run) == []


def test_loss_that_no_module_gives(watch):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    run = watch(net, optimizer)
    for epoch in range(EPOCHS):
        for batch in batches():
            if epoch == 1:
                net[2].requires_grad_(False)
            loss = nn.functional.mse_loss(net(batch), torch.zeros(4, 1))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    run.close()
    (alert,) = alerts(run)
    assert (alert["title"], alert["cause"]) == ("loss no longer trains 2", "part_not_trained")


def test_frozen_from_the_start_is_information_once(net, watch):
    net.trunk.requires_grad_(False)
    run = train(net, watch)
    assert grave(run) == []
    assert [(each["cause"], each["evidence"]) for each in alerts(run)] == [("frozen", {"parts": ["trunk"]})]


def test_optimizer_for_the_head_alone_is_information_once(net, watch):
    run = train(net, watch, optimizer=torch.optim.SGD(net.left.parameters(), lr=0.01))
    assert grave(run) == []
    assert [each["cause"] for each in alerts(run)] == ["not_moved"]


def test_head_that_was_replaced_after_the_optimizer_was_made(net, watch):
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    net.left = nn.Linear(8, 1)
    (alert,) = grave(train(net, watch, optimizer=optimizer))
    assert (alert["cause"], alert["component"]) == ("not_in_optimizer", "loss_left")


def test_second_optimizer_that_was_not_named_has_its_part(net, watch):
    body = torch.optim.SGD([*net.trunk.parameters(), *net.right.parameters()], lr=0.01)
    head = torch.optim.SGD(net.left.parameters(), lr=0.01)

    class Both:
        zero_grad = staticmethod(lambda: (body.zero_grad(), head.zero_grad()))
        step = staticmethod(lambda: (body.step(), head.step()))

    run = watch(net, body)
    for _ in range(EPOCHS):
        for batch in batches():
            Both.zero_grad()
            sum(net(batch).values()).backward()
            Both.step()
    run.close()
    assert grave(run) == []


def test_training_is_what_it_is_without(watch):
    ends = []
    for attached in (True, False):
        torch.manual_seed(0)
        net = Net()
        optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
        if attached:
            train(net, watch, optimizer=optimizer)
        else:
            for _ in range(EPOCHS):
                for batch in batches():
                    optimizer.zero_grad()
                    sum(net(batch).values()).backward()
                    optimizer.step()
        ends.append([each.tolist() for each in net.parameters()])
    assert ends[0] == ends[1]


def test_no_graph_is_kept_alive(net, watch):
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    watch(net, optimizer)
    losses = net(torch.randn(4, 4))
    gone = [weakref.ref(each) for each in losses.values()]
    sum(losses.values()).backward()
    optimizer.step()
    del losses
    gc.collect()
    assert [each() for each in gone] == [None, None]


def test_ddp_that_looks_for_unused_parameters(net, watch, tmp_path):
    from torch import distributed
    from torch.nn.parallel import DistributedDataParallel

    if not distributed.is_available() or not distributed.is_gloo_available():
        pytest.skip("needs torch.distributed with gloo")
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        run = train(DistributedDataParallel(net, find_unused_parameters=True), watch)
    finally:
        distributed.destroy_process_group()
    assert grave(run) == []
    assert metrics(run, "reach/loss_left")[0][1] == 4  # not what the other loss trains


SCRIPT = """
import torch
from torch import nn

torch.manual_seed(0)
net = nn.ModuleDict({"trunk": nn.Linear(4, 8), "head": nn.Linear(8, 2)})
criterion, optimizer = nn.CrossEntropyLoss(), torch.optim.SGD(net.parameters(), lr=0.01)
loader = torch.utils.data.DataLoader(torch.randn(40, 4), 4)
for epoch in range(3):
    if epoch == 1:
        net["head"].requires_grad_(False)
    for batch in loader:
        loss = criterion(net["head"](net["trunk"](batch)), torch.zeros(4, dtype=torch.long))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
"""


def test_script_under_losslog_run(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT, "utf-8")
    command = [sys.executable, "-m", "losslog", "run", "--dir", "runs", "--plugins", "plateau", "script.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    (journal,) = tmp_path.rglob("journal.jsonl")
    lines = [json.loads(line) for line in journal.read_text("utf-8").splitlines()]
    found = [each["data"] for each in lines if each["hook"] == "on_alert"]
    (alert,) = (each for each in found if each.get("cause") == "part_not_trained")
    assert (alert["title"], alert["step"]) == ("loss no longer trains linear-2", 10)


class Leaving(Net):
    """Its left loss loses its graph at some calls."""

    def __init__(self, leaves):
        super().__init__()
        self.leaves, self.calls = leaves, -1

    def forward(self, x):
        self.calls += 1
        losses = super().forward(x)
        return losses if not self.leaves(self.calls) else {**losses, "loss_left": losses["loss_left"].detach()}


def one_epoch(model, watch, parameters=None, steps=80, change=lambda optimizer, step: None, **options):
    torch.manual_seed(0)
    optimizer = torch.optim.SGD([{"params": [*(parameters or model.parameters())]}], **{"lr": 0.01, **options})
    run = watch(model, optimizer)
    for step, batch in enumerate(batches(steps)):
        change(optimizer, step)
        optimizer.zero_grad()
        sum(model(batch).values()).backward()
        optimizer.step()
    run.close()
    return run


def test_one_long_epoch_tells_of_a_part_in_no_group(net, watch):
    run = one_epoch(net, watch, [*net.trunk.parameters(), *net.right.parameters()])
    (alert,) = grave(run)
    assert (alert["title"], alert["cause"], alert["step"]) == ("left is in no optimizer group", "not_in_optimizer", 16)


def test_one_long_epoch_tells_of_a_loss_that_is_detached_in_its_midst(watch):
    (alert,) = grave(one_epoch(Leaving(lambda step: step >= 40), watch))
    assert (alert["cause"], alert["evidence"]["step"]) == ("not_trained", 40)
    assert alert["text"].startswith("loss_left trains nothing since step 40: ")


def test_begin_that_nobody_saw_is_not_claimed(watch):
    class Cut(Net):
        def forward(self, x):
            self.calls = getattr(self, "calls", -1) + 1
            y = self.trunk(x)
            left = self.left(y.detach() if self.calls >= 20 else y)
            return {"loss_left": left.square().mean(), "loss_right": (self.right(y) - 1).square().mean()}

    (alert,) = grave(one_epoch(Cut(), watch, steps=120))
    assert alert["text"].startswith("loss_left no longer trains trunk (seen at step 48, not yet at step 16): ")


@pytest.mark.parametrize("leaves", [
    lambda step: step % 20 < 6 and step >= 20,
    lambda step: step % 2 == 0 and step > 3,
    lambda step: hash((step * 2654435761) % 97) % 10 < 6,
], ids=["first batches", "every other", "by chance"])  # fmt: skip
def test_loss_that_comes_and_goes_is_no_fault(leaves, watch):
    model = Leaving(leaves)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    run = watch(model, optimizer)
    loader = batches(20)
    for _ in range(5):
        for batch in loader:
            optimizer.zero_grad()
            sum(model(batch).values()).backward()
            optimizer.step()
    run.close()
    assert grave(run) == []


def test_claim_that_holds_no_longer_is_taken_back(watch):
    run = one_epoch(Leaving(lambda step: 20 <= step < 45), watch, steps=120)
    assert [(each["cause"], each["level"]) for each in alerts(run)] == [
        ("not_trained", "error"), ("trained_again", "info")
    ]  # fmt: skip


@pytest.mark.parametrize("rate", [
    lambda step: 0.01 * min(1.0, step / 15), lambda step: 0.01 * max(0.0, 1 - step / 60),
    lambda step: 0.01 * (step % 10) / 10,
], ids=["warm-up", "ends at 0", "cyclic"])  # fmt: skip
def test_schedules_that_pass_through_zero_are_no_fault(rate, net, watch):
    def change(epoch):
        optimizer.param_groups[0]["lr"] = rate(count[0])
        count[0] += 1

    count, optimizer = [0], torch.optim.SGD(net.parameters(), lr=0.01)
    assert grave(train(net, watch, change, optimizer)) == []
    assert (
        grave(one_epoch(net, watch, change=lambda optimizer, step: optimizer.param_groups[0].update(lr=rate(step))))
        == []
    )


def test_learning_rate_of_zero_for_everything(net, watch):
    (alert,) = grave(train(net, watch, optimizer=torch.optim.SGD(net.parameters(), lr=0.0)))
    assert (alert["title"], alert["cause"]) == ("the learning rate is 0", "lr_zero")
    assert alert["evidence"]["parts"] == ["trunk", "left", "right"]


def test_a_loss_that_is_left_out_has_a_row_that_says_so(watch):
    class Three(Net):
        def forward(self, x):
            found = super().forward(x)
            return {**found, "loss_third": self.left(self.trunk(x)).abs().mean()}

    net = Three()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    run = watch(net, optimizer)
    for _ in range(3):
        for batch in [torch.randn(4, 4) for _ in range(30)]:
            losses = net(batch)
            (losses["loss_left"] + losses["loss_right"]).backward()
            optimizer.step()
            optimizer.zero_grad()
        run.end_epoch()
    run.close()
    rows = [line for line in table(summarise(run.dir)["trains"]) if line.startswith("loss_third")]
    assert len(rows) == 1
    assert "in no backward pass" in rows[0]


def test_a_part_that_is_thawed_is_said(net, watch):
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    run = watch(net, optimizer)
    for step in range(40):
        net.left.requires_grad_(not 10 <= step < 20)
        sum(net(torch.randn(4, 4)).values()).backward()
        optimizer.step()
        optimizer.zero_grad()
    run.close()
    told = [each.data for each in records(run.dir) if each.hook == "on_alert"]
    assert [each["cause"] for each in told if each["cause"]] == ["part_not_trained", "trained_again"]
    assert [each["step"] for each in told if each["cause"]] == [10, 20]


def switched(net, watch, trains, epochs=EPOCHS, **options):
    """A loop whose parts may train where ``trains(part, step, epoch)`` says so."""
    optimizer, step = torch.optim.SGD(net.parameters(), lr=0.01), 0
    run = watch(net, optimizer, **options)
    for epoch in range(epochs):
        for batch in batches():
            for part, each in net.named_children():
                each.requires_grad_(trains(part, step, epoch))
            optimizer.zero_grad()
            sum(net(batch).values()).backward()
            optimizer.step()
            step += 1
    run.close()
    return run


@pytest.mark.parametrize("trains", [
    lambda part, step, epoch: (part == "trunk") == (step % 2 == 0),
    lambda part, step, epoch: (part == "trunk") == (epoch % 2 == 0),
    lambda part, step, epoch: (part == "trunk") == (step % 6 < 5),
    lambda part, step, epoch: (part == "trunk") == (step % 13 < 12),
    lambda part, step, epoch: part != "left" or step % 2 == 0,
    lambda part, step, epoch: part != "left" or step // 4 % 2 == 0,
], ids=["steps", "epochs", "five to one", "twelve to one", "one part", "one part, four steps"])  # fmt: skip
def test_parts_that_are_trained_by_turns_are_no_fault(net, watch, trains):
    assert grave(switched(net, watch, trains, epochs=6)) == []


@pytest.mark.sampled(4)
@pytest.mark.parametrize("turns", [(9, 9), (14, 14), (20, 20), (20, 30), (31, 9), (50, 50), (84, 84), (100, 100)])
@pytest.mark.parametrize("alone", [False, True], ids=["part", "whole"])
def test_one_part_that_takes_long_turns_is_information_once(net, watch, turns, alone):
    on, off = turns
    if alone:  # nothing else is trained by its loss
        net.trunk.requires_grad_(False)
        trains = lambda part, step, epoch: part == "right" or (part == "left" and step % (on + off) < on)  # noqa: E731
    else:
        trains = lambda part, step, epoch: part != "left" or step % (on + off) < on  # noqa: E731
    run = switched(net, watch, trains, epochs=30)
    told = [each for each in alerts(run) if each.get("component") == "loss_left"]
    assert [(each["level"], each["step"]) for each in told] == [("info", on), ("info", on + off)]
    assert [each["cause"] for each in told] == ["not_trained" if alone else "part_not_trained", "trained_again"]
    assert told[0]["text"].startswith(
        f"loss_left {'trains nothing' if alone else 'no longer trains left'} since step {on}: "
    )


@pytest.mark.parametrize(("step", "told"), [
    (3, [(11, "warning")]), (14, [(14, "info"), (42, "warning")]), (45, [(45, "info"), (135, "warning")]),
    (120, [(120, "warning")]),
])  # fmt: skip
def test_part_that_is_frozen_for_good_is_told_soon_with_its_first_step(net, watch, step, told):
    run = switched(net, watch, lambda part, at, _: part != "left" or at < step, epochs=20)
    found = [each for each in alerts(run) if each.get("cause") == "part_not_trained"]
    assert [(each["step"], each["level"]) for each in found] == told
    assert all(each["text"].startswith(f"loss_left no longer trains left since step {step}: ") for each in found)


def test_part_that_is_frozen_as_another_is_thawed_is_told_when_they_do_not_take_turns(net, watch):
    thawed = {"left": lambda at: at < 14, "trunk": lambda at: at >= 14, "right": lambda at: True}
    (alert,) = grave(switched(net, watch, lambda part, at, _: thawed[part](at), epochs=5))
    assert alert["text"].startswith("loss_left no longer trains left")
    assert (alert["evidence"]["step"], alert["step"]) == (14, 28)


@pytest.mark.parametrize("place", ["before", "between", "after"])
@pytest.mark.parametrize("optimizer", [
    lambda net: torch.optim.Adam(net.parameters(), lr=0.01), lambda net: torch.optim.SGD(net.parameters(), 0.1, 0.9),
], ids=["adam", "sgd"])  # fmt: skip
def test_weights_that_are_written_back_are_unchanged(net, watch, place, optimizer):
    kept = {name: each.detach().clone() for name, each in net.left.named_parameters()}
    optimizer = optimizer(net)

    def write(at):
        for name, each in net.left.named_parameters() if at == place else ():
            each.data.copy_(kept[name])

    run = watch(net, optimizer)
    for _ in range(EPOCHS + 1):
        for batch in batches():
            write("before")
            optimizer.zero_grad()
            sum(net(batch).values()).backward()
            write("between")
            optimizer.step()
            write("after")
    run.close()
    assert not optimizer._optimizer_step_pre_hooks
    # the bias, one value, may be clamped
    assert metrics(run, "unchanged/left") == [(STEPS, 0.0), (2 * STEPS, 0.5), (3 * STEPS, 0.5)]
    assert {value for _, value in metrics(run, "unchanged/right")} == {0.0}


def test_model_that_a_search_puts_back_once_is_not_unchanged(net, watch):
    first = {name: each.clone() for name, each in net.state_dict().items()}
    begun = []

    def change(epoch):
        if epoch == 2 and not begun:
            net.load_state_dict(first)
            begun.append(epoch)

    run = train(net, watch, change, torch.optim.Adam(net.parameters(), lr=0.01))
    assert {value for _, value in metrics(run, "unchanged/left")} == {0.0}


@pytest.mark.parametrize("factor", [1.0, 0.5])
@pytest.mark.parametrize("weight", [1.0, 2.0])
def test_loss_that_is_detached_in_the_sum_is_told_so_and_in_every_record(net, watch, weight, factor):
    step = [0]

    def total(losses):
        step[0] += 1
        right = losses["loss_right"] * weight
        return losses["loss_left"] + (right if step[0] <= 8 else factor * right.detach())

    run = train(net, watch, total=total)
    (alert,) = grave(run)
    assert (alert["title"], alert["cause"]) == ("loss_right is detached in the sum", "not_trained")
    assert alert["text"].startswith(
        "loss_right trains nothing since step 8: it is in the total by its value, but detach"
    )
    rows = [each.data for each in records(run.dir) if each.hook == "on_batch_losses"]
    assert {tuple(each["losses"]) for each in rows} == {("loss_left", "loss_right")}
    for each in rows[:8] + rows[10:]:
        parts = sum(weights_of(each).get(name, 1.0) * value for name, value in each["losses"].items())
        assert each["total"] == pytest.approx(parts, rel=1e-4)


def test_criterion_that_is_detached_in_the_sum_is_told_so(watch):
    torch.manual_seed(0)
    net, mse, mae = Two(), nn.MSELoss(), nn.L1Loss()
    optimizer, step = torch.optim.SGD(net.parameters(), lr=0.01), 0
    run = watch(net, optimizer)
    for _ in range(EPOCHS):
        for batch in batches():
            left, right = net(batch)
            other = mae(right, torch.ones(4, 1))
            loss = mse(left, torch.zeros(4, 1)) + (other if step < 8 else other.detach())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
    run.close()
    (alert,) = grave(run)
    assert (alert["title"], alert["evidence"]["step"]) == ("L1Loss is detached in the sum", 8)
