"""Whole numbers on the command line, as large as whatever takes them can bear. Plain functions."""

from __future__ import annotations

import argparse
from typing import Final

MOST: Final = (1 << 31) - 1  # of what is counted
WIDEST: Final = 1 << 14  # pixels


def whole(text: str, least: int, most: int = MOST) -> int:
    """A whole number from ``least`` to ``most``.

    Raises:
        argparse.ArgumentTypeError: it is another.
        ValueError: it is none.
    """
    value = int(text)
    if value < least:
        raise argparse.ArgumentTypeError(f"{text:.40} is {f'not at least {least}' if least else 'negative'}")
    if value > most:
        raise argparse.ArgumentTypeError(f"{text:.40} is more than {most}")
    return value


def seed(text: str) -> int:
    """An argument that random numbers begin with."""
    return whole(text, 0, (1 << 63) - 1)


def side(text: str) -> int:
    """An argument that is the side of a picture in pixels."""
    return whole(text, 1, WIDEST)


seed.__name__ = side.__name__ = "whole number"  # argparse says "invalid <name> value"
