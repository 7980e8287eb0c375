"""Loops with real frameworks, each in a process and a folder of its own."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
LOOPS = ROOT.parent / "shared" / "frameworks"


def need(*modules: str) -> None:
    """Skip where a framework is not installed."""
    for each in modules:
        if importlib.util.find_spec(each) is None:
            pytest.skip(f"{each} is not installed: make frameworks", allow_module_level=True)


MEASURED = {"reach", "grad_norm", "update_ratio", "unchanged", "dead_units", "targets"}  # beside what a loop gives


class Workshop:
    """A folder in which scripts run, and what they left there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, source: str, *, ok: int | None = 0, **environment: str) -> subprocess.CompletedProcess[str]:
        script = self.folder / "script.py"
        script.write_text(source, "utf-8")
        path = [str(ROOT), *map(str, (ROOT / "plugins").glob("*/src")), os.environ.get("PYTHONPATH", "")]
        env = os.environ | {
            "PYTHONPATH": os.pathsep.join(path), "OMP_NUM_THREADS": "1", "KERAS_BACKEND": "torch",
            "LOSSLOG_PLUGINS": "console", "LOSSLOG_FOLLOWER": "0", "HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled",
            "YOLO_OFFLINE": "true", "YOLO_CONFIG_DIR": str(self.folder),
        }  # fmt: skip
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
            env.pop(name, None)
        found = subprocess.run(
            [sys.executable, str(script)],
            cwd=self.folder, env=env | environment, capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
        if ok is not None:
            assert found.returncode == ok, found.stdout + found.stderr
        assert "watching the training loop failed" not in found.stderr, found.stderr
        return found

    @property
    def journals(self) -> list[Path]:
        return sorted((self.folder / "runs").rglob("journal.jsonl"))

    @property
    def records(self) -> list[tuple[str, dict[str, Any]]]:
        (journal,) = self.journals
        lines = map(json.loads, journal.read_text("ascii").splitlines())
        return [(each["hook"], each["data"]) for each in lines]

    def data(self, hook: str) -> list[dict[str, Any]]:
        found = [data for name, data in self.records if name == hook]
        if hook != "on_metrics":
            return found
        return [
            each for each in found
            if not all("/" in tag and tag.partition("/")[0] in MEASURED for tag in each["metrics"])
        ]  # fmt: skip

    def loop(self, name: str, *changes: tuple[str, str], **environment: str) -> dict[str, Any]:
        """Run a loop of ../shared/frameworks with changes to its text; gives its truth: the journal agrees with it."""
        if not (LOOPS / f"{name}.py").is_file():
            pytest.skip(f"no {LOOPS}: the loops with their truth are not part of the project")
        for each in LOOPS.glob("*.py"):
            shutil.copyfile(each, self.folder / each.name)
        for file in [name, *{"loop_mm_iter": ["loop_mme"], "loop_hf_custom": ["loop_hf_lm"]}.get(name, [])]:
            source = (self.folder / f"{file}.py").read_text("utf-8")
            for old, new in changes:
                assert file != name or old in source or name in ("loop_mm_iter", "loop_hf_custom"), old
                source = source.replace(old, new)
            (self.folder / f"{file}.py").write_text(source, "utf-8")
        self.run((self.folder / f"{name}.py").read_text("utf-8"), TRUTH="truth.json", **environment)
        self.agrees()
        truth: dict[str, Any] = json.loads((self.folder / "truth.json").read_text("utf-8"))
        return truth

    def agrees(self) -> None:
        command = [sys.executable, "truth_against_journal.py", "truth.json", "runs"]
        found = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)
        assert found.returncode == 0, found.stdout + found.stderr


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


class Told:
    """What a run's journal tells."""

    def __init__(self, folder: Path, name: str, run: str = "*") -> None:
        (journal,) = (folder / "runs" / name).glob(f"{run}/journal.jsonl")
        self.records = [json.loads(line) for line in journal.read_text("ascii").splitlines()]

    def data(self, hook: str) -> list[dict[str, Any]]:
        return [each["data"] for each in self.records if each["hook"] == hook]

    def agrees(self, truth: dict[str, Any]) -> None:
        batches = self.data("on_batch_losses")
        assert [each["step"] for each in batches] == list(range(len(truth["steps"])))
        for batch, true in zip(batches, truth["steps"], strict=True):
            assert {**batch["losses"], "total": batch["total"]} == pytest.approx(true, rel=1e-5)
        ends = self.data("on_epoch_end")
        assert [each["epoch"] for each in ends] == list(range(1, truth.get("epochs", 0) + 1))
