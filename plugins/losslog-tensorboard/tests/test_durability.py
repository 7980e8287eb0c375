"""Restarts, resumes, dead files, forks: nothing twice, nothing lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import pytest
from losslog_tensorboard import tfrecord

import losslog


def _steps(points):
    return [step for step, _ in points]


def test_what_was_flushed_can_be_read_while_the_run_goes_on(drive, points):
    run = drive()
    run.batch(0)
    run.flush()
    assert _steps(points("batch/lr", "batch")) == [0]


def test_records_delivered_again_to_a_new_object_are_not_doubled(drive, points):
    run = drive()
    run.start(time=1.0)
    for step in range(10):
        run.batch(step, time=10.0 + step)
    run.flush()
    run.again()
    run.start(time=1.0)
    for step in range(5, 20):
        run.batch(step, time=10.0 + step)
    run.flush()
    assert _steps(points("batch/lr", "batch")) == list(range(20))


def test_an_evaluation_committed_before_a_restart_stays(drive, points):
    run = drive()
    run.eval(5, {"accuracy": 0.5}, time=50.0)
    run.again()
    run.epoch(5, time=51.0)
    run.end()
    assert _steps(points("eval/accuracy")) == [5]
    assert _steps(points("loss/train_total")) == [5]


def test_alerts_delivered_again_are_not_doubled(drive, texts):
    run = drive()
    run.alert("one", step=5, time=50.0)
    run.again()
    run.alert("one", step=5, time=50.0)
    run.end()
    assert len(texts("alerts", "batch")) == 1


def test_resume_supersedes_later_points_on_both_axes(drive, points):
    run = drive()
    run.start()
    for step in range(50):
        run.batch(step, float(step))
    for epoch in range(1, 6):
        run.epoch(epoch, 1.0)
    run.again()
    run.start(resumed=True)
    run.resume(3, 29)
    for step in range(30, 40):
        run.batch(step, -1.0)
    run.epoch(4, -1.0)
    run.end()
    assert points("batch/train", "batch") == [(s, float(s)) for s in range(30)] + [(s, -1.0) for s in range(30, 40)]
    assert points("loss/train") == [(1, 1.0), (2, 1.0), (3, 1.0), (4, -1.0)]


def test_resume_without_a_step_supersedes_from_the_first_new_point(drive, points):
    run = drive()
    run.start()
    for step in range(10):
        run.batch(step, 1.0)
    run.flush()
    run.again()
    run.start(resumed=True)
    run.resume(None, None)
    for step in range(5, 8):
        run.batch(step, 2.0)
    run.end()
    assert points("batch/train", "batch") == [(s, 1.0) for s in range(5)] + [(s, 2.0) for s in range(5, 8)]


def test_a_backlog_from_before_the_resume_does_not_purge(drive, points):
    run = drive()
    run.start(time=1.0)
    for step in range(10):
        run.batch(step, 1.0, time=10.0 + step)
    run.flush()
    run.again()
    run.start(resumed=True, time=100.0, seq=16)
    for step in range(5, 15):
        run.batch(step, 1.0, time=10.0 + step, seq=1 + step)
    run.start(resumed=True, time=100.0)
    run.resume(None, 11)
    for step in range(12, 16):
        run.batch(step, 2.0, time=110.0 + step)
    run.end()
    assert points("batch/train", "batch") == [(s, 1.0) for s in range(12)] + [(s, 2.0) for s in range(12, 16)]


@pytest.mark.parametrize("told", [True, False], ids=["from where is said", "from where is not said"])
@pytest.mark.parametrize("clock", [0.0, -10800.0, 86400.0], ids=["the same clock", "3 hours behind", "a day ahead"])
def test_a_resume_supersedes_whatever_the_clock_says(drive, points, clock, told):
    """Evaluations of epochs 2 and 3 are made twice; those of the second part count, however their times stand."""

    def first():
        run.clock = 1e6
        run.start(seq=0)
        for epoch in range(1, 4):
            run.batch(epoch, 1.0)
            run.eval(epoch, {"segm": {"AP": 2.0}})

    def second():
        run.clock = 1e6 + 100 + clock
        run.start(resumed=True, seq=7)
        if told:
            run.resume(1, 1)
        run.seq = 8
        for epoch in range(2, 5):
            run.batch(epoch, 2.0)
            run.eval(epoch, {"segm": {"AP": 2.5}})

    def right():
        evaluations = [(1, 2.0), (2, 2.5), (3, 2.5), (4, 2.5)]
        batches = [(1, 1.0), (2, 2.0), (3, 2.0), (4, 2.0)]
        assert (points("mAP/segm_AP"), points("batch/train", "batch")) == (evaluations, batches)

    run = drive()
    first()
    run.flush()
    run.again()
    second()
    run.flush()
    right()
    run.again()  # killed before its cursor was written: the second part comes again
    second()
    run.flush()
    right()
    first()  # and everything once more, to the same object and to another
    second()
    run.flush()
    right()
    run.again()
    first()
    second()
    run.end()
    right()


def test_a_replay_of_everything_changes_nothing(drive, points):
    def play():
        run.start(time=1.0, seq=0)
        for step in range(10):
            run.batch(step, 1.0, time=10.0 + step)
        run.start(resumed=True, time=100.0)
        run.resume(None, 4)
        for step in range(5, 8):
            run.batch(step, 2.0, time=110.0 + step)
        run.end()

    run = drive()
    play()
    before = points("batch/train", "batch")
    run.again()
    play()
    assert points("batch/train", "batch") == before == [(s, 1.0) for s in range(5)] + [(s, 2.0) for s in range(5, 8)]


def test_a_resume_leaves_the_alerts_before_it(drive, texts):
    run = drive()
    run.alert("early", step=10)
    run.resume(1, 20)
    run.end()
    assert len(texts("alerts", "batch")) == 1


def test_a_new_object_begins_a_new_file(drive, tmp_path):
    run = drive()
    run.batch(0)
    run.flush()
    run.again()
    run.batch(1)
    run.flush()
    assert len(tfrecord.event_files(tmp_path / "tensorboard" / "batch")) == 2


def test_a_new_file_sorts_behind_one_from_the_future(tmp_path):
    old = tmp_path / "events.out.tfevents.9000000000.host.1.0"
    old.touch()
    new = tfrecord.EventFile(tmp_path)
    new.close()
    assert tfrecord.event_files(tmp_path) == [old, new.path]


def test_files_of_another_run_are_left_alone(drive, points, tmp_path):
    first = drive(log_dir=str(tmp_path / "tensorboard"))
    first.batch(5, 1.0)
    first.end()
    second = drive(log_dir=str(tmp_path / "tensorboard"))
    second.run.id = "r2"
    second.batch(0, 2.0)
    second.end()
    assert sorted(points("batch/train", "batch")) == [(0, 2.0), (5, 1.0)]


def test_a_torn_tail_is_continued_in_a_new_file(drive, points, tmp_path):
    run = drive()
    for step in range(3):
        run.batch(step, 1.0, time=10.0 + step)
    run.flush()
    (path,) = tfrecord.event_files(tmp_path / "tensorboard" / "batch")
    os.truncate(path, path.stat().st_size - 7)
    run.again()
    run.batch(2, 1.0, time=12.0)
    run.end()
    assert _steps(points("batch/train", "batch")) == [0, 1, 2]


def test_files_that_are_there_leave_the_cursor_alone(drive):
    run = drive()
    run.start()
    run.batch(0)
    run.flush()
    run.again()
    assert run.plugin.delivered_upto(run.run) is None


@pytest.mark.parametrize("removed", ["tensorboard", "tensorboard/batch"])
def test_files_that_were_removed_ask_for_everything(drive, tmp_path, removed):
    import shutil

    run = drive()
    run.start()
    run.batch(0)
    run.end()
    shutil.rmtree(tmp_path / removed)
    run.again()
    run.start()
    assert run.plugin.delivered_upto(run.run) == -1


def test_a_given_writer_leaves_the_cursor_alone(drive, tmp_path):
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path / "mine")) as writer:
        run = drive(writer=writer)
        assert run.plugin.delivered_upto(run.run) is None


def test_a_folder_removed_in_mid_run_is_said_and_made_again(drive, points, tmp_path):
    import shutil

    run = drive()
    run.batch(0)
    run.flush()
    shutil.rmtree(tmp_path / "tensorboard")
    run.batch(1)
    with pytest.raises(losslog.BackendUnavailable):
        run.flush()
    run.batch(1)
    run.flush()
    assert _steps(points("batch/lr", "batch")) == [1]


def test_what_a_failed_flush_had_is_forgotten_and_taken_when_it_comes_again(drive, points, tmp_path):
    run = drive(log_dir=str(tmp_path / "tensorboard"))
    (tmp_path / "tensorboard").write_text("a file where the folder belongs")
    run.batch(0, time=10.0)
    with pytest.raises(OSError, match="cannot write"):
        run.flush()
    (tmp_path / "tensorboard").unlink()
    run.batch(0, time=10.0)
    run.flush()
    assert _steps(points("batch/lr", "batch")) == [0]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_has_its_errno(tmp_path):
    import errno

    file = tfrecord.EventFile(tmp_path)
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, file._fd)
    os.close(full)
    with pytest.raises(OSError, match="No space") as caught:
        file.write(b"x")
    file.close()
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_writes_nothing(drive, points):
    run = drive()
    run.batch(0)
    run.flush()
    child = os.fork()
    if child == 0:
        run.batch(1)
        run.flush()
        run.end()
        os._exit(0)
    os.waitpid(child, 0)
    run.batch(2)
    run.end()
    assert _steps(points("batch/lr", "batch")) == [0, 2]


def test_kill_leaves_all_that_was_flushed(tmp_path, points):
    script = textwrap.dedent("""
        import os, signal, sys
        from pathlib import Path
        from conftest import Driver
        run = Driver(Path(sys.argv[1]))
        for step in range(500):
            run.batch(step)
        run.flush()
        run.batch(500)
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    paths = [os.path.dirname(__file__), os.environ.get("PYTHONPATH", "")]
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], env=environ, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert _steps(points("batch/lr", "batch")) == list(range(500))


def test_the_end_without_a_beginning_is_no_error(drive, tmp_path):
    drive().end()
    assert not (tmp_path / "tensorboard").exists()


def test_after_the_end_a_run_can_go_on(drive, points):
    run = drive()
    run.batch(0)
    run.end()
    run.start(resumed=True)
    run.batch(1)
    run.end()
    assert _steps(points("batch/lr", "batch")) == [0, 1]


def test_checksums_without_the_fast_package_are_the_same():
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    assert tfrecord.masked_crc(b"losslog") == masked_crc32c(b"losslog")
