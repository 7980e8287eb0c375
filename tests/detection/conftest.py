from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torchvision")

import torch


def pytest_configure(config: pytest.Config) -> None:
    # pycocotools 2.0.11 on numpy 2.4, in mask.decode
    config.addinivalue_line("filterwarnings", "ignore:__array__ implementation doesn't accept:DeprecationWarning")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small layers: on a busy machine a second OpenMP thread makes them ten times slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from losslog.detection import write_shapes

    return write_shapes(tmp_path_factory.mktemp("shapes"), train=12, val=6, image_size=64, seed=3)


@pytest.fixture
def coco_folder(tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """Writes grey images of 40 x 30 pixels and an annotation file; returns the two paths."""

    def write(objects: list[dict[str, Any]], changes: dict[str, Any] | None = None) -> tuple[Path, Path]:
        folder = tmp_path / "images"
        folder.mkdir(exist_ok=True)
        entries = []
        for number in (1, 2):
            Image.fromarray(np.full((30, 40, 3), 10 * number, np.uint8)).save(folder / f"{number}.png")
            entries.append({"id": number, "file_name": f"{number}.png", "width": 40, "height": 30})
        content = {
            "images": entries,
            "annotations": [{"id": index, **each} for index, each in enumerate(objects, start=1)],
            "categories": [{"id": 30, "name": "late"}, {"id": 7, "name": "early"}],
            **(changes or {}),
        }
        path = tmp_path / "annotations.json"
        path.write_text(json.dumps(content))
        return folder, path

    return write
