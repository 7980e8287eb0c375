"""The batches with the highest losses, and their images, from loops that say nothing about them."""

import json
import subprocess
import sys
import textwrap

import pytest
import torch

import losslog
from losslog.cli import main


class Detector(torch.nn.Module):
    """Called as torchvision's detectors are; each image's loss is what its target says."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, images, targets=None):
        worth = torch.cat([each["worth"] for each in targets]).mean()
        return {"loss_mask": worth * self.weight.sum(), "loss_box": (1 - worth) * self.weight.sum()}


class Features(torch.nn.Module):
    """Gives no losses: a criterion or a function does."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, images):
        return {"scores": self.weight.expand(len(images))}


class Criterion(torch.nn.Module):
    def forward(self, outputs, targets):
        worth = torch.cat([each["worth"] for each in targets])
        return {"loss_mask": (outputs["scores"] * worth).mean(), "loss_box": (outputs["scores"] * (1 - worth)).mean()}


class Images(torch.utils.data.Dataset):
    """Number 7 is the hardest in its mask, 2 in its box."""

    def __len__(self):
        return 12

    def __getitem__(self, index):
        worth = torch.tensor([1.0 if index == 7 else 0.0 if index == 2 else 0.5])
        return torch.zeros(3), {"image_id": torch.tensor([index]), "boxes": torch.zeros(1, 4), "worth": worth,
                                "masks": torch.zeros(1, 9, 9)}  # fmt: skip


def collate(pairs):
    return tuple(zip(*pairs, strict=True))


def loader(**options):
    return torch.utils.data.DataLoader(Images(), 2, collate_fn=collate, **options)


def stepped(optimizer, loss):
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def as_torchvision(model, optimizer, batches):
    for images, targets in batches:
        targets = [{key: value.clone() for key, value in each.items()} for each in targets]
        stepped(optimizer, sum(model(images, targets).values()))


def by_keyword(model, optimizer, batches):
    for images, targets in batches:
        stepped(optimizer, sum(model(images=images, targets=targets).values()))


def with_criterion(model, optimizer, batches):
    criterion = Criterion()
    for images, targets in batches:
        losses = criterion(model(images), targets)
        stepped(optimizer, losses["loss_mask"] + losses["loss_box"])


def with_function(model, optimizer, batches):
    for images, targets in batches:
        worth = torch.cat([each["worth"] for each in targets])
        stepped(optimizer, (model(images)["scores"] * worth).mean())


def fetched_ahead(model, optimizer, batches):
    waiting = None
    for batch in [*batches, None]:
        if waiting is not None:
            stepped(optimizer, sum(model(*waiting).values()))
        waiting = batch


def accumulated(model, optimizer, batches):
    for number, (images, targets) in enumerate(batches):
        (sum(model(images, targets).values()) / 2).backward()
        if number % 2:
            optimizer.step()
            optimizer.zero_grad()


def images_of(run, read, component):
    """Those of the batch with the highest loss, and how many batches are named."""
    (end,) = read(run, "on_epoch_end")
    return end["hardest"][component][0][2], len(end["hardest"][component])


@pytest.mark.parametrize(
    ("model", "loop"),
    [(Detector, as_torchvision), (Detector, by_keyword), (Features, with_criterion), (Detector, fetched_ahead)],
)
def test_the_images_of_the_hardest_batches(model, loop, watch, read):
    model = model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    run = watch(model, optimizer)
    loop(model, optimizer, loader())
    run.close()
    assert images_of(run, read, "loss_mask") == ([6, 7], 5)
    assert images_of(run, read, "loss_box") == ([2, 3], 5)


def test_where_a_plain_function_makes_the_loss_the_loader_tells(watch, read):
    model = Features()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    run = watch(model, optimizer)
    with_function(model, optimizer, loader())
    run.close()
    assert images_of(run, read, "loss") == ([6, 7], 5)


def test_what_is_fetched_ahead_is_not_taken_for_the_batch_at_hand(watch, read):
    model = Features()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    run = watch(model, optimizer)
    batches = iter(loader())
    waiting = [next(batches), next(batches)]
    while waiting:
        images, targets = waiting.pop(0)
        stepped(optimizer, (model(images)["scores"] * torch.cat([each["worth"] for each in targets])).mean())
        waiting += [batch for batch in [next(batches, None)] if batch is not None]
    run.close()
    (end,) = read(run, "on_epoch_end")
    named = {step: images for _, step, images in (end.get("hardest") or {}).get("loss", [])}
    assert all(images == [2 * step, 2 * step + 1] for step, images in named.items())


def test_all_batches_of_a_step_count(watch, read):
    model = Detector()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    run = watch(model, optimizer)
    accumulated(model, optimizer, loader())
    run.close()
    assert images_of(run, read, "loss_mask") == ([4, 5, 6, 7], 3)


def test_ids_in_one_tensor_and_names_of_files(watch, read):
    model = Detector()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    run = watch(model, optimizer)
    for place in range(2):
        batch = {"image_id": torch.tensor([place, place + 10]), "worth": torch.full((2,), place / 2)}
        stepped(optimizer, sum(model(torch.zeros(2, 3), [batch]).values()))
    named = {"file_name": "a/7.png", "worth": torch.ones(1)}
    stepped(optimizer, sum(model(torch.zeros(1, 3), [named]).values()))
    run.end_epoch()
    run.close()
    end = read(run, "on_epoch_end")[0]
    assert [images for _, _, images in end["hardest"]["loss_mask"]] == [["a/7.png"], [1, 11], [0, 10]]


def test_batches_that_name_nothing_give_nothing(two, data, watch, read):
    optimizer = torch.optim.SGD(two.parameters(), lr=0.1)
    run = watch(two, optimizer)
    for batch in data[0]:
        stepped(optimizer, sum(two(batch).values()))
    run.close()
    assert "hardest" not in read(run, "on_epoch_end")[0]


def test_no_masks_are_kept_alive(watch):
    import gc
    import weakref

    model = Detector()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    watch(model, optimizer)
    masks = []
    for images, targets in loader():
        masks += [weakref.ref(each["masks"]) for each in targets]
        stepped(optimizer, sum(model(images, targets).values()))
    del images, targets
    gc.collect()
    assert [each for each in masks if each() is not None] == []


def test_a_loss_that_is_not_finite_names_its_images(watch, read):
    model = Detector()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    run = watch(model, optimizer)
    target = {"image_id": 41, "boxes": torch.tensor([[5.0, 5.0, 5.0, 9.0]]), "worth": torch.tensor([float("nan")])}
    stepped(optimizer, sum(model(torch.zeros(1, 3), [target]).values()))
    run.close()
    (alert,) = [each for each in read(run, "on_alert") if "loss_mask" in each["title"] + each["text"]]
    assert "41 (box 0 has no area" in alert["text"]


class Many(Images):
    """Every fortieth is hard."""

    def __len__(self):
        return 160

    def __getitem__(self, index):
        image, target = super().__getitem__(index)
        return image, target | {"worth": torch.tensor([float(index % 40 == 17)])}


class Stalled(Detector):
    """Two of its losses fall; that of the masks stands, and is higher on what is hard."""

    def forward(self, images, targets=None):
        worth = torch.cat([each["worth"] for each in targets]).mean()
        noise, weight = 1 + 0.02 * torch.randn(3), self.weight.sum()
        return {"loss_classifier": weight**2 * noise[0] + 0.01, "loss_box_reg": weight**2 * noise[1] + 0.01,
                "loss_mask": 0.69 * noise[2] + 0.3 * worth + 0.0 * weight}  # fmt: skip


def test_the_alert_on_a_stall_names_them(read, monkeypatch, tmp_path):
    pytest.importorskip("losslog_plateau")
    monkeypatch.setenv("LOSSLOG_FOLLOWER", "0")
    torch.manual_seed(0)
    model = Stalled()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0003)
    run = losslog.attach(model, optimizer, name="t", dir=tmp_path, plugins="plateau", epochs=12)
    for _ in range(12):
        batches = torch.utils.data.DataLoader(Many(), 2, shuffle=True, collate_fn=collate)
        as_torchvision(model, optimizer, batches)
    run.close()
    hard = {17, 57, 97, 137}
    for end in read(run, "on_epoch_end"):  # in a loop of a millisecond a step, too
        assert hard <= {image for _, _, images in end["hardest"]["loss_mask"] for image in images}
    (text,) = [each["text"] for each in read(run, "on_alert") if each["title"] == "loss_mask has stalled"]
    named = text.partition("highest on images ")[2].partition(" (losslog show --hard)")[0].split(", ")
    assert hard & {int(each) for each in named}


def test_losslog_run_show_and_report(tmp_path, capsys):
    script = tmp_path / "train.py"
    script.write_text(
        "import torch\n" + "\n".join(textwrap.dedent(source) for source in SOURCES) + "\n"
        "model = Detector()\n"
        "optimizer = torch.optim.SGD(model.parameters(), lr=0.0)\n"
        "for _ in range(2):\n"
        "    as_torchvision(model, optimizer, loader())\n"
    )
    line = [
        sys.executable,
        "-m",
        "losslog",
        "run",
        "--plugins",
        "console",
        "--dir",
        str(tmp_path / "runs"),
        str(script),
    ]
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "runs").glob("*/*/")
    assert main(["show", str(folder), "--hard", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["epoch"], found["hardest"]["loss_mask"][0][2]) == (2, [6, 7])
    page = tmp_path / "report.html"
    assert main(["report", str(folder), "-o", str(page)]) == 0
    assert '"hardestEpoch":2' in page.read_text("utf-8").replace(" ", "")


def _sources():
    import inspect

    return [inspect.getsource(each) for each in (Detector, Images, collate, loader, stepped, as_torchvision)]


SOURCES = _sources()
