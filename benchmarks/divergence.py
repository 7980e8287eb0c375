"""How far ``losslog compare`` can be believed: false alarms on pairs of seeds, power on planted changes.

    python -m benchmarks.divergence            # about a minute on one core

Prints the table of docs/compare.md. Seeds are none of those that the thresholds were chosen on (0 to 199).
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from statistics import fmean, median

import torch

from benchmarks.seeds import KINDS, NAMES, STEPS, Change, train
from losslog.viewing.divergence import Gap, Point, lasting

FIRST = 1000
Curves = dict[str, list[Point]]


def curves(runs: Sequence[dict[str, list[float]]]) -> list[Curves]:
    """Runs as `lasting` takes them."""
    return [{name: list(enumerate(values)) for name, values in run.items()} for run in runs]


def false_alarms(runs: Sequence[Curves], pairs: int) -> str:
    """Pairs of runs that only a seed tells apart."""
    found = [
        sum(lasting(one[name], two[name], 0, STEPS) is not None for name in NAMES)
        for one, two in zip(runs[:pairs], runs[pairs:], strict=False)
    ]
    return f"{sum(map(bool, found))} of {pairs} pairs, {sum(found)} of {pairs * len(NAMES)} curves"


def scaled(runs: Sequence[Curves], factor: float, step: int) -> str:
    """One component times a factor from a step on, between runs of other seeds."""
    half = len(runs) // 2
    gaps = []
    for place, (one, two) in enumerate(zip(runs[:half], runs[half:], strict=False)):
        name = NAMES[place % len(NAMES)]
        changed = [(x, value * (factor if x >= step else 1.0)) for x, value in two[name]]
        gaps.append(lasting(one[name], changed, 0, STEPS))
    return told(gaps, [step] * len(gaps))


def told(gaps: Sequence[Gap | None], steps: Sequence[int]) -> str:
    """How many were found, and how far from where they began."""
    off = [abs(gap.x - step) / gap.width for gap, step in zip(gaps, steps, strict=True) if gap is not None]
    where = f", begins within {median(off):.1f} blocks (median)" if off else ""
    return f"{len(off)} of {len(gaps)}{where}"


def far(one: Sequence[Point], two: Sequence[Point]) -> bool:
    """Whether the curves end a fifth apart or more."""
    ends = [fmean(value for _, value in each[-STEPS // 10 :]) for each in (one, two)]
    return max(ends) > 1.2 * min(ends)


def main() -> None:
    """Train, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=50)
    pairs = parser.parse_args().pairs
    torch.set_num_threads(1)
    runs = curves(train(range(FIRST, FIRST + 2 * pairs)))
    print("| what differs | found |\n|---|---|")
    print(f"| nothing but the seed | {false_alarms(runs, pairs)} |")
    for factor in (1.1, 1.2, 1.35, 1.5, 2.0):
        print(
            f"| the seed, and one component times {factor:g} from the middle on | {scaled(runs, factor, STEPS // 2)} |"
        )
    dice = random.Random(1)
    changes = [Change(dice.randrange(70, 450), KINDS[place % 4], dice.randrange(5)) for place in range(2 * pairs)]
    changed = curves(train(range(FIRST, FIRST + 2 * pairs), changes))
    others = 0
    found: dict[str, list[tuple[Gap | None, int, bool]]] = {kind: [] for kind in KINDS}
    for one, two, change in zip(runs, changed, changes, strict=True):
        gaps = {name: lasting(one[name], two[name], change.step, STEPS) for name in NAMES}
        name = NAMES[change.head]
        found[change.kind].append((gaps.pop(name), change.step, far(one[name], two[name])))
        others += sum(gap is not None for gap in gaps.values())
    words = {"freeze": "a head frozen and detached", "detach": "a loss detached from the trunk",
             "rate": "a head's learning rate a twentieth", "noise": "a head's labels noisy"}  # fmt: skip
    for kind, each in found.items():
        text = told([gap for gap, _, _ in each], [at for _, at, _ in each])
        large = [gap is not None for gap, _, is_far in each if is_far]
        of_large = f"; of those that end 20 % apart or more {sum(large)} of {len(large)}"
        print(f"| the same seed, from some step on {words[kind]} | {text}{of_large} |")
    print(f"| the same, but another component named | {others} of {len(changes) * (len(NAMES) - 1)} curves |")


if __name__ == "__main__":
    main()
