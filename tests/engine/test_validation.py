from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from losslog.engine import evaluate, evaluator_of, train_one_epoch, validation_losses


def fingerprint() -> list[Any]:
    """What the four random sources would give next, without moving them."""
    numpy = np.random.get_state()
    return [random.getstate(), numpy[1].tolist(), numpy[2], torch.get_rng_state().tolist()]


def train_a_little(model: nn.Module, loader: Any) -> torch.optim.Optimizer:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    train_one_epoch(model, optimizer, loader, "cpu", 1)
    return optimizer


class Evaluator:
    def __init__(self) -> None:
        self.errors: list[float] = []

    def update(self, targets: Any, outputs: Any) -> None:
        self.errors.append(float((outputs[:, 0] - targets).abs().mean()))

    def compute(self) -> dict[str, float]:
        return {"error": sum(self.errors) / len(self.errors)}


@pytest.mark.parametrize("kind", ["losses", "evaluation"])
def test_weights_buffers_flags_gradients_and_random_state_stay_as_found(
    two_losses: Any, loader: Any, kind: str
) -> None:
    train_a_little(two_losses, loader)
    two_losses.train()
    two_losses.body[1].eval()  # a batch norm frozen by hand
    random.random(), np.random.random(), torch.rand(1)
    flags = {name: module.training for name, module in two_losses.named_modules()}
    state = copy.deepcopy(two_losses.state_dict())
    objects = {name: id(value) for name, value in two_losses.state_dict(keep_vars=True).items()}
    gradients = [parameter.grad.clone() for parameter in two_losses.parameters()]
    before = fingerprint()
    if kind == "losses":
        validation_losses(two_losses, loader, "cpu")
    else:
        evaluate(two_losses, loader, "cpu", evaluator=Evaluator())
    assert fingerprint() == before
    assert {name: module.training for name, module in two_losses.named_modules()} == flags
    after = two_losses.state_dict(keep_vars=True)
    assert all(torch.equal(after[name], value) for name, value in state.items())
    assert {name: id(value) for name, value in after.items()} == objects
    for parameter, gradient in zip(two_losses.parameters(), gradients, strict=True):
        assert torch.equal(parameter.grad, gradient)


def test_the_loaders_own_generator_stays_as_found(two_losses: nn.Module, loader: Any) -> None:
    generator = torch.Generator().manual_seed(9)
    own = torch.utils.data.DataLoader(loader.dataset, 4, shuffle=True, generator=generator)
    before = generator.get_state()
    validation_losses(two_losses, own, "cpu")
    evaluate(two_losses, own, "cpu", evaluator=Evaluator())
    assert torch.equal(generator.get_state(), before)


def test_everything_is_put_back_when_the_model_raises(two_losses: nn.Module, loader: Any) -> None:
    two_losses.eval()
    before = fingerprint()

    def fail(model: nn.Module, batch: Any) -> Any:
        torch.rand(1)
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        validation_losses(two_losses, loader, "cpu", forward=fail)
    assert not two_losses.training
    assert fingerprint() == before


def test_the_same_weights_give_the_same_losses(two_losses: nn.Module, loader: Any) -> None:
    first = validation_losses(two_losses, loader, "cpu")
    torch.rand(7)
    assert validation_losses(two_losses, loader, "cpu") == first
    assert validation_losses(two_losses, loader, "cpu", seed=1) != first


def test_the_losses_are_those_of_the_model_that_evaluation_sees(two_losses: Any, loader: Any) -> None:
    train_a_little(two_losses, loader)
    two_losses.eval()
    batch = next(iter(loader))
    prediction = two_losses(batch[0])
    losses = validation_losses(two_losses, [batch], "cpu")
    assert isinstance(losses, dict)
    assert losses["loss_right"] == pytest.approx((prediction[:, 1] + batch[1]).abs().mean().item(), rel=1e-6)


def test_no_graph_is_made(two_losses: nn.Module, loader: Any) -> None:
    def forward(model: nn.Module, batch: Any) -> Any:
        losses = model(*batch)
        assert not any(loss.requires_grad for loss in losses.values())
        return losses

    validation_losses(two_losses, loader, "cpu", forward=forward)
    assert torch.is_grad_enabled()


def test_a_scalar_model_gives_a_float(one_loss: nn.Module, loader: Any) -> None:
    assert isinstance(validation_losses(one_loss, loader, "cpu"), float)


def test_the_metrics_are_logged(two_losses: nn.Module, loader: Any, open_run: Any, records: Any) -> None:
    with open_run() as run:
        metrics = evaluate(two_losses, loader, "cpu", evaluator=Evaluator(), run=run, epoch=3, step=8, split="test")
    data = next(record["data"] for record in records(run) if record["hook"] == "on_eval")
    assert data == {"epoch": 3, "step": 8, "split": "test", "metrics": metrics}


def test_a_data_set_without_an_evaluator_is_named(two_losses: nn.Module, loader: Any) -> None:
    with pytest.raises(TypeError, match="TensorDataset offers no evaluator: pass evaluator="):
        evaluate(two_losses, loader, "cpu")
    assert evaluator_of([]) is None


@pytest.fixture
def detector(shapes: Path) -> tuple[nn.Module, Any]:
    from losslog.detection import CocoDataset, build_maskrcnn, collate

    dataset = CocoDataset(shapes / "images", shapes / "annotations_val.json")
    torch.manual_seed(0)
    model = build_maskrcnn(dataset.categories.num_classes, "tiny", image_size=64)
    return model, torch.utils.data.DataLoader(dataset, 2, collate_fn=collate)


def test_a_detector_gives_its_five_losses_in_eval_mode_too(detector: tuple[nn.Module, Any]) -> None:
    model, loader = detector
    model.eval()
    losses = validation_losses(model, loader, "cpu")
    assert isinstance(losses, dict)
    assert len(losses) == 5
    assert not any(module.training for module in model.modules())


def test_a_detectors_evaluation_comes_from_its_data_set(
    detector: tuple[nn.Module, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    model, loader = detector
    metrics = evaluate(model, loader, "cpu")
    assert set(metrics) == {"bbox", "segm"}
    assert metrics["bbox"]["AP"] >= 0.0
    assert capsys.readouterr().out == ""
    subset = torch.utils.data.DataLoader(torch.utils.data.Subset(loader.dataset, [0]), collate_fn=loader.collate_fn)
    assert set(evaluate(model, subset, "cpu")) == {"bbox", "segm"}


def test_training_goes_on_as_if_validation_had_not_run(detector: tuple[nn.Module, Any]) -> None:
    model, loader = detector
    twin = copy.deepcopy(model)
    means = []
    for each, validated in ((model, True), (twin, False)):
        torch.manual_seed(4)
        optimizer = torch.optim.SGD(each.parameters(), lr=0.01, momentum=0.9)
        for epoch in (1, 2):
            means.append(train_one_epoch(each, optimizer, loader, "cpu", epoch))
            if validated:
                validation_losses(each, loader, "cpu")
                evaluate(each, loader, "cpu")
    assert means[:2] == means[2:]


def test_names_are_exported() -> None:
    from losslog import detection, engine

    assert detection.validation_losses is engine.validation_losses
    for module in (detection, engine):
        assert all(hasattr(module, name) for name in module.__all__)
