from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from losslog_plateau import advice, outlook
from losslog_plateau.causes import Cause
from losslog_plateau.situation import Rate, Situation, evidence_of

SITUATION = Situation(
    component="loss_mask",
    level=0.41,
    peak=0.45,
    range=(0.08, 0.20),
    usual=True,
    floored=None,
    share=0.5,
    rate=Rate(-0.2, -0.9, 0.5, "epoch"),
    window=600,
    since=700,
    step=1300,
    epoch=50.0,
    end=(3000, 0.39, 0.31),
    improving=["loss_classifier", "loss_box_reg"],
    improved=[],
    others=4,
    cause=None,
    later=None,
    axis="step",
)


@pytest.mark.parametrize(
    "words",
    [
        "loss_mask has stalled",
        "stands at 0.41",
        "typical final range 0.08-0.2: 2.0 times its top",
        "-0.2 % per epoch (between -0.9 and +0.5)",
        "the last 600 steps",
        "since about step 700",
        "loss_classifier, loss_box_reg still improve",
        "0.39 at the end of the run (step 3000), at best 0.31",
        "get_parameter_groups(model, lr, head_lr_multiplier=10)",
        "mask_head",
        "higher learning rate overall",
    ],
)
def test_stall_says_what_a_person_needs(words: str) -> None:
    assert words in advice.stalled(SITUATION)


def test_measured_cause_is_stated_and_nothing_is_asked() -> None:
    cause = Cause("chance_level", "it stands at 0.69 = ln 2", {"chance": 0.69})
    text = advice.stalled(dataclasses.replace(SITUATION, cause=cause))
    assert "Cause: it stands at 0.69 = ln 2." in text
    assert "No cause was measured" not in text


def test_what_was_not_measured_is_a_question() -> None:
    text = advice.stalled(SITUATION)
    assert "No cause was measured. Is mask_head frozen, detached or missing from the optimizer?" in text


@pytest.mark.parametrize("words", [advice.stalled, advice.flat])
def test_another_range_is_asked_for_only_where_the_loss_has_learnt(words: Any) -> None:
    def text(**changed: Any) -> str:
        return str(words(dataclasses.replace(SITUATION, improving=(), **changed)))

    question = "Or is that range another data set's? It has fallen by 59 % from 1:"
    assert question in text(peak=1.0)
    assert "another data set" not in text()  # it has hardly fallen: no range would do
    assert "another data set" not in text(peak=1.0, usual=False)  # the user's own
    assert "another data set" not in text(peak=1.0, range=None)
    assert "another data set" not in text(peak=1.0, level=0.15)
    assert "another data set" not in text(peak=1.0, cause=Cause("lr_cut", "the learning rate was cut at step 500"))


def test_after_a_cut_a_higher_head_rate_is_not_advised() -> None:
    cause = Cause("lr_cut", "the learning rate was cut at step 500")
    text = advice.stalled(dataclasses.replace(SITUATION, cause=cause))
    assert "was cut at step 500" in text
    assert "head_lr_multiplier" not in text


def test_a_later_cut_is_ruled_out() -> None:
    text = advice.stalled(dataclasses.replace(SITUATION, later="the learning rate was cut at step 900"))
    assert "It began before the learning rate was cut at step 900, so that is not the cause." in text


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("converged", "converged at 0.12"),
        ("improving", "still improving 2 % an epoch: train longer"),
        ("flat", "flat since epoch 15 at 0.12"),
        ("stalled", "stalled since epoch 15 at 0.12"),
        ("unclear", "ended at 0.12, changing by -2 % per epoch"),
    ],
)
def test_outlook_says_what_came_of_it(state: str, words: str) -> None:
    situation = dataclasses.replace(SITUATION, rate=Rate(-2.0, -2.5, -1.5, "epoch"))
    assert outlook.outlook(state, situation, 0.12).startswith(words)


def test_evidence_is_plain_data() -> None:
    found = evidence_of(SITUATION, Cause("lr_cut", "", {"cut_step": 500}))
    assert json.loads(json.dumps(found)) == found
    assert (found["level"], found["range"], found["cut_step"]) == (0.41, [0.08, 0.20], 500)


def test_unknown_component_gets_advice_without_a_head() -> None:
    text = advice.stalled(dataclasses.replace(SITUATION, component="loss_depth", range=None))
    assert "a parameter group of its own" in text
    assert "typical" not in text


def test_flat_run_says_that_nothing_else_improves() -> None:
    assert "no other component improves either" in advice.flat(dataclasses.replace(SITUATION, improving=[]))


def test_flat_alone_says_that_there_is_nothing_to_compare_with() -> None:
    assert "no other component to compare with" in advice.flat(dataclasses.replace(SITUATION, improving=[], others=0))


def test_epochs_are_called_epochs() -> None:
    assert "since about epoch 700" in advice.stalled(dataclasses.replace(SITUATION, axis="epoch"))


@pytest.mark.parametrize(
    ("ratio", "words"),
    [(0.25, "gradient accumulation over 4"), (8.0, "world size"), (1.37, "A weight seems to be applied")],
)
def test_constant_factor_says_what_it_looks_like(ratio: float, words: str) -> None:
    assert words in advice.sum_factor(ratio, 1.0, ratio)


def test_forecast_follows_the_rate() -> None:
    likely, best = advice.forecast(1.0, 0.001, 0.002, 100)
    assert likely == pytest.approx(0.9048, rel=1e-3)
    assert best == pytest.approx(0.7408, rel=1e-3)


@pytest.mark.parametrize("state", advice.TITLES)
def test_every_title_names_its_component(state: str) -> None:
    assert "loss_x" in advice.title(state, "loss_x")
