"""`PluginConformance`: the class that a plugin's author subclasses.

Test thread. Contract:

- One test method for each promise a plugin makes; a fault fails the check that is named for it.
- Nothing here knows any backend: what a plugin stored is read by its author's ``read_back``.
"""

from __future__ import annotations

from losslog.testing.checks.delivery import DeliveryChecks
from losslog.testing.checks.life import LifeChecks
from losslog.testing.checks.series import SeriesChecks
from losslog.testing.checks.shape import ShapeChecks


class PluginConformance(ShapeChecks, SeriesChecks, DeliveryChecks, LifeChecks):
    """Checks a plugin against everything that losslog expects of one.

    Subclass it in a test module, say the plugin's name, and tell how to read back what it stored::

        class TestCsv(PluginConformance):
            name = "csv"

            def read_back(self, run_dir):
                return read_csv(run_dir / "csv" / "scalars.csv")

    Attributes:
        name: the plugin's entry point.
        vendor: top-level packages without which it raises `losslog.NotReady`.
        tolerance: relative difference between what was logged and what comes back; 1e-6 lets 32-bit floats pass.
        axes: those of the series that the backend takes, e.g. ``("epoch",)``; every check is kept, for those.
        resume: "replaces" where superseded points are gone after a resume, "appends" where the backend cannot delete
            and the last point at an x counts.
        close_within: seconds that the end may take.
        patience: seconds to wait for anything else.
        restart_pause: seconds between an object that is left behind and the next.

    May override: ``options(tmp_path)``, ``make_plugin(tmp_path)``, ``prepare(run_dir)``, ``read_back(run_dir)``,
    ``stored(value)``, ``crash(plugin)``; see `losslog.testing.subject.Subject`. Without ``read_back`` (a console, a
    detector) only what needs no series is checked.
    """
