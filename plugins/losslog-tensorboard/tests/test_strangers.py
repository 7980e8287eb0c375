"""A run folder from somebody else: its name leads nowhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from losslog_tensorboard import TensorBoardPlugin

from losslog.control import RunHandle


@pytest.mark.parametrize("name", ["../../up", "/abs", "a/b/../../..", "..", "x\0y", ""])
def test_a_name_stays_one_folder(tmp_path: Path, name: str) -> None:
    home = tmp_path / "home"
    run = RunHandle(id="r", name=name, dir=tmp_path / "run", config={}, source="tensorboard", post=lambda *_: None)
    about: dict[str, Any] = {"name": name, "config": {}, "resumed": False, "run": run, "time": 1.7e9, "seq": 0}
    plugin = TensorBoardPlugin(log_dir=str(home / "{name}" / "x"))
    plugin.on_run_start(**about)
    plugin.on_run_end(status="finished", time=1.7e9)
    folders = {found.parent for found in tmp_path.rglob("events*")}
    assert len(folders) == 1
    assert folders.pop().parent.parent == home
