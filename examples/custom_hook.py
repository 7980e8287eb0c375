"""Hooks of your own: an object with ``run.register``, a function with ``@run.on``.

Both run in threads of this process, never in the training thread, and get every record, in order. Run it::

    python examples/custom_hook.py
"""

import math

import losslog


class Best:
    """Keeps the best epoch, and tells a person when the loss of a component stands out."""

    def __init__(self, factor: float = 3.0) -> None:
        self.best = (math.inf, 0)
        self.factor = factor

    @losslog.hookimpl
    def on_epoch_end(self, epoch, losses, total, run):  # a hook names only the arguments it wants
        """Compare an epoch with the best so far."""
        if total < self.best[0]:
            self.best = (total, epoch)
        name, largest = max(losses.items(), key=lambda each: each[1])
        if largest > self.factor * (total - largest):
            run.alert(f"{name} is most of the loss", f"{largest:.3f} of {total:.3f} in epoch {epoch}", "info", key=name)


def main() -> None:
    best = Best()
    with losslog.Run("custom-hook", plugins=[]) as run:
        run.register(best)

        @run.on("on_alert")
        def tell(title, text):
            print(f"alert: {title} ({text})")

        for epoch in range(1, 6):
            for step in range(20):
                progress = epoch + step / 20
                run.log_batch({"loss_mask": 4.0 / progress, "loss_box_reg": 0.5 / progress + 0.1 * max(epoch - 3, 0)})
            run.end_epoch()
    print(f"best epoch: {best.best[1]} (loss {best.best[0]:.3f})")


if __name__ == "__main__":
    main()
