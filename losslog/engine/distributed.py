"""Training on several processes: torchrun starts them, this joins them. Runs on the training thread.

Contract:

- Without a launcher everything here is a no-op, so that one script serves one process and many. A launcher that numbers
  processes but names no meeting point (``RANK`` and ``MASTER_ADDR``) starts so many separate trainings.
- Logging needs nothing from here: `losslog.Run` finds its rank by itself and joins losses without a collective. The
  collectives of this module are those of training: gradients (DDP), and a validation loss that a scheduler steps by.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Final

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Dataset, DistributedSampler

from losslog.ranks.store import Place, launched, place

TIMEOUT: Final = timedelta(hours=3)
"""Of a collective: the other ranks wait in one while the main process evaluates. NCCL's own would be ten minutes."""


@contextlib.contextmanager
def process_group(device: torch.device | str) -> Iterator[Place]:
    """Joins the launcher's process group while the block runs; one that exists already is left alone.

    NCCL for CUDA, gloo else; on CUDA each local rank takes its own device. A collective may take `TIMEOUT`.

    Args:
        device: where this process trains.

    Yields:
        Rank and world size.
    """
    asked = launched().world_size > 1 and "RANK" in os.environ and "MASTER_ADDR" in os.environ
    if torch.distributed.is_initialized() or not asked:
        yield place()
        return
    cuda = torch.device(device).type == "cuda"
    if cuda:
        torch.cuda.set_device(local_rank())
    torch.distributed.init_process_group("nccl" if cuda else "gloo", timeout=TIMEOUT)
    try:
        yield place()
    finally:
        torch.distributed.destroy_process_group()


def local_rank() -> int:
    """Rank among the processes of this machine, 0 where nobody says."""
    text = os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID") or "0"
    return int(text) if text.isdigit() else 0


def device_of_rank(device: torch.device) -> torch.device:
    """The device of this process: the local rank's where several processes share a machine's GPUs."""
    if device.type == "cuda" and device.index is None and launched().world_size > 1:
        return torch.device("cuda", local_rank())
    return device


def is_main() -> bool:
    """Whether this process evaluates, saves and logs."""
    return place().rank == 0


def wrap(model: nn.Module, device: torch.device) -> nn.Module:
    """The model in `DistributedDataParallel` where there is a process group, else the model."""
    if place().world_size < 2 or not torch.distributed.is_initialized():
        return model
    return DistributedDataParallel(model, device_ids=[device.index] if device.type == "cuda" else None)


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside `DistributedDataParallel`, or the model."""
    return model.module if isinstance(model, DistributedDataParallel) else model


def sampler_for(dataset: Dataset[Any], seed: int = 0) -> DistributedSampler[Any] | None:
    """A shuffling sampler that gives each rank its own part; None with one process."""
    here = place()
    if here.world_size < 2:
        return None
    return DistributedSampler(dataset, here.world_size, here.rank, shuffle=True, seed=seed)


def from_main(value: Any) -> Any:
    """What the main process has, on every rank: one small collective, for what training itself depends on."""
    if place().world_size < 2 or not torch.distributed.is_initialized():
        return value
    box = [value]
    torch.distributed.broadcast_object_list(box, src=0)
    return box[0]
