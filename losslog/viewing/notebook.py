"""A run in a notebook: its report, inline.

Any thread; reads only. Contract:

- Nothing is imported that a notebook has, and nothing is fetched: the page stands in a frame of its own, cut off from
  the notebook around it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from losslog.journal.archive import form_of
from losslog.journal.folder import JOURNAL
from losslog.viewing.page import report

HEIGHT: Final = 900  # pixels


def inline(folder: Path) -> str | None:
    """The report as markup for a notebook's output; None where there is no journal."""
    if not form_of(folder / JOURNAL).is_file():
        return None
    page = report([folder]).replace("&", "&amp;").replace("'", "&#39;")
    style = f"width:100%;height:{HEIGHT}px;border:0"
    return f"<iframe sandbox='allow-scripts' style='{style}' srcdoc='{page}'></iframe>"
