"""Processes that a watched script spawns are watched too.

The script's threads, and the main thread of each child. Contract:

- A child gets an object with what multiprocessing sends it; unpickling that object installs the watch, before the
  script's module is imported there.
- A child makes a run only when it trains: loader workers stay as they are. It closes it when its target returns or
  raises.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final

from losslog.instrument.listeners import guarded
from losslog.instrument.watch import Settings, Watch

KEY: Final = "losslog"
started: Final[list[bool]] = []  # not empty: this process has started others, which may train


class Passenger:
    """Travels to a child and installs the watch there.

    Args:
        settings: what the command line said.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def __getstate__(self) -> dict[str, Any]:
        started.append(True)
        return vars(self._settings)

    def __setstate__(self, state: dict[str, Any]) -> None:
        guarded(_arrive, state)


def instrument_spawned(settings: Settings) -> None:
    """Send a passenger with every process that multiprocessing spawns from here."""
    from multiprocessing import spawn

    original: Callable[[str], dict[str, Any]] = spawn.get_preparation_data

    def get_preparation_data(name: str) -> dict[str, Any]:
        return {KEY: Passenger(settings), **original(name)}

    spawn.get_preparation_data = get_preparation_data


def _arrive(state: dict[str, Any]) -> None:
    from multiprocessing.process import BaseProcess

    settings = Settings(**state)
    watch = Watch(settings)
    instrument_spawned(settings)
    original = BaseProcess.run

    def run(self: Any) -> None:
        try:
            original(self)
        except BaseException:
            watch.close(sys.exc_info()[1])
            raise
        watch.close(None)

    BaseProcess.run = run  # type: ignore[method-assign]
