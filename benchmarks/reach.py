"""What the walk over the graph costs (`losslog.instrument.reach`), on a Mask R-CNN with a ResNet-50.

    python benchmarks/reach.py             # 320 pixels, CPU
    python benchmarks/reach.py --size 800

One forward pass is made; its graph is walked many times. Printed: the median and the slowest walk of all five losses
in ms, the summary of the optimizer's groups, and the forward pass beside it.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torchvision.models.detection import maskrcnn_resnet50_fpn

from losslog.instrument.parts import Parts
from losslog.instrument.reach import reach

WALKS = 100


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=320, help="pixels of the shorter side")
    parser.add_argument("--device", default="cpu")
    size, device = parser.parse_args().size, parser.parse_args().device
    torch.manual_seed(0)
    model = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=3, min_size=size, max_size=size)
    model.to(device).train()
    masks = torch.zeros(1, size, size, dtype=torch.uint8, device=device)
    masks[:, 20:120, 20:120] = 1
    boxes = torch.tensor([[20.0, 20.0, 120.0, 120.0]], device=device)
    target = {"boxes": boxes, "labels": torch.tensor([1], device=device), "masks": masks}
    began = time.perf_counter()
    losses = model([torch.rand(3, size, size, device=device)] * 2, [target] * 2)
    forward = time.perf_counter() - began
    parts, optimizer = Parts(model), torch.optim.SGD(model.parameters(), lr=0.01)
    walks, summaries, makings, flags = [], [], [], []
    for _ in range(WALKS):
        began = time.perf_counter()
        Parts(model)
        makings.append(time.perf_counter() - began)
        began = time.perf_counter()
        parts.signature()
        flags.append(time.perf_counter() - began)
        began = time.perf_counter()
        found = reach(losses, parts)
        walks.append(time.perf_counter() - began)
        began = time.perf_counter()
        parts.summary([optimizer])
        summaries.append(time.perf_counter() - began)
    for name, each in found.items():
        print(f"{name:18} {each.total:4} tensors  {dict(each.tensors)}")
    print(f"walk    median {1e3 * statistics.median(walks):.2f} ms, slowest {1e3 * max(walks):.2f} ms")
    print(f"parts   median {1e3 * statistics.median(makings):.2f} ms, where the model is another")
    print(f"flags   median {1e6 * statistics.median(flags):.0f} us, at each step")
    print(f"groups  median {1e3 * statistics.median(summaries):.2f} ms")
    print(f"forward {1e3 * forward:.0f} ms")


if __name__ == "__main__":
    main()
