"""The data of ``losslog train``: opened, checked, and shown by ``--check``. Runs on the main thread.

Contract:

- What was put right or left out is said on stderr, once a kind; what cannot be used is a `UsageError`.
- Nothing that has no object to train on gets past here.
- ``--check`` begins no run; its summary goes to stdout, its picture into one PNG file, never over anything else.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from losslog.cli.arguments import UsageError
from losslog.runtime.containment import attempt, printable

if TYPE_CHECKING:
    from losslog.detection import CocoDataset

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_EVERY: Final = 0.2  # seconds between two writes of a progress line


def open_data(args: argparse.Namespace, decode: bool = False) -> tuple[CocoDataset, CocoDataset | None]:
    """Opens training and validation data; None for the latter where nothing is to be validated or evaluated.

    Args:
        args: of ``losslog train``.
        decode: read the pixels of every image, not its header alone.

    Raises:
        UsageError: names the option, the file and the fix.
    """
    from losslog.detection import CocoDataset, DataError, HorizontalFlip
    from losslog.detection.names import shared

    root = _root(args)
    splits = [("--train-annotations", root / args.train_annotations, "--images", root / args.images)]
    if not args.no_validation or args.evaluate_every:
        val_images = root / (args.val_images or args.images)
        splits.append(("--val-annotations", root / args.val_annotations, "--val-images", val_images))
    for _, _, option, path in splits:
        if not path.is_dir():
            raise UsageError(f"no image folder {path}; say where the images are with {option}")
    for option, path, _, _ in splits:
        if not path.is_file():
            what = " (it is no file)" if path.exists() else ""
            raise UsageError(f"no annotation file {path}{what}; say where it is with {option}")
    sets: list[CocoDataset] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the findings are said below; those of libraries are no user's
        for option, path, folder_option, folder in splits:
            first = not sets
            try:
                sets.append(
                    CocoDataset(
                        folder,
                        path,
                        categories=None if first else sets[0].categories,
                        transform=HorizontalFlip() if first and not args.no_flip else None,
                        masks=None if first else sets[0].masks,
                        progress=progress_line(f"losslog train: {path.name}: images {'read' if decode else 'opened'}"),
                        decode=decode,
                    )
                )
            except DataError as error:
                raise UsageError(f"{option}: {error}") from error
            if first:
                _check_trainable(sets[0], option, path)
            _check_scaled(sets[-1], folder_option, args)
    lines = [line for each in sets for line in each.findings.lines()]
    if len(sets) == 1:
        return _told(lines, sets[0]), None
    if both := shared(sets[0].paths, sets[1].paths):
        lines.append(
            f"{len(both)} of {len(sets[1].paths)} validation images are training images, too (the first: "
            f"{both[0].name}): figures will be better than the model is"
        )
    return _told(lines, sets[0]), sets[1]


def _told(lines: list[str], dataset: CocoDataset) -> CocoDataset:
    for line in lines:
        print(f"losslog train: {printable(line)}", file=sys.stderr)
    return dataset


def _root(args: argparse.Namespace) -> Path:
    if args.data is None:
        raise UsageError("missing: --data (see losslog train --help)")
    root = Path(args.data)
    if not root.is_dir():
        raise UsageError(f"--data {root}: {'a file, not a folder' if root.exists() else 'no such folder'}")
    return root


def _check_trainable(dataset: CocoDataset, option: str, path: Path) -> None:
    if not dataset.categories.names:
        raise UsageError(f"{option}: {path} defines no categories")
    if not len(dataset.table):
        raise UsageError(f"{option}: {path} has no annotations to train on: its list 'annotations' is empty")
    if not dataset.masks:
        raise UsageError(f"{option}: {path} has no segmentations to train masks on")
    if not len(dataset.usable.rows):
        reasons = [f"{dataset.table.crowd.sum()} are crowds"] if dataset.table.crowd.any() else []
        reasons += [f"{kind.what}: {kind.count}" for kind in dataset.findings.kinds.values() if kind.left_out]
        about = f" ({'; '.join(reasons)})" if reasons else ""
        raise UsageError(f"{option}: {path} has no object to train on among {len(dataset.table)} annotations{about}")


def _check_scaled(dataset: CocoDataset, option: str, args: argparse.Namespace) -> None:
    """Whether each image has a row and a column left where the model scales it."""
    from losslog.detection.models import sides

    short, long = sides(args.backbone, args.image_size)
    for path, size in zip(dataset.paths, dataset.sizes.tolist(), strict=True):
        least, most = min(size), max(size)
        if int(least * min(short / least, long / most)) < 1:
            raise UsageError(
                f"{option}: {path} is {size[0]} x {size[1]} pixels: too long and thin, nothing is left of it where its "
                f"longer side is scaled to {long}; cut it, or say --image-size {-(-most * short // (least * long)) + 1}"
            )


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
    """``losslog train --check``: reads every image, prints a summary and draws ten of the training images.

    Raises:
        UsageError: the data cannot be trained on, or the picture cannot be written.
    """
    from losslog.detection import DataError
    from losslog.detection.check import doubts, summary, write_sheet

    sheet = _sheet(args)
    train_set, val_set = open_data(args, decode=True)
    sets = [("train", train_set)] + ([("val", val_set)] if val_set is not None else [])
    found, _ = attempt(sheet.stat)
    for name, dataset in sets:
        if found is not None and any(os.path.samestat(found, path.stat()) for path in dataset.paths):
            raise UsageError(f"--sheet {args.sheet} is an image of the data; name another file")
        for line in summary(name, dataset):
            print(printable(line))
    try:
        write_sheet(train_set, args.sheet, seed=args.seed)
    except DataError as error:  # gone since it was read
        raise UsageError(f"--images: {error}") from error
    except (OSError, ValueError) as error:
        raise UsageError(f"--sheet {args.sheet}: {getattr(error, 'strerror', None) or error}") from error
    print(f"sheet   {args.sheet}")
    for line in doubts(train_set, seed=args.seed):
        print(f"losslog train: {printable(line)}", file=sys.stderr)


def _sheet(args: argparse.Namespace) -> Path:
    """Where ``--check`` draws: never over what is no picture, nor among the images."""
    root, sheet = _root(args), Path(args.sheet)
    if sheet.suffix.lower() != ".png":
        raise UsageError(f"--sheet {args.sheet}: a PNG file is written; give it a name that ends in .png")
    whole = sheet.resolve()
    for name in (args.train_annotations, args.val_annotations):
        if whole == (root / name).resolve():
            raise UsageError(f"--sheet {args.sheet} is an annotation file; name another file")
    for name in {args.images, args.val_images or args.images}:
        images = root / name
        if whole.is_relative_to(images.resolve()) or sheet.absolute().is_relative_to(images.absolute()):
            raise UsageError(f"--sheet {args.sheet} lies in the image folder {images}; name a file elsewhere")
    if not whole.parent.is_dir():
        raise UsageError(f"--sheet {args.sheet}: No such file or directory")
    if whole.exists():
        if not whole.is_file():
            raise UsageError(f"--sheet {args.sheet} is no file; name another one")
        with whole.open("rb") as file:
            if file.read(len(_PNG)) not in (_PNG, b""):
                raise UsageError(f"--sheet {args.sheet} is no PNG file and stays as it is; name another file")
    return whole
