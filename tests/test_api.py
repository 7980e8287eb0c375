"""The public names, and what importing them costs."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import losslog

NAMES = [
    "BackendUnavailable", "LosslogError", "NotReady", "PluginError", "Run", "RunLocked", "StopTraining",
    "batch_series", "epoch_series", "eval_series", "hookimpl", "hookspec", "load", "log_training_metrics",
    "lr_series", "scalars",
]  # fmt: skip
RUN = {
    "alert", "apply_requests", "close", "emit", "end_epoch", "epoch_means", "flush", "log_batch", "log_checkpoint",
    "log_eval", "log_metrics", "on", "register", "request_lr", "request_stop", "add_hookspecs", "should_stop", "stats",
}  # fmt: skip


def test_the_public_names_are_these() -> None:
    assert set(losslog.__all__) - {"attach"} == set(NAMES)


def test_every_public_name_is_there() -> None:
    assert [name for name in losslog.__all__ if not hasattr(losslog, name)] == []


def test_a_run_offers_what_is_documented() -> None:
    assert [name for name in RUN if not hasattr(losslog.Run, name)] == []


def test_a_run_takes_what_is_documented() -> None:
    parameters = inspect.signature(losslog.Run).parameters
    names = [name for name, each in parameters.items() if each.kind is each.POSITIONAL_OR_KEYWORD]
    assert names == ["name", "dir", "config", "plugins", "options"]


def test_attach_is_documented_where_it_stands() -> None:
    assert "passes_per_epoch: passes over data loaders" in (inspect.getdoc(losslog.attach) or "")
    assert list(inspect.signature(losslog.attach).parameters)[:2] == ["model", "optimizer"]


def test_importing_imports_no_torch_and_no_numpy() -> None:
    command = [sys.executable, "-X", "importtime", "-c", "import losslog"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    imported = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert "losslog" in imported
    assert not imported & {"torch", "numpy", "rich", "tensorboard", "wandb", "mlflow"}


def test_what_a_run_needs_is_imported_by_who_asks_for_one() -> None:
    code = (
        "import sys, losslog; print('losslog.run' in sys.modules, 'socket' in sys.modules); "
        "print(sorted(set(losslog.__all__) - set(dir(losslog)))); from losslog import attach; "
        "print(losslog.Run.__module__, losslog.history.records.__module__, attach is losslog.attach)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines() == ["False False", "[]", "losslog.run losslog.history True"]


@pytest.mark.parametrize("name", ["rnu", "_private", "__wrapped__", "a.b", "", "run.x"])
def test_a_name_that_is_none_is_said_as_python_says_it(name: str) -> None:
    with pytest.raises(AttributeError, match="module 'losslog' has no attribute"):
        getattr(losslog, name)


def test_importing_starts_no_thread_and_touches_no_signal() -> None:
    code = (
        "import signal, threading; before = [signal.getsignal(s) for s in (2, 15)]; import losslog; "
        "print(threading.active_count(), before == [signal.getsignal(s) for s in (2, 15)])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["1", "True"]
