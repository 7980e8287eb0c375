from __future__ import annotations

import json
import random

from losslog_plateau.audit import SumAudit


def said(pairs: list[tuple[float, float]]) -> list[str]:
    audit = SumAudit()
    return [kind for step, pair in enumerate(pairs) if (kind := audit.take(step, *pair)) is not None]


def test_rounding_is_no_mismatch() -> None:
    assert said([(1.0, 1.0 + 5e-4)] * 200) == []


def test_constant_factor_is_said_once_after_five_steps() -> None:
    audit = SumAudit()
    kinds = [audit.take(step, 0.25 * s, s) for step, s in enumerate((1.0, 2.0, 3.0, 2.0, 1.0, 2.0, 3.0))]
    assert kinds == [None, None, None, None, "factor", None, None]
    assert audit.ratio == 0.25


def test_a_term_beside_the_sum_that_begins_small_is_no_factor() -> None:
    """The logarithms of learned uncertainties: 0 at first, then ever more."""
    assert said([(1.742 + 3e-4 * step, 1.742) for step in range(40)]) == []
    assert said([(1.01 * (2.0 + step), 2.0 + step) for step in range(6)]) == ["factor"]


def test_varying_difference_is_said_after_fifty_steps() -> None:
    draw = random.Random(0)
    assert said([(1.0 + draw.uniform(0.01, 0.3), 1.0) for _ in range(49)]) == []
    assert said([(1.0 + draw.uniform(0.01, 0.3), 1.0) for _ in range(60)]) == ["difference"]


def test_rare_mismatches_are_forgiven() -> None:
    assert said(([(1.5, 1.0)] + [(1.0, 1.0)] * 3) * 100) == []


def test_non_finite_totals_are_left_to_others() -> None:
    assert said([(float("nan"), 1.0), (1.0, float("inf"))] * 100) == []


def test_state_survives_json() -> None:
    audit, other = SumAudit(), SumAudit()
    for step in range(4):
        audit.take(step, 2.0, 1.0)
    other.load_state_dict(json.loads(json.dumps(audit.state_dict())))
    assert other.take(4, 2.0, 1.0) == "factor"
