"""Labelled synthetic runs: five loss components, with the truth at every step.

Each run is made from one seed. A healthy run has five healthy components; a bad run has one or two bad ones among
healthy ones. With ``coupled=True`` all components of a run share their pace, as the losses of one network do.

Truth per step: "improving", "converged", "stalled", "diverging", "oscillating", "non_finite", "warm" (an early rise or
stand) and "grey" (transitions, never counted).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

Floats = np.ndarray
NAMES = ("loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg")
TOPS = {
    "loss_objectness": 0.08,
    "loss_rpn_box_reg": 0.10,
    "loss_classifier": 0.15,
    "loss_box_reg": 0.12,
    "loss_mask": 0.20,
}
NOISE = {
    "loss_classifier": (0.2, 0.4),
    "loss_box_reg": (0.15, 0.35),
    "loss_mask": (0.25, 0.45),
    "loss_objectness": (0.5, 1.0),
    "loss_rpn_box_reg": (0.4, 0.8),
}
HEALTHY = ("power", "exponential", "double", "rise", "low", "slow")
HEALTHY_WEIGHTS = (0.25, 0.25, 0.15, 0.12, 0.13, 0.10)
BAD = ("stall", "never", "restart", "oscillation", "divergence", "non_finite")
BAD_WEIGHTS = (0.45, 0.15, 0.12, 0.08, 0.12, 0.08)
LABELS = ("grey", "warm", "improving", "converged", "stalled", "diverging", "oscillating", "non_finite")
GREY, WARM, IMPROVING, CONVERGED, STALLED, DIVERGING, OSCILLATING, NON_FINITE = range(8)
MOST_STEPS = 9000
IMPROVING_RATE = 0.02
"""Fall of the noise-free curve per twentieth of the run from which a step counts as improving."""
CONVERGED_RATE = 0.01
"""The same, up to which it counts as converged."""


@dataclass
class Curve:
    """One component: what is fed, and the truth."""

    name: str
    family: str
    losses: Floats
    labels: Floats
    onset: int | None = None
    end: int | None = None
    permanent: bool = True


@dataclass
class SyntheticRun:
    """Five components of one run; a row of their values every `stride` steps."""

    seed: int
    epochs: int
    steps_per_epoch: int
    curves: list[Curve]
    lr: Floats
    coupled: bool
    tops: dict[str, float] = field(default_factory=lambda: dict(TOPS))
    stride: int = 1

    @property
    def steps(self) -> int:
        """Optimizer steps in the run."""
        return self.epochs * self.steps_per_epoch

    @property
    def healthy(self) -> bool:
        """Whether no component is bad."""
        return all(curve.onset is None for curve in self.curves)


def make_run(seed: int, coupled: bool = False) -> SyntheticRun:
    """Make the run of one seed.

    Args:
        seed: Any integer; the same gives the same run.
        coupled: Whether the components share their pace.
    """
    rng = np.random.default_rng((seed, int(coupled)))
    steps = MOST_STEPS + 1
    while steps > MOST_STEPS:
        epochs, per_epoch = int(rng.integers(12, 61)), int(rng.integers(25, 401))
        steps = epochs * per_epoch
    pace = float(np.exp(rng.uniform(np.log(0.1), np.log(0.5))))
    lr = np.full(steps, 0.01)
    drop = int(rng.uniform(0.5, 0.75) * steps) if rng.random() < 0.2 else None
    if drop is not None:
        lr[drop:] *= 0.1
    bad: dict[int, str] = {}
    if rng.random() < 0.5:
        for place in rng.choice(5, size=1 if rng.random() < 0.7 else 2, replace=False):
            bad[int(place)] = str(rng.choice(BAD, p=BAD_WEIGHTS))
    height = float(rng.uniform(1, 3)) if rng.random() < 1 / 3 else 1.0
    curves = []
    for place, name in enumerate(NAMES):
        tau = (
            pace * float(np.exp(rng.normal(0, 0.15)))
            if coupled
            else float(np.exp(rng.uniform(np.log(0.1), np.log(0.5))))
        )
        family = bad.get(place) or str(rng.choice(HEALTHY, p=HEALTHY_WEIGHTS))
        floor = TOPS[name] * rng.uniform(0.8, 1.0)
        if family == "low":  # starts, and so ends, in its range
            floor *= 0.8
        else:
            floor *= height
        curves.append(_make_curve(rng, name, family, steps, per_epoch, tau, floor, drop, lr))
    return SyntheticRun(seed, epochs, per_epoch, curves, lr, coupled)


def _make_curve(
    rng: np.random.Generator,
    name: str,
    family: str,
    steps: int,
    per_epoch: int,
    tau: float,
    floor: float,
    drop: int | None,
    lr: Floats,
) -> Curve:
    t = np.arange(steps) / steps
    shape = family if family in HEALTHY else str(rng.choice(("power", "exponential", "double")))
    trend = _trend(rng, shape, t, tau, floor, per_epoch)
    warm = np.zeros(steps, dtype=bool)
    if shape == "rise":
        top = int(rng.uniform(0.02, 0.1) * steps) + 1
        height = rng.uniform(1.5, 3)
        rise = np.minimum(1.0, (np.arange(steps) + 1) / top)
        trend = np.concatenate([trend[:1].repeat(top), trend])[:steps] * height ** (rise - 1)
        warm[:top] = True
    if drop is not None and family in HEALTHY and family not in ("low", "slow"):
        depth = rng.uniform(0.05, 0.4)
        after = np.clip((np.arange(steps) - drop) / (0.03 * steps), 0, None)
        trend = trend * (1 - depth * (1 - np.exp(-after)))
    labels = _healthy_labels(trend, steps, family)
    labels[warm] = WARM
    onset = end = None
    permanent = True
    if family in BAD:
        trend, labels, onset, end = _spoil(rng, family, trend, labels, t, tau, floor, per_epoch, lr)
        permanent = family != "restart"
    noise = _noise(rng, name, steps, per_epoch)
    losses = trend * np.exp(noise)
    spikes = rng.random(steps) < 0.002
    losses[spikes] *= rng.uniform(2, 5, size=int(spikes.sum()))
    losses[rng.random(steps) < 0.01] = 0.0
    if family == "non_finite" and onset is not None:
        losses[onset:] = np.nan if rng.random() < 0.5 else np.inf
    return Curve(name, family, losses, labels, onset, end, permanent)


def _trend(rng: np.random.Generator, shape: str, t: Floats, tau: float, floor: float, per_epoch: int) -> Floats:
    start = floor * float(np.exp(rng.uniform(np.log(4), np.log(15))))
    if shape == "low":
        return floor * (1 + rng.uniform(0, 0.25) * np.exp(-t / tau))
    if shape == "slow":
        rate = max(rng.uniform(0.012, 0.035), IMPROVING_RATE * 20 * per_epoch / len(t))  # improving by the truth's rule
        return floor * rng.uniform(2, 6) * np.exp(-rate * np.arange(len(t)) / per_epoch)
    if shape == "power":
        power = rng.uniform(0.6, 1.6)
        return floor + (start - floor) * (1 + t / tau * 2) ** -power
    if shape == "double":
        mix = rng.uniform(0.4, 0.8)
        return floor + (start - floor) * (mix * np.exp(-t / (tau / 4)) + (1 - mix) * np.exp(-t / (tau * 1.5)))
    return floor + (start - floor) * np.exp(-t / tau)


def _healthy_labels(trend: Floats, steps: int, family: str) -> Floats:
    if family == "slow":
        return np.full(steps, IMPROVING)
    unit = max(1, steps // 20)
    log_trend = np.log(trend)
    padded = np.concatenate([log_trend, np.full(unit, log_trend[-1])])
    ahead = log_trend - padded[unit:]
    behind = np.concatenate([np.full(unit, np.inf), log_trend[:-unit] - log_trend[unit:]])
    ahead[steps - unit :] = behind[steps - unit :]
    labels = np.full(steps, GREY)
    labels[ahead >= IMPROVING_RATE] = IMPROVING
    labels[(ahead <= CONVERGED_RATE) & (behind <= 2 * IMPROVING_RATE)] = CONVERGED
    return labels


def _spoil(
    rng: np.random.Generator,
    family: str,
    trend: Floats,
    labels: Floats,
    t: Floats,
    tau: float,
    floor: float,
    per_epoch: int,
    lr: Floats,
) -> tuple[Floats, Floats, int, int]:
    steps = len(trend)
    index = np.arange(steps)
    labels = labels.copy()
    end = steps
    if family in ("stall", "restart"):
        way = (trend - floor) / (trend[0] - floor)
        onset = int(rng.uniform(0.12, 0.6) * steps)
        if way[onset] < 0.35:  # too fast a curve: slow it down so that more of the way is left
            slower = np.log(rng.uniform(0.35, 0.6)) / np.log(way[onset])
            trend = floor + (trend[0] - floor) * np.maximum(way, 1e-9) ** slower
        trend = trend.copy()
        tail = trend[onset:].copy()
        trend[onset:] = trend[onset]
        labels[onset:] = STALLED
        if family == "restart":
            end = min(steps - 1, onset + int(rng.uniform(0.25, 0.4) * steps))
            trend[end:] = tail[: steps - end]
            labels[end:] = _healthy_labels(trend, steps, "restart")[end:]
            labels[end : end + steps // 20] = GREY
            lr[end:] *= 3
        return trend, labels, onset, end
    if family == "never":  # the users' guide's bad pattern: 10 % in the whole run, nearly all of it early
        start = floor * rng.uniform(2.2, 6)
        trend = start * (0.9 + 0.1 * np.exp(-t / rng.uniform(0.06, 0.15)))
        labels = _healthy_labels(trend, steps, family)
        onset = int(np.flatnonzero(labels == CONVERGED)[0])  # flat by the rule that holds for all, and far too high
        labels[onset:] = STALLED
        return trend, labels, onset, end
    onset = int(rng.uniform(0.2, 0.6) * steps)
    trend = trend.copy()
    if family == "oscillation":
        period = rng.uniform(2.5, 6) * per_epoch
        trend[onset:] *= np.exp(rng.uniform(0.3, 0.6) * np.sin(2 * np.pi * (index[onset:] - onset) / period))
        labels[onset:] = OSCILLATING
    elif family == "divergence":
        rate = rng.uniform(0.05, 0.4)
        trend[onset:] = trend[onset] * np.exp(np.minimum(rate * (index[onset:] - onset) / per_epoch, 6.0))
        labels[onset:] = DIVERGING
    else:
        labels[onset:] = NON_FINITE
    return trend, labels, onset, end


def _noise(rng: np.random.Generator, name: str, steps: int, per_epoch: int) -> Floats:
    deviation = rng.uniform(*NOISE[name])
    images = rng.uniform(0.3, 0.75)  # part of the variance that belongs to the images
    difficulty = rng.normal(size=per_epoch)
    difficulty -= difficulty.mean()
    per_step = np.concatenate([rng.permutation(difficulty) for _ in range(steps // per_epoch)])
    iid = rng.standard_t(4, size=steps) / 2**0.5 if rng.random() < 0.5 else rng.normal(size=steps)
    noise = deviation * (images**0.5 * per_step + (1 - images) ** 0.5 * iid)
    noise += rng.uniform(0.01, 0.04) * _drift(rng, steps, 2 * per_epoch)
    return noise - np.log(np.mean(np.exp(np.minimum(noise, 3.0))))  # the trend is the mean of the loss, not its median


def _drift(rng: np.random.Generator, steps: int, memory: int) -> Floats:
    """First-order autoregression of unit variance, drawn on a coarse grid and joined by lines."""
    grid = max(1, memory // 10)
    points = steps // grid + 2
    keep = float(np.exp(-grid / memory))
    shocks = rng.normal(size=points) * (1 - keep * keep) ** 0.5
    values = np.empty(points)
    value = rng.normal()
    for i in range(points):
        value = keep * value + shocks[i]
        values[i] = value
    return np.interp(np.arange(steps), np.arange(points) * grid, values)
