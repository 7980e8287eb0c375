from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import losslog
from losslog.engine import Progress, Warmup, train_one_epoch

OpenRun = Callable[..., losslog.Run]
Records = Callable[[losslog.Run], list[dict[str, Any]]]


def sgd(model: nn.Module, lr: float = 0.01) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=lr)


def batches_of(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [record["data"] for record in records if record["hook"] == "on_batch_losses"]


def by_hand(model: nn.Module, loader: Any) -> dict[str, float]:
    optimizer = sgd(model)
    model.train()
    sums: dict[str, float] = {}
    for x, y in loader:
        losses = model(x, y)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        for name, value in losses.items():
            sums[name] = sums.get(name, 0.0) + value.item()
    return {name: value / len(loader) for name, value in sums.items()}


@pytest.mark.parametrize("with_run", [False, True])
def test_means_and_weights_are_those_of_a_hand_written_loop(
    two_losses: nn.Module, loader: Any, open_run: OpenRun, with_run: bool
) -> None:
    twin = copy.deepcopy(two_losses)
    torch.manual_seed(5)
    expected = by_hand(twin, loader)
    torch.manual_seed(5)
    if with_run:
        with open_run() as run:
            means = train_one_epoch(two_losses, sgd(two_losses), loader, "cpu", 1, run)
    else:
        means = train_one_epoch(two_losses, sgd(two_losses), loader, "cpu", 1)
    assert means == expected
    assert all(torch.equal(a, b) for a, b in zip(twin.parameters(), two_losses.parameters(), strict=True))


@pytest.mark.parametrize("with_run", [False, True])
def test_a_scalar_loss_gives_a_float(one_loss: nn.Module, loader: Any, open_run: OpenRun, with_run: bool) -> None:
    if with_run:
        with open_run() as run:
            mean = train_one_epoch(one_loss, sgd(one_loss), loader, "cpu", 1, run)
    else:
        mean = train_one_epoch(one_loss, sgd(one_loss), loader, "cpu", 1)
    assert isinstance(mean, float)


def test_every_step_is_a_record_with_its_rate(
    two_losses: nn.Module, loader: Any, open_run: OpenRun, records: Records
) -> None:
    optimizer = sgd(two_losses)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    with open_run() as run:
        for epoch in (1, 2):
            train_one_epoch(two_losses, optimizer, loader, "cpu", epoch, run, scheduler=scheduler, steps=2)
            run.end_epoch(epoch)
    found = [(each["step"], each["epoch"], each["lr"]) for each in batches_of(records(run))]
    assert found == [(0, 1, 0.01), (1, 1, 0.005), (2, 2, 0.0025), (3, 2, 0.00125)]


def test_named_groups_are_logged_by_name(two_losses: Any, loader: Any, open_run: OpenRun, records: Records) -> None:
    groups = [
        {"name": "body", "params": two_losses.body.parameters(), "lr": 0.1},
        {"params": [*two_losses.left.parameters(), *two_losses.right.parameters()]},
    ]
    with open_run() as run:
        train_one_epoch(two_losses, torch.optim.SGD(groups, lr=0.2), loader, "cpu", 1, run, steps=1)
    assert batches_of(records(run))[0]["lr"] == {"body": 0.1, "1": 0.2}


def test_accumulated_gradients_are_those_of_one_large_batch(one_loss: nn.Module) -> None:
    torch.manual_seed(2)
    x, twin = torch.randn(8, 4), copy.deepcopy(one_loss)
    large, small = [(x, x.sum(1))], [(part, part.sum(1)) for part in x.split(2)]
    train_one_epoch(one_loss, sgd(one_loss), large, "cpu", 1)
    train_one_epoch(twin, sgd(twin), small, "cpu", 1, accumulate=4)
    for a, b in zip(one_loss.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_accumulation_makes_one_record_per_step_with_the_mean_and_the_count(
    one_loss: nn.Module, open_run: OpenRun, records: Records
) -> None:
    torch.manual_seed(2)
    batches = [(part, part.sum(1)) for part in torch.randn(10, 4).split(2)]
    singles = [one_loss(x, y).item() for x, y in batches]
    frozen = torch.optim.SGD(one_loss.parameters(), lr=0.0)
    with open_run() as run:
        mean = train_one_epoch(one_loss, frozen, batches, "cpu", 1, run, accumulate=2)
    found = batches_of(records(run))
    assert [each.get("n", 1) for each in found] == [2, 2, 1]
    assert [each["losses"] for each in found] == pytest.approx(
        [sum(singles[:2]) / 2, sum(singles[2:4]) / 2, singles[4]], rel=1e-6
    )
    assert mean == pytest.approx(sum(singles) / 5, rel=1e-6)
    assert mean == pytest.approx(train_one_epoch(one_loss, frozen, batches, "cpu", 1, accumulate=2), rel=1e-6)


def test_a_component_that_some_batches_lack_is_averaged_over_the_others() -> None:
    class Sometimes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))

        def forward(self, value: float) -> dict[str, torch.Tensor]:
            always = {"a": value * self.weight}
            return always | {"b": 10 * value * self.weight} if value > 1 else always

    model = Sometimes()
    for accumulate in (1, 2, 4):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        assert train_one_epoch(model, optimizer, [[1.0], [2.0], [3.0]], "cpu", 1, accumulate=accumulate) == (
            {"a": 2.0, "b": 25.0} if accumulate == 1 else pytest.approx({"a": 2.0, "b": 25.0}, rel=0.2)
        )


@pytest.mark.parametrize("steps", [1, 6, 15])
def test_steps_are_exactly_those_asked_for(two_losses: nn.Module, loader: Any, steps: int) -> None:
    progress = Progress()
    train_one_epoch(two_losses, sgd(two_losses), loader, "cpu", 1, steps=steps, progress=progress)
    assert progress.step == steps


@pytest.mark.parametrize("steps", [None, 3])
def test_a_loader_that_gives_nothing_is_said(one_loss: nn.Module, steps: int | None) -> None:
    with pytest.raises(ValueError, match="gave no batches"):
        train_one_epoch(one_loss, sgd(one_loss), [], "cpu", 1, steps=steps)


@pytest.mark.parametrize(
    ("output", "described"),
    [
        (torch.ones(3), "a tensor of shape \\(3,\\)"),
        ([torch.ones(())], "a list"),
        ({"logits": torch.ones(3)}, "a dict"),
        (None, "a NoneType"),
    ],
)
def test_what_is_not_a_loss_is_refused(one_loss: nn.Module, loader: Any, output: Any, described: str) -> None:
    with pytest.raises(TypeError, match=f"one scalar loss, not {described}"):
        train_one_epoch(one_loss, sgd(one_loss), loader, "cpu", 1, forward=lambda model, batch: output)


def test_models_of_other_shapes_are_adapted(loader: Any) -> None:
    model = nn.Linear(4, 1)

    def forward(model: nn.Module, batch: Any) -> torch.Tensor:
        x, y = batch
        return nn.functional.mse_loss(model(x)[:, 0], y)

    first = train_one_epoch(model, sgd(model, 0.1), loader, "cpu", 1, forward=forward)
    second = train_one_epoch(model, sgd(model, 0.1), loader, "cpu", 2, forward=forward)
    assert isinstance(first, float)
    assert second < first  # type: ignore[operator]


def test_dict_batches_are_keywords_and_an_entry_called_loss_is_what_is_optimised() -> None:
    class Keywords(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))

        def forward(self, value: torch.Tensor) -> dict[str, torch.Tensor]:
            loss = (self.weight * value).sum()
            return {"loss": loss, "logits": value}

    model = Keywords()
    assert train_one_epoch(model, sgd(model, 1.0), [{"value": torch.tensor([3.0])}], "cpu", 1) == {"loss": 3.0}
    assert model.weight.item() == -2.0


def test_warm_up_rises_in_a_line_and_leaves_the_rates_as_they_were(
    one_loss: nn.Module, loader: Any, open_run: OpenRun, records: Records
) -> None:
    optimizer = sgd(one_loss, 1e-3)
    with open_run() as run:
        train_one_epoch(one_loss, optimizer, loader, "cpu", 1, run, warmup=Warmup(4, start=0.2))
    assert [each["lr"] for each in batches_of(records(run))] == pytest.approx([2e-4, 4e-4, 6e-4, 8e-4, 1e-3, 1e-3])
    assert optimizer.param_groups[0]["lr"] == 1e-3


def test_clipping_limits_the_gradient_and_its_norm_is_reported(
    one_loss: nn.Module, loader: Any, open_run: OpenRun, records: Records
) -> None:
    before = [parameter.detach().clone() for parameter in one_loss.parameters()]
    with open_run() as run:
        train_one_epoch(one_loss, sgd(one_loss, 1.0), loader, "cpu", 1, run, clip_norm=1e-3, steps=1)
    moved = torch.cat([(a - b).flatten() for a, b in zip(one_loss.parameters(), before, strict=True)])
    assert moved.norm().item() == pytest.approx(1e-3, rel=1e-3)
    metrics = next(record["data"]["metrics"] for record in records(run) if record["hook"] == "on_metrics")
    assert metrics["grad_norm"] > 1e-3


def test_throughput_memory_and_gradient_norm_are_reported_by_window(
    two_losses: nn.Module, loader: Any, open_run: OpenRun, records: Records
) -> None:
    with open_run() as run:
        train_one_epoch(two_losses, sgd(two_losses), loader, "cpu", 1, run, metrics_every=4)
    found = [record["data"] for record in records(run) if record["hook"] == "on_metrics"]
    assert [each["step"] for each in found] == [3, 5]
    assert found[0]["metrics"]["perf/images_per_s"] > 0
    assert found[0]["metrics"]["perf/peak_memory_mb"] > 1
    assert found[0]["metrics"]["grad_norm"] > 0


def test_a_stop_asked_for_ends_the_epoch_after_the_step(two_losses: nn.Module, loader: Any, open_run: OpenRun) -> None:
    progress = Progress()
    with open_run() as run:
        run.request_stop("enough")
        train_one_epoch(two_losses, sgd(two_losses), loader, "cpu", 1, run, progress=progress)
    assert progress.stopped
    assert progress.step == 1


@pytest.mark.parametrize("by_step", [True, False])
def test_a_learning_rate_asked_for_is_kept_by_the_scheduler(
    two_losses: nn.Module, loader: Any, open_run: OpenRun, by_step: bool
) -> None:
    optimizer = sgd(two_losses, 1.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    with open_run() as run:
        run.request_lr(0.1)
        asked = {"scheduler": scheduler} if by_step else {"request_scheduler": scheduler}
        train_one_epoch(two_losses, optimizer, loader, "cpu", 1, run, steps=2, **asked)
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1)


def test_a_scaler_that_skips_a_step_holds_the_scheduler_back(one_loss: nn.Module) -> None:
    from losslog.engine import MixedPrecision

    optimizer = sgd(one_loss, 1.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    precision = MixedPrecision(torch.device("cpu"), True, torch.float16)
    precision.scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    good, bad = (torch.ones(2, 4), torch.ones(2)), (torch.full((2, 4), torch.inf), torch.ones(2))
    train_one_epoch(one_loss, optimizer, [bad, good], "cpu", 1, scheduler=scheduler, precision=precision)
    assert scheduler.last_epoch == 1
    assert all(torch.isfinite(parameter).all() for parameter in one_loss.parameters())


def test_losses_of_a_detector_are_reported_with_all_their_components(shapes: Path, open_run: OpenRun) -> None:
    from losslog.detection import CocoDataset, build_maskrcnn, collate

    dataset = CocoDataset(shapes / "images", shapes / "annotations_train.json")
    model = build_maskrcnn(4, "tiny", image_size=64)
    data = torch.utils.data.DataLoader(dataset, 2, collate_fn=collate)
    with open_run() as run:
        means = train_one_epoch(model, sgd(model), data, "cpu", 1, run, steps=2)
    assert isinstance(means, dict)
    assert sorted(means) == [
        "loss_box_reg",
        "loss_classifier",
        "loss_mask",
        "loss_objectness",
        "loss_rpn_box_reg",
    ]


@pytest.mark.gpu
def test_an_epoch_on_cuda_gives_the_means(two_losses: nn.Module, loader: Any, open_run: OpenRun) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    two_losses.cuda()
    with open_run() as run:
        means = train_one_epoch(two_losses, sgd(two_losses), loader, "cuda", 1, run)
    assert isinstance(means, dict)
    assert set(means) == {"loss_left", "loss_right"}


class Weighted(torch.nn.Module):
    """Two parts and what is optimised, which is not their sum."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.weight = torch.nn.Parameter(torch.tensor(1.0))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        a, b = self.weight * x.mean(), (self.weight * x).square().mean()
        return {"a": a, "b": b, self.name: a + 0.1 * b}


@pytest.mark.parametrize("name", ["loss", "total_loss", "total"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_what_is_optimised_is_logged_as_the_total(tmp_path: Path, name: str, accumulate: int) -> None:
    model = Weighted(name)
    batches = [[torch.full((2,), value)] for value in (1.0, 2.0, 3.0, 4.0)]
    with losslog.Run("weighted", tmp_path, plugins=[]) as run:
        train_one_epoch(model, torch.optim.SGD(model.parameters(), 0.0), batches, "cpu", 1, run, accumulate=accumulate)
        run.end_epoch()
    records = [json.loads(line) for line in (run.dir / "journal.jsonl").read_text().splitlines()]
    steps = [record["data"] for record in records if record["hook"] == "on_batch_losses"]
    assert len(steps) == 4 // accumulate
    for each in steps:
        assert set(each["losses"]) == {"a", "b"}
        assert each["total"] == pytest.approx(each["losses"]["a"] + 0.1 * each["losses"]["b"])
    (end,) = (record["data"] for record in records if record["hook"] == "on_epoch_end")
    assert set(end["losses"]) == {"a", "b"}
    assert end["total"] == pytest.approx(2.5 + 0.1 * 7.5)
