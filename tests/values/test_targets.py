"""What an alert on a non-finite loss says of its batch."""

from __future__ import annotations

import json
import math
import weakref

import pytest

import losslog
from losslog.values.targets import KEPT, Targets


def described(**target):
    targets = Targets()
    targets.keep(3, [target])
    return targets.describe(3)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ({"image_id": 7}, "Images: 7."),
        ({"image_id": [7]}, "Images: 7."),
        ({"file_name": "a.png"}, "Images: a.png."),
        ({"image_id": 7, "boxes": [[0, 0, 5, 5]], "labels": [1]}, "Images: 7."),
        ({"image_id": 7, "boxes": [[5, 0, 5, 9]]}, "box 0 has no area"),
        ({"image_id": 7, "boxes": [[0, 0, 1, 1], [5, 0, 4, 9]]}, "box 1 has negative size"),
        ({"image_id": 7, "boxes": [[-1, 0, 4, 9]]}, "box 0 lies outside the image"),
        ({"image_id": 7, "boxes": [[0, 0, 40, 9]], "size": [10, 30]}, "box 0 lies outside the image"),
        ({"image_id": 7, "boxes": [[0, 0, math.nan, 9]]}, "box 0 is not finite"),
        ({"image_id": 7, "boxes": [[0, 0, 1, 1]], "labels": [0]}, "label 0 of box 0 is not above 0"),
    ],
)
def test_describe(target, words):
    assert words in described(**target)


def test_describe_tensors():
    torch = pytest.importorskip("torch")
    text = described(image_id=torch.tensor([42]), boxes=torch.tensor([[1.0, 1.0, 1.0, 3.0]]), labels=torch.tensor([1]))
    assert text == "Images: 42 (box 0 has no area: [1.0, 1.0, 1.0, 3.0])."


@pytest.mark.parametrize("targets", ["text", 3, [3], [{"boxes": "none"}]])
def test_targets_of_another_kind_say_nothing(targets):
    kept = Targets()
    kept.keep(0, targets)
    assert kept.describe(0) == ""


def test_masks_are_let_go():
    torch = pytest.importorskip("torch")
    kept, masks = Targets(), torch.zeros(2, 8, 8)
    gone = weakref.ref(masks)
    kept.keep(0, [{"image_id": 4, "masks": masks}])
    del masks
    assert gone() is None
    assert kept.describe(0) == "Images: 4."


def test_only_the_last_batches_are_kept():
    kept = Targets()
    for step in range(KEPT + 1):
        kept.keep(step, [{"image_id": step}])
    assert (kept.describe(0), kept.describe(1)) == ("", "Images: 1.")


def test_the_alert_names_the_images(tmp_path):
    with losslog.Run("bad", dir=tmp_path, plugins=None) as run:
        run.log_batch({"a": math.nan}, targets=[{"image_id": 9, "boxes": [[5, 5, 5, 5]]}])
    lines = [json.loads(line) for line in (run.dir / "journal.jsonl").read_text().splitlines()]
    (alert,) = [line["data"] for line in lines if line["hook"] == "on_alert"]
    assert alert["text"] == "a is nan at step 0 (epoch 1). Images: 9 (box 0 has no area: [5, 5, 5, 5])."


def test_stop_policy_asks_the_run_to_stop(tmp_path):
    with losslog.Run("bad", dir=tmp_path, plugins=None, non_finite="stop") as run:
        run.log_batch({"a": math.inf})
        run.flush()
        assert run.should_stop
        assert run.stop_reason == "a loss was not finite at step 0"


def test_unknown_policy_is_refused(tmp_path):
    with pytest.raises(ValueError, match="non_finite must be 'warn' or 'stop'"):
        losslog.Run("bad", dir=tmp_path, plugins=None, non_finite="skip")


def test_ids_are_known_longer_than_boxes():
    targets = Targets()
    for step in range(KEPT + 600):
        targets.keep(step, [{"image_id": step, "boxes": [[1, 1, 1, 3]]}])
    assert targets.images(KEPT) == [KEPT]
    assert targets.describe(KEPT) == ""
    assert targets.images(-1) == []


@pytest.mark.parametrize(
    ("given", "wanted"), [([3, 4], [3, 4]), ("a", ["a"]), ([7], [7]), (None, []), (1.5, []), ([[1]], [1])]
)
def test_ids_of_a_batch_in_one_target(given, wanted):
    targets = Targets()
    targets.keep(0, [{"image_id": given}, {"image_id": given}])
    assert targets.images(0) == wanted
