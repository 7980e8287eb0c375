"""Each fault names its own cause and no other; what was not measured is a question."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from losslog_plateau import Finding, Watcher

STEPS, PER_EPOCH, ONSET = 3000, 50, 15
GROUPS = {"backbone": 0.01, "mask_head": 0.01, "box_head": 0.01}


def first(findings: list[Finding]) -> Finding:
    return next(each for each in findings if each.component == "loss_mask" and each.state in ("stalled", "flat"))


def alarm(rows: Any, make: Any, lr: Any = None, mask: Any = None, **settings: Any) -> Finding:
    """The first finding on a mask loss that stops at epoch 15."""
    watcher = Watcher(STEPS, PER_EPOCH, **settings)
    found = []
    for step, losses in rows(steps=STEPS, per_epoch=PER_EPOCH)(mask or make.stalled(ONSET)):
        found += watcher.update(step, losses, lr(step) if callable(lr) else lr)
    return first(found)


def test_nothing_measured_is_a_question(rows: Any, make: Any) -> None:
    found = alarm(rows, make, lr=0.01)
    assert (found.state, found.cause) == ("stalled", None)
    assert "No cause was measured. Is mask_head frozen, detached or missing from the optimizer?" in found.text


def test_a_range_of_ones_own_is_not_doubted(rows: Any, make: Any) -> None:
    doubted, own = alarm(rows, make, lr=0.01), alarm(rows, make, lr=0.01, typical={"loss_mask": [0.05, 0.2]})
    assert "another data set" in doubted.text
    assert "another data set" not in own.text
    assert doubted.evidence["fallen"] > 0.5


def test_cut_before_the_onset(rows: Any, make: Any) -> None:
    found = alarm(rows, make, lr=lambda step: 0.01 if step < 740 else 0.001)
    assert (found.cause, found.evidence["cut_step"], found.evidence["lr"]) == ("lr_cut", 740, 0.001)
    assert "Cause: the learning rate was cut at step 740" in found.text


def test_cut_after_the_onset_is_ruled_out(rows: Any, make: Any) -> None:
    before = alarm(rows, make, lr=0.01)
    cut = before.step - 20
    found = alarm(rows, make, lr=lambda step: 0.01 if step < cut else 0.001)
    assert found.cause is None
    assert f"It began before the learning rate was cut at step {cut}" in found.text
    assert found.evidence.get("cut_step") is None


def test_slow_decay_after_the_onset_is_ruled_out(rows: Any, make: Any) -> None:
    """As in a one-cycle schedule: half of the highest rate is passed after the loss had stopped."""
    found = alarm(rows, make, lr=lambda step: 0.01 * (1 - step / 2300) if step < 2000 else 0.001)
    assert found.cause is None
    assert found.step > 1150
    assert "so that is not the cause" in found.text


def test_planned_cut_is_named_as_coming_and_is_information(rows: Any, make: Any) -> None:
    found = alarm(rows, make, lr=0.01, planned_cuts=[2500])
    assert (found.state, found.level, found.cause) == ("flat", "info", "lr_cut_planned")
    assert found.evidence["planned_cut"] == 2500
    assert "a cut of the learning rate is planned at step 2500" in found.text


def test_planned_cut_that_is_over_excuses_nothing(rows: Any, make: Any) -> None:
    assert alarm(rows, make, lr=0.01, planned_cuts=[100]).state == "stalled"


def test_rate_of_zero_in_its_group(rows: Any, make: Any) -> None:
    found = alarm(rows, make, lr=GROUPS | {"mask_head": 0.0})
    assert (found.state, found.cause, found.evidence["group"]) == ("stalled", "lr_zero", "mask_head")


def test_rate_of_zero_in_another_group_is_no_cause(rows: Any, make: Any) -> None:
    assert alarm(rows, make, lr=GROUPS | {"box_head": 0.0}).cause is None


def test_rising_rate_is_information_with_that_reason(rows: Any, make: Any) -> None:
    found = alarm(rows, make, lr=lambda step: 1e-5 * (step + 1))
    assert (found.state, found.level, found.cause) == ("flat", "info", "lr_rising")
    assert "the learning rate still rises" in found.text


def test_chance_level_of_a_binary_cross_entropy(rows: Any, make: Any) -> None:
    found = alarm(rows, make, lr=0.01, mask=lambda epoch: 0.693)
    assert (found.state, found.cause) == ("stalled", "chance_level")
    assert found.evidence["chance"] == pytest.approx(0.6931, abs=1e-4)


@pytest.mark.parametrize("name", ["loss_box_reg", "loss_classifier", "loss_depth"])
def test_the_same_level_of_another_loss_is_no_chance_level(name: str, rows: Any) -> None:
    watcher = Watcher(STEPS, PER_EPOCH)
    found = []
    for step, losses in rows(steps=STEPS, per_epoch=PER_EPOCH)(lambda epoch: 0.693):
        losses[name] = losses.pop("loss_mask")
        found += watcher.update(step, losses, 0.01)
    causes = [each.cause for each in found if each.component == name and each.state in ("stalled", "flat")]
    assert causes
    assert set(causes) == {None}


def test_untrained_component_without_a_range_is_a_warning_with_its_proof(rows: Any, make: Any) -> None:
    watcher = Watcher(STEPS, PER_EPOCH, typical={})
    found = []
    for step, losses in rows(steps=STEPS, per_epoch=PER_EPOCH)(make.stalled(ONSET)):
        if step == 750:
            watcher.untrained(step, {"loss_mask": True, "loss_box_reg": False})
        found += watcher.update(step, losses, 0.01)
    stall = first(found)
    assert (stall.state, stall.cause, stall.evidence["untrained_since"]) == ("stalled", "not_trained", 750)
    assert "it trains no parameter since step 750" in stall.text


def test_proof_needs_no_flat_line(rows: Any, make: Any) -> None:
    """A branch that trains nothing may still drift, with what it looks at: it has stopped all the same."""
    watcher, found = Watcher(STEPS, PER_EPOCH), []
    drifting = lambda epoch: 0.6 * math.exp(-0.01 * epoch)  # noqa: E731
    for step, losses in rows(steps=STEPS, per_epoch=PER_EPOCH, noise=0.1)(drifting):
        if step == 750:
            watcher.untrained(step, {"loss_mask": True}, "loss_mask trains nothing since step 750: mask_head: detached")
        found += watcher.update(step, losses, 0.01)
    stall = first(found)
    assert (stall.state, stall.cause, stall.since) == ("stalled", "not_trained", 750)
    assert 750 < stall.step < 1300
    assert "Cause: loss_mask trains nothing since step 750: mask_head: detached." in stall.text


def test_proof_within_the_range_is_no_stall(rows: Any, make: Any) -> None:
    watcher = Watcher(STEPS, PER_EPOCH)
    watcher.untrained(750, {"loss_mask": True})
    found = make.feed(watcher, rows()(lambda epoch: 0.15), lr=0.01)
    assert [each for each in found if each.component == "loss_mask"] == []


def test_trained_again_is_no_cause(rows: Any, make: Any) -> None:
    watcher = Watcher(STEPS, PER_EPOCH)
    watcher.untrained(0, {"loss_mask": True})
    watcher.untrained(50, {"loss_mask": False})
    assert first(make.feed(watcher, rows()(make.stalled()))).cause is None


def test_best_proof_goes_first(rows: Any, make: Any) -> None:
    watcher = Watcher(STEPS, PER_EPOCH)
    watcher.untrained(0, {"loss_mask": True})
    found = make.feed(watcher, rows()(lambda epoch: 0.693), lr=GROUPS | {"mask_head": 0.0})
    assert first(found).cause == "not_trained"


def test_evidence_survives_json(rows: Any, make: Any) -> None:
    found = alarm(rows, make, lr=0.01)
    assert json.loads(json.dumps(found.evidence, allow_nan=False)) == found.evidence
    assert {"level", "range", "rate", "since", "improving", "share", "window"} <= set(found.evidence)
