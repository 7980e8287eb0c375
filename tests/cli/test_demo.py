from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("torchvision")

import torch

from losslog.cli import main

# pycocotools 2.0.11 on numpy 2.4, in mask.decode
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")


@pytest.fixture(autouse=True)
def threads_kept() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def run(*words: str) -> int:
    return main(["demo", *words])


def test_a_short_demo_logs_everything_and_says_where_to_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOSSLOG_FOLLOWER", "0")
    words = [
        "--dir",
        str(tmp_path),
        "--epochs",
        "2",
        "--steps-per-epoch",
        "1",
        "--plugins",
        "console",
        "--stall",
        "--images",
        "8",
    ]
    assert run(*words, "--held-out", "4", "--seed", "7") == 0
    out = capsys.readouterr().out
    assert out.count("Box mAP:") == out.count("Mask mAP:") == 2
    assert out.index("Where to look:") > out.rindex("Mask mAP:")
    (folder,) = (tmp_path / "demo").iterdir()
    assert f"{folder}/journal.jsonl" in out
    records = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    hooks = [record["hook"] for record in records]
    assert hooks.count("on_epoch_end") == hooks.count("on_eval") == hooks.count("on_checkpoint") == 2
    assert records[0]["data"]["config"]["seed"] == 7
    assert records[-1]["data"]["status"] == "finished"


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert run("--dir", str(tmp_path / "file")) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith(f"losslog demo: --dir {tmp_path / 'file'}: cannot write there")
