from __future__ import annotations

import json
import math
import random
import tracemalloc
from typing import Any

import pytest
from losslog_plateau import Finding, Watcher


def told(findings: list[Finding], state: str) -> list[Finding]:
    return [finding for finding in findings if finding.state == state]


def test_frozen_component_stalls_while_the_others_improve(rows: Any, make: Any) -> None:
    (found,) = told(make.feed(Watcher(3000, 50), rows()(make.stalled())), "stalled")
    assert (found.component, found.level) == ("loss_mask", "warning")
    assert 750 < found.step < 750 + 12 * 50
    assert found.since < found.step


def test_healthy_components_are_silent(rows: Any, make: Any) -> None:
    mask = lambda epoch: make.healthy(epoch, 1.5, 0.12, 12.0)  # noqa: E731
    assert make.feed(Watcher(3000, 50), rows()(mask)) == []


def test_stall_without_an_improving_other_is_flat_information(rows: Any, make: Any) -> None:
    found = make.feed(Watcher(3000, 50), rows()(make.stalled(), others=False))
    assert [(each.state, each.level) for each in found] == [("flat", "info")]


def test_quiet_needs_two_others(rows: Any, make: Any) -> None:
    two = [
        (s, {"loss_mask": v["loss_mask"], "loss_classifier": v["loss_classifier"]}) for s, v in rows()(make.stalled())
    ]
    assert told(make.feed(Watcher(3000, 50), two), "stalled")
    assert not told(make.feed(Watcher(3000, 50, quiet=True), two), "stalled")


def test_flat_within_its_range_has_converged(rows: Any, make: Any) -> None:
    watcher = Watcher(3000, 50, typical={"loss_mask": (0.3, 0.6)})
    assert not told(make.feed(watcher, rows()(make.stalled())), "stalled")
    assert {v.component: v.state for v in watcher.verdicts()}["loss_mask"] == "converged"


def test_without_ranges_a_component_that_halved_has_converged(rows: Any, make: Any) -> None:
    assert not told(make.feed(Watcher(3000, 50, typical={}), rows()(make.stalled(onset=30.0))), "stalled")


def test_scalar_is_the_component_loss() -> None:
    watcher = Watcher()
    watcher.update(0, 1.5)
    assert [verdict.component for verdict in watcher.verdicts()] == ["loss"]


def test_values_may_be_anything_with_float() -> None:
    class Scalar:
        def __float__(self) -> float:
            return math.nan

    assert Watcher().update(0, {"loss_mask": Scalar()})[0].state == "non_finite"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_non_finite_is_an_error_on_its_step_with_its_component(value: float) -> None:
    watcher = Watcher(1000, 50)
    for step in range(7):
        assert watcher.update(step, {"loss_mask": 1.0, "loss_box_reg": 1.0}) == []
    (found,) = watcher.update(7, {"loss_mask": value, "loss_box_reg": 1.0})
    assert (found.component, found.state, found.level, found.step) == ("loss_mask", "non_finite", "error", 7)
    assert watcher.update(8, {"loss_mask": value, "loss_box_reg": 1.0}) == []


def test_non_finite_total_of_finite_components_is_told() -> None:
    (found,) = Watcher().update(3, {"loss_mask": 1.0}, total=math.nan)
    assert (found.component, found.state) == ("total", "non_finite")


def test_divergence_is_a_warning(rows: Any, make: Any) -> None:
    mask = lambda epoch: make.healthy(epoch, 1.5) if epoch < 20 else make.healthy(20, 1.5) * 1.15 ** (epoch - 20)  # noqa: E731
    (found,) = told(make.feed(Watcher(3000, 50), rows()(mask)), "diverging")
    assert (found.component, found.level) == ("loss_mask", "warning")
    assert 1000 < found.step < 1000 + 8 * 50


def test_constant_factor_in_the_total_is_told_with_what_it_looks_like() -> None:
    watcher = Watcher()
    found = [f for step in range(10) for f in watcher.update(step, {"a": 1.0 + step, "b": 1.0}, total=(2.0 + step) / 4)]
    assert [(each.component, each.state, each.level) for each in found] == [("total", "sum_mismatch", "warning")]
    assert "gradient accumulation over 4 batches" in found[0].text


def test_totals_that_look_smoothed_are_only_information() -> None:
    draw = random.Random(0)
    watcher = Watcher()
    found = [f for step in range(80) for f in watcher.update(step, {"a": 1.0}, total=draw.uniform(0.9, 1.1))]
    assert [(each.state, each.level) for each in found] == [("sum_mismatch", "info")]


def test_totals_that_agree_are_silent() -> None:
    watcher = Watcher()
    assert not [f for step in range(200) for f in watcher.update(step, {"a": 1.0, "b": 2.0}, total=3.0 + 1e-5)]


def test_component_at_zero_for_an_epoch_is_told(rows: Any, make: Any) -> None:
    watcher = Watcher(3000, 200)
    found = [
        f
        for s, v in rows(steps=600)(make.stalled())
        for f in watcher.update(s, v | {"loss_mask": 0.0 if s > 99 else 1.0})
    ]
    assert [(each.component, each.state, each.since) for each in found] == [("loss_mask", "zero", 100)]


def test_component_that_is_zero_now_and_then_is_not(rows: Any, make: Any) -> None:
    watcher = Watcher(3000, 50)
    found = [f for s, v in rows(steps=600)(make.healthy) for f in watcher.update(s, v | {"loss_mask": float(s % 3)})]
    assert told(found, "zero") == []


def test_missing_component_is_told_once(rows: Any, make: Any) -> None:
    watcher = Watcher(3000, 50)
    found = []
    for step, losses in rows(steps=600)(make.healthy):
        if step >= 200:
            del losses["loss_mask"]
        found += watcher.update(step, losses)
    assert [(each.component, each.state, each.level, each.since) for each in found] == [
        ("loss_mask", "missing", "info", 199)
    ]


def test_component_that_appears_in_mid_run_is_told(rows: Any, make: Any) -> None:
    watcher = Watcher(3000, 50)
    found = [
        f
        for s, v in rows(steps=600)(make.healthy)
        for f in watcher.update(s, v if s < 300 else v | {"loss_depth": 1.0})
    ]
    assert [(each.component, each.state, each.step) for each in found] == [("loss_depth", "new", 300)]


def test_component_that_comes_after_two_short_epochs_is_told() -> None:
    watcher, found = Watcher(320, 32), []
    for step in range(320):
        found += watcher.update(step, {"a": 1.0 / (1 + step)} | ({"b": 0.9 ** (step / 32)} if step >= 96 else {}))
    assert [(each.component, each.step) for each in found if each.state == "new"] == [("b", 96)]


def test_components_that_take_turns_are_not_new() -> None:
    watcher, found = Watcher(960, 32), []
    for step in range(960):
        task = "abc"[step // 96 % 3]
        found += watcher.update(step, {"all": 1.0 / (1 + step), task: 1.0})
    assert not [each for each in found if each.state == "new"]


def test_component_that_comes_in_the_first_epoch_is_not_new() -> None:
    watcher = Watcher(3000, 200)
    watcher.update(0, {"a": 1.0})
    assert watcher.update(1, {"a": 1.0, "b": 1.0}) == []


def test_component_far_above_its_range_dominates(rows: Any, make: Any) -> None:
    found = told(make.feed(Watcher(3000, 50), rows()(lambda epoch: 9.0)), "dominating")
    assert [(each.component, each.level) for each in found] == [("loss_mask", "warning")]


def test_what_trains_nothing_does_not_dominate(rows: Any, make: Any) -> None:
    watcher = Watcher(3000, 50)
    watcher.scene.reached(0, {"loss_mask": True}, "loss_mask trains nothing")
    assert not told(make.feed(watcher, rows()(lambda epoch: 9.0)), "dominating")


def test_large_share_within_the_range_is_normal(rows: Any, make: Any) -> None:
    watcher = Watcher(3000, 50, typical={"loss_mask": (0.5, 3.0)})
    assert not told(make.feed(watcher, rows()(lambda epoch: 1.2)), "dominating")


def test_oscillation_is_off_unless_asked_for(rows: Any, make: Any) -> None:
    mask = lambda epoch: 0.5 * math.exp(0.5 * math.sin(epoch))  # noqa: E731
    assert not told(make.feed(Watcher(3000, 50), rows()(mask)), "oscillating")
    assert told(make.feed(Watcher(3000, 50, oscillating=True), rows()(mask)), "oscillating")[0].level == "info"


def test_cut_of_the_learning_rate_is_named_and_changes_the_advice(rows: Any, make: Any) -> None:
    watcher = Watcher(3000, 50)
    found = [f for s, v in rows()(make.stalled()) for f in watcher.update(s, v, 0.01 if s < 700 else 0.001)]
    (stall,) = told(found, "stalled")
    assert "cut at step 700" in stall.text
    assert "head_lr_multiplier" not in stall.text


def test_changed_learning_rate_starts_the_line_anew(rows: Any, make: Any) -> None:
    watcher = Watcher(3000, 50)
    found = [f for s, v in rows(steps=1300)(make.stalled()) for f in watcher.update(s, v, 0.01 if s < 1100 else 0.1)]
    assert told(found, "stalled") == []


def test_stall_is_told_once_per_episode(rows: Any, make: Any) -> None:
    assert len(told(make.feed(Watcher(6000, 50), rows(steps=6000)(make.stalled())), "stalled")) == 1


def test_rows_of_a_sparse_log_find_the_same_stall(rows: Any, make: Any) -> None:
    every_tenth = [(s, v) for s, v in rows(noise=0.05)(make.stalled()) if s % 10 == 9]
    (found,) = told(make.feed(Watcher(3000, 50), every_tenth), "stalled")
    assert 750 < found.step < 1400


def test_one_value_per_epoch_finds_the_stall(make: Any) -> None:
    watcher = Watcher(40, 1)
    found = []
    for epoch in range(1, 41):
        found += watcher.update(epoch, {"loss_mask": make.stalled(12.0)(epoch), "loss_classifier": make.healthy(epoch)})
    (stall,) = told(found, "stalled")
    assert 12 < stall.step < 24
    assert "epoch 40" in stall.text


def test_typical_table_is_used_for_other_names(rows: Any, make: Any) -> None:
    renamed = [
        (s, {"depth" if n == "loss_mask" else n: x for n, x in v.items()}) for s, v in rows()(make.stalled(30.0))
    ]
    assert not told(make.feed(Watcher(3000, 50, typical={}), renamed), "stalled")
    assert told(make.feed(Watcher(3000, 50, typical={"depth": (0.02, 0.05)}), renamed), "stalled")


def test_lengths_learnt_in_mid_run_keep_the_peak(rows: Any, make: Any) -> None:
    watcher = Watcher()
    make.feed(watcher, list(rows()(make.stalled()))[:100])
    watcher.set_lengths(3000, 50)
    assert watcher.clock.unit == 150
    assert watcher.components["loss_mask"].level.peak > 1.0


def test_rewind_starts_the_lines_anew(rows: Any, make: Any) -> None:
    watcher = Watcher(3000, 50)
    make.feed(watcher, list(rows()(make.stalled()))[:700])
    watcher.rewind(500)
    assert watcher.step == 500
    assert watcher.components["loss_mask"].ring.means == []


@pytest.mark.parametrize("cut", [1, 49, 333, 1000, 2000])
def test_restored_watcher_goes_on_exactly(cut: int, rows: Any, make: Any) -> None:
    data = list(rows()(make.stalled()))
    watcher, other = Watcher(3000, 50, oscillating=True), Watcher(3000, 50, oscillating=True)
    make.feed(watcher, data[:cut], lr=0.1)
    other.load_state_dict(json.loads(json.dumps(watcher.state_dict())))
    assert make.feed(other, data[cut:], lr=0.1) == make.feed(watcher, data[cut:], lr=0.1)
    assert other.state_dict() == watcher.state_dict()


def test_state_of_another_version_is_refused() -> None:
    with pytest.raises(ValueError, match="version 99"):
        Watcher().load_state_dict(Watcher().state_dict() | {"version": 99})


def test_same_calls_give_the_same_findings(rows: Any, make: Any) -> None:
    first, second = (make.feed(Watcher(3000, 50), rows()(make.stalled())) for _ in range(2))
    assert first == second != []


def test_memory_does_not_grow_over_a_million_steps() -> None:
    watcher = Watcher(None, 1000)
    for step in range(970_000):
        watcher.update(step, 1.0 + step % 7)
    tracemalloc.start()  # slows every step, so only the last ones are traced
    try:
        for step in range(970_000, 1_000_000):
            watcher.update(step, 1.0 + step % 7)
        assert tracemalloc.get_traced_memory()[0] < 4096
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("length", [0, -5, math.nan, math.inf, True, "100"])
def test_length_that_is_no_number_is_refused_by_name(length: Any) -> None:
    with pytest.raises(ValueError, match=r"planned_steps=.*: give"):
        Watcher(length)


def test_verdicts_tell_state_level_range_and_rate(rows: Any, make: Any) -> None:
    watcher = Watcher(3000, 50)
    make.feed(watcher, rows()(make.stalled()))
    mask, classifier = watcher.verdicts()[:2]
    assert (mask.state, mask.severity, mask.range, mask.per) == ("stalled", "warning", (0.08, 0.20), "epoch")
    assert mask.level == pytest.approx(make.stalled()(60.0), rel=0.1)
    assert mask.rate_low is not None
    assert mask.rate_high is not None
    assert mask.rate_low < 0 < mask.rate_high
    assert 0.3 < (mask.share or 0) < 0.7
    assert (classifier.state, classifier.severity) == ("improving", "info")


def test_rate_of_a_verdict_is_percent_per_epoch() -> None:
    watcher = Watcher(2000, 100)
    for step in range(1500):
        watcher.update(step, {"loss_mask": math.exp(-0.02 * step / 100)})
    assert watcher.verdicts()[0].rate == pytest.approx(100 * (math.exp(-0.02) - 1), rel=1e-6)


def test_early_components_are_warming_up() -> None:
    watcher = Watcher(2000, 100)
    watcher.update(0, {"loss_mask": 1.0})
    (verdict,) = watcher.verdicts()
    assert (verdict.state, verdict.level) == ("warming up", None)


def test_one_outlier_is_no_stall_of_a_component_within_its_range(rows: type) -> None:
    """A single step of 400 times the loss lifts the mean of its epoch far above the range."""
    made = rows(steps=3000, per_epoch=50, noise=0.2)
    watcher = Watcher(3000, 50)
    found = []
    for step, losses in made(lambda epoch: 0.15):
        found += watcher.update(step, losses | {"loss_mask": losses["loss_mask"] * (400 if step % 500 == 480 else 1)})
    assert [f for f in found if f.component == "loss_mask" and f.state in ("stalled", "flat")] == []


def test_a_stall_is_not_told_again_as_flat_when_the_others_stop_too() -> None:
    """The mask stands from epoch 10; the others improve until epoch 35 and then stand within their range."""
    watcher = Watcher(5000, 50)
    draw = random.Random(5)
    found = []
    for step in range(5000):
        epoch = step / 50
        mask = 1.2 * math.exp(-min(epoch, 10) / 20)
        box = 0.05 + 0.8 * math.exp(-min(epoch, 35) / 12)
        losses = {"loss_mask": mask, "loss_box_reg": box, "loss_classifier": box}
        found += watcher.update(step, {name: value * math.exp(draw.gauss(0, 0.2)) for name, value in losses.items()})
    told = [f.state for f in found if f.component == "loss_mask" and f.state in ("stalled", "flat")]
    assert told == ["stalled"]
    verdict = {v.component: v.state for v in watcher.verdicts()}["loss_mask"]
    assert verdict == "stalled"  # they improved while it stood


def test_a_stall_is_found_though_the_others_have_reached_their_end_meanwhile() -> None:
    """What counts is who improved over the time in which it stood, not who still does when that is certain."""
    for late, state in ((30, "stalled"), (3, "flat")):  # in the latter case they stood before it
        watcher, draw, found = Watcher(4000, 50), random.Random(3), []
        for step in range(4000):
            epoch = step / 50
            mask = 1.2 * math.exp(-min(epoch, 20) / 25)
            box = 0.05 + 0.8 * math.exp(-min(epoch, late) / 6)
            losses = {
                "loss_mask": mask * math.exp(draw.gauss(0, 0.9)),
                "loss_box_reg": box * math.exp(draw.gauss(0, 0.2)),
            }
            found += watcher.update(step, losses)
        told = [each for each in found if each.component == "loss_mask" and each.state in ("stalled", "flat")]
        assert [each.state for each in told] == [state]
        assert told[0].evidence["improving"] == []
        assert told[0].evidence["improved"] == (["loss_box_reg"] if state == "stalled" else [])
        assert ("while loss_box_reg improved" in told[0].text) == (state == "stalled")


@pytest.mark.parametrize("lengths", [{}, {"steps_per_epoch": 50}, {"planned_steps": 20_000, "steps_per_epoch": 50}])
@pytest.mark.parametrize("deviation", [0.4, 1.0])
def test_losses_that_only_scatter_do_not_diverge(lengths: dict[str, int], deviation: float) -> None:
    """Of hundreds of epochs noise alone makes one very low: the lowest must not be taken of single ones."""
    draw = random.Random(1)
    watcher = Watcher(**lengths)
    found = []
    for step in range(20_000):
        found += watcher.update(step, {name: 0.5 * math.exp(draw.gauss(0, deviation)) for name in "abcde"})
    assert sum(f.state == "diverging" for f in found) <= 1


def test_lengths_learnt_in_mid_run_do_not_make_it_diverge() -> None:
    """The lowest of short, noisy levels is no measure for the longer ones that follow."""
    draw = random.Random(2)
    watcher = Watcher()
    found = []
    for step in range(20_000):
        if step == 5000:
            watcher.set_lengths(None, 2500)
        found += watcher.update(step, {"a": 0.5 * math.exp(draw.gauss(0, 1.0)), "b": draw.random()})
    assert [f for f in found if f.state == "diverging"] == []


@pytest.mark.parametrize("size", [1e308, 5e-324])
def test_losses_at_the_ends_of_what_a_float_holds(size: float) -> None:
    draw = random.Random(3)
    watcher = Watcher(2000, 50)
    for step in range(2000):
        watcher.update(step, {"a": size * (0.5 + draw.random() / 2), "b": draw.random()})
    json.dumps(watcher.state_dict(), allow_nan=False)
    assert all(math.isfinite(verdict.level) for verdict in watcher.verdicts())


SPARSE = {
    "every 20th": lambda step, per_epoch: step % 20 == 19,
    "every 50th": lambda step, per_epoch: step % 50 == 0,
    "first and last of an epoch": lambda step, per_epoch: step % per_epoch in (0, per_epoch - 1),
    "last of an epoch": lambda step, per_epoch: step % per_epoch == per_epoch - 1,
}


@pytest.mark.parametrize("which", SPARSE)
def test_sparse_rows_take_their_place_from_the_step(which: str, rows: Any, make: Any) -> None:
    kept = [(s, v) for s, v in rows(steps=6000, per_epoch=100, noise=0.05)(make.stalled()) if SPARSE[which](s, 100)]
    (found,) = told(make.feed(Watcher(6000, 100), kept), "stalled")
    assert 1500 < found.step < 4500


@pytest.mark.parametrize("which", SPARSE)
def test_sparse_rows_of_a_healthy_run_are_silent(which: str, rows: Any, make: Any) -> None:
    kept = [(s, v) for s, v in rows(steps=6000, per_epoch=100, noise=0.05)(make.healthy) if SPARSE[which](s, 100)]
    watcher = Watcher(6000, 100)
    assert make.feed(watcher, kept) == []
    assert watcher.scene.finished
    assert {verdict.state for verdict in watcher.verdicts()} <= {"improving", "unclear"}


@pytest.mark.parametrize("epochs", [25, 50, 100])
def test_one_value_per_epoch_without_a_plan_finds_the_stall(epochs: int, make: Any) -> None:
    draw = random.Random(epochs)
    watcher = Watcher(None, 1)
    found = []
    for epoch in range(1, epochs + 1):
        losses = {"loss_mask": make.stalled(10.0)(epoch), "loss_classifier": make.healthy(epoch, 1.5, 0.05, epochs / 3)}
        found += watcher.update(epoch, {name: value * math.exp(draw.gauss(0, 0.02)) for name, value in losses.items()})
    assert [each.component for each in told(found, "stalled")] == ["loss_mask"]


@pytest.mark.parametrize("epochs", [25, 50, 100])
@pytest.mark.parametrize("plan", [False, True])
def test_one_value_per_epoch_of_losses_that_fall_ever_more_slowly_is_silent(epochs: int, plan: bool) -> None:
    draw = random.Random(epochs)
    watcher = Watcher(epochs if plan else None, 1, typical=dict.fromkeys(("a", "b", "c"), (0.01, 0.02)))
    found = []
    for epoch in range(1, epochs + 1):
        losses = {"a": 3.0 * epoch**-0.25, "b": 1.5 * epoch**-0.3, "c": 1.2 * epoch**-0.4}
        found += watcher.update(epoch, {name: value * math.exp(draw.gauss(0, 0.01)) for name, value in losses.items()})
    assert [each for each in found if each.level != "info"] == []


def test_component_without_a_range_is_information_only(rows: Any, make: Any) -> None:
    mask = lambda epoch: make.stalled(8.0)(epoch)  # noqa: E731
    renamed = [(s, {"depth" if n == "loss_mask" else n: x for n, x in v.items()}) for s, v in rows()(mask)]
    found = [each for each in make.feed(Watcher(3000, 50), renamed) if each.component == "depth"]
    assert [(each.state, each.level) for each in found] == [("flat", "info")]
    assert "its usual end is not known" in found[0].text


def test_loss_with_a_floor_of_its_own_says_so(rows: Any) -> None:
    renamed = [
        (s, {"loss_centerness" if n == "loss_mask" else n: x for n, x in v.items()}) for s, v in rows()(lambda e: 0.6)
    ]
    found = [each for each in make_feed(Watcher(3000, 50), renamed) if each.component == "loss_centerness"]
    assert [each.level for each in found] == ["info"]
    assert "has a floor of its own" in found[0].text


def make_feed(watcher: Watcher, data: Any) -> list[Finding]:
    return [finding for step, losses in data for finding in watcher.update(step, losses)]


def test_what_still_improves_is_true_of_those_named(rows: Any, make: Any) -> None:
    """Two others fall until epoch 20 and then stand within their range; only the one that goes on may be named."""
    draw = random.Random(4)
    watcher, found = Watcher(6000, 100), []
    for step in range(6000):
        epoch = step / 100
        early = 0.06 + 0.8 * math.exp(-min(epoch, 18) / 5)
        losses = {"loss_mask": 0.9 * math.exp(-min(epoch, 22) / 40), "loss_box_reg": early, "loss_classifier": early}
        losses["loss_objectness"] = 0.9 * math.exp(-epoch / 25)
        found += watcher.update(step, {name: value * math.exp(draw.gauss(0, 0.1)) for name, value in losses.items()})
    (stall,) = [each for each in found if each.component == "loss_mask" and each.state == "stalled"]
    assert stall.evidence["improving"] == ["loss_objectness"]


def test_line_is_kept_over_a_cut_of_the_learning_rate(rows: Any, make: Any) -> None:
    watcher = Watcher(3000, 50)
    make.feed(watcher, list(rows()(make.stalled()))[:2600], lr=0.01)
    blocks = len(watcher.components["loss_mask"].ring.means)
    for step, losses in list(rows()(make.stalled()))[2600:2990]:
        watcher.update(step, losses, 0.001)
    assert len(watcher.components["loss_mask"].ring.means) >= blocks / 2
    assert "warming up" not in {verdict.state for verdict in watcher.verdicts()}


def test_open_cell_is_left_out_at_a_cut() -> None:
    watcher = Watcher(2000, 100)
    for step in range(110):
        watcher.update(step, {"loss_mask": 9.0}, 0.1)
    assert watcher.components["loss_mask"].values > 0
    watcher.update(110, {"loss_mask": 1.0}, 0.01)
    assert (watcher.components["loss_mask"].values, watcher.components["loss_mask"].total) == (1, 1.0)


def test_stall_that_does_not_answer_to_a_cut_is_told(rows: Any, make: Any) -> None:
    """Everything else drops when the rate is cut: the best proof that this one stands for another reason."""
    watcher, found = Watcher(3000, 50), []
    for step, losses in rows(noise=0.1)(lambda epoch: 0.6):
        drop = 0.6 if step >= 2000 else 1.0
        losses = {name: value if name == "loss_mask" else 0.9 * drop * value for name, value in losses.items()}
        found += watcher.update(step, losses, 0.01 if step < 2000 else 0.001)
    assert [each.component for each in told(found, "stalled")] == ["loss_mask"]


def test_rising_component_is_never_flat() -> None:
    draw = random.Random(7)
    watcher, found = Watcher(6000, 100), []
    for step in range(6000):
        epoch = step / 100
        mask = 0.8 * math.exp(-epoch / 20) if epoch < 20 else 0.8 * math.exp(-1 + 0.02 * (epoch - 20))
        losses = {"loss_mask": mask, "loss_box_reg": 0.9 * math.exp(-epoch / 25)}
        found += watcher.update(step, {name: value * math.exp(draw.gauss(0, 0.05)) for name, value in losses.items()})
    assert [each for each in found if each.state in ("stalled", "flat") and each.step > 4000] == []


@pytest.mark.parametrize("steps", [100, 400, 1000, 3000])
@pytest.mark.parametrize("lengths", [{}, {"planned_steps": 9000}, {"planned_steps": 9000, "steps_per_epoch": 50}])
def test_a_run_that_has_ended_is_not_warming_up(steps: int, lengths: Any, rows: Any, make: Any) -> None:
    watcher = Watcher(**lengths)
    make.feed(watcher, rows(steps=steps)(make.stalled()))
    watcher.finish()
    verdicts = watcher.verdicts()
    assert "warming up" not in {verdict.state for verdict in verdicts}
    assert all(verdict.outlook and "warming" not in verdict.outlook for verdict in verdicts)


def test_after_the_last_step_of_the_plan_nothing_is_warming_up(rows: Any, make: Any) -> None:
    watcher = Watcher(400, 50)
    make.feed(watcher, rows(steps=399)(make.healthy))
    assert not watcher.scene.finished
    watcher.update(399, {"loss_mask": 1.0})
    assert "warming up" not in {verdict.state for verdict in watcher.verdicts()}


def test_held_watcher_says_nothing_of_flatness_divergence_and_shares(rows: Any, make: Any) -> None:
    watcher = Watcher()
    watcher.hold(True)
    data = list(rows(steps=6000, noise=0.05)(lambda epoch: 5.0 if epoch < 60 else 15.0))
    assert make.feed(watcher, data) == []
    assert {verdict.state for verdict in watcher.verdicts()} & {"stalled", "flat", "diverging"} == set()


def test_component_that_came_down_to_zero_is_information(rows: Any, make: Any) -> None:
    measured = (watcher := Watcher(3000, 50)).scene.measured
    found = []
    for step in range(400):
        losses = {"loss_mask": max(0.0, 1.0 - step / 100), "loss_box_reg": 1.0}
        measured.weighed(step, losses, None)
        found += watcher.update(step, losses)
    (zero,) = told(found, "zero")
    assert zero.level == "info"
    assert "come down to 0.03" in zero.text


@pytest.mark.parametrize("factor", [5.0, 50.0, 5000.0])
@pytest.mark.parametrize("lasting", [1, 12, 60])
def test_level_that_is_told_is_what_the_loss_has_now(factor: float, lasting: int, rows: Any) -> None:
    """However high it was at the start."""
    watcher, draw = Watcher(1000, 50), rows()
    noise = random.Random(3)
    last = []
    for step in range(1000):
        spike = factor if 3 <= step < 3 + lasting else 1.0
        value = draw.shaken(0.5 * spike, noise)
        last = [*last, value][-50:]
        watcher.update(step, {"loss_a": value, "loss_b": draw.shaken(make_fall(step), noise)})
    watcher.finish()
    verdict = watcher.verdicts()[0]
    assert verdict.state in ("converged", "flat")
    assert verdict.level == pytest.approx(sum(last) / 50, rel=0.15)


def make_fall(step: int) -> float:
    return 0.1 + math.exp(-step / 300)


@pytest.mark.parametrize("absent", [None, 0.0])
@pytest.mark.parametrize("often", [3, 10, 25])
def test_steps_without_a_loss_count_in_its_share(absent: float | None, often: int) -> None:
    """Whether it is 0 there, or not in the dict."""
    watcher = Watcher(3000, 50, typical={})
    found = []
    for step in range(3000):
        here = {} if absent is None else {"loss_c": absent}
        losses = {"loss_a": 0.1, "loss_b": 0.1} | ({"loss_c": 2.0} if step % often == 0 else here)
        found += watcher.update(step, losses)
    share = (2.0 / often) / (0.2 + 2.0 / often)
    verdict = {each.component: each for each in watcher.verdicts()}["loss_c"]
    assert verdict.share == pytest.approx(share, abs=0.06)
    assert bool(told(found, "dominating")) == (share > 0.85)
    assert "% of steps that have one other than 0" in verdict.outlook


@pytest.mark.parametrize("gap", [1, 20])
def test_rows_of_a_sparse_log_are_all_there_is(gap: int, rows: Any, make: Any) -> None:
    watcher = Watcher(3000, 100)
    make.feed(watcher, (row for row in rows()(make.healthy) if row[0] % gap == 0))
    assert [component.level.presence for component in watcher.components.values()] == [1.0] * 5


@pytest.mark.parametrize("first", [100, 150, 153, 167])
def test_zero_since_its_very_first_step(first: int) -> None:
    watcher = Watcher(1000, 32)
    found = [f for s in range(600) for f in watcher.update(s, {"a": 0.3 if s < first else 0.0, "b": 1.0})]
    assert [each.since for each in told(found, "zero")] == [first]
