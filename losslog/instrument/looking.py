"""Images and mistakes of an evaluation that a loop made itself. Training thread, between epochs.

Contract:

- What cannot be told (other evaluators, no sizes, no numpy) is left out; nothing here raises into the loop.
- Boxes are taken to be of the pixels as files store them: PIL and torchvision's data sets do not apply EXIF.
- The data folder is the run's own, else that of a data set whose loader was seen and which has the images.
"""

from __future__ import annotations

import importlib
import importlib.util
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
_wanted = [False]  # whether a first batch is waited for
_offered: deque[tuple[Any, Any]] = deque(maxlen=2)
_data_sets: deque[weakref.ref[Any]] = deque(maxlen=8)  # whose loaders were seen last


def saw(dataset: Any) -> None:
    """A loader begins to give batches of a data set."""
    if dataset is not None and not any(each() is dataset for each in _data_sets):
        attempt(lambda: _data_sets.append(weakref.ref(dataset)))


def begin() -> None:
    """A loop is watched from now on: its first batch is of interest."""
    _offered.clear()
    _wanted[0] = True


def offered(dataset: Any, batch: Any) -> None:
    """A loader gave its first batch of a data set."""
    if _wanted[0]:
        _offered.append((dataset, batch))


def labels(run: Run) -> None:
    """The first step is to be recorded: log a sheet of the images it was made with, as far as a loader gave them."""
    _wanted[0] = False
    found = [*_offered]
    _offered.clear()
    if run.next_step == 0 and run.logging_rank:
        for dataset, batch in reversed(found):
            logged, error = attempt(lambda batch=batch, dataset=dataset: _labels(run, batch, dataset))
            if error is not None:
                _said("no sheet of the first training images (%s)", one_line(error), key="labels")
            if logged or error is not None:
                break


def _labels(run: Run, batch: Any, dataset: Any) -> bool:
    drawing = all(importlib.util.find_spec(each) for each in ("PIL", "numpy", "pycocotools"))
    return drawing and bool(importlib.import_module("losslog.detection.labels").log(run, [batch], dataset))


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
    if not seen.images:
        _said("no images and no table of mistakes of this evaluation: they are told of COCOeval with useCats and the "
              "area range 'all', not of LVIS", key="untold")  # fmt: skip
        return
    epoch = run.open_epoch if epoch is None else epoch
    if mistakes := seen.metrics(split):
        run.log_metrics(mistakes, epoch=epoch)
    if not seen.sized:
        _said("no images of this evaluation: its annotations do not tell width and height of each image", key="unsized")
        return
    shown = {"fixed": seen.fixed(), "hardest": seen.hardest()}
    for name, images in shown.items():
        if images:
            images = images if _ours() else [each | {"turned": False} for each in images]
            run.log_images(split, images, name=name, folder=_folder(images, run), epoch=epoch)


def _ours() -> bool:
    """Whether the pictures were read by our own data set, which turns them as their EXIF says; torchvision's do not."""
    return any(type(each()).__module__.startswith("losslog.detection.") for each in _data_sets)


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
