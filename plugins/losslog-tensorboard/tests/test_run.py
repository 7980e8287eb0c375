"""A whole run through losslog's core: lanes, follower, resume."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import losslog


def _train(run: losslog.Run, epochs: range, steps: int = 20) -> None:
    for epoch in epochs:
        for _ in range(steps):
            run.log_batch({"a": float(epoch), "b": 1.0}, lr=0.1, epoch=epoch)
        run.log_eval({"bbox": {"AP": 0.1 * epoch}}, epoch=epoch)
        run.end_epoch(epoch, val_loss=0.5)
    run.close()


def _folder(tmp_path: Path) -> Path:
    (folder,) = (tmp_path / "runs" / "demo").iterdir()
    return folder


@pytest.mark.parametrize("follower", [True, False], ids=["far", "near"])
def test_a_run_has_all_its_series(tmp_path, accumulate, follower):
    run = losslog.Run("demo", dir=tmp_path / "runs", plugins=["tensorboard"], follower=follower)
    _train(run, range(1, 4))
    shutil.copytree(_folder(tmp_path) / "tensorboard", tmp_path / "tensorboard")
    assert set(accumulate().Tags()["scalars"]) == {
        "loss/train_a", "loss/train_b", "loss/train_total", "loss/val", "lr", "mAP/bbox_AP",
    }  # fmt: skip
    assert [point.step for point in accumulate("batch").Scalars("batch/train_total")] == list(range(60))


def test_a_resumed_run_continues_its_series(tmp_path, accumulate):
    _train(losslog.Run("demo", dir=tmp_path / "runs", plugins=["tensorboard"]), range(1, 4))
    folder = _folder(tmp_path)
    again = losslog.Run(
        "demo", dir=tmp_path / "runs", plugins=["tensorboard"], resume=folder, resume_epoch=2, resume_step=39
    )
    _train(again, range(3, 5))
    shutil.copytree(folder / "tensorboard", tmp_path / "tensorboard")
    assert [point.step for point in accumulate().Scalars("loss/train_total")] == [1, 2, 3, 4]
    assert [point.step for point in accumulate("batch").Scalars("batch/train_total")] == list(range(80))


def test_replay_brings_removed_files_back(tmp_path, accumulate):
    _train(losslog.Run("demo", dir=tmp_path / "runs", plugins=["tensorboard"]), range(1, 4))
    folder = _folder(tmp_path)
    shutil.rmtree(folder / "tensorboard")
    command = [sys.executable, "-m", "losslog", "replay", str(folder), "--to", "tensorboard"]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    shutil.copytree(folder / "tensorboard", tmp_path / "tensorboard")
    assert [point.step for point in accumulate("batch").Scalars("batch/train_total")] == list(range(60))
