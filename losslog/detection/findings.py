"""What is wrong with a data set: refused, put right or left out. Plain objects, filled while a file is read.

Contract:

- What cannot be used is a `DataError` of one line: the file, the entry, the field, the fix.
- What can be put right or left out is counted by kind and said once a kind, with one example.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from losslog.errors import LosslogError

_FROM_WORKER: Final = "\nOriginal Traceback"


class DataError(LosslogError, ValueError):
    """A data set on disk cannot be used as it is; the message names the file and what to do.

    A loader's process sends its traceback for a message: of that the one line is taken, and the rest is a note.
    """

    def __init__(self, message: str = "") -> None:
        line = message
        if _FROM_WORKER in message:
            line = message.rstrip().rpartition("\n")[2].rpartition("DataError: ")[2]
            self.add_note(message)
        super().__init__(line)


@dataclass
class Finding:
    """One kind of thing that was found.

    Attributes:
        what: in words.
        left_out: whether something was left out, rather than put right or only noticed.
        count: how often.
        example: the first of them.
    """

    what: str
    left_out: bool
    count: int = 0
    example: str = ""


@dataclass
class Findings:
    """Everything that was put right or left out of one annotation file and its images.

    Attributes:
        source: the file, as lines name it.
        kinds: by kind, in the order in which they were met.
        remarks: what else there is to say, without a count.
    """

    source: str
    kinds: dict[str, Finding] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def note(self, what: str, example: str = "", *, count: int = 1, left_out: bool = False) -> None:
        """Counts something.

        Args:
            what: the kind, in words that a count can follow: "boxes without area, left out".
            example: where, told for the first of the kind.
            count: how many.
            left_out: whether it was left out.
        """
        if not count:
            return
        kind = self.kinds.setdefault(what, Finding(what, left_out, 0, example))
        kind.count += count

    def count(self, *, left_out: bool) -> int:
        """How many things were left out, or else put right."""
        return sum(kind.count for kind in self.kinds.values() if kind.left_out is left_out)

    def lines(self) -> list[str]:
        """One line for each kind and remark."""
        counted = [
            f"{self.source}: {kind.what}: {kind.count}"
            + (f" ({'the first: ' if kind.count > 1 else ''}{kind.example})" if kind.example else "")
            for kind in self.kinds.values()
        ]
        return counted + [f"{self.source}: {remark}" for remark in self.remarks]


def shown(value: Any, limit: int = 60) -> str:
    """A value of a file as a line may show it: short, and without characters that a terminal acts on."""
    text = value if isinstance(value, str) else repr(value)
    text = "".join(char if char.isprintable() else "?" for char in text)
    return text if len(text) <= limit else text[: limit - 3] + "..."
