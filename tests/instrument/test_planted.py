"""Planted faults: each names its own cause and no other, in `losslog.engine` and under `losslog.attach` alike.

What they are told is a table in docs/debugging-losses.md, which is compared with what is told here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torchvision")
pytest.importorskip("losslog_plateau")

import losslog  # noqa: E402
from losslog import engine  # noqa: E402
from losslog.detection import build_maskrcnn, get_parameter_groups  # noqa: E402
from losslog.detection.stall import stall_mask_branch  # noqa: E402
from losslog.history import records  # noqa: E402

EPOCHS, STEPS, PLANTED = 3, 8, 2
PAGE = Path(__file__).parents[2] / "docs" / "debugging-losses.md"


def batches(*, masks: bool = True) -> list[Any]:
    torch.manual_seed(0)
    images = [torch.rand(3, 64, 64) for _ in range(2)]
    pixels = torch.zeros(2, 64, 64, dtype=torch.uint8)
    if masks:
        pixels[0, 4:30, 4:30] = pixels[1, 30:60, 30:60] = 1
    boxes = torch.tensor([[4.0, 4.0, 30.0, 30.0], [30.0, 30.0, 60.0, 60.0]])
    target = {"boxes": boxes, "labels": torch.tensor([1, 2]), "masks": pixels}
    return [(images, [target, target]) for _ in range(STEPS)]


class Plant:
    """A model, its optimizer and its data, with a fault that comes at an epoch or is there from the start."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model: Any = build_maskrcnn(3, "tiny")
        self.groups = get_parameter_groups(self.model, 1e-3)
        self.data = batches()
        self.total: Callable[[dict[str, Any]], Any] | None = None
        self.change: Callable[[], None] = lambda: None

    @property
    def heads(self) -> tuple[Any, Any]:
        return self.model.roi_heads.mask_head, self.model.roi_heads.mask_predictor

    def group(self, name: str) -> dict[str, Any]:
        return next(group for group in self.groups if group["name"] == name)


def healthy(plant: Plant) -> None:
    """Nothing."""


def stall(plant: Plant) -> None:
    """Mask branch frozen and detached (`losslog demo --stall`)"""
    plant.change = lambda: stall_mask_branch(plant.model)


def frozen(plant: Plant) -> None:
    """Mask head frozen"""
    plant.change = lambda: [each.requires_grad_(False) for each in plant.heads] and None


def outside(plant: Plant) -> None:
    """Mask head missing from the optimizer"""
    plant.groups.remove(plant.group("mask_head"))


def rate(plant: Plant) -> None:
    """Learning rate of the mask head's group 0"""
    plant.group("mask_head")["lr"] = 0.0


def weight(plant: Plant) -> None:
    """Weight of the mask loss 0.001"""
    plant.total = lambda losses: sum((1e-3 if name == "loss_mask" else 1.0) * each for name, each in losses.items())


def no_masks(plant: Plant) -> None:
    """Targets without masks"""
    plant.data = batches(masks=False)


def blind(plant: Plant) -> None:
    """Mask head in eval mode under `no_grad`"""
    predictor = plant.heads[1]
    forward = predictor.forward

    def without(features: Any) -> Any:
        with torch.no_grad():
            return forward(features)

    def change() -> None:
        predictor.forward = without
        for each in plant.heads:
            each.eval().train = lambda mode=True: None  # whatever the loop calls

    plant.change = change


CAUSES = {
    healthy: set(), stall: {"not_trained"}, frozen: {"part_not_trained"}, outside: {"not_in_optimizer"},
    rate: {"lr_zero"}, weight: {"tiny_weight"}, no_masks: {"no_targets"}, blind: {"not_trained"},
}  # fmt: skip
SAID = {
    stall: "mask_head: requires_grad is False; ", frozen: "mask_head: requires_grad is False", weight: "0.001",
    outside: "mask_head is in no optimizer group", rate: "The learning rate of mask_head is 0",
    no_masks: "has a mask with a pixel", blind: "mask_head: no graph was recorded (no_grad, or detached), in eval mode",
}  # fmt: skip


def with_engine(plant: Plant, optimizer: Any, folder: Path) -> Any:
    def forward(model: Any, batch: Any) -> Any:
        losses = model(*batch)
        return losses if plant.total is None else {**losses, "total": plant.total(losses)}

    with losslog.Run("planted", folder, plugins=["plateau"], epochs=EPOCHS) as run:
        engine.fit(
            plant.model, optimizer, plant.data, epochs=EPOCHS, device="cpu", run=run, forward=forward,
            before_epoch=lambda epoch: plant.change() if epoch == PLANTED else None, checkpoint_every=0,
        )  # fmt: skip
    return run


def with_attach(plant: Plant, optimizer: Any, folder: Path) -> Any:
    with losslog.attach(plant.model, optimizer, name="planted", dir=folder, plugins=["plateau"], epochs=EPOCHS) as run:
        for epoch in range(1, EPOCHS + 1):
            plant.model.train()
            if epoch == PLANTED:
                plant.change()
            for batch in plant.data:
                losses = plant.model(*batch)
                loss = sum(losses.values()) if plant.total is None else plant.total(losses)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            run.end_epoch()
    return run


def alerts(run: Any) -> list[dict[str, Any]]:
    return [each.data for each in records(run.dir) if each.hook == "on_alert"]


@pytest.mark.sampled(8)
@pytest.mark.parametrize("train", [with_engine, with_attach])
@pytest.mark.parametrize("fault", CAUSES)
def test_each_fault_names_its_own_cause_and_no_other(fault: Any, train: Any, tmp_path: Path) -> None:
    plant = Plant()
    fault(plant)
    found = alerts(train(plant, torch.optim.SGD(plant.groups, lr=1e-3, momentum=0.9), tmp_path))
    assert {each["cause"] for each in found if each.get("cause")} == CAUSES[fault], found
    if fault is healthy:
        assert not [each for each in found if each["level"] != "info"]
        return
    alert, *quoting = (each for each in found if each.get("cause"))
    assert all(alert["text"].rstrip(".") in each["text"] for each in quoting)
    assert alert["component"] == "loss_mask"
    assert SAID[fault] in alert["text"]
    assert alert["step"] <= 2 * PLANTED * STEPS
    line = f"| {fault.__doc__} | `{alert['cause']}` | *{alert['title']}* |"
    assert line in PAGE.read_text(encoding="utf-8"), line


class Branches(torch.nn.Module):
    """A trunk and two branches; the mask's can be cut off."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = torch.nn.Linear(4, 8)
        self.box_head, self.mask_head = torch.nn.Linear(8, 1), torch.nn.Linear(8, 1)
        self.cut = False

    def forward(self, x: Any) -> Any:
        hidden = self.backbone(x)
        mask = self.mask_head(hidden).abs().mean()
        return {"loss_box_reg": (self.box_head(hidden) ** 2).mean(), "loss_mask": mask.detach() if self.cut else mask}


@pytest.mark.parametrize("cut", [False, True], ids=["healthy", "cut off"])
def test_a_loop_under_attach_is_stopped_by_its_cause(tmp_path: Path, cut: bool) -> None:
    model = Branches()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    loader = torch.utils.data.DataLoader(torch.randn(40, 4), 4)
    taken, most = 0, 3000 if cut else 60
    with losslog.attach(model, optimizer, name="stops", dir=tmp_path, plugins=["plateau"],
                        options={"plateau": {"on_cause": {"not_trained": "stop"}}}) as run:  # fmt: skip
        while taken < most and not run.should_stop:
            for images in loader:
                optimizer.zero_grad()
                sum(model(images).values()).backward()
                optimizer.step()
                taken += 1
                model.cut = cut and taken >= 13  # in the midst of an epoch
                if run.should_stop:
                    break
            time.sleep(0.02)  # the plugin is in another process
    end = next(record.data for record in records(run.dir) if record.hook == "on_run_end")
    assert end["status"] == ("stopped" if cut else "finished")
    assert (taken < most) == cut
    if cut:
        alert, *_ = [each for each in alerts(run) if each.get("cause") == "not_trained"]
        assert (alert["component"], alert["level"], alert["step"] >= 13) == ("loss_mask", "error", True)
        assert "loss_mask trains nothing" in str(end["error"])
