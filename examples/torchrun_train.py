"""Several processes, one run: every loss is the mean over the ranks, and logging adds no collective.

One machine, two processes:

    torchrun --standalone --nproc-per-node=2 examples/torchrun_train.py

Two machines, eight processes each (the same command on both, MACHINE is 0 and 1):

    torchrun --nnodes=2 --node-rank=MACHINE --nproc-per-node=8 \
        --rdzv-backend=c10d --rdzv-endpoint=FIRST_HOST:29500 --rdzv-id=maskrcnn examples/torchrun_train.py

The run lies on the first machine, where rank 0 logs; the others hand their losses over through torchrun's own store.
"""

import os

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import losslog
from losslog.engine.distributed import process_group


class TwoHeads(nn.Module):
    """Returns a dict of losses in train mode, as torchvision's detectors do."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(8, 16)
        self.box, self.mask = nn.Linear(16, 1), nn.Linear(16, 1)

    def forward(self, inputs, targets):
        features = torch.relu(self.body(inputs))
        return {
            "loss_box": (self.box(features) - targets).square().mean(),
            "loss_mask": (self.mask(features) + targets).square().mean(),
        }


def main():
    with process_group("cpu") as here, losslog.Run("torchrun", dir=os.environ.get("RUNS", "runs"), epochs=2) as run:
        torch.manual_seed(here.rank)  # other data on each rank
        model = TwoHeads()
        if here.world_size > 1:
            model = DistributedDataParallel(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        for _ in range(2):
            for _ in range(20):
                losses = model(torch.randn(4, 8), torch.ones(4, 1))
                optimizer.zero_grad()
                sum(losses.values()).backward()
                optimizer.step()
                run.log_batch(losses, lr=optimizer.param_groups[0]["lr"])
                run.apply_requests(optimizer)
                if run.should_stop:  # the same step on every rank
                    return
            run.end_epoch()


if __name__ == "__main__":
    main()
