"""The public API as ``mypy --strict`` sees it from a user's file."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, int, str]]:
    """(file, line, message) of every error in the samples; one run for all."""
    folder = tmp_path_factory.mktemp("typing")
    names = ["user_code.py", "wrong_code.py"]
    for name in names:
        (folder / name).write_text((HERE / name).read_text("utf-8"), "utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", "", "--cache-dir", str(folder / "cache")]
    done = subprocess.run(
        [*command, *names], cwd=folder, env=_environment(), capture_output=True, text=True, timeout=200
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    errors = re.findall(r"^(\w+\.py):(\d+): error: (.*)$", done.stdout, re.MULTILINE)
    assert done.returncode == 0 or errors, done.stdout
    return [(name, int(line), message) for name, line, message in errors]


def _environment() -> dict[str, str]:
    import os

    return os.environ | {"MYPYPATH": str(ROOT)}


def test_what_users_write_is_well_typed(found):
    assert [each for each in found if each[0] == "user_code.py"] == []


def test_mistakes_are_found_where_they_are(found):
    lines = (HERE / "wrong_code.py").read_text("utf-8").splitlines()
    wrong = {number for number, line in enumerate(lines, 1) if line.endswith("# wrong")}
    assert {line for name, line, _ in found if name == "wrong_code.py"} == wrong


def test_the_package_says_that_it_is_typed():
    assert (ROOT / "losslog" / "py.typed").exists()
