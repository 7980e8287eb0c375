from __future__ import annotations

import math
import random
from typing import Any

import pytest

from losslog.runtime.notices import Once
from losslog.values.means import mean_of, weighted
from losslog.values.totals import EpochMeans, Totals, Whole, agree, told, total_name, total_of


@pytest.mark.parametrize(
    ("losses", "weights", "found"),
    [
        ({"a": 1.0}, {"a": 3.0}, {"a": 1.0}),  # a part of what is trained
        ({"a": 1.0, "b": 2.0}, {"b": 3.0}, {"a": 1.0, "b": 2.0, "total": 7.0}),
        ({"a": 1.0, "loss": 2.0}, {"a": 3.0}, {"a": 1.0, "loss": 2.0}),
        ({"a": 1.0}, None, {"a": 1.0}),
        (2.0, {"a": 3.0}, 2.0),
        (None, {"a": 3.0}, None),
    ],
)
def test_a_validation_is_weighed_as_training_is(losses: Any, weights: Any, found: Any) -> None:
    assert weighted(losses, weights, {"a": 9.0, "b": 9.0}) == found
    assert weighted(losses, weights, 9.0) == losses


def test_no_batches_no_means() -> None:
    assert EpochMeans().result() == (None, None)


def test_a_component_is_averaged_over_the_batches_that_had_it() -> None:
    means = EpochMeans()
    means.add(Whole({"a": 1.0, "b": 4.0}, 5.0, False))
    means.add(Whole({"a": 3.0}, 3.0, False))
    assert means.result() == ({"a": 2.0, "b": 4.0}, 6.0)


def test_scalars() -> None:
    means = EpochMeans()
    for value in (1.0, 2.0, 6.0):
        means.add(Whole(value, value, False))
    assert means.result() == (3.0, 3.0)


def test_a_total_that_was_given_is_averaged_itself() -> None:
    means = EpochMeans()
    means.add(Whole({"a": 1.0}, 10.0, True))
    means.add(Whole({"a": 1.0}, 20.0, True))
    assert means.result() == ({"a": 1.0}, 15.0)


def test_accumulated_batches_count_each_of_their_passes() -> None:
    means = EpochMeans()
    means.add(Whole({"a": 1.0}, 1.0, False), 3)
    means.add(Whole({"a": 5.0}, 5.0, False))
    assert means.result() == ({"a": 2.0}, 2.0)


def test_where_both_kinds_mix_the_dict_counts() -> None:
    means = EpochMeans()
    means.add(Whole({"a": 1.0}, 1.0, False))
    assert not means.mixed
    means.add(Whole(9.0, 9.0, False))
    assert means.mixed
    assert means.result()[0] == {"a": 1.0}


def test_the_mean_is_that_of_a_hand_written_loop() -> None:
    values = [random.Random(4).random() for _ in range(20_000)]
    means, total = EpochMeans(), 0.0
    for value in values:
        means.add(Whole({"a": value}, value, False))
        total += value
    assert means.result() == ({"a": total / len(values)}, total / len(values))


def test_nan_is_not_hidden() -> None:
    means = EpochMeans()
    means.add(Whole({"a": math.nan}, math.nan, False))
    means.add(Whole({"a": 1.0}, 1.0, False))
    losses, total = means.result()
    assert isinstance(losses, dict)
    assert math.isnan(losses["a"])
    assert total is not None
    assert math.isnan(total)


@pytest.mark.parametrize(("losses", "total", "expected"), [({"a": 1.0, "b": 2.0}, None, 3.0), (4.0, None, 4.0),
                                                           ({"a": 1.0}, 9.0, 9.0),
                                                           ({"a": 1.0, "loss": 5.0}, None, 5.0)])  # fmt: skip
def test_totals(losses: Any, total: float | None, expected: float) -> None:
    assert total_of(losses, total) == expected


@pytest.mark.parametrize(("names", "expected"), [
    (("a", "total", "loss"), "total"), (("a", "loss", "total_loss"), "total_loss"), (("loss", "b"), "loss"),
    (("a", "loss_total"), None), (("loss",), None), (("total",), None), ((), None),
])  # fmt: skip
def test_the_total_is_known_by_its_name_where_others_stand_beside_it(names: Any, expected: str | None) -> None:
    assert total_name(names) == expected


@pytest.mark.parametrize("name", ["total", "total_loss", "loss"])
def test_an_entry_that_is_the_total_is_no_component(name: str, caplog: pytest.LogCaptureFixture) -> None:
    totals, losses = Totals(Once()), {"a": 1.0, name: 3.001, "b": 2.0}
    for _ in range(2):
        assert totals.whole(losses) == ({"a": 1.0, "b": 2.0}, 3.001, True)
    assert losses == {"a": 1.0, name: 3.001, "b": 2.0}
    assert caplog.text.count("is the sum of the others") == 1


def test_a_total_by_name_that_is_not_the_sum_is_said_with_both_figures(caplog: pytest.LogCaptureFixture) -> None:
    totals = Totals(Once())
    assert totals.whole({"loss": 1.424, "a": 1.0, "b": 0.25}) == ({"a": 1.0, "b": 0.25}, 1.424, True)
    totals.whole({"loss": 9.0, "a": 1.0, "b": 0.25})
    assert caplog.text.count("losses['loss'] is 1.424, and the others add up to 1.25") == 1


def test_what_is_given_as_the_total_beats_an_entry(caplog: pytest.LogCaptureFixture) -> None:
    assert Totals(Once()).whole({"loss": 3.0, "a": 1.0}, 7.0) == ({"a": 1.0}, 7.0, True)
    assert "the total given (7) is not the sum of the components (1)" in caplog.text


@pytest.mark.parametrize(("losses", "total", "expected"), [
    (2.0, None, (2.0, 2.0, False)), (2.0, 4.0, (2.0, 4.0, True)),
    ({"a": 1.0, "b": 2.0}, None, ({"a": 1.0, "b": 2.0}, 3.0, False)),
    ({"total": 2.0}, None, ({"total": 2.0}, 2.0, False)), ({"loss": 2.0}, 3.0, ({"loss": 2.0}, 3.0, True)),
])  # fmt: skip
def test_where_no_name_says_it(losses: Any, total: float | None, expected: Any) -> None:
    assert Totals(Once()).whole(losses, total) == expected


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [(1.0, 1.0005, True), (1.0, 1.002, False), (0.0, 0.0, True), (math.nan, math.nan, True), (math.inf, 1.0, False)],
)
def test_when_totals_agree(a: float, b: float, same: bool) -> None:
    assert agree(a, b) is same


@pytest.mark.parametrize(("several", "expected"), [
    ([1.0, 3.0], 2.0), ([{"a": 1.0}, {"a": 3.0, "b": 5.0}], {"a": 2.0, "b": 5.0}), ([{"a": 1.0}, 9.0], {"a": 1.0}),
])  # fmt: skip
def test_the_mean_of_losses(several: Any, expected: Any) -> None:
    assert mean_of(several) == expected


def test_where_autograd_told_names_say_nothing() -> None:
    assert told({"loss": 1.0, "aux": 2.0}, 1.8) == ({"loss": 1.0, "aux": 2.0}, 1.8, True)
    assert told({"loss": 1.0, "aux": 2.0}, None) == ({"loss": 1.0, "aux": 2.0}, 3.0, False)


def test_weights_of_an_epoch_are_means_over_the_batches_that_had_the_component() -> None:
    means = EpochMeans()
    means.add(Whole({"a": 1.0, "b": 1.0}, 3.0, True), weights={"b": 2.0})
    means.add(Whole({"a": 1.0, "b": 1.0}, 2.0, True))
    means.add(Whole({"a": 1.0}, 1.0, True))
    assert means.weights() == {"b": 1.5}
    other = EpochMeans()
    other.merge(means.sums())
    assert other.weights() == {"b": 1.5}
    assert EpochMeans().weights() is None


@pytest.mark.parametrize("name", ["acc", "accuracy", "error", "iou", "lr", "grad_norm", "top1_acc", "Accuracy"])
def test_names_that_say_metric_stand_beside_losses(name: str) -> None:
    totals = Totals(Once())
    assert totals.apart({"loss_cls": 0.3, name: 98.4}) == ({"loss_cls": 0.3}, {name: 98.4})
    assert totals.apart({name: 98.4}) == ({name: 98.4}, {})
    claimed = Totals(Once(), [name])
    assert claimed.apart({"loss_cls": 0.3, name: 98.4}) == ({"loss_cls": 0.3, name: 98.4}, {})


@pytest.mark.parametrize("name", ["iou_loss", "loss_iou", "dice", "error_of_pose", "objectness"])
def test_names_that_do_not_say_it_are_losses(name: str) -> None:
    assert Totals(Once()).apart({"loss_cls": 0.3, name: 0.4}) == ({"loss_cls": 0.3, name: 0.4}, {})


@pytest.mark.parametrize(
    ("passes", "weights", "once"),
    [
        ([1, 1], {"b": 2.0}, {"b": 2.0}),
        ([4, 4], {"a": 4.0, "b": 8.0}, {"b": 2.0}),  # nothing was divided
        ([2, 2], {"b": 2.0}, {"b": 2.0}),  # (a + 2 b) / 2
        ([4, 4], {"b": 8.0}, {"b": 8.0}),
        ([3, 3], {"a": 3.0, "b": 3.0}, {}),
    ],
)
def test_the_weights_of_one_pass(passes: list[int], weights: dict[str, float], once: dict[str, float]) -> None:
    means, others = EpochMeans(), EpochMeans()
    for n in passes:
        means.add(Whole({"a": 1.0, "b": 4.0}, 5.0, True), n, weights)
    others.merge(means.sums())
    assert others.weights_of_a_pass() == means.weights_of_a_pass() == pytest.approx(once)
    assert means.weights() == pytest.approx(weights)


def test_the_weights_of_one_pass_where_more_and_more_passes_add_up() -> None:
    means = EpochMeans()
    for n in (1, 2, 4):
        means.add(Whole({"a": 1.0, "b": 4.0}, 5.0, True), n, {"a": n, "b": 3.0 * n} if n > 1 else {"b": 3.0})
    assert means.weights_of_a_pass() == pytest.approx({"b": 3.0})


def test_a_rest_of_accumulation_weighs_no_validation() -> None:
    means, others = EpochMeans(), EpochMeans()
    for n in (4, 4, 2):  # each pass is divided by four
        means.add(Whole({"a": 1.0, "b": 4.0}, 5.0, True), n, {"a": n / 4, "b": 2.0 * n / 4})
    others.add(Whole({"a": 1.0, "b": 4.0}, 5.0, True), 2, {"a": 0.5})
    others.merge(means.sums())
    assert others.weights_of_a_pass() == means.weights_of_a_pass() == pytest.approx({"b": 2.0})
