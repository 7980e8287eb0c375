"""Draws the pictures of docs/debugging-losses.md from recorded runs.

    python benchmarks/plateau/draw.py CURVES      # a folder with the recorded curves, by default ../shared/curves

Faint dots are steps, lines are epoch means; a mark is an alert of the watcher, drawn where it was raised.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
from losslog_plateau import TYPICAL, Watcher

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

REPOSITORY = Path(__file__).resolve().parents[2]
CURVES = REPOSITORY.parent / "shared" / "curves"
PICTURES = REPOSITORY / "docs" / "img"
COLOURS = {
    "loss_classifier": "#4477aa",
    "loss_box_reg": "#66a61e",
    "loss_mask": "#cc3311",
    "loss_objectness": "#aa3377",
    "loss_rpn_box_reg": "#888888",
}
PER_EPOCH = 25


def read(folder: Path, name: str) -> list[dict[str, float]]:
    """Rows of one recorded run as numbers."""
    with (folder / f"{name}.csv").open(newline="") as file:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]


def draw(axes: Axes, rows: list[dict[str, float]], components: list[str], title: str) -> None:
    """Draw one run with its alerts."""
    watcher = Watcher(len(rows), PER_EPOCH)
    alerts = []
    for row in rows:
        losses = {name: row[name] for name in COLOURS}
        alerts += [f for f in watcher.update(int(row["step"]), losses, row["lr"]) if f.level != "info"]
    epochs = np.arange(len(rows)) / PER_EPOCH
    for name in components:
        values = np.array([row[name] for row in rows])
        whole = len(values) // PER_EPOCH
        means = values[: whole * PER_EPOCH].reshape(whole, PER_EPOCH).mean(axis=1)
        axes.plot(epochs, values, ".", ms=1.2, alpha=0.25, color=COLOURS[name])
        axes.plot(np.arange(whole) + 0.5, means, lw=1.8, color=COLOURS[name], label=name)
        for alert in alerts:
            if alert.component == name:
                at = alert.step / PER_EPOCH
                height = means[min(whole - 1, int(at))]
                axes.plot([at], [height], marker="v", ms=11, color=COLOURS[name], mec="black", zorder=5)
                axes.annotate(
                    f"{alert.state}, epoch {at:.0f}",
                    (at, height),
                    (0, 13),
                    textcoords="offset points",
                    ha="center",
                    fontsize=9,
                )
    if components == ["loss_mask"]:
        axes.axhspan(*TYPICAL["loss_mask"], color="#ddaa33", alpha=0.25, label="typical final range")
    axes.set_yscale("log")
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("epoch")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, loc="upper right")


def main() -> None:
    """Draw all pictures."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else CURVES
    if not folder.is_dir():
        raise SystemExit(f"no recorded curves in {folder}: give their folder")
    PICTURES.mkdir(parents=True, exist_ok=True)
    healthy, frozen, late = (read(folder, name) for name in ("h1_sgd", "u_freezeat400", "h4_adam_wu"))

    figure, panels = plt.subplots(1, 2, figsize=(11, 4.2), sharey=True, layout="constrained")
    draw(panels[0], healthy, ["loss_mask"], "good: falls into its range")
    draw(panels[1], frozen, ["loss_mask"], "bad: stands from epoch 16 (frozen at step 400)")
    panels[0].set_ylabel("loss (log scale)")
    figure.savefig(PICTURES / "plateau-good-and-bad.png", dpi=110)

    figure, panels = plt.subplots(1, 2, figsize=(11, 4.2), sharey=True, layout="constrained")
    draw(panels[0], frozen, ["loss_mask", "loss_classifier", "loss_objectness"], "one stands while the others fall")
    draw(panels[1], late, ["loss_classifier", "loss_box_reg"], "healthy: up first, then a stand, then down")
    panels[0].set_ylabel("loss (log scale)")
    figure.savefig(PICTURES / "plateau-others.png", dpi=110)


if __name__ == "__main__":
    main()
