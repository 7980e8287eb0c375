"""Recall, false alarms and delay of a detector on labelled runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from statistics import median

from generator import CONVERGED, IMPROVING, WARM, Curve, SyntheticRun

Alarms = dict[str, list[int]]
"""Rows (steps, unless the run is logged more rarely) at which each component's alarm was raised."""
Detector = Callable[[SyntheticRun], Alarms]
STALLS = ("stall", "never", "restart")


@dataclass
class Score:
    """Counts over many runs."""

    stalls: int = 0
    found: int = 0
    permanent: int = 0
    permanent_found: int = 0
    delays: list[float] = field(default_factory=list)
    healthy: int = 0
    healthy_alarmed: int = 0
    healthy_alarmed_improving: int = 0
    slow: int = 0
    slow_alarmed: int = 0

    @property
    def recall(self) -> float:
        """Part of all stalls that were found between onset and end."""
        return self.found / max(1, self.stalls)

    @property
    def recall_permanent(self) -> float:
        """The same for stalls that last to the end of the run."""
        return self.permanent_found / max(1, self.permanent)

    @property
    def false_alarms(self) -> float:
        """Healthy runs of 100 with an alarm on an improving, converged or warm step."""
        return 100 * self.healthy_alarmed / max(1, self.healthy)

    @property
    def false_alarms_improving(self) -> float:
        """Healthy runs of 100 with an alarm on an improving or warm step."""
        return 100 * self.healthy_alarmed_improving / max(1, self.healthy)

    @property
    def slow_rate(self) -> float:
        """Part of the slow but real improvements that were alarmed."""
        return self.slow_alarmed / max(1, self.slow)

    @property
    def delay(self) -> float:
        """Median delay in epochs from the onset to the alarm."""
        return median(self.delays) if self.delays else float("nan")

    def add(self, run: SyntheticRun, alarms: Alarms) -> None:
        """Count one run."""
        wrong = wrong_improving = False
        for curve in run.curves:
            raised = alarms.get(curve.name, [])
            if curve.family in STALLS:
                self._add_stall(run, curve, raised)
            labels = [int(curve.labels[step]) for step in raised]
            wrong = wrong or any(label in (IMPROVING, CONVERGED, WARM) for label in labels)
            wrong_improving = wrong_improving or any(label in (IMPROVING, WARM) for label in labels)
            if curve.family == "slow":
                self.slow += 1
                self.slow_alarmed += bool(raised)
        if run.healthy:
            self.healthy += 1
            self.healthy_alarmed += wrong
            self.healthy_alarmed_improving += wrong_improving

    def _add_stall(self, run: SyntheticRun, curve: Curve, raised: list[int]) -> None:
        assert curve.onset is not None
        assert curve.end is not None
        within = [step for step in raised if curve.onset <= step < curve.end]
        self.stalls += 1
        self.found += bool(within)
        if curve.permanent:
            self.permanent += 1
            self.permanent_found += bool(within)
        if within:
            self.delays.append((within[0] - curve.onset) * run.stride / run.steps_per_epoch)


def score(detector: Detector, runs: Iterable[SyntheticRun]) -> Score:
    """Run a detector over many runs."""
    result = Score()
    for run in runs:
        result.add(run, detector(run))
    return result
