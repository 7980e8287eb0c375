"""Who may offer which plugin, and what is never imported from a folder that came with data."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import losslog
from losslog.delivery.discovery import discover, named, select
from losslog.delivery.installed import HOME

EVIL = """
from losslog import hookimpl
class Plugin:
    def __init__(self, answer=1):
        self.answer = answer
    @hookimpl
    def on_eval(self, metrics):
        pass
"""
BOMB = "import pathlib\npathlib.Path({!r}).write_text('imported')\nraise SystemExit('imported')\n"


def offer(folder: Path, distribution: str, name: str, module: str = "evil_module") -> None:
    """Lay down what makes ``importlib.metadata`` believe that a distribution is installed in the folder."""
    folder.mkdir(exist_ok=True)
    info = folder / f"{distribution.replace('-', '_')}-9.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 9.0\n")
    (info / "entry_points.txt").write_text(f"[losslog.plugins]\n{name} = {module}:Plugin\n")
    (folder / f"{module}.py").write_text(EVIL)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the import path, before all others."""
    found = tmp_path / "site"
    found.mkdir()
    monkeypatch.syspath_prepend(str(found))
    monkeypatch.delenv("LOSSLOG_PROGRAM", raising=False)
    return found


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("losslog.delivery.discovery._told", lambda text, *args, key="": losslog.run.warn(text, *args))
    monkeypatch.delitem(sys.modules, "evil_module", raising=False)


@pytest.mark.parametrize("name", ["mlflow", "wandb", "tensorboard", "console", "plateau", "trackio", "report"])
def test_a_name_of_losslogs_own_is_not_taken_by_another(site: Path, name: str, caplog: Any) -> None:
    offer(site, "evil-tools", name)
    found = discover()
    assert name not in found or found[name].distribution.startswith(f"losslog-{name} ")
    assert found[f"evil-tools:{name}"].state == "off"
    assert f"name it as 'evil-tools:{name}' to use it" in caplog.text


def test_under_auto_it_is_not_imported(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOSSLOG_DISABLE", "console,tensorboard,wandb,plateau,report")
    offer(site, "evil-tools", "mlflow")
    chosen = {each.name: each for each in select("auto")}
    assert chosen["evil-tools:mlflow"].state == "off"
    assert "evil_module" not in sys.modules


@pytest.mark.parametrize("asked", ["evil-tools:mlflow", "Evil_Tools:mlflow"])
def test_who_names_its_distribution_gets_it(site: Path, asked: str) -> None:
    offer(site, "evil-tools", "mlflow")
    (found,) = select([asked], {"evil-tools:mlflow": {"answer": 2}})
    assert (found.name, found.state, found.object.answer) == ("evil-tools:mlflow", "ready", 2)
    assert named([asked])[0].name == "evil-tools:mlflow"


def test_losslogs_own_may_be_named_so_too(site: Path) -> None:
    pytest.importorskip("losslog_tensorboard", reason="needs losslog-tensorboard")
    offer(site, "evil-tools", "tensorboard")
    assert named(["losslog-tensorboard:tensorboard"])[0].name == "tensorboard"
    with pytest.raises(losslog.PluginError):
        named(["somebody:tensorboard"])


@pytest.mark.parametrize("place", ["the working directory", "beside the script"])
def test_what_lies_there_takes_no_name_over(
    site: Path, monkeypatch: pytest.MonkeyPatch, package: Callable[..., str], place: str, caplog: Any
) -> None:
    """A ``*.dist-info`` that calls itself losslog-mlflow, or offers what an installed distribution offers."""
    package(EVIL, "twice")
    offer(site, "losslog-mlflow", "mlflow")
    offer(site, "another", "twice", "evil_other")
    monkeypatch.syspath_prepend(str(site))
    if place == "the working directory":
        monkeypatch.chdir(site)
    else:
        monkeypatch.setattr("sys.argv", [str(site / "train.py")])
    found = discover()
    assert "mlflow" not in found or found["mlflow"].distribution != "losslog-mlflow 9.0"
    assert found["twice"].distribution == "losslog-test-twice 1.0"
    assert found["losslog-mlflow:mlflow"].state == found["another:twice"].state == "off"
    assert "lies beside the script or in this folder" in caplog.text


def test_what_is_offered_by_nobody_else_may_lie_beside_the_script(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(site, "my-own", "mine")
    monkeypatch.setattr("sys.argv", [str(site / "train.py")])
    assert select(["mine"])[0].state == "ready"


@pytest.mark.parametrize("flags", [(), ("-P",)], ids=["", "-P"])
def test_a_folder_that_came_with_data_offers_no_code(
    make_run: Callable[..., losslog.Run], tmp_path: Path, flags: tuple[str, ...]
) -> None:
    """``python -m losslog`` there: neither the standard library, nor losslog's plugins, nor vendors come from it."""
    pytest.importorskip("losslog_tensorboard", reason="needs losslog-tensorboard")
    run = make_run(plugins=None)
    run.log_batch({"a": 1.0})
    run.close()
    marker = tmp_path / "marker"
    for name in ("json", "enum", "typing", "pluggy", "tensorboard", "losslog_tensorboard", "sitecustomize", "argparse"):
        (run.dir / f"{name}.py").write_text(BOMB.format(str(marker)))
    offer(run.dir, "losslog-tensorboard", "tensorboard", "losslog_tensorboard")
    (run.dir / "losslog_tensorboard.py").write_text(BOMB.format(str(marker)))
    for words in (("show", "."), ("replay", ".", "--to", "tensorboard")):
        done = subprocess.run(
            [sys.executable, *flags, "-m", "losslog", *words], cwd=run.dir, capture_output=True, text=True, timeout=60,
            env=os.environ.copy(),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert not marker.exists()
    assert (run.dir / "tensorboard" / "batch").is_dir()


SCRIPT = """
import os, sys
place = {site!r}
after = max(number for number, each in enumerate(sys.path) if each.endswith("lib-dynload")) + 1
sys.path[after:after] = [place] + {paths!r}
import losslog
assert losslog.__file__.startswith(place), losslog.__file__
run = losslog.Run("same", dir="runs", plugins=["far"])
run.log_batch(1.0)
run.close(20)
print((run.dir / "follower.log").read_text())
print("delivered", (run.dir / "far.txt").exists())
"""


@pytest.mark.parametrize("flags", [(), ("-I",), ("-E",)], ids=["plain", "-I", "-E"])
def test_the_follower_is_the_same_python(
    tmp_path: Path, flags: tuple[str, ...], package: Callable[..., str], far_source: str
) -> None:
    """Where losslog is installed lies a ``typing.py``, as old backports leave it: behind the standard library."""
    package(far_source.replace("import json", "import sys\nassert sys.flags.isolated == " + str(int("-I" in flags)) +
            "\nassert sys.flags.ignore_environment == " + str(int(bool(flags))) + "\nimport json"), "far")  # fmt: skip
    site = tmp_path / "installed"
    shutil.copytree(HOME / "losslog", site / "losslog", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("typing", "enum", "dataclasses"):
        (site / f"{name}.py").write_text("raise SystemExit('not the standard library')")
    script = tmp_path / "train.py"
    script.write_text(textwrap.dedent(SCRIPT.format(site=str(site), paths=[str(tmp_path / "site-packages")])))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, *flags, str(script)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "delivered True" in done.stdout, done.stdout + done.stderr
    assert "follower died" not in done.stderr
