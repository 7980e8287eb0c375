"""The examples: the loop after prints what the loop before prints, and what it logs is what the loop computes."""

import json
import re
import runpy
import sys
from pathlib import Path

import pytest

from losslog.compat import reporting

EXAMPLES = Path(__file__).parents[2] / "examples"
COMPONENTS = {"loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg"}


@pytest.fixture
def play(tmp_path, monkeypatch, capsys):
    """Runs an example for two steps an epoch; gives what it printed and what it logged."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setenv("LOSSLOG_PLUGINS", "")

    def run(name, *words):
        monkeypatch.setattr(sys, "argv", [name, "2", *words])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        for each in reporting._shared:  # what the interpreter's exit does in a script
            if each.logbook.made is not None:
                each.logbook.made.close()
        found = [
            json.loads(line)
            for path in tmp_path.glob("runs/*/*/journal.jsonl")
            for line in path.read_text().splitlines()
        ]
        return capsys.readouterr().out, found

    yield run
    for module in ("shapes", "f1_meters", "f1_engine"):
        sys.modules.pop(module, None)


def of(records, hook):
    return [each["data"] for each in records if each["hook"] == hook]


@pytest.mark.parametrize("family", [1, 3, 5, 6])
def test_after_prints_what_before_prints(play, family):
    before, nothing = play(f"f{family}_before.py")
    after, records = play(f"f{family}_after.py")
    assert nothing == []
    assert after == before
    batches, ends = of(records, "on_batch_losses"), of(records, "on_epoch_end")
    assert len(batches) == 2 * len(ends)
    assert all(set(each["losses"]) == COMPONENTS for each in batches)
    printed = [float(number) for number in re.findall(r"^epoch \d+: (?:loss )?(\d+\.\d+)", after, re.M)]
    factor = 2 if family == 5 else 1  # that loop logs the divided loss
    for end, number in zip(ends, printed, strict=False):
        assert end["total"] / factor == pytest.approx(number, abs=6e-5)
    if family == 1:
        assert [set(each["metrics"]) for each in of(records, "on_eval")] == [{"bbox", "segm"}] * 2
    if family == 3:
        shown = [float(number) for number in re.findall(r"val loss (\d+\.\d+)", after)]
        assert [sum(each["val_loss"].values()) for each in ends] == pytest.approx(shown, abs=6e-5)
    if family == 5:
        assert [each["n"] for each in batches] == [2, 2]
        assert set(batches[0]["lr"]) == {"backbone", "heads"}


def test_the_meters_of_an_edited_engine(play):
    before, _ = play("f2_before.py")
    after, records = play("f2_after.py")
    assert after.splitlines()[-1] == before.splitlines()[-1]
    means = json.loads(after.splitlines()[-1].partition(": ")[2])
    assert [each["total"] for each in of(records, "on_epoch_end")] == means


def test_a_writer_that_is_there(play, tmp_path, monkeypatch):
    pytest.importorskip("torch.utils.tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    play("f4_before.py", "before")
    monkeypatch.setenv("LOSSLOG_PLUGINS", "tensorboard")
    _, records = play("f4_after.py", "after")
    events = EventAccumulator(str(tmp_path / "after")).Reload()
    tags = set(events.Tags()["scalars"])
    assert {"Loss/train", "loss/train_loss_mask", "loss/train_total", "lr"} <= tags
    ends = of(records, "on_epoch_end")
    assert [each.value for each in events.Scalars("loss/train_total")] == pytest.approx([e["total"] for e in ends])
    assert [each.value for each in events.Scalars("Loss/train")] == pytest.approx([e["total"] for e in ends])
