"""Install the wheels of ``dist/`` into an empty environment, far from the checkout, and use them.

    python scripts/check_dist.py [FOLDER]

pip fetches only what losslog and the console depend on (pluggy, rich). Steps: install losslog and the console, make a
third plugin with ``losslog new-plugin`` and install its wheel, list plugins, log a tiny run, uninstall the third plugin
and see that it is gone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUN = """
import losslog
with losslog.Run("tiny", "runs", epochs=2) as run:
    for epoch in (1, 2):
        for _ in range(5):
            run.log_batch({"loss_mask": 0.5 / epoch, "loss_box_reg": 0.25}, lr=0.01)
        run.log_eval({"bbox": {"AP": 0.1 * epoch, "AP50": 0.2 * epoch}})
        run.end_epoch(val_loss=0.9)
print("from", losslog.__file__)
"""


class Place:
    """An empty environment in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        venv.create(folder / "venv", with_pip=True)
        self.bin = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
        kept = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
        self.environment = {
            name: value for name, value in os.environ.items() if name not in kept and not name.startswith("LOSSLOG_")
        }

    def run(self, *command: str) -> str:
        """Run a command of the environment; its output."""
        began = time.monotonic()
        line = [str(self.bin / command[0]), *command[1:]]
        done = subprocess.run(
            line, cwd=self.folder, env=self.environment, capture_output=True, text=True, encoding="utf-8", timeout=300
        )
        shown = " ".join(part if len(part) < 60 else Path(part).name or "..." for part in command)
        print(f"{time.monotonic() - began:6.1f} s  {shown.splitlines()[0]}")
        if done.returncode:
            sys.exit(f"{shown} failed:\n{done.stdout}{done.stderr}")
        return done.stdout

    def plugins(self) -> dict[str, str]:
        """State by plugin."""
        return {each["name"]: each["state"] for each in json.loads(self.run("losslog", "plugins", "--json"))}


def wheel(folder: Path, name: str) -> str:
    """The one wheel of that distribution."""
    found = sorted(folder.glob(f"{name}-*.whl"))
    if len(found) != 1:
        sys.exit(f"{folder} has {len(found)} wheels of {name}: run scripts/dist.py first")
    return str(found[0])


def require(fact: bool, what: str) -> None:
    """Stop unless it is so."""
    if not fact:
        sys.exit(f"not so: {what}")


def main() -> None:
    """Do it all in a folder that is removed afterwards."""
    dist = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT / "dist"
    with tempfile.TemporaryDirectory(prefix="losslog-dist-", ignore_cleanup_errors=True) as scratch:
        place = Place(Path(scratch))
        place.run("python", "-m", "pip", "install", "-q", wheel(dist, "losslog"), wheel(dist, "losslog_console"))
        require(place.plugins() == {"console": "ready"}, "the console alone is installed and ready")

        place.run("losslog", "new-plugin", "parcel")
        source = place.folder / "losslog-parcel"
        subprocess.run(
            [sys.executable, "-m", "build", "--no-isolation", "--wheel", str(source)], check=True, capture_output=True
        )
        place.run("python", "-m", "pip", "install", "-q", "--no-index", wheel(source / "dist", "losslog_parcel"))
        require(place.plugins() == {"console": "ready", "parcel": "ready"}, "both plugins are ready")

        said = place.run("python", "-c", RUN)
        require("Epoch 2/2" in said and "Box mAP: 0.2000" in said, f"the console printed the epochs:\n{said}")
        require(str(place.folder / "venv") in said, f"losslog comes from the environment, not from a checkout:\n{said}")
        (run,) = (place.folder / "runs" / "tiny").iterdir()
        require(
            "loss/train_total" in place.run("python", "-m", "losslog_parcel", str(run)), "the plugin has the series"
        )
        require("tiny" in place.run("losslog", "show", "latest"), "losslog show finds the run")
        place.run("losslog", "report", "latest", "-o", "page.html")
        page = (place.folder / "page.html").read_text("utf-8")
        require("uPlot" in page and "loss_mask" in page, "the report has its library and the run")

        place.run("python", "-m", "pip", "uninstall", "-q", "-y", "losslog-parcel")
        require(place.plugins() == {"console": "ready"}, "an uninstalled plugin is gone")
    print("the wheels work without the checkout")


if __name__ == "__main__":
    main()
