from __future__ import annotations

import json
import sys
from collections.abc import Callable

import pytest

from losslog.cli import main

SOURCE = '''
class Plugin:
    """Says it is fine."""
    def __init__(self, answer=42, name="x"):
        pass
'''


@pytest.fixture(autouse=True)
def _only_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOSSLOG_DISABLE", "console,tensorboard,wandb,mlflow,notify,plateau,trackio,blocked")


def test_every_plugin_with_its_state_and_why(package: Callable[..., str], capsys: pytest.CaptureFixture[str]) -> None:
    package(SOURCE, "fine")
    package("raise ImportError('no vendor')", "bad")
    package("raise SystemExit", "blocked")
    assert main(["plugins"]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "losslog-test-fine 1.0" in rows["fine"]
    assert rows["fine"].endswith("ready far")
    assert rows["bad"].endswith("broken  import failed: ImportError: no vendor")
    assert rows["blocked"].endswith("blocked  LOSSLOG_DISABLE names it")
    assert "losslog_test_blocked" not in sys.modules


def test_for_machines(package: Callable[..., str], capsys: pytest.CaptureFixture[str]) -> None:
    package(SOURCE, "fine")
    assert main(["plugins", "--json"]) == 0
    (row,) = (each for each in json.loads(capsys.readouterr().out) if each["name"] == "fine")
    assert row == {
        "name": "fine", "distribution": "losslog-test-fine", "version": "1.0", "state": "ready", "reason": "",
        "near": False,
    }  # fmt: skip


def test_one_plugin_with_its_options(package: Callable[..., str], capsys: pytest.CaptureFixture[str]) -> None:
    package(SOURCE, "fine")
    assert main(["plugins", "fine"]) == 0
    out = capsys.readouterr().out
    assert "Says it is fine." in out
    assert all(line in out for line in ("  answer = 42", "  name = 'x'", "  batch_every = 1"))


def test_a_plugin_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "nobody"]) == 2
    assert "no plugin named 'nobody'" in capsys.readouterr().err
