"""Labelled runs as large data sets give them: epochs of thousands of steps, a step schedule, levels above the range.

Each run has 8 to 36 epochs of 5,000 to 15,000 steps, logged as means of 50 steps, and a learning rate that warms up,
stays, and is cut by ten once or twice at planned epochs (a third of the runs decay by a cosine instead). Healthy losses
fall by a power of the time, ever more slowly, and drop when the rate is cut; most end above the ranges of small data
sets. One loss in each run has soft targets and a floor of its own. A bad run has a loss that stops (and does not answer
to cuts either) or never moves.

The truth is that of `generator`: per row, from the noise-free curve.
"""

from __future__ import annotations

import numpy as np
from generator import CONVERGED, GREY, IMPROVING, NAMES, STALLED, TOPS, WARM, Curve, Floats, SyntheticRun

FLOORED = "loss_centerness"
ROW = 50
NOISE = {
    "loss_classifier": 0.035,
    "loss_box_reg": 0.035,
    "loss_mask": 0.02,
    "loss_objectness": 0.07,
    "loss_rpn_box_reg": 0.05,
    FLOORED: 0.003,
}
"""Deviation of ln of a mean of 50 steps, as recorded runs on COCO have it."""
RISES = ("loss_box_reg", "loss_classifier")


def make_long_run(seed: int, coupled: bool = True) -> SyntheticRun:
    """Make the run of one seed.

    Args:
        seed: Any integer; the same gives the same run.
        coupled: Whether the components share their pace, as those of one network do.
    """
    rng = np.random.default_rng((seed, 77, int(coupled)))
    epochs = int(rng.integers(8, 37))
    rows_per_epoch = int(rng.integers(100, 301))
    rows = epochs * rows_per_epoch
    at = (np.arange(rows) + 1) / rows_per_epoch  # epochs
    lr, cuts = _schedule(rng, at, epochs)
    shared = float(rng.uniform(0.06, 0.25))
    height = float(np.exp(rng.uniform(0, np.log(2.5))))
    bad = {str(rng.choice(NAMES)): str(rng.choice(("stall", "never"), p=(0.75, 0.25)))} if rng.random() < 0.5 else {}
    curves = []
    for name in (*NAMES, FLOORED):
        power = shared * float(np.exp(rng.normal(0, 0.3))) if coupled else float(rng.uniform(0.06, 0.25))
        curves.append(_curve(rng, name, bad.get(name), at, epochs, cuts, power, height, lr))
    return SyntheticRun(seed, epochs, rows_per_epoch * ROW, curves, lr, coupled, stride=ROW)


def _schedule(rng: np.random.Generator, at: Floats, epochs: int) -> tuple[Floats, list[float]]:
    lr = np.full(len(at), 0.02)
    cuts: list[float] = []
    if rng.random() < 1 / 3:
        lr *= 0.5 * (1 + np.cos(np.pi * at / epochs)) + 1e-4
    else:
        cuts = [round(part * epochs) for part in ((0.67, 0.92) if rng.random() < 0.7 else (0.75,))]
        for cut in cuts:
            lr[at > cut] *= 0.1
    warm = rng.uniform(0.03, 0.4)
    lr *= np.minimum(1.0, 0.05 + at / warm)
    return lr, cuts


def _curve(
    rng: np.random.Generator,
    name: str,
    family: str | None,
    at: Floats,
    epochs: int,
    cuts: list[float],
    power: float,
    height: float,
    lr: Floats,
) -> Curve:
    trend = (at + 0.02) ** -power
    warm = np.zeros(len(at), dtype=bool)
    if name in RISES and rng.random() < 0.6:
        top = rng.uniform(0.02, 0.4)
        trend *= np.exp(-rng.uniform(0.5, 2.5) * np.clip(1 - at / top, 0, None))
        warm = at < top
    if name == FLOORED:
        trend = 0.6 * (1 + 0.02 * trend)
    elif not cuts:  # what a cut gives at once, a cosine gives bit by bit
        trend *= np.exp(-rng.uniform(0.1, 0.35) * (at / epochs) ** 2)
    for cut in cuts:
        depth = rng.uniform(0.08, 0.25) if name != FLOORED else 0.006
        trend *= np.exp(-depth * (1 - np.exp(-np.clip(at - cut, 0, None) / 0.08)))
    if name != FLOORED:
        trend *= height * TOPS[name] * rng.uniform(0.8, 1.2) / trend[-1]
    labels = _labels(trend, epochs)
    labels[warm] = WARM
    onset = None
    if family == "stall":
        onset = int(rng.uniform(0.12, 0.6) * len(at))
        trend[onset:] = max(trend[onset], 2.1 * TOPS[name])
        trend[:onset] *= trend[-1] / trend[onset - 1]
    elif family == "never":
        trend = TOPS[name] * rng.uniform(2.2, 6) * (0.92 + 0.08 * (at + 0.02) ** -0.3 / 0.02**-0.3)
        onset = int(0.1 * len(at))
    if onset is not None:
        labels[onset:] = STALLED
    noise = rng.normal(0, NOISE[name] * rng.uniform(0.7, 1.5), len(at))
    slow = np.interp(at, np.arange(0, epochs + 2, 0.5), rng.normal(0, 0.004, 2 * epochs + 4))
    return Curve(name, family or "schedule", trend * np.exp(noise + slow * (name != FLOORED)), labels, onset, len(at))


def _labels(trend: Floats, epochs: int) -> Floats:
    unit = max(len(trend) // 20, len(trend) // epochs)
    fall = np.log(trend[:-unit] / trend[unit:])
    fall = np.concatenate([fall, np.full(unit, fall[-1])])
    labels = np.full(len(trend), GREY)
    labels[fall >= 0.02] = IMPROVING
    labels[fall <= 0.01] = CONVERGED
    return labels
