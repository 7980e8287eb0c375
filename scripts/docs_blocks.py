"""The code blocks and links of the documentation, for its tests.

A python block that is not to be run has ``<!-- not run: why -->`` on the line before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,}) *(?P<language>[\w-]*) *(?P<rest>.*)$")
NOT_RUN = re.compile(r"<!-- not run: (\S.*) -->")
LINK = re.compile(r"!?\[(?:[^\]\[]|\[[^\]]*\])*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: the file.
        line: number of its first line of code.
        language: as the fence says.
        code: without the indent of the fence.
        title: file name that the fence gives it, or "".
        not_run: why it is not run, or "".
    """

    page: Path
    line: int
    language: str
    code: str
    title: str
    not_run: str


def docs() -> list[Path]:
    """README and the pages of the site that are written by hand."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def pages() -> list[Path]:
    """Everything that people read: also the plugins' own READMEs, and how to contribute."""
    return [*docs(), ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("plugins/*/README.md"))]


def name_of(page: Path) -> str:
    """The page's path in the repository."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page."""
    lines = page.read_text("utf-8").splitlines()
    number = 0
    while number < len(lines):
        fence = FENCE.match(lines[number])
        number += 1
        if fence is None:
            continue
        first, indent = number, len(fence["indent"])
        while number < len(lines) and not lines[number].strip().startswith(fence["ticks"]):
            number += 1
        code = "\n".join(line[indent:] for line in lines[first:number]) + "\n"
        title = re.search(r'title="([^"]+)"', fence["rest"])
        before = next((line for line in reversed(lines[: first - 1]) if line.strip()), "")
        reason = NOT_RUN.search(before)
        yield Block(page, first + 1, fence["language"], code, title[1] if title else "", reason[1] if reason else "")
        number += 1


def commands(page: Path) -> Iterator[tuple[int, str]]:
    """The shell commands of a page, with their line numbers; continued lines are joined."""
    for block in blocks(page):
        if block.language not in ("console", "shell", "sh", "bash"):
            continue
        pending = ""
        for offset, line in enumerate(block.code.splitlines()):
            if not pending and block.language == "console" and not line.startswith("$ "):
                continue  # what the command prints
            pending += line.removeprefix("$ ") if not pending else line.strip()
            if pending.endswith("\\"):
                pending = pending[:-1]
                continue
            if pending.strip() and not pending.lstrip().startswith("#"):
                yield block.line + offset, pending.strip()
            pending = ""


def links(page: Path) -> Iterator[str]:
    """The targets of the links and pictures of a page, outside code."""
    text = re.sub(r"^( *)(`{3,}).*?^\1\2", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"`[^`\n]*`", "", text)
    yield from LINK.findall(text)
