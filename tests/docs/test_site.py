"""The documentation's site: it builds without a warning, and what it says of hooks, commands and options is so."""

from __future__ import annotations

import html
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest

import losslog
from losslog import hookspecs
from losslog.cli import COMMANDS

ROOT = Path(losslog.__file__).parent.parent
INSIDE = {
    "asked",
    "closed",
    "end_at_exit",
    "forget",
    "log_forwards",
    "log_later",
    "next_step",
    "spent",
}  # for losslog's own packages
sys.path.insert(0, str(ROOT / "scripts"))

import docs_blocks  # noqa: E402
import docs_reference as reference  # noqa: E402


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built with warnings as errors."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def text_of(page: Path) -> str:
    """A page's text without its tags."""
    return html.unescape(re.sub(r"<[^>]+>", "", page.read_text("utf-8")))


def headings(page: Path) -> dict[str, str]:
    """Headings by their anchors."""
    found = re.findall(r'<h[1-6] id="([^"]+)"[^>]*>(.*?)</h[1-6]>', page.read_text("utf-8"), re.DOTALL)
    return {anchor: html.unescape(re.sub(r"<[^>]+>", "", text)).rstrip("¶").strip() for anchor, text in found}


def test_every_hook_has_a_heading_with_its_signature(site: Path) -> None:
    found = headings(site / "reference" / "hooks.html")
    for hook in hookspecs.HOOKS:
        arguments = ", ".join(inspect.signature(getattr(hookspecs, hook)).parameters)
        assert found[hook] == f"{hook}({arguments})"


@pytest.mark.parametrize("hook", hookspecs.HOOKS)
def test_every_hook_has_a_test_named_after_it(hook: str) -> None:
    assert f"def test_{hook}" in (ROOT / "tests" / "test_hooks.py").read_text("utf-8")


@pytest.mark.parametrize("hook", hookspecs.HOOKS)
def test_every_argument_of_a_hook_is_explained(hook: str) -> None:
    explained = reference.entries(reference.sections(getattr(hookspecs, hook)).get("Arguments", ""))
    assert set(explained) == set(hookspecs.ARGUMENTS[hook]) - {"run", "seq", "time"}


def test_every_command_and_option_is_in_the_reference(site: Path) -> None:
    page = site / "reference" / "command-line.html"
    anchors, text = headings(page), text_of(page)
    assert set(reference.commands()) == set(COMMANDS)
    for name, parser in reference.commands().items():
        assert anchors[f"losslog-{name}"] == f"losslog {name}"
        for action in reference.options_in(parser):
            for spelled in action.option_strings or [action.metavar or action.dest]:
                assert str(spelled) in text, f"losslog {name} {spelled}"


def test_every_command_is_introduced_in_a_page_written_by_hand() -> None:
    lines = [line for page in docs_blocks.docs() for _, line in docs_blocks.commands(page)]
    assert [name for name in COMMANDS if not any(f"losslog {name}" in line for line in lines)] == []


@pytest.mark.parametrize("plugin", sorted(reference.factories()))
def test_every_option_of_a_plugin_is_explained(plugin: str, site: Path) -> None:
    text = text_of(site / "reference" / "options.html")
    factory = reference.factories()[plugin]
    explained = reference.entries(reference.sections(factory).get("Args", ""))
    names = {
        ("**" if each.kind is each.VAR_KEYWORD else "") + name
        for name, each in reference.parameters_of(factory).items()
    }
    assert set(explained) == names
    assert [name for name in names if name not in text] == []


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    text = text_of(site / "reference" / "api.html")
    assert [name for name in losslog.__all__ if name not in text] == []


def test_every_method_of_a_run_is_in_the_reference(site: Path) -> None:
    found = headings(site / "reference" / "api.html")
    public = {name for name in vars(losslog.Run) if not name.startswith("_")} - INSIDE
    assert {name for name in public if f"losslog.Run.{name}" not in found} == set()


def test_every_environment_variable_is_in_the_reference() -> None:
    sources = "".join(path.read_text("utf-8") for path in (ROOT / "losslog").rglob("*.py"))
    read = set(re.findall(r'"(LOSSLOG_[A-Z_]+)"', sources))
    page = (ROOT / "docs" / "reference" / "environment.md").read_text("utf-8")
    inner = {"LOSSLOG_PARENT_PID", "LOSSLOG_PROGRAM", "LOSSLOG_RANK_PID", "LOSSLOG_FAULTS"}
    assert {name for name in read if f"`{name}" not in page} <= inner


def test_the_sites_links_and_pictures_are_there(site: Path) -> None:
    missing = []
    for page in site.rglob("*.html"):
        if page.name == "404.html":
            continue
        for target in re.findall(r'(?:href|src)="([^"]+)"', page.read_text("utf-8")):
            path, _, anchor = unquote(html.unescape(target)).partition("#")
            if re.match(r"[a-z]+:", target):
                continue
            other = (page.parent / path).resolve() if path else page
            if not other.exists() or (
                anchor and other.suffix == ".html" and f'id="{anchor}"' not in other.read_text("utf-8")
            ):
                missing.append(f"{page.relative_to(site)}: {target}")
    assert missing == []


def test_the_site_fetches_nothing_from_elsewhere(site: Path) -> None:
    fetched = []
    for page in site.rglob("*.html"):
        text = page.read_text("utf-8")
        fetched += re.findall(r'(?:src|<link[^>]*href)="(?:https?:)?//[^"]+"', text)
    assert [each for each in fetched if 'rel="canonical"' not in each] == []


def test_pictures_are_small() -> None:
    pictures = list((ROOT / "docs" / "img").glob("*.png"))
    assert len(pictures) >= 5
    assert [path.name for path in pictures if path.stat().st_size > 200_000] == []
