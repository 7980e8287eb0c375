"""What the distributions of this checkout say of themselves, and what is in them once they are built."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

import losslog

ROOT = Path(losslog.__file__).parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import check_dist  # noqa: E402
import dist  # noqa: E402
import matrix  # noqa: E402

SOURCES = dist.distributions()
PLUGINS = [path.name for path in SOURCES[1:]]
GENERATED = [*ROOT.glob("losslog/cli/*/pyproject.toml.tmpl"), *ROOT.glob("examples/*/pyproject.toml")]


def pyproject(source: Path) -> dict[str, Any]:
    return tomllib.loads((source / "pyproject.toml").read_text("utf-8"))


@pytest.mark.parametrize("source", SOURCES, ids=lambda each: each.name)
def test_what_builds_it_is_bounded_and_its_licence_goes_with_it(source: Path) -> None:
    assert check_dist.unbounded((source / "pyproject.toml").read_text("utf-8")) == []
    assert pyproject(source)["project"]["license-files"] == ["LICENSE"]
    assert (source / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


@pytest.mark.parametrize("file", GENERATED, ids=lambda each: each.parent.name)
def test_what_users_start_from_is_bounded_too(file: Path) -> None:
    (line,) = re.findall("^requires = .*", file.read_text("utf-8"), re.MULTILINE)
    assert check_dist.unbounded(f"[build-system]\n{line}\n") == []


@pytest.mark.parametrize("needed", ["hatchling", "hatchling>=1.27", "hatchling!=1.28"])
def test_a_backend_without_an_upper_bound_is_found(needed: str) -> None:
    assert check_dist.unbounded(f'[build-system]\nrequires = ["hatchling<2", "{needed}"]\n') == [needed]


@pytest.mark.slow
def test_a_wheel_and_an_archive_have_their_licence(tmp_path: Path) -> None:
    pytest.importorskip("build")
    pytest.importorskip("hatchling")
    dist.build(ROOT / "plugins" / "losslog-notify", tmp_path)
    files = sorted(tmp_path.iterdir())
    assert [each.name.partition("-")[2] for each in files] == ["0.1.0-py3-none-any.whl", "0.1.0.tar.gz"]
    for file in files:
        assert check_dist.faults_of(file, (ROOT / "LICENSE").read_bytes()) == []
        assert "it has no LICENSE" in check_dist.faults_of(file, b"another")


def test_an_archive_whose_build_is_not_bounded_is_found(tmp_path: Path) -> None:
    pytest.importorskip("build")
    pytest.importorskip("hatchling")
    source = tmp_path / "losslog-open"
    source.mkdir()
    (source / "losslog_open.py").touch()
    (source / "README.md").touch()
    text = (ROOT / "plugins" / "losslog-report" / "pyproject.toml").read_text("utf-8")
    text = text.replace("losslog-report", "losslog-open").replace("hatchling>=1.27,<2", "hatchling>=1.27")
    text = text.replace('license-files = ["LICENSE"]\n', "").replace('"src/losslog_report"', '"losslog_open.py"')
    (source / "pyproject.toml").write_text(text)
    command = [sys.executable, "-m", "build", "--no-isolation", "--sdist", "--outdir", str(tmp_path), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    (archive,) = tmp_path.glob("*.tar.gz")
    faults = check_dist.faults_of(archive, (ROOT / "LICENSE").read_bytes())
    assert faults == ["it has no LICENSE", "its metadata name no licence file",
                      "its build needs 'hatchling>=1.27' without an upper bound"]  # fmt: skip


def test_an_extra_for_each_plugin_and_one_for_all() -> None:
    extras = pyproject(ROOT)["project"]["optional-dependencies"]
    assert PLUGINS
    for name in PLUGINS:
        short = name.removeprefix("losslog-")
        assert extras[short] == [f"{name}>=0.1,<1"]
    assert extras["all"] == [f"losslog[{','.join(sorted(name.removeprefix('losslog-') for name in PLUGINS))}]"]


def test_every_plugin_is_in_the_list_of_the_readme_and_has_a_bound_on_what_it_serves() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    pinned = {line.partition("==")[0].lower() for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines()}
    for source in SOURCES[1:]:
        assert f"(plugins/{source.name})" in readme
        for needed in pyproject(source)["project"]["dependencies"]:
            name = re.split(r"[<>=!~ \[]", needed, maxsplit=1)[0]
            assert name == "losslog" or (">=" in needed and name.lower() in pinned), needed


def test_each_row_of_the_matrix_pins_what_the_metadata_promise() -> None:
    assert matrix.lowest(["pluggy>=1.3", "a[b]>=2,<3", "none", "x<2,>=1"]) == ["pluggy==1.3", "a==2"]
    for name, row in matrix.ROWS.items():
        assert [each for each in row.tests if not (ROOT / each).exists()] == []
        pins = [each for each in matrix.packages(row) if "==" in each]
        assert any(each.startswith(f"{name}==") for each in pins) == (name not in matrix.PYTHONS), name
    served = {row.plugins[0] for row in matrix.ROWS.values() if row.bound and row.bound[0] != "."}
    without = {"losslog-plateau", "losslog-report", "losslog-trackio"}  # they serve nothing, or one version's internals
    assert {f"losslog-{name}" for name in served} == set(PLUGINS) - without
    assert {python.removeprefix("3.") for python in matrix.PYTHONS} == {
        each.rpartition(".")[2] for each in pyproject(ROOT)["project"]["classifiers"] if "Python :: 3." in each
    }


def test_the_matrix_finds_this_python_and_no_other_that_is_not_here() -> None:
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    found = matrix.python_of(version)
    assert found is not None
    said = subprocess.run([found, "-V"], capture_output=True, text=True, check=True).stdout
    assert said.startswith(f"Python {version}.")
    assert matrix.python_of("3.99") is None
