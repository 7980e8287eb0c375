"""What a person wants to hear of a run when it ends: how far, the best, the alerts.

Any thread; reads only. Contract:

- Of the whole run, also of what came before a resume: the index of the journal tells it, without reading it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

BEST: Final = ("mAP/bbox_AP", "mAP/segm_AP", "mAP/keypoints_AP")
LEVELS: Final = ("error", "warning", "info")


def highlights(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What `losslog.Run.stats` says of it.

    Args:
        facts: those of the journal's `losslog.journal.index.Index`.
    """
    found = {tag: tuple(facts["best"][tag]) for tag in BEST if tag in facts["best"]}
    best = {tag.removeprefix("mAP/").replace("_", " "): each for tag, each in found.items()}
    alerts = facts["alerts"]
    return {
        "epochs": facts["counts"].get("on_epoch_end", 0), "best": best,
        "alerts": [str(each.get("title")) for each in alerts], "worst": (worst(alerts) or {}).get("title", ""),
    }  # fmt: skip


def worst(alerts: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The gravest alert, of equals one that names a cause, of these the latest."""
    ranked = [each for level in LEVELS for each in reversed(alerts) if each.get("level") == level]
    gravest = [each for each in ranked if each["level"] == ranked[0]["level"]]
    return next((each for each in gravest if each.get("cause")), gravest[0] if gravest else None)
