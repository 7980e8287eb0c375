"""What autograd tells: the total that is optimised, the weight of each component, and which loop's it is."""

import functools

import pytest
import torch
import torch.nn.functional as F
from torch import nn


class Heads(nn.Module):
    """Three losses and figures beside them, in whatever shape a test asks for."""

    def __init__(self, shape=lambda losses, extra: losses | extra):
        super().__init__()
        self.body, self.heads = nn.Linear(4, 8), nn.ModuleList(nn.Linear(8, 1) for _ in range(3))
        self.shape = shape

    def forward(self, x):
        features = torch.relu(self.body(x))
        losses = {
            f"loss_{name}": head(features).pow(2).mean() + 0.1 for name, head in zip("abc", self.heads, strict=True)
        }
        return self.shape(losses, {"class_error": torch.tensor(40.0)})


@pytest.fixture
def loop(watch, read):
    """Trains with a model for some steps; the journal's batches, metrics and what `losses` and `total` were."""

    class Loop:
        def __init__(self):
            torch.manual_seed(0)
            self.truth = []

        def run(self, model, total, steps=4, optimizer=None, accumulate=1, divide=1, attach=None, **options):
            optimizer = optimizer or torch.optim.SGD(model.parameters(), 0.05)
            self.attached = watch(attach or model, optimizer, **options)
            for _ in range(steps):
                optimizer.zero_grad()
                self.window = []
                for _ in range(accumulate):
                    output = model(torch.randn(6, 4))
                    root = total(output)
                    (root / divide).backward()
                    self.window.append((output, root.item() / divide))
                optimizer.step()
                self.truth.append(sum(each for _, each in self.window))
            self.attached.close()
            self.batches, self.metrics = read(self.attached, "on_batch_losses"), read(self.attached, "on_metrics")
            assert [each["total"] for each in self.batches] == pytest.approx(self.truth, rel=1e-6)
            return self.batches

    return Loop()


WEIGHTED = {"loss_a": 1.0, "loss_b": 5.0, "loss_c": 2.0}


def weighted(losses):
    return sum(weight * losses[name] for name, weight in WEIGHTED.items())


def test_weights_and_metrics_of_a_dict(loop):
    for batch in loop.run(Heads(), weighted):
        assert set(batch["losses"]) == {*WEIGHTED}
        assert batch["weights"] == pytest.approx({"loss_b": 5.0, "loss_c": 2.0})
    assert [each["metrics"] for each in loop.metrics] == [{"class_error": 40.0}] * 4


@pytest.mark.parametrize(("divide", "weights"), [(4, None), (1, {"loss_a": 4.0, "loss_b": 4.0, "loss_c": 4.0})])
def test_accumulation_with_and_without_division(loop, divide, weights):
    for batch in loop.run(Heads(), lambda losses: sum(v for n, v in losses.items() if n in WEIGHTED), accumulate=4,
                          divide=divide):  # fmt: skip
        assert batch["n"] == 4
        assert batch.get("weights") == weights


def test_a_weight_that_changes_in_the_middle(loop):
    steps = iter(range(100))
    batches = loop.run(Heads(), lambda losses: losses["loss_a"] + (1 + next(steps)) * losses["loss_b"], steps=6)
    assert [each.get("weights", {}).get("loss_b", 1.0) for each in batches] == [1, 2, 3, 4, 5, 6]
    assert [each["metrics"].keys() for each in loop.metrics] == [{"loss_c": 0, "class_error": 0}.keys()] * 6


@pytest.mark.parametrize(
    "shape",
    [
        lambda losses, extra: {"loss": weighted(losses), "loss_dict": losses | extra},
        lambda losses, extra: {"losses": losses, "logits": torch.zeros(3, 2)},
        lambda losses, extra: (torch.zeros(2), losses | extra),
        lambda losses, extra: {name: value[None] for name, value in losses.items()} | extra,
        lambda losses, extra: {name: torch.stack([value * 0.5, value * 1.5]) for name, value in losses.items()},
        lambda losses, extra: {name: [value * 0.25, value * 0.75] for name, value in losses.items()} | extra,
        lambda losses, extra: losses | {"total_loss": weighted(losses)},
    ],
)
def test_shapes_people_return(loop, shape):
    def total(output):
        found = output[1] if isinstance(output, tuple) else output
        if "loss" in found or "total_loss" in found:
            return found.get("loss", found.get("total_loss"))
        found = found.get("losses", found)
        parts = {name: sum(each) if isinstance(each, list) else each.mean() for name, each in found.items()}
        return weighted(parts)

    for batch in loop.run(Heads(shape), total):
        assert set(batch["losses"]) == {*WEIGHTED}
        assert batch["weights"] == pytest.approx({"loss_b": 5.0, "loss_c": 2.0})
        assert sum(WEIGHTED[name] * value for name, value in batch["losses"].items()) == pytest.approx(batch["total"])


def test_a_criterion_of_torch(loop):
    model, criterion = nn.Linear(4, 3), nn.CrossEntropyLoss()
    labels = torch.randint(0, 3, (6,))
    batches = loop.run(model, lambda output: criterion(output, labels) / 3)
    assert [each["losses"] for each in batches] == pytest.approx(loop.truth)


def test_two_criteria_outside_of_the_model(loop):
    model, first, second = nn.Linear(4, 3), nn.CrossEntropyLoss(), nn.L1Loss()
    labels = torch.randint(0, 3, (6,))
    for batch in loop.run(model, lambda output: first(output, labels) + 0.5 * second(output, torch.zeros(6, 3))):
        assert set(batch["losses"]) == {"CrossEntropyLoss", "L1Loss"}
        assert batch["weights"] == {"L1Loss": 0.5}


def test_a_functional_loss_has_its_total(loop):
    batches = loop.run(nn.Linear(4, 1), lambda output: F.mse_loss(output, torch.ones(6, 1)))
    assert [each["losses"] for each in batches] == pytest.approx(loop.truth)


def test_a_rest_is_said_once_with_its_size(loop, caplog):
    model = Heads()
    loop.run(model, lambda losses: losses["loss_a"] + losses["loss_b"] + 3.0)
    said = [each.getMessage() for each in caplog.records if "outside the model" in each.getMessage()]
    assert len(said) == 1
    assert said[0].startswith("3 of 3.")


def test_a_loss_multiplied_by_hand(watch, read, caplog):
    model = Heads()
    optimizer = torch.optim.SGD(model.parameters(), 1e-5)
    run = watch(model, optimizer)
    losses = model(torch.randn(6, 4))
    total = losses["loss_a"] + losses["loss_b"] + losses["loss_c"]
    (128 * total).backward()
    optimizer.step()
    run.close()
    (batch,) = read(run, "on_batch_losses")
    assert batch["total"] == pytest.approx(128 * total.item())
    assert batch["weights"] == dict.fromkeys(losses.keys() - {"class_error"}, 128.0)
    assert "every component counts 128 times in the total" in caplog.text


@pytest.mark.parametrize("divided_after", [False, True])
def test_a_grad_scaler_is_divided_out(watch, read, divided_after):
    model, scaler = Heads(), torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    run = watch(model, optimizer)
    truth = []
    for _ in range(4):
        optimizer.zero_grad()
        total = weighted(model(torch.randn(6, 4)))
        (scaler.scale(total) / 2 if divided_after else scaler.scale(total / 2)).backward()
        scaler.step(optimizer)
        scaler.update()
        truth.append(total.item() / 2)
    run.close()
    batches = read(run, "on_batch_losses")
    assert [each["total"] for each in batches] == pytest.approx(truth)
    assert batches[3]["weights"] == pytest.approx({"loss_a": 0.5, "loss_b": 2.5})


def test_one_loss_module_called_three_times_is_their_sum(loop):
    class Scale(nn.Module):
        def forward(self, p, target):
            return {"loss_box": (p - target).pow(2).mean(), "loss_obj": (p - target).abs().mean()}

    model, criterion = nn.Linear(4, 3), Scale()

    def total(output):
        return sum(sum(criterion(output[:, i], torch.tensor(4.0 * i)).values()) for i in range(3))

    for batch in loop.run(model, total):
        assert "n" not in batch
        assert "weights" not in batch
        assert sum(batch["losses"].values()) == pytest.approx(batch["total"])


def test_a_backward_pass_for_each_loss(watch, read):
    model = Heads()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    run = watch(model, optimizer)
    losses = model(torch.randn(6, 4))
    losses["loss_a"].backward(retain_graph=True)
    (2 * losses["loss_b"]).backward()
    optimizer.step()
    run.close()
    (batch,) = read(run, "on_batch_losses")
    assert batch["losses"] == {name: losses[name].item() for name in ("loss_a", "loss_b")}
    assert batch["weights"] == {"loss_b": 2.0}
    assert batch["total"] == pytest.approx((losses["loss_a"] + 2 * losses["loss_b"]).item())


@pytest.mark.parametrize("how", ["list", "gradient", "inputs", "vector"])
def test_ways_to_call_backward(watch, read, how):
    model = Heads()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    run = watch(model, optimizer)
    losses = model(torch.randn(6, 4))
    a, b = losses["loss_a"], losses["loss_b"]
    if how == "list":
        torch.autograd.backward([a, 3 * b])
    elif how == "gradient":
        torch.stack([a, b]).backward(gradient=torch.tensor([1.0, 3.0]))
    elif how == "inputs":
        (a + 3 * b).backward(inputs=list(model.parameters()))
    else:
        torch.stack([a, b]).backward(torch.tensor([1.0, 3.0]))
    optimizer.step()
    run.close()
    (batch,) = read(run, "on_batch_losses")
    assert batch["total"] == pytest.approx((a + 3 * b).item())
    assert batch["weights"] == {"loss_b": 3.0}


def test_gradients_by_other_means_are_todays_reading(two, data, watch, read):
    """A DeepSpeed-like engine calls ``torch.autograd.grad``: there is no backward pass to be heard."""
    optimizer = torch.optim.SGD(two.parameters(), lr=0.1)
    run = watch(two, optimizer)
    found = []
    for batch in data[0]:
        losses = two(batch)
        gradients = torch.autograd.grad(sum(losses.values()), list(two.parameters()))
        for parameter, gradient in zip(two.parameters(), gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()
        found.append({name: loss.item() for name, loss in losses.items()})
    run.close()
    batches = read(run, "on_batch_losses")
    assert [each["losses"] for each in batches] == found
    assert not any("weights" in each for each in batches)


def test_gradients_cleared_by_hand(two, data, watch, read):
    optimizer = torch.optim.SGD(two.parameters(), lr=0.1)
    run = watch(two, optimizer)
    totals = []
    for index, batch in enumerate(data[0]):
        for parameter in two.parameters():
            parameter.grad = None
        loss = sum(two(batch).values())
        loss.backward()
        if index != 2:  # its gradients are thrown away
            optimizer.step()
            totals.append(loss.item())
    run.close()
    assert [each["total"] for each in read(run, "on_batch_losses")] == pytest.approx(totals)


@pytest.mark.parametrize("many", [1, 2])
@pytest.mark.parametrize("clear", [
    lambda model, optimizer: optimizer.zero_grad(),
    lambda model, optimizer: optimizer.zero_grad(set_to_none=False),
    lambda model, optimizer: model.zero_grad(),
], ids=["optimizer", "zeros", "model"])  # fmt: skip
def test_gradients_cleared_between_backward_and_step(clear, many, two, data, watch, read, caplog):
    optimizer = torch.optim.SGD(two.parameters(), lr=0.1)
    run = watch(two, optimizer)
    totals = []
    for _ in range(2):
        for index, batch in enumerate(data[0]):
            loss = sum(two(batch).values()) / many
            loss.backward()
            totals.append(loss.item() * many)
            if (index + 1) % many == 0:
                clear(two, optimizer)
                optimizer.step()
        if many == 2:  # the fifth batch
            optimizer.zero_grad()
            totals.pop()
    run.close()
    rows = read(run, "on_batch_losses")
    means = [sum(totals[at : at + many]) / many for at in range(0, len(totals), many)]
    assert [each["total"] for each in rows] == pytest.approx(means)
    said = [each for each in caplog.messages if "zero_grad() was called between backward() and step()" in each]
    assert len(said) == 1
    assert "gave losses" not in caplog.text


def test_a_closure_is_one_step_and_its_first_evaluation(two, data, watch, read):
    optimizer = torch.optim.LBFGS(two.parameters(), max_iter=5)
    run = watch(two, optimizer)
    returned = []
    for batch in data[0]:

        def closure(batch=batch):
            optimizer.zero_grad()
            loss = sum(two(batch).values())
            loss.backward()
            return loss

        returned.append(optimizer.step(closure).item())
    run.close()
    assert [each["total"] for each in read(run, "on_batch_losses")] == pytest.approx(returned)
    assert read(run, "on_epoch_end")[0]["total"] == pytest.approx(sum(returned) / 5)


@pytest.mark.parametrize("search", [None, "strong_wolfe"])
@pytest.mark.parametrize("before", [0, 4])
@pytest.mark.parametrize("named", [False, True])
def test_further_evaluations_count_nowhere_beside_another_optimizer(
    two, data, watch, read, caplog, search, before, named
):
    caplog.set_level("INFO", "losslog")
    adam = torch.optim.Adam(two.parameters(), 1e-2)
    make = functools.partial(torch.optim.LBFGS, two.parameters(), lr=0.1, max_iter=4, line_search_fn=search)
    lbfgs = make() if named else None
    run, returned, batches = watch(two, [adam, lbfgs] if named else adam), [], [*data[0]]
    lbfgs = lbfgs or make()
    for batch in batches[:before]:
        adam.zero_grad()
        loss = sum(two(batch).values())
        loss.backward()
        adam.step()
        returned.append(loss.item())
    for batch in batches:

        def closure(batch=batch):
            lbfgs.zero_grad()
            loss = sum(two(batch).values())
            loss.backward()
            return loss

        returned.append(lbfgs.step(closure).item())
    run.close()
    rows, ends = read(run, "on_batch_losses"), read(run, "on_epoch_end")
    assert [each["total"] for each in rows] == pytest.approx(returned)
    assert [each["total"] for each in ends] == pytest.approx(
        [
            sum(its) / len(its)
            for end in ends
            if (its := [each["total"] for each in rows if each["epoch"] == end["epoch"]])
        ]
    )
    assert "no step" not in caplog.text


@pytest.mark.parametrize("layers", [1, 12])
def test_steps_inside_the_backward_pass(layers, data, watch, read):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.trunk = nn.Sequential(*[nn.Linear(4, 4) for _ in range(layers)])

        def forward(self, x):
            x = self.trunk(x)
            return {"loss_a": x.square().mean(), "loss_b": x.abs().mean()}

    two = Two()
    optimizers = {each: torch.optim.SGD([each], lr=0.01) for each in two.parameters()}
    run = watch(two, list(optimizers.values()))

    def update(parameter):
        optimizers[parameter].step()
        optimizers[parameter].zero_grad()

    for parameter in two.parameters():
        parameter.register_post_accumulate_grad_hook(update)
    totals, validated = [], []
    for _ in range(2):
        two.train()
        for batch in data[0]:
            loss = sum(two(batch).values())
            loss.backward()
            totals.append(loss.item())
        two.eval()
        with torch.no_grad():
            losses = two(torch.full((2, 4), 3.0))
        validated.append({name: value.item() for name, value in losses.items()})
    run.close()
    batches = read(run, "on_batch_losses")
    assert [each["total"] for each in batches] == pytest.approx(totals)
    assert {tuple(each["losses"]) for each in batches} == {("loss_a", "loss_b")}
    assert [each["lr"] for each in batches] == [0.01 if layers > 1 else {"SGD": 0.01, "SGD_2": 0.01}] * len(batches)
    assert [each["val_loss"] for each in read(run, "on_epoch_end")] == [pytest.approx(each) for each in validated]


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_counts_once(data, watch, read, reentrant):
    from torch.utils.checkpoint import checkpoint

    inner = Heads()

    class Wrap(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return checkpoint(lambda z: sum(v for n, v in self.inner(z).items() if n in WEIGHTED), x,
                              use_reentrant=reentrant)  # fmt: skip

    model = Wrap()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run = watch(model, optimizer)
    totals = []
    for batch in data[0]:
        loss = model(batch.requires_grad_())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        totals.append(loss.item())
    run.close()
    assert [each["total"] for each in read(run, "on_batch_losses")] == pytest.approx(totals)


def test_a_gradient_penalty(two, data, watch, read):
    optimizer = torch.optim.SGD(two.parameters(), lr=0.01)
    run = watch(two, optimizer)
    totals = []
    for batch in data[0]:
        x = batch.clone().requires_grad_()
        loss = sum(two(x).values())
        (gradient,) = torch.autograd.grad(loss, x, create_graph=True)
        whole = loss + 10 * gradient.pow(2).mean()
        optimizer.zero_grad()
        whole.backward()
        optimizer.step()
        totals.append(whole.item())
    run.close()
    assert [each["total"] for each in read(run, "on_batch_losses")] == pytest.approx(totals)


def test_create_graph_and_a_second_backward_add_up(two, data, watch, read):
    optimizer = torch.optim.SGD(two.parameters(), lr=0.01)
    run = watch(two, optimizer)
    loss = sum(two(data[0].dataset[:4]).values())
    with pytest.warns(UserWarning, match="create_graph"):
        loss.backward(create_graph=True)
    second = sum(each.grad.pow(2).sum() for each in two.parameters())
    second.backward()
    optimizer.step()
    run.close()
    (batch,) = read(run, "on_batch_losses")
    assert batch["total"] == pytest.approx((loss + second).item())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions(loop, dtype, caplog):
    model = Heads(lambda losses, extra: {name: value.to(dtype) for name, value in losses.items()})
    for batch in loop.run(model, lambda losses: sum(losses.values()).float()):
        assert "weights" not in batch
    assert "outside the model" not in caplog.text


def test_whoever_replaced_backward_before_goes_on(two, data, watch, read, monkeypatch):
    original, seen = torch.autograd.backward, []

    def theirs(*args, **kwargs):
        seen.append(1)
        return original(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(torch.autograd, "backward", theirs)
        optimizer = torch.optim.SGD(two.parameters(), lr=0.01)
        run = watch(two, optimizer)
        sum(two(data[0].dataset[:4]).values()).backward()
        optimizer.step()
        run.close()
        assert torch.autograd.backward is theirs
    assert seen == [1]
    assert len(read(run, "on_batch_losses")) == 1


def test_an_error_in_backward_is_the_loops(two, data, watch):
    run = watch(two, torch.optim.SGD(two.parameters(), lr=0.01))
    with pytest.raises(RuntimeError, match="grad can be implicitly created only for scalar outputs"):
        two.linear(data[0].dataset[:4]).backward()
    run.close()
