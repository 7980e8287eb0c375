"""What was measured becomes a notice once, and a proof for the component it is about, while it holds."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from losslog_plateau import PlateauPlugin
from losslog_plateau.measured import Measured
from losslog_plateau.notice import Notice

PARTS = ("backbone", "rpn", "mask_head")
DETAIL = {
    "reach": {"loss_mask": {"backbone": 60, "mask_head": 12}, "loss_objectness": {"backbone": 60, "rpn": 6}},
    "parts": {name: {"tensors": 6, "trainable": 6, "lr": [0.01], "outside": 0} for name in PARTS},
}


def visits(measured: Measured, *metrics: dict[str, float], detail: Any = DETAIL) -> list[Notice]:
    return [each for visit, one in enumerate(metrics) for each in measured.metrics(visit * 100, one, detail)]


def norms(**values: float) -> dict[str, float]:
    return {f"grad_norm/{part}": values.get(part, 1.0) for part in PARTS}


def test_gradient_of_zero_at_three_visits() -> None:
    measured = Measured()
    assert not visits(measured, norms(), norms(mask_head=0.0), norms(mask_head=0.0))
    (notice,) = visits(measured, norms(mask_head=0.0), norms(mask_head=0.0))
    assert (notice.cause, notice.component, notice.level) == ("zero_gradient", "loss_mask", "warning")
    assert (proof := measured.proof_of("loss_mask")) is not None
    assert proof.cause == "zero_gradient"
    assert measured.proof_of("loss_objectness") is None
    visits(measured, norms())
    assert measured.proof_of("loss_mask") is None


def test_gradient_that_vanishes_beside_the_others() -> None:
    measured = Measured()
    (notice,) = visits(measured, norms(mask_head=1e-5), norms(mask_head=1e-5), norms(mask_head=1e-5))
    assert (notice.cause, notice.title) == ("vanishing_gradient", "the gradient of mask_head vanishes")
    assert not visits(Measured(), *[norms(mask_head=1e-3)] * 4)


def test_gradients_that_are_all_small_or_zero_are_no_news() -> None:
    assert not visits(Measured(), *[norms(backbone=0.0, rpn=0.0, mask_head=0.0)] * 4)
    assert not visits(Measured(), *[norms(backbone=1e-9, rpn=1e-9, mask_head=1e-9)] * 4)


@pytest.mark.parametrize("value", [math.inf, math.nan, 5000.0])
def test_gradient_that_explodes(value: float) -> None:
    (notice,) = visits(Measured(), *[norms()] * 4, norms(mask_head=value))
    assert (notice.cause, notice.component) == ("exploding_gradient", "loss_mask")
    json.dumps(dict(notice.evidence), allow_nan=False)


def test_shared_part_is_nobodys_own() -> None:
    (notice,) = visits(Measured(), *[norms(backbone=0.0)] * 3)
    assert notice.component is None


def test_parameters_that_do_not_change() -> None:
    measured = Measured()
    (notice,) = visits(measured, norms() | {"unchanged/mask_head": 1.0, "unchanged/rpn": 0.9})
    assert (notice.cause, notice.component) == ("unchanged", "loss_mask")
    assert not visits(measured, norms() | {"unchanged/mask_head": 1.0})  # said once
    assert not visits(Measured(), norms(mask_head=0.0) | {"unchanged/mask_head": 1.0})  # no gradient: no wonder


def test_part_without_a_gradient_that_losses_reach_is_unchanged() -> None:
    bare = norms() | {"unchanged/mask_head": 1.0}
    del bare["grad_norm/mask_head"]
    (notice,) = visits(Measured(), bare, bare)
    assert (notice.cause, notice.component) == ("unchanged", "loss_mask")
    assert "set to zero between backward and step" in notice.text
    assert not visits(Measured(), bare, detail=None)  # nothing reaches it, or nobody looked


def test_part_that_moves_by_more_than_a_tenth_a_step() -> None:
    (notice,) = visits(Measured(), *[{"update_ratio/rpn": 0.3, "update_ratio/backbone": 0.01}] * 5)
    assert (notice.cause, notice.level) == ("large_update", "info")
    assert not visits(Measured(), *[{"update_ratio/rpn": 0.3}, {"update_ratio/rpn": 0.01}] * 4)


@pytest.mark.parametrize(("share", "level"), [(0.6, "info"), (0.97, "warning")])
def test_units_that_are_dead_at_three_visits(share: float, level: str) -> None:
    measured = Measured()
    dead = {"dead_units/mask_head": share, "dead_units/rpn": 0.1}
    assert not visits(measured, dead, dead)
    restored = Measured()
    restored.load_state_dict(json.loads(json.dumps(measured.state_dict())))
    (notice,) = visits(restored, dead, dead)
    assert (notice.cause, notice.level, notice.component) == ("dead_units", level, "loss_mask")
    assert notice.title == "most units of mask_head are dead"
    assert not visits(Measured(), *[dead, {"dead_units/mask_head": 0.3}] * 4)


def test_targets_without_masks_until_they_have_some() -> None:
    measured = Measured()
    bare = {"targets/images": 8, "targets/boxes": 16, "targets/masks": 0}
    (notice,) = visits(measured, bare, bare, bare)
    assert (notice.cause, notice.component) == ("no_targets", "loss_mask")
    visits(measured, bare | {"targets/masks": 16})
    assert measured.proof_of("loss_mask") is None
    assert not visits(Measured(), {"targets/images": 8, "targets/boxes": 16})  # a detector without masks


def test_images_without_boxes_take_two_epochs_and_sixteen_images() -> None:
    bare = {"targets/images": 8, "targets/boxes": 0}
    assert not visits(Measured(), bare, bare | {"targets/boxes": 1}, bare)
    assert not visits(Measured(), {"targets/images": 2, "targets/boxes": 0}, {"targets/images": 2, "targets/boxes": 0})
    (notice,) = visits(Measured(), bare, bare, bare)
    assert (notice.title, notice.component) == ("the targets have no boxes", None)


LOSSES = {"loss_mask": 0.5, "loss_objectness": 0.5}


def test_tiny_weight_for_twenty_steps() -> None:
    measured = Measured()
    found = [each for step in range(50) for each in measured.weighed(step, LOSSES, {"loss_mask": 1e-3})]
    (notice,) = found
    assert (notice.cause, notice.component, notice.level) == ("tiny_weight", "loss_mask", "info")
    assert not measured.weighed(50, LOSSES, {"loss_mask": 0.5})
    assert measured.proof_of("loss_mask") is None


@pytest.mark.parametrize(("losses", "weights"), [
    ({"kl": 1e4, "mse": 1.0}, {"kl": 1e-3}),  # small weight, large loss
    (LOSSES, None), (LOSSES, {"loss_mask": 0.1}), (LOSSES, {}),
])  # fmt: skip
def test_weights_that_are_none_or_well_meant(losses: Any, weights: Any) -> None:
    measured = Measured()
    assert not [each for step in range(50) for each in measured.weighed(step, losses, weights)]


def test_what_the_engine_told_is_quoted_until_it_is_mended() -> None:
    measured = Measured()
    measured.alerted("lr_zero", "loss_mask", 8, "The learning rate of mask_head is 0.", {"part": "mask_head"})
    measured.alerted("not_in_optimizer", None, 8, "rpn is in no optimizer group.",
                     {"part": "rpn", "losses": ["loss_objectness"]})  # fmt: skip
    assert (found := measured.proof_of("loss_mask")) is not None
    assert (found.cause, found.evidence["said"]) == ("lr_zero", "The learning rate of mask_head is 0.")
    assert (found := measured.proof_of("loss_objectness")) is not None
    assert found.cause == "not_in_optimizer"
    visits(measured, {})
    assert measured.proof_of("loss_mask") is measured.proof_of("loss_objectness") is None


def test_lost_part_that_is_trained_again() -> None:
    measured = Measured()
    measured.alerted("part_not_trained", "loss_mask", 8, "...", {"lost": {"mask_head": "detached"}})
    visits(measured, {}, detail={"reach": {"loss_mask": {"backbone": 60}}, "parts": {}})
    assert measured.proof_of("loss_mask") is not None
    visits(measured, {})
    assert measured.proof_of("loss_mask") is None


@pytest.mark.parametrize("detail", [None, {}, {"reach": 3}, {"reach": {"a": 3}, "parts": []}, {"parts": {"a": None}}])
def test_details_of_another_shape_are_passed_over(detail: Any) -> None:
    measured = Measured()
    measured.alerted("lr_zero", "a", 8, "...", {"part": "a"})
    assert not visits(measured, norms(), detail=detail)


def test_saved_and_restored_it_is_the_same() -> None:
    one, other = Measured(), Measured()
    for each in (norms(mask_head=0.0), norms(mask_head=0.0)):
        one.metrics(0, each | {"update_ratio/rpn": 0.5}, DETAIL)
    one.weighed(3, LOSSES, {"loss_mask": 1e-3})
    one.alerted("lr_zero", "loss_mask", 8, "...", {"part": "mask_head"})
    other.load_state_dict(json.loads(json.dumps(one.state_dict())))
    assert other.state_dict() == one.state_dict()
    assert visits(other, norms(mask_head=0.0)) == visits(one, norms(mask_head=0.0)) != []


def test_measured_cause_stops_a_run_where_asked(run: Any) -> None:
    plugin = PlateauPlugin(on_cause={"no_targets": "stop"})
    plugin.on_alert("loss_mask", 3, "no_targets", "None of the 16 boxes has a mask.", None, run)
    assert run.stops == ["None of the 16 boxes has a mask (on_cause)"]


def test_epoch_by_the_loader_opens_the_first_epoch() -> None:
    plugin = PlateauPlugin()
    plugin.on_run_start(epochs=12, steps_per_epoch=None, resumed=False, seq=0)
    assert plugin.watcher.scene.held
    plugin.on_metrics(0, None, {}, {"steps_per_epoch": 5000}, None)
    assert (plugin.watcher.clock.epoch, plugin.watcher.clock.plan) == (5000, 60000)
    assert not plugin.watcher.scene.held


@pytest.mark.parametrize(("metrics", "rest"), [
    (norms(mask_head=math.nan), norms()),
    (norms(mask_head=0.0), norms()),
    (norms(mask_head=1e-6), norms()),
    (norms() | {"unchanged/mask_head": 1.0}, norms() | {"unchanged/mask_head": 0.0}),
    ({"update_ratio/rpn": 0.3}, {"update_ratio/rpn": 0.01}),
    ({"dead_units/rpn": 0.7}, {"dead_units/rpn": 0.1}),
])  # fmt: skip
def test_what_goes_on_is_said_once_and_again_after_a_while(metrics: dict[str, float], rest: dict[str, float]) -> None:
    measured = Measured()
    assert len(visits(measured, *[metrics] * 30)) == 1
    assert not visits(measured, rest, *[metrics] * 5)  # it was not over
    restored = Measured()
    restored.load_state_dict(json.loads(json.dumps(measured.state_dict())))
    assert not visits(restored, *[metrics] * 5)
    assert len(visits(restored, *[rest] * 5, *[metrics] * 5)) == 1


def test_gradients_that_cease_to_be_finite_at_one_visit_are_one_notice() -> None:
    measured = Measured()
    (notice,) = visits(measured, *[norms(backbone=math.nan, rpn=math.inf, mask_head=math.nan)] * 4)
    assert notice.title == "the gradients of backbone, rpn, mask_head explode"
    assert notice.evidence["losses"] == ["loss_mask", "loss_objectness"]


def learning(measured: Measured, *levels: float, weights: Any = None) -> list[Notice]:
    """A loss of the mask at these levels, one a visit, after it was at 1."""
    for step in range(40):
        measured.weighed(step, LOSSES, weights)
    news = []
    for visit, level in enumerate(levels, 1):
        for step in range(visit * 100 - 24, visit * 100 + 1):
            measured.weighed(step, LOSSES | {"loss_mask": level}, weights)
        news += measured.metrics(visit * 100, norms(mask_head=1e-5 * level), DETAIL)
    return news


def test_loss_that_has_learnt_all_is_information_with_its_level_once() -> None:
    measured = Measured()
    (notice,) = learning(measured, *[1e-6, 0.0, 0.0, 0.0, 0.0, 1e-7, 0.0, 0.0, 0.0] * 2)
    assert (notice.cause, notice.level, notice.component) == ("learnt", "info", "loss_mask")
    assert "loss_mask is at 1e-06" in notice.text
    assert measured.proof_of("loss_mask") is None
    assert [each.cause for each in learning(Measured(), *[0.2] * 5)] == ["vanishing_gradient"]


def test_weight_of_zero_is_named_rather_than_its_gradient() -> None:
    measured = Measured()
    for step in range(19):
        assert not measured.weighed(step, LOSSES, {"loss_mask": 0.0})
    (notice,) = measured.weighed(19, LOSSES, {"loss_mask": 0.0})
    assert (notice.cause, notice.level) == ("tiny_weight", "info")
    assert not visits(measured, *[norms(mask_head=0.0)] * 5)
    assert (proof := measured.proof_of("loss_mask")) is not None
    assert proof.cause == "tiny_weight"


@pytest.mark.parametrize(("evidence", "words"), [
    ({"what": "batch", "where": "the batch[0]"}, "what the model was given was not finite (the batch[0])"),
    ({"what": "parameter", "module": "head.weight"}, "the parameter head.weight was not finite before"),
    ({"what": "output", "module": ""}, "it came first out of the model"),
    ({"what": "not repeated"}, "")])  # fmt: skip
def test_trace_of_what_is_not_finite(evidence: dict[str, str], words: str) -> None:
    measured = Measured()
    measured.alerted("not_finite_in", "loss_mask", 32, "...", evidence)
    restored = Measured()
    restored.load_state_dict(json.loads(json.dumps(measured.state_dict())))
    assert restored.traced(32, 33) == words
    assert restored.traced(40, 41) == restored.traced(10, 20) == ""  # of another time


def sometimes(value: float, often: int, steps: int = 400) -> list[float]:
    return [value if (step + 1) % often == 0 else 0.0 for step in range(steps)]


@pytest.mark.parametrize("values", [
    sometimes(0.4, 10), sometimes(0.4, 3), sometimes(0.4, 10)[9:],
    [0.4] * 150 + [0.0] * 250, [0.4] * 150 + [1e-9] * 5 + [0.4] * 245])  # fmt: skip
def test_loss_that_is_zero_now_and_then_or_all_at_once_has_not_learnt_all(values: list[float]) -> None:
    """Nor is its gradient of zero a fault: there was nothing to learn from at these steps."""
    measured, news = Measured(), []
    for step, value in enumerate(values):
        news += measured.weighed(step, LOSSES | {"loss_mask": value}, None)
        if step >= 32 and step % 32 == 0:
            news += measured.metrics(step, norms(mask_head=value), DETAIL)
    assert not news
    assert measured.proof_of("loss_mask") is None


def test_loss_that_came_down_to_zero_has_learnt_all_though_it_was_zero_now_and_then_before() -> None:
    measured, news = Measured(), []
    for step in range(400):
        value = 0.0 if step % 5 == 0 or step > 300 else math.exp(-step / 40)
        measured.weighed(step, LOSSES | {"loss_mask": value}, None)
        if step >= 32 and step % 32 == 0:
            news += measured.metrics(step, norms(mask_head=value), DETAIL)
    assert [(each.cause, each.level) for each in news] == [("learnt", "info")]
    restored = Measured()
    restored.load_state_dict(json.loads(json.dumps(measured.state_dict())))
    restored.weighed(400, LOSSES | {"loss_mask": 0.0}, None)
    assert restored.course.learnt("loss_mask")


def test_a_gradient_of_zero_in_the_trunk_concerns_all_that_train_it() -> None:
    measured = Measured()
    visits(measured, *[norms(backbone=0.0)] * 3)
    assert all(measured.proof_of(name) is not None for name in ("loss_mask", "loss_objectness"))
    visits(measured, norms())
    assert measured.proof_of("loss_mask") is None


def test_a_rate_of_zero_for_everything_is_mended_when_any_part_has_one() -> None:
    measured, zero = Measured(), {name: part | {"lr": [0.0]} for name, part in DETAIL["parts"].items()}
    measured.alerted("lr_zero", None, 0, "the learning rate is 0", {"parts": [*PARTS], "losses": ["loss_mask"]})
    measured.metrics(10, {}, DETAIL | {"parts": zero})
    assert measured.proof_of("loss_mask") is not None
    measured.metrics(20, {}, DETAIL)
    assert measured.proof_of("loss_mask") is None
