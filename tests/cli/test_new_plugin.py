"""``losslog new-plugin``: names, places, and that what is made works as it is."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from losslog.cli import main
from losslog.cli.new_plugin import UnusableName, check_name, generate

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate("shiny-new", tmp_path_factory.mktemp("made"))


def run(*command: str, cwd: Path, path: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(path), str(ROOT)])}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=200)


@pytest.mark.parametrize("name", ["a", "csv", "my-tracker", "my_tracker", "v2"])
def test_ordinary_names_will_do(name):
    check_name(name)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "lower-case letters"),
        ("Csv", "lower-case letters"),
        ("2csv", "beginning with a letter"),
        ("my--tracker", "single - or _"),
        ("tracker-", "single - or _"),
        ("../csv", "lower-case letters"),
        ("c s v", "lower-case letters"),
        ("é", "lower-case letters"),
        ("losslog-csv", "'csv' will do"),
        ("auto", "means something else"),
        ("x" * 41, "too long"),
    ],
)
def test_a_name_that_cannot_be_is_refused_with_the_reason(name, reason):
    with pytest.raises(UnusableName, match=reason):
        check_name(name)


def test_an_installed_plugins_name_is_refused():
    pytest.importorskip("losslog_console")
    with pytest.raises(UnusableName, match="installed already"):
        check_name("console")


def test_nothing_is_overwritten(made):
    before = (made / "README.md").read_text()
    with pytest.raises(UnusableName, match="exists"):
        generate("shiny-new", made.parent)
    assert (made / "README.md").read_text() == before


def test_nothing_is_left_half_done(tmp_path, monkeypatch):
    def fail(*arguments: object, **options: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="disk full"):
        generate("half", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_what_to_type_next(tmp_path, capsys):
    assert main(["new-plugin", "spoken", "--dir", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    folder = tmp_path / "losslog-spoken"
    for line in (f"pip install -e '{folder}[test]'", f"pytest {folder}", "losslog plugins", "--plugins console,spoken"):
        assert line in said


def test_the_smallest_one_works_and_passes_every_check_of_what_it_takes(tmp_path, capsys):
    assert main(["new-plugin", "tiny", "--minimal", "--dir", str(tmp_path)]) == 0
    assert "losslog_tiny.py        the plugin" in capsys.readouterr().out
    folder = tmp_path / "losslog-tiny"
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert sum(len(path.read_text().splitlines()) for path in files) < 40
    site = tmp_path / "site"
    done = run(
        sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--no-build-isolation",
        "--disable-pip-version-check", "--target", str(site), str(folder), cwd=tmp_path, path=site,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "-W", "error"]
    done = run(*tests, "-k", "not tensor and not graph", str(folder), cwd=folder, path=site)
    assert done.returncode == 0, done.stdout
    script = "import losslog\nwith losslog.Run('t', plugins=['tiny']) as run:\n run.log_batch(0.5)\n run.end_epoch()"
    done = run(sys.executable, "-c", script, cwd=tmp_path, path=site)
    assert done.returncode == 0, done.stderr
    (made,) = tmp_path.glob("runs/t/*/tiny.csv")
    assert made.read_text() == "loss/train,1,0.5\n"


def test_a_wrong_name_is_one_line_and_exit_code_2(tmp_path, capsys):
    assert main(["new-plugin", "Wrong Name", "--dir", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("losslog new-plugin: 'Wrong Name' cannot be a plugin's name")
    assert error.count("\n") == 1


def test_the_metadata_names_distribution_module_and_entry_point(made):
    project = tomllib.loads((made / "pyproject.toml").read_text())["project"]
    assert project["name"] == "losslog-shiny-new"
    assert project["entry-points"]["losslog.plugins"] == {"shiny-new": "losslog_shiny_new:ShinyNewPlugin"}
    assert (made / "src" / "losslog_shiny_new" / "py.typed").exists()


def test_no_placeholder_is_left(made):
    left = [path.name for path in made.rglob("*") if path.is_file() and b"@NAME@" in path.read_bytes()]
    assert left == []


def test_it_is_clean_under_the_linter_and_the_type_checker(made):
    config = ["--config", str(ROOT / "pyproject.toml")]
    for command in (["ruff", "check", *config, "."], ["ruff", "format", "--check", *config, "."]):
        done = run(sys.executable, "-m", *command, cwd=made, path=made / "src")
        assert done.returncode == 0, done.stdout
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(made.parent / "cache"), "src"],
        cwd=made, env=os.environ | {"MYPYPATH": str(ROOT)}, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_it_installs_is_discovered_passes_its_tests_and_writes(made, tmp_path):
    site = tmp_path / "site"
    done = run(
        sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--no-build-isolation",
        "--disable-pip-version-check", "--target", str(site), str(made), cwd=tmp_path, path=site,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    done = run(sys.executable, "-m", "losslog", "plugins", cwd=tmp_path, path=site)
    assert "shiny-new" in done.stdout
    assert "losslog-shiny-new 0.1.0" in done.stdout
    quick = ["-k", "not tensor and not graph"]  # torch takes seconds to import; the kit's own tests have these two
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", *quick, str(made)]
    done = run(*tests, cwd=made, path=site)
    assert done.returncode == 0, done.stdout
    script = (
        "import losslog\nwith losslog.Run('t', plugins=['shiny-new']) as run:\n run.log_batch(0.5)\n run.end_epoch()"
    )
    done = run(sys.executable, "-c", script, cwd=tmp_path, path=site)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "runs" / "t").iterdir()
    assert f"the series are in {folder / 'shiny-new.jsonl'}" in done.stderr
    done = run(sys.executable, "-m", "losslog_shiny_new", str(folder), cwd=tmp_path, path=site)
    assert "loss/train" in done.stdout
    assert "the last at 1: 0.5" in done.stdout
