"""A run folder from somebody else, replayed from inside it: nothing in it names the host."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import losslog

BASE = "http://127.0.0.1:9"


def replay(folder: Path, cwd: Path, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    environment |= {"WANDB_API_KEY": "k" * 40, "WANDB_CONFIG_DIR": str(home), "HOME": str(home)}
    command = [sys.executable, "-m", "losslog", "replay", str(folder), "--to", "wandb", "-o", "wandb.mode=offline"]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=100, cwd=cwd)


@pytest.mark.parametrize("inside", ["run", "name", "runs"])
def test_neither_settings_in_the_folder_nor_options_of_the_journal_count(tmp_path: Path, inside: str) -> None:
    run = losslog.Run("theirs", dir=tmp_path / "runs", plugins=None, follower=False)
    run.log_batch({"a": 1.0})
    run.close()
    token = tmp_path / "token"
    token.write_text("secret")
    journal = run.dir / "journal.jsonl"
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    hostile = {"base_url": BASE, "entity": "attacker", "identity_token_file": str(token),
               "x_stats_open_metrics_endpoints": {"a": BASE}}  # fmt: skip
    lines[0]["data"]["options"] = {"wandb": hostile}
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    place = {"run": run.dir, "name": run.dir.parent, "runs": run.dir.parent.parent}[inside]
    (place / "wandb").mkdir(exist_ok=True)
    (place / "wandb" / "settings").write_text(f"[default]\nbase_url = {BASE}\nentity = attacker\nproject = theirs2\n")
    done = replay(run.dir, place, tmp_path / "home")
    assert done.returncode == 0, done.stderr
    (written,) = run.dir.glob("wandb/offline-run-*/*.wandb")
    content = written.read_bytes()
    assert b"attacker" not in content
    assert b"theirs2" not in content
    assert BASE.encode() not in content
    assert "not taken from the journal: base_url=" in done.stderr


def test_settings_of_ones_own_project_still_count(tmp_path: Path, run: Any) -> None:
    made = losslog.Run("mine", dir=tmp_path / "runs", plugins=None, follower=False)
    made.log_batch({"a": 1.0})
    made.close()
    (tmp_path / "wandb").mkdir(exist_ok=True)
    (tmp_path / "wandb" / "settings").write_text("[default]\nproject = chosen\n")
    done = replay(made.dir, tmp_path, tmp_path / "home")
    assert done.returncode == 0, done.stderr
    (written,) = made.dir.glob("wandb/offline-run-*/*.wandb")
    assert b"chosen" in written.read_bytes()
