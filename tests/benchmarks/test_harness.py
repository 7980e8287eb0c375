"""The harness runs, repeats, counts and writes what it found. Nothing here judges a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import harness, plan, tables
from benchmarks.harness import Request, key_of

TIGHT: Request = {"measure": "tight", "subject": "losslog:", "steps": 100, "store": "/somewhere"}


def answer(p50: float = 3.0, **more: Any) -> dict[str, Any]:
    calls = {"p50": p50, "mean": 4.0, "p99": 9.0}
    return {"calls": calls, "floor": {"p50": 1.0}, "cpu_s_per_10k": 0.5, "close_s": 0.1, "lanes": {}, **more}


def test_a_child_measures_losslog() -> None:
    results = harness.run([TIGHT | {"store": ""}], repeats=1, timeout=120)
    (found,) = results[key_of(TIGHT)]
    assert found["stats"]["records"] == 100 + 100 + 2  # warm-up, steps, start and end
    assert found["calls"]["p50"] > 0 < found["floor"]["p50"]


def test_a_child_that_fails_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    results = harness.run([{"measure": "tight", "subject": "no such thing", "steps": 1}], repeats=2, timeout=120)
    assert list(results.values()) == [[]]
    assert "no such thing" in capsys.readouterr().err


@pytest.mark.parametrize("scale", plan.SCALES.values(), ids=plan.SCALES)
def test_every_variant_is_asked_for_once(scale: plan.Scale) -> None:
    setting = {"store": "", "short": {"size": 64}, "long": {"size": 512}, "cuda": False}
    keys = [key_of(request) for request in plan.requests(scale, setting, list(plan.MEASURES))]
    assert len(set(keys)) == len(keys)


def test_repeats_are_shuffled_together(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def ask(request: Request, timeout: float) -> dict[str, Any]:
        asked.append(request["subject"])
        return answer()

    monkeypatch.setattr(harness, "ask", ask)
    results = harness.run([TIGHT | {"subject": name} for name in "abcd"], repeats=5, seed=1)
    assert sorted(asked) == sorted("abcd" * 5)
    assert asked != sorted(asked)
    assert [len(answers) for answers in results.values()] == [5] * 4


def test_the_store_is_no_part_of_a_variant() -> None:
    assert key_of(TIGHT) == key_of(TIGHT | {"store": "/elsewhere"})


def page(answers: dict[str, list[dict[str, Any]]]) -> str:
    results = {key_of(TIGHT | {"subject": name}): found for name, found in answers.items()}
    return tables.render(results, {"machine": "a machine", "short": {}, "long": {}}, plan.SCALES["quick"])


def test_a_row_has_median_minimum_and_ratio() -> None:
    text = page({"losslog:": [answer(3.0), answer(2.0), answer(9.0)]})
    assert "| losslog, the journal alone | 3.00 (2.00) | 4.00 | 9.00 | 3.00 |" in text


def test_a_goal_is_judged_on_the_median() -> None:
    text = page({plan.ALL: [answer(2.0), answer(2.9), answer(50.0)]})
    assert "| `log_batch` p50, all five, x F | <= 3.00 | 2.90 | 2.00 | reached |" in text
    assert "**not reached**" in page({plan.ALL: [answer(3.1)]})


def test_what_was_not_measured_is_not_in_the_page() -> None:
    assert "Memory" not in page({"losslog:": [answer()]})


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (0.0123, "0.0123"), (1.234, "1.23"), (99.96, "100.0"), (12345.6, "12,346")]
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert tables.number(value) == text


def test_the_page_is_renewed_between_its_markers(tmp_path: Path) -> None:
    path = tmp_path / "performance.md"
    path.write_text(f"before\n{tables.BEGIN}\nold\n{tables.END}\nafter\n")
    tables.renew(path, "new")
    tables.renew(path, "newer")
    assert path.read_text() == f"before\n{tables.BEGIN}\n\nnewer\n{tables.END}\nafter\n"


def test_a_page_without_markers_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "performance.md"
    path.write_text("mine")
    with pytest.raises(ValueError, match="markers"):
        tables.renew(path, "new")
    assert path.read_text() == "mine"


def test_the_documented_page_has_markers() -> None:
    text = (harness.ROOT / "docs" / "performance.md").read_text("utf-8")
    assert text.count(tables.BEGIN) == text.count(tables.END) == 1
