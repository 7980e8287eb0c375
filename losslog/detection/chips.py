"""Words on a picture, each on its class's colour, and which colour a class has. Pillow alone; any thread.

Contract:

- A class has the colour of its name; where two would have the same, the next one that is free. None is red: that is
  what is wrong.
- Letters that Pillow's own font lacks are drawn with a font of the system's that has them; where there is none, without
  their accents, or as "?".
- Words stand at their box and do not cover each other while there is a place at it where they do not; of those that
  would, the surest are on top.
"""

from __future__ import annotations

import functools
import importlib.util
import unicodedata
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from PIL import Image, ImageDraw, ImageFont

from losslog.runtime.containment import attempt

Colour = tuple[int, int, int]
Words = Sequence[tuple[str, Colour]]

WRONG: Final = (225, 20, 20)
HIGH: Final = 12  # pixels of a line
FONTS: Final = (
    "DejaVuSans.ttf", "arial.ttf", "Arial.ttf", "NotoSans-Regular.ttf", "NotoSansCJK-Regular.ttc", "wqy-zenhei.ttc",
    "wqy-microhei.ttc", "DroidSansFallbackFull.ttf", "msyh.ttc", "msgothic.ttc", "malgun.ttf", "Arial Unicode.ttf",
    "PingFang.ttc", "AppleSDGothicNeo.ttc", "Hiragino Sans GB.ttc",
)  # fmt: skip
# Far from each other, from the red of what is wrong and from grey grounds, as eyes see it (distances in CIELAB).
PALETTE: Final[tuple[Colour, ...]] = (
    (105, 0, 255), (0, 220, 0), (255, 135, 0), (255, 90, 210), (0, 105, 0), (0, 135, 255), (0, 235, 190),
    (150, 120, 45), (180, 240, 105), (0, 195, 255), (120, 75, 135), (0, 105, 165), (15, 165, 150), (135, 45, 195),
    (240, 180, 255), (255, 0, 255), (0, 165, 60), (255, 210, 0), (60, 255, 255), (0, 75, 235), (255, 225, 150),
    (165, 225, 165), (240, 150, 165), (190, 190, 60),
)  # fmt: skip


def colours(labels: Iterable[str]) -> dict[str, Colour]:
    """A colour for each label: by its name, so that it stays; where two would have one, the next that is free."""
    found: dict[str, Colour] = {}
    taken: set[int] = set()
    for text in sorted(set(labels)):
        slot = zlib.crc32(text.encode("utf-8", "replace")) % len(PALETTE)
        while slot in taken and len(taken) < len(PALETTE):
            slot = (slot + 7) % len(PALETTE)  # 7 and 24 have no divisor in common
        taken.add(slot)
        found[text] = PALETTE[slot]
    return found


def write(pane: Image.Image, labels: Sequence[tuple[Sequence[float], Words]]) -> None:
    """Write beside boxes.

    Args:
        pane: what to write on.
        labels: of each box its corners and its words; the most important first.
    """
    taken: list[tuple[int, int, int]] = []  # left, right, top
    made = []
    for (x1, y1, _, y2), words in labels:
        chips = [_chip(text, colour) for text, colour in words]
        wide = sum(each.width for each in chips)
        x = round(max(0.0, min(x1, pane.width - wide)))
        tops = [round(min(max(0.0, y), pane.height - HIGH)) for y in (y1 - 11, y1 + 1, y2 + 1, y2 - HIGH, y1 + 13)]
        y = next((top for top in tops if _is_free(taken, x, x + wide, top)), tops[0])
        taken.append((x, x + wide, y))
        made.append((x, y, chips))
    for x, y, chips in reversed(made):
        for each in chips:
            pane.paste(each, (x, y))
            x += each.width


def _is_free(taken: Sequence[tuple[int, int, int]], left: int, right: int, top: int) -> bool:
    return not any(a < right and left < b and abs(top - other) < HIGH for a, b, other in taken)


@functools.lru_cache(maxsize=4096)
def _chip(text: str, colour: Colour) -> Image.Image:
    text, type_ = font_for(text, 10)
    chip = Image.new("RGB", (round(float(type_.getlength(text))) + 4, HIGH), colour)
    dark = colour[0] * 0.3 + colour[1] * 0.59 + colour[2] * 0.11 > 140
    ImageDraw.Draw(chip).text((2, HIGH - 3), text, anchor="ls", fill=(0, 0, 0) if dark else (255, 255, 255), font=type_)
    return chip


@functools.cache
def font(size: int, name: str = "") -> Any:
    """Pillow's own font, or one of the system's.

    Raises:
        OSError: it is not there.
    """
    if name:
        return ImageFont.truetype(name, size)
    return ImageFont.load_default(size) if hasattr(ImageFont, "FreeTypeFont") else ImageFont.load_default()


def font_for(text: str, size: int) -> tuple[str, Any]:
    """A font that has the letters of a text, and the text as far as there is one: on one line."""
    text = " ".join(text.split())
    if text.isascii():  # Pillow's own has no more
        return text, font(size)
    lacking = {name: {each for each in text if not (each.isspace() or _has(name, each))} for name in _others()}
    best = min(lacking, key=lambda name: len(lacking[name]), default="")
    missing = lacking.get(best, {each for each in text if not each.isascii()})
    return "".join(_plain(each) if each in missing else each for each in text), font(size, best)


def _plain(letter: str) -> str:
    """A letter without its accent, or "?"."""
    first = unicodedata.normalize("NFKD", letter)[0]
    return first if first.isascii() else "?"


@functools.cache
def _others() -> tuple[str, ...]:
    """Fonts that are there, of matplotlib, Linux, Windows and macOS."""
    found = importlib.util.find_spec("matplotlib")
    beside = Path(found.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf" if found and found.origin else None
    names = (str(beside), *FONTS) if beside else FONTS
    return tuple(name for name in names if attempt(font, 10, name)[0] is not None)


@functools.lru_cache(maxsize=4096)
def _has(name: str, letter: str) -> bool:
    """Whether a font has a letter: it draws it unlike one that no font has."""
    drawn, nothing = (bytes(font(24, name).getmask(each)) for each in (letter, "\uffff"))
    return drawn != nothing
