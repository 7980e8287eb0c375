"""Killed at any moment of compressing, unpacking, writing and indexing: nothing is lost, nothing doubled."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from losslog.journal.file import Writer
from losslog.journal.folder import INDEX, JOURNAL
from losslog.journal.index import Index, index_of
from losslog.journal.lines import read

KILLS = 50 if os.environ.get("LOSSLOG_FAULTS") == "full" else 6

pytestmark = pytest.mark.timeout(300)

LOOP = """
import sys
from pathlib import Path
from losslog.cli.compress import compress, undo
from losslog.journal import archive, file, index, tally
from losslog.journal.file import Writer
from losslog.journal.records import Record, encode

archive.BLOCK, index.KEEP_EVERY, tally.MARK_EVERY, file.INDEX_EVERY = 4000, 5000, 9000, 0.0
folder = Path(sys.argv[1])
print("ready", flush=True)
while True:
    writer = Writer(folder)  # of the plain journal again
    for _ in range(5):
        records = []
        for seq in range(writer.seq, writer.seq + 40):
            if seq % 50 == 49:
                records.append(Record(seq, 1.0, "on_epoch_end", {"epoch": seq // 50 + 1, "step": seq, "total": 1.0}))
            else:
                records.append(Record(seq, 1.0, "on_batch_losses", {"step": seq, "epoch": seq // 50 + 1,
                                      "losses": {"a": seq / 7}, "total": seq / 7}))
        end, found, lines = writer.end, [], [encode(each) for each in records]
        writer.append(lines)
        print("wrote", records[-1].seq, flush=True)
        for line, record in zip(lines, records):
            end += len(line)
            found.append((end, record))
        writer.wrote(found)
    writer.close()
    print("packed", compress(folder), flush=True)
    if writer.seq % 3:
        undo(folder)
"""


def test_killed_at_random_moments(script: Callable[..., Any], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    draw, packed, kept = random.Random(4), 0, 0
    for _ in range(KILLS):
        process = script(LOOP, str(folder))
        assert process.stdout.readline() == "ready\n", process.stderr.read()
        time.sleep(draw.random() * 0.05)
        process.kill()
        out, err = process.communicate()
        assert not err, err
        whole = out[: out.rfind("\n") + 1].splitlines()  # the kill may have come within a line
        said = [int(line.split()[1]) for line in whole if line.startswith("wrote")]
        found = [record for _, record in read(folder / JOURNAL)] if [*folder.glob(f"{JOURNAL}*")] else []
        assert None not in found
        assert [each.seq for each in found if each] == list(range(len(found)))
        assert len(found) > max([-1, *said])
        for record in found:
            if record is not None and record.hook == "on_batch_losses":
                assert record.data["losses"] == {"a": record.seq / 7}
        packed += not (folder / JOURNAL).exists()
        kept += (folder / INDEX).exists()
        if found:
            fresh = Index(folder)
            fresh.read()
            assert index_of(folder).facts == fresh.facts  # the kept one leads no reader astray
        writer = Writer(folder)
        assert writer.seq == len(found)
        writer.close()
        assert {each.name for each in folder.iterdir()} - {f"{JOURNAL}.gz", f"{JOURNAL}.zst", "cursors"} >= {JOURNAL}
    assert kept
