"""Damages a run folder in every way that comes to mind, and has every reader look at it.

Main thread. After each round

- no reader ends in a traceback, or after more than 20 seconds;
- no reader has written anything into the folder, and none has put a character on the terminal that could steer it;
- a replay delivers every record whose line is whole, in order, once.

``python scripts/fuzz.py --rounds 2000 --seed 1``
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import losslog
from losslog.cli import main as command
from losslog.history import records, series
from losslog.journal.folder import INDEX, JOURNAL
from losslog.journal.lines import read

SINK = """
import json
from losslog import hookimpl
class Plugin:
    journal_options = ()
    got = []
    def _keep(self, time):
        Plugin.got.append(time)
"""
HOOKS = (
    "run_start",
    "batch_losses",
    "eval",
    "images",
    "metrics",
    "epoch_end",
    "checkpoint",
    "alert",
    "resume",
    "run_end",
)
SINK += "".join(f"    @hookimpl\n    def on_{hook}(self, time):\n        self._keep(time)\n" for hook in HOOKS)
ODD: tuple[Any, ...] = (
    None, True, -1, 0, 10**15, 2**63, 10**300, 1e308, float("nan"), float("inf"), "", "x", "\x1b]0;owned\x07\x9b1m",
    "\ud800", "../../up", "a\0b", [], [[]], {}, {"": 1}, {"a": {"b": {"c": {}}}}, {"\x1b[31m": 1.0}, ["x"] * 100,
)  # fmt: skip


def story(home: Path) -> Path:
    """A run with a record of every kind."""
    run = losslog.Run("fuzz", dir=home, plugins=None, follower=False, epochs=2, config={"lr": 0.1, "deep": {"a": [1]}})
    for epoch in (1, 2):
        for step in range(12):
            run.log_batch({"loss_mask": 1.0 / (step + 1), "loss_box": 2.0}, lr={"head": 0.1, "body": 0.01}, n=2)
        run.log_metrics({"speed": 12.5})
        run.log_eval({"bbox": {"AP": 0.5, "classes": {"cat": 0.25}}, "flat": float("nan")})
        run.log_checkpoint(f"checkpoints/{epoch}.pt")
        boxes = [{"box": [1.0, 2.0, 30.0, 40.0], "label": "cat", "score": 0.5}]
        image = {"id": 1, "path": "1.jpg", "width": 64, "height": 48, "truth": boxes, "predictions": boxes}
        run.log_images("val", [image], name="worst")
        run.alert("a title", "a text", key=f"k{epoch}")
        run.end_epoch(val_loss={"loss_mask": 1.5})
    run.close()
    (run.dir / "cursors").mkdir(exist_ok=True)
    (run.dir / "cursors" / "sink.json").write_text('{"offset": 0, "seq": -1, "start": 0}')
    return run.dir


def flip(content: bytearray, chance: random.Random) -> None:
    """Some bits or bytes."""
    for _ in range(chance.choice((1, 1, 3, 40))):
        content[chance.randrange(len(content))] = chance.randrange(256)


def cut(content: bytearray, chance: random.Random) -> None:
    """Some bytes are gone, or the end."""
    at = chance.randrange(len(content))
    del content[at : at + chance.choice((1, 7, 300, 10**6))]


def insert(content: bytearray, chance: random.Random) -> None:
    """Lines of somebody else."""
    at = chance.randrange(len(content))
    content[at:at] = chance.choice((b"\n", b"Traceback (most recent call last):\n", b"\0" * 999, b"{" * 5000, b"[1]\n"))


def retype(content: bytearray, chance: random.Random) -> None:
    """Right JSON with wrong values."""
    lines = bytes(content).splitlines(keepends=True)
    at = chance.randrange(len(lines))
    body = json.loads(lines[at])
    where: Any = body
    while True:
        key = chance.choice(list(where) if isinstance(where, dict) else range(len(where)))
        inner = where[key]
        if not isinstance(inner, dict | list) or not inner or chance.random() < 0.4:
            where[key] = chance.choice(ODD)
            break
        where = inner
    lines[at] = json.dumps(body).encode("ascii", "replace") + b"\n"
    content[:] = b"".join(lines)


DAMAGES: tuple[Callable[[bytearray, random.Random], None], ...] = (flip, cut, insert, retype, retype, retype)


def damaged(content: bytes, chance: random.Random) -> bytes:
    """Content with one damage of any kind."""
    changed = bytearray(content)
    with contextlib.suppress(ValueError):  # no lines of JSON
        chance.choice(DAMAGES)(changed, chance)
    return bytes(changed)


def odd_files(folder: Path, outside: Path, chance: random.Random) -> bool:
    """Links, pipes and devices; whether the folder may be refused for them."""
    cursor = folder / "cursors" / "sink.json"
    kind = chance.randrange(12)
    if kind == 0:
        cursor.write_bytes(bytes(chance.randrange(256) for _ in range(60)))
        return False
    if kind == 1:
        body = {"offset": 0, "seq": -1, "start": 0} | {chance.choice(("offset", "seq", "start")): chance.choice(ODD)}
        cursor.write_text(json.dumps(body))
        return False
    if kind == 6:
        (folder / INDEX).write_bytes(damaged((folder / INDEX).read_bytes(), chance))
        return False
    if kind > 6 or os.name == "nt":
        return False
    target = cursor if kind < 4 else folder / chance.choice(("tensorboard", "x", "cursors/sink.tmp"))
    target.unlink(missing_ok=True)
    if kind == 2:
        os.mkfifo(target)
    elif kind == 3:
        target.symlink_to("/dev/zero")
    else:
        target.symlink_to(outside)
    return True


def listing(folder: Path) -> dict[str, Any]:
    """What is in a folder."""
    return {
        str(path): (path.lstat().st_mtime_ns, path.lstat().st_size)
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.exists()
    }


class Trouble(Exception):
    """A promise was broken."""


def called(*words: str) -> int:
    """One command; what it printed is looked at."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            code = command(list(words))
        except SystemExit as leaving:
            code = int(leaving.code or 0)
    steering = {char for char in out.getvalue() if not char.isprintable() and char not in "\n\t\r"}
    raised = "Traceback" in out.getvalue() and words[0] != "cat"  # which shows what stands there
    if steering or raised or code not in (0, 1, 2):
        raise Trouble(f"{' '.join(words)}: code {code}, {steering or ''}\n{out.getvalue()[-2000:]}")
    return code


def whole_records(journal: Path, before: set[bytes]) -> list[float]:
    """Times of the records whose lines are as they were written; a seq is counted anew behind a gap."""
    lines = [line for line in journal.read_bytes().splitlines(keepends=True) if line in before]
    return [json.loads(line)["time"] for line in lines]


def one_round(folder: Path, twin: Path, outside: Path, chance: random.Random, sink: Any) -> None:
    """Damage it, look at it, replay it."""
    journal = folder / JOURNAL
    before = set(journal.read_bytes().splitlines(keepends=True))
    content = bytearray(journal.read_bytes())
    chance.choice(DAMAGES)(content, chance)
    journal.write_bytes(content)
    refused = odd_files(folder, outside, chance)
    there = listing(folder)
    for words in (["show", str(folder)], ["show", str(folder), "--json"], ["ls", "--dir", str(folder.parent.parent)],
                  ["report", str(folder), "-o", str(outside / "page.html")], ["watch", str(folder)],
                  ["diagnose", str(folder)], ["cat", str(folder)], ["compare", str(folder), str(twin)],
                  ["export", str(folder), "--to", "csv", "-o", str(outside / "run.csv")]):  # fmt: skip
        called(*words)
    if not refused:
        series(folder)
        list(records(folder, superseded=True))
    if listing(folder) != there:
        raise Trouble(f"a reader wrote: {set(listing(folder).items()) ^ set(there.items())}")
    intact = whole_records(journal, before)
    sink.got.clear()
    code = called("replay", str(folder), "--to", "sink", "--from-start")
    if refused or code == 2:
        return
    read_back = [record.time for _, record in read(journal) if record is not None]
    if missing := [time for time in intact if time not in sink.got]:
        raise Trouble(f"a replay left out {missing} of {intact}, it gave {sink.got}")
    if sink.got.count(intact[-1] if intact else -1) > read_back.count(intact[-1] if intact else -1) + 1:
        raise Trouble(f"a replay gave a record twice: {sink.got}")


def installed(place: Path) -> Any:
    """The sink, as a plugin that is installed."""
    (place / "losslog_fuzz_sink.py").write_text(SINK)
    info = place / "losslog_fuzz_sink-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: losslog-fuzz-sink\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[losslog.plugins]\nsink = losslog_fuzz_sink:Plugin\n")
    sys.path.insert(0, str(place))
    import losslog_fuzz_sink

    return losslog_fuzz_sink.Plugin


def too_long(*_: Any) -> None:
    """A reader hangs."""
    raise Trouble("it took longer than 20 s")


def main() -> int:
    """Run the rounds; the first that fails is shown, and left where it is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        os.environ["XDG_CACHE_HOME"] = str(home / "cache")
        (home / "site").mkdir()
        (home / "outside").mkdir()
        sink = installed(home / "site")
        made = story(home / "made")
        if hasattr(signal, "SIGALRM"):
            signal.signal(signal.SIGALRM, too_long)
        for number in range(args.seed, args.seed + args.rounds):
            folder = home / "runs" / "fuzz" / made.name
            shutil.rmtree(home / "runs", ignore_errors=True)
            shutil.copytree(made, folder)
            if hasattr(signal, "SIGALRM"):
                signal.alarm(20)
            try:
                one_round(folder, made, home / "outside", random.Random(number), sink)
            except Exception:  # noqa: BLE001 - whatever it is, it is what was looked for
                traceback.print_exc()
                kept = Path(tempfile.mkdtemp(prefix="losslog-fuzz-"))
                with contextlib.suppress(shutil.Error):  # a pipe
                    shutil.copytree(folder, kept / folder.name, symlinks=True)
                print(f"round {number} failed: {kept / folder.name}", file=sys.stderr)
                return 1
        print(f"{args.rounds} rounds from seed {args.seed}: every reader held")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
