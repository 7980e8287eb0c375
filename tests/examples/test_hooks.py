"""The examples of hooks do what they say."""

from __future__ import annotations

import csv
import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import losslog

ROOT = Path(losslog.__file__).parent.parent
EXAMPLES = ROOT / "examples"


def run(name: str, folder: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(EXAMPLES / name)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_custom_hook(tmp_path: Path) -> None:
    lines = run("custom_hook.py", tmp_path).splitlines()
    assert lines[0].startswith("alert: loss_mask is most of the loss")
    assert lines[-1].startswith("best epoch: ")
    assert len(lines) == 2  # one key, one alert


def test_inline_stop(tmp_path: Path) -> None:
    assert run("inline_stop.py", tmp_path).startswith("stopped: the loss is ")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``pip install ./examples/package_hook`` would, without an index to fetch the build tool from."""
    site = tmp_path / "site"
    shutil.copytree(EXAMPLES / "package_hook" / "src", site)
    info = site / "losslog_csv-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: losslog-csv\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[losslog.plugins]\ncsv = losslog_csv:CsvPlugin\n")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), str(ROOT)]))
    importlib.invalidate_caches()


def rows(folder: Path) -> list[list[str]]:
    with open(folder / "epochs.csv", newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


EXPECTED = [
    [str(epoch), tag, value]
    for epoch in (1, 2)
    for tag, value in (("loss/train_a", f"{epoch}.0"), ("loss/train_total", f"{epoch}.0"), ("lr", "0.1"))
]


def test_a_package_is_found_and_runs_in_the_follower(tmp_path: Path, installed: None) -> None:
    with losslog.Run("r", dir=tmp_path / "runs", plugins=["csv"]) as each:
        for epoch in (1, 2):
            each.log_batch({"a": float(epoch)}, lr=0.1)
            each.end_epoch()
    assert rows(each.dir) == EXPECTED
    assert "losslog_csv" in sys.modules  # made here once, to see that it can be
    assert each.stats["lanes"]["csv"]["behind"] == 0


def test_a_run_from_before_it_was_installed_can_be_replayed(tmp_path: Path, installed: None) -> None:
    with losslog.Run("r", dir=tmp_path / "runs", plugins=None) as each:
        for epoch in (1, 2):
            each.log_batch({"a": float(epoch)}, lr=0.1)
            each.end_epoch()
    command = [sys.executable, "-m", "losslog", "replay", str(each.dir), "--to", "csv"]
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
    assert rows(each.dir) == EXPECTED
