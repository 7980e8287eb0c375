"""``losslog compare RUN RUN2 ...``: what was set differently, where the losses part, what it came to.

Main thread. Contract:

- It reads journals and nothing else; every run is compared with the first.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from losslog.cli.arguments import add_dir, add_json, add_runs, command, finite, folders_of
from losslog.cli.show import clean
from losslog.viewing.compare import compare
from losslog.viewing.parts import story_of
from losslog.viewing.telling import lines_of


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = command(
        commands,
        "compare",
        main,
        "where runs part: config, losses, AP, learning rate, speed",
        "Compares runs with the first one: what was set differently, up to which step all losses are equal to the last "
        "bit, which component parts for good and where, and what it came to.",
        examples=("losslog compare RUN RUN2", "losslog compare RUN RUN2 RUN3 --json"),
    )
    add_runs(parser, least=2)
    add_dir(parser)
    add_json(parser)


def main(args: argparse.Namespace) -> int:
    """Print what differs."""
    first, *others = (story_of(folder) for folder in folders_of(args, least=2))
    found = [compare(first, other) for other in others]
    if args.json:
        print(json.dumps(finite(found), indent=2, allow_nan=False))
        return 0
    for place, each in enumerate(found):
        one, two = each["runs"]
        print("\n" * (place > 0) + clean(f"{one['name']} {one['id']}  ->  {two['name']} {two['id']}"))
        said = lines_of(each)
        width = min(28, max(len(what) for what, _ in said))
        for what, text in said:
            print(clean(f"{what:<{width}}  {text}"))
    return 0
