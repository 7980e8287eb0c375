"""Stories: made-up runs as records, with the series a plugin should make of them.

No thread, no I/O. Contract:

- A story is the same every time: values, times and seqs.
- It has chapters, one for each thing a plugin may stumble over, so that a check can look at its own chapter alone.
- Global steps start far above the epochs, so that a point on the wrong axis cannot look right by accident.
- What is expected comes from the functions of `losslog.tags`, as it should in a plugin.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from losslog.journal.records import Record
from losslog.tags import batch_series, epoch_series, eval_series

Points = list[tuple[int, float]]
Series = dict[str, Points]

FIRST_STEP: Final = 100
STEPS: Final = 3  # batches an epoch
CONFIG: Final = {"model": {"backbone": "tiny"}, "lr": 0.005, "classes": ["cat", "dog"], "amp": False, "seed": None}
WEIGHTS: Final = {
    "loss_box_reg": 0.1234,
    "loss_classifier": 0.1456,
    "loss_mask": 0.389,
    "loss_objectness": 0.0567,
    "loss_rpn_box_reg": 0.1087,
}
PLAIN: Final = "plain"


class Story:
    """Records, and what is expected of each chapter.

    Attributes:
        records: in order, ``seq`` from 0.
        chapters: seqs by chapter.
        expected: series by chapter.
    """

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.chapters: dict[str, set[int]] = {}
        self.expected: dict[str, Series] = {}
        self.step = FIRST_STEP
        self._axes: dict[str, str] = {}  # by tag

    def tell(self, hook: str, data: Mapping[str, Any], chapter: str = PLAIN) -> None:
        """Add a record."""
        seq = len(self.records)
        self.records.append(Record(seq, 1.7e9 + 0.25 * seq, hook, dict(data)))
        self.chapters.setdefault(chapter, set()).add(seq)

    def expect(self, series: Mapping[str, float], x: int, chapter: str = PLAIN, axis: str = "epoch") -> None:
        """Expect one point in each of these series."""
        told = self.expected.setdefault(chapter, {})
        for tag, value in series.items():
            told.setdefault(tag, []).append((x, value))
            self._axes[tag] = axis

    def only(self, axes: Collection[str]) -> Story:
        """The same story for a backend that takes series on these axes alone."""
        for chapter, series in self.expected.items():
            self.expected[chapter] = {tag: points for tag, points in series.items() if self._axes[tag] in axes}
        return self

    def begin(self, *, resumed: bool = False, epochs: int | None = 6) -> None:
        """The run starts."""
        self.tell(
            "on_run_start",
            {
                "name": "conformance",
                "config": CONFIG,
                "epochs": epochs,
                "steps_per_epoch": STEPS,
                "options": {},
                "resumed": resumed,
            },
        )

    def epoch(
        self,
        number: int,
        losses: Callable[[int], Any],
        chapter: str = PLAIN,
        *,
        lr: Any = 0.005,
        val_loss: Any = None,
    ) -> None:
        """A few batches and the epoch's end, whose means are those of its last batch.

        Args:
            number: the epoch, from 1.
            losses: the losses at a step.
            chapter: where it belongs.
            lr: learning rate.
            val_loss: validation loss.
        """
        for _ in range(STEPS):
            given, step = losses(self.step), self.step
            data = {"step": step, "epoch": number, "losses": given, "total": _total(given), "lr": lr, "batch_size": 2}
            self.tell("on_batch_losses", data, chapter)
            self.expect(batch_series(given, None, lr), step, chapter, "step")
            self.step += 1
        given, total = losses(self.step - 1), _total(losses(self.step - 1))
        data = {"epoch": number, "epochs": 6, "step": self.step - 1, "losses": given, "total": total,
                "val_loss": val_loss, "lr": lr, "duration": 1.5, "dropped": 0}  # fmt: skip
        self.tell("on_epoch_end", data, chapter)
        self.expect(epoch_series(given, None, val_loss, lr), number, chapter)

    def series(self, *without: str) -> Series:
        """The expected series of all chapters except those named."""
        whole: Series = {}
        for chapter, series in self.expected.items():
            for tag, points in series.items() if chapter not in without else ():
                whole.setdefault(tag, []).extend(points)
        return whole


def _total(losses: Any) -> float:
    return float(sum(losses.values())) if isinstance(losses, dict) else float(losses)


def component_losses(step: int) -> dict[str, float]:
    """Five components that differ at every step."""
    return {name: weight * (1 + 10 / step) + 0.001 * (step % 7) for name, weight in WEIGHTS.items()}


def _evaluations(story: Story, epoch: int) -> None:
    nested = {
        kind: {"AP": 0.1 * epoch + at, "AP50": 0.2 * epoch + at, "AP75": 0.05, "classes": {"cat": 0.3, "dog": 0.0}}
        for kind, at in (("bbox", 0.01), ("segm", 0.02))
    }
    for split in ("val", "test"):
        data = {"epoch": epoch, "step": story.step - 1, "split": split, "metrics": nested}
        story.tell("on_eval", data, "coco")
        story.expect(eval_series(nested, split), epoch, "coco")


RLE: Final = {"size": [6, 8], "counts": "733000g0"}  # a block of 3 x 3 in an image of 8 x 6
SEEN: Final = {
    "id": 12, "path": "12.jpg", "width": 8, "height": 6, "missed": 1, "extra": 1, "iou": 0.8,
    "truth": [{"box": [1.0, 1.0, 4.0, 4.0], "label": "cat", "rle": RLE, "mistake": "missed"}],
    "predictions": [{"box": [5.0, 2.0, 8.0, 6.0], "label": "dog", "score": 0.75, "mistake": "extra"}],
}  # fmt: skip


def _extras(story: Story, epoch: int) -> None:
    step = story.step - 1
    story.tell("on_images", {"epoch": epoch, "step": step, "split": "val", "name": "fixed", "images": [SEEN]})
    flat = {"accuracy": 0.5 + 0.1 * epoch}
    story.tell("on_eval", {"epoch": epoch, "step": step, "split": "val", "metrics": flat})
    story.expect(eval_series(flat), epoch)
    by_step, by_epoch = {"throughput/images_per_s": 40.0 + epoch}, {"memory/peak_gib": 3.5 + epoch}
    story.tell("on_metrics", {"step": step, "epoch": None, "metrics": by_step})
    story.expect(by_step, step, axis="step")
    story.tell("on_metrics", {"step": None, "epoch": epoch, "metrics": by_epoch})
    story.expect(by_epoch, epoch)
    path = f"checkpoints/epoch_{epoch:03d}.pth"
    story.tell("on_checkpoint", {"epoch": epoch, "step": step, "path": path})
    alert = {"level": "warning", "title": "loss_mask has stalled", "text": "No progress.\nLower the rate.",
             "source": "user", "component": "loss_mask", "step": step, "epoch": epoch,
             "key": f"stall/{epoch}"}  # fmt: skip
    story.tell("on_alert", alert)


def full_story() -> Story:
    """Three plain epochs with evaluations, a component that comes late, values that are not finite, values missing."""
    story = Story()
    story.begin()
    for epoch in (1, 2, 3):
        rates = {"backbone": 0.01 / epoch, "heads": 0.1 / epoch}
        val_loss = {"loss_mask": 0.5 / epoch, "loss_box_reg": 0.25 / epoch}
        story.epoch(epoch, component_losses, lr=rates, val_loss=val_loss)
        _evaluations(story, epoch)
        _extras(story, epoch)
    story.epoch(4, lambda step: component_losses(step) | {"loss_late": 0.75}, "late component")
    odd = {"loss_mask": math.nan, "loss_box_reg": math.inf, "loss_objectness": -math.inf}
    story.epoch(5, lambda step: component_losses(step) | odd, "non-finite")
    nothing = {"epoch": 6, "epochs": None, "step": None, "losses": None, "total": None, "val_loss": None, "lr": None,
               "duration": None, "dropped": None}  # fmt: skip
    story.tell("on_epoch_end", nothing, "missing values")
    story.tell("on_metrics", {"step": None, "epoch": None, "metrics": {"time/to_start": 2.5}}, "missing values")
    story.expect({"time/to_start": 2.5}, 0, "missing values", "step")
    story.tell("on_checkpoint", {"epoch": None, "step": None, "path": "checkpoints/last.pth"}, "missing values")
    story.tell("on_images", {"epoch": 6, "step": None, "split": "val", "name": "empty", "images": []}, "missing values")
    alert = {"level": "info", "title": "hello", "text": "", "source": "user", "component": None, "step": None,
             "epoch": None, "key": "hello"}  # fmt: skip
    story.tell("on_alert", alert, "missing values")
    return story


def scalar_story() -> Story:
    """Two epochs of one scalar loss."""
    story = Story()
    story.begin(epochs=None)
    for epoch in (1, 3):
        story.epoch(epoch, lambda step: 0.5, val_loss=0.25, lr=0.125)
    return story


def resumed_story() -> tuple[Story, int]:
    """A run that goes back to its second epoch, and how many of its records come before it does."""
    story = Story()
    story.begin()
    for epoch in (1, 2, 3):
        story.epoch(epoch, component_losses)
        if epoch == 2:
            back_to = story.step
    before = len(story.records)
    story.step = back_to
    story.begin(resumed=True)
    story.tell("on_resume", {"epoch": 2, "step": back_to - 1})
    for epoch in (3, 4):
        story.epoch(epoch, lambda step: {name: value / 2 for name, value in component_losses(step).items()})
    return story, before


def straight_story() -> Story:
    """The run that `resumed_story` should look like afterwards."""
    story = Story()
    story.begin()
    for epoch in (1, 2, 3, 4):
        part = 1 if epoch < 3 else 2
        story.epoch(epoch, lambda step, part=part: {k: v / part for k, v in component_losses(step).items()})  # type: ignore[misc]
    return story


def batches(count: int) -> Story:
    """Batches only, for measuring."""
    story = Story()
    story.begin()
    for step in range(count):
        losses = component_losses(step + 1)
        data = {"step": step, "epoch": 1, "losses": losses, "total": _total(losses), "lr": 0.005, "batch_size": 2}
        story.tell("on_batch_losses", data)
    return story
