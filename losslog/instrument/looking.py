"""Images and mistakes of an evaluation that a loop made itself. Training thread, between epochs.

Contract:

- What cannot be told (other evaluators, no sizes, no numpy) is left out; nothing here raises into the loop.
- The data folder is the run's own, else that of a data set whose loader was seen and which has the images.
"""

from __future__ import annotations

import importlib
import weakref
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from losslog.runtime.containment import attempt, one_line
from losslog.runtime.notices import Once

if TYPE_CHECKING:
    from losslog.run import Run

FOLDERS: Final = ("root", "images", "img_folder", "img_dir", "image_dir", "images_dir", "img_root", "image_root")
_said = Once()  # of the process
_data_sets: deque[weakref.ref[Any]] = deque(maxlen=8)  # whose loaders were seen last


def saw(loader: Any) -> None:
    """A loader begins to give batches."""
    dataset = getattr(loader, "dataset", None)
    if dataset is not None and not any(each() is dataset for each in _data_sets):
        attempt(lambda: _data_sets.append(weakref.ref(dataset)))


def log(run: Run, scorers: Mapping[str, Any], split: str, epoch: int | None) -> None:
    """Log a table of mistakes, and images worth a look.

    Args:
        run: where to log.
        scorers: a `COCOeval` by ``bbox`` and ``segm``.
        split: what was evaluated.
        epoch: which epoch, or None.
    """
    wanted = {kind: each for kind, each in scorers.items() if kind in ("bbox", "segm")}
    if wanted and run.logging_rank:
        _, error = attempt(_log, run, wanted, split, epoch)
        if error is not None:
            _said("no images and no table of mistakes of this evaluation (%s)", one_line(error), key="images")


def _log(run: Run, scorers: Mapping[str, Any], split: str, epoch: int | None) -> None:
    seen = importlib.import_module("losslog.detection.evaluated").Evaluated(scorers)
    epoch = run.open_epoch if epoch is None else epoch
    if mistakes := seen.metrics(split):
        run.log_metrics(mistakes, epoch=epoch)
    if not seen.sized:
        return
    shown = {"fixed": seen.fixed(), "hardest": seen.hardest()}
    for name, images in shown.items():
        if images:
            run.log_images(split, images, name=name, folder=_folder(images, run), epoch=epoch)


def _folder(images: Any, run: Run) -> Path | None:
    """Where the first of these images lies, as far as a data set tells."""
    path = images[0].get("path")
    if run.images is not None or not path:
        return None
    for each in reversed(_data_sets):
        dataset = each()
        for _ in range(5):  # wrappers
            for name in FOLDERS:
                root, _ = attempt(lambda dataset=dataset, name=name: Path(getattr(dataset, name)))
                if root is not None and attempt((root / path).is_file)[0]:
                    return root
            dataset = getattr(dataset, "dataset", getattr(dataset, "_dataset", None))
    return None
