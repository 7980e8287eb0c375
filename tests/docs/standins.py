"""What the documentation's code blocks find when they are run: a small model, its optimizer, data, a run folder.

Every page starts with a fresh copy of these names.
"""

import torch

import losslog


class Detector(torch.nn.Module):
    """Gives Mask R-CNN's five losses in training, and detections in evaluation."""

    def __init__(self):
        super().__init__()
        self.backbone = torch.nn.Linear(4, 4)
        self.roi_heads = torch.nn.Linear(4, 5)

    def forward(self, images, targets=None):
        found = self.roi_heads(self.backbone(torch.stack(list(images)))).square().mean(0)
        if not self.training:
            empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "scores": torch.zeros(0)}
            return [dict(empty) for _ in images]
        names = ("loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg")
        return dict(zip(names, found, strict=True))


def make_model():
    return Detector()


def make_loader():
    return [([torch.rand(4), torch.rand(4)], [{"image_id": 2 * i}, {"image_id": 2 * i + 1}]) for i in range(3)]


torch.manual_seed(0)
device = torch.device("cpu")
model = make_model()
optimizer = torch.optim.SGD(
    [
        {"params": model.backbone.parameters(), "lr": 0.005, "name": "backbone"},
        {"params": model.roi_heads.parameters(), "lr": 0.05, "name": "mask_head"},
    ],
    lr=0.005,
)
scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1000)
loader = train_loader = data_loader = make_loader()
val_loader = data_loader_test = make_loader()
epochs = num_epochs = 2


def make_journal():
    """A small run with one record of each kind, resumed once; its folder."""
    nan = float("nan")
    run = losslog.Run("documented", plugins=None, config={"lr": 0.005}, epochs=2)
    for step in range(4):
        run.log_batch({"loss_mask": 1.0 / (step + 1), "loss_box_reg": nan if step == 2 else 0.25}, lr=0.005)
        if step % 2:
            run.log_eval({"bbox": {"AP": 0.1 * step, "classes": {"nut": 0.2}}, "segm": {"AP": 0.1}})
            run.log_metrics({"perf/images_per_s": 12.0})
            run.end_epoch(val_loss=0.5)
            run.log_checkpoint(f"checkpoints/epoch_00{step // 2 + 1}.pth")
    run.alert("loss_mask has stalled", "nothing since step 2")
    run.close()
    again = losslog.Run(resume=run.dir, resume_epoch=1, resume_step=1, plugins=None)
    again.log_batch({"loss_mask": 0.4, "loss_box_reg": 0.2})
    again.end_epoch()
    again.close()
    return run.dir
