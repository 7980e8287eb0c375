"""The styles of loops that people have, on torchvision's models: what is logged is what the loop computes."""

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator

MASK = {"loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg"}


def values(losses):
    return {name: loss.item() for name, loss in losses.items()}


def means(batches):
    return {name: sum(each[name] for each in batches) / len(batches) for name in batches[0]}


def sgd(model, **options):
    return torch.optim.SGD(model.parameters(), lr=0.005, momentum=0.9, **options)


def test_reference_engine(shapes, watch, read, monkeypatch):
    monkeypatch.setitem(sys.modules, "shapes", shapes)
    monkeypatch.syspath_prepend(str(Path(shapes.__file__).parent))
    engine = __import__("f1_engine")
    model = shapes.make_model()
    optimizer = sgd(model)
    run = watch(model, optimizer)
    loggers, found = [], []
    for epoch in range(2):
        loggers.append(engine.train_one_epoch(model, optimizer, shapes.loader(6), "cpu", epoch, print_freq=10))
        found.append(engine.evaluate(model, shapes.loader(2, seed=1), "cpu"))
    run.close()
    batches, ends, evals = (read(run, hook) for hook in ("on_batch_losses", "on_epoch_end", "on_eval"))
    for epoch, logger in enumerate(loggers, start=1):
        mine = [each for each in batches if each["epoch"] == epoch]
        assert len(mine) == 3
        for name in MASK:
            assert [each["losses"][name] for each in mine] == list(logger.meters[name].deque)
            assert ends[epoch - 1]["losses"][name] == logger.meters[name].global_avg
    assert [each["epoch"] for each in ends] == [each["epoch"] for each in evals] == [1, 2]
    for evaluators, record in zip(found, evals, strict=True):
        assert set(record["metrics"]) == {"bbox", "segm"}
        for kind, evaluator in evaluators.items():
            assert record["metrics"][kind]["AP"] == evaluator.stats[0]
            assert record["metrics"][kind]["AR100"] == evaluator.stats[8]
    # the warm-up steps after the optimizer: the rates logged are those that were used
    assert [each["lr"] for each in batches[:3]] == pytest.approx([0.0005, 0.00275, 0.005])


def test_plain_loop_with_validation_in_train_mode(shapes, watch, read):
    model = shapes.make_model()
    optimizer = sgd(model)
    train, val = shapes.loader(6), shapes.loader(4, seed=1)
    run = watch(model, optimizer)
    trained, validated = [], []
    for epoch in range(3):
        model.train()
        for images, targets in train:
            losses = model(images, targets)
            optimizer.zero_grad()
            sum(losses.values()).backward()
            optimizer.step()
            trained.append(values(losses))
        if epoch < 2:
            with torch.no_grad():
                validated.append([values(model(*batch)) for batch in val])
        else:  # forgotten by many: it works all the same
            validated.append([values(model(*batch)) for batch in val])
    run.close()
    assert [each["losses"] for each in read(run, "on_batch_losses")] == trained
    ends = read(run, "on_epoch_end")
    assert [each["losses"] for each in ends] == [means(trained[i : i + 3]) for i in (0, 3, 6)]
    assert [each["val_loss"] for each in ends] == [means(each) for each in validated]


def test_accumulation_with_a_divided_loss_and_a_rest(shapes, watch, read):
    model = shapes.make_model()
    optimizer = sgd(model)
    run = watch(model, optimizer)
    trained = []
    for _ in range(2):
        model.train()
        for index, (images, targets) in enumerate(shapes.loader(10)):
            losses = model(images, targets)
            trained.append(values(losses))
            for loss in losses.values():
                loss /= 2
            sum(losses.values()).backward()
            if index % 2:
                optimizer.step()
                optimizer.zero_grad()
        optimizer.zero_grad()
    run.close()
    batches, ends = read(run, "on_batch_losses"), read(run, "on_epoch_end")
    assert [each["step"] for each in batches] == [0, 1, 2, 3]
    assert [each["n"] for each in batches] == [2, 2, 2, 2]
    pairs = [trained[0:2], trained[2:4], trained[5:7], trained[7:9]]
    assert [each["losses"] for each in batches] == [means(pair) for pair in pairs]
    assert [each["losses"] for each in ends] == [means(trained[:5]), means(trained[5:])]


@pytest.mark.parametrize("fused", [False, True])
def test_gradscaler_with_a_skipped_step(shapes, watch, read, fused):
    model = shapes.make_model()
    optimizer = sgd(model, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    run = watch(model, optimizer)
    trained, stepped = [], []
    for index, (images, targets) in enumerate(shapes.loader(8)):
        losses = model(images, targets)
        before = [each.detach().clone() for each in model.parameters()]
        scaler.scale(sum(losses.values()) * (float("inf") if index == 1 else 1.0)).backward()
        scaler.step(optimizer)
        scaler.update(1.0)
        optimizer.zero_grad()
        trained.append(values(losses))
        moved = any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
        stepped += [trained[-1]] if moved else []
    run.close()
    assert len(stepped) == 3
    batches = read(run, "on_batch_losses")
    assert [each["losses"] for each in batches] == stepped
    assert [each["step"] for each in batches] == [0, 1, 2]
    assert read(run, "on_epoch_end")[0]["losses"] == means(trained)


def test_skipped_batches(shapes, watch, read):
    model = shapes.make_model()
    optimizer = sgd(model)
    run = watch(model, optimizer)
    trained = []
    for _ in range(2):
        for index, (images, targets) in enumerate(shapes.loader(12)):
            if index == 1:
                continue  # before the forward pass
            losses = model(images, targets)
            if index in (2, 5):
                continue  # after it
            sum(losses.values()).backward()
            if index == 3:
                optimizer.zero_grad()
                continue  # after the backward pass
            optimizer.step()
            optimizer.zero_grad()
            trained.append(values(losses))
    run.close()
    batches = read(run, "on_batch_losses")
    assert [each["losses"] for each in batches] == trained
    assert not any("n" in each for each in batches)
    assert [each["epoch"] for each in read(run, "on_epoch_end")] == [1, 2]


def test_retinanet_has_other_keys(shapes, watch, read):
    torch.manual_seed(0)
    backbone = shapes.make_model().backbone
    sizes = AnchorGenerator(((24, 40),), ((0.5, 1.0, 2.0),))
    model = RetinaNet(backbone, 3, min_size=64, max_size=64, anchor_generator=sizes)
    optimizer = torch.optim.Adam(model.parameters())
    run = watch(model, optimizer)
    trained = []
    for images, targets in shapes.loader(4):
        losses = model(images, targets)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        trained.append(values(losses))
    run.close()
    assert set(trained[0]) == {"classification", "bbox_regression"}
    assert [each["losses"] for each in read(run, "on_batch_losses")] == trained


def test_a_batch_before_training_and_weighted_terms(shapes, watch, read):
    model = shapes.make_model()
    groups = [{"params": list(model.backbone.parameters()), "lr": 0.001, "name": "backbone"}]
    groups.append({"params": list(itertools.chain(model.rpn.parameters(), model.roi_heads.parameters()))})
    optimizer = torch.optim.SGD(groups, lr=0.01)
    run = watch(model, optimizer)
    train = shapes.loader(4)
    model(*next(iter(train)))  # does it run at all?
    trained = []
    for images, targets in train:
        losses = model(images, targets)
        trained.append(values(losses))
        (losses["loss_mask"] * 3 + losses["loss_objectness"]).backward()
        optimizer.step()
        optimizer.zero_grad()
    run.close()
    batches, metrics = read(run, "on_batch_losses"), read(run, "on_metrics")
    optimised = {"loss_mask", "loss_objectness"}
    assert [each["losses"] for each in batches] == [{name: each[name] for name in each if name in optimised}
                                                    for each in trained]  # fmt: skip
    assert [each["weights"] for each in batches] == [{"loss_mask": 3.0}] * 2
    assert [each["metrics"] for each in metrics] == [{name: each[name] for name in each if name not in optimised}
                                                     for each in trained]  # fmt: skip
    assert batches[0]["lr"] == {"backbone": 0.001, "1": 0.01}


def test_not_finite_then_exit(shapes, tmp_path, read):
    script = tmp_path / "train.py"
    script.write_text(
        f"""
import math, sys
sys.path.insert(0, {str(Path(shapes.__file__).parent)!r})
import torch, losslog
from shapes import loader, make_model
model = make_model()
optimizer = torch.optim.SGD(model.parameters(), lr=0.005)
run = losslog.attach(model, optimizer, name="t", dir={str(tmp_path)!r}, plugins=None)
print(run.dir)
for index, (images, targets) in enumerate(loader(8)):
    if index == 2:
        model.roi_heads.mask_predictor.mask_fcn_logits.bias.data.fill_(math.nan)
    losses = model(images, targets)
    loss = sum(losses.values())
    if not math.isfinite(loss.item()):
        sys.exit(1)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
"""
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1, done.stderr
    run = type("Run", (), {"dir": Path(done.stdout.strip())})
    batches = read(run, "on_batch_losses")
    assert [each["losses"]["loss_mask"] == "NaN" for each in batches] == [False, False, True]
    (alert,) = [each for each in read(run, "on_alert") if each["component"] == "loss_mask"]
    assert alert["level"] == "error"
    assert read(run)[-1] == "on_run_end"


def test_beside_a_wandb_run_whose_owner_logs_with_step(shapes, tmp_path, read):
    pytest.importorskip("losslog_wandb")
    script = tmp_path / "train.py"
    script.write_text(
        f"""
import os, sys
os.environ.update(WANDB_MODE="offline", WANDB_ERROR_REPORTING="false", HOME={str(tmp_path)!r})
sys.path.insert(0, {str(Path(shapes.__file__).parent)!r})
import torch, wandb, losslog
from shapes import loader, make_model
owner = wandb.init(project="theirs", dir={str(tmp_path / "theirs")!r}, settings=wandb.Settings(x_disable_stats=True))
model = make_model()
optimizer = torch.optim.SGD(model.parameters(), lr=0.005)
with losslog.attach(model, optimizer, name="t", dir={str(tmp_path)!r}, plugins=["wandb"]) as run:
    print("DIR", run.dir)
    for step, (images, targets) in enumerate(loader(8)):
        loss = sum(model(images, targets).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        wandb.log({{"owners": loss.item()}}, step=10 * step)
print("LIVE", wandb.run is owner)
owner.finish()
"""
    )
    (tmp_path / "theirs").mkdir()
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    assert "LIVE True" in done.stdout

    def rows(folder):
        (file,) = folder.glob("wandb/*run-*/*.wandb")
        command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
        shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
        items = [json.loads(line).get("history", {}).get("item") for line in shown.splitlines() if line.strip()]
        return [each for each in items if each]

    folder = Path(next(line[4:] for line in done.stdout.splitlines() if line.startswith("DIR ")))
    owners = [each["owners"] for each in rows(tmp_path / "theirs")]
    batches = read(type("Run", (), {"dir": folder}), "on_batch_losses")
    assert owners == [pytest.approx(each["total"]) for each in batches]
    assert len(owners) == 4
    ours = [each for each in rows(folder) if "batch/train_loss_mask" in each]
    assert [each["batch/train_loss_mask"] for each in ours] == [each["losses"]["loss_mask"] for each in batches]
