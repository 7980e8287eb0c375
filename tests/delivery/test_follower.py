"""The follower: a process of its own that no fault of a backend, and no end of its parent, stops short."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

import losslog
from losslog.control import RunHandle
from losslog.delivery.follower import Follower
from losslog.delivery.wire import Figures, message_of

pytestmark = pytest.mark.threaded
Made = Callable[..., losslog.Run]


def lines(folder: Path) -> list[str]:
    path = folder / "far.txt"
    return path.read_text().splitlines() if path.exists() else []


def data(folder: Path) -> list[str]:
    """Without ``start``, which each new plugin object gets again."""
    return [line for line in lines(folder) if not line.startswith("start")]


@pytest.fixture
def far(package: Callable[..., str], far_source: str) -> str:
    return package(far_source, "far")


def test_far_plugins_run_in_another_process(make_run: Made, package: Callable[..., str], until: Any) -> None:
    source = """
    import os, pathlib
    from losslog import hookimpl
    class Plugin:
        @hookimpl
        def on_batch_losses(self, run):
            (pathlib.Path(run.dir) / "pid").write_text(str(os.getpid()))
    """
    package(source, "whoami")
    run = make_run(plugins=["whoami"], follower=True)
    run.log_batch(1.0)
    assert run.flush(30)
    assert int((run.dir / "pid").read_text()) == run.stats["follower"]["pid"] != os.getpid()


@pytest.mark.skipif(not hasattr(os, "nice"), reason="this platform has no nice")
@pytest.mark.parametrize("said", ["", "0"])
def test_it_lets_the_users_own_processes_go_first(
    make_run: Made, far: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOSSLOG_NICE", said)
    run = make_run(plugins=[far], follower=True)
    run.log_batch(1.0)
    assert run.flush(30)
    mine, its = (psutil.Process(pid).nice() for pid in (None, run.stats["follower"]["pid"]))
    assert its == (mine if said == "0" else min(19, mine + 10))


def test_everything_arrives_in_order(make_run: Made, far: str) -> None:
    run = make_run(plugins=[far], follower=True)
    for step in range(300):
        run.log_batch(float(step))
    run.end_epoch()
    run.close()
    assert lines(run.dir) == [
        "start 0", *(f"batch {step} {float(step)!r}" for step in range(300)), "epoch 1", "end finished",
    ]  # fmt: skip
    lane = run.stats["lanes"]["far"]
    assert (lane["delivered"], lane["errors"], lane["behind"], lane["seq"]) == (303, 0, 0, 302)
    assert lane["committed"] == lane["offset"] == run.stats["journal_bytes"]


def test_it_ends_with_the_run(make_run: Made, far: str, until: Any) -> None:
    run = make_run(plugins=[far], follower=True)
    pid = run.stats["follower"]["pid"]
    run.close()
    until(lambda: gone(pid))


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_options_reach_plugins_there(make_run: Made, far: str) -> None:
    run = make_run(plugins=[far], options={"far": {"where": "elsewhere.txt", "batch_every": 2}}, follower=True)
    for _ in range(4):
        run.log_batch(1.0)
    run.close()
    assert (run.dir / "elsewhere.txt").read_text().split("\n")[1:3] == ["batch 1 1.0", "batch 3 1.0"]


ASKING = """
from losslog import hookimpl
class Plugin:
    @hookimpl
    def on_batch_losses(self, step, run):
        print("printed by a plugin")
        run.alert("from afar", "text", key="k")
        run.request_lr(0.5)
        run.request_stop("enough")
"""


def test_alerts_and_requests_come_back(make_run: Made, package: Callable[..., str], until: Any, records: Any) -> None:
    package(ASKING, "asking")
    run = make_run(plugins=["asking"], follower=True)
    run.log_batch(1.0)
    until(lambda: run.should_stop)
    run.close()
    (alert,) = (each.data for each in records(run.dir) if each.hook == "on_alert")
    assert (alert["title"], alert["source"]) == ("from afar", "asking")


AWAY = """
import pathlib
from losslog import BackendUnavailable, hookimpl
class Plugin:
    @hookimpl
    def on_batch_losses(self, step, run):
        if not (pathlib.Path(run.dir) / "back").exists():
            raise BackendUnavailable("gone")
        with open(pathlib.Path(run.dir) / "far.txt", "a") as file:
            file.write(f"batch {step}\\n")
"""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_log_that_cannot_be_written_stops_no_lane(
    make_run: Made, package: Callable[..., str], until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    package(AWAY, "away")
    monkeypatch.setattr("losslog.delivery.follower.opened", lambda path, mode: os.open("/dev/full", mode))
    run = make_run(plugins=["away"], follower=True)
    run.log_batch(1.0)
    until(lambda: run.stats["lanes"]["away"]["state"] == "waiting")
    (run.dir / "back").touch()
    until(lambda: run.stats["lanes"]["away"]["state"] == "live")
    run.close()
    assert lines(run.dir) == ["batch 0"]


def test_what_plugins_print_goes_to_its_log(
    make_run: Made, package: Callable[..., str], capfd: pytest.CaptureFixture[str]
) -> None:
    package(ASKING, "asking")
    run = make_run(plugins=["asking"], follower=True)
    run.log_batch(1.0)
    run.close()
    assert "printed by a plugin" in (run.dir / "follower.log").read_text()
    assert "printed by a plugin" not in capfd.readouterr().out


def test_errors_there_are_said_here(make_run: Made, package: Callable[..., str], caplog: Any) -> None:
    package(
        "from losslog import hookimpl\nclass Plugin:\n    @hookimpl\n    def on_eval(self): raise ValueError('xyzzy')",
        "bad",
    )
    run = make_run(plugins=["bad"], follower=True)
    run.log_eval({"x": 1})
    run.close()
    assert "plugin bad failed in on_eval" in caplog.text
    assert "xyzzy" in caplog.text
    assert run.stats["lanes"]["bad"]["errors"] == 1


def test_a_follower_that_is_killed_is_started_again_and_nothing_is_missing_or_doubled(
    make_run: Made, far: str, until: Any
) -> None:
    run = make_run(plugins=[far], follower=True)
    for step in range(3):
        first = len(data(run.dir))
        for _ in range(50):
            run.log_batch(1.0)
        assert run.flush(60)
        assert len(data(run.dir)) == first + 50
        pid = run.stats["follower"]["pid"]
        os.kill(pid, signal.SIGKILL)
        until(lambda step=step: run.stats["follower"]["restarts"] == step + 1)
    run.log_batch(2.0)
    run.close(60)
    assert data(run.dir) == [*(f"batch {step} 1.0" for step in range(150)), "batch 150 2.0", "end finished"]


@pytest.mark.skipif(sys.platform == "win32", reason="a working directory cannot be deleted there")
def test_a_working_directory_that_is_gone_costs_nothing(
    make_run: Made, far: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, until: Any
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    monkeypatch.setattr(sys, "path", ["", "src", *sys.path])
    gone.rmdir()
    run = make_run(plugins=[far], follower=True)
    run.log_batch(1.0)
    run.log_images("val", [{"id": 1, "width": 8, "height": 8, "path": "1.jpg"}], folder="data")
    run.log_images("val", [{"id": 1, "width": 8, "height": 8, "path": "1.jpg"}])
    assert run.flush(60)
    os.kill(run.stats["follower"]["pid"], signal.SIGKILL)
    until(lambda: run.stats["follower"]["restarts"] == 1)
    run.log_batch(2.0)
    run.close(60)
    assert data(run.dir) == ["batch 0 1.0", "batch 1 2.0", "end finished"]


def test_a_message_of_another_version_ends_nothing(make_run: Made, package: Callable[..., str], until: Any) -> None:
    source = """
    from losslog import hookimpl
    class Plugin:
        @hookimpl
        def on_batch_losses(self, step, run):
            for kind in ("stop", "lr", "alert"):
                run._post(kind, {"another": "form"})
            for level in ("high", None, [2]):
                run._post.__self__._outbox.put("notice", level=level, text="hm")
            run._post.__self__._outbox._queue.put(b"[" * 100_000 + b"\\n")
            run.request_stop(f"after step {step}")
    """
    run = make_run(plugins=[package(source, "newer")], follower=True)
    run.log_batch(1.0)
    until(lambda: run.should_stop, "what comes after it is heard", 30)
    run.close(60)
    assert run.stop_reason == "after step 0"
    assert run.stats["lanes"]["newer"]["state"] == "done"


def test_one_that_dies_again_and_again_is_given_up_and_training_goes_on(
    make_run: Made, package: Callable[..., str], until: Any, records: Any, caplog: Any
) -> None:
    caplog.set_level("INFO", "losslog")
    source = """
    import os
    from losslog import hookimpl
    class Plugin:
        @hookimpl
        def on_batch_losses(self):
            os._exit(11)
    """
    package(source, "crash")
    run = make_run(plugins=["crash"], follower=True)
    run.log_batch(1.0)
    until(lambda: "died 4 times" in caplog.text, "the follower is given up", 60)
    for _ in range(10):
        run.log_batch(1.0)
    began = time.monotonic()
    run.close(30)
    assert time.monotonic() - began < 25
    assert sum(each.hook == "on_batch_losses" for each in records(run.dir)) == 11
    assert "crash: " in caplog.text
    assert "losslog replay" in caplog.text


def test_one_that_is_frozen_does_not_stall_the_run(make_run: Made, far: str, until: Any, records: Any) -> None:
    run = make_run(plugins=[far], follower=True)
    run.log_batch(1.0)
    assert run.flush(30)
    pid = run.stats["follower"]["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        # More wake-ups than a pipe holds: each metric is one.
        for _ in range(20_000):
            run._recorder.delivery.follower.wake()  # type: ignore[union-attr]
        run.log_metrics({"x": 1.0})
        until(lambda: records(run.dir)[-1].hook == "on_metrics", "the drain goes on", 20)
    finally:
        os.kill(pid, signal.SIGCONT)
    run.log_batch(2.0)
    run.close()
    assert data(run.dir) == ["batch 0 1.0", "batch 1 2.0", "end finished"]


def test_close_does_not_wait_for_ever_for_one_that_is_frozen(make_run: Made, far: str) -> None:
    run = make_run(plugins=[far], follower=True)
    run.log_batch(1.0)
    run.flush(30)
    pid = run.stats["follower"]["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        run.close(timeout=2)
        assert time.monotonic() - began < 20
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("kind", ["no executable", "broken", "refused"])
def test_where_it_cannot_be_started_all_lanes_are_near(
    make_run: Made, far: str, kind: str, monkeypatch: pytest.MonkeyPatch, caplog: Any, tmp_path: Path
) -> None:
    if kind == "no executable":
        monkeypatch.setattr(sys, "executable", "")
    elif kind == "broken":
        monkeypatch.setattr(sys, "executable", str(tmp_path / "absent"))
    else:
        monkeypatch.setenv("LOSSLOG_FOLLOWER", "0")
    run = make_run(plugins=[far], follower=True)
    run.log_batch(1.0)
    run.close()
    assert data(run.dir) == ["batch 0 1.0", "end finished"]
    assert run.stats["follower"] is None
    assert caplog.text.count("the follower cannot be started") == (kind != "refused")


KILLED = """
import os, signal, sys, time
import losslog
run = losslog.Run("killed", dir="runs", plugins=["far"])
print(run.dir, run.stats["follower"]["pid"], flush=True)
for step in range(10**9):
    run.log_batch({"a": float(step)}, lr=0.1)
    if step % 50 == 49:
        run.end_epoch()
    print(step, flush=True)
    time.sleep(0.001)
"""


def killed_after(script: Any, steps: int) -> tuple[Path, int, int, float]:
    """Folder, follower's pid, last step logged, and when it was killed."""
    process = script(KILLED)
    folder, pid = process.stdout.readline().rsplit(None, 1)
    last = -1
    while last < steps:
        last = int(process.stdout.readline())
    process.kill()
    at = time.time()
    rest = process.stdout.read().split()
    process.wait()
    return Path(folder), int(pid), int(rest[-1]) if rest else last, at


def test_after_kill_9_at_most_one_drain_interval_is_missing_and_the_follower_ends_the_run(
    far: str, script: Any, records: Any, until: Any
) -> None:
    folder, pid, _, at = killed_after(script, 300)
    until(lambda: not psutil.pid_exists(pid), "the follower ends", 60)
    found = records(folder)
    assert [each.seq for each in found] == list(range(len(found)))
    assert (found[-1].hook, found[-1].data["status"]) == ("on_run_end", "crashed")
    batches = [each for each in found if each.hook == "on_batch_losses"]
    assert [each.data["step"] for each in batches] == list(range(len(batches)))
    # 0.2 s of batches and one write; the machine may be busy, so what counts is when the last one was logged.
    assert at - batches[-1].time < 0.2 + 1.0
    assert data(folder) == [line for each in found for line in told(each)]


def told(record: Any) -> list[str]:
    if record.hook == "on_batch_losses":
        return [f"batch {record.data['step']} {record.data['total']!r}"]
    if record.hook == "on_epoch_end":
        return [f"epoch {record.data['epoch']}"]
    return [f"end {record.data['status']}"] if record.hook == "on_run_end" else []


def test_a_run_killed_and_resumed_at_once_goes_on(
    far: str, script: Any, records: Any, tmp_path: Path, until: Any
) -> None:
    folder, _, _, _ = killed_after(script, 100)
    run = losslog.Run(dir=tmp_path / "runs", resume=folder, plugins=["far"])
    run.log_batch(-1.0)
    run.close(60)
    found = records(folder)
    assert [each.seq for each in found] == list(range(len(found)))
    assert found[-1].data["status"] == "finished"
    # The killed run's follower may still hold the cursor when this run closes: the new one then goes on by itself.
    until(lambda: data(folder) == [line for each in found for line in told(each)], seconds=60)


def test_it_ends_when_the_folder_was_deleted_and_the_parent_killed(far: str, script: Any, until: Any) -> None:
    import shutil

    process = script(KILLED)
    folder, pid = process.stdout.readline().rsplit(None, 1)
    process.stdout.readline()
    process.kill()
    shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    until(lambda: not psutil.pid_exists(int(pid)), "the follower ends", 60)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_worker_that_outlives_the_parent_does_not_hide_its_death(
    far: str, script: Any, until: Any, records: Any
) -> None:
    source = """
    import os, time
    import losslog
    run = losslog.Run("forked", dir="runs", plugins=["far"])
    run.log_batch(1.0)
    run.flush(30)
    print(run.dir, run.stats["follower"]["pid"], flush=True)
    child = os.fork()
    if child == 0:
        os.close(1); os.close(2)
        time.sleep(30)
        os._exit(0)
    print(child, flush=True)
    os.kill(os.getpid(), 9)
    """
    process = script(source, flags=("-W", "ignore"))
    folder, _ = process.stdout.readline().rsplit(None, 1)
    worker = int(process.stdout.readline())
    try:
        until(lambda: records(Path(folder))[-1].hook == "on_run_end", "the run is ended", 30)
        assert psutil.pid_exists(worker)
        until(lambda: data(Path(folder)) == ["batch 0 1.0", "end crashed"])
    finally:
        os.kill(worker, signal.SIGKILL)


def test_its_lines_are_json(tmp_path: Path) -> None:
    got: list[tuple[str, Any]] = []
    handle = RunHandle(id="", name="", dir=tmp_path, config={}, source="", post=lambda *each: None)
    follower = Follower(handle, [], lambda kind, body: got.append((kind, body)))
    for message in (
        {"kind": "alert", "data": {"key": "a"}},
        {"kind": "unknown"},
        {"kind": "alert", "data": "no data"},
        {"kind": "stats", "lanes": {"a": {"seq": 7, "state": "live", "delivered": "many", "more": 1}, "b": None}},
        {"kind": "stats"},
        ["no message"],
    ):
        follower.take(message_of(json.dumps(message).encode("ascii")))
    follower.take(message_of(b"what a plugin's C code printed"))
    assert got == [("alert", {"key": "a"})]
    assert follower.lanes == {"a": Figures(state="live", seq=7), "b": Figures()}


def test_a_killed_run_with_a_backlog_can_be_resumed_at_once(
    package: Callable[..., str], far_source: str, script: Any, tmp_path: Path, until: Any
) -> None:
    slow = far_source.replace('self._lines.append(f"batch', 'import time; time.sleep(0.02); self._lines.append(f"batch')
    package(slow, "far")
    folder, pid, _, _ = killed_after(script, 300)
    until(lambda: data(folder), "the killed run's follower is at work")
    assert psutil.pid_exists(pid)
    run = losslog.Run(dir=tmp_path / "runs", resume=folder, plugins=None)
    run.close()


def test_alerts_of_a_killed_runs_last_seconds_are_records(
    package: Callable[..., str], script: Any, records: Any, until: Any
) -> None:
    source = """
    import os, time
    from losslog import hookimpl
    class Plugin:
        @hookimpl
        def on_batch_losses(self, step, run):
            while step == 20 and os.getppid() == int(os.environ["LOSSLOG_PARENT_PID"]):
                time.sleep(0.01)
            if step == 21:
                run.alert("late", key="late")
    """
    package(source, "far")
    folder, pid, _, _ = killed_after(script, 300)
    until(lambda: not psutil.pid_exists(pid), "the follower ends", 60)
    assert [each.hook for each in records(folder)][-2:] == ["on_alert", "on_run_end"]


def test_near_and_far_plugins_see_the_config_of_the_newest_start(
    make_run: Made, package: Callable[..., str], tmp_path: Path
) -> None:
    source = """
    import json, os, pathlib
    from losslog import hookimpl
    class Plugin:
        @hookimpl
        def on_batch_losses(self, step, run):
            where = "far" if "LOSSLOG_PARENT_PID" in os.environ else "near"
            with open(pathlib.Path(run.dir) / f"{where}.txt", "a") as file:
                file.write(json.dumps([step, run.name, dict(run.config)]) + "\\n")
    """
    package(source, "seer")
    seen: dict[str, list[Any]] = {}
    for where, options in (("far", {"follower": True}), ("near", {"follower": False})):
        run = make_run(plugins=["seer"], config={"lr": 0.1, "odd": float("nan")}, **options)
        run.log_batch(1.0)
        run.close()
        with losslog.Run(
            dir=tmp_path / "runs", resume=run.dir, plugins=["seer"], config={"lr": 0.01}, **options
        ) as again:
            again.log_batch(1.0)
        seen[where] = [json.loads(line) for line in (run.dir / f"{where}.txt").read_text().splitlines()]
        assert seen[where][1][2] == {"lr": 0.01}
        assert seen[where][0][2]["lr"] == 0.1
    assert str(seen["far"]) == str(seen["near"])
