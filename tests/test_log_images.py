"""`Run.log_images`: a record like every other; where its pictures may be read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import losslog
from losslog.cli import main
from losslog.history import records
from losslog.journal.folder import JOURNAL
from losslog.testing import Recorder

Made = Callable[..., losslog.Run]
KEEPS = """
import json, pathlib
from losslog import hookimpl
class Plugin:
    @hookimpl
    def on_images(self, epoch, split, name, images, run):
        with open(pathlib.Path(run.dir, "seen.txt"), "a") as file:
            for each in images:
                file.write(json.dumps([epoch, split, name, each["id"], each["path"], each["thumbnail"]]) + "\\n")
"""


def image(number: int, path: str | Path | None = None, **more: Any) -> dict[str, Any]:
    return {"id": number, "path": path, "width": 8, "height": 6, "truth": [], "predictions": [], **more}


def told(run: losslog.Run) -> list[dict[str, Any]]:
    return [each.data for each in records(run.dir) if each.hook == "on_images"]


def test_it_is_a_record_with_the_epoch_and_step_it_belongs_to(make_run: Made, tmp_path: Path) -> None:
    probe = Recorder()
    run = make_run(plugins=[probe])
    run.log_batch({"a": 1.0})
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "1.jpg").write_bytes(b"x")
    run.log_images("val", [image(1, tmp_path / "data" / "1.jpg"), image(2, "gone.jpg")], name="fixed",
                   folder=tmp_path / "data")  # fmt: skip
    run.end_epoch()
    run.close()
    (data,) = told(run)
    assert (data["epoch"], data["step"], data["split"], data["name"]) == (1, 0, "val", "fixed")
    assert [each["path"] for each in data["images"]] == ["1.jpg", "gone.jpg"]
    assert data["folder"] == str(tmp_path / "data")
    (call,) = probe.of("on_images")
    assert [each["path"] for each in call["images"]] == [os.path.realpath(tmp_path / "data" / "1.jpg"), None]


def test_a_picture_elsewhere_keeps_its_absolute_path_and_one_in_the_run_folder_moves_with_it(
    make_run: Made, tmp_path: Path
) -> None:
    run = make_run()
    run.log_images("val", [image(1, tmp_path / "a.jpg"), image(2, run.dir / "pictures" / "b.jpg")])
    run.close()
    (data,) = told(run)
    assert [each["path"] for each in data["images"]] == [str(tmp_path / "a.jpg"), "pictures/b.jpg"]


def test_what_is_no_image_raises_at_once_and_nothing_is_lost(make_run: Made) -> None:
    run = make_run()
    run.log_batch({"a": 1.0})
    with pytest.raises(ValueError, match=r"images\[1\] has no 'width'"):
        run.log_images("val", [image(1), {"id": 2}])
    run.log_batch({"a": 2.0})
    run.close()
    assert [each.hook for each in records(run.dir)].count("on_batch_losses") == 2
    assert told(run) == []


def test_too_much_is_cut_and_said_once(make_run: Made, caplog: pytest.LogCaptureFixture) -> None:
    run = make_run()
    for _ in range(2):
        run.log_images("val", [image(number) for number in range(20)])
    run.close()
    assert [len(each["images"]) for each in told(run)] == [16, 16]
    assert caplog.text.count("4 of 20 images left out") == 1


def test_a_resume_makes_those_of_later_epochs_void(make_run: Made) -> None:
    run = make_run()
    for epoch in (1, 2, 3):
        run.log_batch({"a": 1.0})
        run.log_images("val", [image(epoch)])
        run.end_epoch()
    run.close()
    again = make_run(resume=run.dir, resume_epoch=1)
    again.log_batch({"a": 1.0})
    again.log_images("val", [image(20)])
    again.close()
    assert [(each["epoch"], each["images"][0]["id"]) for each in told(again)] == [(1, 1), (2, 20)]


def test_importing_losslog_and_logging_images_imports_nothing_heavy(tmp_path: Path) -> None:
    script = (
        "import sys, losslog\n"
        f"run = losslog.Run('x', dir={str(tmp_path)!r}, plugins=None)\n"
        "run.log_images('val', [{'id': 1, 'width': 2, 'height': 2}])\n"
        "run.close()\n"
        "print([each for each in ('numpy', 'PIL', 'torch', 'pycocotools') if each in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


# ---------------------------------------------------------------------- whose pictures


def replayed(folder: Path, *args: str) -> tuple[list[Any], str]:
    (folder / "seen.txt").unlink(missing_ok=True)
    line = [sys.executable, "-m", "losslog", "replay", str(folder), "--to", "keeps", "--from-start", *args]
    done = subprocess.run(line, capture_output=True, text=True, cwd=folder.parent, timeout=60)
    assert done.returncode == 0, done.stderr
    return [json.loads(each) for each in (folder / "seen.txt").read_text().splitlines()], done.stderr


@pytest.fixture
def stranger(make_run: Made, package: Callable[..., str]) -> Callable[..., Path]:
    """A finished run whose journal names these pictures and this data folder."""
    package(KEEPS, "keeps")

    def make(paths: list[str], folder: str | None = None, thumbnails: list[str] | None = None) -> Path:
        run = make_run()
        run.log_images("val", [image(number) for number in range(len(paths))], name="fixed")
        run.close()
        journal = run.dir / JOURNAL
        lines = [json.loads(line) for line in journal.read_text().splitlines()]
        for line in lines:
            if line["hook"] == "on_images":
                line["data"]["folder"] = folder
                for place, (each, path) in enumerate(zip(line["data"]["images"], paths, strict=True)):
                    each["path"], each["thumbnail"] = path, thumbnails[place] if thumbnails else None
        journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return run.dir

    return make


@pytest.mark.skipif(os.name == "nt", reason="links need a right there")
def test_a_journal_reads_no_picture_from_outside_the_run_folder(stranger: Any, tmp_path: Path) -> None:
    secret = tmp_path / "private" / "me.jpg"
    secret.parent.mkdir()
    secret.write_bytes(b"private")
    ways = [
        "in.jpg",
        str(secret),
        "../../../private/me.jpg",
        "link.jpg",
        "linked/me.jpg",
        "pipe",
        "me.jpg",
        "a\0b",
        ".",
    ]
    folder = stranger(ways, str(secret.parent), ["in.jpg", *ways[1:]])
    (folder / "in.jpg").write_bytes(b"x")
    (folder / "link.jpg").symlink_to(secret)
    (folder / "linked").symlink_to(secret.parent, target_is_directory=True)
    os.mkfifo(folder / "pipe")
    probe = losslog.delivery.trust.Trust()
    data = next(each.data for each in records(folder) if each.hook == "on_images")
    seen = probe.seen(data, folder, 5)["images"]
    own = os.path.realpath(folder / "in.jpg")
    assert [each["path"] for each in seen] == [own, *[None] * 8]
    assert [each["thumbnail"] for each in seen] == [own, *[None] * 8]


def test_a_data_folder_named_on_the_command_line_is_a_place_too(stranger: Any, tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "sub").mkdir(parents=True)
    (data / "sub" / "1.jpg").write_bytes(b"x")
    (tmp_path / "2.jpg").write_bytes(b"x")
    folder = stranger(["sub/1.jpg", "../2.jpg", str(data / "sub" / "1.jpg")], str(data))
    seen, said = replayed(folder)
    assert [each[4] for each in seen] == [None, None, None]
    assert said.count("say --images-in FOLDER") == 1
    seen, said = replayed(folder, "--images-in", str(data))
    there = os.path.realpath(data / "sub" / "1.jpg")
    assert [each[4] for each in seen] == [there, None, there]


def test_a_parent_of_the_data_folder_may_be_named_and_has_to_be_there(
    stranger: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "all" / "data"
    data.mkdir(parents=True)
    (data / "1.jpg").write_bytes(b"x")
    (tmp_path / "2.jpg").write_bytes(b"x")
    folder = stranger(["1.jpg", "../../2.jpg"], str(data))
    seen, _ = replayed(folder, "--images-in", str(tmp_path / "all"))
    assert [each[4] for each in seen] == [os.path.realpath(data / "1.jpg"), None]
    missing = str(tmp_path / "none")
    for line in (["replay", str(folder), "--to", "console", "--images-in", missing],
                 ["report", str(folder), "--images-in", missing], ["run", "--images", missing, "a.py"]):  # fmt: skip
        with pytest.raises(SystemExit) as ended:
            main(line)
        assert ended.value.code == 2
        assert f"no such folder: {missing}" in capsys.readouterr().err


def test_the_process_that_logs_reads_its_own_and_of_a_resumed_run_no_others(
    stranger: Any, make_run: Made, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "1.jpg").write_bytes(b"x")
    folder = stranger(["1.jpg"], str(data))
    run = make_run(resume=folder, plugins=["keeps"])
    run.log_images("val", [image(7, "1.jpg")], name="mine", folder=data)
    run.close()
    lines = [json.loads(each) for each in (folder / "seen.txt").read_text().splitlines()]
    assert [(each[2], each[4]) for each in lines] == [
        ("fixed", None),
        ("mine", os.path.realpath(data / "1.jpg")),
    ]
