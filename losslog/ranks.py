"""Which of several training processes this one is.

Any thread, no I/O. Contract:

- torch.distributed answers where it is initialised, else the launcher's environment variables, else there is one rank.
- torch is reached through ``sys.modules``; this module never imports it.
"""

from __future__ import annotations

import os
import sys
from typing import Any, Final, NamedTuple

# (rank, world size) as torchrun, Open MPI / Horovod and Slurm say them.
VARIABLES: Final = (
    ("RANK", "WORLD_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("SLURM_PROCID", "SLURM_NTASKS"),
)


class Place(NamedTuple):
    """This process among the ranks.

    Attributes:
        rank: from 0.
        world_size: number of ranks.
    """

    rank: int
    world_size: int


def distributed() -> Any | None:
    """``torch.distributed`` where a process group is initialised, else None."""
    module = sys.modules.get("torch.distributed")
    if module is None or not module.is_available() or not module.is_initialized():
        return None
    return module


def place() -> Place:
    """Rank and world size of this process."""
    group = distributed()
    if group is not None:
        return Place(group.get_rank(), group.get_world_size())
    for rank_name, size_name in VARIABLES:
        rank, size = os.environ.get(rank_name, ""), os.environ.get(size_name, "")
        if rank.isdigit() and size.isdigit() and int(rank) < int(size) and int(size) > 1:
            return Place(int(rank), int(size))
    return Place(0, 1)
