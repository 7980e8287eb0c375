"""Runs the threaded tests again and again, because a race shows itself rarely: ``make stress``.

Every round runs them in a new random order, in a process of its own. One that fails is a bug with priority: the seed
that is printed gives the same order again. With ``--load`` (and, by default, in every second round) other processes
keep all cores busy meanwhile, which moves the moments at which threads take turns.

    python scripts/stress.py                      # 200 rounds, every second one under load
    python scripts/stress.py 20 -k test_lanes     # 20 rounds of one module
    python scripts/stress.py 50 --load always
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MARK = "mark.threaded"


def burn() -> None:
    """Keep one core busy."""
    while True:
        sum(range(10_000))


class Load:
    """Processes that keep all cores busy while it is open."""

    def __init__(self, active: bool) -> None:
        context = multiprocessing.get_context("spawn")
        count = (os.cpu_count() or 1) if active else 0
        self._processes = [context.Process(target=burn, daemon=True) for _ in range(count)]

    def __enter__(self) -> None:
        for each in self._processes:
            each.start()

    def __exit__(self, *_: object) -> None:
        for each in self._processes:
            each.kill()
            each.join()


def one_round(seed: int, select: str, timeout: int) -> subprocess.CompletedProcess[str]:
    """All threaded tests once, in the order that ``seed`` gives."""
    found = sorted((ROOT / "tests").rglob("test_*.py"))
    files = [str(each.relative_to(ROOT)) for each in found if MARK in each.read_text("utf-8")]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "threaded", *files]
    command += [f"--randomly-seed={seed}", f"--timeout={timeout}"]
    return subprocess.run([*command, *(["-k", select] if select else [])], cwd=ROOT, capture_output=True, text=True)


def main() -> int:
    """Run the rounds; the exit code is 1 as soon as one fails."""
    parser = argparse.ArgumentParser(description="Run the threaded tests many times.")
    parser.add_argument("rounds", type=int, nargs="?", default=200)
    parser.add_argument("-k", dest="select", default="", help="as pytest's -k")
    parser.add_argument("--load", choices=("never", "always", "alternate"), default="alternate")
    parser.add_argument("--seed", type=int, help="run one round with this seed")
    parser.add_argument("--timeout", type=int, default=120, help="seconds for one test")
    options = parser.parse_args()
    seeds = [options.seed] if options.seed is not None else [random.randrange(10**6) for _ in range(options.rounds)]
    began = time.monotonic()
    for number, seed in enumerate(seeds, start=1):
        loaded = options.load == "always" or (options.load == "alternate" and number % 2 == 0)
        with Load(loaded):
            done = one_round(seed, options.select, options.timeout)
        summary = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else done.stderr
        busy = " under load" if loaded else ""
        print(f"{number}/{len(seeds)}{busy} seed {seed}: {summary} ({time.monotonic() - began:.0f} s)", flush=True)
        if done.returncode:
            print(done.stdout + done.stderr)
            print(f"again: python scripts/stress.py --seed {seed}{f' -k {options.select!r}' if options.select else ''}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
