"""A run, as a training loop uses it."""

from __future__ import annotations

import copy
import json
import os
import socket
import subprocess
import sys
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import losslog
from losslog import StopTraining, hookimpl, hookspec
from losslog.errors import JournalError, RunLocked

pytestmark = pytest.mark.threaded
Made = Callable[..., losslog.Run]


def hooks(run: losslog.Run, records: Any) -> list[str]:
    return [each.hook for each in records(run.dir)]


def test_a_run_from_start_to_end(make_run: Made, records: Any, probe: Any) -> None:
    run = make_run(plugins=[probe], config={"lr": 0.1, "api_key": "s3cret"}, epochs=2)
    for epoch in (1, 2):
        for _ in range(3):
            run.log_batch({"a": 1.0 * epoch, "b": 2.0}, lr=0.1)
        run.log_eval({"bbox": {"AP": 0.5}})
        run.end_epoch(val_loss=0.7)
        run.log_checkpoint(f"checkpoints/epoch_{epoch:03d}.pth")
    run.close()
    order = ["on_batch_losses"] * 3 + ["on_eval", "on_epoch_end", "on_checkpoint"]
    assert hooks(run, records) == ["on_run_start", *order, *order, "on_run_end"]
    assert [hook for hook, _, _ in probe.calls] == [hook for hook in hooks(run, records) if hook != "on_checkpoint"]
    assert probe.of("on_run_start")[0]["config"] == {"lr": 0.1, "api_key": "[redacted]"}
    assert [data["epoch"] for data in probe.of("on_epoch_end")] == [1, 2]
    assert [data["epoch"] for data in probe.of("on_eval")] == [1, 2]
    assert probe.of("on_epoch_end")[1] == {"epoch": 2, "losses": {"a": 2.0, "b": 2.0}, "total": 4.0, "val_loss": 0.7}


def test_steps_and_epochs_count_by_themselves(make_run: Made, probe: Any) -> None:
    run = make_run(plugins=[probe])
    for _ in range(2):
        for _ in range(2):
            run.log_batch(1.0)
        run.end_epoch()
    run.close()
    assert [(data["step"], data["epoch"]) for data in probe.of("on_batch_losses")] == [(0, 1), (1, 1), (2, 2), (3, 2)]


def test_steps_and_epochs_can_be_said(make_run: Made, probe: Any) -> None:
    run = make_run(plugins=[probe])
    run.log_batch(1.0, step=np.int64(10), epoch=3)
    run.log_batch(1.0)
    run.close()
    assert [(data["step"], data["epoch"]) for data in probe.of("on_batch_losses")] == [(10, 3), (11, 3)]


def test_an_evaluation_after_the_epochs_end_belongs_to_it(make_run: Made, probe: Any) -> None:
    run = make_run(plugins=[probe])
    run.log_batch(1.0)
    run.end_epoch()
    run.log_eval({"x": 1})
    run.close()
    assert probe.of("on_eval")[0]["epoch"] == 1


def test_epoch_means_are_exact(make_run: Made) -> None:
    run = make_run()
    for value in (1.0, 2.0, 6.0):
        run.log_batch({"a": value})
    assert run.epoch_means() == {"a": 3.0}
    run.end_epoch()
    assert run.epoch_means() == {"a": 3.0}
    run.log_batch({"a": 7.0})
    assert run.epoch_means() == {"a": 7.0}


def test_flush_means_written_and_delivered(make_run: Made, records: Any, probe: Any) -> None:
    run = make_run(plugins=[probe])
    for count in range(1, 6):
        run.log_batch(1.0)
        assert run.flush()
        assert len(probe.steps) == count == len(records(run.dir)) - 1


def test_a_second_close_returns_at_once(make_run: Made, records: Any) -> None:
    run = make_run()
    run.close()
    run.close()
    assert hooks(run, records) == ["on_run_start", "on_run_end"]


def test_what_comes_after_close_is_ignored_and_said_once(make_run: Made, records: Any, caplog: Any) -> None:
    run = make_run()
    run.close()
    run.log_batch(1.0)
    run.end_epoch()
    run.alert("late")
    assert run.flush()
    assert run.epoch_means(timeout=5) is None
    assert len(records(run.dir)) == 2
    assert caplog.text.count("after close()") == 1


@pytest.mark.parametrize(
    ("error", "status"),
    [(None, "finished"), (ValueError("no"), "failed"), (KeyboardInterrupt(), "stopped"), (SystemExit(0), "finished"),
     (SystemExit(1), "failed"), (StopTraining("enough"), "stopped")],
    ids=repr,
)  # fmt: skip
def test_the_end_says_how_the_loop_ended(make_run: Made, records: Any, error: Any, status: str) -> None:
    def loop() -> None:
        with run:
            run.log_batch(1.0)
            if error is not None:
                raise error

    run = make_run()
    if error is None:
        loop()
    else:
        with pytest.raises(type(error)):
            loop()
    assert records(run.dir)[-1].data["status"] == status


def test_a_stop_is_asked_for_and_the_loop_decides(make_run: Made, records: Any) -> None:
    run = make_run()
    assert not run.should_stop
    run.request_stop("enough")
    assert run.should_stop
    run.close()
    assert records(run.dir)[-1].data["status"] == "stopped"


def test_a_plugin_can_ask_for_things(make_run: Made, until: Callable[..., None]) -> None:
    class Asking:
        @hookimpl
        def on_batch_losses(self, step: int, run: Any) -> None:
            run.alert("look", "here", "info")
            run.request_lr(0.5)
            if step == 1:
                run.request_stop("enough")

    class Optimizer:
        param_groups = [{"lr": 1.0}]  # noqa: RUF012

    run = make_run(plugins=[Asking()])
    run.log_batch(1.0)
    run.log_batch(1.0)
    until(lambda: run.should_stop)
    run.flush()
    run.apply_requests(Optimizer)
    assert Optimizer.param_groups[0]["lr"] == 0.25
    run.apply_requests(Optimizer)
    assert Optimizer.param_groups[0]["lr"] == 0.25


def test_an_alert_reaches_every_plugin_once(make_run: Made, probe: Any) -> None:
    run = make_run(plugins=[probe])
    run.alert("a", key="k")
    run.alert("a", key="k")
    run.alert("b")
    run.alert("b")
    run.close()
    assert [data["title"] for data in probe.of("on_alert")] == ["a", "b", "b"]


def test_alerts_raised_while_the_run_closes_are_records(make_run: Made, records: Any) -> None:
    class Late:
        @hookimpl
        def on_epoch_end(self, run: Any) -> None:
            run.alert("at the end")

    run = make_run(plugins=[Late()])
    run.end_epoch()
    run.close()
    assert hooks(run, records) == ["on_run_start", "on_epoch_end", "on_alert", "on_run_end"]


def test_a_loss_that_is_not_finite_is_told_before_a_following_exit(make_run: Made, records: Any) -> None:
    run = make_run()
    run.log_batch({"a": float("nan")})
    run.close()
    assert "on_alert" in hooks(run, records)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda run: run.log_batch(1.0, batch_size=2.5), "batch_size must be a whole number"),
        (lambda run: run.log_batch(1.0, n="2"), "n must be a whole number"),
        (lambda run: run.log_batch(1.0, step=1.5), "step must be a whole number"),
        (lambda run: run.log_batch(1.0, epoch="1"), "epoch must be a whole number"),
        (lambda run: run.log_metrics({"a": "x"}), r"metrics\['a'\] is a str"),
        (lambda run: run.log_metrics({"a": {"b": 1}}), r"metrics\['a'\] is a nested dict"),
        (lambda run: run.log_eval({"a": None}), r"metrics\['a'\]"),
        (lambda run: run.end_epoch(val_loss={"a": None}), r"val_loss\['a'\]"),
        (lambda run: run.log_checkpoint(5), "int"),
    ],
)
def test_wrong_types_raise_at_the_callers_line_and_nothing_is_logged(
    make_run: Made, records: Any, call: Any, said: str
) -> None:
    run = make_run()
    with pytest.raises(TypeError, match=said):
        call(run)
    run.close()
    assert hooks(run, records) == ["on_run_start", "on_run_end"]


@pytest.mark.parametrize("name", ["epochs", "steps_per_epoch", "resume_epoch", "resume_step"])
def test_numbers_of_a_run_must_be_whole(make_run: Made, name: str, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=f"{name} must be a whole number"):
        make_run(**{name: "20"})
    assert not (tmp_path / "runs").exists()


def test_numpy_and_torch_numbers_are_numbers(make_run: Made, records: Any) -> None:
    torch = pytest.importorskip("torch")
    run = make_run()
    run.log_batch(torch.tensor(1.0), batch_size=torch.tensor(4), step=np.int32(7), n=np.int64(2))
    run.log_checkpoint(b"a.pth")
    run.close()
    batch, checkpoint = records(run.dir)[1:3]
    assert (batch.data["batch_size"], batch.data["step"], batch.data["n"]) == (4, 7, 2)
    assert checkpoint.data["path"] == "a.pth"


def test_a_metric_may_be_called_total(make_run: Made, records: Any) -> None:
    run = make_run()
    run.log_metrics({"total": 5.0, "a": 1.0})
    run.log_metrics({"total": 7.0})
    run.close()
    assert [each.data["metrics"]["total"] for each in records(run.dir) if each.hook == "on_metrics"] == [5.0, 7.0]


# ---------------------------------------------------------------- hooks of the script


def test_a_hook_can_be_registered_at_any_time(make_run: Made, probe: Any) -> None:
    run = make_run()
    run.log_batch(1.0)
    assert run.register(probe) is probe
    run.log_batch(2.0)
    run.close()
    assert probe.calls[0][0] == "on_run_start"
    assert [data["total"] for data in probe.of("on_batch_losses")] == [1.0, 2.0]


def test_a_function_for_one_hook(make_run: Made) -> None:
    got = []
    run = make_run()

    @run.on("on_eval")
    def seen(metrics: Any, epoch: int) -> None:
        got.append((metrics, epoch))

    run.log_batch(1.0)
    run.log_eval({"x": 1})
    run.close()
    assert got == [({"x": 1}, 1)]


def test_functions_of_one_name_get_names_of_their_own(make_run: Made) -> None:
    run = make_run()
    for _ in range(3):
        run.on("on_eval")(lambda metrics: None)
    assert list(run.stats["lanes"]) == ["<lambda>", "<lambda>-2", "<lambda>-3"]


def test_a_name_can_be_taken_once(make_run: Made, probes: Any) -> None:
    run = make_run()
    run.register(probes())
    with pytest.raises(ValueError, match="registered already: pass name="):
        run.register(probes())
    run.register(probes(), name="other")


def test_a_typo_in_a_hook_is_found_at_once(make_run: Made) -> None:
    run = make_run()
    with pytest.raises(ValueError, match="on_evall"):
        run.on("on_evall")(lambda metrics: None)
    with pytest.raises(ValueError, match="metrcs"):
        run.on("on_eval")(lambda metrcs: None)
    assert run.stats["lanes"] == {}


def test_a_module_can_be_registered(make_run: Made) -> None:
    module = types.ModuleType("my_hooks")
    source = "from losslog import hookimpl\ngot = []\n@hookimpl\ndef on_eval(metrics): got.append(metrics)"
    exec(source, module.__dict__)
    run = make_run()
    run.register(module)
    run.log_eval({"x": 1})
    run.close()
    assert module.got == [{"x": 1}]


def test_an_inline_hook_is_called_in_step_in_the_same_thread(make_run: Made) -> None:
    got = []

    class Inner:
        @hookimpl
        def on_batch_losses(self, step: int, losses: Any, total: float, seq: int) -> None:
            got.append((step, losses, total, seq, threading.current_thread()))

    run = make_run()
    run.register(Inner(), inline=True)
    run.log_batch({"a": 1.0, "b": 2.0})
    assert got == [(0, {"a": 1.0, "b": 2.0}, 3.0, -1, threading.current_thread())]
    run.log_batch({"a": 1.0}, total=5.0)
    assert got[-1][1:3] == ({"a": 1.0}, 5.0)


def test_an_inline_hook_is_told_of_how_many_passes_the_values_are_means(make_run: Made, probes: Any) -> None:
    inner, outer = probes(), probes()
    run = make_run(plugins=[outer])
    run.register(inner, name="inner", inline=True)
    run.log_batch(1.0, n=4)
    run.log_batch(1.0)
    run.close()
    for each in (inner, outer):
        assert [data.get("n") for data in each.of("on_batch_losses")] == [4, None]


def test_who_comes_after_the_end_gets_nothing(make_run: Made, probes: Any, caplog: pytest.LogCaptureFixture) -> None:
    run, late = make_run(), probes()
    run.log_batch(1.0)
    run.close()
    assert run.register(late) is late
    run.register(probes(), name="inner", inline=True)
    assert "register after close()" in caplog.text
    assert run.stats["lanes"] == {}
    assert late.of("on_batch_losses") == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_plugin_registered_in_a_forked_child_gets_nothing_of_its_parents(script: Any) -> None:
    process = script(
        """
        import os, threading
        import losslog
        run = losslog.Run("forked", dir="runs", plugins=None)
        run.log_batch(1.0)
        assert run.flush(30)
        if os.fork() == 0:
            run.on("on_batch_losses")(lambda step: None)
            run.on("on_batch_losses")(lambda step: None)
            print([each.name for each in threading.enumerate()], run.stats["lanes"], flush=True)
            os._exit(0)
        os.wait()
        run.close()
        """,
        flags=("-W", "ignore"),
    )
    assert process.communicate(timeout=60)[0] == "['MainThread'] {}\n"


def test_an_inline_hook_gets_the_losses_that_the_others_get(make_run: Made, probes: Any) -> None:
    inner, outer = probes(), probes()
    run = make_run(plugins=[outer])
    run.register(inner, name="inner", inline=True)
    run.log_batch({"a": 1.0, "b": 2.0, "total": 3.0})
    run.close()
    for each in (inner, outer):
        (data,) = each.of("on_batch_losses")
        assert (data["losses"], data["total"]) == ({"a": 1.0, "b": 2.0}, 3.0)


def test_an_inline_hook_can_stop_training(make_run: Made) -> None:
    class Inner:
        @hookimpl
        def on_batch_losses(self, step: int) -> None:
            if step == 2:
                raise StopTraining("enough")

    run = make_run()
    run.register(Inner(), inline=True)
    run.log_batch(1.0)
    run.log_batch(1.0)
    with pytest.raises(StopTraining, match="enough"):
        run.log_batch(1.0)


def test_in_a_hook_that_is_not_inline_it_is_a_request(make_run: Made, records: Any, until: Any) -> None:
    class Outer:
        @hookimpl
        def on_batch_losses(self, step: int) -> None:
            if step == 1:
                raise StopTraining("enough")

    run = make_run()
    run.register(Outer())
    run.log_batch(1.0)
    run.log_batch(1.0)
    until(lambda: run.should_stop)
    run.close()
    assert run.stop_reason == "enough"
    assert run.stats["lanes"]["Outer"]["errors"] == 0
    end = records(run.dir)[-1].data
    assert (end["status"], end["error"]) == ("stopped", "enough")


def test_hooks_of_ones_own_are_journaled_and_delivered(make_run: Made, records: Any) -> None:
    class Specs:
        @hookspec
        def on_sample(self, image: str, boxes: Any) -> None:
            """An image was drawn."""

    got = []
    run = make_run()
    run.add_hookspecs(Specs)
    run.on("on_sample")(lambda image, boxes: got.append((image, boxes)))
    run.emit("on_sample", image="a.png", boxes=(np.float32(1.5), 2))
    run.close()
    assert got == [("a.png", [1.5, 2])]
    assert records(run.dir)[1].hook == "on_sample"


def test_a_hook_nobody_specified_is_refused(make_run: Made) -> None:
    with pytest.raises(ValueError, match=r"no hook 'on_sample': add its specification"):
        make_run().emit("on_sample", image="a")


def test_strict_raises_a_plugins_error_at_the_next_call(
    make_run: Made, monkeypatch: pytest.MonkeyPatch, until: Callable[..., None]
) -> None:
    class Bad:
        @hookimpl
        def on_batch_losses(self) -> None:
            raise LookupError("mine")

    monkeypatch.setenv("LOSSLOG_STRICT", "1")
    run = make_run(plugins=[Bad()])
    run.log_batch(1.0)
    until(lambda: run.stats["lanes"]["Bad"]["errors"])
    with pytest.raises(LookupError, match="mine"):
        run.log_batch(1.0)


# ---------------------------------------------------------------- resume


def test_a_run_goes_on_where_it_was(make_run: Made, records: Any, probe: Any) -> None:
    first = make_run()
    first.log_batch(1.0)
    first.log_batch(1.0)
    first.end_epoch()
    first.close()
    second = make_run(name=None, resume=first.dir, plugins=[probe])
    assert (second.id, second.name, second.dir) == (first.id, "test", first.dir)
    second.log_batch(1.0)
    second.close()
    assert [each.seq for each in records(second.dir)] == list(range(8))
    assert [(data["step"], data["epoch"]) for data in probe.of("on_batch_losses")] == [(0, 1), (1, 1), (2, 2)]
    assert [data["resumed"] for data in probe.of("on_run_start")] == [False, True]


def test_a_run_can_go_on_from_an_earlier_point(make_run: Made, records: Any) -> None:
    first = make_run()
    for _ in range(5):
        first.log_batch(1.0)
    first.close()
    second = make_run(resume=first.dir, resume_epoch=1, resume_step=2)
    second.log_batch(1.0)
    second.close()
    found = records(second.dir)
    assert [each.data for each in found if each.hook == "on_resume"] == [{"epoch": 1, "step": 2}]
    assert [(each.data["step"], each.data["epoch"]) for each in found if each.hook == "on_batch_losses"][-1] == (3, 2)


def test_latest_is_the_last_run(make_run: Made) -> None:
    first = make_run()
    first.close()
    assert make_run(resume="latest").dir == first.dir


def test_a_run_that_is_not_there_cannot_be_resumed(make_run: Made) -> None:
    with pytest.raises(JournalError, match="no run"):
        make_run(resume="20200101-000000-0000")


def test_a_live_run_cannot_be_resumed(make_run: Made) -> None:
    with pytest.raises(RunLocked, match="another live run"):
        make_run(resume=make_run().dir)


def test_two_runs_in_one_process(make_run: Made, probes: Any) -> None:
    first, second = probes(), probes()
    one, two = make_run(plugins=[first]), make_run(plugins=[second])
    one.log_batch(1.0)
    two.log_batch(2.0)
    two.close()
    one.log_batch(3.0)
    one.close()
    assert [data["total"] for data in first.of("on_batch_losses")] == [1.0, 3.0]
    assert [data["total"] for data in second.of("on_batch_losses")] == [2.0]


def test_several_threads_may_log(make_run: Made, records: Any) -> None:
    run = make_run()

    def log(first: int) -> None:
        for step in range(first, first + 200):
            run.log_batch({"a": float(step)}, step=step, epoch=1)

    threads = [threading.Thread(target=log, args=(first,)) for first in range(0, 800, 200)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    run.close()
    found = [each for each in records(run.dir) if each.hook == "on_batch_losses"]
    assert sorted(each.data["step"] for each in found) == list(range(800))
    assert all(each.data["losses"]["a"] == each.data["step"] for each in found)


def test_memory_is_bounded_when_nothing_drains(make_run: Made, monkeypatch: pytest.MonkeyPatch, records: Any) -> None:
    monkeypatch.setattr("losslog.recording.intake.QUEUE_LIMIT", 100)
    gate = threading.Event()
    run = make_run()
    monkeypatch.setattr(os, "write", lambda fd, data, real=os.write: (gate.wait(30), real(fd, data))[1])
    for _ in range(1000):
        run.log_batch(1.0)
    run.end_epoch()
    gate.set()
    run.close()
    found = records(run.dir)
    batches = sum(each.hook == "on_batch_losses" for each in found)
    (epoch,) = (each.data for each in found if each.hook == "on_epoch_end")
    assert batches < 1000
    assert batches + epoch["dropped"] == 1000
    assert run.stats["dropped"] == epoch["dropped"]


def test_ranks_that_do_not_log_have_no_folder(make_run: Made, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    server = socket.create_server(("127.0.0.1", 0))  # answers; what it says is nothing that a store would
    monkeypatch.setenv("MASTER_PORT", str(server.getsockname()[1]))
    code = (
        "import losslog; run = losslog.Run('r'); run.log_batch(1.0); run.end_epoch(); "
        "print(run.logging_rank, flush=True); import os; os._exit(0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    server.close()
    assert done.stdout.split() == ["False"]
    assert not (tmp_path / "runs").exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_is_inert(make_run: Made, records: Any, probe: Any) -> None:
    run = make_run(plugins=[probe])
    run.log_batch(1.0)
    run.flush()
    child = os.fork()
    if child == 0:
        try:
            run.log_batch(2.0)
            run.end_epoch()
            run.log_eval({"x": 1})
            run.alert("x")
            silent = run.flush(timeout=60) and run.epoch_means(timeout=60) is None
            run.close()
            os._exit(0 if silent else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    run.log_batch(3.0)
    run.close()
    assert [data["total"] for data in probe.of("on_batch_losses")] == [1.0, 3.0]
    assert [each.hook for each in records(run.dir)].count("on_run_end") == 1


def test_the_figures_are_plain(make_run: Made, probe: Any) -> None:
    run = make_run(plugins=[probe])
    for _ in range(200):
        run.log_batch({"a": 1.0})
    run.flush()
    stats = json.loads(json.dumps(run.stats))
    assert (stats["steps"], stats["records"], stats["dropped"], stats["unwritten"]) == (200, 201, 0, 0)
    assert stats["us_per_step"] > 0
    assert (stats["lanes"]["Probe"]["state"], stats["lanes"]["Probe"]["behind"]) == ("live", 0)


def test_the_default_folder_can_be_moved(make_run: Made, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LOSSLOG_DIR", str(tmp_path / "elsewhere"))
    assert make_run(dir="runs").dir.parent.parent == (tmp_path / "elsewhere").resolve()


def test_a_stack_of_calls_costs_no_backend_time(make_run: Made, until: Callable[..., None]) -> None:
    # The training thread is never in the plugin: it has logged everything while the first record is still held.
    entered, release = threading.Event(), threading.Event()

    class Slow:
        @hookimpl
        def on_batch_losses(self) -> None:
            entered.set()
            release.wait(30)

    run = make_run(plugins=[Slow()])
    for _ in range(500):
        run.log_batch(1.0)
    assert entered.wait(30)
    assert run.stats["lanes"]["Slow"]["delivered"] == 0
    release.set()
    run.close()
    assert run.stats["lanes"]["Slow"]["delivered"] == 500


@pytest.mark.parametrize("path", ["x" * 5000, "a\0b", "x" * 300 + "/y.pth"])
def test_a_checkpoint_whose_name_no_file_can_have_is_logged_as_it_is(tmp_path: Path, path: str) -> None:
    run = losslog.Run("odd", dir=tmp_path, plugins=None, follower=False)
    run.log_checkpoint(path)
    run.close()
    assert [each.data["path"] for each in losslog.history.records(run.dir) if each.hook == "on_checkpoint"] == [path]


def test_a_moved_run_folder_keeps_its_checkpoint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with losslog.Run("moved", dir=tmp_path / "a", plugins=None, epochs=5) as run:
        run.log_batch(1.0)
        (run.dir / "c.pth").touch()
        run.log_checkpoint(run.dir / "c.pth")
        run.end_epoch()
    (tmp_path / "a").rename(tmp_path / "b")
    with losslog.Run("moved", dir=tmp_path / "b", plugins=None, epochs=5, resume="auto") as again:
        assert again.checkpoint == again.dir / "c.pth"
        assert again.epoch == 2
        again.checkpoint.unlink()
    caplog.set_level("INFO", "losslog")
    with losslog.Run("moved", dir=tmp_path / "b", plugins=None, epochs=5, resume="auto") as without:
        assert without.checkpoint is None
    assert "without a checkpoint" in caplog.text


@pytest.mark.parametrize("names", [("опыт", "другой"), ("a/c", "a-c"), ("a c", "a:c")])
def test_auto_goes_on_with_a_run_of_this_very_name(tmp_path: Path, names: tuple[str, str]) -> None:
    runs = []
    for name in names:
        with losslog.Run(name, dir=tmp_path, plugins=None, epochs=5, resume="auto") as run:
            run.log_batch(1.0)
            run.end_epoch()
            runs.append(run.dir)
    assert runs[0] != runs[1]
    with losslog.Run(names[0], dir=tmp_path, plugins=None, epochs=5, resume="auto") as again:
        assert (again.dir, again.epoch) == (runs[0], 2)
    with pytest.raises(losslog.LosslogError, match="is a run of"):
        losslog.Run(names[1], dir=tmp_path, plugins=None, resume=runs[0])


def test_on_without_a_hooks_name_is_refused(make_run: Made) -> None:
    run = make_run()
    with pytest.raises(TypeError, match="takes the name of a hook"):

        @run.on
        def on_epoch_end(losses: Any) -> None: ...

    with pytest.raises(ValueError, match=r"no hook 'on_evall', did you mean 'on_eval'|on_eval"):
        run.on("on_evall")


def test_an_alert_without_a_key_is_a_new_one_after_a_resume_too(make_run: Made, records: Any) -> None:
    class Inner:
        @hookimpl
        def on_batch_losses(self, step: int, run: Any) -> None:
            run.alert("odd", f"step {step}")

    folder = None
    for _ in range(2):  # twice from the same checkpoint
        run = make_run(resume=folder, resume_step=None if folder is None else -1)
        run.register(Inner(), inline=True)
        run.alert("begun")
        run.alert("known", key="known")
        run.log_batch({"a": 1.0})
        run.close()
        folder = run.dir
    told = [each.data["title"] for each in records(run.dir) if each.hook == "on_alert"]
    assert sorted(told) == ["begun", "begun", "known", "odd", "odd"]


@pytest.mark.parametrize("hook", ["on_eval", "on_metrics", "on_epoch_end", "on_checkpoint", "on_alert", "on_run_end"])
def test_a_stop_raised_inline_costs_no_record(make_run: Made, records: Any, hook: str) -> None:
    def stops(run: Any) -> None:
        raise StopTraining("enough")

    run = make_run()
    run.log_batch({"a": 1.0})
    run.register(types.SimpleNamespace(**{hook: hookimpl(stops)}), name="inner", inline=True)
    calls: dict[str, Callable[[], object]] = {
        "on_eval": lambda: run.log_eval({"x": 1.0}), "on_metrics": lambda: run.log_metrics({"x": 1.0}),
        "on_epoch_end": run.end_epoch, "on_checkpoint": lambda: run.log_checkpoint("x.pth"),
        "on_alert": lambda: run.alert("x"), "on_run_end": run.close,
    }  # fmt: skip
    with pytest.raises(StopTraining, match="enough"):
        calls[hook]()
    if hook != "on_run_end":
        run.close()
    assert hooks(run, records) == list(dict.fromkeys(["on_run_start", "on_batch_losses", hook, "on_run_end"]))


@pytest.mark.parametrize("timeout", ["finished", None, True, float("nan")])
def test_a_timeout_that_is_none_closes_nothing(make_run: Made, timeout: Any, records: Any) -> None:
    run = make_run()
    run.log_batch(1.0)
    for method in (run.close, run.flush, run.epoch_means):
        with pytest.raises(TypeError, match="timeout must be a number of seconds"):
            method(timeout)
    run.close()
    assert records(run.dir)[-1].data["status"] == "finished"


@pytest.mark.parametrize("timeout", [float("inf"), 1e300, 10**12, 0, -1, 1e-9])
def test_however_long_a_timeout_is_the_journal_gets_everything(
    make_run: Made, timeout: float, records: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = make_run()
    run.log_batch({"a": 1.0})
    if timeout > 1:
        assert run.flush(timeout)
        assert run.epoch_means(timeout) == {"a": 1.0}
    run.close(timeout)
    assert hooks(run, records) == ["on_run_start", "on_batch_losses", "on_run_end"]
    assert list(tmp_path.glob("losslog-spill-*")) == []


def test_means_of_a_run_that_is_closed_are_none_and_no_disk_is_blamed(
    make_run: Made, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run()
    run.log_batch(1.0)
    silent = copy.copy(run)
    run.close()
    assert run.epoch_means() is None
    assert "epoch_means after close()" in caplog.text
    caplog.clear()
    assert silent.epoch_means() is None
    assert caplog.text == ""


@pytest.mark.parametrize("n", [0, -1])
def test_means_of_no_passes_are_refused_and_the_epoch_keeps_its_end(make_run: Made, records: Any, n: int) -> None:
    run = make_run()
    with pytest.raises(ValueError, match=f"n must be at least 1, got {n}"):
        run.log_batch({"a": 1.0}, n=n)
    run.log_batch({"b": 2.0})
    run.end_epoch()
    run.close()
    assert [each.data["losses"] for each in records(run.dir) if "losses" in each.data] == [{"b": 2.0}] * 2


def test_one_name_is_no_list_of_components(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"components=\['class_error'\]"):
        losslog.Run("odd", dir=tmp_path, plugins=None, components="class_error")
    assert list(tmp_path.iterdir()) == []


def test_a_run_whose_journal_says_null_is_resumed_amid_its_epoch(make_run: Made) -> None:
    run = make_run()
    run.log_batch({"a": 1.0})
    run.close()
    path = run.dir / "journal.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"total": 1.0', b'"total": 1.0, "n": null, "weights": null'))
    run = make_run(resume=run.dir, resume_epoch=0, resume_step=0)
    assert run.epoch_means() == {"a": 1.0}


@pytest.mark.parametrize("options", [
    {"epochs": 0}, {"epochs": -3}, {"steps_per_epoch": 0}, {"resume_epoch": 3},
    {"resume": "latest", "resume_epoch": -1},
])  # fmt: skip
def test_numbers_that_make_no_sense_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must be at least|pass resume="):
        losslog.Run("odd", dir=tmp_path, plugins=None, **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [2**63, 2**64, 10**300, -(2**63) - 1])
@pytest.mark.parametrize("name", ["step", "epoch"])
def test_a_number_that_no_backend_takes_is_refused_at_the_line_that_logs_it(
    make_run: Callable[..., losslog.Run], name: str, number: int, probe: Any
) -> None:
    """Else it would be in the journal, and no reader would take it for a record."""
    run = make_run(plugins=[probe])
    for log in (lambda: run.log_batch(1.0, **{name: number}), lambda: run.log_metrics({"x": 1.0}, **{name: number}),
                lambda: run.log_eval({"x": 1.0}, **{name: number})):  # fmt: skip
        with pytest.raises(ValueError, match=rf"{name} must be below 2\*\*63"):
            log()
    run.log_batch(1.0, step=2**63 - 2)
    run.close()
    assert probe.steps == [2**63 - 2]
