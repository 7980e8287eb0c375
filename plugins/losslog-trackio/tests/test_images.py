"""Sheets of images in Trackio's store, read back with its own functions."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from losslog_trackio import TrackioPlugin
from PIL import Image

from losslog.control import RunHandle
from losslog.detection import sheets
from losslog.detection.drawing import Sheet
from losslog.runtime.notices import Once
from losslog.testing import tell
from losslog.testing.story import SEEN


def handle(folder: Path) -> RunHandle:
    return RunHandle(id="r7", name="pics", dir=folder, config={}, source="trackio", post=lambda kind, data: None)


def played(folder: Path, seen: Any, times: int = 1, **options: Any) -> None:
    run = handle(folder)
    for _ in range(times):
        plugin = TrackioPlugin(**options)
        tell(plugin, "on_run_start", run=run, name="pics", config={}, time=1.7e9)
        for seq, epoch in ((4, 1), (9, 2)):
            data = {"epoch": epoch, "split": "val", "name": "fixed", "images": seen}
            tell(plugin, "on_images", run=run, seq=seq, time=1.7e9 + seq, **data)
        plugin.on_flush()


def rows(project: str) -> list[dict[str, Any]]:
    from trackio.sqlite_storage import SQLiteStorage

    return [each for each in SQLiteStorage.get_logs(project, "r7") if "images/val_fixed" in each]


def test_a_sheet_is_a_picture_at_its_epoch_once(store: Path, tmp_path: Path) -> None:
    played(tmp_path, [SEEN], times=2, project="pics1")
    found = rows("pics1")
    assert [each["step"] for each in found] == [1, 2]
    media = found[0]["images/val_fixed"]
    assert (media["_type"], media["caption"]) == ("trackio.image", "val fixed, epoch 1")
    with Image.open(store / "media" / media["file_path"]) as picture:
        assert picture.size == Sheet([SEEN], title="t").drawn().size
    assert len(list((store / "media" / "pics1").rglob("*.jpg"))) == 2


def test_images_can_be_left_out(tmp_path: Path) -> None:
    played(tmp_path, [SEEN], project="pics2", images=False)
    with pytest.raises(TypeError, match="images="):
        TrackioPlugin(images=1)  # type: ignore[arg-type]
    assert rows("pics2") == []


def test_without_pillow_a_line_says_so_and_all_else_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sheets, "_said", Once())
    monkeypatch.setattr(sheets, "NEEDED", {"no_such_module": "pillow"})
    assert "no_such_module" not in sys.modules
    played(tmp_path, [SEEN], project="pics3")
    assert caplog.text.count("images are not drawn: pip install pillow") == 1
