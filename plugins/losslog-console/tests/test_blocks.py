"""The lines of a pipe, to the character."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import losslog

BLOCK = """\
Epoch 5/20
📊 Training Losses:
   Total: 0.8234
   loss_box_reg: 0.1234
   loss_classifier: 0.1456
   loss_mask: 0.3890
   loss_objectness: 0.0567
   loss_rpn_box_reg: 0.1087
📈 Validation Loss: 0.9123
📦 Box mAP: 0.6543 (AP50: 0.8901)
🎭 Mask mAP: 0.2134 (AP50: 0.4567)
💾 Saved checkpoint: checkpoints/epoch_005.pth
"""
COCO = {"bbox": {"AP": 0.6543, "AP50": 0.8901, "classes": {"cat": 0.5}}, "segm": {"AP": 0.2134, "AP50": 0.4567}}


def test_the_block_is_the_users_own(drive, capsys, tmp_path):
    run = drive()
    run.start()
    run.batch(0, 5)
    run.eval(5, COCO)
    run.epoch(5, val_loss=0.9123)
    run.checkpoint(str(tmp_path / "checkpoints" / "epoch_005.pth"), 5)
    run.end()
    assert capsys.readouterr().out == BLOCK


def test_the_block_in_ascii_has_no_emoji(drive, monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    run = drive()
    run.eval(5, COCO)
    run.epoch(5, val_loss=0.9123)
    run.checkpoint("checkpoints/epoch_005.pth", 5)
    plain = "".join(char for char in BLOCK if char.isascii())
    assert raw.getvalue().decode("ascii") == "\n".join(
        line.removeprefix(" ") if not line.startswith("   ") else line for line in plain.split("\n")
    )


def test_a_name_that_the_stream_cannot_show_is_escaped(drive, monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    drive().epoch(1, {"größe": 1.0, "b": 1.0})
    assert b"gr\\xf6\\xdfe: 1.0000" in raw.getvalue()


@pytest.mark.parametrize(
    "loss", [0.8234, torch.tensor(0.8234, requires_grad=True), np.float32(0.8234), np.float64(0.8234)]
)
def test_a_scalar_loss(drive, capsys, loss):
    drive().epoch(1, loss)
    assert capsys.readouterr().out == "Epoch 1/20\n📊 Training Loss: 0.8234\n"


@pytest.mark.parametrize("loss", [torch.tensor(0.5), np.float64(0.5)])
def test_components_of_any_scalar(drive, capsys, loss):
    drive().epoch(1, {"a": loss, "b": loss})
    assert "   Total: 1.0000\n   a: 0.5000\n" in capsys.readouterr().out


def test_an_epoch_without_a_plan(drive, capsys):
    drive().epoch(5, 0.5, epochs=None)
    assert capsys.readouterr().out.startswith("Epoch 5\n")


def test_validation_losses_print_their_total(drive, capsys):
    drive().epoch(1, 0.5, val_loss={"a": 0.25, "b": 0.5})
    assert capsys.readouterr().out.endswith("📈 Validation Loss: 0.7500\n")


def test_precision(drive, capsys):
    drive(precision=2).epoch(1, 0.12345)
    assert "Training Loss: 0.12\n" in capsys.readouterr().out


def test_another_split_and_keypoints(drive, capsys):
    run = drive()
    run.eval(1, {"bbox": {"AP": 0.5, "AP50": 0.7}}, split="test")
    run.eval(1, {"keypoints": {"AP": 0.25}})
    run.epoch(1, 0.5)
    assert capsys.readouterr().out.endswith("📦 Box mAP (test): 0.5000 (AP50: 0.7000)\n🤸 Keypoint mAP: 0.2500\n")


def test_flat_metrics_are_a_list(drive, capsys):
    run = drive()
    run.eval(1, {"f1": 0.5, "accuracy": torch.tensor(0.75)})
    run.epoch(1, 0.5)
    assert capsys.readouterr().out.endswith("📏 Evaluation:\n   accuracy: 0.7500\n   f1: 0.5000\n")


def test_scores_without_an_average_precision(drive, capsys):
    run = drive()
    run.eval(1, {"bbox": {"AR1": 0.5}})
    run.epoch(1, 0.5)
    assert capsys.readouterr().out.endswith("📦 Box: AR1: 0.5000\n")


def test_an_evaluation_waits_for_its_epoch(drive, capsys):
    drive().eval(1, COCO)
    assert capsys.readouterr().out == ""


def test_a_late_evaluation_follows_at_once(drive, capsys):
    run = drive()
    run.epoch(1, 0.5)
    run.eval(1, {"bbox": {"AP": 0.5}})
    assert capsys.readouterr().out.endswith("📦 Box mAP: 0.5000\n")


def test_an_evaluation_of_an_older_epoch_says_which(drive, capsys):
    run = drive()
    run.epoch(1, 0.5)
    run.epoch(2, 0.5)
    run.eval(1, {"bbox": {"AP": 0.5}})
    assert capsys.readouterr().out.endswith("Epoch 1/20\n📦 Box mAP: 0.5000\n")


def test_what_still_waits_at_the_end_is_printed(drive, capsys):
    run = drive()
    run.eval(3, {"bbox": {"AP": 0.5}})
    run.end()
    assert capsys.readouterr().out == "Epoch 3\n📦 Box mAP: 0.5000\n"


def test_a_checkpoint_before_the_end_of_its_epoch_follows_the_block(drive, capsys):
    run = drive()
    run.batch(0, 1)
    run.checkpoint("best.pth", 1)
    run.epoch(1, 0.5)
    assert capsys.readouterr().out.endswith("0.5000\n💾 Saved checkpoint: best.pth\n")


def test_a_checkpoint_elsewhere_keeps_its_path(drive, capsys):
    drive().checkpoint("/elsewhere/best.pth")
    assert capsys.readouterr().out == "💾 Saved checkpoint: /elsewhere/best.pth\n"


def test_dropped_batches_are_said(drive, capsys):
    drive().epoch(1, 0.5, dropped=3)
    assert "3 batches of this epoch were not logged" in capsys.readouterr().out


def test_many_components_in_a_pipe_have_a_line_each(drive, capsys):
    drive().epoch(1, {f"loss_{i:02}": 0.1 for i in range(30)})
    assert len(capsys.readouterr().out.splitlines()) == 3 + 30


def test_batches_in_a_pipe(drive, capsys):
    run = drive(batches=2)
    run.start(epochs=3, steps_per_epoch=4)
    for step in range(4):
        run.batch(step, 1, {"a": 0.25, "b": 0.5})
    assert capsys.readouterr().out == (
        "Epoch 1/3 [2/4]  total 0.7500  a 0.2500  b 0.5000  lr 0.1\n"
        "Epoch 1/3 [4/4]  total 0.7500  a 0.2500  b 0.5000  lr 0.1\n"
    )


def test_a_pipe_has_no_progress_and_no_escapes(drive, capsys):
    run = drive(progress=True)
    run.start()
    for step in range(10):
        run.batch(step)
    run.alert("stalled", "text", level="error")
    run.end()
    assert "\x1b" not in capsys.readouterr().out


def test_stderr_on_request(drive, capsys):
    drive(stream="stderr").epoch(1, 0.5)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("Epoch 1/20\n")


def test_an_alert_is_wrapped(drive, capsys):
    drive().alert("loss_mask stalls", "Lower the learning rate. " * 10, step=1200)
    head, *body = capsys.readouterr().out.splitlines()
    assert head == "🔶 Warning: loss_mask stalls (plateau, step 1200)"
    assert len(body) == 3
    assert all(line.startswith("   ") for line in body)


def test_markup_and_control_characters_are_shown_and_not_obeyed(drive, capsys):
    run = drive()
    run.alert("[bold]x[/bold]\x1b[2J", "\u202etxt\x07 :smile:")
    run.epoch(1, {"[red]a\x1b[31m": 1.0, "b\nc": 1.0})
    out = capsys.readouterr().out
    assert "[bold]x[/bold]\\x1b[2J" in out
    assert "\\u202etxt\\x07 :smile:" in out
    assert "   [red]a\\x1b[31m: 1.0000\n   b\\nc: 1.0000\n" in out


def test_a_failure_is_said(drive, capsys):
    drive().end("failed", "ValueError: no data")
    assert capsys.readouterr().out == "Run failed: ValueError: no data\n"


def test_the_end_without_a_beginning_is_no_error(drive, capsys):
    drive().end()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("target", [None, "closed"])
def test_no_stdout_is_no_error(drive, monkeypatch, target):
    stream = io.StringIO()
    stream.close()
    monkeypatch.setattr(sys, "stdout", None if target is None else stream)
    run = drive()
    run.start()
    run.batch(0)
    run.epoch(1)
    run.alert("x")
    run.end()


def test_a_reader_that_went_away_is_no_error(drive, monkeypatch):
    import os

    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as stream, open(os.devnull, "w") as nowhere:
        monkeypatch.setattr(sys, "stdout", stream)
        drive().epoch(1)
        os.dup2(nowhere.fileno(), writing)  # so that closing it has nothing to complain of


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"progress": "sometimes"}, ValueError, "progress='sometimes'"),
        ({"emoji": 1.5}, ValueError, r"emoji=1\.5"),
        ({"batches": -1}, ValueError, "batches=-1"),
        ({"precision": True}, TypeError, "precision=True"),
        ({"stream": "file"}, ValueError, "stream='file'"),
        ({"colour": 1}, TypeError, "colour"),
    ],
)
def test_a_wrong_option_is_named(drive, options, error, words):
    with pytest.raises(error, match=words):
        drive(**options)


def test_making_the_plugin_imports_little_of_rich():
    import subprocess

    code = "import sys, losslog_console as l; l.ConsolePlugin(); sys.exit('rich.console' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_time_learning_rate_and_the_best_so_far_are_a_line_of_their_own(drive, capsys):
    run = drive()
    for epoch, (val, score) in enumerate([(2.0, 0.5), (1.0, 0.25)], start=1):
        run.eval(epoch, {"bbox": {"AP": score}})
        run.eval(epoch, {"bbox": {"AP": 0.9}}, split="test")
        run.epoch(epoch, 0.5, val_loss=val, lr={"body": 0.005, "head": 0.05}, duration=83.4)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("🕒")]
    assert lines == [
        "🕒 1:23; lr 0.005 (body), 0.05 (head)",
        "🕒 1:23; lr 0.005 (body), 0.05 (head); "
        "best so far: Box mAP 0.5000 (epoch 1), Validation Loss 1.0000 (epoch 2)",
    ]


def test_the_line_in_ascii(drive, monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    drive().epoch(1, 1.0, lr=0.1, duration=0.25)
    assert raw.getvalue().decode("ascii").endswith("Training Loss: 1.0000\n0.2 s; lr 0.1\n")


def test_the_best_of_what_a_resume_goes_back_behind_is_forgotten(drive, capsys):
    run = drive()
    for epoch in (1, 2, 3):
        run.epoch(epoch, 0.5, val_loss=1.0 / epoch)
    run.plugin.on_resume(1)
    capsys.readouterr()
    run.epoch(2, 0.5, val_loss=float("nan"))
    run.epoch(3, 0.5, val_loss=0.75)
    assert capsys.readouterr().out.splitlines()[-1] == "🕒 best so far: Validation Loss 0.7500 (epoch 3)"


def test_a_crash_is_no_news_where_the_run_goes_on(drive, capsys, tmp_path):
    run = drive()
    run.end("crashed")
    run.plugin.on_run_start(3, None, True, SimpleNamespace(dir=tmp_path))
    run.plugin.on_flush()
    assert capsys.readouterr().out == ""
    run.end("crashed")
    run.plugin.on_flush()
    assert capsys.readouterr().out == "Run crashed\n"


def test_the_best_of_a_resumed_run_is_that_of_the_whole_run(tmp_path, capsys, caplog):
    caplog.set_level("INFO", "losslog")
    for first in (1, 3):
        run = losslog.Run("r", tmp_path, plugins=["console"], resume="r" if first == 3 else None, epochs=4)
        for epoch in (first, first + 1):
            run.log_batch({"a": 1.0, "b": 1.0})
            run.log_eval({"bbox": {"AP": 0.9 if epoch == 1 else 0.1}})
            run.end_epoch(val_loss=epoch / 10)
        run.alert("grave", level="error") if first == 1 else run.alert("small", level="info")
        run.close()
    out = capsys.readouterr().out
    assert "best so far: Box mAP 0.9000 (epoch 1), Validation Loss 0.1000 (epoch 1)" in out.split("Epoch 4/4")[1]
    last = [line for line in caplog.messages if "finished after" in line][-1]
    assert "since the resume, 4 epochs, best bbox AP 0.9000 (epoch 1), 2 alerts: grave ->" in last


def test_how_often_a_component_counts_stands_behind_it(drive, capsys):
    run = drive()
    run.epoch(1, {"loss_a": 1.0, "loss_b": 0.5}, weights={"loss_b": 2.0})
    assert capsys.readouterr().out.splitlines()[-2:] == ["   loss_a: 1.0000", "   loss_b: 0.5000 x 2"]


@pytest.mark.parametrize(
    ("val_loss", "total", "weights", "line"),
    [
        ({"vq": 0.5}, 9.0, None, "0.5000 (of vq; the total has more)"),
        ({"vq": 0.5, "total": 1.0}, 9.0, {"vq": 2.0}, "1.0000 (of vq; the total has more)"),
        ({"vq": 0.5}, 0.6, None, "0.5000"),
        ({"vq": 0.5}, 1.25, {"vq": 2.0}, "0.5000"),
        ({"vq": 0.5, "loss": 8.0}, 9.0, None, "8.0000"),
        ({"vq": 0.5, "total": 8.0}, 9.0, None, "8.0000"),
        ({"vq": 0.5, "recon": 7.0}, 9.0, None, "7.5000"),
        ({"vq": float("nan")}, float("nan"), None, "nan"),
        (8.0, 9.0, None, "8.0000"),
    ],
)
def test_a_validation_of_a_part_of_the_total_says_so(drive, capsys, val_loss, total, weights, line):
    drive().epoch(1, {"vq": 0.6}, val_loss=val_loss, total=total, weights=weights)
    assert f"📈 Validation Loss: {line}\n" in capsys.readouterr().out
