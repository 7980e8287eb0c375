"""From nothing to a plugin that logs a training: the commands of the tutorial, with their times.

    python scripts/new_plugin_check.py

Makes a plugin with ``losslog new-plugin``, installs it into an environment that sees this one, runs its tests, and
trains ``losslog demo`` for a moment with it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAME = "demo"


def main() -> None:
    """Type the commands."""
    with tempfile.TemporaryDirectory(prefix="losslog-plugin-", ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch)
        venv.create(folder / "venv", with_pip=True)
        python = folder / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
        found = subprocess.check_output(
            [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
        )
        paths = [str(ROOT), sysconfig.get_path("purelib"), *map(str, ROOT.glob("plugins/losslog-console/src"))]
        (Path(found.strip()) / "seen.pth").write_text("\n".join(paths) + "\n")

        def type_in(*command: str) -> str:
            began = time.monotonic()
            done = subprocess.run(
                [str(python), "-m", *command], cwd=folder, capture_output=True, text=True, encoding="utf-8", timeout=500
            )
            print(f"{time.monotonic() - began:6.1f} s  {' '.join(command)}", flush=True)
            if done.returncode:
                sys.exit(f"failed:\n{done.stdout}{done.stderr}")
            return done.stdout + done.stderr

        type_in("losslog", "new-plugin", NAME)
        install = ["pip", "install", "-q", "--no-build-isolation", "-e", f"losslog-{NAME}[test]"]
        type_in(*install, "--disable-pip-version-check")
        type_in("pytest", "-q", "-p", "no:cacheprovider", f"losslog-{NAME}")
        if f"losslog-{NAME}" not in type_in("losslog", "plugins"):
            sys.exit("losslog plugins does not list it")
        short = ["--epochs", "1", "--steps-per-epoch", "2"]
        said = type_in("losslog", "demo", *short, "--plugins", f"console,{NAME}")
        (journal,) = folder.glob("runs/demo/*/journal.jsonl")
        if not (journal.parent / f"{NAME}.jsonl").exists():
            sys.exit(f"the plugin wrote nothing:\n{said}")
        print(type_in(f"losslog_{NAME}", str(journal.parent)).rstrip())


if __name__ == "__main__":
    main()
