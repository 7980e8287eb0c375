"""Everything losslog expects of a plugin."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from losslog.testing import PluginConformance


class TestNotify(PluginConformance):
    name = "notify"
    vendor = ("apprise",)

    @pytest.fixture(autouse=True)
    def _service(self, endpoint: Any) -> None:
        self.endpoint = endpoint

    def options(self, tmp_path: Path) -> dict[str, Any]:
        quick = {"burst": 1000, "every": 0, "max_age": None}  # the kit's records are of another year
        return {"urls": [self.endpoint.url], "alerts": "info", "epochs": True, **quick}

    @contextlib.contextmanager
    def refusing(self, run_dir: Path) -> Iterator[list[str]]:
        refused: list[str] = []
        before, self.endpoint.status = self.endpoint.asked, 503
        try:
            yield refused
        finally:
            refused += ["503"] * (self.endpoint.asked - before)
            self.endpoint.status = 200

    def test_no_secret_is_declared_harmless(self) -> None:
        factory = self.entry_point().load()
        assert not set(factory.journal_options) & {"urls", "burst", "every", "max_age"}
        assert "urls" in factory.secret_options

    def test_options_are_plain(self, tmp_path: Path) -> None:
        assert json.loads(json.dumps(self.options(tmp_path))) == self.options(tmp_path)
