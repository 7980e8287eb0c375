"""ultralytics: tasks beside detection, and a training that was killed and goes on."""

from __future__ import annotations

import json

import pytest

from tests.compat.frameworks.conftest import Workshop, need

need("ultralytics", "cv2")

SOURCE = """
import json, os, pathlib, warnings; warnings.filterwarnings("ignore")
import cv2, numpy, torch
torch.set_num_threads(1)
from ultralytics import YOLO
import losslog.compat.ultralytics
root = pathlib.Path("data").absolute()
rng = numpy.random.default_rng(0)
SHAPES = {
    "detect": lambda x, y: [x + 10, y + 10, 20, 20],
    "segment": lambda x, y: [x, y, x + 20, y, x + 20, y + 20, x, y + 20],
    "pose": lambda x, y: [x + 10, y + 10, 20, 20, x, y, x + 20, y + 20],
}
for split, count in (("train", 8), ("val", 4)):
    for folder in ("images", "labels"):
        (root / folder / split).mkdir(parents=True, exist_ok=True)
    for i in range(count):
        x, y = map(int, rng.integers(5, 35, 2))
        image = numpy.full((64, 64, 3), 30, numpy.uint8)
        cv2.rectangle(image, (x, y), (x + 20, y + 20), (0, 0, 255), -1)
        cv2.imwrite(str(root / "images" / split / f"{i}.jpg"), image)
        line = " ".join(str(each / 64) for each in SHAPES[TASK](x, y))
        (root / "labels" / split / f"{i}.txt").write_text(f"{i % 2} {line}\\n")
points = "kpt_shape: [2, 2]\\nflip_idx: [1, 0]\\n" if TASK == "pose" else ""
(root / "d.yaml").write_text(
    f"path: {root.as_posix()}\\ntrain: images/train\\nval: images/val\\nnames: {{0: a, 1: b}}\\n{points}"
)
YAML = {"detect": "yolov8n.yaml", "segment": "yolov8n-seg.yaml", "pose": "yolov8n-pose.yaml"}[TASK]
again = os.path.exists("y/train/weights/last.pt")
model = YOLO("y/train/weights/last.pt" if again else YAML, verbose=False)
truth = {"steps": [], "figures": []}
def after(trainer):
    items = trainer.loss_items
    items = items if isinstance(items, dict) else dict(zip(trainer.loss_names, items))
    truth["steps"].append({name: float(value) for name, value in items.items()})
    if KILL and not again and trainer.epoch == 2:
        os.kill(os.getpid(), 9)
model.add_callback("on_train_batch_end", after)
model.add_callback("on_fit_epoch_end", lambda trainer: truth["figures"].append(
    {name: float(value) for name, value in trainer.metrics.items()}))
losslog.compat.ultralytics.add(model)
if again:
    model.train(resume=True)
else:
    model.train(
        data=str(root / "d.yaml"), epochs=EPOCHS, imgsz=64, batch=2, workers=0, device="cpu", plots=False,
        project=os.path.abspath("y"), name="train", amp=False, verbose=False, optimizer="SGD", lr0=0.01, nbs=2,
        warmup_epochs=0, exist_ok=True,
    )
json.dump(truth, open("truth.json", "w"))
"""


@pytest.mark.parametrize(
    ("task", "part", "kinds"), [("segment", "seg_loss", {"bbox", "segm"}), ("pose", "pose_loss", {"bbox", "keypoints"})]
)
def test_other_tasks_have_their_losses_and_figures(workshop: Workshop, task: str, part: str, kinds: set[str]) -> None:
    workshop.run(f"TASK, EPOCHS, KILL = {task!r}, 2, False\n" + SOURCE)
    truth = json.loads((workshop.folder / "truth.json").read_text("utf-8"))
    batches = workshop.data("on_batch_losses")
    assert [each["step"] for each in batches] == list(range(8))
    assert part in batches[0]["losses"]
    for batch, true in zip(batches, truth["steps"], strict=True):
        assert batch["losses"] == pytest.approx(true, rel=1e-5)
        assert batch["total"] == pytest.approx(sum(true.values()), rel=1e-5)
    ends, evaluations = workshop.data("on_epoch_end"), workshop.data("on_eval")
    assert [each["epoch"] for each in ends] == [1, 2]
    letters = {"bbox": "B", "segm": "M", "keypoints": "P"}
    for end, evaluation, figures in zip(ends, evaluations, truth["figures"], strict=False):
        assert end["val_loss"][part] == pytest.approx(figures[f"val/{part}"], rel=1e-5)
        assert kinds <= evaluation["metrics"].keys()
        for kind in kinds:
            true = figures[f"metrics/mAP50-95({letters[kind]})"]
            assert evaluation["metrics"][kind]["AP"] == pytest.approx(true, abs=1e-5)
            assert evaluation["metrics"][kind]["classes"].keys() <= {"a", "b"}
    assert any(evaluations[-1]["metrics"][kind]["classes"] for kind in kinds)
    names = [each["path"].replace("\\", "/").rpartition("/")[2] for each in workshop.data("on_checkpoint")]
    assert names.count("last.pt") == 2
    assert "best.pt" in names


def test_a_kill_and_a_resume_are_one_run_without_a_gap(workshop: Workshop) -> None:
    source = "TASK, EPOCHS, KILL = 'detect', 4, True\n" + SOURCE
    workshop.run(source, ok=-9)
    workshop.run(source, TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD="1")
    assert [(each["epoch"], each["step"]) for each in workshop.data("on_resume")] == [(2, 7)]
    where = [hook for hook, _ in workshop.records].index("on_resume")
    before = [data["step"] for hook, data in workshop.records[:where] if hook == "on_batch_losses"]
    after = [data["step"] for hook, data in workshop.records[where:] if hook == "on_batch_losses"]
    assert before[:8] == list(range(8))
    assert after == list(range(8, 16))
    assert [each["epoch"] for each in workshop.data("on_epoch_end")] == [1, 2, 3, 4]
