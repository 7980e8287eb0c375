"""Delivered, skipped and undelivered records are told apart, also weeks later; what was skipped can be tried again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import losslog
from losslog.cli import main

PLUGIN = """
import json, os, pathlib
from losslog import hookimpl

class Plugin:
    def __init__(self, fault=""):
        self.fault = fault
        self.path = pathlib.Path(os.environ["WHERE"])

    @hookimpl
    def on_batch_losses(self, run, seq, step):
        if str(step) in os.environ.get("BAD", "").split(","):
            raise ValueError(f"step {step} is refused")
        with open(self.path, "a") as file:
            file.write(f"{step}\\n")
"""


@pytest.fixture
def backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: Callable[..., str]) -> Path:
    package(PLUGIN, "picky")
    path = tmp_path / "backend.txt"
    monkeypatch.setenv("WHERE", str(path))
    return path


def trained(make_run: Any, monkeypatch: pytest.MonkeyPatch, bad: str, steps: int = 10) -> losslog.Run:
    monkeypatch.setenv("BAD", bad)
    run = make_run(plugins=["picky"])
    for step in range(steps):
        run.log_batch({"a": 1.0 + step})
    run.close()
    monkeypatch.delenv("BAD")
    return run


def steps_in(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_what_was_skipped_is_told_and_can_be_tried_again(
    make_run: Any, backend: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    run = trained(make_run, monkeypatch, "2,3,7")
    assert steps_in(backend) == [0, 1, 4, 5, 6, 8, 9]
    assert "picky: 3 records skipped" in caplog.text
    assert "--to picky --skipped" in caplog.text
    cursor = json.loads((run.dir / "cursors" / "picky.json").read_text())
    assert cursor["skipped"] == [[3, 4], [8, 8]]
    assert main(["show", str(run.dir)]) == 0
    assert f"picky: complete, but 3 skipped: losslog replay {run.id} --to picky --skipped" in capsys.readouterr().out
    assert main(["replay", str(run.dir), "--to", "picky"]) == 0
    assert "picky: 3 records were skipped; try them again with --skipped" in capsys.readouterr().err
    assert steps_in(backend) == [0, 1, 4, 5, 6, 8, 9]
    assert main(["replay", str(run.dir), "--to", "picky", "--skipped"]) == 0
    assert capsys.readouterr().err == "picky: 3 of 3 skipped records delivered\n"
    assert steps_in(backend) == [0, 1, 4, 5, 6, 8, 9, 2, 3, 7]
    assert main(["show", str(run.dir)]) == 0
    assert "picky: complete\n" in capsys.readouterr().out
    assert main(["replay", str(run.dir), "--to", "picky", "--skipped"]) == 0
    assert capsys.readouterr().err == "picky: 0 of 0 skipped records delivered\n"


def test_what_fails_again_stays_skipped(
    make_run: Any, backend: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained(make_run, monkeypatch, "2,3,7")
    monkeypatch.setenv("BAD", "3")
    assert main(["replay", str(run.dir), "--to", "picky", "--skipped"]) == 1
    assert "picky: 2 of 3 skipped records delivered; still skipped: 1, the last: ValueError: step 3 is refused" in (
        capsys.readouterr().err
    )
    assert json.loads((run.dir / "cursors" / "picky.json").read_text())["skipped"] == [[4, 4]]


@pytest.mark.parametrize("bad", ["8,9", ",".join(map(str, range(10)))], ids=["at the end", "all"])
def test_a_lane_that_ends_amid_failures_is_undelivered_not_skipped(
    make_run: Any, backend: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], bad: str
) -> None:
    run = trained(make_run, monkeypatch, bad)
    assert main(["show", str(run.dir)]) == 0
    said = capsys.readouterr().out
    assert "picky: delivered up to record" in said
    assert "skipped" not in said
    assert main(["replay", str(run.dir), "--to", "picky"]) == 0
    assert sorted(set(steps_in(backend))) == list(range(10))
    assert "skipped" not in capsys.readouterr().err


def test_from_start_forgets_what_was_skipped(make_run: Any, backend: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trained(make_run, monkeypatch, "2")
    assert main(["replay", str(run.dir), "--to", "picky", "--from-start"]) == 0
    assert "skipped" not in json.loads((run.dir / "cursors" / "picky.json").read_text())
