"""Runs measures in fresh processes, in shuffled order, several times, and gathers the figures.

Contract:

- A request is a plain dict (``measure``, ``subject``, its arguments); equal requests are repeats of one variant.
- All repeats of all variants are shuffled together, so that a slow minute of the machine hits no variant alone.
- A child that fails or runs out of time is reported and left out; it never ends the whole run.
"""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
Request = dict[str, Any]
Results = dict[str, list[dict[str, Any]]]


def key_of(request: Request) -> str:
    """What tells variants apart."""
    return json.dumps({name: value for name, value in request.items() if name != "store"}, sort_keys=True)


def ask(request: Request, timeout: float) -> dict[str, Any]:
    """The answer of one child; ``{"failed": why}`` where there is none."""
    command = [sys.executable, "-m", "benchmarks.child", json.dumps(request)]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return {"failed": f"no answer within {timeout:.0f} s"}
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        words = done.stderr.strip().splitlines()
        return {"failed": words[-1] if words else f"exit code {done.returncode}"}
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def run(requests: Sequence[Request], repeats: int, *, seed: int = 0, timeout: float = 300.0) -> Results:
    """Answers by variant (`key_of`), as many as there were repeats that gave one."""
    queue = [request for request in requests for _ in range(request.get("repeats", repeats))]
    random.Random(seed).shuffle(queue)
    results: Results = {}
    began = time.monotonic()
    for number, request in enumerate(queue, 1):
        sent = {name: value for name, value in request.items() if name != "repeats"}
        answer = ask(sent, timeout)
        why = answer.get("failed") or answer.get("absent")
        about = f"{request['measure']} {request['subject']}"
        note = f": {why}" if why else ""
        print(f"[{number}/{len(queue)} {time.monotonic() - began:.0f} s] {about}{note}", file=sys.stderr, flush=True)
        results.setdefault(key_of(sent), []).extend([] if why else [answer])
    return results


def figures(answers: Sequence[dict[str, Any]], *path: str) -> list[float]:
    """One figure of every repeat, by its path of keys."""
    found = []
    for answer in answers:
        value: Any = answer
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        if isinstance(value, list):
            found += value
        elif value is not None:
            found.append(value)
    return found


def middle(values: Sequence[float]) -> float:
    """The median; NaN of nothing."""
    return statistics.median(values) if values else float("nan")


def least(values: Sequence[float]) -> float:
    """The minimum; NaN of nothing."""
    return min(values) if values else float("nan")
