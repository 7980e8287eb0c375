"""Two processes that train models with different losses."""

import os
import sys

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


class Model(torch.nn.Module):
    def __init__(self, names):
        super().__init__()
        self.names = names
        self.linear = torch.nn.Linear(4, 2)

    def forward(self, x):
        return {name: (self.linear(x) ** 2).mean() * (n + 1) for n, name in enumerate(self.names)}


def work(rank, world):
    if "MASTER_ADDR" not in os.environ:
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=sys.argv[1], RANK=str(rank), WORLD_SIZE=str(world))
    dist.init_process_group("gloo")
    torch.manual_seed(rank)
    model = Model(["loss_a", "loss_mask"] if rank == 0 else ["loss_a", "loss_box"])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for epoch in range(2):
        for batch in torch.utils.data.DataLoader(torch.randn(8 + 4 * rank, 4), 4):
            losses = model(batch)
            optimizer.zero_grad()
            sum(losses.values()).backward()
            optimizer.step()
            print(f"LOSSES {rank} {epoch} {[loss.item() for loss in losses.values()]}", flush=True)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    if "RANK" in os.environ:
        work(int(os.environ["RANK"]), 2)
    else:
        mp.spawn(work, (2,), 2)
