"""Which tags a run has in TensorBoard, at which x, with which values."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

COCO = {"bbox": {"AP": 0.5, "AP50": 0.7, "classes": {"cat": 0.4}}, "segm": {"AP": 0.3}}


def test_epoch_means_stand_at_their_epoch(drive, points):
    run = drive()
    run.start()
    run.epoch(1)
    run.epoch(2)
    run.end()
    assert points("loss/train_loss_mask") == [(1, 1.0), (2, 2.0)]


def test_epoch_tags_of_a_dict(drive, tags):
    run = drive()
    run.epoch(1, {"a": 1.0, "b": 2.0}, val_loss={"a": 1.0, "b": 1.5}, lr={"backbone": 0.1, "heads": 1.0})
    run.end()
    assert tags() == {
        "loss/train_a", "loss/train_b", "loss/train_total", "loss/val_a", "loss/val_b", "loss/val",
        "lr", "lr_group/backbone", "lr_group/heads",
    }  # fmt: skip


def test_a_scalar_loss_gives_one_training_tag(drive, tags):
    run = drive()
    run.epoch(1, 0.5, lr=None)
    run.end()
    assert tags() == {"loss/train"}


def test_total_is_the_sum(drive, points):
    run = drive()
    run.epoch(1, {"a": 0.1, "b": 0.2, "c": 0.3})
    run.end()
    total = points("loss/train_total")[0][1]
    assert total == pytest.approx(sum(points(f"loss/train_{name}")[0][1] for name in "abc"), rel=1e-6)


@pytest.mark.parametrize("value", [0.5, torch.tensor(0.5, requires_grad=True), np.float32(0.5), np.float64(0.5)])
def test_hooks_called_directly_take_any_scalar(drive, points, value):
    run = drive()
    run.batch(0, value)
    run.epoch(1, value)
    run.end()
    assert points("batch/train", "batch") + points("loss/train") == [(0, 0.5), (1, 0.5)]


@pytest.mark.parametrize("value", [0.5, torch.tensor(0.5), np.float64(0.5)])
def test_hooks_called_directly_take_dicts_of_any_scalar(drive, points, value):
    run = drive()
    run.batch(7, {"a": value, "b": value})
    run.end()
    assert points("batch/train_total", "batch") == [(7, 1.0)]


def test_batches_stand_in_the_sub_run(drive, tags):
    run = drive()
    run.batch(0)
    run.end()
    assert tags("batch") == {"batch/train_loss_mask", "batch/train_loss_box_reg", "batch/train_total", "batch/lr"}


def test_a_step_is_one_event(drive, tmp_path):
    from losslog_tensorboard.tfrecord import event_files, read

    run = drive()
    run.batch(0)
    run.batch(1)
    run.end()
    (path,) = event_files(tmp_path / "tensorboard" / "batch")
    assert len(list(read(path))) == 1 + 2


def test_evaluations(drive, points, tags):
    run = drive()
    run.eval(3, COCO)
    run.eval(3, {"bbox": {"AP": 0.4}}, split="test")
    run.eval(3, {"accuracy": 0.9})
    run.end()
    assert tags() == {
        "mAP/bbox_AP",
        "mAP/bbox_AP50",
        "mAP_class/bbox_cat",
        "mAP/segm_AP",
        "mAP_test/bbox_AP",
        "eval/accuracy",
    }
    assert points("mAP/segm_AP") == [(3, pytest.approx(0.3))]


def test_metrics_with_a_step_stand_beside_the_batches(drive, points):
    run = drive()
    run.metrics({"images/s": 12.5}, step=40)
    run.end()
    assert points("images/s", "batch") == [(40, 12.5)]


def test_metrics_with_an_epoch_stand_beside_the_epochs(drive, points):
    run = drive()
    run.metrics({"memory": 2}, epoch=4)
    run.end()
    assert points("memory") == [(4, 2.0)]


def test_values_that_are_not_finite_are_kept(drive, points):
    run = drive()
    run.batch(0, math.nan)
    run.batch(1, math.inf)
    run.batch(2, -math.inf)
    run.end()
    assert [str(value) for _, value in points("batch/train", "batch")] == ["nan", "inf", "-inf"]


def test_large_steps(drive, points):
    run = drive()
    run.batch(2**41, 1.0)
    run.end()
    assert points("batch/train", "batch") == [(2**41, 1.0)]


def test_a_fraction_of_a_step_is_refused(drive):
    with pytest.raises(ValueError, match=r"step=1\.5"):
        drive().batch(1.5)


def test_many_batches_are_all_there(drive, points):
    run = drive()
    for step in range(3000):
        run.batch(step, 0.5)
    run.end()
    assert [step for step, _ in points("batch/train", "batch")] == list(range(3000))


def test_points_carry_the_time_of_their_record(drive, accumulate):
    run = drive()
    run.batch(0, 0.5, time=1234.5)
    run.end()
    assert accumulate("batch").Scalars("batch/train")[0].wall_time == 1234.5


def test_a_late_evaluation_does_not_cut_the_series_off(drive, points, caplog):
    run = drive()
    run.eval(2, {"accuracy": 0.2})
    run.eval(1, {"accuracy": 0.1})
    run.end()
    assert points("eval/accuracy") == [(2, pytest.approx(0.2))]
    assert "eval/accuracy" in caplog.text
