"""What each loss has of the gradient at the shared trunk: right, and without a trace in what is trained."""

import copy
import json
import math
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import losslog

STEPS = 6


class Trunk(nn.Module):
    """A trunk with dropout and batch norm, and heads for two losses, the second one ``weight`` times."""

    def __init__(self, head=None):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2))
        self.left, self.right = nn.Linear(8, 1), nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))
        self.head = head or (lambda module, x: module(x))

    def forward(self, x):
        hidden = self.trunk(x)
        right = self.head(self.right, hidden)
        return {"loss_left": (self.left(hidden) ** 2).mean(), "loss_right": (right - 1).abs().mean()}


def train(model, run_of=None, *, weight=1.0, scaler=None, steps=STEPS, accumulate=1):
    """A loop of one's own; gives the state it ends in, random state included."""
    torch.manual_seed(3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    run = run_of(model, optimizer) if run_of else None
    for _ in range(steps):
        optimizer.zero_grad()
        for _ in range(accumulate):
            losses = model(torch.randn(16, 4))
            total = losses["loss_left"] + weight * losses["loss_right"]
            (scaler.scale(total) if scaler else total / accumulate).backward()
        if scaler:
            scaler.step(optimizer)
            scaler.update()
        else:
            optimizer.step()
    if run is not None:
        run.close()
    return run, [*copy.deepcopy(model.state_dict()).values(), torch.get_rng_state()]


def made(**more):
    torch.manual_seed(0)
    return Trunk(**more)


def shares(run):
    lines = [json.loads(each) for each in (run.dir / "journal.jsonl").read_text().splitlines()]
    return {
        each["data"]["step"]: each["data"]["metrics"]
        for each in lines
        if each["hook"] == "on_metrics" and any(tag.startswith("grad_share/") for tag in each["data"]["metrics"])
    }


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def by_hand(weight):
    """The shares at the first step, from gradients at a trunk's output that is there."""
    model = made()
    torch.manual_seed(3)
    x = torch.randn(16, 4)
    hidden = model.trunk(x)
    left, right = (model.left(hidden) ** 2).mean(), (model.right(hidden) - 1).abs().mean()
    norms = [torch.autograd.grad(each, hidden, retain_graph=True)[0].norm().item() for each in (left, weight * right)]
    return [each / sum(norms) for each in norms]


@pytest.mark.parametrize("weight", [1.0, 0.1])
def test_shares_are_those_of_the_gradients_at_the_trunk(watch, weight):
    run, _ = train(made(), lambda *them: watch(*them, gradients_every=3), weight=weight)
    found = shares(run)
    assert [*found] == [0, 3]
    assert [*found[0].values()] == pytest.approx(by_hand(weight), abs=1e-5)


def test_off_by_default(watch):
    run, _ = train(made(), watch)
    assert shares(run) == {}


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize(
    "head",
    [
        None,
        lambda module, x: checkpoint(module, x, use_reentrant=False),
        lambda module, x: checkpoint(lambda y: nn.functional.dropout(module(y)), x, use_reentrant=False,
                                     preserve_rng_state=False),
    ],
    ids=["plain", "checkpointed", "checkpointed, with random numbers of its own"],
)  # fmt: skip
def test_what_is_trained_is_the_same_to_the_last_bit(watch, head, accumulate):
    _, before = train(made(head=head), watch, accumulate=accumulate)
    run, after = train(made(head=head), lambda *them: watch(*them, gradients_every=2), accumulate=accumulate)
    assert len(shares(run)) == STEPS // 2
    assert same(before, after)


def test_a_scaler_does_not_count(watch):
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    run, _ = train(made(), lambda *them: watch(*them, gradients_every=100), scaler=scaler)
    assert [*shares(run)[0].values()] == pytest.approx(by_hand(1.0), abs=1e-5)


def test_hooks_of_parameters_are_not_called(watch):
    model, calls = made(), []
    for each in model.parameters():
        each.register_hook(lambda gradient: calls.append(1))
    train(model, watch)
    plain = len(calls)
    calls.clear()
    train(model, lambda *them: watch(*them, gradients_every=1))
    assert len(calls) == plain


class Own(torch.autograd.Function):
    """Changes what it has saved: two backward calls of it are not one."""

    @staticmethod
    def forward(ctx, x):
        ctx.kept = torch.ones_like(x)
        return x * 1

    @staticmethod
    def backward(ctx, gradient):
        ctx.kept *= 2
        return gradient * ctx.kept


@pytest.mark.parametrize(
    ("head", "why"),
    [
        (lambda module, x: checkpoint(module, x, use_reentrant=True), "use_reentrant=False"),
        (lambda module, x: Own.apply(module(x)), "Own has a backward of its own"),
    ],
    ids=["reentrant", "own"],
)
def test_what_must_not_run_twice_is_refused_once_and_training_goes_on(watch, caplog, head, why):
    _, before = train(made(head=head), watch)
    caplog.set_level("INFO", "losslog")
    run, after = train(made(head=head), lambda *them: watch(*them, gradients_every=1))
    said = [line for line in caplog.messages if "gradient shares" in line]
    assert len(said) == 1
    assert why in said[0]
    assert shares(run) == {}
    assert same(before, after)


def test_one_loss_has_nothing_to_share(watch, caplog):
    caplog.set_level("INFO", "losslog")
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run = watch(model, optimizer, gradients_every=1)
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(torch.randn(8, 4)), torch.zeros(8, 1)).backward()
        optimizer.step()
    run.close()
    assert shares(run) == {}
    assert sum("gradient shares were not measured" in line for line in caplog.messages) == 1


def test_losses_of_several_criteria_share_too(watch):
    torch.manual_seed(0)
    trunk, left, right = nn.Linear(4, 8), nn.Linear(8, 1), nn.Linear(8, 3)
    model = nn.ModuleList([trunk, left, right])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run, mse, entropy = watch(model, optimizer, gradients_every=2), nn.MSELoss(), nn.CrossEntropyLoss()
    for _ in range(4):
        optimizer.zero_grad()
        hidden = trunk(torch.randn(8, 4)).relu()
        (mse(left(hidden), torch.zeros(8, 1)) + entropy(right(hidden), torch.zeros(8).long())).backward()
        optimizer.step()
    run.close()
    found = shares(run)
    assert [*found] == [0, 2]
    assert all(math.isclose(sum(each.values()), 1, abs_tol=1e-6) and len(each) == 2 for each in found.values())


@pytest.mark.parametrize("wrong", [-1, 1.5, True, "2"])
def test_a_wrong_number_is_refused(two, wrong):
    with pytest.raises(TypeError, match="gradients_every"):
        losslog.attach(two, torch.optim.SGD(two.parameters(), lr=0.1), gradients_every=wrong)


@pytest.fixture
def group(tmp_path):
    """A process group of one."""
    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        pytest.skip("this torch has no gloo")
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("options", [{}, {"static_graph": True}, {"find_unused_parameters": True}], ids=str)
def test_distributed_data_parallel_averages_as_often_as_without(watch, group, options):
    wrapped = lambda: nn.parallel.DistributedDataParallel(made(), **options)  # noqa: E731
    _, before = train(wrapped(), watch)
    run, after = train(wrapped(), lambda *them: watch(*them, gradients_every=2))
    assert [*shares(run)] == [0, 2, 4]
    assert same(before, after)
    assert [*shares(run)[0].values()] == pytest.approx(by_hand(1.0), abs=1e-5)


class Talks(torch.autograd.Function):
    """Stands for what waits for other processes in its backward."""

    @staticmethod
    def forward(ctx, x):
        return x * 1

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def test_what_may_wait_for_other_processes_is_refused(watch, group, caplog):
    caplog.set_level("INFO", "losslog")
    kind = type("AllReduce", (Talks,), {"__module__": "torch.distributed.nn.functional"})
    run, _ = train(made(head=lambda module, x: kind.apply(module(x))), lambda *them: watch(*them, gradients_every=1))
    assert shares(run) == {}
    assert any("talks to the other processes" in line for line in caplog.messages)


@pytest.mark.skipif(not hasattr(torch, "compile"), reason="this torch cannot compile")
def test_a_compiled_whole_is_refused(watch, caplog):
    caplog.set_level("INFO", "losslog")
    run, _ = train(torch.compile(made(), backend="aot_eager"), lambda *them: watch(*them, gradients_every=1))
    assert shares(run) == {}
    assert any("torch.compile" in line for line in caplog.messages)


SCRIPT = """
import torch

torch.manual_seed(0)
trunk, left, right = torch.nn.Linear(4, 8), torch.nn.Linear(8, 1), torch.nn.Linear(8, 1)
optimizer = torch.optim.SGD([*trunk.parameters(), *left.parameters(), *right.parameters()], lr=0.1)
one, other = torch.nn.MSELoss(), torch.nn.L1Loss()
for step in range(6):
    optimizer.zero_grad()
    hidden = trunk(torch.randn(8, 4)).relu()
    (one(left(hidden), torch.zeros(8, 1)) + other(right(hidden), torch.ones(8, 1))).backward()
    optimizer.step()
print(trunk.weight.sum().item())
"""


def test_a_script_that_is_run_is_measured(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT, "utf-8")
    before = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
    command = [
        sys.executable,
        "-m",
        "losslog",
        "run",
        "--dir",
        "runs",
        "--plugins",
        "plateau",
        "--gradients-every",
        "4",
    ]
    after = subprocess.run([*command, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert after.stdout == before.stdout
    (journal,) = tmp_path.glob("runs/*/*/journal.jsonl")
    found = [json.loads(each)["data"] for each in journal.read_text("utf-8").splitlines() if "grad_share/" in each]
    assert [each["step"] for each in found] == [0, 4]
    assert {*found[0]["metrics"]} == {"grad_share/MSELoss", "grad_share/L1Loss"}
