"""Measures the watcher beside what else people use, on labelled runs, and writes the tables into docs/plateau.md.

    python benchmarks/plateau/bench.py --write          # final seeds, 600 runs, some minutes
    python benchmarks/plateau/bench.py --long --write   # runs of large data sets: long epochs, cuts, floors
    python benchmarks/plateau/bench.py --runs 50        # a look
    python benchmarks/plateau/bench.py --first 600000   # other seeds, printed only

All rows see the same runs. Which seeds tuned what: 0-299 and 10000-10299 tuned every setting; 20000-20299 and
30000-30599 gave the figures of an earlier version; 40000-40299 gave a first table of this one, after which z went from
1.64 to 1.8 and nothing else; 50000-50299 and 310000-310299 gave figures of the version before others were counted that
improved while a loss stood; the tables come from 410000 on, which were run once and tuned nothing. On 500000-500899
other rules were tried, of which none was taken. Of the long runs (`schedules`), 0-99 were looked at while the rules
were made; their table comes from 410000 on.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median

from anchors import early_stopping, mann_kendall, on_epochs, reduce_lr_on_plateau, theil_sen
from generator import SyntheticRun, make_run
from losslog_plateau import Watcher
from schedules import make_long_run
from score import Alarms, Detector, Score

DOCS = Path(__file__).resolve().parents[2] / "docs" / "plateau.md"
FIRST_FINAL_SEED = 410_000
ORIGIN = "<!-- {} (written by benchmarks/plateau/bench.py) -->"


def watched(
    plan: bool = True, epoch: bool = True, states: Sequence[str] = ("stalled",), **settings: object
) -> Detector:
    """The watcher as a detector of runs, fed with the losses of steps, or of rows where these are fewer."""

    def detect(run: SyntheticRun) -> Alarms:
        watcher = Watcher(run.steps if plan else None, run.steps_per_epoch if epoch else None, **settings)  # type: ignore[arg-type]
        columns, rates = [curve.losses.tolist() for curve in run.curves], run.lr.tolist()
        names = [curve.name for curve in run.curves]
        alarms: Alarms = {}
        for at, row in enumerate(zip(*columns, strict=True)):
            step = (at + 1) * run.stride - 1
            for finding in watcher.update(step, dict(zip(names, row, strict=True)), rates[at]):
                if finding.state in states:
                    alarms.setdefault(finding.component, []).append(at)
        return alarms

    return detect


def detectors() -> dict[str, Detector]:
    """Every row of the table."""
    return {
        "ReduceLROnPlateau default (10, 1e-4), bare": on_epochs(reduce_lr_on_plateau(10, 1e-4), False),
        "the same, gated": on_epochs(reduce_lr_on_plateau(10, 1e-4), True),
        "ReduceLROnPlateau (8, 0.05), gated": on_epochs(reduce_lr_on_plateau(8, 0.05), True),
        "ReduceLROnPlateau best tuned (6, 0.02), gated": on_epochs(reduce_lr_on_plateau(6, 0.02), True),
        "EarlyStopping (3, 0), gated": on_epochs(early_stopping(3, 0.0), True),
        "Mann-Kendall, 10 epochs, p > 0.05, gated": on_epochs(mann_kendall(10, 0.05), True),
        "Theil-Sen, 10 epochs, < 0.75 %/epoch, gated": on_epochs(theil_sen(10, 0.0075), True),
        "**Watcher (z 1.8, normal)**": watched(),
        "Watcher, z 1.64": watched(z=1.64),
        "Watcher, z 1.28 (high)": watched(z=1.28),
        "Watcher, z 2": watched(z=2.0),
        "Watcher, z 2.5 (low)": watched(z=2.5),
        "Watcher, r 0.01": watched(r=0.01),
        "Watcher, window 2": watched(window=2.0),
        "Watcher, window 4": watched(window=4.0),
        "Watcher, quiet": watched(quiet=True),
        "Watcher, no ranges (information)": watched(typical={}, states=("stalled", "flat")),
        "Watcher, no plan": watched(plan=False),
        "Watcher, no plan, no epoch": watched(plan=False, epoch=False),
    }


HEAD = (
    "| detector | recall ind./coupled | of permanent stalls | FA/100 runs | on improving | FA on slow "
    "| median delay, epochs | us per component and step |",
    "|---|---|---|---|---|---|---|---|",
)
Maker = Callable[[int, bool], SyntheticRun]


def long_detectors() -> dict[str, Detector]:
    """Every row of the table of long runs."""
    return {
        "ReduceLROnPlateau best tuned (6, 0.02), gated": on_epochs(reduce_lr_on_plateau(6, 0.02), True),
        "EarlyStopping (3, 0), gated": on_epochs(early_stopping(3, 0.0), True),
        "**Watcher, plan and epoch**": watched(),
        "Watcher, epoch only": watched(plan=False),
        "Watcher, plan only": watched(epoch=False),
        "Watcher, neither": watched(plan=False, epoch=False),
    }


def table(seeds: Sequence[int], rows: Mapping[str, Detector], make: Maker) -> list[str]:
    """One Markdown line per detector; each seed gives two runs."""
    lines = list(HEAD)
    for name, detect in rows.items():
        scores, seconds, values = [], 0.0, 0
        for coupled in (False, True):
            result = Score()
            for seed in seeds:
                run = make(seed, coupled)
                began = time.process_time()
                alarms = detect(run)
                seconds += time.process_time() - began
                values += len(run.curves) * len(run.lr)
                result.add(run, alarms)
            scores.append(result)
        line = f"| {name} | {pair(scores, lambda s: s.recall, 2)} | {pair(scores, lambda s: s.recall_permanent, 2)} "
        line += (
            f"| {pair(scores, lambda s: s.false_alarms, 0)} | {pair(scores, lambda s: s.false_alarms_improving, 1)} "
        )
        line += f"| {pair(scores, lambda s: s.slow_rate, 2)} | {pair(scores, lambda s: s.delay, 1)} "
        lines.append(f"{line}| {1e6 * seconds / values:.2f} |")
        print(lines[-1], flush=True)
    return lines


def pair(scores: list[Score], figure: Callable[[Score], float], digits: int) -> str:
    """One figure for independent and coupled runs."""
    return " / ".join(f"{figure(score):.{digits}f}" for score in scores)


def other_states(seeds: Sequence[int]) -> list[str]:
    """Divergence, NaN and oscillation: recall, delay, false alarms."""
    lines = ["| state | recall | median delay, epochs | FA/100 healthy runs |", "|---|---|---|---|"]
    for state, family in (("diverging", "divergence"), ("non_finite", "non_finite"), ("oscillating", "oscillation")):
        detect = watched(states=(state,), oscillating=True)
        bad = found = healthy = wrong = 0
        delays = []
        for coupled in (False, True):
            for seed in seeds:
                run = make_run(seed, coupled)
                alarms = detect(run)
                if run.healthy:
                    healthy += 1
                    wrong += bool(alarms)
                for curve in run.curves:
                    if curve.family == family and curve.onset is not None:
                        after = [step for step in alarms.get(curve.name, []) if step >= curve.onset]
                        bad += 1
                        found += bool(after)
                        delays += [(after[0] - curve.onset) / run.steps_per_epoch] if after else []
        lines.append(
            f"| {state} | {found / max(1, bad):.2f} of {bad} | {median(delays):.1f} | {100 * wrong / healthy:.1f} |"
        )
        print(lines[-1], flush=True)
    return lines


def write(name: str, lines: list[str]) -> None:
    """Put lines between the markers of one table in the docs."""
    begin, end = ORIGIN.format(name), f"<!-- end of {name} -->"
    text = DOCS.read_text(encoding="utf-8")
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    if not rest or not after:
        raise SystemExit(f"{DOCS.name} has no markers for {name!r}")
    DOCS.write_text(f"{before}{begin}\n" + "\n".join(lines) + f"\n{end}{after}", encoding="utf-8")


def main() -> None:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=600, help="runs, half of them coupled")
    parser.add_argument("--first", type=int, default=FIRST_FINAL_SEED, help="first seed")
    parser.add_argument("--long", action="store_true", help="runs of large data sets instead")
    parser.add_argument("--only", default="", metavar="TEXT", help="only rows whose name has this in it")
    parser.add_argument("--write", action="store_true", help="write the tables into docs/plateau.md")
    arguments = parser.parse_args()
    seeds = range(arguments.first, arguments.first + arguments.runs // 2)
    every = long_detectors() if arguments.long else detectors()
    rows = {name: row for name, row in every.items() if arguments.only in name}
    if arguments.long:
        tables = {"long": table(seeds, rows, make_long_run)}
    else:
        tables = {"stalls": table(seeds, rows, make_run)}
        if not arguments.only:
            tables["states"] = other_states(seeds)
    if arguments.write:
        for name, lines in tables.items():
            write(name, lines)


if __name__ == "__main__":
    main()
