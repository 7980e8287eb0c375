"""``losslog report RUN [RUN2 ...]``: runs as one HTML file that needs nothing else.

Main thread. Contract:

- It only reads runs; the one file it writes is the page, whole or not at all.
- A plugin that is missing, or a run it cannot judge, costs the words on its components, never the page.
"""

from __future__ import annotations

import argparse
import webbrowser
from pathlib import Path
from typing import Any, Final

from losslog.cli.arguments import add_dir, add_runs, command, file_at, folders_of, reason
from losslog.cli.delivering import folder_there
from losslog.cli.diagnose import state_in_words, verdicts
from losslog.cli.show import clean
from losslog.delivery.report import shown
from losslog.delivery.trust import Trust
from losslog.errors import LosslogError
from losslog.runtime.containment import attempt
from losslog.viewing.page import FILE, page, write
from losslog.viewing.parts import story_of
from losslog.viewing.story import Story

JUDGED: Final = 50_000  # steps up to which the plateau plugin is asked; it takes some seconds there


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = command(
        commands,
        "report",
        main,
        "runs as one HTML file: every loss, alert and AP, and what differs",
        "Makes one HTML file that needs nothing else: no network, no server.",
        examples=("losslog report", "losslog report RUN --open", "losslog report RUN RUN2 -o both.html"),
    )
    add_runs(parser)
    parser.add_argument("-o", "--output", metavar="FILE",
                        help=f"or a folder, for {FILE} in it; unset: the run's; of several runs, here")  # fmt: skip
    parser.add_argument("--open", action="store_true", help="open it in the browser")
    parser.add_argument("--images-in", action="append", default=[], type=folder_there, metavar="FOLDER",
                        help="your data folder, to draw the images of the run; repeatable")  # fmt: skip
    add_dir(parser)


def main(args: argparse.Namespace) -> int:
    """Write the page, and say where it is."""
    folders = folders_of(args)
    target = folders[0] / FILE if len(folders) == 1 else Path(FILE)
    if args.output is not None:
        target = file_at(args.output, FILE)
    stories = [story_of(folder) for folder in folders]
    text = page(stories, [words_on(story) for story in stories], Trust(pictures=args.images_in))
    _, error = attempt(write, text, target)
    if isinstance(error, OSError):
        raise LosslogError(f"{clean(str(target))} cannot be written ({reason(error)}): say -o FILE") from error
    if error is not None:
        raise error
    print(f"{clean(shown(target))}  {len(text.encode()) / 1024:.0f} KiB")
    if args.open and not webbrowser.open(target.resolve().as_uri()):
        print("no browser was found to open it")
    return 0


def words_on(story: Story) -> dict[str, str]:
    """A word on each component: the plateau plugin's where it is installed, else what alerts said."""
    found = {}
    for alert in story.alerts:
        if alert.get("component") and alert.get("source") in ("plateau", "non_finite"):
            state = str(alert.get("key")).rpartition("/")[0].rpartition("/")[2]
            found[str(alert["component"])] = state_in_words(state)
    if story.batches.steps <= JUDGED:
        judged, _ = attempt(verdicts, story.folder, {})
        for each in judged or ():
            since = f" since {each.since}" if each.severity != "info" else ""
            found[each.component] = f"{state_in_words(each.state)}{since}"
    return found
