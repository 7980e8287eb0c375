"""Build wheels and source archives of all distributions into ``dist/``, and check their metadata.

    python scripts/dist.py [FOLDER]

Needs build, hatchling and twine in this environment; the network is not used.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def distributions() -> list[Path]:
    """Every folder with a distribution in it."""
    return [ROOT, *sorted(path.parent for path in ROOT.glob("plugins/losslog-*/pyproject.toml"))]


def build(source: Path, target: Path) -> None:
    """Build the wheel and the source archive of one distribution."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(target), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{source.name} does not build:\n{done.stdout}{done.stderr}")


def main() -> None:
    """Build all, then check all."""
    target = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT / "dist"
    target.mkdir(parents=True, exist_ok=True)
    for old in (*target.glob("losslog*.whl"), *target.glob("losslog*.tar.gz")):
        old.unlink()
    for source in distributions():
        build(source, target)
    files = sorted([*target.glob("losslog*.whl"), *target.glob("losslog*.tar.gz")])
    if len(files) != 2 * len(distributions()):
        sys.exit(f"expected a wheel and an archive of {len(distributions())} distributions, found {len(files)} files")
    done = subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *map(str, files)])
    if done.returncode:
        sys.exit(done.returncode)
    for file in files:
        print(f"{file.stat().st_size / 1024:8.0f} KiB  {file.name}")


if __name__ == "__main__":
    main()
