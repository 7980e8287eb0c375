"""A few rounds of ``scripts/fuzz.py``; two thousand are run by hand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("losslog_plateau", reason="diagnose needs it")
SCRIPT = Path(__file__).parents[1] / "scripts" / "fuzz.py"


@pytest.mark.parametrize("seed", [0, 77_000])
def test_every_reader_bears_every_folder(seed: int, tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--rounds", "40", "--seed", str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path, env=os.environ.copy())
    assert done.returncode == 0, done.stderr[-3000:]
    assert "every reader held" in done.stdout
