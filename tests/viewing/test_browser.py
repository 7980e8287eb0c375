"""The report in a real browser without network: it draws, asks for nothing, and does what it says."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from losslog.viewing.page import page, write
from losslog.viewing.parts import story_of

HOSTILE = '</script><script>document.title="taken"</script><img src=x onerror="document.title=1">'
Write = Callable[..., Path]


def report(path: Path, *folders: Path) -> Path:
    write(page([story_of(folder) for folder in folders]), path)
    return path


def wait(browser: Any) -> None:
    browser.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, write_run: Write) -> Path:
    place = tmp_path_factory.mktemp("two")
    one = write_run(place / "demo", "demo", config={"stall": False})
    other = write_run(place / "lesson", "lesson", config={"stall": True}, change=(120, "loss_mask", 2.0))
    return report(place / "report.html", one, other)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1400, 390])
def test_two_runs_are_drawn_without_a_request(browser: Any, two: Path, width: int, dark: bool) -> None:
    browser.look(width, 1200, dark=dark)
    browser.open(two)
    assert browser.requests == [two.absolute().as_uri()]
    assert browser.messages == []
    assert browser.run("document.querySelectorAll('.chart canvas').length") >= 4
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")
    assert browser.run("getComputedStyle(document.body).backgroundColor") == (
        "rgb(16, 20, 26)" if dark else "rgb(255, 255, 255)"
    )
    painted = """[...document.querySelectorAll('.chart canvas')].every((canvas) => {
        const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
        return data.some((value) => value !== 0); })"""
    assert browser.run(painted)


def test_zoom_hover_and_legend(browser: Any, two: Path) -> None:
    browser.look(1400, 1200)
    browser.open(two)
    box = browser.run(
        "(({x, y, width, height}) => [x, y, width, height])(document.querySelector('.u-over').getBoundingClientRect())"
    )
    x, y, width, height = box
    browser.tell("Input.dispatchMouseEvent", type="mouseMoved", x=x + width / 2, y=y + height / 2)
    wait(browser)
    shown = browser.run(
        "[...document.querySelectorAll('.values')].slice(0, 3).map((each) => each.querySelectorAll('span').length)"
    )
    assert shown == [2, 2, 2]  # both runs, in this chart and in the others
    browser.drag((x + width * 0.25, y + height / 2), (x + width * 0.75, y + height / 2))
    wait(browser)
    assert browser.run(
        "[...document.querySelectorAll('header button')].some((one) => one.textContent === 'whole run' && !one.hidden)"
    )
    assert browser.messages == []
    browser.tell("Input.dispatchMouseEvent", type="mouseMoved", x=x + 2, y=y + height / 2 + 5)
    wait(browser)
    shown = browser.run(
        "[...document.querySelectorAll('.values')].slice(0, 3).map((one) => one.firstChild.textContent)"
    )
    steps = [float(text.removeprefix("step ")) for text in shown]
    assert steps == [pytest.approx(50, abs=5)] * 3  # a quarter of 200 is at the left of each
    browser.run("document.querySelectorAll('.chip')[1].click()")
    wait(browser)
    assert browser.run("document.querySelectorAll('.chip')[1].getAttribute('aria-pressed')") == "false"
    browser.tell("Input.dispatchMouseEvent", type="mouseMoved", x=x + width / 2, y=y + height / 2 + 3)
    wait(browser)
    assert browser.run("document.querySelector('.values').querySelectorAll('span').length") == 1
    for place, words in enumerate((("epoch", "time", "images", "step"), ("full", "log"))):
        for word in words:
            choose = f"each = document.querySelectorAll('select')[{place}]; each.value = '{word}';"
            browser.run(f"(() => {{ const {choose} each.dispatchEvent(new Event('change')); }})()")
    assert browser.messages == []
    assert len(browser.pdf()) > 10_000


def test_odd_runs_are_shown_as_text(browser: Any, tmp_path: Path, book: Any, write_run: Write) -> None:
    odd = book(tmp_path / "odd")
    odd.start(HOSTILE, {HOSTILE: HOSTILE}, epochs=2)
    for step in range(60):
        odd.batch(step, {HOSTILE: 1.0, "nan": float("nan"), "inf": float("inf") if step == 3 else -2.0}, 1 + step // 30)
    odd.add("on_eval", epoch=1, step=29, split="val", metrics={"bbox": {"AP": 0.4, "classes": {HOSTILE: 0.2}}})
    odd.alert(HOSTILE, 20, HOSTILE, "error")
    empty = book(tmp_path / "empty")
    empty.start("empty")
    only = book(tmp_path / "only")
    only.start("only")
    for epoch in range(1, 5):
        only.epoch(epoch, None, 1.0 / epoch)
    resumed = book(tmp_path / "resumed")
    resumed.start("resumed")
    resumed.batch(0, 1.0)
    resumed.add("on_resume", epoch=None, step=0)
    resumed.batch(1, 1.0)
    wide = write_run(tmp_path / "wide", "wide", names=tuple(f"loss_{place:03}" for place in range(200)), epochs=1)
    folders = [odd.folder, empty.folder, only.folder, resumed.folder, wide]
    browser.look(1400, 900)
    for chosen in ([each] for each in folders):
        browser.open(report(tmp_path / "report.html", *chosen))
        assert browser.messages == []
    browser.open(report(tmp_path / "report.html", *folders))
    assert browser.messages == []
    assert len(browser.requests) == 1
    assert HOSTILE in browser.run("document.title")
    assert browser.run("document.querySelectorAll('img').length") == 0
    assert HOSTILE in browser.run("document.querySelector('h1').textContent")


# ------------------------------------------------------------------ what is painted

SPY = """window.texts = []; window.heights = [];
    const text = CanvasRenderingContext2D.prototype.fillText, line = Path2D.prototype.lineTo;
    CanvasRenderingContext2D.prototype.fillText = function (said, x, y, ...rest) {
        if (this.textAlign === "right") window.texts.push([said, x - this.measureText(said).width]);
        return text.call(this, said, x, y, ...rest); };
    Path2D.prototype.lineTo = function (x, y) { window.heights.push(y); return line.call(this, x, y); };"""


@pytest.fixture
def painted(browser: Any) -> Iterator[Any]:
    """Opens a page, and gives what its charts paint: labels on the left with where they begin, heights of lines."""
    spy = browser.tell("Page.addScriptToEvaluateOnNewDocument", source=SPY)["identifier"]

    def opened(path: Path) -> tuple[list[tuple[str, float]], list[float]]:
        browser.look(1400, 1200)
        browser.open(path)
        assert browser.messages == []
        return browser.run("window.texts"), browser.run("window.heights")

    yield opened
    browser.tell("Page.removeScriptToEvaluateOnNewDocument", identifier=spy)


def alone(folder: Path, book: Any, value: Callable[[int], Any], steps: int = 600) -> Path:
    run = book(folder)
    run.start("alone")
    for step in range(steps):
        run.batch(step, value(step), lr=None)
    return report(folder / "report.html", folder)


@pytest.mark.parametrize("steps", [600, 5000])
@pytest.mark.parametrize("noise", [0.0, 1e-9, 3e-8])
def test_a_constant_is_drawn_flat(tmp_path: Path, book: Any, painted: Any, noise: float, steps: int) -> None:
    dice = random.Random(1)
    page = alone(tmp_path / "r", book, lambda _: 0.30005 * (1 + noise * dice.random()), steps)
    texts, heights = painted(page)
    assert len(heights) > 100
    _, often = Counter(heights).most_common(1)[0]
    assert len(heights) - often < 20  # the grid
    assert len({said for said, _ in texts}) > 2


@pytest.mark.parametrize("size", [1e-9, 1e-4, 0.3, 1234567.0, 1e15, 1e30])
@pytest.mark.parametrize("part", [1.0, 1e-3, 3e-5])
def test_labels_are_whole_and_differ(tmp_path: Path, book: Any, painted: Any, size: float, part: float) -> None:
    dice = random.Random(2)
    texts, _ = painted(alone(tmp_path / "r", book, lambda _: size * (1 + part * dice.random())))
    assert all(start >= 0 for _, start in texts)
    values = {float(said) for said, _ in texts}
    assert len(values) > 1
    assert all(0.8 * size <= value <= 2.2 * size for value in values if value)


def test_a_spike_leaves_no_trace_in_the_smoothed_line(tmp_path: Path, book: Any, painted: Any) -> None:
    _, heights = painted(alone(tmp_path / "r", book, lambda step: 1e30 if step == 50 else 0.3))
    _, often = Counter(map(round, heights)).most_common(1)[0]
    assert len(heights) - often < 40  # the grid, the window around the spike


def test_nothing_has_a_share_of_what_is_not_finite(tmp_path: Path, book: Any, browser: Any) -> None:
    page = alone(tmp_path / "r", book, lambda step: {"a": math.nan if step >= 300 else 0.5, "b": 0.5})
    browser.look(1400, 1200)
    browser.open(page)
    box, colours = browser.run("""(() => {
        const chart = [...document.querySelectorAll('.chart')].find((one) => one.textContent.startsWith('share'));
        const canvas = chart.querySelector('canvas'), context = canvas.getContext('2d');
        const at = (part) => [...context.getImageData(canvas.width * part, canvas.height * 0.35, 1, 1).data];
        return [chart.textContent, [at(0.35), at(0.83)]]; })()""")
    assert "a not finite: from step 300 on" in box
    assert colours[0][3] > 150
    assert colours[1][3] < 60
    assert "a: from step 300 on (300 values in all)" in browser.run("document.body.textContent")


def test_one_is_said_as_one(tmp_path: Path, book: Any, browser: Any) -> None:
    for name, epochs in (("one", 1), ("two", 2)):
        run = book(tmp_path / name)
        run.start("short")
        for epoch in range(1, epochs + 1):
            run.epoch(epoch, None, {"a": 1.0})
        browser.open(report(tmp_path / name / "report.html", tmp_path / name))
        said = browser.run("document.getElementById('head').textContent")
        assert ("1 epoch ·" in said) is (epochs == 1)
        assert ("2 epochs ·" in said) is (epochs == 2)


def test_what_each_loss_trains_is_shown(browser: Any, tmp_path: Path, book: Any) -> None:
    run = book(tmp_path / "run")
    run.start()
    for step in range(3):
        run.batch(step, {"loss_a": 1.0, "loss_b": 2.0})
    part = {"tensors": 3, "trainable": 3, "size": 9, "lr": [0.1], "outside": 0}
    detail = {"reach": {"loss_a": {"body": 3}, "loss_b": {}}, "parts": {"body": part}}
    run.add("on_metrics", step=0, epoch=None, metrics={"reach/loss_a": 3}, detail=detail)
    run.end()
    browser.open(report(tmp_path / "report.html", tmp_path / "run"))
    assert browser.messages == []
    table = browser.run(
        "[...document.querySelectorAll('section')].find((each) => /What each loss trains/.test(each.textContent))"
        "?.innerText"
    )
    assert "at step 0" in table
    assert table.split("tensors trained")[1].split()[:4] == ["body", "loss_a", "3", "loss_b"]
