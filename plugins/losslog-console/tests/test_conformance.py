"""losslog's own checks, run on this plugin; a console keeps no series, so those that need none."""

from __future__ import annotations

from losslog.testing import PluginConformance


class TestConsole(PluginConformance):
    name = "console"
    vendor = ("rich",)
