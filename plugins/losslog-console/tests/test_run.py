"""A whole run through losslog's core: the block appears while training goes on."""

from __future__ import annotations

import re

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
