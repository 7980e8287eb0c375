"""Which of several training processes this one is, and a way for them to hand things over without a collective.

`place` and `world_size` are asked anywhere, `Store` is used on the drain thread and that of the leases. Contract:

- Ranks are processes that can meet: in a process group of torch.distributed, or in torchrun's store, while it answers.
  A launcher's variables alone make nobody a rank: each such process is a run of its own.
- A process that a rank started inherits its variables, and is no rank.
- The store is torch.distributed's own key-value store, through a connection of our own: nothing here is a collective,
  so no rank can hang another, and a group destroyed before us does not matter.
- torch is reached through ``sys.modules``; this module never imports it.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, Final, NamedTuple

from losslog.runtime.containment import attempt
from losslog.runtime.pace import Guard

# (rank, world size) as torchrun, Open MPI / Horovod and Slurm say them.
VARIABLES: Final = (("RANK", "WORLD_SIZE"), ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
                    ("SLURM_PROCID", "SLURM_NTASKS"))  # fmt: skip
OWNER: Final = "LOSSLOG_RANK_PID"  # the process that torchrun numbered: its children inherit the numbers
STORE_TIMEOUT: Final = timedelta(seconds=5)
BY_ITSELF: Final[ContextVar[bool]] = ContextVar("BY_ITSELF", default=False)  # no other rank takes part


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


def launched() -> Place:
    """Rank and world size as a launcher's variables say them, whether or not anybody can be met."""
    for rank_name, size_name in VARIABLES:
        rank, size = os.environ.get(rank_name, ""), os.environ.get(size_name, "")
        if rank.isdigit() and size.isdigit() and int(rank) < int(size) and int(size) > 1:
            return Place(int(rank), int(size))
    return Place(0, 1)


def place() -> Place:
    """Rank and world size of this process among those that it can meet."""
    if BY_ITSELF.get():
        return Place(0, 1)
    group = distributed()
    if group is not None:
        return Place(group.get_rank(), group.get_world_size())
    return launched() if _has_torchruns_store() else Place(0, 1)


def alone() -> str:
    """Why a process that a launcher numbered is a run of its own; "" where nobody numbered it, or it is a rank."""
    said = launched()
    if (
        BY_ITSELF.get()
        or said.world_size < 2
        or place().world_size > 1
        or os.environ.get(OWNER, str(os.getpid())) != str(os.getpid())
    ):
        return ""
    return (
        f"the environment says process {said.rank} of {said.world_size}, but there is no process group and no store of "
        "torchrun where they could meet: this process is a run of its own (docs: Several ranks)"
    )


def _has_torchruns_store() -> bool:
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True" or launched().world_size < 2:
        return False
    if os.environ.get(OWNER, str(os.getpid())) != str(os.getpid()):
        return False
    return _answers(os.environ.get("MASTER_ADDR", ""), os.environ.get("MASTER_PORT", ""))


@functools.cache
def _answers(address: str, port: str) -> bool:
    if not address or not port.isdigit():
        return False
    import socket  # four milliseconds that only ranks need

    connection, _ = attempt(socket.create_connection, (address, int(port)), STORE_TIMEOUT.total_seconds())
    if connection is not None:
        connection.close()
    return connection is not None


class Store:
    """The ranks' key-value store, opened as soon as there is one.

    Args:
        run: number of the run in this process, the same on every rank: runs made in the same order share keys.
    """

    def __init__(self, run: int) -> None:
        self._prefix = f"losslog/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{run}"
        self._store: Any = None
        os.environ[OWNER] = str(os.getpid())
        self._queues: bool | None = None
        self._base: Any = None  # kept: the user may destroy the process group before we close
        self._guard = Guard()
        self.open()

    def open(self) -> bool:
        """Whether the store can be used now."""
        if self._store is None and "torch.distributed" in sys.modules:
            with self._guard:  # one of two threads
                if self._store is None:
                    self._store = self._opened()
        return self._store is not None

    def _opened(self) -> Any:
        # torchrun's own store is there before the process group, and after it; every rank must choose alike.
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
            return attempt(self._connect)[0]
        return attempt(self._share)[0] if distributed() is not None else None

    def _connect(self) -> Any:
        torch: Any = sys.modules["torch"]
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        self._base = torch.distributed.TCPStore(address, port, is_master=False, timeout=STORE_TIMEOUT)
        return torch.distributed.PrefixStore(self._prefix, self._base)

    def _share(self) -> Any:
        torch: Any = sys.modules["torch"]
        base = torch.distributed.distributed_c10d._get_default_store()
        clone = base.clone()
        attempt(clone.set_timeout, STORE_TIMEOUT)
        self._base = (base, clone)
        return torch.distributed.PrefixStore(self._prefix, clone)

    @property
    def queues(self) -> bool | None:
        """Whether the store has queues, as torch's newer ones have, but for files; None where that is not known yet."""
        if self._queues is None and self.open():
            own = f"try/{os.getpid()}"
            _, error = attempt(lambda: (self._store.queue_push(own, b"?"), self._store.queue_pop(own, False)))
            if error is None or isinstance(error, AttributeError | NotImplementedError):
                self._queues = error is None
        return self._queues

    def push(self, queue: str, value: bytes) -> bool:
        """Put something at the end of a queue; False where the store does not answer."""
        return self.open() and attempt(self._store.queue_push, queue, value)[1] is None

    def pull(self, queue: str) -> Iterator[bytes]:
        """Take what a queue has now, one by one."""
        length = attempt(self._store.queue_len, queue)[0] if self.open() else 0
        for _ in range(length or 0):
            value, error = attempt(self._store.queue_pop, queue, False)
            if error is not None or value is None:
                return
            yield bytes(value)

    def put(self, key: str, value: bytes) -> bool:
        """Set a key; False where the store does not answer."""
        return self.open() and attempt(self._store.set, key, value)[1] is None

    def take(self, key: str) -> bytes | None:
        """The value of a key, which is then deleted; None where it is not there."""
        value = self.peek(key)
        if value is not None:
            attempt(self._store.delete_key, key)
        return value

    def peek(self, key: str) -> bytes | None:
        """The value of a key; None where it is not there, or the store does not answer."""
        if not self.open():
            return None
        there, _ = attempt(self._store.check, [key])
        value = attempt(self._store.get, key)[0] if there else None
        return None if value is None else bytes(value)
