"""A stranger's plugin: written from ``docs/writing-a-plugin.md`` alone, for a backend that does not exist."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import losslog

HERE = Path(__file__).parent / "stranger"
ROOT = Path(losslog.__file__).parent.parent
PLUGIN = (HERE / "losslog_tally.py").read_text("utf-8")
LINES = 25


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the plugin is installed, with its backend's client."""
    site = tmp_path / "site"
    info = site / "losslog_tally-0.1.dist-info"
    info.mkdir(parents=True)
    for name in ("losslog_tally.py", "tally.py"):
        shutil.copy(HERE / name, site)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: losslog-tally\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[losslog.plugins]\ntally = losslog_tally:TallyPlugin\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), str(ROOT)]))
    return site


def test_it_takes_no_more_than_25_lines() -> None:
    written = [line for line in PLUGIN.splitlines() if line.strip()]
    assert len(written) <= LINES, f"{len(written)} lines"


def test_it_needs_no_name_of_losslogs_that_the_page_does_not_have() -> None:
    page = (ROOT / "docs" / "writing-a-plugin.md").read_text("utf-8")
    (imported,) = re.findall(r"^from losslog import (.+)$", PLUGIN, re.MULTILINE)
    hooks = re.findall(r"def (on_\w+)\(self, (.+)\)", PLUGIN)
    assert [name for name in imported.split(", ") if name not in page] == []
    assert [name for hook, names in hooks for name in (hook, *names.split(", ")) if f"`{name}`" not in page] == []
    assert set(losslog.__all__) >= set(imported.split(", "))


def test_it_passes_every_check(site: Path, tmp_path: Path) -> None:
    tests = tmp_path / "tests"
    tests.mkdir()
    shutil.copy(HERE / "conformance.py", tests / "test_conformance.py")
    command = [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "-p", "no:cacheprovider", "-W", "error", "-rs"]
    done = subprocess.run([*command, str(tests)], cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    skipped = re.findall(r"^SKIPPED .*: (.+)$", done.stdout, re.MULTILINE)
    without = {"the plugin has no delivered_upto", "could not import 'torch'", "could not import 'numpy'"}
    assert [reason for reason in skipped if not reason.startswith(tuple(without))] == []


def test_a_closed_board_gets_everything_once(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_run: Callable[..., losslog.Run], until: Any
) -> None:
    monkeypatch.syspath_prepend(str(site))
    run = make_run(plugins=["tally"])
    closed = run.dir / "run.board.closed"
    closed.touch()
    for step in range(3):
        run.log_batch({"loss_mask": 0.5 + step, "loss_box_reg": 0.25})
    until(lambda: run.stats["lanes"]["tally"]["state"] == "waiting", "the board is seen to be closed")
    closed.unlink()
    run.end_epoch(val_loss=0.9)
    until(lambda: run.stats["lanes"]["tally"]["state"] == "live", "the board is seen to be open")
    run.close()
    import tally

    marks = list(tally.Board(run.dir / "run.board").marks().values())
    assert [mark for mark in marks if mark[0] == "batch/train_total"] == [
        ["batch/train_total", step, 0.75 + step] for step in range(3)
    ]
    assert ["loss/val", 1, 0.9] in marks
    sys.modules.pop("tally", None)
    sys.modules.pop("losslog_tally", None)
