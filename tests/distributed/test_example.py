"""The example for torchrun, and a real Mask R-CNN on two processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="several ranks need torch")
ROOT = Path(__file__).resolve().parents[2]
FRUITS = ROOT.parent / "shared" / "data" / "fruitsnuts"


def torchrun(folder: Path, *args: str) -> list[dict]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RUNS": str(folder), "LOSSLOG_PLUGINS": ""}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *args]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    (journal,) = folder.glob("*/*/journal.jsonl")
    return [json.loads(line) for line in journal.read_text().splitlines()]


def test_the_example(tmp_path: Path) -> None:
    records = torchrun(tmp_path, str(ROOT / "examples" / "torchrun_train.py"))
    batches = [each["data"] for each in records if each["hook"] == "on_batch_losses"]
    assert [each["ranks"] for each in batches] == [2] * 40


@pytest.mark.skipif(not FRUITS.is_dir(), reason="the fruitsnuts images are not beside this checkout")
def test_mask_rcnn_on_two_processes(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools", reason="evaluation needs pycocotools")
    size = ["--backbone", "tiny", "--image-size", "96", "--epochs", "1", "--batch-size", "2", "--steps-per-epoch", "3"]
    train = ["-m", "losslog", "train", "--data", str(FRUITS), "--dir", str(tmp_path), "--plugins", "console"]
    records = torchrun(tmp_path, *train, *size)
    batches = [each["data"] for each in records if each["hook"] == "on_batch_losses"]
    (epoch,) = [each["data"] for each in records if each["hook"] == "on_epoch_end"]
    assert [each["ranks"] for each in batches] == [2, 2, 2]
    for name, mean in epoch["losses"].items():  # both ranks made as many batches: the mean of the joined batches
        assert mean == pytest.approx(sum(each["losses"][name] for each in batches) / 3, rel=1e-12)
