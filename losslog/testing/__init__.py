"""The kit for those who write a plugin: a conformance suite, and plugins that remember, fail or hang.

Needs pytest. Contract:

- ``pytest_plugins = ["losslog.testing.plugin"]`` in an author's conftest gives the fixtures; nothing loads by itself.
"""

from losslog.testing.conformance import PluginConformance
from losslog.testing.doubles import Flaky, Hanging, Recorder
from losslog.testing.telling import tell

__all__ = ["Flaky", "Hanging", "PluginConformance", "Recorder", "tell"]
