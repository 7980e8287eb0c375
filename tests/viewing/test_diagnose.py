"""``losslog diagnose`` of components that have a past and no present: what they were is not said of what they are."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest

from losslog.cli import main
from losslog.cli.report import words_on
from losslog.viewing.parts import story_of

pytest.importorskip("losslog_plateau", reason="pip install losslog-plateau")


def written(folder: Path, book: Any, values: Any, steps: int = 600) -> Path:
    run = book(folder)
    run.start(folder.name, epochs=steps // 100, steps_per_epoch=100)
    noise = random.Random(3)
    for step in range(steps):
        b = (0.2 + 2.0 ** (-step / 100)) * (1 + 0.1 * noise.random())
        run.batch(step, {"loss_cls": values(step, b), "b": b}, step // 100 + 1)
    run.end()
    return folder


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
@pytest.mark.parametrize("since", [300, 0, 550])
def test_not_finite_since(
    tmp_path: Path, book: Any, capsys: pytest.CaptureFixture[str], wrong: float, since: int
) -> None:
    folder = written(tmp_path / "nan", book, lambda step, b: wrong if step >= since else b)
    assert main(["diagnose", str(folder)]) == 0
    out = capsys.readouterr().out
    row = next(line for line in out.splitlines() if line.startswith("loss_cls"))
    assert "not finite" in row
    assert row.split()[-1] == str(since)
    assert "%" not in row
    assert f"loss_cls not finite since step {since}: lower the learning rate or clip gradients" in out
    assert f"loss_cls has not been finite since step {since}: go back to a checkpoint" in out
    assert "non_finite" not in out
    assert "stands at" not in out
    assert words_on(story_of(folder))["loss_cls"] == f"not finite since {since}"
    assert main(["diagnose", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["state"] == "non_finite"


def test_zero_has_no_level(tmp_path: Path, book: Any, capsys: pytest.CaptureFixture[str]) -> None:
    folder = written(tmp_path / "zero", book, lambda step, b: 0.0 if step >= 200 else b)
    assert main(["diagnose", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "loss_cls exactly zero since step 200" in out
    assert "%" not in next(line for line in out.splitlines() if line.startswith("loss_cls"))
    assert "stands at" not in out


@pytest.mark.parametrize(
    "options", [{"sensitivity": {}}, {"sensitivity": "x"}, {"z": "x"}, {"watch": 3}, {"nothing": 1}, [1], "x"], ids=repr
)
def test_options_of_a_journal_that_are_none_are_said_and_left(
    tmp_path: Path, book: Any, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, options: Any
) -> None:
    folder = written(tmp_path / "odd", book, lambda step, b: b)
    lines = (folder / "journal.jsonl").read_text().splitlines()
    first = json.loads(lines[0])
    first["data"]["options"] = {"plateau": options}
    (folder / "journal.jsonl").write_text("\n".join([json.dumps(first), *lines[1:], ""]))
    assert main(["diagnose", str(folder)]) == 0
    out, err = capsys.readouterr()
    assert "loss_cls" in out
    assert "Traceback" not in out + err + caplog.text
    if options in ({"sensitivity": {}}, {"sensitivity": "x"}):
        assert "plateau: the options in the journal are not taken (" in caplog.text
    assert main(["diagnose", str(folder), "-o", "plateau.sensitivity=low"]) == 0
    assert main(["diagnose", str(folder), "-o", "plateau.sensitivity=[1]"]) == 2
    assert "Traceback" not in capsys.readouterr().err
