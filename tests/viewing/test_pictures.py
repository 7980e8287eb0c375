"""Images in the report: which are read, how large they may get, and that a browser draws them."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("PIL")

from PIL import Image

import losslog
from losslog.cli import main
from losslog.delivery.trust import Trust
from losslog.detection.miniatures import LIMIT
from losslog.detection.rle import decode
from losslog.values.pictures import compress
from losslog.viewing.page import page, write
from losslog.viewing.parts import story_of
from losslog.viewing.story import SETS, SHEETS

Made = Callable[..., losslog.Run]


def block(width: int, height: int) -> dict[str, Any]:
    mask = np.zeros((height, width), bool)
    mask[height // 4 : height // 2, width // 4 : width // 2] = True
    flat = mask.flatten(order="F")
    edges = [0, *(np.flatnonzero(np.diff(flat)) + 1).tolist(), flat.size]
    return {"size": [height, width], "counts": compress(np.diff(edges).tolist())}


def image(number: int, path: str | None = None, width: int = 80, height: int = 60) -> dict[str, Any]:
    thing = {"box": [width / 4, height / 4, width / 2, height / 2], "label": "cat", "rle": block(width, height)}
    return {"id": number, "path": path, "width": width, "height": height, "truth": [thing],
            "predictions": [{**thing, "label": "dog</script>", "score": 0.9, "mistake": "wrong_class"}],
            "mistakes": {"wrong_class": 1}}  # fmt: skip


@pytest.fixture
def run(make_run: Made, tmp_path: Path) -> losslog.Run:
    (tmp_path / "data").mkdir()
    Image.new("RGB", (80, 60), (0, 120, 0)).save(tmp_path / "data" / "1.png")
    run = make_run()
    for epoch in (1, 2, 3):
        run.log_batch({"loss_mask": 1.0}, targets=[{"image_id": 40 + epoch}])
        run.flush()
        run.log_images("val", [image(1, "1.png"), image(2, "2.png")], name="fixed", folder=tmp_path / "data")
        run.end_epoch()
    run.close()
    return run


def data_of(text: str) -> Any:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return json.loads(found[1])["runs"][0]


def test_pictures_are_read_where_they_may_and_masks_shrink_with_them(run: losslog.Run, tmp_path: Path) -> None:
    story = story_of(run.dir)
    strange = data_of(page([story]))["images"]
    assert strange["pictures"] == {}  # the data folder is the journal's word
    named = data_of(page([story], trust=Trust(pictures=[tmp_path / "data"])))["images"]
    (address,) = named["pictures"].values()
    assert address.startswith("data:image/jpeg;base64,")
    seen = {str((tmp_path / "data" / "1.png").resolve())}
    assert len(data_of(page([story], trust=Trust(known=seen)))["images"]["pictures"]) == 1
    assert [epoch for epoch, _ in named["sets"]["val fixed"]] == [1, 2, 3]
    first, second = named["sets"]["val fixed"][0][1]
    assert ("p" in first, "p" in second) == (True, False)
    (box, label, score, mistake, mask) = first["f"][0]
    assert (named["labels"][label], score, mistake) == ("dog</script>", 0.9, "wrong_class")
    assert box == [44, 33, 88, 66]  # of 176 x 132
    small = decode({"size": [first["h"], first["w"]], "counts": mask})
    assert small[33:66, 44:88].all()
    assert small.sum() == 33 * 44


def test_the_command_takes_the_data_folder(run: losslog.Run, tmp_path: Path, capsys: Any) -> None:
    target = tmp_path / "r.html"
    assert main(["report", str(run.dir), "-o", str(target), "--images-in", str(tmp_path / "data")]) == 0
    found = data_of(target.read_text())
    assert len(found["images"]["pictures"]) == 1
    assert found["hardest"] == {"loss_mask": [[1, 2, "43"]]}


def test_a_long_run_of_large_images_stays_below_two_megabytes(make_run: Made, tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    (tmp_path / "data").mkdir()
    for number in range(40):
        noise = chance.integers(0, 255, (300, 400, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / "data" / f"{number}.png")
    random.seed(0)
    run = make_run()
    for epoch in range(1, 41):
        for name in ("fixed", "hardest", *(f"set {n}" for n in range(9))):
            chosen = [random.randrange(40) for _ in range(8)]
            images = [image(each, f"{each}.png", 400, 300) for each in chosen]
            run.log_images("val", images, name=name, folder=tmp_path / "data", epoch=epoch)
    run.close()
    story = story_of(run.dir)
    assert len(story.pictures) == SETS
    assert all(len(each) <= SHEETS for each in story.pictures.values())
    text = page([story], trust=Trust(pictures=[tmp_path / "data"]))
    assert len(text.encode()) < 2_000_000
    found = data_of(text)["images"]
    assert 0.5 * LIMIT < len(json.dumps(found)) < 1.1 * LIMIT
    assert all(each[-1][0] == 40 for each in found["sets"].values())


def test_a_browser_draws_them_and_the_slider_moves(browser: Any, run: losslog.Run, tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    write(page([story_of(run.dir)], trust=Trust(pictures=[tmp_path / "data"])), target)
    browser.look(1200, 1000)
    browser.open(target)
    assert browser.messages == []
    assert [each for each in browser.requests if not each.startswith("data:")] == [target.absolute().as_uri()]
    assert browser.run("document.querySelectorAll('.images canvas').length") == 2
    pixel = """(x, y, n) => { const canvas = document.querySelectorAll('.images canvas')[n];
        return [...canvas.getContext('2d').getImageData(x, y, 1, 1).data].slice(0, 3); }"""
    green, grey = browser.run(f"({pixel})(10, 100, 0)"), browser.run(f"({pixel})(10, 100, 1)")
    assert abs(green[1] - 120) < 12
    assert green[0] < 20
    assert grey == [190, 190, 190]
    inside = browser.run(f"({pixel})(60, 50, 1)")
    assert inside != grey
    assert browser.run("document.querySelector('.images figcaption').textContent") == "1 · 1 wrong class"
    moved = browser.run(
        """(() => { const slider = document.querySelector('section > .tools input');
        slider.value = '0'; slider.dispatchEvent(new Event('input'));
        return document.querySelector('section > .tools span').textContent; })()"""
    )
    assert moved == "epoch 1"
