"""Runs the threaded tests again and again, because a race shows itself rarely: ``make stress``.

Every round runs them in a new random order, in a process of its own. One that fails is a bug with priority: the seed
that is printed gives the same order again. First come the rounds on a free machine, then as many with other processes
that keep all cores busy, which moves the moments at which threads take turns. The tests wait more than they compute,
so several rounds run side by side.

    python scripts/stress.py                      # 200 rounds on a free machine, 200 under load: about two hours
    python scripts/stress.py 20 -k test_lanes     # 20 and 20 rounds of one module
    python scripts/stress.py 50 --load always     # only under load
    python scripts/stress.py 1 --seed 61588       # the order of one round again
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MARK = "mark.threaded"
LOADS = {"never": (False,), "always": (True,), "both": (False, True)}


def burn() -> None:
    """Keep one core busy while whoever asked for it lives."""
    while (parent := multiprocessing.parent_process()) is not None and parent.is_alive():
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


def threaded_files() -> list[str]:
    """Test modules with threaded tests, the plugins' among them."""
    found = sorted([*(ROOT / "tests").rglob("test_*.py"), *(ROOT / "plugins").glob("*/tests/**/test_*.py")])
    return [str(each.relative_to(ROOT)) for each in found if MARK in each.read_text("utf-8")]


def one_round(seed: int, select: str, timeout: int) -> tuple[int, subprocess.CompletedProcess[str]]:
    """All threaded tests once, in the order that ``seed`` gives."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "threaded"]
    command += [*threaded_files(), f"--randomly-seed={seed}", f"--timeout={timeout}"]
    command += ["-k", select] if select else []
    return seed, subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def rounds(seeds: list[int], loaded: bool, options: argparse.Namespace) -> int:
    """Run one round per seed, some at a time; the number that failed."""
    began, failed = time.monotonic(), 0
    with Load(loaded), ThreadPoolExecutor(options.jobs) as pool:
        running = [pool.submit(one_round, seed, options.select, options.timeout) for seed in seeds]
        for number, each in enumerate(as_completed(running), start=1):
            seed, done = each.result()
            summary = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else done.stderr
            busy = " under load" if loaded else ""
            print(f"{number}/{len(seeds)}{busy} seed {seed}: {summary} ({time.monotonic() - began:.0f} s)", flush=True)
            if done.returncode:
                failed += 1
                print(done.stdout + done.stderr)
                again = f"--seed {seed}" + (f" -k {options.select!r}" if options.select else "")
                print(f"again: python scripts/stress.py 1 {again}", flush=True)
                if not options.keep_going:
                    pool.shutdown(cancel_futures=True)
                    return failed
    return failed


def main() -> int:
    """Run the rounds; the exit code is 1 if one fails."""
    parser = argparse.ArgumentParser(description="Run the threaded tests many times.")
    parser.add_argument("rounds", type=int, nargs="?", default=200, help="on a free machine, and again under load")
    parser.add_argument("-k", dest="select", default="", help="as pytest's -k")
    parser.add_argument("--load", choices=sorted(LOADS), default="both")
    parser.add_argument("--seed", type=int, help="begin with this seed and count up from it")
    parser.add_argument("--timeout", type=int, default=120, help="seconds for one test")
    parser.add_argument("--jobs", type=int, default=2 * (os.cpu_count() or 1), help="rounds side by side")
    parser.add_argument("--keep-going", action="store_true", help="run all rounds, whatever fails")
    options = parser.parse_args()
    first = random.randrange(10**6) if options.seed is None else options.seed
    seeds = list(range(first, first + options.rounds))
    failed = 0
    for loaded in LOADS[options.load]:
        failed += rounds(seeds, loaded, options)
        if failed and not options.keep_going:
            break
    print(f"{failed} rounds failed" if failed else f"no failure: {', '.join(threaded_files())}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
