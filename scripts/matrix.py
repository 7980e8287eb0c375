"""The suite under other Pythons, and against the oldest packages that the metadata promise.

    python scripts/matrix.py [--list] [--keep FOLDER] [ROW ...]

A row is an environment of its own with a part of the tests. ``3.11``, ``3.12`` and ``3.13`` run the fast part of the
core's under each Python that is here; the others pin one package to the lower bound in the ``pyproject.toml`` that
names it, so that the bound is what was tried. Packages come from pip; a row costs minutes, with torch gigabytes.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parent.parent
PYTHONS: Final = ("3.11", "3.12", "3.13")
CORE: Final = (
    "tests/journal", "tests/values", "tests/recording", "tests/delivery", "tests/runtime", "tests/test_run.py",
    "tests/test_api.py", "tests/test_hooks.py", "tests/test_hookspecs.py", "tests/test_tags.py",
)  # fmt: skip
TOOLS: Final = (
    "pytest>=8",
    "pytest-timeout",
    "pytest-randomly",
    "psutil",
    "pyte",
    "attrs",
    "pydantic",
    "numpy",
    "nbformat",
)


class Row(NamedTuple):
    """An environment and what is run in it.

    Attributes:
        tests: files and folders for pytest.
        plugins: the plugins that are installed beside the core.
        bound: distribution folder and package whose lower bound is pinned; None for a Python's row.
        extra: the core's extra in which that package stands, "" where it is a dependency.
        beside: what goes with a package of that age.
    """

    tests: Sequence[str]
    plugins: Sequence[str] = ("console", "plateau")
    bound: tuple[str, str] | None = None
    extra: str = ""
    beside: Sequence[str] = ()


def of_plugin(name: str, package: str, *beside: str) -> Row:
    """A row for the package that a plugin serves."""
    return Row([f"plugins/losslog-{name}/tests"], [name], (f"plugins/losslog-{name}", package), beside=beside)


ROWS: Final = {python: Row(CORE) for python in PYTHONS} | {
    "pluggy": Row(CORE, bound=(".", "pluggy"), beside=["pytest<8.3"]),
    "torch": Row(
        ["tests/values", "tests/compat", "tests/engine", "tests/instrument/test_attach.py",
         "tests/instrument/test_backward.py"],
        bound=(".", "torch"), extra="detection", beside=["numpy<2.3"],
    ),
    "rich": of_plugin("console", "rich", "torch"),
    "tensorboard": of_plugin("tensorboard", "tensorboard", "torch", "pandas"),
    "wandb": of_plugin("wandb", "wandb"),
    "mlflow": of_plugin("mlflow", "mlflow", "Flask-WTF", "sqlalchemy<2.1"),
    "apprise": of_plugin("notify", "apprise"),
}  # fmt: skip


def requirements(source: Path, extra: str = "") -> list[str]:
    """What a distribution needs, with one of its extras."""
    project = tomllib.loads((source / "pyproject.toml").read_text("utf-8"))["project"]
    return [*project["dependencies"], *(project["optional-dependencies"][extra] if extra else [])]


def lowest(needed: Sequence[str], package: str = "") -> list[str]:
    """Requirements pinned to their lower bounds: ``pluggy>=1.5`` is ``pluggy==1.5``.

    Args:
        needed: requirements.
        package: only this one; "" for all.
    """
    found = (re.match(r"([\w.-]+)[^,]*?>=\s*([\w.]+)", each) for each in needed)
    return [f"{each[1]}=={each[2]}" for each in found if each and package in ("", each[1])]


def python_of(version: str) -> str | None:
    """An interpreter of that version that runs here, or None."""
    places = [shutil.which(f"python{version}"), sys.executable]
    places += map(str, sorted(Path.home().glob(f".pyenv/versions/{version}*/bin/python"), reverse=True))
    commands = [[place] for place in places if place] + ([["py", f"-{version}"]] if os.name == "nt" else [])
    for command in commands:
        code = "import sys; print(sys.executable, '%d.%d' % sys.version_info[:2], sep='\\n')"
        try:
            done = subprocess.run([*command, "-c", code], capture_output=True, text=True, timeout=30)
        except OSError:
            continue
        if done.returncode == 0 and done.stdout.split("\n")[1:2] == [version]:
            return done.stdout.split("\n")[0]
    return None


def packages(row: Row) -> list[str]:
    """What pip is given for a row."""
    pins: list[str] = []
    if row.bound is not None:
        folder, package = row.bound
        needed = requirements(ROOT / folder, row.extra)
        pins = lowest(needed, "" if row.extra else package)  # of an extra, all: they are of one age
        if not any(pin.startswith(f"{package}==") for pin in pins):
            sys.exit(f"{folder}/pyproject.toml has no lower bound for {package}")
    editable = [ROOT, *(ROOT / "plugins" / f"losslog-{name}" for name in row.plugins)]
    return [*TOOLS, *pins, *row.beside, *(part for each in editable for part in ("-e", str(each)))]


def run(name: str, folder: Path) -> str:
    """Run one row; what became of it in a word or two, "" where all is well."""
    row, version = ROWS[name], name if name in PYTHONS else PYTHONS[0]
    python = python_of(version)
    if python is None and name not in PYTHONS:
        python = sys.executable
    if python is None:
        return "not here"
    place = folder / name
    bin_ = place / ("Scripts" if os.name == "nt" else "bin")
    own = str(bin_ / "python")
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    # Warnings of an old package about a new one are nobody's fault here.
    lenient = [] if name in PYTHONS else ["-o", "filterwarnings=default"]
    options = ["-q", "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT), *lenient]
    for what, command in (
        ("no environment", [python, "-m", "venv", str(place)]),
        ("does not install", [own, "-m", "pip", "install", "-q", "--disable-pip-version-check", *packages(row)]),
        ("fails", [own, "-m", "pytest", *options, *row.tests]),
    ):
        if subprocess.run(command, cwd=ROOT, env=environment).returncode:
            return what
    return ""


def main() -> None:
    """Run the rows that were named, else all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}; none: all")
    parser.add_argument("--list", action="store_true", help="say what would be installed")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="leave the environments there")
    args = parser.parse_args()
    if unknown := [each for each in args.rows if each not in ROWS]:
        parser.error(f"there is no row {', '.join(unknown)}; there are {', '.join(ROWS)}")
    names = args.rows or list(ROWS)
    if args.list:
        for name in names:
            print(f"{name:12}{' '.join(each for each in packages(ROWS[name]) if '==' in each) or python_of(name)}")
        return
    became: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="losslog-matrix-", ignore_cleanup_errors=True) as scratch:
        for name in names:
            began = time.monotonic()
            print(f"== {name}", flush=True)
            folder = (args.keep or Path(scratch)).resolve()
            became[name] = run(name, folder)
            print(f"== {name}: {became[name] or 'passes'}, {time.monotonic() - began:.0f} s", flush=True)
            if args.keep is None:
                shutil.rmtree(folder / name, ignore_errors=True)
    print("\n".join(f"{name:12} {how or 'passes'}" for name, how in became.items()))
    sys.exit(any(how not in ("", "not here") for how in became.values()))


if __name__ == "__main__":
    main()
