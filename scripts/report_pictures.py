"""Makes the pictures of docs/looking.md from two runs: the report on a screen and on a phone, and the live view.

    losslog demo --name demo && losslog demo --name lesson --stall
    python scripts/report_pictures.py demo lesson        # RUN as commands take it; --dir as theirs

Needs chromium and the packages of the `dev` extra. Look at what it made before you commit it.
"""

from __future__ import annotations

import argparse
import io
import re
import sys
import tempfile
from pathlib import Path

from losslog_console.board import Choice, board
from PIL import Image
from rich.console import Console, Group

from losslog.cli.report import words_on
from losslog.journal.folder import find
from losslog.viewing.live import Live
from losslog.viewing.page import page, write
from losslog.viewing.parts import story_of

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "img"
sys.path.insert(0, str(ROOT / "tests" / "viewing"))

import chromium  # noqa: E402


def shoot(browser: chromium.Chromium, source: Path, size: tuple[int, int], *, dark: bool = False) -> Image.Image:
    """The first screen of a page."""
    browser.look(*size, dark=dark)
    browser.open(source)
    browser.run("new Promise((done) => setTimeout(done, 500))")
    with tempfile.NamedTemporaryFile(suffix=".png") as file:
        browser.picture(Path(file.name), whole=False)
        return Image.open(file.name).convert("RGB")


def keep(image: Image.Image, name: str) -> None:
    """Save it small."""
    image.quantize(128, dither=Image.Dither.NONE).save(IMAGES / f"{name}.png", optimize=True)


def live_view(folder: Path, source: Path) -> None:
    """The live view as a page."""
    live = Live(folder)
    while live.look():
        pass
    console = Console(record=True, width=100, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Group(*board(live, 100, 20, Choice())))
    drawing = re.sub(r"@font-face \{[^}]*\}", "", console.export_svg(title="losslog watch"))
    source.write_text(f"<body style='margin:0'>{drawing.replace('Fira Code', 'DejaVu Sans Mono')}", "utf-8")


def main() -> None:
    """Make the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs=2)
    parser.add_argument("--dir", default="runs")
    options = parser.parse_args()
    folders = [find(run, options.dir) for run in options.runs]
    stories = [story_of(folder) for folder in folders]
    browser = chromium.Chromium()
    with tempfile.TemporaryDirectory() as scratch:
        report, view = Path(scratch) / "report.html", Path(scratch) / "view.html"
        write(page(stories, [words_on(story) for story in stories]), report)
        keep(shoot(browser, report, (1400, 1060)), "report")
        keep(shoot(browser, report, (1400, 800), dark=True), "report-dark")
        both = Image.new("RGB", (800, 1100), "#888888")
        for place, dark in enumerate((False, True)):
            both.paste(shoot(browser, report, (390, 1100), dark=dark), (410 * place, 0))
        keep(both, "report-phone")
        live_view(folders[1], view)
        keep(shoot(browser, view, (1240, 420)), "watch")
    browser.close()


if __name__ == "__main__":
    main()
