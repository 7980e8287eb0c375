"""Sheets of images in W&B's offline files, read back with wandb's own reader: pictures, boxes, masks, classes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from losslog_wandb import WandbPlugin
from PIL import Image

from losslog.detection.drawing import Sheet
from losslog.testing import tell
from losslog.testing.story import RLE, SEEN

T0 = 1764000000.0
TAG = "images/val_fixed"
Started = Callable[..., WandbPlugin]
MASKED = {**SEEN, "predictions": [{**SEEN["predictions"][0], "rle": RLE}]}  # type: ignore[index]
RECORD: dict[str, Any] = {"split": "val", "name": "fixed", "images": [MASKED]}


def played(plugin: WandbPlugin, run: Any) -> None:
    for seq, epoch in ((4, 1), (9, 2)):
        tell(plugin, "on_images", run=run, seq=seq, time=T0 + seq, epoch=epoch, **RECORD)
    tell(plugin, "on_run_end", run=run, seq=11, time=T0 + 11, status="finished")
    plugin.on_flush()


@pytest.fixture
def media(run: Any) -> Callable[[str], Path]:
    def find(path: str) -> Path:
        (found,) = run.dir.glob(f"wandb/*run-*/files/{path}")
        return Path(found)

    return find


def test_one_sheet_an_epoch_with_boxes_and_masks_that_the_page_switches(
    started: Started, run: Any, local: Any, media: Any
) -> None:
    played(started(mode="offline"), run)
    rows = [each for each in local.rows() if f"{TAG}.path" in each]
    assert [each["epoch"] for each in rows] == [1, 2]
    shown = {key.removeprefix(f"{TAG}."): value for key, value in rows[0].items()}
    assert (shown["_type"], shown["caption"]) == ("image-file", "val fixed, epoch 1")
    sheet = Sheet([MASKED], title="val fixed, epoch 1", both=False)
    with Image.open(media(shown["path"])) as picture:
        assert picture.size == sheet.plain().size
    found = json.loads(media(shown["boxes.predictions.path"]).read_text())
    (box,) = found["box_data"]
    assert found["class_labels"][str(box["class_id"])] == "dog"
    assert box["box_caption"] == "dog 0.75 extra"
    assert box["scores"] == {"score": 0.75}
    ((wanted, _),) = sheet.boxes("predictions")
    position = [box["position"][key] for key in ("minX", "minY", "maxX", "maxY")]
    assert position == pytest.approx(wanted)
    numbers = {name: place for place, name in enumerate(sheet.colours, start=1)}
    for kind in ("truth", "predictions"):
        with Image.open(media(shown[f"masks.{kind}.path"])) as mask:
            assert np.array_equal(np.asarray(mask.convert("L")), sheet.mask(kind, numbers))


def test_what_comes_again_is_not_there_twice(started: Started, run: Any, local: Any) -> None:
    played(started(mode="offline"), run)
    again = started(mode="offline")
    assert again.delivered_upto(run) == 11
    played(again, run)
    assert len([each for each in local.rows() if f"{TAG}.path" in each]) == 2


def test_images_can_be_left_out(started: Started, run: Any, local: Any) -> None:
    played(started(mode="offline", images=False), run)
    assert TAG not in str(local.rows())
    with pytest.raises(TypeError, match="images="):
        WandbPlugin(images=1)  # type: ignore[arg-type]
