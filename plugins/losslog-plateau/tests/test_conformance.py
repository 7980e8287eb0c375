"""losslog's own checks, run on this plugin; a detector keeps no series, so those that need none."""

from __future__ import annotations

from losslog.testing import PluginConformance


class TestPlateau(PluginConformance):
    name = "plateau"
