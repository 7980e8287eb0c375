"""A backend that does not exist: boards of marks, each under a key; a mark that is there is not made again."""

import json
from pathlib import Path


class Closed(Exception):
    """Nobody takes marks now."""


class Board:
    """One board.

    Args:
        path: its file; a ``<path>.closed`` beside it closes it.
    """

    def __init__(self, path):
        self.path = Path(path)

    def put(self, marks):
        """Add (key, name, place, number) marks, all of them or none."""
        if self.path.with_name(self.path.name + ".closed").exists():
            raise Closed("the board is closed")
        there = self.marks()
        new = {key: mark for key, *mark in marks if key not in there}
        with open(self.path, "a", encoding="utf-8") as file:
            file.write("".join(json.dumps([key, *mark]) + "\n" for key, mark in new.items()))

    def marks(self):
        """What is on it, oldest first: (name, place, number) by key."""
        lines = self.path.read_text("utf-8").splitlines() if self.path.exists() else []
        return {key: mark for key, *mark in map(json.loads, lines)}
