from __future__ import annotations

import pytest

from losslog.testing.waiting import until


def test_it_asks_until_it_is_true() -> None:
    answers = iter([False, False, True])
    until(lambda: next(answers))
    with pytest.raises(StopIteration):
        next(answers)


def test_what_does_not_come_is_named() -> None:
    with pytest.raises(AssertionError, match=r"^not within 0\.01 s: the follower ends$"):
        until(lambda: False, "the follower ends", 0.01)
