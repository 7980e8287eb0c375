"""``losslog run SCRIPT`` and ``losslog run -m MODULE``: run an unmodified training script, and log what it trains.

Main thread. Contract:

- The script runs as under plain ``python``: its output, its exit code, its tracebacks. Ours goes to stderr.
- torch is imported by the script alone.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path
from typing import Any, Final

from losslog.cli.delivering import parse_options
from losslog.cli.train import positive_int
from losslog.delivery.discovery import discover
from losslog.errors import LosslogError, PluginError

CONSOLE: Final = "console"


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "run",
        help="run an unmodified training script and log it",
        description="Runs a training script as python would, and logs the losses its models return, its learning "
        "rates, epochs, COCO results and checkpoints. Everything of losslog's is printed on stderr.",
        allow_abbrev=False,
    )
    parser.add_argument("--plugins", metavar="A,B", help="only these plugins; unset: all that are ready")
    parser.add_argument("--name", help="name of the run; unset: the script's")
    parser.add_argument("--dir", default="runs", metavar="PATH", help="where runs lie: PATH/NAME/RUN (default: runs)")
    parser.add_argument("-o", "--option", action="append", default=[], metavar="PLUGIN.KEY=VALUE", help="plugin option")
    parser.add_argument("--epochs", type=positive_int, metavar="N", help="planned epochs, for display")
    parser.add_argument("--steps-per-epoch", type=positive_int, metavar="N", help="where nothing else ends an epoch")
    parser.add_argument("--passes-per-epoch", type=positive_int, metavar="N", help="passes over loaders in an epoch")
    parser.add_argument("-m", dest="module", action="store_true", help="SCRIPT is a module's name, as of python -m")
    parser.add_argument("script", metavar="SCRIPT", help="a Python file, or a module with -m")
    parser.add_argument("arguments", metavar="ARGS", nargs=argparse.REMAINDER, help="the script's own arguments")
    parser.set_defaults(command=main)


def main(args: argparse.Namespace) -> int:
    """Run the script; its exceptions pass."""
    from losslog.instrument.launcher import launch, module_program, script_program
    from losslog.instrument.watch import Settings

    try:
        run = {
            "name": args.name or (module_name if args.module else script_name)(args.script),
            "dir": os.path.abspath((os.environ.get("LOSSLOG_DIR") if args.dir == "runs" else None) or args.dir),
            "plugins": check_plugins(args.plugins) if args.plugins else "auto",
            "options": to_stderr(parse_options(args.option)),
            "epochs": args.epochs,
            "steps_per_epoch": args.steps_per_epoch,
        }
        program = (module_program if args.module else script_program)(args.script)
    except LosslogError as error:
        sys.stderr.write(f"losslog run: {error}\n")
        return 2
    return launch(program, args.arguments, Settings(run, args.passes_per_epoch))


def check_plugins(text: str) -> list[str]:
    """Names of plugins, each of which is installed: a script should not train for an hour before it hears of a typo.

    Raises:
        PluginError: one is not.
    """
    names = [each.strip() for each in text.split(",") if each.strip()]
    installed = discover()
    for name in names:
        if name not in installed:
            raise PluginError(f"no plugin named {name!r} is installed (installed: {', '.join(installed) or 'none'})")
    return names


def script_name(script: str) -> str:
    """The name of a run for a script: its stem, or its folder's where the stem says nothing."""
    path = Path(script)
    return re.sub(r"^__main__$", path.absolute().parent.name, path.stem)


def module_name(module: str) -> str:
    """The name of a run for a module: its last part, or its package's where that says nothing."""
    return module.removesuffix(".__main__").rpartition(".")[2]


def to_stderr(options: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Options with the console on stderr, where there is a console."""
    if CONSOLE not in discover():
        return options
    return {**options, CONSOLE: {**options.get(CONSOLE, {}), "stream": "stderr"}}
