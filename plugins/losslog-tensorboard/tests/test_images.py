"""Sheets of images, read back from the event files with TensorBoard's own reader."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from losslog.detection.drawing import Sheet
from losslog.testing.story import SEEN

TAG = "images/val_fixed"
RECORD: dict[str, Any] = {"step": 9, "split": "val", "name": "fixed"}


@pytest.fixture
def images(tmp_path: Path) -> list[dict[str, Any]]:
    Image.new("RGB", (8, 6), (0, 120, 0)).save(tmp_path / "12.png")
    return [{**SEEN, "path": str(tmp_path / "12.png")}]


def events(folder: Path) -> Any:
    return EventAccumulator(str(folder), size_guidance={"images": 0}).Reload()


def test_a_sheet_stands_at_its_epoch_as_it_was_drawn(driver: Any, tmp_path: Path, images: Any) -> None:
    drive = driver(tmp_path)
    drive.start()
    for epoch in (1, 2):
        drive.tell("on_images", None, epoch=epoch, images=images, **RECORD)
    drive.flush()
    found = events(tmp_path / "tensorboard").Images(TAG)
    assert [each.step for each in found] == [1, 2]
    wanted = np.asarray(Sheet(images, title="val fixed, epoch 1").drawn(), int)
    with Image.open(io.BytesIO(found[0].encoded_image_string)) as picture:
        assert (found[0].width, found[0].height) == picture.size == wanted.shape[1::-1]
        assert np.abs(np.asarray(picture, int) - wanted).mean() < 4
    drive.end()


def test_what_comes_again_is_not_there_twice_and_a_resume_supersedes(driver: Any, tmp_path: Path, images: Any) -> None:
    drive = driver(tmp_path)
    drive.start()
    drive.tell("on_images", 5.0, epoch=1, images=images, **RECORD)
    drive.tell("on_images", 6.0, epoch=2, images=images, **RECORD)
    drive.flush()
    drive.again()
    drive.start()
    drive.tell("on_images", 6.0, epoch=2, images=images, **RECORD)
    drive.resume(1, 3)
    drive.tell("on_images", 2000.0, epoch=2, images=images, **RECORD)
    drive.end()
    assert [(each.step, each.wall_time) for each in events(tmp_path / "tensorboard").Images(TAG)] == [
        (1, 5.0),
        (2, 2000.0),
    ]


def test_images_can_be_left_out_and_none_are_none(driver: Any, tmp_path: Path, images: Any) -> None:
    drive = driver(tmp_path, images=False)
    drive.start()
    drive.tell("on_images", None, epoch=1, images=images, **RECORD)
    drive.end()
    assert events(tmp_path / "tensorboard").Tags()["images"] == []
    with pytest.raises(TypeError, match="images="):
        driver(tmp_path, images="yes")


def test_a_writer_of_the_users_gets_them(driver: Any, tmp_path: Path, images: Any) -> None:
    torch_board = pytest.importorskip("torch.utils.tensorboard")
    writer = torch_board.SummaryWriter(str(tmp_path / "own"))
    drive = driver(tmp_path, writer=writer)
    drive.start()
    for _ in range(2):
        drive.tell("on_images", 5.0, epoch=3, images=images, **RECORD)
    drive.end()
    writer.close()
    (found,) = events(tmp_path / "own").Images(TAG)
    assert found.step == 3
