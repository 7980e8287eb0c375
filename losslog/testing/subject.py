"""The plugin under test: what its author says about it, and how checks get at what it made of a story.

Test thread. Contract:

- What is played once is read by many checks: performances are kept for the class.
- A plugin that cannot serve here (`losslog.NotReady`) skips its checks, it does not fail them.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import itertools
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple, TypeVar

import pytest

from losslog.delivery.installed import GROUP
from losslog.errors import NotReady
from losslog.runtime.containment import attempt
from losslog.testing.refusing import full_disk
from losslog.testing.stage import Stage, StageLane
from losslog.testing.story import Points, Series, Story, full_story

T = TypeVar("T")

COSTS: Final[dict[str, str]] = {}  # what was measured, by plugin; shown at the end


class Performance(NamedTuple):
    """What came of playing one story.

    Attributes:
        story: what was played.
        series: what the backend has of it; None for a plugin without `Subject.read_back`.
        failures: (hook, seq, traceback) of every call that raised.
        ended_in: seconds that ``on_run_end`` and its flush took; None where they did not end.
    """

    story: Story
    series: Series | None
    failures: list[tuple[str, int, str]]
    ended_in: float | None

    def failed_in(self, *chapters: str) -> str:
        """The failures in these chapters as text; "" where there are none."""
        seqs = set().union(*(self.story.chapters.get(chapter, set()) for chapter in chapters))
        return "\n".join(f"{hook} (seq {seq}): {text}" for hook, seq, text in self.failures if seq in seqs)


class Subject:
    """What a plugin's author says about it; see `losslog.testing.PluginConformance`."""

    name: ClassVar[str] = ""
    vendor: ClassVar[Sequence[str]] = ()
    tolerance: ClassVar[float] = 1e-6
    axes: ClassVar[Sequence[str]] = ("epoch", "step")
    resume: ClassVar[str] = "replaces"
    close_within: ClassVar[float] = 10.0
    patience: ClassVar[float] = 30.0
    restart_pause: ClassVar[float] = 0.0

    _kept: ClassVar[dict[str, tuple[Any, BaseException | None]]]
    _numbers: ClassVar[Iterator[int]] = itertools.count()

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        cls._kept = {}

    # ------------------------------------------------------------------ what an author may override

    def options(self, tmp_path: Path) -> dict[str, Any]:
        """Constructor options, plain data, for a test in ``tmp_path``."""
        return {}

    def make_plugin(self, tmp_path: Path) -> Any:
        """A new plugin object; the default makes what the entry point names."""
        return self.entry_point().load()(**self.options(tmp_path))

    def prepare(self, run_dir: Path) -> None:
        """Called before a story is played in ``run_dir``, e.g. to put a database in place."""

    def read_back(self, run_dir: Path) -> Mapping[str, Sequence[tuple[int, float]]] | None:
        """What the backend has of the run, oldest first: ``{tag: [(x, value), ...]}``; None for no series at all."""
        return None

    def stored(self, value: float) -> float:
        """What the backend makes of a value, e.g. NaN of an infinity."""
        return value

    def crash(self, plugin: Any) -> None:
        """Called where a process would be killed with this object in it: let go of what the kernel would take."""

    @contextlib.contextmanager
    def refusing(self, run_dir: Path) -> Iterator[list[str]]:
        """While it lasts, the backend of the run refuses; the list tells what it refused.

        The default is a full disk, for files that this process opens in ``run_dir`` to write them.
        """
        with full_disk(run_dir) as refused:
            yield refused

    # ------------------------------------------------------------------ what checks use

    def entry_point(self) -> importlib.metadata.EntryPoint:
        """The plugin's entry point.

        Raises:
            AssertionError: it is not installed, or twice.
        """
        assert self.name, f"set {type(self).__name__}.name to the plugin's entry point in the group {GROUP!r}"
        found = {entry.value: entry for entry in importlib.metadata.entry_points(group=GROUP, name=self.name)}
        assert found, f"no entry point {self.name!r} in the group {GROUP!r}: is the distribution installed?"
        assert len(found) == 1, f"several distributions offer {self.name!r}: {sorted(found)}"
        return next(iter(found.values()))

    def made(self, home: Path) -> Callable[[], Any]:
        """Makes a plugin for a test in ``home``, or skips the test."""
        plugin, error = attempt(self.make_plugin, home)
        if isinstance(error, NotReady):
            pytest.skip(f"{self.name} is not ready: {error}")
        if error is not None:
            raise error
        return lambda: plugin

    def home(self) -> Path:
        """A new empty folder."""
        return Path(tempfile.mkdtemp(prefix=f"{next(self._numbers)}-", dir=self._base))

    @pytest.fixture(autouse=True)
    def _losslog_home(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        self._base = tmp_path_factory.mktemp(f"losslog-{self.name or 'plugin'}")

    def stage(self, home: Path) -> Stage:
        """A stage in ``home``."""
        stage = Stage(home, self.name or "plugin", self.patience)
        self.prepare(stage.folder)
        return stage

    def read(self, stage: Stage) -> Series | None:
        """What the backend has of the run on this stage, as plain numbers."""
        found = self.read_back(stage.folder)
        if found is None:
            return None
        return {str(tag): [(_whole(x), float(value)) for x, value in points] for tag, points in found.items()}

    def finish(self, stage: Stage, lane: StageLane, story: Story, *, settle: bool = False) -> Performance:
        """Read what there is of a story, then end the run.

        Args:
            stage: where.
            lane: what plays it.
            story: what.
            settle: wait first, until the lane has everything or has ended.
        """
        if settle:
            attempt(stage.settle, lane)
        series = self.read(stage)
        failures = list(lane.failures)
        return Performance(story.only(self.axes), series, failures, stage.end(self.close_within))

    def play(
        self, story: Story | None = None, live: Story | None = None, cast: list[Any] | None = None, **how: Any
    ) -> Performance:
        """Play a whole story to a new plugin on a stage of its own.

        Args:
            story: what the journal has; None is `full_story`.
            live: the same records with other kinds of values, which the plugin gets instead.
            cast: takes the plugin object.
            **how: see `Stage.open`.
        """
        story, home = story or full_story(), self.home()
        stage, make = self.stage(home), self.made(home)
        stage.write(story.records, None if live is None else live.records)
        lane = stage.open(make, **how)
        stage.settle(lane)
        if cast is not None:
            cast.append(lane.object)
        return self.finish(stage, lane, story)

    def keep(self, key: str, function: Callable[[], T]) -> T:
        """What ``function`` returned or raised the first time, for this class."""
        if key not in self._kept:
            self._kept[key] = attempt(function)
        result, error = self._kept[key]
        if error is not None:
            raise error
        return result  # type: ignore[no-any-return]

    def reference(self) -> Performance:
        """The full story, delivered without any trouble."""
        return self.keep("reference", self.play)

    def part(self, performance: Performance) -> Series:
        """Its series; skips the test for a plugin that keeps none."""
        if performance.series is None:
            pytest.skip(f"{self.name or 'the plugin'} has no read_back: nothing to compare")
        return performance.series

    def restart(self, lane: StageLane) -> None:
        """The process with this lane in it is gone."""
        lane.gone = True
        lane.abandon()
        if lane.object is not None:
            self.crash(lane.object)
        time.sleep(self.restart_pause)

    def equal(self, one: float, other: float, tolerance: float = 0.0) -> bool:
        """Whether two values are the same to the backend."""
        if math.isnan(one) or math.isnan(other):
            return math.isnan(one) and math.isnan(other)
        return one == other or math.isclose(one, other, rel_tol=max(self.tolerance, tolerance), abs_tol=1e-12)

    def difference(self, found: Series, wanted: Series, tolerance: float = 0.0) -> str:
        """Where two sets of series differ, in words; "" where they do not."""
        lines = [f"{tag}: not there" for tag in sorted(wanted.keys() - found.keys())]
        lines += [f"{tag}: should not be there" for tag in sorted(found.keys() - wanted.keys())]
        for tag in sorted(found.keys() & wanted.keys()):
            if not self._same(found[tag], wanted[tag], tolerance):
                lines.append(f"{tag}: {_shown(found[tag])}\n    instead of {_shown(wanted[tag])}")
        return "\n".join(lines)

    def _same(self, one: Points, other: Points, tolerance: float) -> bool:
        return len(one) == len(other) and all(
            a[0] == b[0] and self.equal(a[1], b[1], tolerance) for a, b in zip(one, other, strict=True)
        )


def _shown(points: Points) -> str:
    text = ", ".join(f"{x}: {value:.6g}" for x, value in points[:12])
    return f"{len(points)} points ({text}{', ...' if len(points) > 12 else ''})"


def _whole(x: Any) -> int:
    number = int(x)
    assert number == x, f"read_back: x = {x!r} is not a whole number"
    return number
