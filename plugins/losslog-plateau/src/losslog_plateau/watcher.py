"""Watches every loss component of one run, online and in constant memory.

Usable by itself, for live runs, replays and benchmarks; needs nothing but the standard library. Runs in the thread that
calls it and is not locked.

- `Watcher.update` takes the raw losses of one optimizer step (or the means of one epoch) and returns what is news.
- A finding is given once per episode: when a state begins, not while it lasts.
- The same sequence of calls gives the same findings, also across `state_dict` / `load_state_dict`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from operator import add
from typing import Any, Final, SupportsFloat

from .clock import Clock
from .component import CELL, NON_FINITE, Component
from .finding import Finding, Verdict
from .judge import Judge
from .learning_rate import Cut
from .reading import number, positive
from .scene import MOST, Scene
from .settings import Settings, typical_ranges
from .stride import UPDATES, Stride
from .totals import Totals, non_finite

SCALAR: Final = "loss"
STATE_VERSION: Final = 5

Losses = Mapping[str, SupportsFloat] | SupportsFloat


class Watcher:
    """Tells which components have stalled, diverged or gone.

    Args:
        planned_steps: Optimizer steps of the whole run (epochs, with one value per epoch); None if unknown.
        steps_per_epoch: Optimizer steps in an epoch; 1 for one value per epoch; None if unknown.
        typical: ``{component: (low, high)}`` of usual final values; a component without is never called stalled, unless
            it is proven to train nothing. None is the built-in table of two-stage detectors' losses; ``{}`` knows none.
        z: Normal quantile of the bounds: 1.28 finds more and earlier, 2.5 gives fewer false alarms.
        r: Improvement per unit below which a curve is flat.
        window: Shortest line, in units.
        confirm: Checks in a row that must agree.
        quiet: Warn of a stall only while two other components improve, rather than one.
        oscillating: Look for oscillation too.
        planned_cuts: Steps at which the schedule cuts the learning rate: a shelf before one is information.

    Raises:
        ValueError: If a value is out of its range; the message names the option and what to give.
    """

    def __init__(
        self,
        planned_steps: float | None = None,
        steps_per_epoch: float | None = None,
        typical: Mapping[str, object] | None = None,
        z: float = 1.8,
        *,
        r: float = 0.015,
        window: float = 2.5,
        confirm: int = 2,
        quiet: bool = False,
        oscillating: bool = False,
        planned_cuts: Sequence[int] = (),
    ) -> None:
        self.settings = Settings(z, r, window, confirm, quiet, oscillating)
        self.scene = Scene(
            Clock(positive("planned_steps", planned_steps), positive("steps_per_epoch", steps_per_epoch)),
            planned_cuts=tuple(planned_cuts),
        )
        self._judge = Judge(self.settings, None if typical is None else typical_ranges(typical))
        self._lr: object = None
        self._rising = False
        self._totals = Totals()
        self._stride = Stride()

    def update(
        self,
        step: int,
        losses: Losses,
        lr: float | Mapping[str, float] | None = None,
        total: SupportsFloat | None = None,
    ) -> list[Finding]:
        """Take the losses of one step, or of one epoch.

        Args:
            step: Optimizer step (or epoch); increasing.
            losses: Raw values by component, or one value.
            lr: Learning rate, or one by parameter group.
            total: The total that was trained on; None skips the sum audit.

        Returns:
            New findings; mostly none.
        """
        scene = self.scene
        scene.updates += 1
        if scene.updates <= UPDATES:
            self._learn_stride(step)
        before, scene.step = scene.step, step
        news: list[Finding] = []
        if lr is not None and (lr != self._lr or self._rising):
            self._take_lr(step, lr)
        if not isinstance(losses, Mapping):
            losses = {SCALAR: losses}
        parts = 0.0
        now = step + 1
        due: list[Component] = []
        for name, given in losses.items():
            value = given if type(given) is float else number(given)
            component = scene.components.get(name)
            parts += value
            if component is None:
                if scene.is_full(name):
                    continue
                component = self._add_component(name, list(islice(losses, MOST)), news, before)
            event = component.add(value, now)
            if event:
                if event & NON_FINITE:
                    news.append(non_finite(scene, name, value))
                if event & CELL:
                    due.append(component)
        if total is not None:
            self._totals.take(scene, number(total), parts, news)
        if due:
            for component in due:
                component.close_cell()
            self._judge.judge(scene, due, news)
        return news

    def quiet_until(self, losses: Mapping[str, object], lr: object) -> int | None:
        """Up to which step `update_many` takes steps with these components and that learning rate; None: none."""
        components = self.scene.components
        if self.scene.updates < UPDATES or not losses.keys() <= components.keys():
            return None
        if lr is not None and (lr != self._lr or self._rising):
            return None
        return min([components[name].due for name in losses], default=1) - 1

    def update_many(
        self, steps: Sequence[int], columns: Mapping[str, Sequence[float]], totals: Sequence[float | None]
    ) -> None:
        """Take several steps at once, where nobody asks for the findings; it then stands as after `update` of each.

        Args:
            steps: Each below what `quiet_until` says, but for the last.
            columns: Raw values by component.
            totals: The totals that were trained on; None skips the sum audit.
        """
        scene = self.scene
        scene.updates += len(steps)
        parts = [0.0] * len(steps)
        due: list[Component] = []
        for name, values in columns.items():
            parts = list(map(add, parts, values))
            component = scene.components[name]
            if component.add_many(values, steps):
                due.append(component)
        self._totals.take_many(scene, steps, totals, parts)
        scene.step = steps[-1]
        for component in due:
            component.close_cell()
        if due:
            self._judge.judge(scene, due, [])

    def finish(self, over: bool = True) -> None:
        """The run has ended (or goes on after all): verdicts no longer wait for more steps."""
        self.scene.over = over

    def set_planned_cuts(self, steps: Sequence[int]) -> None:
        """Take the steps at which the learning rate is going to be cut."""
        self.scene.planned_cuts = tuple(steps)

    def hold(self, held: bool) -> None:
        """Say nothing of flatness, divergence and shares while the length of an epoch is still to be learnt."""
        self.scene.held = held

    def set_lengths(self, planned_steps: float | None, steps_per_epoch: float | None) -> None:
        """Go on with another plan or another epoch, learnt in mid-run: lines start anew, peaks and levels stay.

        Raises:
            ValueError: If a length is not positive.
        """
        planned = positive("planned_steps", planned_steps)
        epoch = positive("steps_per_epoch", steps_per_epoch)
        if (planned, epoch) != (self.scene.clock.plan, self.scene.clock.epoch):
            self._relayout(Clock(planned, epoch, self.scene.clock.stride))

    def rewind(self, step: int) -> None:
        """The run continues from an earlier step and what came after it no longer counts: lines start anew.

        Exact only where the watcher is rebuilt from the values up to that step; peaks and levels stay.

        Args:
            step: The last step that counts.
        """
        if step < self.scene.step:
            self.scene.step = step
            for each in self.scene.components.values():
                each.forget_line()

    def verdicts(self) -> list[Verdict]:
        """The present state of every component, in the order in which they came."""
        return [self._judge.verdict(self.scene, component) for component in self.scene.components.values()]

    @property
    def clock(self) -> Clock:
        """Lengths in updates."""
        return self.scene.clock

    @property
    def components(self) -> dict[str, Component]:
        """The components by name."""
        return self.scene.components

    @property
    def updates(self) -> int:
        """Updates so far."""
        return self.scene.updates

    @property
    def step(self) -> int:
        """Step of the newest update."""
        return self.scene.step

    @property
    def axis(self) -> str:
        """What ``step`` counts: "epoch" with one value per epoch, else "step"."""
        return self.scene.axis

    @property
    def lr_cut(self) -> Cut | None:
        """The newest cut of the learning rate that still holds, or None."""
        return self.scene.rates.cut()

    def state_dict(self) -> dict[str, Any]:
        """All that was learnt so far, without the settings, as plain data that survives JSON."""
        return {
            "version": STATE_VERSION,
            "gaps": self._stride.state(),
            "lr": dict(self._lr) if isinstance(self._lr, Mapping) else self._lr,
            "rising": self._rising,
            "totals": self._totals.state_dict(),
            **self.scene.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave; goes on exactly as the saved watcher would have.

        Raises:
            ValueError: If the state was written by another version.
        """
        if state.get("version") != STATE_VERSION:
            raise ValueError(
                f"watcher state of version {state.get('version')!r}: this is version {STATE_VERSION}; start anew"
            )
        self.scene.load_state_dict(state)
        self._stride.load(state["gaps"])
        self._lr, self._rising = state["lr"], state["rising"]
        self._totals.load_state_dict(state["totals"])
        self.scene.components = {}
        names = list(state["components"])
        for name, data in state["components"].items():
            self.scene.components[name] = self._make_component(name, names)
            self.scene.components[name].load_state_dict(data)

    def _learn_stride(self, step: int) -> None:
        stride = self._stride.learn(self.scene.updates, step - self.scene.step)
        if stride is not None and stride != self.scene.clock.stride:
            self._relayout(Clock(self.scene.clock.plan, self.scene.clock.epoch, stride))

    def _relayout(self, clock: Clock) -> None:
        self.scene.clock = clock
        for component in self.scene.components.values():
            component.relayout(clock)

    def _take_lr(self, step: int, lr: float | Mapping[str, float]) -> None:
        self._lr = dict(lr) if isinstance(lr, Mapping) else lr
        jump = self.scene.rates.take(step, lr)
        settled, self._rising = self._rising and not self.scene.rates.rising, self.scene.rates.rising
        for component in self.scene.components.values() if jump or settled else ():
            if settled:
                component.settle()
            elif jump == "rise":
                component.forget_line()
            else:
                component.empty_cell()

    def _make_component(self, name: str, names: Sequence[str]) -> Component:
        return Component(name, self.scene.clock, self.settings, self.scene.step, self._judge.range_of(name, names))

    def _add_component(self, name: str, names: Sequence[str], news: list[Finding], before: int) -> Component:
        component = self.scene.components[name] = self._make_component(name, names)
        self._judge.came(self.scene, component, names, before, news)
        return component
