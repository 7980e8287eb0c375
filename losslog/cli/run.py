"""``losslog run SCRIPT`` and ``losslog run -m MODULE``: run an unmodified training script, and log what it trains.

Main thread. Contract:

- The script runs as under plain ``python``: its output, its exit code, its tracebacks. Ours goes to stderr.
- torch is imported by the script alone.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from losslog.cli.arguments import (
    add_dir,
    add_options,
    add_plugins,
    add_resume,
    add_verbose,
    command,
    names_in,
    parse_options,
    positive_int,
    run_name,
)
from losslog.cli.delivering import folder_there
from losslog.delivery.discovery import discover, missing, select
from losslog.errors import JournalError, PluginError
from losslog.journal.folder import usable
from losslog.journal.resuming import AUTO, resumed

CONSOLE: Final = "console"


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = command(
        commands,
        "run",
        main,
        "run an unmodified training script and log it",
        "Runs a training script as python would, and logs the losses its models return, its learning rates, epochs, "
        "COCO results and checkpoints. Everything of losslog's is printed on stderr.",
        (
            "losslog run train.py --batch-size 2",
            "losslog run --name cats -m mypackage.train",
            "losslog run --resume auto train.py",
        ),
    )
    add_plugins(parser)
    parser.add_argument("--name", type=run_name, help="name of the run; unset: the script's")
    add_dir(parser)
    add_resume(parser)
    add_options(parser)
    add_verbose(parser)
    parser.add_argument("--epochs", type=positive_int, metavar="N", help="planned epochs, for display")
    parser.add_argument("--steps-per-epoch", type=positive_int, metavar="N", help="where nothing else ends an epoch")
    parser.add_argument("--passes-per-epoch", type=positive_int, metavar="N", help="passes over loaders in an epoch")
    parser.add_argument(
        "--gradients-every", type=positive_int, default=0, metavar="N",
        help="measure each loss's share of the gradient every N steps, for up to one backward pass more",
    )  # fmt: skip
    parser.add_argument(
        "--non-finite", choices=("warn", "stop", "trace"), default="warn",
        help="what a NaN loss does; trace: name the module",
    )  # fmt: skip
    parser.add_argument(
        "--images", metavar="FOLDER", type=folder_there, help="where the images of COCO annotations lie, to draw them"
    )
    parser.add_argument("-m", dest="module", action="store_true", help="SCRIPT is a module's name, as of python -m")
    parser.add_argument("script", metavar="SCRIPT", help="a Python file, or a module with -m")
    parser.add_argument("arguments", metavar="ARGS", nargs=argparse.REMAINDER, help="the script's own arguments")


def main(args: argparse.Namespace) -> Callable[[], int]:
    """Make ready; what is returned runs the script, whose exceptions are its own.

    Raises:
        LosslogError: an argument that cannot be followed, or no such script.
    """
    from losslog.instrument.launcher import launch, module_program, script_program
    from losslog.instrument.watch import Settings

    own = (module_name if args.module else script_name)(args.script)
    name = args.name or (own if args.resume in (None, AUTO, "latest") else None)
    if args.resume is not None:
        resumed(args.resume, Path(args.dir), name, own)  # a script should not train before it hears of a typo
    options = to_stderr(parse_options(args.option))
    plugins = check_plugins(args.plugins) if args.plugins else "auto"
    select(plugins, options)  # nor of an option that is none
    check_folder_for_runs(args.dir)
    run = {
        "name": name,
        "resume": args.resume,
        "dir": os.path.abspath(args.dir),
        "plugins": plugins,
        "options": options,
        "epochs": args.epochs,
        "steps_per_epoch": args.steps_per_epoch,
        "images": None if args.images is None else os.path.abspath(args.images),
    }
    run["non_finite"] = "stop" if args.non_finite == "stop" else "warn"
    settings = Settings(run, args.passes_per_epoch, args.gradients_every, trace=args.non_finite == "trace")
    program = (module_program if args.module else script_program)(args.script)
    return lambda: launch(program, args.arguments, settings)


def check_plugins(text: str) -> list[str]:
    """Names of plugins, each of which is installed: a script should not train for an hour before it hears of a typo.

    Raises:
        PluginError: one is not.
    """
    names, installed = names_in(text), discover()
    for name in names:
        if name not in installed:
            raise PluginError(missing(name, installed))
    return names


def check_folder_for_runs(folder: str) -> None:
    """Whether runs can be made there; the first parent that exists tells.

    Raises:
        JournalError: they cannot.
    """
    path = Path(folder).absolute()
    there = next(each for each in (path, *path.parents) if each.exists())
    if not there.is_dir():
        raise JournalError(f"no run can lie in {folder}: {there} is a file. Name a folder with --dir")
    if not os.access(there, os.W_OK | os.X_OK):
        raise JournalError(f"no run can be written in {folder}: not allowed in {there}. Name another folder with --dir")


def script_name(script: str) -> str:
    """The name of a run for a script: its stem, or its folder's where the stem says nothing."""
    path = Path(script)
    name = re.sub(r"^__main__$", path.absolute().parent.name, path.stem)
    return usable(name, f"run-{name.lstrip('-')}")


def module_name(module: str) -> str:
    """The name of a run for a module: its last part, or its package's where that says nothing."""
    name = module.removesuffix(".__main__").rpartition(".")[2]
    return usable(name, f"run-{name}")


def to_stderr(options: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Options with the console on stderr, where there is a console."""
    if CONSOLE not in discover():
        return options
    return {**options, CONSOLE: {**options.get(CONSOLE, {}), "stream": "stderr"}}
