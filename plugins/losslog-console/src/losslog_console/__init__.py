"""The terminal for losslog runs: an epoch a block, live progress where somebody watches, alerts that are seen.

Importing this does not import rich; making the plugin imports a part of it.
"""

from losslog_console.plugin import ConsolePlugin

__all__ = ["ConsolePlugin"]
