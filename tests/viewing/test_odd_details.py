"""What a journal may have below `detail`, `evidence`, `origin`, `cost` and `hardest`: no reader ends for it."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from losslog.cli import main
from losslog.history import records
from losslog.viewing.trained import cells

ODD: tuple[Any, ...] = (
    None, True, False, 0, 5, -1, 2**63, 10**400, 0.5, 1e308, "NaN", "-Infinity", "", "x", [], [5], ["x"], [None], [[]],
    [{}], [10**400], {}, {"a": 5}, {"a": {}}, {"a": []}, {"a": {"b": {"c": [5]}}}, {"": "x"},
)  # fmt: skip
STEPS = 40
STORY: list[tuple[str, dict[str, Any]]] = [
    ("on_run_start", {"name": "m", "epochs": 2, "config": {"a": {"b": 1}}, "options": {"x": {"x": 1}}, "origin": {
        "plugins": ["x"], "host": "h", "command": ["a"], "script": "s", "cwd": "/", "versions": {"torch": "2"}}}),
    *(("on_batch_losses", {"step": step, "epoch": 1, "losses": {"a": 1.0 + step % 3, "b": 2.0}, "total": 3.0})
      for step in range(STEPS)),
    *(("on_alert", {"level": "error", "title": cause, "text": "t", "key": cause, "component": component, "step": 7,
                    "cause": cause, "evidence": {"losses": ["a", "b"], "part": "x", "lost": ["x"], "step": 7}})
      for component in ("a", None) for cause in ("part_not_trained", "lr_zero", "not_in_optimizer")),
    *(("on_metrics", {"step": step, "metrics": {"reach/a": 2.0, "grad_share/a": 0.5, "grad_norm/x": 1.0}, "detail": {
        "reach": {"a": {"x": 2}, "b": {"x": 2}}, "steps_per_epoch": 40, "shares": {"a": 0.5}, "step": 3, "shared_at": 3,
        "parts": {"x": {"tensors": 2, "trainable": 2, "size": 3, "lr": [0.1], "outside": 0}}}}) for step in (10, 20)),
    ("on_epoch_end", {"epoch": 1, "losses": {"a": 1.0}, "total": 3.0, "hardest": {"a": [[1.0, 3, [7]]]}}),
    ("on_run_end", {"status": "finished", "cost": {"us_per_step": 1.0, "cpu_seconds": {"journal": 1.0}}}),
]  # fmt: skip
LOOSE = ("origin", "evidence", "detail", "hardest", "cost", "config", "options")


def places(value: Any) -> Iterator[tuple[Any, ...]]:
    """Paths to all that is below."""
    yield ()
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from ((key, *path) for path in places(value[key]))


def altered(hook: str, path: tuple[Any, ...], odd: Any) -> list[dict[str, Any]]:
    story = copy.deepcopy(STORY)
    for each, data in story:
        if each == hook:
            inner: Any = data
            for key in path[:-1]:
                inner = inner[key]
            inner[path[-1]] = odd
    return [{"seq": seq, "time": 1.7e9 + seq, "hook": each, "data": data} for seq, (each, data) in enumerate(story)]


CASES = list(dict.fromkeys((hook, (key, *path)) for hook, data in STORY for key in LOOSE if key in data
                           for path in places(data[key])))  # fmt: skip


def written(folder: Path, lines: list[dict[str, Any]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "journal.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    return folder


@pytest.mark.sampled(14)
@pytest.mark.parametrize(("hook", "path"), CASES, ids=[f"{hook}.{'.'.join(map(str, path))}" for hook, path in CASES])
def test_every_reader_bears_every_value_there(
    hook: str, path: tuple[Any, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("losslog_plateau")
    twin = written(tmp_path / "runs" / "m" / "20261126-000000-ffff", altered("", (), None))
    place = CASES.index((hook, path)) % len(ODD)
    values = ODD if os.environ.get("LOSSLOG_FAULTS") == "full" else (5, [[]], ODD[place])
    for number, odd in enumerate(values):
        run = written(tmp_path / "runs" / "m" / f"20261126-000000-{number:04x}", altered(hook, path, odd))
        for words in (["show"], ["show", "--json"], ["show", "--hard"], ["diagnose"], ["watch", "--plain"],
                      ["compare", str(twin)], ["report", "-o", str(tmp_path / "page.html")]):  # fmt: skip
            assert main([words[0], str(run), *words[1:]]) in (0, 1), (words, odd)
        told = capsys.readouterr()
        assert "cannot be judged" not in told.err, odd
        assert [record.seq for record in records(run) if record.hook == "on_batch_losses"] == [*range(1, STEPS + 1)]
    assert main(["ls", "--dir", str(tmp_path / "runs")]) == 0
    assert capsys.readouterr().out.count("unreadable") == 0


@pytest.mark.parametrize("odd", ODD)
def test_a_table_is_made_of_what_is_known(odd: Any) -> None:
    part = {"tensors": 2, "trainable": 2, "lr": odd}
    rows = cells({"reach": {"a": {"x": 1}}, "parts": {"x": part}})
    assert rows[:3] == [["tensors trained", "x"], ["a", "1"], ["of", "2"]]
    assert rows[3] == ["lr", "?"] or odd in ([5],)
