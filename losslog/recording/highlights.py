"""What a person wants to hear of a run when it ends: how long, how far, the best, the alerts.

Drain thread; read when the run is closed. Contract:

- It is kept as records are made, in bounded memory: the journal is not read again.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

from losslog.journal.records import count_in
from losslog.runtime.containment import attempt
from losslog.tags import eval_series

BEST: Final = ("mAP/bbox_AP", "mAP/segm_AP", "mAP/keypoints_AP")
TITLES: Final = 1000


class Highlights:
    """Of this process's part of a run."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._epochs = 0
        self._best: dict[str, tuple[float, int]] = {}
        self._alerts: deque[str] = deque(maxlen=TITLES)

    def take(self, hook: str, data: Mapping[str, Any]) -> None:
        """A record was made."""
        if hook == "on_epoch_end":
            self._epochs += 1
        elif hook == "on_alert":
            self._alerts.append(str(data.get("title")))
        elif hook == "on_eval" and data.get("split") == "val":
            series, _ = attempt(eval_series, data.get("metrics") or {}, "val")
            for tag, value in (series or {}).items():
                kind = tag.removeprefix("mAP/").replace("_", " ")
                if tag in BEST and value > self._best.get(kind, (-1.0, 0))[0]:
                    self._best[kind] = (value, count_in(dict(data), "epoch"))

    def figures(self) -> dict[str, Any]:
        """What `losslog.Run.stats` says of it."""
        seconds = round(time.monotonic() - self._began, 3)
        return {"seconds": seconds, "epochs": self._epochs, "best": dict(self._best), "alerts": list(self._alerts)}
