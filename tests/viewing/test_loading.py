"""``losslog.load``: a run as Python sees it afterwards."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import losslog


@pytest.fixture
def run(make_run: Callable[..., losslog.Run]) -> losslog.Run:
    run = make_run(name="exp", config={"lr": 0.1, "api_key": "x"}, epochs=2)
    for epoch in (1, 2):
        for step in range(3):
            run.log_batch({"loss_mask": 1.0 * epoch, "loss_box": float(step)}, lr=0.1)
        run.log_eval({"bbox": {"AP": 0.5 / epoch}})
        run.end_epoch(val_loss=2.0)
    run.alert("look here", component="loss_mask")
    run.close()
    return run


def test_it_is_found_as_everywhere(run: losslog.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOSSLOG_DIR", str(tmp_path / "runs"))
    for said in (run.dir, run.id, "exp", "latest", "exp/latest"):
        assert losslog.load(said).id == run.id
    assert losslog.load().id == run.id
    assert losslog.load("exp", tmp_path / "runs").folder == run.dir


def test_what_it_was_and_came_to(run: losslog.Run) -> None:
    found = losslog.load(run.dir)
    assert (found.name, found.status) == ("exp", "finished")
    assert found.config == {"lr": 0.1, "api_key": "[redacted]"}
    assert found.best == {"mAP/bbox_AP": (0.5, 1)}
    assert [(each["title"], each["component"]) for each in found.alerts] == [("look here", "loss_mask")]
    assert repr(found) == f"<LoadedRun exp {run.id} finished>"


def test_losses_by_step_and_by_epoch(run: losslog.Run) -> None:
    found = losslog.load(run.dir)
    assert found.losses("loss_mask") == {0: 1.0, 1: 1.0, 2: 1.0, 3: 2.0, 4: 2.0, 5: 2.0}
    assert found.losses("loss_mask", by="epoch") == {1: 1.0, 2: 2.0}
    assert found.losses(by="epoch") == {1: 2.0, 2: 3.0}
    with pytest.raises(KeyError) as caught:
        found.losses("loss_msk")
    assert caught.value.args[0] == (
        "no component 'loss_msk' (did you mean 'loss_mask'?); there are loss_mask, loss_box, total"
    )


def test_a_scalar_loss_is_the_total(make_run: Callable[..., losslog.Run]) -> None:
    run = make_run()
    run.log_batch(0.5)
    run.close()
    assert losslog.load(run.dir).losses() == {0: 0.5}


def test_frames(run: losslog.Run) -> None:
    pandas = pytest.importorskip("pandas")
    epochs, steps = losslog.load(run.dir).frame(), losslog.load(run.dir).frame("step")
    assert isinstance(epochs, pandas.DataFrame)
    assert list(epochs.index) == [1, 2]
    assert {"loss/train_loss_mask", "loss/train_total", "loss/val", "mAP/bbox_AP", "lr"} <= set(epochs.columns)
    assert list(steps["batch/train_total"]) == [1.0, 2.0, 3.0, 2.0, 3.0, 4.0]
    assert (epochs.index.name, steps.index.name) == ("epoch", "step")


def test_without_pandas_the_fix_is_said(run: losslog.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(losslog.LosslogError, match="pip install pandas"):
        losslog.load(run.dir).frame()


def test_a_live_run_and_what_a_resume_superseded(make_run: Any) -> None:
    run = make_run()
    for value in (1.0, 2.0, 3.0):
        run.log_batch({"a": value})
    run.flush()
    assert losslog.load(run.dir).status == "running"
    run.close()
    again = make_run(resume=run.dir, resume_step=0)
    again.log_batch({"a": 5.0})
    again.close()
    assert losslog.load(run.dir).losses("a") == {0: 1.0, 1: 5.0}


@pytest.mark.parametrize(
    ("by", "near"), [("epok", " (did you mean 'epoch'?)"), ("steps", " (did you mean 'step'?)"), ("x", ""), (None, "")]
)
def test_a_misspelt_axis_is_an_error(run: losslog.Run, by: Any, near: str) -> None:
    found = losslog.load(run.dir)
    for look in (lambda: found.losses("loss_mask", by=by), lambda: found.losses(by=by), lambda: found.frame(by)):
        with pytest.raises(ValueError, match="by=") as caught:
            look()
        assert str(caught.value) == f"by={by!r}{near}; there is step and epoch"
