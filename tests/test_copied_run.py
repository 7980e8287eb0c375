"""Copies and pickles of a run: of a model, a data set or a trainer that keeps one."""

from __future__ import annotations

import copy
import json
import multiprocessing
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

import losslog


@pytest.fixture
def run(tmp_path: Path) -> Any:
    with losslog.Run("kept", tmp_path, {"lr": 0.1}, plugins=None) as found:
        yield found


def use(run: Any) -> None:
    """Everything a loop may call."""
    run.log_batch({"a": 1.0}, lr=0.1)
    run.log_eval({"bbox": {"AP": 0.5}})
    run.log_metrics({"x": 1.0})
    run.log_checkpoint("x.pt")
    run.alert("look")
    run.end_epoch(val_loss=0.5)
    run.request_stop("enough")
    run.request_lr(0.1)
    run.register(Quiet())
    assert run.should_stop in (False, True)
    assert run.flush()
    assert run.stats["steps"] == 0
    run.close()


class Quiet:
    """A plugin of the script."""

    @losslog.hookimpl
    def on_epoch_end(self, epoch: int) -> None:
        raise AssertionError("a copy is silent")


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, lambda run: pickle.loads(pickle.dumps(run))])
def test_a_copy_is_a_silent_handle(run: losslog.Run, how: Any, capfd: Any) -> None:
    made = how(run)
    assert isinstance(made, losslog.Run)
    assert made is not run
    assert (made.name, made.id, made.dir, made.config) == (run.name, run.id, run.dir, run.config)
    use(made)
    run.log_batch({"a": 2.0})
    run.close()
    records = [json.loads(line) for line in (run.dir / "journal.jsonl").read_text().splitlines()]
    assert [each["hook"] for each in records] == ["on_run_start", "on_batch_losses", "on_run_end"]


class Net(torch.nn.Module):
    """Keeps its run."""

    def __init__(self, run: Any) -> None:
        super().__init__()
        self.layer, self.run = torch.nn.Linear(2, 1), run


def test_a_model_that_keeps_its_run_is_copied_averaged_and_saved(run: losslog.Run, tmp_path: Path) -> None:
    model = Net(run)
    assert copy.deepcopy(model).run.id == run.id
    torch.optim.swa_utils.AveragedModel(model)
    torch.save(model, tmp_path / "model.pt")
    assert torch.load(tmp_path / "model.pt", weights_only=False).run.name == "kept"


class Items(torch.utils.data.Dataset):
    """A data set that keeps a run."""

    def __init__(self, run: Any) -> None:
        self.run = run

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> int:
        self.run.log_batch(1.0)
        return index


def test_a_data_set_that_keeps_its_run_goes_to_spawned_workers(run: losslog.Run) -> None:
    loader = torch.utils.data.DataLoader(
        Items(run), num_workers=1, multiprocessing_context=multiprocessing.get_context("spawn")
    )
    assert [int(each) for each in loader] == [0, 1]
    assert run.stats["steps"] == 0
