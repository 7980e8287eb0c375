"""`MetricLogger` and `SmoothedValue` as torchvision's reference scripts have them, which also log to a run.

Training thread. Contract:

- Same attributes, methods and text as the references' own: swap the import, keep the script.
- Values on a device are read when somebody looks at them, not at every update: no ``.item()`` per value and step.
- One ``log_every`` with gradients on is an epoch; what is updated in one iteration is one batch. Losses updated with
  gradients off are validation losses; COCO results are picked up.
- Under ``losslog run``, or beside `losslog.attach`, these classes only print: the loop is watched already.
"""

from __future__ import annotations

import datetime
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from typing import Any, Final, TypeVar

import torch

from losslog.compat.reporting import Reporter
from losslog.ranks.store import distributed
from losslog.run import Run
from losslog.values.snapshot import Staged, resolve, snapshot

Item = TypeVar("Item")
MEBIBYTE: Final = 1024.0 * 1024.0
MOST_WAITING: Final = 1000  # values a meter keeps unread


class SmoothedValue:
    """A series of values: the last few, and their sum since the beginning.

    Args:
        window_size: how many values the smoothed figures are over.
        fmt: format of `str`; may name median, avg, global_avg, max and value.
    """

    def __init__(self, window_size: int = 20, fmt: str | None = None) -> None:
        self.fmt = "{median:.4f} ({global_avg:.4f})" if fmt is None else fmt
        self._window: deque[float] = deque(maxlen=window_size)
        self._total = 0.0
        self._count = 0
        self._waiting: list[tuple[Any, int, int]] = []

    def update(self, value: Any, n: int = 1) -> None:
        """Add a value, ``n`` times.

        Args:
            value: a number, or a tensor of one element on any device.
            n: its weight in the sum.
        """
        keys_and_values = snapshot({"value": value})
        self.put(keys_and_values[1], 0, n)

    def put(self, values: list[float] | Staged, index: int, n: int = 1) -> None:
        """Add one of several values that were read together."""
        self._waiting.append((values, index, n))
        if len(self._waiting) >= MOST_WAITING:  # nobody looks: memory stays bounded
            self._settle()

    def _settle(self) -> None:
        waiting, self._waiting = self._waiting, []
        for values, index, n in waiting:
            value = resolve(values)[index]
            self._window.append(value)
            self._count += n
            self._total += value * n

    @property
    def deque(self) -> deque[float]:
        """The last values."""
        self._settle()
        return self._window

    @property
    def total(self) -> float:
        """The weighted sum of all values."""
        self._settle()
        return self._total

    @total.setter
    def total(self, value: float) -> None:
        self._settle()
        self._total = value

    @property
    def count(self) -> int:
        """The sum of the weights."""
        self._settle()
        return self._count

    @count.setter
    def count(self, value: int) -> None:
        self._settle()
        self._count = value

    def synchronize_between_processes(self) -> None:
        """Make count and total those of all ranks together; the last values stay this rank's."""
        group = distributed()
        if group is None:
            return
        device = "cuda" if group.get_backend() == "nccl" else "cpu"
        both = torch.tensor([self.count, self.total], dtype=torch.float64, device=device)
        group.barrier()
        group.all_reduce(both)
        count, total = both.tolist()
        self._count, self._total = int(count), total

    @property
    def median(self) -> float:
        """Median of the last values."""
        return float(torch.tensor(list(self.deque)).median().item())

    @property
    def avg(self) -> float:
        """Mean of the last values."""
        return float(torch.tensor(list(self.deque), dtype=torch.float32).mean().item())

    @property
    def global_avg(self) -> float:
        """Weighted mean of all values."""
        return self.total / self.count

    @property
    def max(self) -> float:
        """Largest of the last values."""
        return max(self.deque)

    @property
    def value(self) -> float:
        """The last value."""
        return self.deque[-1]

    def __str__(self) -> str:
        return self.fmt.format(
            median=self.median, avg=self.avg, global_avg=self.global_avg, max=self.max, value=self.value
        )


class MetricLogger:
    """Meters by name, printed every few iterations, and logged at each.

    Args:
        delimiter: between the parts of a line.
        run: where to log; None is the run that is open, else one is made with the first losses.
    """

    def __init__(self, delimiter: str = "\t", *, run: Run | None = None) -> None:
        self.meters: defaultdict[str, SmoothedValue] = defaultdict(SmoothedValue)
        self.delimiter = delimiter
        self._reporter = Reporter.of(run)
        self._inside = False

    def update(self, **kwargs: Any) -> None:
        """Add a value to each meter named.

        Args:
            kwargs: numbers or one-element tensors by name. Those with "loss" in their name are logged, ``loss`` beside
                others as their total; ``lr`` is the learning rate.

        Raises:
            TypeError: a value is not one number.
        """
        if not kwargs:
            return
        keys, values = snapshot(kwargs)
        for index, name in enumerate(keys or ()):
            self.meters[name].put(values, index)
        if self._inside:
            self._reporter.update(keys or (), values, training=torch.is_grad_enabled())

    def __getattr__(self, attr: str) -> Any:
        meters = self.__dict__.get("meters", {})
        if attr in meters:
            return meters[attr]
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{attr}'")

    def __str__(self) -> str:
        return self.delimiter.join(f"{name}: {meter}" for name, meter in self.meters.items())

    def synchronize_between_processes(self) -> None:
        """Synchronize every meter."""
        for meter in self.meters.values():
            meter.synchronize_between_processes()

    def add_meter(self, name: str, meter: SmoothedValue) -> None:
        """Use this meter for that name."""
        self.meters[name] = meter

    def log_every(self, iterable: Iterable[Item], print_freq: int, header: str | None = None) -> Iterator[Item]:
        """Iterate, print a line every ``print_freq`` iterations and at the last, and a closing line.

        Args:
            iterable: has a length.
            print_freq: iterations between lines.
            header: what the lines begin with.

        Yields:
            The items.
        """
        header = header or ""
        length = len(iterable)  # type: ignore[arg-type]
        began = end = time.time()
        per_iteration, loading = SmoothedValue(fmt="{avg:.4f}"), SmoothedValue(fmt="{avg:.4f}")
        digits = len(str(length))
        self._reporter.begin(length)
        try:
            for index, item in enumerate(iterable):
                loading.update(time.time() - end)
                self._inside = True
                yield item
                self._inside = False
                self._reporter.iterated()
                per_iteration.update(time.time() - end)
                if index % print_freq == 0 or index == length - 1:
                    left = datetime.timedelta(seconds=int(per_iteration.global_avg * (length - index)))
                    parts = [header, f"[{index:{digits}d}/{length}]", f"eta: {left}", str(self)]
                    parts += [f"time: {per_iteration}", f"data: {loading}"]
                    if torch.cuda.is_available():
                        parts.append(f"max mem: {torch.cuda.max_memory_allocated() / MEBIBYTE:.0f}")
                    print(self.delimiter.join(parts))
                end = time.time()
        finally:
            self._inside = False
            self._reporter.iterated()
        seconds = time.time() - began
        print(f"{header} Total time: {datetime.timedelta(seconds=int(seconds))} ({seconds / length:.4f} s / it)")
