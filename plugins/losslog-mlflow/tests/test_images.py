"""Sheets of images in a real MLflow server, read back with MLflow's own client."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from losslog_mlflow import MlflowPlugin
from losslog_mlflow.names import key_of
from PIL import Image

from losslog.control import RunHandle
from losslog.detection.drawing import Sheet
from losslog.testing import tell
from losslog.testing.story import SEEN


def played(uri: str, folder: Path, times: int = 1, **options: Any) -> None:
    run = RunHandle(id="r7", name="pics", dir=folder, config={}, source="mlflow", post=lambda kind, data: None)
    for _ in range(times):
        plugin = MlflowPlugin(tracking_uri=uri, **options)
        tell(plugin, "on_run_start", run=run, name="pics", config={}, time=1.7e9)
        for seq, epoch in ((4, 1), (9, 2)):
            data = {"epoch": epoch, "split": "val", "name": "fixed", "images": [SEEN]}
            tell(plugin, "on_images", run=run, seq=seq, time=1.7e9 + seq, **data)
        plugin.on_flush()


def test_a_sheet_is_a_picture_at_its_step_once(server: Any, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    played(server.uri, tmp_path, times=2)
    client = MlflowClient(tracking_uri=server.uri)
    (experiment,) = [each for each in client.search_experiments() if each.name == "pics"]
    (stored,) = client.search_runs([experiment.experiment_id])
    files = sorted(each.path for each in client.list_artifacts(stored.info.run_id, "images"))
    pictures = [each for each in files if each.endswith(".png")]
    assert [each.partition("+timestamp")[0] for each in pictures] == [
        "images/images~val_fixed+step+1",
        "images/images~val_fixed+step+2",
    ]
    with Image.open(client.download_artifacts(stored.info.run_id, pictures[0], str(tmp_path))) as picture:
        wanted = Sheet([SEEN], title="val fixed, epoch 1").drawn()
        assert np.array_equal(np.asarray(picture.convert("RGB")), np.asarray(wanted))


def test_images_can_be_left_out(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="images="):
        MlflowPlugin(images="no")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["images/val_fixed", "images/vål_#1", "images/" + "x" * 400, "a:b"])
def test_keys_are_such_as_mlflow_takes(name: str) -> None:
    import re

    assert re.fullmatch(r"[a-zA-Z0-9_\-./ ]+", key_of(name))
    assert (key_of(name) == name) == (name == "images/val_fixed")
