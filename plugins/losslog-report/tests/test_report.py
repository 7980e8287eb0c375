"""``report.html`` beside the journal of a real run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from losslog_report import ReportPlugin

import losslog


def data_of(path: Path) -> Any:
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', path.read_text("utf-8"), re.S)
    return json.loads(found)["runs"][0]


def epoch(run: losslog.Run, number: int) -> None:
    for _ in range(5):
        run.log_batch({"loss_mask": 1.0 / number, "loss_box": 0.5})
    run.end_epoch()


def test_the_page_is_there_while_the_run_goes_on_and_after_it(tmp_path: Path) -> None:
    plugin = ReportPlugin(seconds=0)
    plugin.near = True  # type: ignore[attr-defined]
    with losslog.Run("r", tmp_path, plugins=[plugin], follower=False) as run:
        for number in (1, 2):
            epoch(run, number)
            assert run.flush()
        epoch(run, 3)
    page = data_of(run.dir / "report.html")
    assert (page["status"], page["steps"], page["epoch"]) == ("finished", 15, 3)
    assert not list(run.dir.glob(".report*"))


def test_epochs_in_a_second_make_one_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Path] = []
    monkeypatch.setattr("losslog_report.plugin.write", lambda text, path: written.append(path))
    with losslog.Run("r", tmp_path, plugins=[ReportPlugin(seconds=1000)], follower=False) as run:
        for number in range(1, 6):
            epoch(run, number)
            run.flush()
    assert 1 <= len(written) <= 2  # the first, and the last


@pytest.mark.parametrize("options", [
    {"seconds": -1}, {"seconds": "x"}, {"seconds": True}, {"file": "../x"}, {"file": ""}, {"file": "a/b"},
    {"file": "C:x"}, {"file": ".."},
])  # fmt: skip
def test_options_that_mean_nothing(options: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match="report option"):
        ReportPlugin(**options)
