"""The meters a script of torchvision's reference kind carries along, in short. Nothing of losslog's."""

import time
from collections import defaultdict, deque

import torch


class SmoothedValue:
    """The last values, and the sum of all."""

    def __init__(self, window_size=20, fmt=None):
        self.deque, self.total, self.count = deque(maxlen=window_size), 0.0, 0
        self.fmt = fmt or "{median:.4f} ({global_avg:.4f})"

    def update(self, value, n=1):
        """Add a value."""
        self.deque.append(value)
        self.count += n
        self.total += value * n

    @property
    def global_avg(self):
        """Mean of all."""
        return self.total / self.count

    def __str__(self):
        median = torch.tensor(list(self.deque)).median().item()
        return self.fmt.format(median=median, global_avg=self.global_avg, value=self.deque[-1])


class MetricLogger:
    """Meters by name."""

    def __init__(self, delimiter="\t"):
        self.meters, self.delimiter = defaultdict(SmoothedValue), delimiter

    def update(self, **kwargs):
        """Add a value to each meter named."""
        for name, value in kwargs.items():
            self.meters[name].update(value.item() if isinstance(value, torch.Tensor) else value)

    def add_meter(self, name, meter):
        """Use this meter for that name."""
        self.meters[name] = meter

    def __str__(self):
        return self.delimiter.join(f"{name}: {meter}" for name, meter in self.meters.items())

    def log_every(self, iterable, print_freq, header=""):
        """Iterate and print."""
        began = time.time()
        for index, batch in enumerate(iterable):
            yield batch
            if index % print_freq == 0 or index == len(iterable) - 1:
                print(self.delimiter.join([header, f"[{index}/{len(iterable)}]", str(self)]))
        print(f"{header} done", f"in {time.time() - began:.0f} s" if time.time() - began > 3600 else "")
