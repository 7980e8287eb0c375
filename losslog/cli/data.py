"""The data of ``losslog train``: opened, checked, and shown by ``--check``. Runs on the main thread.

Contract:

- What was put right or left out is said on stderr, once a kind; what cannot be used is a `UsageError`.
- Nothing that has no object to train on gets past here.
- ``--check`` begins no run; its summary goes to stdout, its picture into one PNG file.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from losslog.cli.arguments import UsageError
from losslog.runtime.containment import printable

if TYPE_CHECKING:
    from losslog.detection import CocoDataset

_EVERY: Final = 0.2  # seconds between two writes of a progress line


def open_data(args: argparse.Namespace) -> tuple[CocoDataset, CocoDataset]:
    """Opens training and validation data.

    Raises:
        UsageError: names the option, the file and the fix.
    """
    from losslog.detection import CocoDataset, DataError, HorizontalFlip

    root = Path(args.data)
    if not root.is_dir():
        raise UsageError(f"--data {root}: no such folder")
    images, val_images = root / args.images, root / (args.val_images or args.images)
    for option, path in (("--images", images), ("--val-images", val_images)):
        if not path.is_dir():
            raise UsageError(f"no image folder {path}; say where the images are with {option}")
    paths = {"--train-annotations": root / args.train_annotations, "--val-annotations": root / args.val_annotations}
    for option, path in paths.items():
        if not path.is_file():
            raise UsageError(f"no annotation file {path}; say where it is with {option}")
    sets: list[CocoDataset] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for (option, path), folder in zip(paths.items(), (images, val_images), strict=True):
            first = not sets
            try:
                sets.append(
                    CocoDataset(
                        folder,
                        path,
                        categories=None if first else sets[0].categories,
                        transform=HorizontalFlip() if first and not args.no_flip else None,
                        masks=None if first else sets[0].masks,
                        progress=progress_line(f"losslog train: {path.name}: images opened"),
                    )
                )
            except DataError as error:
                raise UsageError(f"{option}: {error}") from error
            if first:
                _check_trainable(sets[0], option, path)
    for warning in caught:
        print(f"losslog train: {printable(str(warning.message))}", file=sys.stderr)
    return sets[0], sets[1]


def _check_trainable(dataset: CocoDataset, option: str, path: Path) -> None:
    if not dataset.categories.names:
        raise UsageError(f"{option}: {path} defines no categories")
    if not dataset.masks:
        raise UsageError(f"{option}: {path} has no segmentations to train masks on")
    if not len(dataset.usable.rows):
        reasons = [f"{dataset.table.crowd.sum()} are crowds"] if dataset.table.crowd.any() else []
        reasons += [f"{kind.what}: {kind.count}" for kind in dataset.findings.kinds.values() if kind.left_out]
        about = f" ({'; '.join(reasons)})" if reasons else ""
        raise UsageError(f"{option}: {path} has no object to train on among {len(dataset.table)} annotations{about}")


def progress_line(text: str) -> Callable[[int, int], None] | None:
    """What `CocoDataset` reports to: one line that is written over, on a terminal only; None elsewhere."""
    if sys.stderr is None or not sys.stderr.isatty():
        return None
    last = time.monotonic()
    shown = False

    def report(done: int, of: int) -> None:
        nonlocal last, shown
        now = time.monotonic()
        if now - last < _EVERY and not (done == of and shown):
            return
        last, shown = now, True
        print(f"\r{printable(text)}: {done:,} of {of:,}", end="\n" if done == of else "", file=sys.stderr, flush=True)

    return report


def check_data(args: argparse.Namespace) -> None:
    """``losslog train --check``: prints a summary of the data and draws ten of its training images.

    Raises:
        UsageError: the data cannot be trained on, or the picture cannot be written.
    """
    from losslog.detection.check import summary, write_sheet

    train_set, val_set = open_data(args)
    for name, dataset in (("train", train_set), ("val", val_set)):
        for line in summary(name, dataset):
            print(printable(line))
    try:
        write_sheet(train_set, args.sheet, seed=args.seed)
    except (OSError, ValueError) as error:
        raise UsageError(f"--sheet {args.sheet}: {getattr(error, 'strerror', None) or error}") from error
    print(f"sheet   {args.sheet}")
