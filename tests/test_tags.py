"""The names of the series: the users' own convention, kept exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from losslog.tags import SCALAR_HOOKS, batch_series, epoch_series, eval_series, lr_series, points_of, scalars

torch = pytest.importorskip("torch")

COCO_METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


def test_a_dict_of_losses() -> None:
    assert scalars("loss/train", {"loss_mask": 1.0, "loss_box_reg": 2.0}) == {
        "loss/train_loss_mask": 1.0,
        "loss/train_loss_box_reg": 2.0,
        "loss/train_total": 3.0,
    }


@pytest.mark.parametrize("value", [0.5, torch.tensor(0.5), np.float32(0.5), np.array(0.5)], ids=type)
def test_a_scalar_loss_has_one_series(value: Any) -> None:
    assert scalars("loss/train", value) == {"loss/train": 0.5}


def test_a_dict_of_validation_losses_has_its_total_under_the_bare_name() -> None:
    assert scalars("loss/val", {"a": 1, "b": 2}) == {"loss/val_a": 1.0, "loss/val_b": 2.0, "loss/val": 3.0}


def test_a_total_given_is_kept() -> None:
    assert scalars("loss/train", {"a": 1}, torch.tensor(7.0))["loss/train_total"] == 7.0


@pytest.mark.parametrize(
    ("lr", "expected"),
    [
        (None, {}),
        (0.1, {"lr": 0.1}),
        ({"only": 0.1}, {"lr": 0.1}),
        ({}, {}),
        ({"backbone": 0.1, "head": 1.0}, {"lr": 0.1, "lr_group/backbone": 0.1, "lr_group/head": 1.0}),
    ],
)
def test_learning_rates(lr: Any, expected: dict[str, float]) -> None:
    assert lr_series(lr) == expected


def test_an_epoch() -> None:
    assert epoch_series({"a": 1.0}, 1.0, 2.0, 0.1) == {
        "loss/train_a": 1.0, "loss/train_total": 1.0, "loss/val": 2.0, "lr": 0.1,
    }  # fmt: skip


def test_an_epoch_without_batches() -> None:
    assert epoch_series(None, None, 2.0, None) == {"loss/val": 2.0}


def test_a_batch_shares_no_tag_with_an_epoch() -> None:
    losses, lr = {"a": 1.0, "b": 2.0}, {"x": 0.1, "y": 0.2}
    batch = batch_series(losses, None, lr)
    assert batch == {
        "batch/train_a": 1.0, "batch/train_b": 2.0, "batch/train_total": 3.0, "batch/lr": 0.1,
        "batch/lr_group/x": 0.1, "batch/lr_group/y": 0.2,
    }  # fmt: skip
    assert not set(batch) & set(epoch_series(losses, None, losses, lr))


def test_coco_results() -> None:
    numbers = {name: float(place) for place, name in enumerate(COCO_METRICS)}
    series = eval_series({"bbox": numbers, "segm": {"AP": 0.5}})
    assert series == {f"mAP/bbox_{name}": value for name, value in numbers.items()} | {"mAP/segm_AP": 0.5}


def test_results_by_class() -> None:
    assert eval_series({"bbox": {"AP": 0.1, "classes": {"cat": 0.2}}})["mAP_class/bbox_cat"] == 0.2


def test_flat_metrics() -> None:
    assert eval_series({"accuracy": np.float32(0.5)}) == {"eval/accuracy": 0.5}


def test_another_split() -> None:
    found = eval_series({"bbox": {"AP": 0.1, "classes": {"cat": 0.2}}, "f1": 0.3}, "test")
    assert set(found) == {"mAP_test/bbox_AP", "mAP_class_test/bbox_cat", "eval_test/f1"}


def test_a_value_that_is_no_number_is_named() -> None:
    with pytest.raises(TypeError, match=r"metrics\['bbox'\]\['AP'\]"):
        eval_series({"bbox": {"AP": "0.5"}})


@pytest.mark.parametrize(
    ("hook", "data", "place"),
    [
        ("on_batch_losses", {"step": 7, "epoch": 2, "losses": 0.5}, ("step", 7)),
        ("on_epoch_end", {"epoch": 2, "step": 7, "losses": 0.5}, ("epoch", 2)),
        ("on_eval", {"epoch": 2, "step": 7, "metrics": {"a": 1.0}}, ("epoch", 2)),
        ("on_metrics", {"step": 7, "epoch": None, "metrics": {"a": 1.0}}, ("step", 7)),
        ("on_metrics", {"step": None, "epoch": 2, "metrics": {"a": 1.0}}, ("epoch", 2)),
        ("on_metrics", {"step": 7, "epoch": 2, "metrics": {"a": 1.0}}, ("step", 7)),
        ("on_metrics", {"step": None, "epoch": None, "metrics": {"a": 1.0}}, ("step", 0)),
        ("on_metrics", {"metrics": {"a": 1.0}}, ("step", 0)),
        ("on_eval", {"epoch": None, "metrics": {"a": 1.0}}, ("epoch", 0)),
        ("on_epoch_end", {"losses": 0.5}, ("epoch", 0)),
        ("on_batch_losses", {"step": np.int64(7), "losses": 0.5}, ("step", 7)),
    ],
)
def test_where_a_record_stands(hook: str, data: dict[str, Any], place: tuple[str, int]) -> None:
    found = points_of(hook, data)
    assert found is not None
    assert (found.axis, found.x) == place
    assert type(found.x) is int
    assert found.series


@pytest.mark.parametrize("x", [1.5, True, float("nan"), "3"])
def test_x_is_a_whole_number(x: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        points_of("on_metrics", {"step": x, "metrics": {"a": 1.0}})


def test_every_hook_with_numbers_has_points_and_no_other_has() -> None:
    from losslog.hookspecs import HOOKS

    data = {"losses": 0.5, "metrics": {"a": 1.0}}
    assert {hook for hook in HOOKS if points_of(hook, data) is not None} == set(SCALAR_HOOKS)


def test_metrics_are_floats_under_their_own_tags() -> None:
    found = points_of("on_metrics", {"step": 1, "metrics": {"a": np.float32(0.5), "b/c": torch.tensor(2.0), "n": 3}})
    assert found is not None
    assert found.series == {"a": 0.5, "b/c": 2.0, "n": 3.0}
    assert {type(value) for value in found.series.values()} == {float}


@pytest.mark.parametrize("value", [True, "3", None])
def test_a_metric_that_is_no_number_is_named(value: Any) -> None:
    with pytest.raises(TypeError, match=r"metrics\['a'\]"):
        points_of("on_metrics", {"step": 1, "metrics": {"a": value}})


def test_weights_of_an_epoch_have_tags_of_their_own() -> None:
    data = {"epoch": 2, "losses": {"a": 1.0, "b": 2.0}, "total": 11.0, "weights": {"b": 5.0}}
    found = points_of("on_epoch_end", data)
    assert found is not None
    assert found.series == {"loss/train_a": 1.0, "loss/train_b": 2.0, "loss/train_total": 11.0, "weight/b": 5.0}
