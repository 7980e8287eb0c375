"""The one-call style: everything about an epoch in one line.

Training thread. Contract:

- It is made of `losslog.Run`'s own methods, so the records are those of a loop that calls them itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from losslog.run import Run


def log_training_metrics(
    run: Run,
    epoch: int,
    train_loss: Any = None,
    val_loss: Any = None,
    metrics: Mapping[str, Any] | None = None,
    lr: Any = None,
) -> None:
    """Log one epoch.

    Args:
        run: the run.
        epoch: from 1.
        train_loss: means by component, or one number; None takes the means of the batches logged.
        val_loss: likewise, or None.
        metrics: results of an evaluation, nested or flat; None for none.
        lr: learning rate, a number or numbers by group.

    Raises:
        TypeError, ValueError: a value is not a number.
    """
    if metrics:
        run.log_eval(metrics, epoch=epoch)
    run.end_epoch(epoch, losses=train_loss, val_loss=val_loss, lr=lr)
