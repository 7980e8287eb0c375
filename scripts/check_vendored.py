"""Check that what is vendored is what was published.

    python scripts/check_vendored.py            # the files here against the hashes in ORIGIN.json
    python scripts/check_vendored.py --fetch    # the package anew (npm pack), against its hash and against the files

Each folder with an ``ORIGIN.json`` says which package, version and files it holds. ``integrity`` is the hash that the
registry publishes for the package's archive.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def origins() -> list[Path]:
    """Every record of something vendored."""
    return sorted((ROOT / "losslog").rglob("ORIGIN.json"))


def check_files(origin: Path) -> list[str]:
    """What is wrong with the files beside a record."""
    told: dict[str, Any] = json.loads(origin.read_text("utf-8"))["files"]
    wrong = [f"{name} is not in ORIGIN.json" for name in _beside(origin) - told.keys()]
    wrong += [f"{name} is missing" for name in told.keys() - _beside(origin)]
    for name in told.keys() & _beside(origin):
        if hashlib.sha256((origin.parent / name).read_bytes()).hexdigest() != told[name]["sha256"]:
            wrong.append(f"{name} is not the file that was published")
    return wrong


def _beside(origin: Path) -> set[str]:
    return {path.name for path in origin.parent.iterdir() if path.name != origin.name}


def check_package(origin: Path) -> list[str]:
    """What is wrong with the package as it is published now."""
    body = json.loads(origin.read_text("utf-8"))
    npm = shutil.which("npm")
    if npm is None:
        return ["npm is not installed: cannot fetch"]
    wanted = f"{body['package']}@{body['version']}"
    published = _run(npm, "view", wanted, "dist.integrity").strip()
    with tempfile.TemporaryDirectory() as scratch:
        _run(npm, "pack", wanted, "--pack-destination", scratch)
        (archive,) = Path(scratch).iterdir()
        data = archive.read_bytes()
    found = "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode("ascii")
    wrong = [f"{what} of {wanted} is {each}, recorded is {body['integrity']}"
             for what, each in (("the published hash", published), ("the archive's hash", found))
             if each != body["integrity"]]  # fmt: skip
    with tarfile.open(fileobj=io.BytesIO(data)) as package:
        for name, entry in body["files"].items():
            member = package.extractfile(f"package/{entry['from']}")
            if member is None or member.read() != (origin.parent / name).read_bytes():
                wrong.append(f"{name} differs from {entry['from']} in the package")
    return wrong


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, encoding="utf-8").stdout


def main() -> int:
    """Check all; the exit code is 1 where something is wrong."""
    parser = argparse.ArgumentParser(description="Check vendored files against what was published.")
    parser.add_argument("--fetch", action="store_true", help="fetch the packages anew, too")
    fetch = parser.parse_args().fetch
    code = 0
    for origin in origins():
        wrong = check_files(origin) + (check_package(origin) if fetch else [])
        where = origin.parent.relative_to(ROOT)
        print(f"{where}: {'; '.join(wrong) or ('as published' if fetch else 'as recorded')}")
        code = code or int(bool(wrong))
    return code


if __name__ == "__main__":
    sys.exit(main())
