"""``report.html``: runs on one page that needs nothing else.

Any thread. Contract:

- One file: no request leaves it, and its own policy forbids any.
- Nothing a run contains can become markup or script: data is one block of JSON without ``<``, shown as text.
"""

from __future__ import annotations

import html
import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Final

from losslog.delivery.trust import Trust
from losslog.viewing.compare import compare
from losslog.viewing.figures import figures, fit
from losslog.viewing.parts import story_of
from losslog.viewing.pictures import pictured
from losslog.viewing.story import Story
from losslog.viewing.telling import parting_of

FILE: Final = "report.html"
POLICY: Final = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"


def report(folders: Sequence[Path]) -> str:
    """The page of these run folders.

    Raises:
        OSError: a journal cannot be read.
    """
    return page([story_of(folder) for folder in folders])


def page(stories: Sequence[Story], verdicts: Sequence[Mapping[str, str]] = (), trust: Trust | None = None) -> str:
    """The page.

    Args:
        stories: the runs, read; the others are compared with the first.
        verdicts: for each run a word on each component; may be left out.
        trust: which pictures may be read; None: those below the run folder.
    """
    comparison = [_compared(stories[0], each) for each in stories[1:]]
    fit(stories)
    words = [*verdicts, *({} for _ in stories)]
    runs = [figures(story, word) for story, word in zip(stories, words, strict=False)]
    for run, images in zip(runs, pictured(stories, trust), strict=True):
        run["images"] = images
    title = " · ".join(f"{each['name']} {each['id']}" for each in runs[:3])
    data = {"runs": runs, "comparison": comparison, "made": round(time.time())}
    parts = {
        "policy": POLICY, "title": html.escape(title), "license": _asset("uplot/LICENSE").replace("--", "- -"),
        "style": _asset("uplot/uPlot.min.css") + _asset("page.css"), "data": script_json(data),
        "library": _asset("uplot/uPlot.iife.min.js"), "script": _asset("page.js"),
    }  # fmt: skip
    return re.sub(r"\{\{(\w+)\}\}", lambda mark: parts[mark[1]], _asset("page.html"))


def _compared(one: Story, two: Story) -> dict[str, Any]:
    found = compare(one, two)
    (first, other), lines = found["runs"], [f"{what}: {text}" for what, text in parting_of(found)]
    return {"of": f"{first['name']} {first['id']} → {other['name']} {other['id']}", "lines": lines}


def script_json(data: Any) -> str:
    """JSON that may stand inside a script element: nothing in it ends the element or opens another."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def write(text: str, path: Path) -> None:
    """Write a page, whole or not at all.

    Raises:
        OSError: it cannot be written; what was there stays.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("x", encoding="utf-8") as file:  # never through a link that lies there
            file.write(text)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _asset(name: str) -> str:
    return (resources.files("losslog.viewing") / "assets" / name).read_text("utf-8")
