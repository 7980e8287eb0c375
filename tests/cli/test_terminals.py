"""Names that a terminal cannot show are shown otherwise, by every command alike."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import losslog

ROOT = Path(losslog.__file__).parent.parent
NAME = "Brötchen-面包-\N{BREAD}"


def losslog_command(encoding: str, *words: str, script: str = "") -> subprocess.CompletedProcess[bytes]:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHONUTF"))
    }
    environment |= {
        "PYTHONIOENCODING": encoding,
        "PYTHONPATH": os.pathsep.join([str(ROOT), environment.get("PYTHONPATH", "")]),
    }
    code = "import sys; from losslog.cli import main; sys.exit(main(sys.argv[1:]))"
    return subprocess.run(
        [sys.executable, "-c", script or code, *words], capture_output=True, env=environment, timeout=120
    )


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp437", "latin-1:strict", "utf-8"])
@pytest.mark.parametrize("command", [["show"], ["show", "--json"], ["diagnose"], ["ls"]])
def test_every_command_shows_every_name(make_run: Any, tmp_path: Path, encoding: str, command: list[str]) -> None:
    run = make_run(plugins=None, name=NAME)
    for epoch in range(1, 3):
        for step in range(30):
            run.log_batch({NAME: 1.0 / (1 + step), "b": 2.0}, epoch=epoch)
        run.log_eval({NAME: {"AP": 0.5}})
        run.alert(f"{NAME} is late")
        run.end_epoch()
    run.close()
    where = ["--dir", str(run.dir.parent.parent)] if command == ["ls"] else [str(run.dir)]
    done = losslog_command(encoding, *command, *where)
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    shown = done.stdout.decode(encoding.partition(":")[0])
    assert "Br" in shown


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_an_error_names_what_it_is_about(tmp_path: Path, encoding: str) -> None:
    done = losslog_command(encoding, "show", str(tmp_path / NAME))
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr
    assert b"Br" in done.stderr


def test_a_script_that_is_run_has_its_streams_as_they_were(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import sys; print(sys.stdout.errors)")
    done = losslog_command("ascii:strict", "run", "--dir", str(tmp_path), str(script))
    assert done.stdout.split()[-1:] == [b"strict"] or b"strict" in done.stdout, done.stderr
