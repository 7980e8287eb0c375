"""Tells which loss component has stalled, diverged or gone, while training runs.

- `PlateauPlugin` is the losslog plugin: a lane that feeds a watcher and raises alerts.
- `Watcher` is the detector by itself, for replays, tables and benchmarks.
"""

from .finding import Finding, Verdict
from .known import TYPICAL
from .plugin import PlateauPlugin
from .settings import SENSITIVITY
from .watcher import Watcher

__all__ = ["SENSITIVITY", "TYPICAL", "Finding", "PlateauPlugin", "Verdict", "Watcher"]
