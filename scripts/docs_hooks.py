"""Hooks of mkdocs: adds the pages that are generated from the code."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).resolve().parent))

import docs_reference as reference

PAGES = {
    "reference/hooks.md": reference.hooks_page,
    "reference/command-line.md": reference.commands_page,
    "reference/options.md": reference.options_page,
}


def on_startup(**_: Any) -> None:
    """Quieten what is no warning: a plugin that says at import that its backend is not set up."""
    logging.getLogger("losslog").setLevel(logging.ERROR)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    for path, page in PAGES.items():
        if (written := files.get_file_from_path(path)) is not None:  # what stands there for readers of a checkout
            files.remove(written)
        files.append(File.generated(config, path, content=page()))
    return files
