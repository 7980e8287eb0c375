"""One page of Markdown tables from the answers, and its place in the documentation.

Pure functions of plain figures. Contract:

- Every figure that is given is the median over repeats, with the minimum in brackets where a shared machine matters.
- A goal is judged in the same run as the figures, and says "not reached" where it is not.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import Results, figures, least, middle
from benchmarks.plan import ALL, ALL_NEAR, FIVE, LOCAL, NEAR, Scale

BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"
Row = Sequence[str]


def table(head: Row, rows: Iterable[Row]) -> str:
    """A Markdown table; empty where there are no rows."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([f"| {' | '.join(head)} |", "|---" * len(head) + "|", *lines, ""]) if lines else ""


def number(value: float) -> str:
    """Three significant digits, without an exponent."""
    if math.isnan(value):
        return "-"
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def both(values: Sequence[float], unit: str = "") -> str:
    """Median and, in brackets, minimum."""
    return f"{number(middle(values))}{unit} ({number(least(values))}{unit})" if values else "-"


def label(subject: str) -> str:
    """A subject as a reader knows it."""
    if not subject.startswith("losslog:"):
        return {"mlflow": "MLflow, sqlite, log_metrics", "wandb": "W&B offline, run.log",
                "SummaryWriter": "TensorBoard, SummaryWriter.add_scalar x 7",
                "MetricLogger": "MetricLogger as torchvision's scripts call it, text every 10",
                "four inline": "text + TensorBoard + W&B + MLflow, all inline"}.get(subject, subject)  # fmt: skip
    names = subject.removeprefix("losslog:")
    near, names = names.startswith("!"), names.lstrip("!")
    words = "all five" if names == ",".join(FIVE) else names.replace(",", " + ") or "the journal alone"
    words = words.replace("burner", "a plugin that burns 1 ms of Python a record")
    return f"losslog, {words}{', without the follower' if near else ''}"


class Found:
    """The answers, by measure and subject."""

    def __init__(self, results: Results) -> None:
        self._rows = [(json.loads(key), answers) for key, answers in results.items()]

    def of(self, measure: str, subject: str | None = None, **more: Any) -> list[tuple[str, list[dict[str, Any]]]]:
        """(subject, answers) of a measure, in the order of the plan."""
        wanted = {"measure": measure, **({"subject": subject} if subject is not None else {}), **more}
        rows = [
            (request["subject"], answers)
            for request, answers in self._rows
            if answers and all(request.get(name) == value for name, value in wanted.items())
        ]
        return sorted(rows, key=lambda row: (not row[0].startswith("losslog"), row[0].count(","), row[0]))

    def one(self, measure: str, subject: str, *path: str, **more: Any) -> list[float]:
        """A figure of one variant, of every repeat."""
        rows = self.of(measure, subject, **more)
        return figures(rows[0][1], *path) if rows else []


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Repeat by repeat."""
    return [a / b for a, b in zip(above, below, strict=False) if b]


def render(results: Results, setting: dict[str, Any], scale: Scale) -> str:
    """The whole generated part of the page."""
    found = Found(results)
    parts = [
        f"Measured on {setting['machine']}; at most {scale.repeats} repeats, in fresh processes, in shuffled order. "
        "Figures are medians, minima in brackets. F is the time of five `.item()` in the same process.\n"
    ]
    sections = (
        ("The goals", goals(found, setting)),
        ("The call, in a loop of nothing else: five components, their total and the learning rate at every step",
         calls(found)),
        ("Real training steps", loops(found, setting)),
        ("A hundred small ops of the model beside lanes that work off a backlog", small_ops(found)),
        ("CPU of each plugin's own thread, us a record", lanes(found)),
        ("Memory, import, journal", rest(found)),
    )  # fmt: skip
    parts += [f"### {title}\n\n{body}" for title, body in sections if body]
    return "\n".join(parts)


def goals(found: Found, setting: dict[str, Any]) -> str:
    """Goal, figure, verdict."""
    short, long = ({"size": setting[name].get("size", -1), "detector": None} for name in ("short", "long"))
    floor = found.one("tight", ALL, "floor", "p50")
    background = found.one("loop", ALL, "others_us", **short)
    call = found.one("loop", ALL, "calls", "mean", **short)
    cpu = [a + b for a, b in zip(background, call, strict=False)]
    inline = middle(found.one("tight", "four inline", "cpu_s_per_10k"))
    grown = found.one("memory", LOCAL, "training_kB", "per_1k")
    ops = found.of("ops", NEAR)
    busy, idle = (figures(ops[0][1], name, "mean") for name in ("busy", "idle")) if ops else ([], [])
    read = ratios(found.one("journal", "losslog:", "read_us"), found.one("journal", "losslog:", "json_loads_us"))
    rows = [
        goal("`log_batch` p50, all five, x F", ratios(found.one("tight", ALL, "calls", "p50"), floor), 3),
        goal("`log_batch` mean, all five, x F", ratios(found.one("tight", ALL, "calls", "mean"), floor), 6),
        goal("wall added at about 1 ms a step, all five, %", percent(found.one("loop", ALL, "added", **short)), 3),
        goal("wall added at about 20 ms a step, all five, %", percent(found.one("loop", ALL, "added", **long)), 0.3),
        goal("wall added by a plugin that burns 1 ms a record, in the follower, %",
             percent(found.one("loop", "losslog:burner", "added", **short)), 3),
        goal("CPU of the training process for logging, all threads, all five, us a step", cpu, 30),
        goal("CPU of everything over that of the four backends inline",
             [value / inline for value in found.one("tight", ALL, "cpu_s_per_10k")], 1 / 6),
        goal("100 small ops beside a backlog of near lanes, over none", ratios(busy, idle), 1.1),
        goal("memory growth of the training process, kB per 1,000 steps", grown, 1),
        goal("`close()` after 10,000 steps without a pause, local, s", found.one("tight", LOCAL, "close_s"), 1),
        goal("`import losslog`, ms", found.one("imports", "losslog", "ms"), 30),
        goal("records read from the journal and looked at, over `json.loads` of their lines", read, 1.5),
    ]  # fmt: skip
    return table(("what", "goal", "median", "best", ""), [row for row in rows if row])


def percent(values: Sequence[float]) -> list[float]:
    """Parts as per cent."""
    return [100 * value for value in values]


def goal(what: str, values: Sequence[float], limit: float) -> Row:
    """One row; the verdict is on the median."""
    if not values:
        return ()
    value = middle(values)
    reached = value <= limit
    best = min(values)
    return (what, f"<= {number(limit)}", number(value), number(best), "reached" if reached else "**not reached**")


def calls(found: Found) -> str:
    """Time in the call, its ratio to the floor, CPU and close."""
    rows = []
    for subject, answers in found.of("tight"):
        floor = figures(answers, "floor", "p50")
        p50 = figures(answers, "calls", "p50")
        rows.append((
            label(subject), both(p50), number(middle(figures(answers, "calls", "mean"))),
            number(middle(figures(answers, "calls", "p99"))), number(middle(ratios(p50, floor))),
            both(figures(answers, "cpu_s_per_10k")), both(figures(answers, "close_s")),
        ))  # fmt: skip
    head = ("who", "p50, us", "mean, us", "p99, us", "p50 / F", "CPU of all processes, s per 10,000 steps", "close, s")
    return table(head, rows)


def loops(found: Found, setting: dict[str, Any]) -> str:
    """What a training loop notices."""
    rows = []
    for name in ("short", "long", "Mask R-CNN on cpu", "Mask R-CNN on cuda"):
        device = name.partition(" on ")[2] or None
        size = {} if device else {"size": setting[name].get("size", -1)}
        for subject, answers in found.of("loop", detector=device, **size):
            rows.append((
                label(subject) + (f", {name}" if device else ""), number(middle(figures(answers, "step_us")) / 1e3),
                both(percent(figures(answers, "added"))), number(middle(percent(figures(answers, "added_median")))),
                number(middle(figures(answers, "calls", "p50"))), number(middle(figures(answers, "floor", "p50"))),
                both(figures(answers, "others_us")), number(middle(figures(answers, "close_s"))),
            ))  # fmt: skip
    head = ("who", "step, ms", "wall added to the mean step, %", "to the median step, %", "p50 of the call, us",
            "F here, us", "CPU of other threads of the process, us a step", "close, s")  # fmt: skip
    return table(head, rows)


def small_ops(found: Found) -> str:
    """Waits for the GIL."""
    rows = []
    for subject, answers in found.of("ops"):
        cells = [label(subject)]
        for name in ("p50", "mean", "p99"):
            busy, idle = figures(answers, "busy", name), figures(answers, "idle", name)
            cells.append(f"{number(middle(busy))} / {number(middle(idle))} = {number(middle(ratios(busy, idle)))}")
        rows.append(tuple(cells))
    return table(("who", "p50, us, busy / idle", "mean", "p99"), rows)


def lanes(found: Found) -> str:
    """What each plugin costs where it runs."""
    rows = []
    for name in FIVE:
        far = found.one("tight", f"losslog:{name}", "lanes", name)
        near = found.one("loop", ALL_NEAR, "lanes", name)
        rows.append((name, both(far), both(near)))
    rows = [row for row in rows if row[1] != "-" or row[2] != "-"]
    return table(("plugin", "where it runs by default", "all five without the follower, beside training"), rows)


def rest(found: Found) -> str:
    """Everything that is one figure."""
    rows: list[Row] = []
    for subject, answers in found.of("imports"):
        rows.append((f"`import {subject}`, ms", both(figures(answers, "ms"))))
    for subject, answers in found.of("memory"):
        steps = f"{int(middle(figures(answers, 'steps'))):,} steps, {label(subject)}"
        for name, words in (("training_kB", "training process"), ("follower_kB", "follower")):
            at = [number(middle(figures(answers, name, key)) / 1024) for key in ("first", "half", "last")]
            slope = number(middle(figures(answers, name, "per_1k")))
            rows.append((f"memory of the {words} at 2 %, 50 %, 100 % of {steps}, MB; growth, kB per 1,000 steps",
                         f"{', '.join(at)}; {slope}"))  # fmt: skip
    for _, answers in found.of("journal"):
        rows += [
            ("journal, bytes a record", number(middle(figures(answers, "bytes")))),
            ("journal, from the queue to the file, us a record", both(figures(answers, "write_us"))),
            ("journal, read and decoded, us a record", both(figures(answers, "read_us"))),
            ("`json.loads` of the same lines alone, us", both(figures(answers, "json_loads_us"))),
            (f"`losslog replay` of {int(middle(figures(answers, 'records'))):,} records to TensorBoard, s (CPU s)",
             f"{number(middle(figures(answers, 'replay_s')))} ({number(middle(figures(answers, 'replay_cpu_s')))})"),
        ]  # fmt: skip
    return table(("what", ""), rows)


def renew(page: Path, text: str, begin: str = BEGIN, end: str = END) -> None:
    """Put ``text`` between two of the page's markers.

    Raises:
        ValueError: the page has no such markers.
    """
    before, there, inside = page.read_text("utf-8").partition(begin)
    _, too, after = inside.partition(end)
    if not there or not too:
        raise ValueError(f"{page} lacks the markers {begin} and {end}")
    page.write_text(f"{before}{begin}\n\n{text}\n{end}{after}", "utf-8")
