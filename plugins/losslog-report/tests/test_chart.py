"""The notebook's chart: small, and nothing but a picture."""

from __future__ import annotations

import math
import xml.dom.minidom
from typing import Any

import pytest
from losslog_report import NotebookPlugin, notebook
from losslog_report.chart import chart

from losslog import NotReady


def curve(count: int) -> list[tuple[float, float]]:
    return [(float(x), 1.0 / (1 + x)) for x in range(1, count + 1)]


def test_it_stays_small() -> None:
    names = [f"loss_{place}" for place in range(5)]
    text = chart({name: curve(1000) for name in names}, {name: curve(1000) for name in names}, {"loss_1": "stalled"})
    assert len(text) < 10_000
    assert text.count("<polyline") == 10
    many = chart({f"loss_{place}": curve(1000) for place in range(200)}, {}, {})
    assert len(many) < 20_000
    assert "188 more are in the journal" in many


@pytest.mark.parametrize("values", [[], [1.0], [math.nan], [math.nan, 1.0], [math.inf, 1.0, 2.0], [0.0, 0.0]])
def test_odd_curves_are_a_picture_all_the_same(values: list[float]) -> None:
    xml.dom.minidom.parseString(chart({"a": list(enumerate(values))}, {}, {}))


@pytest.mark.parametrize("size", [0.0, 0.4, -0.4, 1e30])
def test_rounding_noise_is_flat(size: float) -> None:
    drawn = chart({"a": [(float(x), size * (1 + 1e-8 * (x % 3))) for x in range(50)]}, {}, {})
    points = drawn.partition('points="')[2].partition('"')[0].split()
    assert len({point.partition(",")[2] for point in points}) == 1
    moved = chart({"a": [(float(x), 1 + 1e-4 * (x % 3)) for x in range(50)]}, {}, {})
    assert len({point.partition(",")[2] for point in moved.partition('points="')[2].partition('"')[0].split()}) == 3


def test_names_are_text() -> None:
    evil = '</text><script>alert(1)</script>&"'
    text = chart({evil: curve(3)}, {}, {evil: evil})
    xml.dom.minidom.parseString(text)
    assert "<script" not in text


def test_it_is_not_ready_outside_a_notebook() -> None:
    with pytest.raises(NotReady, match="not a Jupyter notebook"):
        NotebookPlugin()
    with pytest.raises(TypeError, match="notebook option progress"):
        NotebookPlugin(progress=1)  # type: ignore[arg-type]


def test_one_output_of_each_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[Any, str]] = []

    def show(handle: Any, markup: str, text: str) -> Any:
        shown.append((handle, markup))
        return handle or object()

    monkeypatch.setattr(notebook, "in_notebook", lambda: True)
    monkeypatch.setattr(notebook, "_show", show)
    plugin = NotebookPlugin()
    for epoch in range(1, 101):
        for step in range(10):
            plugin.on_batch_losses(10 * epoch + step, epoch, {"a": 1.0 / epoch, "b": 2.0}, None)
        plugin.on_epoch_end(epoch, {"a": 1.0 / epoch, "b": 2.0}, None, 0.5)
    plugin.on_alert("a has stalled", "a")
    plugin.on_run_end("finished")
    handles = {id(handle) for handle, _ in shown if handle is not None}
    assert len(handles) == 2
    assert len([1 for handle, _ in shown if handle is None]) == 2
    charts = [markup for _, markup in shown if "<svg" in markup]
    assert len(charts) == 101
    assert len(charts[-1]) < 8000
    assert "a has stalled" in charts[-1]
