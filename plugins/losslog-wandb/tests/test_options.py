from __future__ import annotations

import importlib.util
import inspect
import subprocess
import sys
from typing import Any

import pytest
from losslog_wandb import WandbPlugin

import losslog


def test_making_the_plugin_imports_no_wandb() -> None:
    code = (
        "import sys, losslog_wandb; losslog_wandb.WandbPlugin(x_disable_stats=True); sys.exit('wandb' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_wandb_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(losslog.NotReady, match="pip install wandb"):
        WandbPlugin()


def test_a_folder_of_that_name_is_not_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    (tmp_path / "wandb").mkdir()  # wandb itself makes one where it runs
    namespace = importlib.util.spec_from_loader("wandb", None, is_package=True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: namespace)
    with pytest.raises(losslog.NotReady):
        WandbPlugin()


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"projct": "x"}, TypeError, "did you mean 'project'"),
        ({"x_stats_samplng_interval": 1}, TypeError, "did you mean 'x_stats_sampling_interval'"),
        ({"zzzz": 1}, TypeError, "field of wandb.Settings"),
        ({"run_id": "x"}, ValueError, "losslog's id"),
        ({"mode": "on"}, ValueError, "online, offline, disabled"),
        ({"tags": "a"}, TypeError, "list of strings"),
        ({"reuse": True}, ValueError, "wandb.init"),
    ],
)
def test_a_wrong_option_is_refused_and_says_what_to_do(
    options: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        WandbPlugin(**options)


def test_every_option_is_documented() -> None:
    doc = inspect.getdoc(WandbPlugin) or ""
    names = [name for name, each in inspect.signature(WandbPlugin).parameters.items() if each.kind != each.VAR_KEYWORD]
    assert [name for name in names if f"{name}: " not in doc] == []


def test_a_key_redacted_in_the_journal_is_left_to_the_environment() -> None:
    assert WandbPlugin(api_key="[redacted]", x_disable_stats=True)._settings == {"x_disable_stats": True}
