"""A Trackio store that belongs to these tests; trackio reads where it is when it is imported."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

STORE = tempfile.TemporaryDirectory(prefix="losslog-trackio-", ignore_cleanup_errors=True)
os.environ["TRACKIO_DIR"] = STORE.name
os.environ["HF_HUB_OFFLINE"] = "1"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("filterwarnings", "ignore::DeprecationWarning:(trackio|gradio_client|huggingface_hub).*")


@pytest.fixture
def store() -> Path:
    return Path(STORE.name)
