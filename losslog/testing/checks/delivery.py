"""Checks of delivery at least once: redelivery, restarts, failing flushes, resume, near and far.

Test thread; a follower process for the far lane. Contract:

- What a plugin makes of a troubled delivery is compared with what it made of an untroubled one.
- An object that a test leaves behind, as a killed process would, gets its end after everything was read.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from losslog.delivery.caller import implemented
from losslog.runtime.containment import attempt
from losslog.testing.story import Series, full_story, resumed_story, straight_story
from losslog.testing.subject import Performance, Subject


class DeliveryChecks(Subject):
    """What it makes of records that come again."""

    def test_redelivery(self) -> None:
        """A new object (the follower was killed before it could commit) gets records again: no point is there twice."""
        story, home = full_story(), self.home()
        stage = self.stage(home)
        stage.write(story.records)
        first = stage.open(self.made(home))
        stage.settle(first)
        self.restart(first)
        second = stage.open(self.made(home), after=len(story.records) // 2)
        stage.settle(second)
        self._check_same(self.finish(stage, second, story), "half of the records were delivered again to a new object")

    def test_interrupted(self) -> None:
        """What was handed over but not flushed before a kill comes again: nothing is lost, nothing is there twice."""
        story, home = full_story(), self.home()
        stage = self.stage(home)
        half = len(story.records) // 2
        stage.write(story.records[:4])
        first = stage.open(self.made(home))
        stage.settle(first)
        first.flushes.flush_when = "never"
        stage.write(story.records[4:half])
        stage.settle(first, "offset")
        self.restart(first)
        stage.write(story.records[half:])
        second = stage.open(self.made(home), after=3)
        stage.settle(second)
        self._check_same(self.finish(stage, second, story), "a process was killed between two flushes")

    def test_failing_flush(self) -> None:
        """A flush whose answer was lost, then one that failed: the same object gets everything again, once each."""
        home = self.home()
        make = self.made(home)
        if "on_flush" not in implemented(make()):
            pytest.skip("the plugin has no on_flush")
        story, stage = full_story(), self.stage(home)
        stage.write(story.records)
        lane = stage.open(make, flush="never")
        lane.flush_errors += [ConnectionError("the answer was lost (made up)"), RuntimeError("a failure (made up)")]
        lane.flushes.flush_when = "caught up"
        stage.settle(lane)
        assert not lane.flush_errors, "the lane never flushed"
        lane.failures[:] = [each for each in lane.failures if "(made up)" not in each[2]]
        self._check_same(self.finish(stage, lane, story), "two flushes failed and their records came again")

    def test_delivered_means_delivered(self) -> None:
        """While its backend refuses it raises: nothing is counted as delivered that is not there in the end."""
        story, home = full_story(), self.home()
        stage = self.stage(home)
        half = len(story.records) // 2
        stage.write(story.records[:half])
        lane = stage.open(self.made(home))
        stage.settle(lane)
        with self.refusing(stage.folder) as refused:
            stage.write(story.records[half:])
            stage.attempted(lane)
        if not refused:
            pytest.skip("nothing that it does was refused: override refusing(run_dir)")
        done = self.finish(stage, lane, story, settle=True)
        figures, reference = lane.figures(), self.part(self.reference())
        if figures.state == "done" and not figures.skipped:
            different = self.difference(done.series or {}, reference)
            assert not different, f"its backend refused for a while, and it said that all is delivered:\n{different}"

    def test_flush_after_every_record(self) -> None:
        """Flushing often or seldom (``flush_every``) makes no difference."""
        done = self.play(flush="always")
        self._check_same(done, "it was flushed after every record")

    def test_delivered_upto(self) -> None:
        """It says None, or the seq of a record that it was given and has made durable."""
        home = self.home()
        make = self.made(home)
        if getattr(make(), "delivered_upto", None) is None:
            pytest.skip("the plugin has no delivered_upto")
        story, stage = full_story(), self.stage(home)
        stage.write(story.records[:1])
        asked: list[tuple[Any, BaseException | None]] = []
        first = stage.open(_Asks(make, asked))
        stage.settle(first)
        stage.write(story.records[1:])
        stage.settle(first)
        self.restart(first)
        second = stage.open(_Asks(self.made(home), asked), after=0)
        stage.settle(second)
        stage.end(self.close_within)
        assert len(asked) == 2, f"asked {len(asked)} times instead of 2"
        for (answer, error), most in zip(asked, (0, len(story.records) - 1), strict=True):
            assert error is None, f"it raised {error!r}"
            assert answer is None or isinstance(answer, int), f"it said {answer!r}: None or a seq"
            assert answer is None or -1 <= answer <= most, f"it said {answer}, but was given records up to {most}"

    def test_resume(self) -> None:
        """A run that continues from a checkpoint: points after it are superseded, those before it stay."""
        straight = self.keep("straight", lambda: self.part(self.play(straight_story())))
        story, before = resumed_story()
        home = self.home()
        stage = self.stage(home)
        stage.write(story.records[:before])
        first = stage.open(self.made(home))
        stage.settle(first)
        self.restart(first)
        stage.write(story.records[before:])
        second = stage.open(self.made(home), after=before - 1)
        stage.settle(second)
        done = self.finish(stage, second, story)
        found = self.part(done)
        if self.resume == "appends":
            for tag, points in story.series().items():
                more = Counter(x for x, _ in found.get(tag, [])) - Counter(x for x, _ in points)
                assert not more, f"{tag}: more often at x than it was logged: {dict(more)}"
            found = _last_wins(found)
            straight = _last_wins(straight)
        different = self.difference(found, straight)
        assert not different, f"after a resume from epoch 2 the series are not those of a straight run:\n{different}"

    def test_near_lane(self) -> None:
        """In the training process, with its rests, it makes the same."""
        self._check_same(self.play(near=True), "it ran in a near lane")

    def test_far_lane(self) -> None:
        """In the follower process it makes the same."""
        home = self.home()
        plugin = self.made(home)()
        options = self.options(home)
        if getattr(plugin, "near", False):
            pytest.skip("the plugin is near")
        if attempt(json.dumps, options)[1] is not None:
            pytest.skip("its options cannot travel to another process")
        if attempt(self.entry_point)[1] is not None:
            pytest.skip("it is not installed: test_entry_point says so")
        story, stage = full_story(), self.stage(home)
        stage.write(story.records)
        said = stage.follow(options, self.patience)
        done = Performance(story, self.read(stage), [], 0.0)
        reference = self.reference()
        assert said.errors <= len(reference.failures), f"it failed in the follower only: {said}"
        self._check_same(done, "it ran in the follower process")

    def _check_same(self, done: Performance, what: str) -> None:
        reference = self.reference()
        expected = {(hook, seq) for hook, seq, _ in reference.failures}
        failed = [each for each in done.failures if each[:2] not in expected]
        assert not failed, f"{what}, and it raised:\n{done._replace(failures=failed).failed_in(*done.story.chapters)}"
        if reference.series is not None:
            different = self.difference(done.series or {}, reference.series)
            assert not different, f"{what}:\n{different}"


class _Asks:
    """Makes plugins whose ``delivered_upto`` is overheard."""

    def __init__(self, make: Any, asked: list[tuple[Any, BaseException | None]]) -> None:
        self._make, self._asked = make, asked

    def __call__(self) -> Any:
        plugin = self._make()
        ask = plugin.delivered_upto

        def overheard(run: Any) -> Any:
            answer, error = attempt(ask, run)
            self._asked.append((answer, error))
            if error is not None:
                raise error
            return answer

        plugin.delivered_upto = overheard
        return plugin


def _last_wins(series: Series) -> Series:
    return {tag: sorted(dict(points).items()) for tag, points in series.items()}
