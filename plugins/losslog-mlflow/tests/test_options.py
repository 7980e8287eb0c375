from __future__ import annotations

import importlib.util
import inspect
import subprocess
import sys
from typing import Any

import pytest
from losslog_mlflow import MlflowPlugin
from losslog_mlflow.answers import hide_login
from losslog_mlflow.store import take_login

import losslog


def test_making_the_plugin_imports_no_mlflow() -> None:
    code = "import sys, losslog_mlflow; losslog_mlflow.MlflowPlugin(); sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_mlflow_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(losslog.NotReady, match="pip install mlflow"):
        MlflowPlugin()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"tracking_url": "x"}, TypeError),
        ({"tracking_uri": "localhost:5000"}, ValueError),
        ({"tags": ["a"]}, TypeError),
    ],
)
def test_a_wrong_option_is_refused_by_name(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(options))):
        MlflowPlugin(**options)


def test_every_option_is_documented() -> None:
    doc = inspect.getdoc(MlflowPlugin) or ""
    names = inspect.signature(MlflowPlugin).parameters
    assert [name for name in names if f"{name}: " not in doc] == []


@pytest.mark.parametrize(
    ("given", "kept", "login"),
    [
        ("http://h:1", "http://h:1", (None, None)),
        ("http://me:p%40ss@h:1/base", "http://h:1/base", ("me", "p@ss")),
        ("https://me:[redacted]@h", "https://h", ("me", None)),
        ("sqlite:////tmp/a@b.db", "sqlite:////tmp/a@b.db", (None, None)),
    ],
)
def test_a_login_moves_from_the_address_to_the_environment(
    monkeypatch: pytest.MonkeyPatch, given: str, kept: str, login: tuple[str | None, str | None]
) -> None:
    environment: dict[str, str] = {}
    monkeypatch.setattr("os.environ", environment)
    assert take_login(given) == kept
    assert (environment.get("MLFLOW_TRACKING_USERNAME"), environment.get("MLFLOW_TRACKING_PASSWORD")) == login


def test_no_password_is_shown() -> None:
    assert hide_login("postgresql://me:secret@db/x is away") == "postgresql://db/x is away"
