"""Two trainings in threads of one process, and a loop that logs what is recorded already."""

import subprocess
import sys
import threading

import pytest
import torch

import losslog

SCRIPT = """
import threading, torch
torch.set_num_threads(1)
first, second, over = threading.Event(), threading.Event(), threading.Event()

def train(offset, wait):
    torch.manual_seed(offset)
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    if wait:
        first.wait(30)
    for step in range(40):
        if step == 20 and not wait:
            second.wait(30)
        loss = model(torch.ones(8, 4)).square().mean() + offset
        optimizer.zero_grad(set_to_none=wait)
        loss.backward()
        optimizer.step()
        (second if wait else first).set()
    over.set() if wait else over.wait(30)  # the first is there until the second has ended

threads = [threading.Thread(target=train, args=(1000 * index, index > 0), name=f"training-{index}") for index in (0, 1)]
for each in threads:
    each.start()
for each in threads:
    each.join()
"""


def test_a_second_training_under_the_launcher_is_refused(tmp_path, read):
    script = tmp_path / "two.py"
    script.write_text(SCRIPT)
    command = [
        sys.executable,
        "-m",
        "losslog",
        "run",
        "--plugins",
        ",",
        "--dir",
        str(tmp_path / "runs"),
        str(script),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    (journal,) = (tmp_path / "runs").rglob("journal.jsonl")
    steps = read(type("", (), {"dir": journal.parent}), "on_batch_losses")
    assert len(steps) == 40
    assert all(each["total"] < 100 for each in steps)
    assert done.stderr.count("a second training runs in thread training-1") == 1
    assert "losslog.attach(model, optimizer)" in done.stderr


@pytest.mark.parametrize("set_to_none", [True, False])
def test_two_attachments_in_two_threads_keep_their_steps_apart(watch, read, set_to_none):
    turns = threading.Barrier(2, timeout=30)

    def train(offset, run, model, optimizer):
        for _ in range(30):
            losses = model(torch.ones(8, 4)).square().mean() + offset
            optimizer.zero_grad(set_to_none=set_to_none)
            turns.wait()
            losses.backward()
            turns.wait()
            optimizer.step()

    runs, threads = [], []
    for index in range(2):
        model = torch.nn.Linear(4, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
        runs.append(watch(model, optimizer))
        threads.append(threading.Thread(target=train, args=(1000 * index, runs[-1], model, optimizer)))
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    for index, run in enumerate(runs):
        run.close()
        totals = [each["total"] for each in read(run, "on_batch_losses")]
        assert len(totals) == 30
        assert all(1000 * index <= each < 1000 * index + 500 for each in totals)


def test_trainings_one_after_the_other_in_threads_are_all_recorded(watch, read, two, data):
    optimizer = torch.optim.SGD(two.parameters(), lr=0.01)
    run = watch(two, optimizer)

    def train():
        for x in data[0]:
            optimizer.zero_grad()
            sum(two(x).values()).backward()
            optimizer.step()

    for _ in range(2):
        thread = threading.Thread(target=train)
        thread.start()
        thread.join()
    run.close()
    assert len(read(run, "on_batch_losses")) == 10


def _loop(model, optimizer, loader, log):
    for x in loader:
        optimizer.zero_grad()
        losses = model(x)
        sum(losses.values()).backward()
        optimizer.step()
        log(losses)


def test_log_batch_beside_an_attachment_is_said_once(watch, two, data, caplog):
    optimizer = torch.optim.SGD(two.parameters(), lr=0.01)
    run = watch(two, optimizer)
    _loop(two, optimizer, data[0], run.log_batch)
    run.close()
    said = caplog.text
    assert said.count("each step is recorded twice") == 1
    assert "take run.log_batch out of the loop, or losslog.attach" in said


def test_log_batch_alone_says_nothing(tmp_path, two, data, caplog):
    optimizer = torch.optim.SGD(two.parameters(), lr=0.01)
    with losslog.Run("t", tmp_path, plugins=None) as run:
        _loop(two, optimizer, data[0], run.log_batch)
    assert "recorded twice" not in caplog.text


def test_log_batch_where_the_attachment_sees_nothing_is_no_double(watch, read, two, data, caplog):
    optimizer = torch.optim.SGD(two.parameters(), lr=0.01)
    other = torch.nn.Linear(4, 2)
    run = watch(other, torch.optim.SGD(other.parameters(), lr=0.01))
    _loop(two, optimizer, data[0], run.log_batch)
    run.close()
    assert "recorded twice" not in caplog.text
    assert len(read(run, "on_batch_losses")) == 5
