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


def test_a_validation_set_of_boxes_alone_has_an_ap(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(folder, "val", lambda content: [each.pop("segmentation") for each in content["annotations"]])
    assert main(["train", "--data", str(folder), "--steps-per-epoch", "1", *SMALL]) == 0
    said = capsys.readouterr().err
    assert "nothing to train on, in AP boxes stand in for outlines" in said
    assert "no AP" not in said
    assert "AP" in hooks("on_eval")[0]["metrics"]["bbox"]


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


@pytest.mark.parametrize(
    ("sheet", "reason"),
    [
        ("annotations_train.json", "a PNG file is written; give it a name that ends in .png"),
        ("sheet", "a PNG file is written; give it a name that ends in .png"),
        ("annotations.png", "is an annotation file; name another file"),
        ("images/train_00001.png", "lies in the image folder"),
        ("images/new.png", "lies in the image folder"),
        ("elsewhere/../images/new.png", "lies in the image folder"),
        ("linked/new.png", "lies in the image folder"),
        ("linked.png", "lies in the image folder"),
        ("mine.png", "is no PNG file and stays as it is; name another file"),
        ("elsewhere/a.png", "is an image of the data; name another file"),
        ("folder.png", "is no file; name another one"),
        ("nowhere/a.png", ": No such file or directory"),
    ],
)
def test_check_never_writes_over_what_is_no_sheet(
    folder: Path, capsys: pytest.CaptureFixture[str], sheet: str, reason: str
) -> None:
    (folder / "annotations_val.json").rename(folder / "annotations.png")
    (folder / "mine.png").write_text("a diary")
    (folder / "elsewhere").mkdir()
    (folder / "folder.png").mkdir()
    (folder / "linked").symlink_to(folder / "images")
    (folder / "linked.png").symlink_to(folder / "images" / "new.png")
    image = next((folder / "images").glob("train_*1.png"))
    image.rename(folder / "elsewhere" / "a.png")
    image.symlink_to(folder / "elsewhere" / "a.png")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    words = ["train", "--data", str(folder), "--val-annotations", "annotations.png", "--check"]
    assert main([*words, "--sheet", str(folder / sheet)]) == 2
    shown = capsys.readouterr()
    (said,) = shown.err.splitlines()
    assert said.startswith(f"losslog train: --sheet {folder / sheet}")
    assert said.endswith(reason) or f"{reason} " in said
    assert shown.out == ""
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_sheet_is_written_over_a_sheet(folder: Path) -> None:
    Image.new("RGB", (4, 4)).save("sheet.PNG", format="PNG")
    assert main(["train", "--data", str(folder), "--check", "--sheet", "sheet.PNG"]) == 0
    with Image.open("sheet.PNG") as sheet:
        assert sheet.size > (4, 4)


def damage(folder: Path, split: str) -> str:
    """An image whose header and end are whole, and whose pixels are not; its name."""
    path = sorted((folder / "images").glob(f"{split}_*.png"))[-1]
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 255
    path.write_bytes(bytes(raw))
    return path.name


@pytest.mark.parametrize("split", ["train", "val"])
def test_check_reads_every_pixel(folder: Path, capsys: pytest.CaptureFixture[str], split: str) -> None:
    name = damage(folder, split)
    assert main(["train", "--data", str(folder), "--check"]) == 2
    shown = capsys.readouterr()
    (said,) = shown.err.splitlines()
    assert said.startswith(f"losslog train: --{split}-annotations: cannot read the image {folder}/images/{name}: ")
    assert shown.out == ""
    assert not Path("data-check.png").exists()


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("check", [[], ["--check"]])
def test_an_image_of_which_the_model_would_see_nothing_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], split: str, check: list[str]
) -> None:
    content = json.loads((folder / f"annotations_{split}.json").read_text())
    image = content["images"][0]
    image |= {"width": 2000, "height": 6}
    name = image["file_name"]
    Image.new("RGB", (2000, 6)).save(folder / "images" / name)
    for each in content["annotations"]:
        if each["image_id"] == image["id"]:
            each |= {"bbox": [10, 1, 30, 4], "segmentation": [[10, 1, 40, 1, 40, 5, 10, 5]], "area": 120}
    (folder / f"annotations_{split}.json").write_text(json.dumps(content))
    assert main(["train", "--data", str(folder), *SMALL, *check]) == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"{name} is 2000 x 6 pixels: too long and thin" in told
    assert not Path("runs").exists()
    large = told.rpartition(" ")[2]
    assert int(large) > 48
    assert main(["train", "--data", str(folder), *SMALL, "--image-size", large, "--check"]) == 0


@pytest.mark.parametrize("workers", ["0", "1"])
def test_damaged_pixels_end_training_with_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], workers: str
) -> None:
    name = damage(folder, "train")
    assert main(["train", "--data", str(folder), "--workers", workers, *SMALL]) == 2
    (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("losslog train: ")]
    assert said.startswith(f"losslog train: cannot read the image {folder}/images/{name}: ")
    assert "Traceback" not in said
    assert "Traceback" not in hooks("on_run_end")[0]["error"]


def test_no_validation_file_is_needed_where_nothing_is_validated(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "annotations_val.json").unlink()
    words = ["train", "--data", str(folder), "--steps-per-epoch", "1", *SMALL]
    assert main([*words, "--no-validation"]) == 2
    assert main([*words, "--evaluate-every", "0"]) == 2
    assert not Path("runs").exists()
    capsys.readouterr()
    assert main([*words, "--no-validation", "--evaluate-every", "0", "--check"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert not any(line.startswith("val ") for line in lines)
    assert main([*words, "--no-validation", "--evaluate-every", "0"]) == 0
    assert hooks("on_eval") == []
    assert len(hooks("on_epoch_end")) == 1


def test_an_object_is_counted_once_where_it_is_left_out(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(folder, "train", lambda content: content["annotations"][0].update(segmentation=[[1, 1, 9, 9, 5, 5]]))
    change(folder, "train", lambda content: content["annotations"][1].update(bbox=[1, 1, float("inf"), 5]))
    assert main(["train", "--data", str(folder), "--check"]) == 0
    assert "        put right 0, left out 2, polygons left out 1" in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (lambda content: content.update(annotations=[]), "has no annotations to train on: its list 'annotations' is"),
        (lambda content: content.update(categories=[], annotations=[]), "defines no categories"),
    ],
)
def test_an_empty_list_is_named(folder: Path, capsys: pytest.CaptureFixture[str], changed: Change, reason: str) -> None:
    change(folder, "train", changed)
    assert main(["train", "--data", str(folder), "--check"]) == 2
    assert f"--train-annotations: {folder}/annotations_train.json {reason}" in capsys.readouterr().err


def test_images_of_both_files_are_said_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--data", str(folder), "--check", "--val-annotations", "annotations_train.json"]
    assert main(words) == 0
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("losslog train: 3 of 3 validation images are training images, too (the first: train_")


def test_warnings_of_libraries_are_not_the_users(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for split in ("train", "val"):
        change(folder, split, lambda content: content["annotations"][0].update(bbox=[1e300, -1e300, 1e300, 1e308]))
        change(folder, split, lambda content: content["annotations"][1].update(bbox=[1e38, -2e38, 1e38, 1e38]))
    assert main(["train", "--data", str(folder), "--check"]) == 0
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 4
    assert all("objects with a box" in line and "left out of" in line for line in lines)


def test_a_resumed_run_knows_its_data(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--data", str(folder), "--steps-per-epoch", "1", *SMALL]) == 0
    assert main(["train", "--resume", "latest", "--epochs", "2", "--plugins", "console"]) == 0
    assert len(hooks("on_epoch_end")) == 2
    capsys.readouterr()
    for words in (["train"], ["train", "--check"], ["train", "--resume", "auto", "--name", "other"]):
        assert main(words) == 2
        assert capsys.readouterr().err == "losslog train: missing: --data (see losslog train --help)\n"


def test_many_other_classes_are_one_short_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def more(content: dict[str, Any], name: str = "x") -> None:
        content["categories"] += [{"id": 100 + n, "name": f"{name}{n}"} for n in range(87)]

    for split in ("train", "val"):
        change(folder, split, more)
    assert main(["train", "--data", str(folder), "--steps-per-epoch", "1", *SMALL]) == 0
    for split in ("train", "val"):
        change(folder, split, lambda content: content["categories"][40].update(name="other"))
    capsys.readouterr()
    assert main(["train", "--resume", "latest", "--epochs", "2"]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said == (
        "losslog train: --data: its 90 classes are not the 90 of the run: "
        "the first that differs, number 41, is other here and x37 there"
    )


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


@pytest.mark.sampled(2)
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
