from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torchvision")

import torch

import losslog
from losslog.cli import main
from losslog.detection import write_shapes

# pycocotools 2.0.11 on numpy 2.4, in mask.decode
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")

ROOT = Path(losslog.__file__).parent.parent
DATA = ROOT.parent / "shared" / "data"
SMALL = ["--backbone", "tiny", "--image-size", "64", "--device", "cpu", "--plugins", "console"]
LOSSES = {"loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg"}


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("LOSSLOG_FOLLOWER", "0")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("shapes"), train=6, val=3, image_size=64, seed=3)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs ``losslog train`` in this process, with runs below the test's folder and no plugins."""

    def call(*words: str) -> int:
        return main(["train", "--dir", str(tmp_path / "runs"), *words])

    return call


def journal(folder: Path) -> list[dict[str, Any]]:
    (path,) = folder.glob("runs/*/*/journal.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def hooks(records: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [record["data"] for record in records if record["hook"] == name]


def check_all_series(records: list[dict[str, Any]], epochs: int, steps: int) -> None:
    assert len(hooks(records, "on_batch_losses")) == epochs * steps
    ends = hooks(records, "on_epoch_end")
    assert [each["epoch"] for each in ends] == list(range(1, epochs + 1))
    for each in ends:
        assert set(each["losses"]) == set(each["val_loss"]) == LOSSES
        assert each["total"] == pytest.approx(sum(each["losses"].values()), rel=1e-6)
        assert set(each["lr"]) == {"backbone", "rpn", "box_head", "mask_head"}
    assert [set(each["metrics"]) for each in hooks(records, "on_eval")] == [{"bbox", "segm"}] * epochs
    assert len(hooks(records, "on_checkpoint")) == epochs
    assert hooks(records, "on_run_end")[-1]["status"] == "finished"


def test_it_trains_and_logs_every_series(run: Callable[..., int], shapes: Path, tmp_path: Path) -> None:
    assert run("--data", str(shapes), "--epochs", "2", "--steps-per-epoch", "2", "--seed", "4", *SMALL) == 0
    records = journal(tmp_path)
    check_all_series(records, 2, 2)
    start = hooks(records, "on_run_start")[0]
    assert (start["epochs"], start["steps_per_epoch"]) == (2, 2)
    assert start["config"]["classes"] == ["circle", "square", "triangle"]
    assert start["config"]["seed"] == 4
    assert "command" not in start["config"]


@pytest.mark.parametrize("name", ["fruitsnuts", "nuclei"])
def test_it_trains_on_real_images(run: Callable[..., int], tmp_path: Path, name: str) -> None:
    if not (DATA / name).is_dir():
        pytest.skip(f"no real images in ../shared/data/{name}")
    words = ["--data", str(DATA / name), "--epochs", "1", "--steps-per-epoch", "3", *SMALL, "--image-size", "96"]
    assert run(*words) == 0
    check_all_series(journal(tmp_path), 1, 3)


def test_resume_continues_the_same_run_with_the_same_figures(
    run: Callable[..., int], shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--data", str(shapes), "--schedule", "constant", "--steps-per-epoch", "2", *SMALL]
    assert run(*words, "--epochs", "2") == 0
    whole = journal(tmp_path)
    shutil.rmtree(tmp_path / "runs")
    assert run(*words, "--epochs", "1") == 0
    assert run(*words, "--epochs", "2", "--resume", "latest") == 0
    resumed = journal(tmp_path)
    for hook, key in (("on_batch_losses", "losses"), ("on_epoch_end", "val_loss"), ("on_eval", "metrics")):
        assert [each[key] for each in hooks(resumed, hook)] == [each[key] for each in hooks(whole, hook)]
    assert [each["step"] for each in hooks(resumed, "on_batch_losses")] == [0, 1, 2, 3]
    assert hooks(resumed, "on_resume") == [{"epoch": 1, "step": 1}]


def test_stall_freezes_the_mask_branch_in_the_second_half(
    run: Callable[..., int], shapes: Path, tmp_path: Path
) -> None:
    words = ["--data", str(shapes), "--epochs", "3", "--steps-per-epoch", "1", "--warmup-steps", "0"]
    assert run(*words, "--stall", *SMALL) == 0
    first, second, third = (
        torch.load(path, weights_only=True)["model"] for path in sorted(tmp_path.glob("runs/*/*/checkpoints/*.pth"))
    )
    mask = "roi_heads.mask_predictor.conv5_mask.weight"
    box = "roi_heads.box_predictor.cls_score.weight"
    assert torch.equal(first[mask], second[mask])
    assert torch.equal(second[mask], third[mask])
    assert not torch.equal(second[box], third[box])


def test_a_requeued_job_goes_on_with_its_own_run(
    run: Callable[..., int], shapes: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "losslog")
    words = ["--data", str(shapes), "--steps-per-epoch", "1", *SMALL]
    assert run(*words, "--epochs", "1", "--name", "b") == 0
    assert run(*words, "--epochs", "1", "--name", "a", "--resume", "auto") == 0
    (folder,) = (tmp_path / "runs" / "a").iterdir()
    lines = (folder / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "journal.jsonl").write_bytes(b"".join(lines[:-1]))  # killed
    assert run(*words, "--epochs", "2", "--name", "b", "--resume", "nowhere") == 2
    assert run(*words, "--epochs", "2", "--name", "a", "--resume", "auto") == 0
    assert f"resuming {folder.name} at epoch 2" in caplog.messages
    assert len([*(tmp_path / "runs" / "a").iterdir()]) == len([*(tmp_path / "runs" / "b").iterdir()]) == 1
    assert run(*words, "--epochs", "2", "--name", "a", "--resume", "auto") == 0
    assert len([*(tmp_path / "runs" / "a").iterdir()]) == 2


def test_a_checkpoint_of_another_name_is_refused(
    run: Callable[..., int], shapes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data", str(shapes), "--steps-per-epoch", "1", *SMALL]
    assert run(*words, "--epochs", "1", "--name", "b") == 0
    capsys.readouterr()
    assert run(*words, "--epochs", "2", "--name", "a", "--resume", "latest") == 2
    assert "losslog train: no runs of 'a' under" in capsys.readouterr().err


@pytest.fixture
def folder(shapes: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shapes, tmp_path / "data"))


def without(path: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        target = folder / path
        shutil.rmtree(target) if target.is_dir() else target.unlink()

    return change


def with_text(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "annotations_train.json").write_text(text) and None


def changed(**fields: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "annotations_val.json"
        content = json.loads(path.read_text())
        content["annotations"][0].update(fields)
        path.write_text(json.dumps(content))

    return change


@pytest.mark.parametrize(
    ("change", "words", "message"),
    [
        (without("."), [], "--data {folder}: no such folder"),
        (without("images"), [], "no image folder {folder}/images; say where the images are with --images"),
        (
            without("annotations_val.json"),
            [],
            "no annotation file {folder}/annotations_val.json; say where it is with --val-annotations",
        ),
        (with_text("{"), [], "--train-annotations: {folder}/annotations_train.json is not valid JSON"),
        (changed(category_id=9), [], "has the unknown category 9; the file defines 1, 2, 3"),
        (without("images/train_00002.png"), [], "1 of 6 images"),
        (None, ["-o", "console"], "option 'console': write PLUGIN.KEY=VALUE"),
        (None, ["--resume", "nothing"], "no run 'nothing'"),
        (None, ["--plugins", "nosuch"], "nosuch"),
        (None, ["--weights", "coco"], "--weights coco: there are no 'coco' weights for the backbone 'tiny'"),
        (None, ["--weights", "nowhere.pth"], "--weights nowhere.pth"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_two(
    run: Callable[..., int],
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[Path], None] | None,
    words: list[str],
    message: str,
) -> None:
    if change:
        change(folder)
    assert run("--data", str(folder), *SMALL, *words) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith("losslog train: ")
    assert message.format(folder=folder) in said[0]
    assert not (tmp_path / "runs").exists() or not [*tmp_path.glob("runs/*/*")]


def test_a_finished_run_is_not_resumed(
    run: Callable[..., int], shapes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data", str(shapes), "--epochs", "1", "--steps-per-epoch", "1", *SMALL]
    assert run(*words) == 0
    capsys.readouterr()
    assert run(*words, "--resume", "latest") == 2
    assert "all 1 epochs are done; ask for more with --epochs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--backbone", "resnet18"], "--backbone resnet18: the run has tiny, and the checkpoint has the weights"),
        (["--optimizer", "adamw"], "--optimizer adamw: the run has sgd, and the checkpoint has the state"),
        (["--weights", "coco"], "--weights coco: the run has None, and the checkpoint has the weights"),
        (["--name", "other"], "no runs of 'other'"),
        (["--epochs", "1"], "all 1 epochs are done; ask for more with --epochs"),
    ],
)
def test_what_cannot_change_at_a_resume_is_refused(
    run: Callable[..., int],
    shapes: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    data = ["--data", str(shapes)]
    assert run(*data, "--steps-per-epoch", "1", "--epochs", "1", *SMALL) == 0
    before = len(journal(tmp_path))
    capsys.readouterr()
    assert run(*data, "--epochs", "2", "--resume", "latest", *words) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert message in said
    assert len(journal(tmp_path)) == before


@pytest.fixture(scope="module")
def finished_run(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of one epoch, to be copied."""
    home = tmp_path_factory.mktemp("finished")
    words = ["--data", str(shapes), "--steps-per-epoch", "1", "--epochs", "1", "--dir", str(home / "runs"), *SMALL]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOSSLOG_FOLLOWER", "0")
        assert main(["train", *words]) == 0
    return home


@pytest.fixture
def resume(
    finished_run: Path, run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Changes a finished run and resumes it, which is refused in one line and leaves the run as it was."""

    def call(change: Callable[[dict[str, Any], dict[str, Any]], None], *words: str, rc: int = 2) -> str:
        shutil.copytree(finished_run / "runs", tmp_path / "runs", dirs_exist_ok=True)
        (path,) = tmp_path.glob("runs/*/*/journal.jsonl")
        (file,) = path.parent.glob("checkpoints/*.pth")
        lines, content = path.read_text().splitlines(), torch.load(file, weights_only=True)
        first = json.loads(lines[0])
        change(first["data"]["config"], content)
        path.write_text("\n".join([json.dumps(first), *lines[1:], ""]))
        torch.save(content, file)
        (path.parent / "journal.index").unlink(missing_ok=True)
        before = path.read_bytes()
        capsys.readouterr()
        assert run("--epochs", "2", "--resume", "latest", "--plugins", "console", "--device", "cpu", *words) == rc
        said = capsys.readouterr().err
        if rc:
            assert path.read_bytes() == before
            assert said.count("\n") == 1
        return said

    return call


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("batch_size", -1, "its batch size is -1: it has to be whole number: -1 is not at least 1; say --batch-size"),
        ("batch_size", "2", "its batch size is '2': it is no number; say --batch-size"),
        ("batch_size", 10**400, "is more than 2147483647; say --batch-size"),
        ("batch_size", None, "its batch size is None: nothing stands there"),
        ("accumulate", 0, "0 is not at least 1; say --accumulate"),
        ("accumulate", 1.5, "its accumulate is 1.5: it is no whole number"),
        ("steps_per_epoch", -5, "-5 is not at least 1; say --steps-per-epoch"),
        ("schedule", "\x1b[31mX\n", "there are step, cosine, onecycle, constant; say --schedule"),
        ("optimizer", {}, "its optimizer is {}: it is no name; say --optimizer"),
        ("backbone", "../../x", "there are resnet50, resnet18, tiny; say --backbone"),
        ("seed", 10**400, "is more than 9223372036854775807; say --seed"),
        ("image_size", 10**7, "10000000 is more than 16384; say --image-size"),
        ("lr", float("nan"), "nan is not a positive number; say --lr"),
        ("lr", True, "its lr is True: it is no number"),
        ("weight_decay", -1, "say --weight-decay"),
        ("amp", 3, "its amp is 3: it is neither true nor false; say --amp"),
        ("data", [1], "its data is [1]: it is no name; say --data"),
        ("data", "a\0b", "it is no name; say --data"),
        ("images", "\ud800", "it is no name; say --images"),
        ("non_finite", [], "its non finite is []: it is no name"),
        ("evaluate_every", "x", "its evaluate every is 'x': it is no number; say --evaluate-every"),
    ],
)
def test_a_setting_of_a_journal_that_cannot_be_used_is_refused(
    resume: Callable[..., str], key: str, value: Any, told: str
) -> None:
    assert told in resume(lambda config, content: config.update({key: value}))


def test_a_setting_that_is_given_again_may_be_anything_in_the_journal(resume: Callable[..., str]) -> None:
    odd = {"batch_size": {"a": "\x1b[31m"}, "backbone": 7, "data": "\0"}
    where = ["--batch-size", "3", "--backbone", "tiny"]
    assert "--data" in resume(lambda config, content: config.update(odd), *where)


def momentum(content: dict[str, Any], value: Any) -> None:
    content["optimizer"]["state"][0] = {"momentum_buffer": value}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda content: content.update(epoch=-3), "its epoch is -3"),
        (lambda content: content.update(epoch=10**12), "it has done 1000000000000 epochs; ask for more with --epochs"),
        (lambda content: content.update(step="x"), "its step is 'x'"),
        (lambda content: content.update(optimizer=None), "its optimizer is None"),
        (lambda content: content.update(rng={}), "the checkpoint is of another model or optimizer"),
        (lambda content: content.update(scaler={}), "the checkpoint has a scaler"),
        (lambda content: content.update(scheduler=None), "the checkpoint has no scheduler"),
        (lambda content: content.update(model={}), "the checkpoint is of another model or optimizer"),
        (lambda content: content["optimizer"]["param_groups"][0].update(lr="x"), "optimizer's lr (group 0) cannot"),
        (lambda content: content["optimizer"]["param_groups"][1].update(momentum=-1.0), "optimizer's momentum (group"),
        (lambda content: content["optimizer"]["param_groups"][1].update(params=7), "its optimizer is of other param"),
        (lambda content: momentum(content, "x"), "its optimizer's state of parameter 0 cannot be used"),
        (lambda content: momentum(content, torch.ones(1, 1)), "its optimizer's state of parameter 0 cannot be used"),
        (lambda content: content["optimizer"]["state"].update({0: 3}), "state of parameter 0 cannot be used"),
        (lambda content: content["scheduler"].update(last_epoch=10**400), "its scheduler's last_epoch cannot be used"),
        (lambda content: content["scheduler"].update(base_lrs=[1]), "its scheduler's base_lrs cannot be used"),
        (lambda content: content["scheduler"].pop("_last_lr"), "its scheduler's _last_lr cannot be used"),
    ],
)
def test_a_checkpoint_that_cannot_be_gone_on_with_is_refused_before_the_run_is_touched(
    resume: Callable[..., str], change: Callable[[dict[str, Any]], None], told: str
) -> None:
    assert told in resume(lambda config, content: change(content))


def test_what_another_version_has_besides_or_lacks_is_no_matter(resume: Callable[..., str], tmp_path: Path) -> None:
    def change(config: dict[str, Any], content: dict[str, Any]) -> None:
        content["scheduler"]["step"] = "no method"
        content["optimizer"]["param_groups"][0]["fused"] = "x"
        for key in ("momentum", "dampening", "weight_decay"):
            del content["optimizer"]["param_groups"][1][key]
        config["weights"] = str(tmp_path / "gone.pth")  # the checkpoint has them

    said = resume(change, rc=0)
    assert "goes on after epoch 1, from epoch_001.pth, with" in said


def test_no_file_is_named_that_was_not_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, finished_run: Path
) -> None:
    caplog.set_level("INFO", "losslog")
    shutil.copytree(finished_run / "runs", tmp_path / "runs")
    (path,) = tmp_path.glob("runs/*/*/journal.jsonl")
    (tmp_path / "secret.txt").write_text("secret")
    lines = path.read_text().replace("checkpoints/epoch_001.pth", str(tmp_path / "secret.txt"))
    path.write_text(lines)
    assert main(["train", "--dir", str(tmp_path / "runs"), "--epochs", "2", "--resume", "latest", *SMALL]) == 0
    assert "resuming" in caplog.text
    assert "secret.txt" not in caplog.text


def test_data_with_other_classes_is_not_resumed_on(
    run: Callable[..., int], shapes: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--data", str(shapes), "--steps-per-epoch", "1", "--epochs", "1", *SMALL) == 0
    for path in folder.glob("*.json"):
        path.write_text(path.read_text().replace('"circle"', '"disc"'))
    assert run("--data", str(folder), "--epochs", "2", "--resume", "latest") == 2
    assert "its classes are disc, square, triangle, those of the run circle, square, triangle" in (
        capsys.readouterr().err
    )


def rates(records: list[dict[str, Any]]) -> list[float]:
    return [each["lr"]["backbone"] for each in hooks(records, "on_batch_losses")]


def test_a_resumed_run_keeps_its_settings_and_says_them(
    run: Callable[..., int], shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = ["--schedule", "constant", "--steps-per-epoch", "2", "--warmup-steps", "0", "--lr", "0.002", "--seed", "5"]
    assert run("--data", str(shapes), "--epochs", "1", "--batch-size", "3", *own, *SMALL) == 0
    capsys.readouterr()
    assert run("--data", str(shapes), "--epochs", "2", "--resume", "latest", "--plugins", "console") == 0
    said = capsys.readouterr().err
    assert "goes on after epoch 1, from epoch_001.pth, with optimizer sgd, lr 0.002, schedule constant, batch " in said
    assert "batch size 3, image size 64" in said
    assert "seed 5" in said
    assert "overridden: epochs 1 -> 2" in said
    records = journal(tmp_path)
    assert rates(records) == [0.002] * 4
    config = hooks(records, "on_run_start")[-1]["config"]
    assert (config["batch_size"], config["steps_per_epoch"], config["backbone"]) == (3, 2, "tiny")


def test_a_relative_data_folder_is_where_the_run_was_begun(
    run: Callable[..., int], shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(shapes.parent)
    assert run("--data", shapes.name, "--epochs", "1", "--steps-per-epoch", "2", *SMALL) == 0
    monkeypatch.chdir(tmp_path / "elsewhere")
    Path(shapes.name).mkdir()  # of the same name, and another
    assert run("--epochs", "2", "--resume", "latest", "--plugins", "console") == 0
    assert f"data {shapes}" in capsys.readouterr().err
    assert hooks(journal(tmp_path), "on_run_start")[-1]["config"]["data"] == str(shapes)
    assert run("--data", shapes.name, "--epochs", "3", "--resume", "latest", "--plugins", "console") == 2
    assert f"no image folder {shapes.name}/images" in capsys.readouterr().err  # the one that is given, and is empty
    monkeypatch.chdir(shapes.parent)
    assert run("--data", shapes.name, "--epochs", "3", "--resume", "latest", "--plugins", "console") == 0
    assert "overridden: epochs 2 -> 3\n" in capsys.readouterr().err  # the same folder by another name


def test_what_is_given_again_at_a_resume_is_used(
    run: Callable[..., int], shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = ["--schedule", "constant", "--steps-per-epoch", "2", "--warmup-steps", "0", "--lr", "0.002"]
    assert run("--data", str(shapes), "--epochs", "1", *own, *SMALL) == 0
    capsys.readouterr()
    again = ["--epochs", "3", "--lr", "0.0001", "--weight-decay", "0", "--seed", "9", "--batch-size", "1"]
    again += ["--image-size", "48", "--schedule", "step"]
    assert run("--data", str(shapes), "--resume", "latest", *again, "--plugins", "console") == 0
    said = capsys.readouterr().err
    assert "lr 0.002 -> 0.0001" in said
    for change in (
        "epochs 1 -> 3",
        "batch size 2 -> 1",
        "image size 64 -> 48",
        "seed 0 -> 9",
        "schedule constant -> step",
    ):
        assert change in said
    assert rates(journal(tmp_path)) == pytest.approx([0.002, 0.002, 1e-4, 1e-4, 1e-5, 1e-5])
    last = sorted(tmp_path.glob("runs/*/*/checkpoints/*.pth"))[-1]
    groups = torch.load(last, weights_only=True)["optimizer"]["param_groups"]
    assert {group["weight_decay"] for group in groups} == {0.0}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_where_there_is_none_is_said(
    run: Callable[..., int], shapes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--data", str(shapes), "--device", "cuda") == 2
    assert "--device cuda: torch finds no CUDA device here; use --device cpu" in capsys.readouterr().err


def test_missing_packages_are_named_with_the_remedy(
    run: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert run("--data", "anything") == 2
    said = capsys.readouterr().err
    assert "torch and torchvision and pycocotools not installed" in said
    assert "pip install" in said


@pytest.mark.parametrize("words", [["--epochs", "0"], ["--lr", "nan"], ["--batch-size", "two"], ["--workers", "-1"]])
def test_values_out_of_range_are_usage_errors(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        run("--data", "anything", *words)
    assert caught.value.code == 2
    assert words[0] in capsys.readouterr().err


def test_dropped_objects_are_said_in_one_line(
    run: Callable[..., int], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed(bbox=[0, 0, 0, 5])(folder)
    assert run("--data", str(folder), "--epochs", "1", "--steps-per-epoch", "1", *SMALL) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "left out of" in line]
    assert said == [
        f"losslog train: {folder}/annotations_val.json: "
        "objects with a box without area inside the image, left out of the validation losses: 1 (annotation 1)"
    ]


def test_importing_the_commands_imports_no_torch() -> None:
    code = "import sys, losslog.cli.train, losslog.cli.demo; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_ctrl_c_ends_the_run_as_stopped_with_exit_code_130(shapes: Path, tmp_path: Path) -> None:
    words = ["train", "--data", str(shapes), "--dir", str(tmp_path / "runs"), "--epochs", "500", *SMALL]
    code = "import sys; from losslog.cli import main; sys.exit(main(sys.argv[1:]))"
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", code, *words],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if "Epoch 1/500" in line:
                break
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert hooks(journal(tmp_path), "on_run_end")[-1]["status"] == "stopped"
