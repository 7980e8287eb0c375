"""``losslog cat`` and ``losslog export``: a run for other tools."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import losslog
from losslog.cli import main
from losslog.history import series
from losslog.journal.folder import JOURNAL
from losslog.viewing import export as module


@pytest.fixture
def resumed_run(make_run: Callable[..., losslog.Run]) -> Path:
    """A run that was resumed from step 9, with a loss that comes and goes, a NaN, metrics and evaluations."""
    run = make_run(epochs=4)
    for step in range(30):
        run.log_batch({"a": 1.0 / (step + 1), **({"rare": 2.0} if step % 7 == 3 else {})}, lr={"x": 0.1, "y": 0.2})
        if step % 10 == 4:
            run.log_metrics({"gpu": step}, step=step)
        if step % 10 == 9:
            run.log_eval({"bbox": {"AP": step / 100}})
            run.end_epoch(val_loss=1.0)
    run.end_at_exit("crashed", None)
    again = make_run(resume=run.dir, resume_epoch=1, resume_step=9)
    for _ in range(15):
        again.log_batch({"a": math.nan})
    again.end_epoch()
    again.close()
    return run.dir


def exported(folder: Path, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    assert main(["export", str(folder), *words]) == 0
    return capsys.readouterr().out


def expected(folder: Path, by: str) -> dict[int, dict[str, float]]:
    """What backends get, by x."""
    found: dict[int, dict[str, float]] = {}
    for tag, values in series(folder).items():
        own = tag.startswith("batch/") or tag == "gpu"
        for x, value in values.items() if own == (by == "step") else ():
            found.setdefault(x, {})[tag] = value
    return found


@pytest.mark.parametrize("by", ["step", "epoch"])
def test_csv_has_what_backends_get(resumed_run: Path, capsys: pytest.CaptureFixture[str], by: str) -> None:
    rows = [*csv.DictReader(io.StringIO(exported(resumed_run, capsys, "--to", "csv", "--by", by)))]
    found = {int(row[by]): {tag: float(text) for tag, text in row.items() if text and tag not in (by, "time")}
             for row in rows}  # fmt: skip
    assert repr(found) == repr(
        {x: {tag: values[tag] for tag in found[x]} for x, values in expected(resumed_run, by).items()}
    )
    assert [*found] == sorted(found)
    assert all(float(row["time"]) > 1e9 for row in rows)


def test_jsonl_is_strict_json(resumed_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(text: str) -> None:
        raise AssertionError(text)

    lines = exported(resumed_run, capsys, "--to", "jsonl").splitlines()
    rows = [json.loads(line, parse_constant=refuse) for line in lines]
    assert [row["step"] for row in rows] == list(range(25))
    assert rows[3]["batch/train_rare"] == 2.0
    assert "batch/train_rare" not in rows[4]
    assert rows[20]["batch/train_a"] is None


def test_parquet_is_the_same_table(resumed_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    out = tmp_path / "steps.parquet"
    assert "KiB" in exported(resumed_run, capsys, "--to", "parquet", "-o", str(out))
    found = parquet.read_table(out).to_pylist()
    assert [row["step"] for row in found] == list(range(25))
    assert (found[3]["batch/train_rare"], found[4]["batch/train_rare"]) == (2.0, None)
    assert math.isnan(found[20]["batch/train_a"])
    assert [each.name for each in tmp_path.iterdir() if each.is_file()] == ["steps.parquet"]


def test_many_rows_come_in_bounded_memory(
    resumed_run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = exported(resumed_run, capsys, "--to", "csv")
    monkeypatch.setattr(module, "OPEN", 6)
    monkeypatch.setattr(module, "GROUP", 4)
    assert exported(resumed_run, capsys, "--to", "csv") == whole
    parquet = pytest.importorskip("pyarrow.parquet")
    exported(resumed_run, capsys, "--to", "parquet", "-o", str(tmp_path / "x.parquet"))
    assert parquet.ParquetFile(tmp_path / "x.parquet").metadata.num_row_groups == 7
    monkeypatch.setattr(module, "CELLS", 1)  # one row at a time, however many columns there are
    exported(resumed_run, capsys, "--to", "parquet", "-o", str(tmp_path / "x.parquet"))
    assert parquet.ParquetFile(tmp_path / "x.parquet").metadata.num_row_groups == 26
    assert parquet.read_table(tmp_path / "x.parquet").column("step").to_pylist() == list(range(25))


def test_what_cannot_be_is_said_in_a_line(
    resumed_run: Path,
    make_run: Callable[..., losslog.Run],
    capsys: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    assert main(["export", str(resumed_run), "--to", "parquet"]) == 2
    assert capsys.readouterr().err == "losslog export: parquet is no text: say -o FILE\n"
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert main(["export", str(resumed_run), "--to", "parquet", "-o", str(tmp_path / "x")]) == 2
    assert "Parquet needs pyarrow: pip install pyarrow" in capsys.readouterr().err
    assert main(["export", str(resumed_run), "--to", "csv", "-o", str(tmp_path / "no" / "x.csv")]) == 2
    assert "cannot be written" in capsys.readouterr().err
    empty = make_run(name="empty")
    empty.close()
    assert main(["export", str(empty.dir), "--to", "csv"]) == 2
    assert f"{empty.id} has no values by step yet" in capsys.readouterr().err
    assert not [*tmp_path.glob(".x*")]
    with pytest.raises(SystemExit):
        main(["export", str(resumed_run), "--to", "excel"])


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_journal_that_cannot_be_read_is_not_blamed_on_the_output(
    resumed_run: Path, capsys: Any, tmp_path: Path, kind: str
) -> None:
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    elsewhere, out = tmp_path / "elsewhere", tmp_path / f"x.{kind}"
    (resumed_run / JOURNAL).rename(elsewhere)
    try:
        (resumed_run / JOURNAL).symlink_to(elsewhere)
    except OSError:
        pytest.skip("this platform lets this user make no links")
    assert main(["export", str(resumed_run), "--to", kind, "-o", str(out)]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert f"{JOURNAL} is a link: nothing is read from it" in said
    assert "cannot be written" not in said
    assert not out.exists()


def test_a_folder_gets_the_table(resumed_run: Path, capsys: Any, tmp_path: Path) -> None:
    for said in (str(tmp_path), f"{tmp_path}/"):
        assert main(["export", str(resumed_run), "--to", "csv", "-o", said]) == 0
        (tmp_path / f"{resumed_run.name}.csv").unlink()


def test_cat_prints_the_lines_as_they_stand(resumed_run: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    whole = (resumed_run / JOURNAL).read_bytes()
    with (resumed_run / JOURNAL).open("ab") as file:
        file.write(b'garbled\n{"seq": 99, "ti')
    assert main(["cat", str(resumed_run)]) == 0
    sys.stdout.flush()
    assert capfdbinary.readouterr().out == whole + b"garbled\n"


def test_cat_steers_no_terminal(
    resumed_run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with open(resumed_run / JOURNAL, "ab") as file:
        file.write(b'{"seq": \x1b]0;owned\x07\x9b1m\r\0}\n')
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert main(["cat", str(resumed_run)]) == 0
    out = capsys.readouterr().out
    assert out.endswith('{"seq": ?]0;owned?\ufffd1m??}\n')
    assert out.count("\n") == (resumed_run / JOURNAL).read_bytes().count(b"\n")


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_export_steers_no_terminal(
    make_run: Callable[..., losslog.Run], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    run = make_run()
    run.log_batch({"a\x1b]0;owned\x07": 1.0, "b\x9b1m": 2.0})
    run.close()
    assert main(["export", str(run.dir), "--to", kind]) == 0
    piped = capsys.readouterr().out
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert main(["export", str(run.dir), "--to", kind]) == 0
    shown = capsys.readouterr().out
    assert {char for char in shown if not char.isprintable()} == {"\n"}
    assert shown.count("\n") == piped.count("\n") > 0
    assert "owned" in shown


def test_cat_stops_where_nobody_reads_on(resumed_run: Path, finished: Callable[..., Any]) -> None:
    source = """
    import subprocess, sys
    child = subprocess.Popen([sys.executable, "-m", "losslog", "cat", sys.argv[1]], stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE)
    child.stdout.readline()
    child.stdout.close()
    print(child.wait(), child.stderr.read())
    """
    with (resumed_run / JOURNAL).open("ab") as file:
        file.write(b'{"x": 1}\n' * 200_000)
    assert finished(source, str(resumed_run)).stdout == "0 b''\n"
