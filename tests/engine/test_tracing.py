"""``non_finite="trace"``: the first output that is not finite is named, and training goes on as it would have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import losslog  # noqa: E402
from losslog import engine  # noqa: E402
from losslog.history import records  # noqa: E402

Open = Callable[..., losslog.Run]
BAD = 3  # the step whose batch is spoiled


class Spoiled(torch.nn.Module):
    """Divides by what the batch says."""

    def forward(self, x: Any, by: Any) -> Any:
        return x / by


class Net(torch.nn.Module):
    """Batch norm and dropout before, a place for NaN in between, two losses after."""

    def __init__(self, place: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.place = place
        self.body = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.2))
        self.spoil = Spoiled()
        self.head = torch.nn.Linear(8, 1)

    def forward(self, x: Any, targets: Any) -> Any:
        by = x.new_tensor(1.0 if all(each["by"] for each in targets) else 0.0)
        hidden = self.body(x)
        hidden = (
            self.spoil(hidden, by) if self.place == "module" else hidden / by if self.place == "between" else hidden
        )
        out = self.head(hidden)
        loss = (out**2).mean()
        return {"loss_a": loss / by if self.place == "loss" else loss, "loss_b": out.abs().mean()}


def batches(bad: tuple[int, ...] = (BAD,), count: int = 6) -> list[Any]:
    torch.manual_seed(1)
    return [
        (
            torch.randn(8, 4),
            [{"by": step not in bad, "image_id": 10 * step + place, "boxes": torch.ones(0, 4)} for place in range(8)],
        )
        for step in range(count)
    ]


def train(model: Any, run: losslog.Run, loader: list[Any], **more: Any) -> list[Any]:
    """One epoch; weights, buffers, and random state at its end."""
    torch.manual_seed(2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with run:
        engine.fit(model, optimizer, loader, epochs=1, device="cpu", run=run, checkpoint_every=0, **more)
    return [*(each.clone() for each in model.state_dict().values()), torch.get_rng_state()]


def told(run: losslog.Run) -> list[dict[str, Any]]:
    found = [record.data for record in records(run.dir) if record.hook == "on_alert"]
    return [each for each in found if each.get("cause") == "not_finite_in"]


@pytest.mark.parametrize(
    ("place", "module", "says"),
    [
        ("module", "spoil", "that of spoil (Spoiled): NaN in all of it. What goes into it is finite"),
        ("between", "head", "it arises between modules after body (Sequential)"),
        ("loss", "", "(loss_a)"),
    ],
)
def test_the_first_output_that_is_not_finite_is_named(open_run: Open, place: str, module: str, says: str) -> None:
    run = open_run()
    train(Net(place), run, batches(), non_finite="trace")
    (alert,) = told(run)
    assert (alert["step"], alert["level"], alert["component"]) == (BAD, "error", "loss_a")
    assert alert["evidence"]["module"] == module
    assert alert["evidence"]["images"] == [30, 31, 32, 33, 34, 35, 36, 37]
    assert says in alert["text"]
    assert "30" in alert["text"]


@pytest.mark.parametrize("more", [{}, {"accumulate": 2}, {"amp": torch.bfloat16}], ids=["plain", "accumulated", "amp"])
def test_what_is_trained_is_as_with_warn(open_run: Open, more: dict[str, Any]) -> None:
    one, other = Net("module"), Net("module")
    for model in (one, other):  # what becomes NaN would hide a difference
        model.spoil.register_full_backward_hook(lambda module, given, got: tuple(torch.nan_to_num(g) if g is not None
                                                                                 else None for g in given))  # fmt: skip
    before = train(one, open_run(), batches(), non_finite="warn", clip_norm=1.0, **more)
    run = open_run()
    after = train(other, run, batches(), non_finite="trace", clip_norm=1.0, **more)
    assert len(told(run)) == 1
    assert all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(before, after, strict=True))


def test_a_healthy_run_is_the_same_to_the_last_bit(open_run: Open) -> None:
    before = train(Net("module"), open_run(), batches(()), non_finite="warn")
    run = open_run()
    after = train(Net("module"), run, batches(()), non_finite="trace")
    assert told(run) == []
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_parameter_that_was_lost_before_is_named(open_run: Open) -> None:
    model, run = Net("none"), open_run()
    with torch.no_grad():
        model.head.weight[0, 0] = float("nan")
    train(model, run, batches(()), non_finite="trace")
    (alert,) = told(run)  # once: it never becomes finite again
    assert (alert["step"], alert["evidence"]["module"]) == (0, "head.weight")


def test_a_batch_that_is_not_finite_is_named(open_run: Open) -> None:
    loader, run = batches(()), open_run()
    loader[2][0][1, 1] = float("nan")
    train(Net("none"), run, loader, non_finite="trace")
    (alert,) = told(run)
    assert "What the model is given is not finite: the batch[0]" in alert["text"]
    assert alert["step"] == 2


class Forgiving(Net):
    """Its weights survive: what is spoiled has no gradient."""

    def forward(self, x: Any, targets: Any) -> Any:
        found = super().forward(x, targets)
        return found if all(each["by"] for each in targets) else {k: v.detach() + 0 * self.head.bias.sum() for k, v in
                                                                  found.items()}  # fmt: skip


def test_three_repetitions_are_enough(open_run: Open) -> None:
    run, calls = open_run(), []
    model = Forgiving("module")
    model.spoil.register_forward_pre_hook(lambda *_: calls.append(1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with run:
        loader = batches((1, 3, 5, 7, 9), 11)
        engine.fit(model, optimizer, loader, epochs=1, device="cpu", run=run, checkpoint_every=0, non_finite="trace")
    assert len(calls) == 11 + 3


def test_other_processes_are_not_waited_for(open_run: Open) -> None:
    model, run = Net("module"), open_run()
    calls: list[int] = []
    model.spoil.register_forward_pre_hook(lambda *_: calls.append(1))
    model.unused = torch.nn.SyncBatchNorm(3)
    train(model, run, batches(), non_finite="trace")
    (alert,) = told(run)
    assert "other processes" in alert["text"]
    assert len(calls) == 6


def test_a_repetition_that_fails_is_said_and_training_goes_on(open_run: Open, caplog: Any) -> None:
    caplog.set_level("INFO", "losslog")
    model, run, calls = Net("module"), open_run(), []

    def fails(*_: Any) -> None:
        calls.append(1)
        if len(calls) == BAD + 2:
            raise RuntimeError("not twice")

    model.spoil.register_forward_pre_hook(fails)
    train(model, run, batches(), non_finite="trace")
    assert any("could not be computed once more: " in line and "not twice" in line for line in caplog.messages)
    assert sum(record.hook == "on_batch_losses" for record in records(run.dir)) == 6
    assert all(not module._forward_hooks for module in model.modules())
