"""The index beside a journal tells what the journal tells, however it came about, and never more."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import losslog
from losslog.cli import main
from losslog.history import records, resumes
from losslog.journal import index as module
from losslog.journal import tally
from losslog.journal.fences import is_void
from losslog.journal.file import Writer, append_record
from losslog.journal.folder import INDEX, JOURNAL
from losslog.journal.index import Index, index_of
from losslog.journal.lines import read
from losslog.journal.records import Record, encode
from losslog.tags import eval_series


@pytest.fixture(autouse=True)
def _dense(monkeypatch: pytest.MonkeyPatch) -> None:
    """Marks and writes as a run of many megabytes has them, in a few kilobytes."""
    monkeypatch.setattr(tally, "MARK_EVERY", 2000)
    monkeypatch.setattr(module, "KEEP_EVERY", 1000)
    monkeypatch.setattr(tally, "MARKS", 6)


def a_story(seed: int) -> list[Record]:
    """Records of a run that was resumed now and then, sometimes from far back."""
    draw, found = random.Random(seed), []
    step, epoch, scalar = 0, 1, seed % 5 == 0

    def add(hook: str, **data: Any) -> None:
        found.append(Record(len(found), 1000.0 + len(found), hook, data))

    add("on_run_start", name="first", epochs=9, config={})
    for _ in range(draw.randrange(50, 400)):
        kind = draw.random()
        if kind < 0.75:
            losses: Any = draw.random() if scalar else {"a": draw.choice([1.0, math.nan, 3]), "on_resume": 2.0}
            step += draw.choice([1, 1, 1, 1, 3, -1])
            step = max(0, step)
            add("on_batch_losses", step=step, epoch=epoch, losses=losses, total=1.5)
        elif kind < 0.83:
            add("on_epoch_end", epoch=epoch, step=step, losses={"a": 1.0}, total=1.0)
            add("on_eval", epoch=epoch, split="val", metrics={"bbox": {"AP": draw.random()}})
            add("on_checkpoint", epoch=epoch, step=step, path=f"epoch_{epoch}.pth")
            epoch += 1
        elif kind < 0.88:
            add("on_alert", level="info", title="x", key=f"k/{draw.randrange(20)}", step=step, epoch=epoch)
        elif kind < 0.93:
            detail: Any = {"reach": {"a": {"head": draw.randrange(9)}}, "parts": {}} if draw.random() < 0.5 else None
            at = draw.choice([None, step])
            add("on_metrics", step=at, epoch=epoch, metrics={"m": 1.0}, **({"detail": detail} if detail else {}))
        elif kind < 0.97:
            add("on_custom", x=1)
        else:
            add("on_run_start", name="again", epochs=draw.randrange(5, 50), config={})
            to_step, to_epoch = draw.choice([(draw.randrange(-1, step + 1), None), (None, draw.randrange(0, epoch + 1)),
                                             (draw.randrange(-1, step + 1), draw.randrange(0, epoch + 1))])  # fmt: skip
            add("on_resume", step=to_step, epoch=to_epoch)
            step, epoch = step if to_step is None else to_step + 1, epoch if to_epoch is None else to_epoch + 1
    if draw.random() < 0.5:
        add("on_run_end", status="finished")
    return found


def lines_of(records: list[Record], draw: random.Random | None = None) -> bytes:
    lines = [encode(each) for each in records]
    for place in range(len(lines) - 1) if draw is not None else ():
        if draw is not None and place and draw.random() < 0.02:
            lines[place] = draw.choice([b"?\n", lines[place][:70] + b"\n"])
    return b"".join(lines)


def by_force(path: Path) -> tuple[dict[str, Any], list[int], set[str]]:
    """What an index must tell, from every record decoded."""
    found, every, begin, starts = [], [], 0, []
    for end, record in read(path):
        if record is not None:
            every.append(record)
            if record.hook == "on_run_start":
                starts = [*starts[:1], begin]
        found.append(record)
        begin = end
    fences = [each for each in every if each.hook == "on_resume"]
    counting = [each for each in every if not is_void(each, fences)]
    counts: dict[str, int] = {"on_batch_losses": 0}
    best: dict[str, list[float]] = {}
    for each in counting:
        counts[each.hook] = counts.get(each.hook, 0) + 1
        if each.hook == "on_eval":
            for tag, value in eval_series(each.data["metrics"], "val").items():
                if tag not in best or value > best[tag][0]:
                    best[tag] = [value, each.data["epoch"]]

    def of(hook: str, among: list[Record] = every) -> list[dict[str, Any]]:
        return [each.data for each in among if each.hook == hook]

    checkpoints: list[list[Any]] = []
    steps = 0
    for place, each in enumerate(every):
        if each.hook == "on_checkpoint":
            checkpoints.append([each.data["path"], each.data["epoch"], each.data["step"]])
        elif each.hook == "on_epoch_end":
            epoch, step = each.data["epoch"], each.data["step"]
            earlier = [one for one in every[:place] if one.hook == "on_resume"]
            ends = [one.data for one in every[:place] if one.hook == each.hook and not is_void(one, earlier)]
            last = ends[-1] if ends else {"epoch": 0, "step": -1}
            steps = step - last["step"] if last["epoch"] == epoch - 1 else steps
            checkpoints = [[path, its - (its == epoch and at < step), at] for path, its, at in checkpoints]  # amid it
    told = {
        "name": next((each["name"] for each in of("on_run_start")), ""),
        "epochs": next((each["epochs"] for each in reversed(of("on_run_start"))), None),
        "started": every[0].time, "last": every[-1].time, "garbled": found.count(None),
        "ended": every[-1].data["status"] if every[-1].hook == "on_run_end" else None,
        "alerts": of("on_alert"), "starts": starts,
        "step": max([-1, *(each["step"] for each in of("on_batch_losses"))]),
        "epoch": ([0] + [each["epoch"] for each in of("on_epoch_end")])[-1],
        "done": max([0, *(each["epoch"] for each in of("on_epoch_end"))]),
        "steps": steps, "checkpoints": checkpoints,
        "counts": counts, "best": best,
        "last_epoch": ([{}, *of("on_epoch_end", counting)])[-1],
        "trains": next(
            ({"step": each["step"], **each["detail"]} for each in reversed(of("on_metrics", counting))
             if "detail" in each), {}),
        "last_step": ([{}, *of("on_batch_losses", counting)])[-1],
    }  # fmt: skip
    return told, [each.seq for each in fences], {str(each["key"]) for each in of("on_alert")}


def told_by(index: Index) -> tuple[str, list[int], set[str]]:
    facts = {key: value for key, value in index.facts.items() if key != "top"}
    return json.dumps(facts, sort_keys=True), [each.seq for each in index.fences], {*index.keys}


def expected(path: Path) -> tuple[str, list[int], set[str]]:
    facts, fences, keys = by_force(path)
    return json.dumps(facts, sort_keys=True), fences, keys


@pytest.mark.parametrize("seed", range(24))
def test_it_tells_what_every_record_decoded_tells(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    whole = lines_of(a_story(seed), draw)
    (tmp_path / JOURNAL).write_bytes(whole)
    assert told_by(index_of(tmp_path)) == expected(tmp_path / JOURNAL)
    for cut in sorted(draw.randrange(len(whole)) for _ in range(8)):  # kept in a hurry, in the middle of anything
        (tmp_path / JOURNAL).write_bytes(whole[:cut])
        kept = Index(tmp_path)
        kept.load()
        kept.read()
        kept.keep()
    (tmp_path / JOURNAL).write_bytes(whole)
    assert told_by(index_of(tmp_path)) == expected(tmp_path / JOURNAL)


@pytest.mark.parametrize("seed", range(6))
def test_what_is_no_batch_is_read_without_them(tmp_path: Path, seed: int) -> None:
    (tmp_path / JOURNAL).write_bytes(lines_of(a_story(seed), random.Random(seed)))
    for void in (False, True):
        every = [each for each in records(tmp_path, superseded=void) if each.hook in ("on_eval", "on_metrics")]
        assert [*records(tmp_path, superseded=void, hooks=("on_eval", "on_metrics"))] == every


@pytest.mark.parametrize("seed", range(12))
def test_the_writer_keeps_it_as_a_reader_would_make_it(tmp_path: Path, seed: int) -> None:
    draw, records = random.Random(seed), a_story(seed)
    while records:
        writer = Writer(tmp_path)  # a process dies, or ends, and another goes on
        for _ in range(draw.randrange(1, 4)):
            part, records = records[: (size := draw.randrange(1, 60))], records[size:]
            end, found = writer.end, []
            writer.append([encode(each) for each in part])
            for each in part:
                end += len(encode(each))
                found.append((end, each))
            writer.wrote(found)
            assert told_by(writer.index) == expected(tmp_path / JOURNAL)
        before = (tmp_path / INDEX).read_bytes() if (tmp_path / INDEX).exists() else None
        writer.close()
        if draw.random() < 0.5 and before is not None:
            (tmp_path / INDEX).write_bytes(before)  # killed before it could
    assert told_by(index_of(tmp_path)) == expected(tmp_path / JOURNAL)


def test_a_run_leaves_one_and_goes_on_from_it(make_run: Callable[..., losslog.Run], monkeypatch: Any) -> None:
    run = make_run()
    for epoch in range(3):
        for _ in range(50):
            run.log_batch({"a": 1.0})
        run.end_epoch()
        run.log_checkpoint(f"epoch_{epoch}.pth")
    run.close()
    kept = Index(run.dir)
    assert kept.load()
    assert kept.size == (run.dir / JOURNAL).stat().st_size
    monkeypatch.setattr(tally, "blocks", lambda path, offset, end=None: iter(()))  # nothing is read again
    again = make_run(resume=run.dir)
    assert (again.epoch, again.next_step) == (4, 150)
    again.close()


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"\xff", b'{"version": 2, "size": "x"}', b"[" * 10**5,
                                  b'{"version": 2, "size": 10, "check": "", "kept": [1, 2, 3, 4, 5, 6]}',
                                  b" " * (1 << 21)])  # fmt: skip
def test_one_that_is_torn_or_foreign_is_not_believed(tmp_path: Path, text: bytes) -> None:
    (tmp_path / JOURNAL).write_bytes(lines_of(a_story(1)))
    (tmp_path / INDEX).write_bytes(text)
    assert told_by(index_of(tmp_path)) == expected(tmp_path / JOURNAL)
    Writer(tmp_path).close()
    assert Index(tmp_path).load()  # whoever writes puts it right


def test_one_of_another_journal_or_of_a_longer_one_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / JOURNAL).write_bytes(lines_of(a_story(1)))
    Writer(tmp_path).close()
    (tmp_path / JOURNAL).write_bytes(lines_of(a_story(2)))
    assert told_by(index_of(tmp_path)) == expected(tmp_path / JOURNAL)
    (tmp_path / JOURNAL).write_bytes(lines_of(a_story(1))[:-500])  # a power cut took the end
    assert told_by(index_of(tmp_path)) == expected(tmp_path / JOURNAL)
    body = json.loads((tmp_path / INDEX).read_bytes())
    body["kept"][0]["step"] = 10**9  # edited by hand
    (tmp_path / INDEX).write_text(json.dumps(body), "ascii")
    (tmp_path / JOURNAL).write_bytes(lines_of(a_story(1)))
    assert index_of(tmp_path).lasting["step"] < 10**9


def test_readers_write_nothing_into_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "runs" / "made" / "20260101-000000-aaaa"
    folder.mkdir(parents=True)
    (folder / JOURNAL).write_bytes(lines_of(a_story(3)))
    for words in (["show", str(folder)], ["ls", "--dir", str(tmp_path / "runs")], ["watch", str(folder)]):
        assert main(words) == 0
    assert losslog.load(folder).status
    assert resumes(folder)
    assert [each.name for each in folder.iterdir()] == [JOURNAL]


def test_an_index_that_cannot_be_written_costs_nothing(
    make_run: Callable[..., losslog.Run], records: Callable[[Path], list[Record]]
) -> None:
    run = make_run()
    (run.dir / INDEX).mkdir()
    for _ in range(3):
        run.log_batch({"a": 1.0})
        run.end_epoch()
    run.close()
    assert [each.hook for each in records(run.dir)][-1] == "on_run_end"
    assert not [each for each in run.dir.iterdir() if each.name.startswith("journal.") and each.is_file()
                and each.suffix not in (".jsonl", ".lock")]  # fmt: skip


def test_it_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = Writer(tmp_path)
    for number in range(300):
        append_record(writer, "on_epoch_end", {"epoch": number + 1, "step": number, "losses": {"a": 1.0}, "total": 1.0})
        append_record(writer, "on_eval", {"epoch": number + 1, "split": "val", "metrics": {f"m{number}": {"AP": 1.0}}})
        append_record(writer, "on_checkpoint", {"epoch": number + 1, "step": number, "path": f"{number}.pth"})
        append_record(writer, "on_alert", {"level": "info", "title": "x" * 100, "key": f"k{number}"})
    writer.close()
    assert (tmp_path / INDEX).stat().st_size < 200_000
    monkeypatch.setattr(module, "MOST", 10)
    (tmp_path / INDEX).unlink()
    writer = Writer(tmp_path)
    assert len(writer.alert_keys) == 300
    writer.close()
    assert not (tmp_path / INDEX).exists()  # more keys than it may hold


ODD: list[Any] = [None, "x", 1.5, -1, [1], {"a": [1]}, True]


@pytest.mark.sampled(2)
@pytest.mark.parametrize("seed", range(4))
def test_an_index_of_somebody_elses_making_breaks_no_reader(
    tmp_path: Path, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    draw, folder = random.Random(seed), tmp_path / "runs" / "a" / "20260101-000000-cafe"
    folder.mkdir(parents=True)
    (folder / JOURNAL).write_bytes(b"".join(map(encode, a_story(seed))))
    honest = Index(folder)
    honest.read()
    body = json.loads(honest.body() or "")
    for _ in range(60):
        lasting, counted, fences, _, marks, _ = kept = json.loads(json.dumps(body["kept"]))
        target: Any = draw.choice([lasting, counted, kept, *([fences] if fences else []), *([marks] if marks else [])])
        place = draw.choice([*target] if isinstance(target, dict) else range(len(target)))
        target[place] = draw.choice(ODD)
        forged = body | {"kept": kept, "check": module.check(folder / JOURNAL, body["size"], kept)}
        (folder / INDEX).write_text(json.dumps(forged))
        for words in (["show", str(folder)], ["ls", "--dir", str(tmp_path / "runs")], ["diagnose", str(folder)]):
            assert main(words) == 0, (place, target[place], capsys.readouterr().err)
        assert index_of(folder).lasting["step"] >= -1
