"""``losslog show``: what a journal says, also one that somebody else made."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import losslog
from losslog.cli import main
from losslog.journal.folder import JOURNAL
from losslog.journal.records import Record, encode


@pytest.fixture
def folder(make_run: Callable[..., losslog.Run], probe: Any) -> Path:
    run = make_run(plugins=[probe], epochs=3)
    for epoch in (1, 2):
        run.log_batch({"a": 1.0 * epoch})
        run.log_eval({"bbox": {"AP": 0.25 * epoch, "AR1": 0.9}})
        run.end_epoch()
    run.alert("look here")
    run.close()
    return run.dir


def test_a_run_in_a_few_lines(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(folder)]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"test {folder.name}: finished\n")
    for line in ("epochs 2 of 3, steps 2, evals 2, checkpoints 0, alerts 1", "   loss/train_a 2",
                 "best mAP/bbox_AP 0.5000 (epoch 2)", "warning: look here (step 1)", "Probe: complete"):  # fmt: skip
        assert line in out


def test_the_gravest_alerts_first_and_the_first_as_well_as_the_last(
    make_run: Callable[..., losslog.Run], capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run()
    run.log_batch(1.0)
    run.alert("loss is nan", level="error", key="nan")
    for number in range(20):
        run.alert(f"warning {number}")
    run.alert("by the way", level="info")
    run.close()
    assert main(["show", str(run.dir)]) == 0
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("error", "warn", "info", "and "))]
    numbers = (0, 1, 2, 3, 4, 18, 19)
    assert told == ["error: loss is nan (step 0)", *(f"warning: warning {number} (step 0)" for number in numbers),
                    "and 14 alerts more, in losslog report and losslog cat"]  # fmt: skip


def wrong(name: str, **mistakes: int) -> dict[str, Any]:
    return {"id": name, "path": f"{name}.png", "width": 4, "height": 4, "mistakes": mistakes}


def test_images_that_were_logged_by_hand_are_among_the_hard_ones(
    make_run: Callable[..., losslog.Run], capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run()
    run.log_batch({"a": 1.0})
    run.log_images("val", [wrong("few", missed=1), wrong("none"), wrong("many", missed=2, wrong_class=1)], name="mine")
    run.close()
    assert main(["show", str(run.dir), "--hard"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in told[1:]] == ["many", "few"]
    assert "2 missed, 1 wrong class  " in told[1]
    assert main(["show", str(run.dir), "--hard", "--json"]) == 0
    assert [each["id"] for each in json.loads(capsys.readouterr().out)["images"]] == ["many", "few"]


def test_what_an_evaluation_found_the_hardest_comes_before_what_was_logged(
    make_run: Callable[..., losslog.Run], capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run()
    run.log_batch({"a": 1.0})
    run.log_images("val", [wrong("first", missed=1), wrong("second", missed=9)], name="hardest")
    run.log_images("val", [wrong("mine", missed=20)], name="mine")
    run.close()
    assert main(["show", str(run.dir), "--hard"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]] == ["first", "second"]


def test_nothing_known_of_images_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(folder), "--hard"]) == 0
    assert "log what losslog.detection.images_of gives" in capsys.readouterr().out


def test_for_machines(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["status"], found["counts"]["on_batch_losses"], found["plugins"]["Probe"]["complete"]) == (
        "finished", 2, True,
    )  # fmt: skip


def test_a_plugin_that_got_nothing_is_not_left_out(
    make_run: Callable[..., losslog.Run], package: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    package("""
        from losslog import hookimpl
        class Plugin:
            @hookimpl
            def on_flush(self):
                raise ConnectionError("away")
        """, "away")  # fmt: skip
    run = make_run(plugins=["away"])
    run.log_batch(1.0)
    run.close(1)
    assert main(["show", str(run.dir)]) == 0
    assert "away: nothing delivered" in capsys.readouterr().out.splitlines()


def test_a_live_run(make_run: Callable[..., losslog.Run], capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run()
    assert main(["show", str(run.dir)]) == 0
    assert "running" in capsys.readouterr().out


def test_a_killed_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = (folder / JOURNAL).read_bytes().splitlines(keepends=True)
    (folder / JOURNAL).write_bytes(b"".join(lines[:-1])[:-10])
    assert main(["show", str(folder)]) == 0
    assert "crashed" in capsys.readouterr().out


def write(folder: Path, *found: tuple[str, dict[str, Any]]) -> Path:
    folder.mkdir(parents=True)
    lines = [encode(Record(seq, 1000.0 + seq, hook, data)) for seq, (hook, data) in enumerate(found)]
    (folder / JOURNAL).write_bytes(b"".join(lines))
    return folder


EVIL = "\x1b]0;owned\x07\x1b[31m\x9b1m\u202e"


def test_nothing_in_a_foreign_folder_steers_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write(
        tmp_path / f"a{EVIL[1:5]}" / f"b{EVIL}",
        ("on_run_start", {"name": EVIL, "epochs": EVIL}),
        ("on_batch_losses", {"step": EVIL, "epoch": 1, "losses": {EVIL: 1.0}, "total": 1.0}),
        ("on_eval", {"epoch": 1, "split": EVIL, "metrics": {EVIL: {"AP": 0.5}, f"x{EVIL}": 0.25}}),
        ("on_epoch_end", {"epoch": EVIL, "losses": {EVIL: 1.0}, "total": 1.0}),
        ("on_alert", {"level": EVIL, "title": EVIL, "step": EVIL, "key": "a"}),
        ("on_run_end", {"status": EVIL}),
    )
    (folder / "cursors").mkdir()
    (folder / "cursors" / f"{EVIL}.json").write_text('{"offset": 0, "seq": 0, "start": 0}')
    assert main(["show", str(folder)]) == 0
    captured = capsys.readouterr()
    assert [char for char in captured.out + captured.err if not char.isprintable() and char != "\n"] == []


ODD = ["x", None, [], {}, [1], {"a": "b"}, {"a": None}, {"": 1.0}, 1e999, -1, True, {"a": {"b": {"c": 1}}}]


@pytest.mark.parametrize("value", ODD, ids=repr)
def test_a_foreign_journal_with_data_of_any_kind_is_shown(
    tmp_path: Path, value: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    names = (
        *("step", "epoch", "epochs", "losses", "total", "val_loss", "lr", "split", "metrics"),
        *("level", "title", "key", "name", "config", "status", "options"),
    )
    data = dict.fromkeys(names, value)
    found = [("on_run_start", data), ("on_batch_losses", data), ("on_eval", data), ("on_epoch_end", data),
             ("on_alert", data), ("on_checkpoint", data), ("on_metrics", data)]  # fmt: skip
    folder = write(tmp_path / "n" / "r", *found)
    assert main(["show", str(folder)]) == 0
    assert "crashed" in capsys.readouterr().out


def test_a_journal_garbled_anywhere_is_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng, whole = random.Random(7), (folder / JOURNAL).read_bytes()
    for _ in range(300):
        bad = bytearray(whole)
        for _ in range(rng.choice([1, 1, 5, 40])):
            bad[rng.randrange(len(bad))] = rng.randrange(256)
        (folder / JOURNAL).write_bytes(bytes(bad[: rng.randrange(1, len(bad) + 1)]))
        assert main(["show", str(folder)]) == 0
    assert capsys.readouterr().err == ""


def test_nothing_from_a_foreign_folder_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "n" / "r", ("on_run_start", {"name": "x", "options": {"evil": {"a": 1}}}))
    for name in ("evil.py", "losslog.py", "conftest.py", "sitecustomize.py", "__init__.py"):
        (folder / name).write_text("raise SystemExit('executed')")
    (folder / "cursors").mkdir()
    (folder / "cursors" / "evil.json").write_bytes(b"\x80\x04cos\nsystem\n.")
    monkeypatch.chdir(folder)
    assert main(["show", "."]) == 0


def test_showing_changes_nothing(folder: Path) -> None:
    def content() -> dict[Path, bytes]:
        return {each: each.read_bytes() for each in folder.rglob("*") if each.is_file()}

    before = content()
    assert main(["show", str(folder)]) == 0
    assert content() == before
