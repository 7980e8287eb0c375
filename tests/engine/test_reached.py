"""Each fault in what is trained names its own cause and no other, at the first step of the next epoch at the latest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torchvision")

import losslog  # noqa: E402
from losslog import engine  # noqa: E402
from losslog.detection import build_maskrcnn, get_parameter_groups  # noqa: E402
from losslog.detection.stall import stall_mask_branch  # noqa: E402
from losslog.history import records  # noqa: E402

STEPS = 2


def batches() -> list[Any]:
    torch.manual_seed(0)
    masks = torch.zeros(1, 64, 64, dtype=torch.uint8)
    masks[:, 10:50, 10:50] = 1
    target = {"boxes": torch.tensor([[10.0, 10.0, 50.0, 50.0]]), "labels": torch.tensor([1]), "masks": masks}
    return [([torch.rand(3, 64, 64)], [target]) for _ in range(STEPS)]


def make() -> Any:
    torch.manual_seed(0)
    return build_maskrcnn(3, "tiny")


def train(folder: Path, model: Any, optimizer: Any, spoil: Callable[[int], None] | None = None, **more: Any) -> Path:
    """Three epochs of two steps; ``spoil`` is called before each."""
    with losslog.Run("reach", folder, plugins=[], epochs=3, steps_per_epoch=STEPS) as run:
        engine.fit(
            model, optimizer, batches(), epochs=3, device="cpu", run=run, before_epoch=spoil, checkpoint_every=0, **more
        )
    return Path(run.dir)


def alerts(folder: Path) -> list[dict[str, Any]]:
    return [record.data for record in records(folder) if record.hook == "on_alert"]


def at_second(change: Callable[[], None]) -> Callable[[int], None]:
    return lambda epoch: change() if epoch == 2 else None


def sgd(model: Any, **more: Any) -> Any:
    return torch.optim.SGD(get_parameter_groups(model, 1e-4), lr=1e-4, **more)


def test_healthy_run_is_silent_and_has_its_metrics(tmp_path: Path) -> None:
    model = make()
    folder = train(tmp_path, model, sgd(model))
    assert alerts(folder) == []
    found = [
        record.data
        for record in records(folder)
        if record.hook == "on_metrics" and "reach/loss_mask" in record.data["metrics"]
    ]
    assert [data["step"] for data in found] == [0, STEPS, 2 * STEPS]
    assert all(data["metrics"]["reach/loss_mask"] > 10 for data in found)


def test_stalled_branch_is_named_with_its_parts_at_its_first_step(tmp_path: Path) -> None:
    model = make()
    folder = train(tmp_path, model, sgd(model), at_second(lambda: stall_mask_branch(model)))
    (alert,) = alerts(folder)
    assert (alert["component"], alert["level"], alert["cause"], alert["step"]) == (
        "loss_mask",
        "error",
        "not_trained",
        STEPS,
    )
    assert alert["text"].startswith(f"loss_mask trains nothing since step {STEPS}: ")
    assert "mask_head: requires_grad is False" in alert["text"]
    assert "backbone: detached" in alert["text"]
    assert alert["evidence"]["lost"]["mask_head"] == "requires_grad is False"


def test_frozen_head_is_a_part_that_is_no_longer_trained(tmp_path: Path) -> None:
    model = make()

    def freeze() -> None:
        model.roi_heads.mask_head.requires_grad_(False)
        model.roi_heads.mask_predictor.requires_grad_(False)

    (alert,) = alerts(train(tmp_path, model, sgd(model), at_second(freeze)))
    assert (alert["title"], alert["level"], alert["cause"]) == (
        "loss_mask no longer trains mask_head",
        "info",
        "part_not_trained",
    )


def test_part_in_no_optimizer_group(tmp_path: Path) -> None:
    model = make()
    groups = [group for group in get_parameter_groups(model, 1e-4) if group["name"] != "mask_head"]
    (alert,) = alerts(train(tmp_path, model, torch.optim.SGD(groups)))
    assert (alert["title"], alert["cause"]) == ("mask_head is in no optimizer group", "not_in_optimizer")
    assert (alert["component"], alert["evidence"]["losses"]) == ("loss_mask", ["loss_mask"])


def test_rate_of_zero_in_its_group(tmp_path: Path) -> None:
    model = make()
    optimizer = sgd(model)
    next(group for group in optimizer.param_groups if group["name"] == "mask_head")["lr"] = 0.0
    (alert,) = alerts(train(tmp_path, model, optimizer))
    assert (alert["title"], alert["cause"]) == ("the learning rate of mask_head is 0", "lr_zero")


def test_warmup_from_zero_is_no_rate_of_zero(tmp_path: Path) -> None:
    model = make()
    optimizer = sgd(model)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, step / 3))
    assert alerts(train(tmp_path, model, optimizer, scheduler=scheduler, scheduler_every="step")) == []


def test_head_under_no_grad_from_the_start(tmp_path: Path) -> None:
    model = make()
    forward = model.roi_heads.mask_predictor.forward

    def blind(features: Any) -> Any:
        with torch.no_grad():
            return forward(features)

    model.roi_heads.mask_predictor.forward = blind
    (alert,) = alerts(train(tmp_path, model, sgd(model)))
    assert (alert["component"], alert["cause"], alert["level"]) == ("loss_mask", "not_trained", "error")


def test_what_is_frozen_from_the_start_is_information_once(tmp_path: Path) -> None:
    model = make()
    model.backbone.requires_grad_(False)
    (alert,) = alerts(train(tmp_path, model, sgd(model)))
    assert (alert["level"], alert["cause"]) == ("info", "frozen")
    assert "backbone" in alert["text"]


class Alternating(torch.nn.Module):
    """Two losses; which one may train changes at every step, as in some adversarial loops."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.calls = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1), 0

    def forward(self, x: Any) -> dict[str, Any]:
        self.calls += 1
        self.left.requires_grad_(self.calls % 2 == 0)
        self.right.requires_grad_(self.calls % 2 == 1)
        return {"a": self.left(x).mean() + self.right(x).mean(), "b": (self.left(x) * self.right(x)).mean()}


def test_loop_that_switches_parameters_at_every_step_is_told_of_each_part_once(tmp_path: Path) -> None:
    model = Alternating()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with losslog.Run("gan", tmp_path, plugins=[], epochs=2) as run:
        engine.fit(
            model, optimizer, [torch.rand(4, 2)] * 40, epochs=2, device="cpu", run=run, checkpoint_every=0,
            forward=lambda model, batch: model(batch),
        )  # fmt: skip
    titles = [alert["title"] for alert in alerts(Path(run.dir))]
    assert len(titles) == len(set(titles)) <= 5


def test_walk_that_fails_is_said_once_and_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError("no graph today")

    monkeypatch.setattr("losslog.instrument.reached.reach", fail)
    model = make()
    folder = train(tmp_path, model, sgd(model))
    assert alerts(folder) == []
    assert sum(record.hook == "on_batch_losses" for record in records(folder)) == 3 * STEPS
    assert caplog.text.count("no graph today") == 1
