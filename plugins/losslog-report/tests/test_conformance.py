"""losslog's own checks, run on both plugins; they keep no series, so those that need none."""

from __future__ import annotations

from losslog.testing import PluginConformance


class TestReport(PluginConformance):
    name = "report"


class TestNotebook(PluginConformance):
    name = "notebook"
    vendor = ("IPython",)
