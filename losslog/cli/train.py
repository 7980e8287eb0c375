"""``losslog train``: trains a Mask R-CNN on COCO-format data and logs it. Runs on the main thread.

Contract:

- Everything wrong with the arguments or the data is a `UsageError`, before a run is begun.
- torch is imported when the command runs, not when the command line is read.
- Ctrl-C: the run ends with the status "stopped" and the exit code is 130.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from losslog.cli.arguments import (
    UsageError,
    add_dir,
    add_options,
    add_plugins,
    add_resume,
    add_verbose,
    command,
    count,
    not_negative,
    parse_options,
    plugins_in,
    positive,
    positive_int,
    run_name,
)
from losslog.cli.data import check_data, open_data
from losslog.cli.numbers import seed, side
from losslog.cli.resuming import NAME, Given, GivenFlag, Resumed

if TYPE_CHECKING:
    import torch

    from losslog.engine import FitResult

BACKBONES: Final = ("resnet50", "resnet18", "tiny")  # losslog.detection.BACKBONES, known here without importing torch
SCHEDULES: Final = ("step", "cosine", "onecycle", "constant")
_NEEDED: Final = ("torch", "torchvision", "pycocotools")


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = command(
        commands,
        "train",
        main,
        "train a Mask R-CNN on COCO-format data",
        "Trains torchvision's Mask R-CNN on COCO-format data: validation losses, evaluation and a checkpoint in every "
        "epoch, every loss logged to every plugin that is ready.",
        (
            "losslog train --data cats --epochs 20",
            "losslog train --data cats --check",
            "losslog train --data cats --backbone tiny --device cpu --plugins console",
            "losslog train --data cats --epochs 40 --resume latest",
        ),
    )
    parser.register("action", None, Given)
    parser.register("action", "store_true", GivenFlag)
    data = parser.add_argument_group("data")
    data.add_argument(
        "--data", metavar="DIR", help="folder with the images and annotation files; a resumed run knows it"
    )
    data.add_argument("--images", default="images", metavar="PATH", help="image folder, relative to DIR")
    data.add_argument("--train-annotations", default="annotations_train.json", metavar="PATH", help="relative to DIR")
    data.add_argument("--val-annotations", default="annotations_val.json", metavar="PATH", help="relative to DIR")
    data.add_argument("--val-images", metavar="PATH", help="validation images, if in another folder than --images")
    data.add_argument("--workers", type=count, metavar="N", help="loader processes; unset: 4 with CUDA, else 0")
    data.add_argument(
        "--check", action="store_true", help="only check the data, every pixel of it, and draw some; no training"
    )
    data.add_argument(
        "--sheet", default="data-check.png", metavar="PNG", help="PNG file that --check draws, ten images"
    )
    data.add_argument("--no-flip", action="store_true", help="do not mirror half of the training images")
    model = parser.add_argument_group("model")
    model.add_argument("--backbone", choices=BACKBONES, default="resnet50", help="tiny and resnet18 suit a CPU")
    model.add_argument("--image-size", type=side, metavar="PX", help="shorter side; unset: 800, 320 or 128")
    model.add_argument(
        "--weights", metavar="WHAT", help="imagenet or coco (these download), or a state dict; unset: random"
    )
    model.add_argument("--device", choices=("cpu", "cuda"), help="unset: cuda if there is one")
    model.add_argument("--amp", action="store_true", help="mixed precision: float16 on CUDA, bfloat16 on the CPU")
    steps = parser.add_argument_group("optimization")
    steps.add_argument("--epochs", type=positive_int, default=20, metavar="N", help="number of epochs")
    steps.add_argument("--batch-size", type=positive_int, default=2, metavar="N", help="images per forward pass")
    steps.add_argument("--accumulate", type=positive_int, default=1, metavar="N", help="forward passes per step")
    steps.add_argument("--steps-per-epoch", type=positive_int, metavar="N", help="unset: one pass over the images")
    steps.add_argument("--lr", type=positive, default=5e-3, metavar="X", help="learning rate of backbone and RPN")
    steps.add_argument("--head-lr-multiplier", type=positive, default=10.0, metavar="X", help="for the heads' rate")
    steps.add_argument("--optimizer", choices=("sgd", "adamw"), default="sgd", help="AdamW wants a lower --lr")
    steps.add_argument("--weight-decay", type=not_negative, default=1e-4, metavar="X", help="weight decay")
    steps.add_argument("--schedule", choices=SCHEDULES, default="step", help="step: a tenth at 2/3 and 8/9 of the run")
    steps.add_argument("--warmup-steps", type=count, metavar="N", help="unset: one epoch (onecycle: 0)")
    steps.add_argument("--clip-norm", type=not_negative, default=10.0, metavar="X", help="of the gradient; 0: none")
    steps.add_argument(
        "--non-finite",
        choices=("warn", "stop", "skip", "trace"),
        default="warn",
        help="what a NaN loss does; trace: name the module",
    )
    steps.add_argument(
        "--gradients-every", type=count, default=0, metavar="N",
        help="measure each loss's share of the gradient every N steps, for up to one backward pass more; 0: never",
    )  # fmt: skip
    steps.add_argument("--seed", type=seed, default=0, metavar="N", help="of weights, order and sampling")
    steps.add_argument("--stall", action="store_true", help="freeze and detach the mask branch halfway, as a lesson")
    logs = parser.add_argument_group("logging")
    logs.add_argument("--name", type=run_name, help="name of the run; unset: maskrcnn, or that of the run resumed")
    add_dir(logs)
    add_plugins(logs)
    add_options(logs)
    add_verbose(logs)
    add_resume(logs)
    logs.add_argument("--no-validation", action="store_true", help="no validation losses")
    logs.add_argument("--evaluate-every", type=count, default=1, metavar="N", help="in epochs; 0: never")
    logs.add_argument("--thumbnails", action="store_true", help="keep small copies of the images that are logged")
    logs.add_argument("--checkpoint-every", type=count, default=1, metavar="N", help="in epochs; 0: never")
    logs.add_argument("--keep", type=positive_int, metavar="N", help="only the newest N checkpoints; unset: all")
    logs.add_argument("--best", metavar="METRIC", help="best.pth by this metric, e.g. segm_AP, bbox_AP or val_loss")
    parser.set_defaults(settings=parser.settings())


def main(args: argparse.Namespace) -> int:
    """Train as the arguments say."""
    need_torch()
    if args.check:
        check_data(args)
    else:
        train(args)
    return 0


def need_torch() -> None:
    """Checks that the packages behind the engine can be imported.

    Raises:
        UsageError: names what is missing and how to install it.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(
            f"{' and '.join(missing)} not installed; training needs torch, torchvision and pycocotools: "
            "pip install 'losslog[detection]' (from a checkout: pip install '.[detection]')"
        )


def train(args: argparse.Namespace) -> FitResult:
    """Trains as the arguments say.

    Raises:
        UsageError: an argument that cannot be followed.
        LosslogError: data, checkpoint or plugins that cannot be used.
    """
    from losslog.engine.distributed import device_of_rank, process_group

    device = device_of_rank(pick_device(args.device))
    with process_group(device):
        return _train(args, device)


def _train(args: argparse.Namespace, device: torch.device) -> FitResult:
    before = Resumed(args)
    train_set, val_set = open_data(args)
    classes = list(train_set.categories.names.values())
    before.check_classes(classes)

    import torch

    import losslog
    from losslog import engine
    from losslog.detection import build_maskrcnn, collate, get_parameter_groups
    from losslog.engine.distributed import sampler_for, wrap
    from losslog.engine.optimization import MixedPrecision
    from losslog.ranks.store import place

    torch.manual_seed(args.seed)
    try:
        model = build_maskrcnn(
            train_set.categories.num_classes,
            args.backbone,
            image_size=args.image_size,
            weights=before.weights(args.weights),
        ).to(device)
    except (ValueError, OSError, RuntimeError) as error:
        raise UsageError(f"--weights {args.weights}: {error}") from error
    torch.manual_seed(args.seed + place().rank)  # the same weights on every rank, other random numbers
    workers = args.workers if args.workers is not None else (4 if device.type == "cuda" else 0)
    loading: dict[str, Any] = {"collate_fn": collate, "num_workers": workers, "pin_memory": device.type == "cuda"}
    sampler = sampler_for(train_set, args.seed)
    train_loader = torch.utils.data.DataLoader(
        train_set, args.batch_size, shuffle=sampler is None, sampler=sampler, **loading
    )
    val_loader = torch.utils.data.DataLoader(val_set, args.batch_size, **loading) if val_set is not None else None
    steps = args.steps_per_epoch or -(-len(train_loader) // args.accumulate)
    optimizer = make_optimizer(args, get_parameter_groups(model, args.lr, args.head_lr_multiplier))
    planned = (args.epochs * steps, args.epochs)
    scheduler = engine.make_scheduler(optimizer, args.schedule, *planned)
    scaler = MixedPrecision(device, args.amp).scaler
    before.override(
        model, optimizer, scheduler, scaler, lambda step: engine.schedule_factor(args.schedule, step, *planned)
    )
    warmup = 0 if args.schedule == "onecycle" else min(1000, steps)
    config = {key: value for key, value in vars(args).items() if key not in ("command", "given", "settings")}
    with losslog.Run(
        args.name or (None if before.checkpoint else NAME),
        os.path.abspath(args.dir),
        config={**config, "classes": classes, "train_images": len(train_set)},
        plugins=plugins_in(args),
        options=parse_options(args.option),
        epochs=args.epochs,
        steps_per_epoch=steps,
        **before.run,
    ) as run:
        result = engine.fit(
            wrap(model, device),
            optimizer,
            train_loader,
            epochs=args.epochs,
            device=device,
            run=run,
            val_loader=val_loader,
            scheduler=scheduler,
            scheduler_every="step",
            amp=args.amp,
            accumulate=args.accumulate,
            clip_norm=args.clip_norm or None,
            warmup_steps=warmup if args.warmup_steps is None else args.warmup_steps,
            steps_per_epoch=args.steps_per_epoch,
            validation=not args.no_validation,
            evaluate_every=args.evaluate_every,
            checkpoint_every=args.checkpoint_every,
            keep=args.keep,
            best=args.best,
            resume=before.checkpoint,
            non_finite=args.non_finite,
            gradients_every=args.gradients_every,
            thumbnails=args.thumbnails,
            before_epoch=stall_from(model, args.epochs // 2 + 1) if args.stall else None,
        )
    return result


def pick_device(name: str | None) -> torch.device:
    """Returns the device asked for, or the best there is.

    Raises:
        UsageError: CUDA was asked for and is not there.
    """
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch finds no CUDA device here; use --device cpu")
    return torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))


def make_optimizer(args: argparse.Namespace, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Makes the optimizer over named parameter groups."""
    import torch

    if args.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=args.lr, weight_decay=args.weight_decay)
    return torch.optim.SGD(groups, lr=args.lr, momentum=0.9, weight_decay=args.weight_decay)


def stall_from(model: Any, first: int) -> Callable[[int], None]:
    """Returns what `losslog.engine.fit` calls before each epoch: stalls the mask branch from epoch ``first`` on."""
    from losslog.detection import stall_mask_branch

    stalled = False

    def before_epoch(epoch: int) -> None:
        nonlocal stalled
        if epoch >= first and not stalled:
            stall_mask_branch(model)
            stalled = True

    return before_epoch
