"""Checkpoints that stay: the newest few, and the best."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from losslog.engine.keeping import Keeper

AP = "segm_AP"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def train(folder: Path, scores: list[Any], keep: int | None = None, best: str | None = None, first: int = 1) -> None:
    keeper = Keeper(folder, keep, best)
    for epoch, score in enumerate(scores, start=first):
        path = folder / f"epoch_{epoch:03d}.pth"
        path.write_text(str(epoch))
        metrics = {} if score is None else {"segm": {"AP": score, "AP50": 0.9}, "bbox": {"AP": 0.1}}
        keeper.saved(path, epoch, metrics, None if score is None else {"a": score, "b": 1.0})


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir() if each.suffix == ".pth")


def test_all_of_them_stay_unless_it_is_said(folder: Path) -> None:
    train(folder, [0.1, 0.2, 0.3])
    assert names(folder) == ["epoch_001.pth", "epoch_002.pth", "epoch_003.pth"]


def test_the_newest_stay(folder: Path) -> None:
    (folder / "mine.pth").touch()
    train(folder, [0.1] * 11, keep=2)
    assert names(folder) == ["epoch_010.pth", "epoch_011.pth", "mine.pth"]


def test_the_best_stays_whatever_becomes_of_its_epoch(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "losslog")
    train(folder, [0.1, 0.3, 0.2, None, 0.3], keep=1, best=AP)
    assert names(folder) == ["best.pth", "epoch_005.pth"]
    assert (folder / "best.pth").read_text() == "2"
    assert json.loads((folder / "best.json").read_text()) == {"metric": AP, "value": 0.3, "epoch": 2}
    assert caplog.messages[-1] == f"best segm_AP so far, 0.3000 in epoch 2: {folder / 'best.pth'}"


def test_of_the_validation_loss_the_lowest_is_the_best(folder: Path) -> None:
    train(folder, [0.3, 0.1, 0.2, float("nan")], best="val_loss")
    assert (folder / "best.pth").read_text() == "2"


def test_a_resumed_run_knows_what_is_to_beat(folder: Path) -> None:
    train(folder, [0.1, 0.5], best=AP)
    train(folder, [0.4], best=AP, first=3)
    assert (folder / "best.pth").read_text() == "2"
    train(folder, [0.6], best=AP, first=4)
    assert (folder / "best.pth").read_text() == "4"


def test_a_metric_that_there_is_not_is_said_once(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(folder, [0.1, 0.2], best="segm_ap50")
    assert caplog.messages == [
        "best: no metric 'segm_ap50' (did you mean 'segm_AP50'?); there are bbox_AP, segm_AP, segm_AP50, val_loss "
        "(said once)"
    ]


def test_a_disk_that_refuses_is_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    train(folder, [0.1], best=AP)
    assert caplog.messages == [f"checkpoints in {folder}: OSError: [Errno 28] No space left on device"]


def test_keeping_none_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="keep is at least 1"):
        Keeper(folder, 0, None)
