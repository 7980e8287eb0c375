"""Each fault names its own cause and no other; what was not measured is a question."""

from __future__ import annotations

import json
import math
import random
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
            watcher.scene.reached(step, {"loss_mask": True, "loss_box_reg": False})
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
            watcher.scene.reached(
                step, {"loss_mask": True}, "loss_mask trains nothing since step 750: mask_head: detached"
            )
        found += watcher.update(step, losses, 0.01)
    stall = first(found)
    assert (stall.state, stall.cause, stall.since) == ("stalled", "not_trained", 750)
    assert 750 < stall.step < 1300
    assert "Cause: loss_mask trains nothing since step 750: mask_head: detached." in stall.text


def test_proof_within_the_range_is_no_stall(rows: Any, make: Any) -> None:
    watcher = Watcher(STEPS, PER_EPOCH)
    watcher.scene.reached(750, {"loss_mask": True})
    found = make.feed(watcher, rows()(lambda epoch: 0.15), lr=0.01)
    assert [each for each in found if each.component == "loss_mask"] == []


def test_trained_again_is_no_cause(rows: Any, make: Any) -> None:
    watcher = Watcher(STEPS, PER_EPOCH)
    watcher.scene.reached(0, {"loss_mask": True})
    watcher.scene.reached(50, {"loss_mask": False})
    assert first(make.feed(watcher, rows()(make.stalled()))).cause is None


def test_best_proof_goes_first(rows: Any, make: Any) -> None:
    watcher = Watcher(STEPS, PER_EPOCH)
    watcher.scene.reached(0, {"loss_mask": True})
    found = make.feed(watcher, rows()(lambda epoch: 0.693), lr=GROUPS | {"mask_head": 0.0})
    assert first(found).cause == "not_trained"


def test_evidence_survives_json(rows: Any, make: Any) -> None:
    found = alarm(rows, make, lr=0.01)
    assert json.loads(json.dumps(found.evidence, allow_nan=False)) == found.evidence
    assert {"level", "range", "rate", "since", "improving", "share", "window"} <= set(found.evidence)


def run_of(steps: int, values: Any, lr: Any = 0.01, said: tuple[int, str] | None = None, **more: Any) -> Any:
    """A watcher at the end of a run, and all its findings."""
    watcher, found = Watcher(steps, PER_EPOCH, **more), []
    for step in range(steps):
        found += watcher.update(step, values(step), lr(step) if callable(lr) else lr)
        if said is not None and step == said[0]:
            watcher.scene.reached(step, {"loss_mask": True}, said[1])
    watcher.finish()
    return watcher, found


def noisy(rows: Any, trend: Any) -> Any:
    draw, noise = random.Random(1), rows()
    return lambda step: {
        "loss_mask": noise.shaken(trend(step), draw), "loss_b": noise.shaken(0.1 + math.exp(-step / 500), draw)
    }  # fmt: skip


SAID = "loss_mask trains nothing since step 700: mask_head: detached"


@pytest.mark.parametrize("stops", [300, 700])
@pytest.mark.parametrize("typical", [None, {"loss_mask": (0.1, 5.0)}, {"loss_mask": (1e-3, 2e-3)}])
def test_a_learning_rate_of_zero_is_no_convergence(stops: int, typical: Any, rows: Any) -> None:
    fall = noisy(rows, lambda step: 0.05 + math.exp(-min(step, stops) / 300))
    watcher, found = run_of(STEPS, fall, lambda step: 0.01 if step < stops else 0.0, typical=typical)
    verdict = watcher.verdicts()[0]
    assert verdict.state in ("flat", "stalled")
    assert f"the learning rate has been 0 since step {stops}, down from 0.01" in verdict.outlook
    assert "converged" not in verdict.outlook
    for each in found:
        assert each.cause == "lr_cut"
        assert f"the learning rate has been 0 since step {stops}" in each.text


def test_what_had_converged_before_the_rate_was_zero_has_converged(rows: Any) -> None:
    values = noisy(rows, lambda step: 0.2 + math.exp(-step / 60))
    watcher, _ = run_of(STEPS, values, lambda step: 0.01 if step < 2400 else 0.0, typical={"loss_mask": (0.1, 0.5)})
    verdict = watcher.verdicts()[0]
    assert verdict.outlook.startswith("converged at")
    assert "the learning rate has been 0 since step 2400" in verdict.outlook


def test_a_schedule_that_ends_at_zero_keeps_nothing_from_converging(rows: Any) -> None:
    values = noisy(rows, lambda step: 0.2 + math.exp(-step / 60))
    rate = lambda step: 0.005 * (1 + math.cos(math.pi * min(1.0, (step // PER_EPOCH + 1) * PER_EPOCH / STEPS)))  # noqa: E731
    watcher, _ = run_of(STEPS, values, rate, typical={"loss_mask": (0.1, 0.5)})
    assert watcher.verdicts()[0].outlook.startswith("converged at")
    assert "learning rate" not in watcher.verdicts()[0].outlook


@pytest.mark.parametrize("rise", [0.002, 0.004, 0.01])
def test_what_trains_nothing_and_rises_is_told_with_its_cause(rise: float, rows: Any) -> None:
    values = noisy(rows, lambda step: math.exp(-min(step, 700) / 300 + rise * max(0, step - 1000)))
    watcher, found = run_of(STEPS, values, said=(700, SAID))
    (diverging,) = [each for each in found if each.state == "diverging"]
    assert diverging.cause == "not_trained"
    assert f"Cause: {SAID}." in diverging.text
    assert "checkpoint before step 700" in diverging.text
    assert "Lower the learning rate" not in diverging.text
    verdict = watcher.verdicts()[0]
    assert verdict.outlook.endswith(": trains nothing since step 700")
    assert SAID in verdict.text


def test_a_cause_that_came_after_the_rise_is_no_cause_of_it(rows: Any) -> None:
    values = noisy(rows, lambda step: math.exp(-min(step, 700) / 300 + 0.004 * max(0, step - 800)))
    watcher = Watcher(STEPS, PER_EPOCH)
    found = [each for step in range(1100) for each in watcher.update(step, values(step))]
    (diverging,) = [each for each in found if each.state == "diverging"]
    assert "Lower the learning rate" in diverging.text
    assert diverging.cause is None


@pytest.mark.parametrize("fall", [0.0, 0.001])
def test_what_trains_nothing_is_never_told_to_train_longer(fall: float, rows: Any) -> None:
    values = noisy(rows, lambda step: math.exp(-min(step, 700) / 300 - fall * max(0, step - 700)))
    watcher, _ = run_of(STEPS, values, said=(700, SAID))
    outlook = watcher.verdicts()[0].outlook
    assert "train longer" not in outlook
    assert "converged" not in outlook
    assert outlook.endswith(": trains nothing since step 700")


def test_zero_with_empty_targets_has_that_cause(rows: Any) -> None:
    watcher = Watcher(STEPS, PER_EPOCH)
    measured = watcher.scene.measured
    measured.metrics(300, {"targets/images": 8, "targets/boxes": 20, "targets/masks": 0},
                     {"reach": {"loss_mask": {"mask_head": 4}, "loss_b": {"box_head": 4}}})  # fmt: skip
    found = [each for step in range(800)
             for each in watcher.update(step, {"loss_mask": 0.4 if step < 313 else 0.0, "loss_b": 1.0})]  # fmt: skip
    (zero,) = [each for each in found if each.state == "zero"]
    assert (zero.cause, zero.since) == ("no_targets", 313)
    assert "Cause: none of the 20 boxes" in zero.text


REACH = {name: {"backbone": 9, part: 4} for name, part in (("loss_mask", "mask_head"), ("loss_b", "box_head"))}


@pytest.mark.parametrize(("cause", "evidence", "carried"), [
    ("part_not_trained", {"lost": {"mask_head": "frozen"}}, True),
    ("part_not_trained", {"lost": {"backbone": "frozen"}}, False),
    ("part_not_trained", {"lost": {"backbone": "frozen", "mask_head": "frozen"}}, True),
    ("not_in_optimizer", {"part": "mask_head"}, True),
    ("not_in_optimizer", {"part": "backbone"}, False),
    ("lr_zero", {"part": "mask_head"}, True),
    ("lr_zero", {"part": "backbone"}, False)])  # fmt: skip
def test_a_part_of_its_own_keeps_a_loss_from_learning_and_a_trunk_does_not(
    cause: str, evidence: Any, carried: bool, rows: Any
) -> None:
    """With a trunk that was frozen on purpose a head may converge, or diverge for reasons of its own."""
    watcher = Watcher(STEPS, PER_EPOCH, typical={"loss_mask": (0.1, 0.5)})
    watcher.scene.measured.metrics(0, {}, {"reach": REACH})
    for name in ("loss_mask", "loss_b") if "mask_head" not in str(evidence) else ("loss_mask",):
        watcher.scene.measured.alerted(cause, name, 200, "it stands at step 200", evidence)
    values = noisy(rows, lambda step: 0.2 + math.exp(-step / 100))
    for step in range(STEPS):
        watcher.update(step, values(step))
    watcher.finish()
    outlook = watcher.verdicts()[0].outlook
    assert outlook.startswith("flat since" if carried else "converged at")
    assert outlook.endswith(": it stands at step 200") == carried
