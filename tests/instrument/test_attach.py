"""What attach puts on a model, an optimizer and torch, and what it does not."""

import copy
import gc
import json
import pickle
import subprocess
import sys
import weakref

import pytest
import torch

import losslog


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.1)


def step(model, optimizer, batch):
    losses = model(batch)
    loss = losses if isinstance(losses, torch.Tensor) else sum(losses.values())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return losses


def test_a_model_attached_can_be_pickled_and_loaded_without_losslog(two, watch, tmp_path):
    class Plain(torch.nn.Linear):
        pass

    model = torch.nn.Sequential(torch.nn.Linear(4, 2))
    run = watch(model, sgd(model))
    torch.save(model, tmp_path / "model.pt")
    code = (
        "import sys, torch; model = torch.load(sys.argv[1], weights_only=False); "
        "assert model(torch.ones(1, 4)).shape == (1, 2); "
        "assert not any(name.startswith('losslog') for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "model.pt"], check=True, timeout=60)
    assert pickle.loads(pickle.dumps(model))(torch.ones(1, 4)).shape == (1, 2)
    run.close()


def test_a_deep_copy_is_another_model(two, data, watch, read):
    optimizer = sgd(two)
    run = watch(two, optimizer)
    teacher = copy.deepcopy(two)
    trained = []
    for batch in data[0]:
        with torch.no_grad():
            teacher(batch)
        trained.append(step(two, optimizer, batch)["loss_a"].item())
    run.close()
    assert [each["losses"]["loss_a"] for each in read(run, "on_batch_losses")] == trained
    assert "val_loss" not in read(run, "on_epoch_end")[0]
    teacher(batch)


def test_attaching_again_replaces(two, data, watch, read):
    optimizer = sgd(two)
    first = watch(two, optimizer)
    step(two, optimizer, data[0].dataset[:4])
    second = watch(two, optimizer)
    step(two, optimizer, data[0].dataset[:4])
    second.close()
    assert read(first)[-1] == "on_run_end"
    assert len(read(first, "on_batch_losses")) == len(read(second, "on_batch_losses")) == 1
    assert not two._forward_hooks
    assert not two._forward_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
    assert "__call__" not in vars(type(two))


def test_two_models_in_one_run_and_a_run_of_ones_own(data, tmp_path, read):
    models = [torch.nn.ModuleDict({"a": torch.nn.Linear(4, 2)}) for _ in range(2)]
    for model, name in zip(models, ("left", "right"), strict=True):
        model.forward = lambda x, model=model, name=name: {name: model["a"](x).mean()}
    optimizers = [sgd(model) for model in models]
    with losslog.Run("t", tmp_path, plugins=None) as run:
        for model, optimizer in zip(models, optimizers, strict=True):
            assert losslog.attach(model, optimizer, run=run) is run
        for batch in data[0]:
            for model, optimizer in zip(models, optimizers, strict=True):
                step(model, optimizer, batch)
    assert [list(each["losses"]) for each in read(run, "on_batch_losses")] == [["left"], ["right"]] * 5
    assert set(read(run, "on_epoch_end")[0]["losses"]) == {"left", "right"}


def test_two_models_in_runs_of_their_own(data, watch, read):
    models = [torch.nn.Linear(4, 1), torch.nn.Linear(4, 1)]
    for model in models:
        model.register_forward_hook(lambda model, args, output: output.mean())
    optimizers = [sgd(model) for model in models]
    runs = [watch(model, optimizer) for model, optimizer in zip(models, optimizers, strict=True)]
    step(models[0], optimizers[0], data[0].dataset[:4])
    found = [step(models[1], optimizers[1], data[0].dataset[:4]).item() for _ in range(2)]
    for run in runs:
        run.close()
    assert [len(read(run, "on_batch_losses")) for run in runs] == [1, 2]
    assert [each["losses"] for each in read(runs[1], "on_batch_losses")] == found


def test_only_scalars_of_a_dict_are_losses(data, watch, read):
    class Head(torch.nn.Linear):
        def forward(self, x):
            y = super().forward(x)
            return {"loss": y.mean(), "logits": y, "count": torch.tensor(3)}

    model = Head(4, 2)
    optimizer = sgd(model)
    run = watch(model, optimizer)
    output = model(data[0].dataset[:4])
    output["loss"].backward()
    optimizer.step()
    run.close()
    assert read(run, "on_batch_losses")[0]["losses"] == {"loss": output["loss"].item()}


def test_a_model_that_gives_its_total(data, watch, read):
    class Head(torch.nn.Linear):
        def forward(self, x):
            y = super().forward(x)
            a, b = y.mean(), y.std()
            return {"a": a, "b": b, "total": a + 3 * b}

    model = Head(4, 2)
    optimizer = sgd(model)
    run = watch(model, optimizer)
    output = model(data[0].dataset[:4])
    output["total"].backward()
    optimizer.step()
    run.close()
    (record,) = read(run, "on_batch_losses")
    assert set(record["losses"]) == {"a", "b"}
    assert record["total"] == output["total"].item()
    assert record["weights"] == {"b": 3.0}


def test_lbfgs_runs_several_forwards_a_step(two, data, watch, read):
    optimizer = torch.optim.LBFGS(two.parameters(), max_iter=4)
    run = watch(two, optimizer)
    found = []

    def closure():
        optimizer.zero_grad()
        losses = two(data[0].dataset[:4])
        sum(losses.values()).backward()
        found.append(losses["loss_a"].item())
        return sum(losses.values())

    optimizer.step(closure)
    run.close()
    (record,) = read(run, "on_batch_losses")
    assert record["step"] == 0
    assert record["lr"] == 1


def test_an_optimizer_that_calls_its_parents_step(two, data, watch, read):
    class Mine(torch.optim.SGD):
        def step(self, closure=None):
            return super().step(closure)

    optimizer = Mine(two.parameters(), lr=0.1)
    run = watch(two, optimizer)
    for batch in data[0]:
        step(two, optimizer, batch)
    run.close()
    assert [each["step"] for each in read(run, "on_batch_losses")] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("order", ["compiled first", "attached first", "inner attached", "in place"])
def test_compiled_models(two, data, watch, read, order):
    compilations = []

    def backend(graph, inputs):
        compilations.append(1)
        return graph.forward

    torch._dynamo.reset()
    optimizer = sgd(two)
    if order == "compiled first":
        model = torch.compile(two, backend=backend)
        run = watch(model, optimizer)
    elif order == "inner attached":
        model = torch.compile(two, backend=backend)
        run = watch(two, optimizer)
    elif order == "attached first":
        run = watch(two, optimizer)
        model = torch.compile(two, backend=backend)
    else:
        run = watch(two, optimizer)
        two.compile(backend=backend)
        model = two
    found = [step(model, optimizer, batch)["loss_a"].item() for batch in data[0]]
    run.close()
    assert [each["losses"]["loss_a"] for each in read(run, "on_batch_losses")] == found
    assert len(compilations) == 1
    model(data[0].dataset[:4])
    torch._dynamo.reset()


def test_nothing_is_kept_alive(watch, data, two):
    optimizer = sgd(two)
    run = watch(two, optimizer)
    losses = two(data[0].dataset[:4])
    graph = weakref.ref(losses["loss_a"])
    del losses
    gc.collect()
    assert graph() is None
    run.close()


def test_an_error_of_ours_is_not_the_loops(two, data, watch, read, monkeypatch, capsys):
    from losslog.instrument import sightings

    def broken(*args, **kwargs):
        raise RuntimeError("ours")

    optimizer = sgd(two)
    run = watch(two, optimizer)
    with monkeypatch.context() as patch:
        patch.setattr(sightings, "read", broken)
        step(two, optimizer, data[0].dataset[:4])
    step(two, optimizer, data[0].dataset[:4])
    run.close()
    first, second = read(run, "on_batch_losses")
    assert isinstance(first["losses"], float)  # the total was heard all the same
    assert set(second["losses"]) == {"loss_a", "loss_b"}


def test_a_loop_that_calls_forward_has_its_total(two, data, watch, read):
    optimizer = sgd(two)
    run = watch(two, optimizer)
    totals = []
    for batch in data[0]:
        loss = sum(two.forward(batch).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        totals.append(loss.item())
    run.close()
    assert [each["losses"] for each in read(run, "on_batch_losses")] == totals


@pytest.mark.parametrize(
    ("model", "optimizer", "options", "message"),
    [
        (object(), None, {}, "model must be a torch.nn.Module, got object"),
        (torch.nn.Linear(1, 1), 3, {}, "optimizer must be a torch.optim.Optimizer, got int"),
        (torch.nn.Linear(1, 1), None, {"passes_per_epoch": 0}, "passes_per_epoch must be a whole number >= 1, got 0"),
        (torch.nn.Linear(1, 1), None, {"run": 3}, "run must be a losslog.Run, got int"),
    ],
)
def test_wrong_types_are_told_at_the_door(model, optimizer, options, message):
    with pytest.raises(TypeError, match=message):
        losslog.attach(model, optimizer, plugins=None, **options)


def test_what_watching_costs_is_told(two, watch):
    optimizer = torch.optim.SGD(two.parameters(), 0.01)
    run = watch(two, optimizer)
    for _ in range(150):
        optimizer.zero_grad()
        sum(two(torch.randn(3, 4)).values()).backward()
        optimizer.step()
    assert run.stats["us_per_step"] > 0
    run.close()


@pytest.mark.parametrize(
    ("leave", "status", "ends"),
    [
        ("sys.exit(3)", "failed", 1),
        ("sys.exit('bad')", "failed", 1),
        ("sys.exit(0)", "finished", 2),
        ("leave(2)", "failed", 1),
        ("try:\n    sys.exit(3)\nexcept SystemExit:\n    epoch(6)", "finished", 2),
    ],
)
def test_a_program_that_exits_amid_an_epoch(tmp_path, leave, status, ends):
    text = f"""
import sys, torch, losslog
before = sys.exit
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), 0.01)
run = losslog.attach(model, optimizer, name="t", dir={str(tmp_path)!r}, plugins=None)
from sys import exit as leave
loader = torch.utils.data.DataLoader(torch.randn(24, 4), 4)
def epoch(steps):
    for x, _ in zip(loader, range(steps)):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
epoch(6)
epoch(3)
"""
    done = subprocess.run(
        [sys.executable, "-c", text + leave], capture_output=True, text=True, timeout=120, check=False
    )
    assert "Traceback" not in done.stderr
    (journal,) = tmp_path.rglob("journal.jsonl")
    records = [json.loads(line) for line in journal.read_text().splitlines()]
    assert records[-1]["data"]["status"] == status, done.stderr
    found = sum(each["hook"] == "on_epoch_end" for each in records)
    assert found == ends + ("except" in leave)
    assert done.returncode == {"sys.exit(3)": 3, "sys.exit('bad')": 1, "leave(2)": 2}.get(leave, 0)
