from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from losslog.engine import (
    CheckpointError,
    checkpoint_path,
    find_checkpoint,
    read_checkpoint,
    restore_checkpoint,
    rng_state,
    save_checkpoint,
    set_rng_state,
)

FullDisk = Callable[[int], AbstractContextManager[None]]


def save(path: Path, model: nn.Module, **states: Any) -> Path:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return save_checkpoint(path, model=model, optimizer=optimizer, epoch=5, step=30, **states)


def test_names_have_three_digits_and_the_newest_is_found(tmp_path: Path, one_loss: nn.Module) -> None:
    assert checkpoint_path("run", 5) == Path("run/checkpoints/epoch_005.pth")
    for epoch in (5, 999, 1000):
        save(checkpoint_path(tmp_path, epoch), one_loss)
    (tmp_path / "checkpoints" / "best.pth").touch()
    assert find_checkpoint(tmp_path).name == "epoch_1000.pth"


def test_a_folder_without_checkpoints_is_said(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint checkpoints/epoch_\*\.pth in"):
        find_checkpoint(tmp_path)


def test_it_holds_what_it_says_and_loads_with_weights_only(tmp_path: Path, one_loss: nn.Module) -> None:
    optimizer = torch.optim.SGD([{"name": "all", "params": one_loss.parameters()}], lr=0.1)
    schedulers = [
        torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 4]),
        torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer),
        torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=9, cycle_momentum=False),
    ]
    for scheduler in schedulers:
        path = save_checkpoint(
            tmp_path / "a.pth",
            model=one_loss,
            optimizer=optimizer,
            scheduler=scheduler,
            scaler=torch.amp.GradScaler("cpu"),
            generator=torch.Generator(),
            epoch=5,
            step=30,
        )
        content = torch.load(path, weights_only=True)
        assert set(content) == {"model", "optimizer", "scheduler", "scaler", "epoch", "step", "rng"}
        assert (content["epoch"], content["step"]) == (5, 30)
        assert content["optimizer"]["param_groups"][0]["name"] == "all"


@pytest.mark.parametrize("room", [0, 3000, 100_000])
def test_a_full_disk_leaves_the_older_file_whole(tmp_path: Path, full_disk: FullDisk, room: int) -> None:
    big = nn.Linear(300, 300)
    path = save(tmp_path / "epoch_001.pth", big)
    before = path.read_bytes()
    with full_disk(room), pytest.raises(OSError, match="File too large") as caught:
        save(path, big)
    assert caught.value.errno == errno.EFBIG
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_the_file_appears_under_its_name_only_when_whole(
    tmp_path: Path, one_loss: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, seen = torch.save, []

    def watch(content: Any, file: Any) -> None:
        real(content, file)
        seen.extend(each.name for each in tmp_path.iterdir())

    monkeypatch.setattr(torch, "save", watch)
    save(tmp_path / "epoch_001.pth", one_loss)
    assert len(seen) == 1
    assert seen[0].endswith(".tmp")
    assert [each.name for each in tmp_path.iterdir()] == ["epoch_001.pth"]


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("code of the file was run",))


@pytest.mark.parametrize("content", [{"model": Trap()}, {"model": {}}, [1]])
def test_other_files_are_refused_and_run_no_code(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"a\.pth"):
        read_checkpoint(tmp_path / "a.pth")


@pytest.mark.parametrize("damage", [b"", b"not a zip file"])
def test_damaged_and_missing_files_are_named(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "a.pth").write_bytes(damage)
    with pytest.raises(CheckpointError, match=r"a\.pth cannot be read as a checkpoint"):
        read_checkpoint(tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"no checkpoint .*b\.pth"):
        read_checkpoint(tmp_path / "b.pth")


@pytest.mark.parametrize("link", [False, True])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_regular_file_is_not_opened(tmp_path: Path, kind: str, link: bool) -> None:
    path, place = tmp_path / "a.pth", tmp_path / ("b.pth" if link else "a.pth")
    if kind == "pipe":
        if not hasattr(os, "mkfifo"):
            pytest.skip("there are no pipes with names here")
        os.mkfifo(place)
    elif kind == "folder":
        place.mkdir()
    else:
        place = Path("/dev/zero")
        if not place.exists() or not link:
            pytest.skip("devices are reached by links alone")
    if link:
        path.symlink_to(place)
    with pytest.raises(CheckpointError, match=r"a\.pth cannot be read as a checkpoint: it is no regular file"):
        read_checkpoint(path)


def test_a_link_to_a_file_is_read(tmp_path: Path, one_loss: nn.Module) -> None:
    (tmp_path / "b.pth").symlink_to(save(tmp_path / "a.pth", one_loss))
    assert read_checkpoint(tmp_path / "b.pth")["epoch"] == 5


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"epoch": -3}, "its epoch is -3, not a whole number from 0 on"),
        ({"epoch": float("nan")}, "its epoch is nan, not a whole"),
        ({"epoch": True}, "its epoch is True, not a whole"),
        ({"epoch": 10**400}, "its epoch is 1000000000000000000000000000000000000000, not a whole"),
        ({"step": "x"}, "its step is 'x', not a whole"),
        ({"step": torch.ones(3)}, "its step is of the type Tensor, not a whole"),
        ({"model": 1}, "its model is 1, not a dict"),
        ({"optimizer": None}, "its optimizer is None, not a dict"),
        ({"optimizer": {"state": {}}}, "its optimizer has no groups of parameters with a rate"),
        ({"optimizer": {"param_groups": [1], "state": {}}}, "its optimizer has no groups of parameters with a rate"),
        ({"optimizer": {"param_groups": []}}, "its optimizer has no state"),
        ({"scheduler": [1]}, "its scheduler is of the type list, not a dict"),
        ({"scaler": "x"}, "its scaler is 'x', not a dict"),
        ({"rng": None}, "its rng is None, not a dict"),
    ],
)
def test_odd_values_are_named_when_it_is_read(
    tmp_path: Path, one_loss: nn.Module, changes: dict[str, Any], told: str
) -> None:
    path = save(tmp_path / "a.pth", one_loss)
    torch.save(torch.load(path, weights_only=True) | changes, path)
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    assert f"a.pth cannot be used as a checkpoint: {told}" in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"rng": {}},
        {"rng": {"python": 1, "torch": 1}},
        {"model": {1: 2}},
        {"optimizer": {"param_groups": [{"lr": 1, "params": 7}], "state": {}}},
        {"scheduler": {"last_epoch": "x", 5: 1, "milestones": 3}},
    ],
)
def test_a_state_that_does_not_load_is_one_error(tmp_path: Path, one_loss: nn.Module, changes: dict[str, Any]) -> None:
    optimizer = torch.optim.SGD(one_loss.parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2])
    content = read_checkpoint(save(tmp_path / "a.pth", one_loss, scheduler=scheduler)) | changes
    with pytest.raises(CheckpointError, match="the checkpoint is of another"):
        restore_checkpoint(content, model=one_loss, optimizer=optimizer, scheduler=scheduler)


def test_a_cut_file_is_refused(tmp_path: Path, one_loss: nn.Module) -> None:
    path = save(tmp_path / "a.pth", one_loss)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(CheckpointError, match="cannot be read as a checkpoint"):
        read_checkpoint(path)


def test_another_model_or_set_up_is_refused(tmp_path: Path, one_loss: nn.Module) -> None:
    content = read_checkpoint(save(tmp_path / "a.pth", one_loss))
    other = nn.Linear(3, 3)
    with pytest.raises(CheckpointError, match="of another model or optimizer"):
        restore_checkpoint(content, model=other, optimizer=torch.optim.SGD(other.parameters()))
    optimizer = torch.optim.SGD(one_loss.parameters())
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    with pytest.raises(CheckpointError, match="has no scheduler"):
        restore_checkpoint(content, model=one_loss, optimizer=optimizer, scheduler=scheduler)


def test_wrapped_models_are_saved_bare(tmp_path: Path, one_loss: nn.Module) -> None:
    content = read_checkpoint(save(tmp_path / "a.pth", nn.DataParallel(one_loss)))
    assert set(content["model"]) == {"linear.weight", "linear.bias"}


def test_the_random_state_comes_back_through_a_file(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(3)
    torch.save(rng_state(generator), tmp_path / "rng.pth")

    def draw() -> list[float]:
        return [random.random(), np.random.random(), torch.rand(()).item(), torch.rand((), generator=generator).item()]

    first = draw()
    assert draw() != first
    set_rng_state(torch.load(tmp_path / "rng.pth", weights_only=True), generator)
    assert draw() == first
