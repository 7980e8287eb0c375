"""An engine of torchvision's reference kind: imported, not edited. Nothing of losslog's."""

import contextlib
import io
import math
import sys

import numpy as np
import torch
from f1_meters import MetricLogger, SmoothedValue
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def train_one_epoch(model, optimizer, data_loader, device, epoch, print_freq):
    model.train()
    metric_logger = MetricLogger(delimiter="  ")
    metric_logger.add_meter("lr", SmoothedValue(window_size=1, fmt="{value:.6f}"))
    warm_up = None
    if epoch == 0:
        steps = max(min(1000, len(data_loader) - 1), 1)
        warm_up = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.1, total_iters=steps)
    for images, targets in metric_logger.log_every(data_loader, print_freq, f"Epoch: [{epoch}]"):
        images = [image.to(device) for image in images]
        targets = [{k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in t.items()} for t in targets]
        loss_dict = model(images, targets)
        losses = sum(loss for loss in loss_dict.values())
        if not math.isfinite(losses.item()):
            print(f"Loss is {losses.item()}, stopping training")
            print(loss_dict)
            sys.exit(1)
        optimizer.zero_grad()
        losses.backward()
        optimizer.step()
        if warm_up is not None:
            warm_up.step()
        metric_logger.update(loss=losses, **loss_dict)
        metric_logger.update(lr=optimizer.param_groups[0]["lr"])
    return metric_logger


def ground_truth(dataset):
    images, annotations = [], []
    for index in range(len(dataset)):
        image, target = dataset[index]
        images.append({"id": target["image_id"], "height": image.shape[1], "width": image.shape[2]})
        for box, label, mask, area in zip(
            target["boxes"].tolist(), target["labels"].tolist(), target["masks"], target["area"].tolist(), strict=True
        ):
            left, top, right, bottom = box
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": target["image_id"],
                    "category_id": label,
                    "bbox": [left, top, right - left, bottom - top],
                    "area": area,
                    "iscrowd": 0,
                    "segmentation": rle.encode(np.asfortranarray(mask.numpy())),
                }
            )
    truth = COCO()
    names = {1: "tall", 2: "wide"}
    truth.dataset = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": key, "name": name} for key, name in names.items()],
        "info": {},
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
    return truth


@torch.inference_mode()
def evaluate(model, data_loader, device):
    model.eval()
    metric_logger = MetricLogger(delimiter="  ")
    truth, found = ground_truth(data_loader.dataset), []
    for images, targets in metric_logger.log_every(data_loader, 100, "Test:"):
        outputs = model([image.to(device) for image in images])
        for target, output in zip(targets, outputs, strict=True):
            for box, label, score, mask in zip(
                output["boxes"].tolist(),
                output["labels"].tolist(),
                output["scores"].tolist(),
                output["masks"],
                strict=True,
            ):
                left, top, right, bottom = box
                binary = (mask[0] > 0.5).byte().cpu().numpy()
                found.append(
                    {
                        "image_id": target["image_id"],
                        "category_id": label,
                        "score": score,
                        "bbox": [left, top, right - left, bottom - top],
                        "segmentation": rle.encode(np.asfortranarray(binary)),
                    }
                )
    evaluators = {}
    for kind in ("bbox", "segm"):
        with contextlib.redirect_stdout(io.StringIO()):
            detected = truth.loadRes(found) if found else COCO()
            evaluators[kind] = COCOeval(truth, detected, kind)
            evaluators[kind].evaluate()
            evaluators[kind].accumulate()
        print(f"IoU metric: {kind}")
        evaluators[kind].summarize()
    return evaluators
