"""A whole run through losslog's core: the block appears while training goes on."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

import losslog


def test_a_run_prints_its_blocks(tmp_path, capsys):
    run = losslog.Run("demo", dir=tmp_path, plugins=["console"], epochs=2, follower=False)
    for epoch in (1, 2):
        for _ in range(3):
            run.log_batch({"a": 0.25, "b": 0.5}, epoch=epoch)
        run.log_eval({"bbox": {"AP": 0.5, "AP50": 0.75}}, epoch=epoch)
        run.end_epoch(epoch, val_loss=1.0)
        run.log_checkpoint(f"checkpoints/epoch_{epoch:03}.pth", epoch=epoch)
    run.close()
    assert re.sub(r"🕒 \d+\.\d s.*\n", "", capsys.readouterr().out) == "".join(
        f"Epoch {epoch}/2\n📊 Training Losses:\n   Total: 0.7500\n   a: 0.2500\n   b: 0.5000\n"
        "📈 Validation Loss: 1.0000\n📦 Box mAP: 0.5000 (AP50: 0.7500)\n"
        f"💾 Saved checkpoint: checkpoints/epoch_{epoch:03}.pth\n"
        for epoch in (1, 2)
    )


@pytest.mark.parametrize("terminal", ["pipe", "colour"])
def test_the_random_numbers_of_the_loop_are_not_drawn_from(tmp_path, terminal):
    script = """
import random, sys, losslog
random.seed(0)
before = random.getstate()
options = {"console": {"progress": sys.argv[1] == "colour"}}
with losslog.Run("t", sys.argv[2], plugins=["console"], options=options) as run:
    assert random.getstate() == before
    for epoch in range(2):
        for _ in range(3):
            run.log_batch({"loss_a": 1.0, "loss_b": 2.0})
        run.end_epoch(val_loss=1.0)
    run.alert("title", "text")
    run.flush()
assert random.getstate() == before
assert "rich.style" in sys.modules
"""
    environment = {**os.environ, "LOSSLOG_FOLLOWER": "0", "FORCE_COLOR": "1"}
    subprocess.run([sys.executable, "-c", script, terminal, str(tmp_path)], check=True, env=environment, timeout=60)
