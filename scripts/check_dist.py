"""Look into what lies in ``dist/``, then install the wheels into an empty environment, far from the checkout.

    python scripts/check_dist.py [FOLDER]

Every wheel and archive has its licence, and what builds it is bounded above, so that an archive still builds when the
backend's next major version is out. pip fetches only what losslog and the console depend on (pluggy, rich). Steps:
install losslog and the console, make a third plugin with ``losslog new-plugin`` and install its wheel, list plugins,
log a tiny run, uninstall the third plugin and see that it is gone.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
import venv
import zipfile
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


def contents(file: Path) -> dict[str, bytes]:
    """What is in a wheel or a source archive, by path."""
    if file.suffix == ".whl":
        with zipfile.ZipFile(file) as wheel:
            return {name: wheel.read(name) for name in wheel.namelist() if not name.endswith("/")}
    with tarfile.open(file) as archive:
        return {each.name: archive.extractfile(each).read() for each in archive if each.isfile()}  # type: ignore[union-attr]


def unbounded(pyproject: str) -> list[str]:
    """What a distribution is built with, without an upper bound."""
    needed = tomllib.loads(pyproject)["build-system"]["requires"]
    return [each for each in needed if not re.search(r"<|==|~=", each)]


def faults_of(file: Path, licence: bytes) -> list[str]:
    """What a wheel or a source archive lacks."""
    found = contents(file)
    inside = [name for name in found if name.split("/")[-1] == "LICENSE" and found[name] == licence]
    place = r"\.dist-info/licenses/LICENSE$" if file.suffix == ".whl" else r"^[^/]+/LICENSE$"
    faults = [] if any(re.search(place, name) for name in inside) else ["it has no LICENSE"]
    about = next(name for name in found if re.search(r"\.dist-info/METADATA$|^[^/]+/PKG-INFO$", name))
    if b"\nLicense-File: LICENSE" not in found[about]:
        faults.append("its metadata name no licence file")
    for name in (name for name in found if re.search(r"^[^/]+/pyproject\.toml$", name) and file.suffix != ".whl"):
        faults += [f"its build needs {each!r} without an upper bound" for each in unbounded(found[name].decode())]
    return faults


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
    licence = (ROOT / "LICENSE").read_bytes()
    for file in sorted([*dist.glob("losslog*.whl"), *dist.glob("losslog*.tar.gz")]):
        faults = faults_of(file, licence)
        require(not faults, f"{file.name} is whole: {'; '.join(faults)}")
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
