"""Images of a run for its page, as far as they may be read here.

Any thread; reads only. Contract:

- Pictures are read below the run folder, below folders that were named, and those that the run's own process named to
  the plugin that asks: see `losslog.delivery.trust`.
- Where Pillow or numpy is not installed the page has no images, and one line says so.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from typing import Any, Final

from losslog.delivery.trust import Trust
from losslog.runtime.containment import attempt, one_line
from losslog.runtime.notices import Once
from losslog.viewing.story import Story

MOST: Final = 1_100_000  # characters, of all runs of a page together
NEEDED: Final = ("PIL", "numpy")
_said = Once()  # of the process


def pictured(stories: Sequence[Story], trust: Trust | None = None) -> list[dict[str, Any]]:
    """Of each run what its page draws of images; {} where there is nothing."""
    trust = trust or Trust()
    wanted = [story for story in stories if story.pictures]
    if wanted and any(importlib.util.find_spec(each) is None for each in NEEDED):
        _said("the report has no images: pip install pillow numpy", key="missing")
        wanted = []
    found = []
    for story in stories:
        made, error = attempt(_of, story, trust, MOST // len(wanted)) if story in wanted else ({}, None)
        if error is not None:
            _said("the report has no images (%s)", one_line(error), key="failed")
        found.append(made or {})
    return found


def _of(story: Story, trust: Trust, limit: int) -> dict[str, Any]:
    sets = {name: [trust.seen(data, story.folder, int(data.get("seq", 0))) for data in all_of]
            for name, all_of in story.pictures.items()}  # fmt: skip
    made: dict[str, Any] = importlib.import_module("losslog.detection.miniatures").miniatures(sets, limit)
    return made
