"""``losslog train`` on data as people have them, up to the exit code; and ``--check``."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torchvision")

import torch
from PIL import Image

import losslog
from losslog.cli import main
from losslog.cli.data import progress_line
from losslog.detection import write_shapes

# pycocotools 2.0.11 on numpy 2.4, in mask.decode
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")

ROOT = Path(losslog.__file__).parent.parent
DATA = ROOT.parent / "shared" / "data"
SMALL = ["--backbone", "tiny", "--image-size", "48", "--device", "cpu", "--plugins", "console", "--epochs", "1"]
Change = Callable[[dict[str, Any]], object]


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("LOSSLOG_FOLLOWER", "0")
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_shapes(tmp_path / "data", train=3, val=2, image_size=48, seed=3)


def change(folder: Path, split: str, changed: Change) -> None:
    path = folder / f"annotations_{split}.json"
    content = json.loads(path.read_text())
    changed(content)
    path.write_text(json.dumps(content))


def every(**fields: Any) -> Change:
    return lambda content: [each.update(fields) for each in content["annotations"]]


def hooks(name: str) -> list[dict[str, Any]]:
    (path,) = Path("runs").glob("*/*/journal.jsonl")
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return [record["data"] for record in records if record["hook"] == name]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (every(iscrowd=1), "are crowds)"),
        (every(bbox=[100, 100, 5, 5]), "(objects with a box without area inside the image, left out of training: "),
        (lambda content: content.update(annotations=[{**content["annotations"][0], "iscrowd": 1}]), "(1 are crowds)"),
    ],
    ids=["crowds", "outside", "one crowd"],
)
def test_nothing_to_train_on_is_refused_before_a_run_is_begun(
    folder: Path, capsys: pytest.CaptureFixture[str], changed: Change, reason: str
) -> None:
    change(folder, "train", changed)
    assert main(["train", "--data", str(folder), *SMALL]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert "annotations_train.json has no object to train on among" in said
    assert reason in said
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    "changed",
    [lambda content: content.update(annotations=[]), every(iscrowd=1)],
    ids=["none", "crowds"],
)
def test_a_validation_set_without_objects_is_said_and_training_works(
    folder: Path, capsys: pytest.CaptureFixture[str], changed: Change
) -> None:
    change(folder, "val", changed)
    assert main(["train", "--data", str(folder), "--steps-per-epoch", "1", *SMALL]) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "no AP" in line]
    assert len(said) == 1
    assert "annotations_val.json: no usable object among" in said[0]
    assert hooks("on_eval") == []
    assert len(hooks("on_epoch_end")) == 1


def test_data_put_right_trains_and_is_evaluated(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("train", "val"):
        change(folder, split, every(area=None, iscrowd="0"))
        change(folder, split, lambda content: [each.update(id=f"i{each['id']}") for each in content["images"]])
        change(folder, split, lambda content: [a.update(image_id=f"i{a['image_id']}") for a in content["annotations"]])
    assert main(["train", "--data", str(folder), "--steps-per-epoch", "1", *SMALL]) == 0
    assert "areas that are no area, taken from the box" in capsys.readouterr().err
    assert [set(each["metrics"]) for each in hooks("on_eval")] == [{"bbox", "segm"}]


def test_check_sums_up_and_draws_and_begins_no_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(folder, "train", lambda content: content["annotations"][0].update(area=None))
    change(folder, "train", lambda content: content["annotations"][1].update(iscrowd=1))
    change(folder, "train", lambda content: content["annotations"][2].update(bbox=[1, 1, 0, 0]))
    count = len(json.loads((folder / "annotations_train.json").read_text())["annotations"])
    assert main(["train", "--data", str(folder), "--check", "--sheet", "sheet.png"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == f"train {folder}/annotations_train.json"
    assert lines[1].startswith("images 3, without an object ")
    assert lines[2] == f"objects {count - 2}, crowds 1, annotations {count}"
    assert lines[3] == "put right 1, left out 1"
    assert [line.split()[0] for line in lines[4:7]] == ["circle", "square", "triangle"]
    assert sum(int(line.split()[1]) for line in lines[4:7]) == count - 2
    assert lines[7] == f"val {folder}/annotations_val.json"
    assert lines[-1] == "sheet sheet.png"
    assert not Path("runs").exists()
    with Image.open("sheet.png") as sheet:
        assert sheet.format == "PNG"
        colours = sheet.convert("RGB").getcolors(1 << 24)
    assert colours is not None
    assert len(colours) > 1000


def test_check_refuses_what_training_refuses(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(folder, "val", lambda content: content["annotations"][0].update(iscrowd="many"))
    assert main(["train", "--data", str(folder), "--check"]) == 2
    assert "annotation 1: iscrowd: many is neither 0 nor 1" in capsys.readouterr().err
    assert not Path("data-check.png").exists()


def test_a_sheet_that_cannot_be_written_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--data", str(folder), "--check", "--sheet", "nowhere/sheet.png"]) == 2
    assert capsys.readouterr().err == "losslog train: --sheet nowhere/sheet.png: No such file or directory\n"


def test_the_same_seed_draws_the_same_sheet(folder: Path) -> None:
    for name in ("a.png", "b.png"):
        assert main(["train", "--data", str(folder), "--check", "--sheet", name]) == 0
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()


def test_check_on_real_images() -> None:
    if not (DATA / "fruitsnuts").is_dir():
        pytest.skip("no real images in ../shared/data/fruitsnuts")
    assert main(["train", "--data", str(DATA / "fruitsnuts"), "--check", "--sheet", "sheet.png"]) == 0


def test_progress_is_shown_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert progress_line("images") is None
    written: list[str] = []

    class Terminal:
        def isatty(self) -> bool:
            return True

        def write(self, text: str) -> None:
            written.append(text)

        def flush(self) -> None:
            pass

    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr("losslog.cli.data._EVERY", 0.0)
    report = progress_line("images opened")
    assert report is not None
    for done in range(3):
        report(done, 2)
    assert "".join(written) == "\rimages opened: 0 of 2\rimages opened: 1 of 2\rimages opened: 2 of 2\n"


@pytest.mark.skipif(sys.platform != "linux", reason="limits on memory are Linux's")
@pytest.mark.parametrize(
    "polygon",
    [
        [float("nan"), 1, 20, 1, 20, 20],
        [float("inf"), 1, 20, 1, 20, 20],
        [1, 1, 1e9, 1, 1e9, 1e9],
        [-1e9, -1e9, 1e9, -1e9, 1e9, 1e9, -1e9, 1e9],
        [1, 1, 1e300, 1, 1e300, 20],
        [value for n in range(200_000) for value in (0 if n % 2 else 48, n % 48)],
    ],
    ids=["nan", "inf", "far", "around", "farthest", "very many points"],
)
def test_memory_is_bounded_whatever_a_polygon_says(folder: Path, polygon: list[float]) -> None:
    for split in ("train", "val"):
        change(folder, split, lambda content: content["annotations"][0].update(segmentation=[polygon]))
    code = (
        "import sys, resource, torch\n"
        "from losslog.detection import CocoDataset\n"
        "from losslog.detection.evaluation import mask_api\n"
        "base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "data = CocoDataset(sys.argv[1] + '/images', sys.argv[1] + '/annotations_val.json')\n"
        "evaluator = data.evaluator()\n"
        "for index in range(len(data)):\n"
        "    target = data[index][1]\n"
        "    scores, masks = torch.ones(len(target['labels'])), target['masks'][:, None].float()\n"
        "    output = {**target, 'scores': scores, 'masks': masks}\n"
        "    evaluator.update([target], [output])\n"
        "evaluator.compute()\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(folder)],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 200_000  # kB


def test_an_option_is_told_as_given_only_where_it_was() -> None:
    from losslog.cli import build_parser

    args: argparse.Namespace = build_parser("train").parse_args(["train", "--data", "x", "--amp", "--lr", "0.1"])
    assert args.given == {"data", "amp", "lr"}
    assert (args.lr, args.amp, args.no_flip, args.epochs) == (0.1, True, False, 20)
