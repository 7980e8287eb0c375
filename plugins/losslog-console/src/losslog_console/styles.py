"""The part of rich that draws a random number as it is imported.

The thread that makes the plugin, which is the one that trains. Contract:

- The process's random numbers are the loop's: what it draws next is what it would have drawn without us. On a lane
  that could not be had, since the loop may draw at any moment.
"""

from __future__ import annotations

import random
import sys
from importlib import import_module


def import_styles() -> None:
    """Import it, and put the random numbers back to where they were."""
    if "rich.style" not in sys.modules:
        state = random.getstate()
        import_module("rich.style")
        random.setstate(state)
