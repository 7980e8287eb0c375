"""Options, and a SummaryWriter that exists already."""

from __future__ import annotations

import subprocess
import sys

import pytest
from losslog_tensorboard import TensorBoardPlugin
from torch.utils.tensorboard import SummaryWriter


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"layout": "yes"}, TypeError, "layout='yes'"),
        ({"log_dir": 3}, TypeError, "log_dir=3"),
        ({"writer": object()}, TypeError, "SummaryWriter"),
        ({"colour": 1}, TypeError, "colour"),
    ],
)
def test_a_wrong_option_is_named(options, error, words):
    with pytest.raises(error, match=words):
        TensorBoardPlugin(**options)


def test_log_dir_knows_the_run(drive, tmp_path):
    run = drive(log_dir=str(tmp_path / "{name}-{id}"))
    run.start()
    assert (tmp_path / "demo-r1").is_dir()


def test_making_the_plugin_imports_no_tensorboard():
    code = "import sys, losslog_tensorboard as l; l.TensorBoardPlugin(); sys.exit('tensorboard' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_writing_needs_no_torch(tmp_path):
    code = (
        "import sys; from pathlib import Path; from conftest import Driver\n"
        "run = Driver(Path(sys.argv[1])); run.start({'a': 1}); run.batch(0); run.alert('x'); run.end()\n"
        "sys.exit('torch' in sys.modules or 'tensorflow' in sys.modules)"
    )
    from pathlib import Path

    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=Path(__file__).parent, timeout=60)
    assert done.returncode == 0


@pytest.fixture
def writer(tmp_path):
    writer = SummaryWriter(str(tmp_path / "tensorboard"))
    yield writer
    writer.close()


def test_a_given_writer_makes_the_plugin_near(writer):
    assert TensorBoardPlugin(writer=writer).near


def test_without_a_writer_it_is_far():
    assert not getattr(TensorBoardPlugin(), "near", False)


def test_a_given_writer_gets_everything(drive, writer, tags, texts):
    run = drive(writer=writer)
    run.start({"lr": 0.1})
    run.batch(0, {"a": 1.0})
    run.eval(1, {"bbox": {"AP": 0.5}})
    run.epoch(1, {"a": 1.0})
    run.alert("stalled", step=0)
    run.end()
    assert tags() == {
        "batch/train_a", "batch/train_total", "batch/lr", "loss/train_a", "loss/train_total", "lr", "mAP/bbox_AP",
    }  # fmt: skip
    assert len(texts("alerts")) == len(texts("config")) == 1


def test_a_given_writer_stays_open(drive, writer, points):
    run = drive(writer=writer)
    run.epoch(1, 0.5)
    run.end()
    writer.add_scalar("mine", 1.0, 3)
    writer.flush()
    assert points("mine") == [(3, 1.0)]


def test_what_a_given_writer_has_it_does_not_get_again(drive, writer, points):
    run = drive(writer=writer)
    run.epoch(1, 0.5, time=10.0)
    run.epoch(1, 0.5, time=10.0)
    run.end()
    assert points("loss/train") == [(1, 0.5)]
