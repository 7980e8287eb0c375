"""``docs/writing-a-plugin.md``: its files put where it says, tested as it says; and what it must name.

Blocks without a title are run by the tests of the documentation.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from losslog.cli.new_plugin import generate
from losslog.testing import PluginConformance

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "writing-a-plugin.md"
sys.path.insert(0, str(ROOT / "scripts"))

import docs_blocks  # noqa: E402


@pytest.fixture(scope="module")
def tested(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """The page followed to its end: its pytest run."""
    home = tmp_path_factory.mktemp("page")
    made = generate("mydb", home)
    for block in docs_blocks.blocks(PAGE):
        if block.title:
            path = home / block.title
            assert path.parent.is_dir(), f"{block.title}: new-plugin makes no such folder"
            path.write_text(block.code, "utf-8")
    for _, line in docs_blocks.commands(PAGE):
        for removed in shlex.split(line)[1:] if line.startswith("rm ") else ():
            (home / removed).unlink()
    site = home / "site"
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*command, "--disable-pip-version-check", "--target", str(site), str(made)], check=True, timeout=120)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--no-header", str(made)],
        cwd=home,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])},
        capture_output=True,
        text=True,
        timeout=200,
    )


def test_the_plugin_of_the_page_passes_its_tests(tested):
    assert tested.returncode == 0, tested.stdout


def test_only_what_it_does_not_have_is_skipped(tested):
    assert "no delivered_upto" in tested.stdout
    assert "2 skipped" in tested.stdout  # it has no delivered_upto; its store is not written by Python


def test_the_page_names_every_check():
    text = PAGE.read_text("utf-8")
    checks = [name for name in dir(PluginConformance) if name.startswith("test_")]
    assert [name for name in checks if f"`{name}`" not in text] == []


def test_the_page_names_what_an_author_may_set():
    text = PAGE.read_text("utf-8")
    names = ["name", "vendor", "resume", "tolerance", "close_within", "patience", "options", "prepare", "stored"]
    assert [name for name in names if name not in text] == []
