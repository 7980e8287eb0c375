"""What counts of a run's past, after a resume."""

from __future__ import annotations

from pathlib import Path

import pytest

import losslog
from losslog import history


@pytest.fixture
def resumed(tmp_path: Path) -> Path:
    """Three epochs of four steps, then again from the checkpoint of epoch 2, with other losses."""
    run = losslog.Run("r", dir=tmp_path, plugins=None)
    for _ in range(3):
        for _ in range(4):
            run.log_batch({"a": 1.0, "b": 1.0})
        run.log_eval({"bbox": {"AP": 0.1}})
        run.end_epoch()
    run.close()
    again = losslog.Run(dir=tmp_path, plugins=None, resume=run.id, resume_epoch=2, resume_step=7)
    for _ in range(4):
        again.log_batch({"a": 5.0, "b": 5.0})
    again.log_eval({"bbox": {"AP": 0.9}})
    again.end_epoch()
    again.close()
    return run.dir


def test_one_value_per_series_and_step(resumed: Path) -> None:
    assert history.series(resumed)["batch/train_a"] == {
        **dict.fromkeys(range(8), 1.0),
        **dict.fromkeys(range(8, 12), 5.0),
    }


def test_epoch_series_follow_the_resume(resumed: Path) -> None:
    found = history.series(resumed)
    assert found["loss/train_total"] == {1: 2.0, 2: 2.0, 3: 10.0}
    assert found["mAP/bbox_AP"] == {1: 0.1, 2: 0.1, 3: 0.9}


def test_what_was_superseded_can_still_be_had(resumed: Path) -> None:
    old = list(history.records(resumed, superseded=True))
    assert [each.data["step"] for each in old if each.hook == "on_batch_losses"] == [8, 9, 10, 11]
    assert [each.data["epoch"] for each in old if each.hook == "on_epoch_end"] == [3]


def test_the_journal_itself_keeps_everything(resumed: Path) -> None:
    count = len(list(history.records(resumed))) + len(list(history.records(resumed, superseded=True)))
    assert count == len((resumed / "journal.jsonl").read_text().splitlines())
