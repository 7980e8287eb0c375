"""A training script in the style of the fine-tuning tutorial: knows nothing of losslog."""

import os
import sys

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
from f1_engine import evaluate, train_one_epoch
from PIL import Image
from pycocotools.coco import COCO
from shapes import make_model


class Pictures(torch.utils.data.Dataset):
    def __init__(self, root, annotations, count):
        self.root, self.coco = root, COCO(os.path.join(root, annotations))
        self.ids = sorted(self.coco.imgs)[:count]
        self.labels = {category: 1 + n for n, category in enumerate(sorted(self.coco.cats))}

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        entry = self.coco.loadImgs(self.ids[index])[0]
        side = 96
        image = Image.open(os.path.join(self.root, "images", entry["file_name"])).convert("RGB").resize((side, side))
        across, down = side / entry["width"], side / entry["height"]
        boxes, labels, masks = [], [], []
        for found in self.coco.loadAnns(self.coco.getAnnIds(entry["id"])):
            x, y, width, height = found["bbox"]
            mask = Image.fromarray(self.coco.annToMask(found)).resize((side, side), Image.NEAREST)
            boxes.append([x * across, y * down, (x + width) * across + 1, (y + height) * down + 1])
            labels.append(min(self.labels[found["category_id"]], 2))
            masks.append(torch.from_numpy(np.array(mask)))
        boxes = torch.tensor(boxes, dtype=torch.float32)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255, {
            "boxes": boxes,
            "labels": torch.tensor(labels),
            "masks": torch.stack(masks),
            "image_id": entry["id"],
            "area": (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]),
            "iscrowd": torch.zeros(len(labels), dtype=torch.int64),
        }


def collate_fn(batch):
    return tuple(zip(*batch, strict=True))


def main():
    root = sys.argv[1]
    device = torch.device("cpu")
    torch.manual_seed(0)
    dataset = Pictures(root, "annotations_train.json", 6)
    dataset_test = Pictures(root, "annotations_val.json", 2)
    data_loader = torch.utils.data.DataLoader(dataset, batch_size=2, shuffle=True, collate_fn=collate_fn)
    data_loader_test = torch.utils.data.DataLoader(dataset_test, batch_size=1, shuffle=False, collate_fn=collate_fn)
    model = make_model()

    images, targets = next(iter(data_loader))  # for training
    output = model(list(images), list(targets))
    print({name: loss.item() for name, loss in output.items()})
    model.eval()  # for inference
    print(len(model([torch.rand(3, 96, 96)])[0]["boxes"]))

    params = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(params, lr=0.005, momentum=0.9, weight_decay=0.0005)
    lr_scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=3, gamma=0.1)
    for epoch in range(2):
        logger = train_one_epoch(model, optimizer, data_loader, device, epoch, print_freq=10)
        lr_scheduler.step()
        evaluators = evaluate(model, data_loader_test, device=device)
        means = {name: meter.global_avg for name, meter in logger.meters.items()}
        print("FOUND", repr({"means": means, "ap": {k: float(e.stats[0]) for k, e in evaluators.items()}}))
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}, sys.argv[2])
    print("That's it!", torch.get_num_threads())


if __name__ == "__main__":
    main()
