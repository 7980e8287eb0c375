from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import losslog


@pytest.mark.parametrize(
    ("train_loss", "losses", "total"), [({"a": 1.0, "b": 2.0}, {"a": 1.0, "b": 2.0}, 3.0), (0.5, 0.5, 0.5)]
)
def test_one_call_logs_an_epoch(
    make_run: Callable[..., losslog.Run], probe: Any, train_loss: Any, losses: Any, total: float
) -> None:
    run = make_run(plugins=[probe])
    losslog.log_training_metrics(run, 3, train_loss, 0.7, {"bbox": {"AP": 0.5}}, 0.1)
    run.close()
    assert [hook for hook, _, _ in probe.calls] == ["on_run_start", "on_eval", "on_epoch_end", "on_run_end"]
    assert probe.of("on_epoch_end") == [{"epoch": 3, "losses": losses, "total": total, "val_loss": 0.7}]
    assert probe.of("on_eval")[0]["epoch"] == 3


def test_without_losses_it_takes_the_means_of_the_batches(make_run: Callable[..., losslog.Run], probe: Any) -> None:
    run = make_run(plugins=[probe])
    run.log_batch({"a": 1.0})
    run.log_batch({"a": 3.0})
    losslog.log_training_metrics(run, 1)
    run.close()
    assert probe.of("on_epoch_end")[0]["losses"] == {"a": 2.0}
    assert probe.of("on_eval") == []
