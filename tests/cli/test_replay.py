"""``losslog replay``: what a backend lacks is delivered, once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import losslog
from losslog.cli.delivering import need_home
from losslog.viewing.rows import counted

pytest.importorskip("losslog_tensorboard", reason="needs losslog-tensorboard")
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def replay(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "losslog", "replay", str(folder), *args]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=folder.parent, env=os.environ.copy(), timeout=120
    )


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    reader = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    reader.Reload()
    return {tag: [(each.step, each.value) for each in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}


def train(run: losslog.Run, epochs: int = 2, steps: int = 10) -> None:
    for _ in range(epochs):
        for step in range(steps):
            run.log_batch({"a": 1.0 + step, "b": 2.0}, lr=0.1)
        run.log_eval({"bbox": {"AP": 0.5}})
        run.end_epoch(val_loss=3.0)


def test_a_backend_that_was_not_there(make_run: Callable[..., losslog.Run]) -> None:
    run = make_run(plugins=None)
    train(run)
    run.close()
    done = replay(run.dir, "--to", "tensorboard")
    assert (done.returncode, done.stderr) == (0, "tensorboard: 26 records delivered\n")
    assert len(scalars(run.dir / "tensorboard" / "batch")["batch/train_a"]) == 20
    assert scalars(run.dir / "tensorboard")["loss/train_total"] == [(1, 7.5), (2, 7.5)]


def test_a_second_replay_sends_nothing(make_run: Callable[..., losslog.Run]) -> None:
    run = make_run(plugins=None)
    train(run)
    run.close()
    replay(run.dir, "--to", "tensorboard")
    before = scalars(run.dir / "tensorboard" / "batch")
    assert replay(run.dir, "--to", "tensorboard").stderr == "tensorboard: 0 records delivered\n"
    assert scalars(run.dir / "tensorboard" / "batch") == before


def test_from_start_fills_a_fresh_target(make_run: Callable[..., losslog.Run], tmp_path: Path) -> None:
    run = make_run(plugins=["tensorboard"])
    train(run)
    run.close()
    fresh = tmp_path / "fresh"
    done = replay(run.dir, "--to", "tensorboard", "--from-start", "-o", f"tensorboard.log_dir={fresh}")
    assert done.returncode == 0
    assert len(scalars(fresh / "batch")["batch/train_a"]) == 20


def test_a_crashed_run_is_ended_first(make_run: Callable[..., losslog.Run]) -> None:
    run = make_run(plugins=None)
    train(run, epochs=1)
    run.close()
    journal = run.dir / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:-1]) + lines[-1][:20])  # killed while it wrote its last line
    assert replay(run.dir, "--to", "tensorboard").returncode == 0
    last = json.loads(journal.read_text().splitlines()[-1])
    assert (last["hook"], last["data"]) == ("on_run_end", {"status": "crashed"})


def test_a_live_run_is_refused(make_run: Callable[..., losslog.Run]) -> None:
    run = make_run(plugins=None)
    done = replay(run.dir, "--to", "tensorboard")
    run.close()
    assert done.returncode == 2
    assert "is still live: use losslog follow" in done.stderr


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--to", "nosuch"], "no plugin named 'nosuch' is installed"),
        (["--to", "tensorboard", "-o", "tensorboard.colour=1"], "colour"),
        (["--to", "tensorboard", "-o", "colour"], "write PLUGIN.KEY=VALUE"),
        (["--to", "tensorboard", "-o", "wandb.mode=offline"], "which --to does not name"),
    ],
)
def test_errors_name_the_fix(make_run: Callable[..., losslog.Run], args: list[str], words: str) -> None:
    run = make_run(plugins=None)
    run.close()
    done = replay(run.dir, *args)
    assert done.returncode == 2
    assert words in done.stderr


def test_alerts_of_a_replay_are_not_written(make_run: Callable[..., losslog.Run], package: Callable[..., str]) -> None:
    package(
        """
from losslog import hookimpl
class Plugin:
    @hookimpl
    def on_batch_losses(self, run):
        run.alert("again")
""",
        "shouts",
    )
    run = make_run(plugins=None)
    run.log_batch(1.0)
    run.close()
    before = (run.dir / "journal.jsonl").read_bytes()
    assert replay(run.dir, "--to", "shouts").returncode == 0
    assert (run.dir / "journal.jsonl").read_bytes() == before


@pytest.mark.skipif(sys.platform == "win32", reason="user ids")
def test_a_user_without_a_home_gets_the_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a container's user that is a number only: MLflow and W&B cannot be imported without a home."""
    import pwd

    def nobody(uid: int) -> None:
        raise KeyError(f"uid not found: {uid}")

    monkeypatch.setenv("HOME", "before")
    need_home(tmp_path)
    assert os.environ["HOME"] == "before"
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    need_home(tmp_path)
    assert Path.home() == tmp_path


@pytest.mark.parametrize(("drop", "garble"), [((), (5, 9)), ((4, 5, 6), ()), ((7,), (12, 13, 20)), ((), ())])
def test_only_what_was_delivered_is_said_to_be(
    make_run: Callable[..., losslog.Run], drop: tuple[int, ...], garble: tuple[int, ...]
) -> None:
    run = make_run(plugins=None)
    train(run)
    run.close()
    journal = run.dir / "journal.jsonl"
    lines = journal.read_bytes().splitlines()
    there = len(lines) - len(drop) - len(garble)
    lines = [b"{garbled" if place in garble else line for place, line in enumerate(lines) if place not in drop]
    journal.write_bytes(b"\n".join(lines) + b"\n")
    said = replay(run.dir, "--to", "tensorboard").stderr
    assert f"tensorboard: {there} records delivered\n" in said
    lost = f"{counted(len(garble), 'garbled line')}, {counted(len(drop) + len(garble), 'record')} missing there"
    assert (f"tensorboard: the journal is damaged: {lost}\n" in said) == bool(drop or garble)


@pytest.mark.parametrize("kind", ["the first again", "each twice", "all again backwards", "backwards", "two halves"])
def test_of_a_journal_whose_numbers_fall_every_line_counts(make_run: Callable[..., losslog.Run], kind: str) -> None:
    run = make_run(plugins=None)
    train(run)
    run.close()
    journal = run.dir / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    half = len(lines) // 2
    lines = {
        "the first again": [*lines[:half], lines[0], *lines[half:]],
        "each twice": [line for line in lines for _ in range(2)],
        "all again backwards": [*lines, *lines[::-1]],
        "backwards": [lines[0], *lines[-2:0:-1], lines[-1]],
        "two halves": [*lines[:half], *lines],
    }[kind]
    journal.write_bytes(b"".join(lines))
    said = replay(run.dir, "--to", "tensorboard").stderr
    there = journal.read_bytes().count(b"\n")  # where its end is not the last line, another end comes
    assert there - len(lines) == (kind == "all again backwards")
    assert f"tensorboard: {there} records delivered\n" in said
    assert "missing" not in said
    assert "tensorboard: 0 records delivered\n" in replay(run.dir, "--to", "tensorboard").stderr
