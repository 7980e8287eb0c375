"""Recorded runs: tiny Mask R-CNNs made for this, and public logs (a row every 20 steps, medians)."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from losslog_plateau import PlateauPlugin, Watcher
from losslog_plateau.known import TYPICAL
from losslog_plateau.settings import CAP

HEALTHY = ("h1_sgd", "h3_difflr", "h4_adam_wu", "u_deadmask", "u_masklr0.03_adam")
PUBLIC = (
    "d2_frcnn_orbital_1500_decay",
    "d2_frcnn_text_30k",
    "d2_mask_bloodcells_2500",
    "d2_mask_eyefundus_300a",
    "d2_mask_fruit_1000a",
    "d2_mask_teeth_2500a",
    "tv_mask_pennfudan_10ep_a",
    "mm_mask_coco_r50",
    "mm_fcos_coco_moco_24ep",
    "yl_underwater50",
)
LENGTHS = {
    "plan and epoch": lambda curve: (curve.planned, curve.per_epoch),
    "epoch": lambda curve: (None, curve.per_epoch),
    "plan": lambda curve: (curve.planned, None),
    "neither": lambda curve: (None, None),
}


@pytest.mark.parametrize("name", [*HEALTHY, *PUBLIC])
def test_no_warning_on_a_run_that_is_no_stall(name: str, curve: Any) -> None:
    assert [finding for finding in curve(name).findings() if finding.level != "info"] == []


@pytest.mark.parametrize("known", LENGTHS)
@pytest.mark.parametrize("name", [*HEALTHY, *PUBLIC, "u_frozenhead"])
def test_no_warning_whatever_is_known_of_the_lengths(name: str, known: str, curve: Any) -> None:
    recorded = curve(name)
    watcher = Watcher(*LENGTHS[known](recorded))
    found = [finding for row in recorded.updates() for finding in watcher.update(*row)]
    assert [finding for finding in found if finding.level != "info"] == []


@pytest.mark.parametrize("known", LENGTHS)
def test_frozen_mask_is_found_whatever_is_known_of_the_lengths(known: str, curve: Any) -> None:
    recorded = curve("u_freezeat400")
    watcher = Watcher(*LENGTHS[known](recorded))
    found = [finding for row in recorded.updates() for finding in watcher.update(*row)]
    (stall,) = [finding for finding in found if finding.level != "info"]
    assert (stall.component, stall.state) == ("loss_mask", "stalled")
    assert 400 <= stall.step <= 700


@pytest.mark.parametrize("epochs", [False, True])
@pytest.mark.parametrize("name", [*HEALTHY, *PUBLIC, "u_frozenhead"])
def test_plugin_that_has_to_learn_the_epoch_is_silent(name: str, epochs: bool, curve: Any, run: Any) -> None:
    recorded = curve(name)
    plugin = PlateauPlugin(on_stall="stop")
    planned = recorded.epoch(recorded.rows[-1]) if epochs else None
    plugin.on_run_start(epochs=planned, steps_per_epoch=None, resumed=False, seq=0)
    for row, (step, losses, lr, total) in zip(recorded.rows, recorded.updates(), strict=True):
        if recorded.per_epoch == 1:
            plugin.on_epoch_end(recorded.epoch(row), planned, step, losses, None, lr, None, run)
        else:
            plugin.on_batch_losses(step, recorded.epoch(row), losses, total, lr, None, run)
    assert [alert for alert in run.alerts if alert["level"] != "info"] == []
    assert run.stops == []


@pytest.mark.parametrize("name", [*HEALTHY, *PUBLIC])
def test_nothing_is_warming_up_at_the_end_of_a_plan(name: str, curve: Any) -> None:
    recorded = curve(name)
    watcher = Watcher(recorded.planned, recorded.per_epoch)
    for row in recorded.updates():
        watcher.update(*row)
    assert "warming up" not in {verdict.state for verdict in watcher.verdicts()}


def test_frozen_mask_is_found_within_twelve_epochs(curve: Any) -> None:
    frozen = curve("u_freezeat400")
    stalls = [finding for finding in frozen.findings() if finding.level == "warning"]
    assert [finding.component for finding in stalls] == ["loss_mask"]
    assert 400 <= stalls[0].step <= 400 + 12 * frozen.per_epoch


def test_frozen_mask_is_found_without_a_plan(curve: Any) -> None:
    watcher = Watcher(None, 25)
    found = [f for row in curve("u_freezeat400").updates() for f in watcher.update(*row)]
    (stall,) = [f for f in found if f.component == "loss_mask" and f.state == "stalled"]
    assert 400 <= stall.step <= 700


def test_explosion_is_told_on_its_step_for_every_component(curve: Any) -> None:
    found = curve("u_lrhigh").findings()
    assert {(f.component, f.step) for f in found if f.state == "non_finite"} == {
        (name, 4) for name in ("loss_mask", "loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg")
    }


def test_frozen_head_over_moving_features_dominates(curve: Any) -> None:
    found = curve("u_frozenhead").findings()
    assert ("loss_mask", "dominating") in {(f.component, f.state) for f in found}


def test_run_that_learns_nothing_is_flat_information(curve: Any) -> None:
    """loss_mask stands at 1.19 times its range there, which counts as converged."""
    flat = [f.component for f in curve("d2_mask_fruit_1000a").findings() if f.state == "flat"]
    assert sorted(flat) == ["loss_box_reg", "loss_classifier"]


@pytest.mark.parametrize("name", ["d2_frcnn_text_30k", "d2_mask_teeth_2500a", "d2_mask_eyefundus_300a"])
def test_slow_and_warmup_ranges_are_no_plateau(name: str, curve: Any) -> None:
    assert not [f for f in curve(name).findings() if f.state in ("stalled", "flat", "diverging")]


def test_sums_of_medians_are_no_warning(curve: Any) -> None:
    found = [f for f in curve("d2_mask_bloodcells_2500").findings() if f.state == "sum_mismatch"]
    assert [f.level for f in found] == ["info"]


def test_raw_sums_agree(curve: Any) -> None:
    assert not [f for f in curve("h1_sgd").findings() if f.state == "sum_mismatch"]


UNSURE = {
    ("d2_mask_bloodcells_2500", "loss_classifier"): "a line through it falls by 2 % per twentieth of the run",
    ("d2_frcnn_orbital_1500_decay", "loss_box_reg"): "the last 23 rows of the run, and they scatter by 9 %",
}
"""Labelled plateaus above their range that are neither alerted nor called converged, and why."""


def labels() -> list[dict[str, str]]:
    path = Path(__file__).resolve().parents[4] / "shared" / "curves" / "labels.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["component"] in TYPICAL]


@pytest.mark.parametrize("label", labels(), ids=lambda row: "-".join(list(row.values())[:3]))
def test_labelled_stretches_are_treated_as_labelled(label: dict[str, str], curve: Any) -> None:
    name, component, kind = label["curve"], label["component"], label["kind"]
    states = ("stalled", "flat", "diverging")
    told = [f for f in curve(name).findings() if f.component == component and f.state in states]
    within = [f for f in told if int(label["start"]) <= f.step <= int(label["end"])]
    level = float(label["level_last_sixth"]) / TYPICAL[component][1]
    if kind != "plateau" or level <= 1:  # warm-up, slow, floor, negligible
        assert within == []
    else:
        assert "stalled" not in {f.state for f in within}  # nothing else improved in these logs
        assert within or level <= CAP or (name, component) in UNSURE
