"""The drop-in meters against the references' own, value by value, and what they log."""

import importlib.util
import json
import re
from pathlib import Path

import pytest
import torch

import losslog
from losslog.compat import reporting
from losslog.compat.torchvision import MetricLogger, SmoothedValue
from losslog.instrument import signals


@pytest.fixture
def run(tmp_path):
    with losslog.Run("t", tmp_path, plugins=None) as run:
        yield run


def records(run, hook):
    run.close()
    found = [json.loads(line) for line in (run.dir / "journal.jsonl").read_text().splitlines()]
    return [each["data"] for each in found if each["hook"] == hook]


def test_smoothed_value_has_the_references_figures():
    meter = SmoothedValue(window_size=3, fmt="{median} {avg} {global_avg} {max} {value}")
    for value, n in ((4.0, 1), (torch.tensor(1.0), 2), (2.5, 1), (torch.tensor([0.5]), 1)):
        meter.update(value, n)
    assert list(meter.deque) == [1.0, 2.5, 0.5]
    assert meter.deque.maxlen == 3
    assert (meter.median, meter.max, meter.value, meter.count, meter.total) == (1.0, 2.5, 0.5, 5, 9.0)
    assert meter.global_avg == 1.8
    assert meter.avg == torch.tensor([1.0, 2.5, 0.5]).mean().item()
    assert str(meter) == f"1.0 {meter.avg} 1.8 2.5 0.5"
    meter.count, meter.total = 2, 3.0
    assert meter.global_avg == 1.5


def test_default_format_and_window():
    meter = SmoothedValue()
    meter.update(1)
    assert str(meter) == "1.0000 (1.0000)"
    assert meter.deque.maxlen == 20


def test_a_meter_nobody_looks_at_stays_small():
    meter = SmoothedValue()
    for _ in range(5000):
        meter.update(1.0)
    assert len(meter._waiting) <= 1000
    assert meter.count == 5000


def test_attributes_and_text(run):
    logger = MetricLogger(delimiter="; ", run=run)
    logger.add_meter("lr", SmoothedValue(window_size=1, fmt="{value:.6f}"))
    logger.update(lr=0.1, loss=torch.tensor(2.0))
    assert str(logger) == "lr: 0.100000; loss: 2.0000 (2.0000)"
    assert logger.loss is logger.meters["loss"]
    with pytest.raises(AttributeError, match="'MetricLogger' object has no attribute 'nothing'"):
        logger.nothing  # noqa: B018
    with pytest.raises(TypeError, match="lr"):
        logger.update(lr="high")
    logger.synchronize_between_processes()


def test_lines_are_the_references(run, capsys):
    logger = MetricLogger(delimiter="  ", run=run)
    for value in logger.log_every([3.0, 2.0, 1.0], 2, "Epoch: [0]"):
        logger.update(loss=value)
    lines = capsys.readouterr().out.splitlines()
    number = r"\d+\.\d{4}"
    for line, index, loss in ((lines[0], 0, r"3\.0000 \(3\.0000\)"), (lines[1], 2, r"2\.0000 \(2\.0000\)")):
        pattern = rf"Epoch: \[0\]  \[{index}/3\]  eta: 0:00:00  loss: {loss}  time: {number}  data: {number}"
        assert re.fullmatch(pattern + (r"  max mem: \d+" if torch.cuda.is_available() else ""), line)
    assert re.fullmatch(rf"Epoch: \[0\] Total time: 0:00:00 \({number} s / it\)", lines[2])
    assert len(lines) == 3


def epochs(run, count, stop_after=None):
    linear = torch.nn.Linear(2, 1)
    shown = []
    for epoch in range(count):
        logger = MetricLogger(run=run)
        for index, batch in enumerate(logger.log_every(torch.randn(4, 3, 2), 10, f"Epoch: [{epoch}]")):
            a, b = linear(batch).mean(), linear(batch).std()
            logger.update(loss=a + b, loss_a=a, loss_b=b)
            logger.update(lr=0.1 / (index + 1), acc=0.5)
            if index == stop_after:
                break
        shown.append(logger)
        test = MetricLogger(run=run)
        with torch.inference_mode():
            for batch in test.log_every(torch.randn(2, 3, 2), 10, "Test:"):
                test.update(model_time=0.1, loss_a=linear(batch).mean())
        shown[-1].tested = test
    return shown


def test_batches_epochs_and_validation(run):
    shown = epochs(run, 2)
    batches, ends = records(run, "on_batch_losses"), records(run, "on_epoch_end")
    assert [each["epoch"] for each in batches] == [1] * 4 + [2] * 4
    assert [each["lr"] for each in batches[:4]] == [0.1, 0.05, 0.1 / 3, 0.025]
    for logger, end, mine in zip(shown, ends, (batches[:4], batches[4:]), strict=True):
        for name in ("loss_a", "loss_b"):
            assert [each["losses"][name] for each in mine] == list(logger.meters[name].deque)
            assert end["losses"][name] == logger.meters[name].global_avg
        assert [each["total"] for each in mine] == list(logger.loss.deque)
        assert end["total"] == logger.loss.global_avg
        assert end["val_loss"] == {"loss_a": logger.tested.loss_a.global_avg}


def test_the_length_of_the_first_epoch_is_told_before_it_ends(run):
    logger = MetricLogger(run=run)
    for epoch in range(2):
        for index in logger.log_every(range(6 + epoch), 10):
            logger.update(loss_a=1.0, loss_b=2.0)
            if index == 1:
                break
    run.close()
    found = [each["data"] for each in map(json.loads, (run.dir / "journal.jsonl").read_text().splitlines())]
    told = [data["detail"] for data in found if (data.get("detail") or {}).get("steps_per_epoch")]
    assert told == [{"steps_per_epoch": 6}]


def test_a_break_keeps_the_last_batch(run):
    epochs(run, 2, stop_after=1)
    assert [each["epoch"] for each in records(run, "on_batch_losses")] == [1, 1, 2, 2]


def test_scalar_losses(run):
    logger = MetricLogger(run=run)
    for value in logger.log_every([3.0, 2.0], 10):
        logger.update(loss=torch.tensor(value, requires_grad=True).double(), lr=0.1)
    assert [each["losses"] for each in records(run, "on_batch_losses")] == [3.0, 2.0]


def test_an_open_run_is_used_without_naming_it(run, capsys):
    logger = MetricLogger()
    for value in logger.log_every([1.0], 10):
        logger.update(loss=value)
    assert len(records(run, "on_batch_losses")) == 1
    assert reporting._shared[0].closed


def test_beside_attach_only_one_logs(tmp_path, capsys):
    model = torch.nn.Linear(2, 1)
    model.register_forward_hook(lambda model, args, output: output.mean())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with losslog.attach(model, optimizer, name="t", dir=tmp_path, plugins=None) as run:
        logger = MetricLogger()
        for batch in logger.log_every(torch.randn(4, 3, 2), 10):
            loss = model(batch)
            loss.backward()
            optimizer.step()
            logger.update(loss=loss)
    assert len(records(run, "on_batch_losses")) == 4
    assert signals.listening() == []


def test_a_value_on_a_device_is_not_read_at_update(run, monkeypatch):
    """Tensors on the meta device raise when they are read; a meter must not read at update."""
    from losslog.values.snapshot import Staged

    class Later(Staged):
        read = 0

        def resolve(self):
            Later.read += 1
            return [7.0]

    meter = SmoothedValue()
    meter.put(Later([], []), 0)
    assert Later.read == 0
    assert meter.value == 7.0


def test_same_numbers_as_the_examples_meters(run, capsys):
    path = Path(__file__).parents[2] / "examples" / "f1_meters.py"
    spec = importlib.util.spec_from_file_location("f1_meters", path)
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    theirs, ours = reference.MetricLogger(), MetricLogger(run=run)
    for value in torch.randn(30).tolist():
        for logger in (theirs, ours):
            logger.update(loss=torch.tensor(value), other=value)
    assert str(ours) == str(theirs)
