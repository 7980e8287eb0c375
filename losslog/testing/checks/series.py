"""Checks of what a plugin makes of the records: names, values, axes, order, and the awkward ones.

Test thread. Contract:

- All of them look at one performance of the full story, each at its own aspect, so that one fault fails one check.
- A plugin without ``read_back`` is checked for not failing; what needs its series is skipped.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest

from losslog.testing.story import PLAIN, Series, Story, full_story, scalar_story
from losslog.testing.subject import Performance, Subject


class SeriesChecks(Subject):
    """What it makes of the records."""

    def test_every_hook_is_taken(self) -> None:
        """Nothing raises at ordinary records."""
        done = self.reference()
        failed = done.failed_in(PLAIN)
        assert not failed, f"it raised at ordinary records:\n{failed}"

    def test_names(self) -> None:
        """The series have losslog's names, and there are no others."""
        done = self.reference()
        found, expected = self.part(done), done.story.expected[PLAIN]
        missing, more = expected.keys() - found.keys(), found.keys() - done.story.series().keys()
        assert not missing | more, f"missing: {sorted(missing) or 'none'}; not expected: {sorted(more) or 'none'}"

    def test_every_point_once(self) -> None:
        """No point is missing, none is there twice."""
        done = self.reference()
        found, expected = self.part(done), done.story.expected[PLAIN]
        others = _xs(done.story, PLAIN)
        for tag in expected.keys() & found.keys():
            points = [x for x, _ in found[tag] if x not in others.get(tag, ())]
            assert len(points) >= len(expected[tag]), f"{tag}: x = {points} of {[x for x, _ in expected[tag]]}"
            assert len(set(points)) == len(points), f"{tag}: there twice: x = {points}"

    def test_values(self) -> None:
        """The values are those that were logged."""
        done = self.reference()
        found, expected = self.part(done), done.story.expected[PLAIN]
        for tag in expected.keys() & found.keys():
            stored = dict(found[tag])
            for x, value in expected[tag]:
                if x in stored:
                    assert self.equal(stored[x], self.stored(value)), f"{tag} at {x}: {stored[x]!r}, logged {value!r}"

    def test_axes(self) -> None:
        """Epoch series stand at epochs, batch series at global steps, other metrics as they were given."""
        done = self.reference()
        found, expected = self.part(done), done.story.series()
        for tag in expected.keys() & found.keys():
            wrong = sorted({x for x, _ in found[tag]} - {x for x, _ in expected[tag]})
            assert not wrong, f"{tag} stands at x = {wrong}, logged at {[x for x, _ in expected[tag]]}"

    def test_order(self) -> None:
        """Points come back in the order in which they were logged."""
        done = self.reference()
        for tag, points in self.part(done).items():
            xs = [x for x, _ in points]
            assert xs == sorted(xs), f"{tag}: the points stand in the order {xs}"

    def test_late_component(self) -> None:
        """A component that first appears in mid-run gets its series."""
        done = self.reference()
        self._check_chapter(done, "late component", only=lambda tag: "loss_late" in tag)

    def test_non_finite(self) -> None:
        """NaN and the infinities are kept as what they are, and stop nothing."""
        done = self.reference()
        self._check_chapter(done, "non-finite", only=lambda value: not math.isfinite(value), by_value=True)

    def test_nested_coco(self) -> None:
        """Nested COCO results become ``mAP/bbox_AP`` and the like, per class and per split."""
        self._check_chapter(self.reference(), "coco")

    def test_missing_values(self) -> None:
        """Arguments that a record does not carry are None, and stop nothing."""
        failed = self.reference().failed_in("missing values")
        assert not failed, f"it raised where arguments are None:\n{failed}"

    def test_scalar_losses(self) -> None:
        """One scalar instead of a dict gives ``loss/train`` and ``batch/train``, and no other ``loss/train*``."""
        done = self.keep("scalar", lambda: self.play(scalar_story()))
        failed = done.failed_in(PLAIN)
        assert not failed, f"it raised at a scalar loss:\n{failed}"
        found, expected = self.part(done), done.story.series()
        assert found.keys() == expected.keys(), f"the series are {sorted(found)}, expected {sorted(expected)}"
        for tag, points in found.items():
            assert {value for _, value in points} == {value for _, value in expected[tag]}, f"{tag}: {points}"

    def test_tensor_losses(self) -> None:
        """Its hooks called directly take 0-d tensors, and make the same of them."""
        done, _ = self.keep("tensors", self._play_tensors)
        self._check_alike(done, "tensors")

    def test_keeps_no_graph(self) -> None:
        """A tensor it was given is not kept, and so no autograd graph is."""
        done, alive = self.keep("tensors", self._play_tensors)
        if done.ended_in is None:
            pytest.skip("its lane still hangs in on_run_end: test_bounded_close says so")
        assert not alive, f"{alive} of the tensors it was given are still alive after the flush: keep floats"

    def test_numpy_losses(self) -> None:
        """Its hooks called directly take numpy scalars, and make the same of them."""
        pytest.importorskip("numpy")
        done, _ = self.keep("watched", self._play_watched)
        self._check_alike(done, "numpy scalars")

    def test_leaves_arguments_alone(self) -> None:
        """The dicts it is given are not changed."""
        _, changes = self.keep("watched", self._play_watched)
        assert not changes, f"it changes what it is given: {', '.join(sorted(set(changes)))}"

    # ------------------------------------------------------------------ how

    def _check_chapter(self, done: Performance, chapter: str, only: Any = None, by_value: bool = False) -> None:
        failed = done.failed_in(chapter)
        assert not failed, f"it raised:\n{failed}"
        if done.series is None:
            return
        for tag, points in done.story.expected[chapter].items():
            if only is not None and not by_value and not only(tag):
                continue
            if by_value and tag not in done.series:
                continue  # test_names says so
            wanted = [self.stored(value) for _, value in points if not by_value or only(value)]
            got = [value for _, value in done.series.get(tag, [])]
            lacking = [value for value in wanted if not any(self.equal(value, each) for each in got)]
            assert not lacking, f"{tag}: {lacking} of {wanted} are not there, but {got}"
            if by_value:
                kinds = Counter(str(value) for value in got if not math.isfinite(value))
                lost = Counter(str(value) for value in wanted if not math.isfinite(value)) - kinds
                assert not lost, f"{tag}: not there: {dict(lost)}"

    def _check_alike(self, done: Performance, kind: str) -> None:
        reference = self.reference()
        before = {(hook, seq) for hook, seq, _ in reference.failures}
        failed = [each for each in done.failures if each[:2] not in before]
        assert not failed, f"it raised at {kind}:\n{done._replace(failures=failed).failed_in(*done.story.chapters)}"
        if reference.series is not None:
            different = self.difference(done.series or {}, reference.series, 1e-6)
            assert not different, f"{kind} give other series than floats:\n{different}"

    def _play_tensors(self) -> tuple[Performance, int]:
        torch: Any = pytest.importorskip("torch")
        from losslog.testing.exotic import tensors

        live, references = tensors(full_story(), torch)
        cast: list[Any] = []
        done = self.play(full_story(), live, cast)
        del live
        return done, references()

    def _play_watched(self) -> tuple[Performance, list[str]]:
        from losslog.testing.exotic import watched

        live, changes = watched(full_story())
        return self.play(full_story(), live), changes


def _xs(story: Story, *without: str) -> dict[str, set[int]]:
    series: Series = story.series(*without)
    return {tag: {x for x, _ in points} for tag, points in series.items()}
