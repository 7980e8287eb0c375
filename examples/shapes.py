"""What the examples train on: pictures of two kinds of rectangles, and a small Mask R-CNN. Nothing of losslog's."""

import torch
from torch import nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import MultiScaleRoIAlign

SIZE = 96


class Shapes(torch.utils.data.Dataset):
    """Images of SIZE x SIZE pixels, each with one or two rectangles: tall ones are class 1, wide ones class 2."""

    def __init__(self, count: int, seed: int = 0) -> None:
        self.count, self.seed = count, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int):
        random = torch.Generator().manual_seed(self.seed * 1000 + index)
        image = torch.rand(3, SIZE, SIZE, generator=random) * 0.2
        boxes, labels, masks = [], [], []
        for _ in range(1 + int(torch.randint(2, (), generator=random))):
            label = 1 + int(torch.randint(2, (), generator=random))
            width, height = (20, 44) if label == 1 else (44, 20)
            left = int(torch.randint(SIZE - width, (), generator=random))
            top = int(torch.randint(SIZE - height, (), generator=random))
            mask = torch.zeros(SIZE, SIZE, dtype=torch.uint8)
            mask[top : top + height, left : left + width] = 1
            image[label, mask.bool()] += 0.7
            boxes.append([left, top, left + width, top + height])
            labels.append(label)
            masks.append(mask)
        boxes = torch.tensor(boxes, dtype=torch.float32)
        return image, {
            "boxes": boxes,
            "labels": torch.tensor(labels),
            "masks": torch.stack(masks),
            "image_id": index,
            "area": (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]),
            "iscrowd": torch.zeros(len(labels), dtype=torch.int64),
        }


def collate(batch):
    return tuple(zip(*batch, strict=True))


def loader(count: int, seed: int = 0, shuffle: bool = False) -> torch.utils.data.DataLoader:
    """Batches of two."""
    random = torch.Generator().manual_seed(seed)
    return torch.utils.data.DataLoader(Shapes(count, seed), 2, shuffle, collate_fn=collate, generator=random)


def make_model() -> MaskRCNN:
    """Torchvision's Mask R-CNN with a backbone and heads of a few thousand weights, for CPUs."""
    torch.manual_seed(0)
    layers = []
    for inputs, outputs in ((3, 16), (16, 24), (24, 32)):
        layers += [nn.Conv2d(inputs, outputs, 3, 2, 1), nn.GroupNorm(4, outputs), nn.ReLU()]
    backbone = nn.Sequential(*layers)
    backbone.out_channels = 32
    return MaskRCNN(
        backbone,
        min_size=SIZE,
        max_size=SIZE,
        rpn_anchor_generator=AnchorGenerator(((24, 40),), ((0.5, 1.0, 2.0),)),
        rpn_pre_nms_top_n_train=100,
        rpn_post_nms_top_n_train=50,
        rpn_pre_nms_top_n_test=50,
        rpn_post_nms_top_n_test=20,
        box_batch_size_per_image=32,
        box_detections_per_img=5,
        box_roi_pool=MultiScaleRoIAlign(["0"], 7, 2),
        box_head=TwoMLPHead(32 * 7 * 7, 64),
        box_predictor=FastRCNNPredictor(64, 3),
        mask_roi_pool=MultiScaleRoIAlign(["0"], 14, 2),
        mask_head=MaskRCNNHeads(32, (16,), 1),
        mask_predictor=MaskRCNNPredictor(16, 16, 3),
    )
