"""``losslog demo``: a small Mask R-CNN learns shapes from scratch, in about two minutes on two CPU cores.

Contract:

- Needs no data, no network and no accelerator; the same seed gives the same images and starting weights.
- Figures are printed by the console plugin, epoch by epoch; the last ones are those of the final model on the held-out
  images. This module only says where to look afterwards.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from losslog.cli.arguments import (
    UsageError,
    add_dir,
    add_options,
    add_plugins,
    add_verbose,
    command,
    count,
    parse_options,
    plugins_in,
    positive_int,
    run_name,
)
from losslog.cli.train import need_torch, pick_device, stall_from
from losslog.delivery.discovery import discover
from losslog.delivery.report import shown
from losslog.journal.folder import JOURNAL

if TYPE_CHECKING:
    from losslog.engine import FitResult

# One thread: with two, on two cores, anything else that runs makes OpenMP's threads spin for each other (measured: 1.1
# s a step instead of 0.1 s); the follower needs a core too; and figures do not hang on the number of cores.
STALL_FROM: Final = 3  # the epoch from which --stall holds the mask branch, while it still has some way to go
# Where the losses of this small model end on these images (seeds 0 to 5); the plateau plugin's own table is COCO's.
TYPICAL: Final = {
    "loss_classifier": [0.1, 0.3], "loss_box_reg": [0.1, 0.3], "loss_mask": [0.05, 0.11],
    "loss_objectness": [0.0, 0.05], "loss_rpn_box_reg": [0.0, 0.05],
}  # fmt: skip
THREADS: Final = 1
EPOCHS: Final = 10
STEPS_PER_EPOCH: Final = 70
BATCH_SIZE: Final = 4
LEARNING_RATE: Final = 3e-3
WEIGHT_DECAY: Final = 1e-4
CLIP_NORM: Final = 5.0


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = command(
        commands,
        "demo",
        main,
        "train a small Mask R-CNN on made-up shapes",
        "Makes a data set of coloured shapes, trains a small Mask R-CNN on it from scratch and logs it to every plugin "
        "that is ready. About two minutes on two CPU cores.",
        ("losslog demo", "losslog demo --stall", "losslog demo --plugins console,tensorboard"),
    )
    add_dir(parser)
    parser.add_argument("--name", type=run_name, default="demo", help="name of the run")
    parser.add_argument("--seed", type=count, default=0, metavar="N", help="of images, weights and order")
    parser.add_argument("--epochs", type=positive_int, default=EPOCHS, metavar="N", help="number of epochs")
    parser.add_argument("--steps-per-epoch", type=positive_int, default=STEPS_PER_EPOCH, metavar="N", help="steps")
    parser.add_argument("--images", type=positive_int, default=400, metavar="N", help="training images to make")
    parser.add_argument("--held-out", type=positive_int, default=60, metavar="N", help="images to evaluate on")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where to train")
    add_plugins(parser)
    add_options(parser)
    add_verbose(parser)
    parser.add_argument("--stall", action="store_true", help="freeze and detach the mask branch early on, as a lesson")


def main(args: argparse.Namespace) -> int:
    """Train as the arguments say, and say where to look."""
    need_torch()
    demo(args)
    return 0


def demo(args: argparse.Namespace) -> FitResult:
    """Trains as the arguments say, and says where to look.

    Raises:
        UsageError: an argument that cannot be followed.
        LosslogError: plugins that cannot be used.
    """
    device = pick_device(args.device)
    options = with_local_backends(parse_options(args.option), Path(args.dir))

    import torch

    import losslog
    from losslog import engine
    from losslog.detection import CocoDataset, HorizontalFlip, build_maskrcnn, collate, write_shapes

    torch.set_num_threads(THREADS)
    torch.manual_seed(args.seed)
    try:
        folder = write_shapes(
            Path(args.dir) / f"{args.name}-shapes", train=args.images, val=args.held_out, seed=args.seed
        )
    except OSError as error:
        raise UsageError(f"--dir {args.dir}: cannot write there: {error.strerror or error}") from error
    train_set = CocoDataset(folder / "images", folder / "annotations_train.json", transform=HorizontalFlip())
    val_set = CocoDataset(folder / "images", folder / "annotations_val.json", categories=train_set.categories)
    train_loader = torch.utils.data.DataLoader(train_set, BATCH_SIZE, shuffle=True, collate_fn=collate)
    val_loader = torch.utils.data.DataLoader(val_set, 2 * BATCH_SIZE, collate_fn=collate)
    model = build_maskrcnn(train_set.categories.num_classes, "tiny").to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    scheduler = engine.make_scheduler(optimizer, "onecycle", args.epochs * args.steps_per_epoch)
    config = {
        "model": "maskrcnn tiny",
        "classes": list(train_set.categories.names.values()),
        "images": len(train_set),
        "batch_size": BATCH_SIZE,
        "optimizer": "AdamW",
        "schedule": "onecycle",
        "lr": LEARNING_RATE,
        "seed": args.seed,
        "stall": args.stall,
    }
    with losslog.Run(
        args.name,
        os.path.abspath(args.dir),
        config=config,
        plugins=plugins_in(args),
        options=options,
        epochs=args.epochs,
        steps_per_epoch=args.steps_per_epoch,
    ) as run:
        result = engine.fit(
            model,
            optimizer,
            train_loader,
            epochs=args.epochs,
            device=device,
            run=run,
            val_loader=val_loader,
            scheduler=scheduler,
            scheduler_every="step",
            clip_norm=CLIP_NORM,
            steps_per_epoch=args.steps_per_epoch,
            thumbnails=True,  # the run folder is then all that its report needs
            before_epoch=stall_from(model, STALL_FROM) if args.stall else None,
        )
    print("\n".join(["", "Where to look:", *where_to_look(run.dir)]))
    return result


def with_local_backends(options: dict[str, dict[str, Any]], directory: Path) -> dict[str, dict[str, Any]]:
    """Options that switch on what is installed and needs neither account nor network: W&B offline, MLflow in a file.

    One MLflow store for all of the folder's runs, so that they can be laid over each other. What the user said, by
    option or environment, goes first.
    """
    installed = discover()
    store = {"tracking_uri": f"sqlite:///{(directory.absolute() / 'mlflow.db').as_posix()}", "experiment": "demo"}
    local = {"wandb": ("WANDB_MODE", {"mode": "offline"}), "mlflow": ("MLFLOW_TRACKING_URI", store)}
    if "plateau" in installed:
        options["plateau"] = {"typical": TYPICAL, **options.get("plateau", {})}
    for name, (variable, settings) in local.items():
        if name in installed and not os.environ.get(variable):
            options[name] = {**settings, **options.get(name, {})}
    return options


def where_to_look(folder: Path) -> list[str]:
    """Returns a line for each thing a run left behind."""
    lines = [
        f"  every record        {shown(folder / JOURNAL)}",
        f"  a summary           losslog show {shown(folder)}",
        f"  what the losses do  losslog diagnose {shown(folder)}",
        f"  all on one page     losslog report {shown(folder)} --open",
    ]
    if (folder / "tensorboard").is_dir():
        lines.append(f"  TensorBoard         tensorboard --logdir {shown(folder / 'tensorboard')}")
    store = folder.parent.parent / "mlflow.db"
    if store.is_file():
        lines.append(f"  MLflow              mlflow ui --backend-store-uri sqlite:///{shown(store)}")
    if (folder / "wandb").is_dir():
        lines.append(f"  W&B (upload)        wandb sync --yes {shown(folder / 'wandb')}/offline-run-*")
    lines.append(f"  the trained model   {shown(folder / 'checkpoints')}")
    return lines
