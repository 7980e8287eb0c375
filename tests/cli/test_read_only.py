"""Commands that look, on folders that may not be written to: a mount, another user's; in processes of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import losslog
from losslog.cli import main
from losslog.journal.folder import JOURNAL

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="mounts and capabilities as Linux has them")
ROOT = Path(losslog.__file__).parents[1]
CHILD = """
import contextlib, io, json, sys
import losslog
from losslog.cli import main
folder, other, home, there = sys.argv[1:]
found = {}
for words in (
    ["show", folder], ["show", "--hard", folder], ["show", "--json", folder], ["show", "--dir", home],
    ["ls", "--dir", home], ["ls", "--dir", home, "--json"], ["report", folder, "-o", there + "/page.html"],
    ["watch", folder], ["watch", "--plain", folder], ["diagnose", folder], ["diagnose", folder, "--json"],
    ["cat", folder], ["export", folder, "--to", "csv", "-o", there + "/run.csv"],
    ["export", folder, "--to", "jsonl", "-o", there + "/run.jsonl"], ["compare", folder, other],
):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(words)
        except SystemExit as leaving:
            code = leaving.code
    found[" ".join(words)] = [code, len(out.getvalue()), err.getvalue()]
found["load"] = [0, len(losslog.load(folder).losses()), ""]
print(json.dumps(found))
"""


def finished(run: losslog.Run) -> None:
    run.close()


def killed(run: losslog.Run) -> None:
    """Its last record is gone, and the one before is torn."""
    run.close()
    whole = (run.dir / JOURNAL).read_bytes().splitlines(keepends=True)
    (run.dir / JOURNAL).write_bytes(b"".join(whole[:-2]) + whole[-2][:20])


def compressed(run: losslog.Run) -> None:
    run.close()
    assert main(["compress", str(run.dir)]) == 0


def without_an_index(run: losslog.Run) -> None:
    run.close()
    for each in run.dir.glob("journal.index*"):
        each.unlink()


def by_mount(folder: Path) -> list[str]:
    if os.geteuid() != 0 or subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode:
        pytest.skip("mounts cannot be made here")
    mount = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
    return ["unshare", "-m", "sh", "-c", mount, str(folder)]


def by_mode(folder: Path) -> list[str]:
    """Another user, without a home, who may read what root may."""
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root may write anyway, and there is no setpriv")
        return ["setpriv", "--reuid=64100", "--regid=64100", "--clear-groups", "--inh-caps=+dac_read_search",
                "--ambient-caps=+dac_read_search", "env", "HOME=/nonexistent"]  # fmt: skip
    for each in (*folder.rglob("*"), folder):
        each.chmod(each.stat().st_mode & ~0o222)
    return []


def everything(folder: Path) -> dict[str, Any]:
    return {str(each): (each.stat().st_mtime_ns, each.stat().st_mode, each.is_file() and each.read_bytes())
            for each in (folder, *sorted(folder.rglob("*")))}  # fmt: skip


@pytest.mark.parametrize("state", [finished, killed, compressed, without_an_index])
@pytest.mark.parametrize("read_only", [by_mount, by_mode])
def test_who_only_looks_needs_no_right_to_write(
    make_run: Callable[..., losslog.Run], tmp_path: Path, read_only: Callable[[Path], list[str]],
    state: Callable[[losslog.Run], None],
) -> None:  # fmt: skip
    home, there = tmp_path / "runs", tmp_path / "there"
    there.mkdir()
    there.chmod(0o777)
    other = make_run(name="other", dir=home)
    other.log_batch(1.0)
    other.close()
    run = make_run(dir=home)
    for epoch in (1, 2):
        for step in range(20):
            run.log_batch({"loss_mask": 1.0 / (step + 1), "loss_box": 2.0})
        run.log_eval({"bbox": {"AP": 0.1 * epoch}})
        run.end_epoch()
    state(run)
    prefix = read_only(home)
    before = everything(home)
    environment = {name: value for name, value in os.environ.items() if name != "XDG_CACHE_HOME"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), environment.get("PYTHONPATH", "")])
    words = [*prefix, sys.executable, "-c", CHILD, str(run.dir), str(other.dir), str(home), str(there)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, cwd=there, env=environment)
    for each in (home, *home.rglob("*")):
        each.chmod(each.stat().st_mode | 0o200)
    assert done.returncode == 0, done.stderr
    for command, (code, printed, said) in json.loads(done.stdout).items():
        assert code in (0, 1) if command.startswith("diagnose") else code == 0, (command, said)
        assert printed or "-o" in command, command
        assert "Traceback" not in said, said
        assert "denied" not in said, said
        assert "ead-only" not in said, said
    made = {each.name: each.stat().st_size for each in there.iterdir()}
    assert set(made) == {"page.html", "run.csv", "run.jsonl"}
    assert all(made.values())
    if prefix:
        assert everything(home) == before
