"""A hook that is called in the training thread, in step, and can end training at once.

``inline=True`` costs what the hook costs, and on a GPU it waits for the values at each step: for what must not come a
step late. Whatever else the hook raises is contained; only ``losslog.StopTraining`` reaches the loop. Run it::

    python examples/inline_stop.py
"""

import losslog


class StopWhenExploding:
    """Ends training when the loss is ten times its smallest value."""

    def __init__(self) -> None:
        self.smallest = float("inf")

    @losslog.hookimpl
    def on_batch_losses(self, step, total):
        """Look at a step's loss."""
        self.smallest = min(self.smallest, total)
        if total > 10 * self.smallest:
            raise losslog.StopTraining(f"the loss is {total:.1f} at step {step}, it was {self.smallest:.1f}")


def main() -> None:
    run = losslog.Run("inline-stop", plugins=[])
    run.register(StopWhenExploding(), inline=True)
    try:
        with run:
            for step in range(1000):
                loss = 1.0 if step < 50 else 1.3 ** (step - 50)
                run.log_batch({"loss_mask": 0.8 * loss, "loss_box_reg": 0.2 * loss})
    except losslog.StopTraining as reason:
        print(f"stopped: {reason}")


if __name__ == "__main__":
    main()
