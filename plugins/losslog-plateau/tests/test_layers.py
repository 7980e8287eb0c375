from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import losslog_plateau


def test_modules_import_each_other_in_no_circle() -> None:
    """Imports for types count too: they are a coupling all the same."""
    folder = Path(losslog_plateau.__file__).parent
    imports = {
        file.stem: {
            name
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
            if isinstance(node, ast.ImportFrom) and node.level
            for name in ([node.module] if node.module else [alias.name for alias in node.names])
        }
        for file in folder.glob("*.py")
    }
    assert "scene" in imports["judge"]
    list(TopologicalSorter(imports).static_order())  # raises CycleError
