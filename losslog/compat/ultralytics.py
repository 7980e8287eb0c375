"""ultralytics: ``losslog.compat.ultralytics.add(model)`` before ``model.train(...)``, for every task.

Training thread. Contract:

- Components are the trainer's own, per image and with their gains, as its progress line shows them; one record an
  optimizer step, also while its warm-up changes how many batches make one.
- Validation losses and AP, of each class too, go with the epoch; ``last.pt`` and ``best.pt`` are checkpoints.
- Beside the weights lies which run they are of: ``train(resume=True)`` goes on with it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from losslog.compat.base import Guest, Loop, contained
from losslog.compat.naming import require
from losslog.runtime.containment import attempt

LOWEST: Final = "8.4"
NOTE: Final = "losslog.json"  # beside the weights
KINDS: Final = {"bbox": ("box", "B"), "segm": ("seg", "M"), "keypoints": ("pose", "P")}
FIGURES: Final = {"AP": "mAP50-95", "AP50": "mAP50", "precision": "precision", "recall": "recall"}


def add(model: Any, **options: Any) -> Guest:
    """Log what a model trains from now on.

    Args:
        model: a ``YOLO``, ``RTDETR`` or the like.
        options: keyword arguments of `losslog.Run`.

    Returns:
        What logs: its ``run`` is the run, once training has begun.

    Raises:
        ImportError: ultralytics is too old.
    """
    require("ultralytics", LOWEST, "ultralytics")
    guest = _Callbacks(options)
    for event in ("on_train_start", "on_train_batch_end", "on_fit_epoch_end", "on_model_save", "on_train_end"):
        model.add_callback(event, getattr(guest, event))
    return guest


class _Callbacks(Guest):
    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options

    def on_train_start(self, trainer: Any) -> None:
        self.leave()
        config = {name: value for name, value in vars(trainer.args).items() if value is not None}
        self.loop = Loop(
            self.options,
            config=config,
            epochs=trainer.epochs,
            optimizers=[trainer.optimizer],
            past=self._noted(trainer) if trainer.start_epoch else None,
        )
        self.loop.window.hears = False  # what goes backward is times the images of a batch

    def _noted(self, trainer: Any) -> dict[str, Any] | None:
        noted, _ = attempt(lambda: json.loads((Path(trainer.wdir) / NOTE).read_text("utf-8")))
        return noted if noted and noted.get("epoch") == trainer.start_epoch else None

    @contained
    def on_train_batch_end(self, trainer: Any) -> None:
        items = trainer.loss_items
        names = (trainer.loss_names,) if isinstance(trainer.loss_names, str) else trainer.loss_names
        if not isinstance(items, dict):  # one loss is no vector
            items = dict(zip(names, items if items.dim() else [items], strict=False))
        self.loop.window.batch({name: value.detach() for name, value in items.items()})
        if self.loop.stepped:
            self.loop.step()
            if self.loop.should_stop([trainer.optimizer], [trainer.scheduler]):
                trainer.stop = True

    @contained
    def on_fit_epoch_end(self, trainer: Any) -> None:
        self._evaluated(trainer)

    def _evaluated(self, trainer: Any) -> None:
        """The epoch is over, said before or behind its checkpoint; what the final evaluation says again is none."""
        if not self.loop.logbook.steps:
            return
        figures = dict(trainer.metrics or {})
        found: dict[str, Any] = {}
        for kind, (attribute, letter) in KINDS.items():
            its = {short: figures.pop(f"metrics/{name}({letter})", None) for short, name in FIGURES.items()}
            if its["AP"] is not None:
                found[kind] = {short: value for short, value in its.items() if value is not None}
                found[kind] |= _by_class(getattr(trainer.validator, "metrics", None), attribute)
        self.loop.evaluated({name.removeprefix("metrics/"): value for name, value in figures.items()}, nested=found)
        self.loop.end_epoch()

    @contained
    def on_model_save(self, trainer: Any) -> None:
        self._evaluated(trainer)
        self.loop.checkpoint(trainer.last)
        if trainer.best_fitness == trainer.fitness and Path(trainer.best).exists():
            self.loop.checkpoint(trainer.best)
        (Path(trainer.wdir) / NOTE).write_text(json.dumps(self.loop.state()), "utf-8")

    @contained
    def on_train_end(self, trainer: Any) -> None:
        self.loop.end()


def _by_class(metrics: Any, attribute: str) -> dict[str, Any]:
    """AP of the classes that there were in the data."""
    figures = getattr(metrics, attribute, None)
    if figures is None or not hasattr(figures, "ap_class_index"):
        return {}
    return {
        "classes": {str(metrics.names[int(index)]): float(figures.maps[int(index)]) for index in figures.ap_class_index}
    }
