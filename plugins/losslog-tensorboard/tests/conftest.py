from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from losslog_tensorboard import TensorBoardPlugin
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from losslog.control import RunHandle
from losslog.testing import tell

LOSSES = {"loss_mask": 0.5, "loss_box_reg": 0.25}
Points = list[tuple[int, float]]


class Driver:
    """Calls the plugin as a lane does: every argument by name, with times that only go on."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.run = RunHandle(
            id="r1", name="demo", dir=folder, config={}, source="tensorboard", post=lambda kind, data: None
        )
        self.options = options
        self.clock = 1000.0
        self.seq = -1
        self.plugin = TensorBoardPlugin(**options)

    def again(self) -> None:
        """A new object, as after a restart of the follower; nothing was closed."""
        self.plugin = TensorBoardPlugin(**self.options)

    def number(self, seq: int | None) -> int:
        self.seq = self.seq + 1 if seq is None else seq
        return self.seq

    def tick(self, time: float | None) -> float:
        self.clock += 1
        return self.clock if time is None else time

    def start(
        self, config: dict[str, Any] | None = None, resumed: bool = False, time: float | None = None,
        seq: int | None = None,
    ) -> None:  # fmt: skip
        self.plugin.on_run_start("demo", config or {}, resumed, self.run, self.tick(time), self.number(seq))

    def batch(self, step: int, losses: Any = None, time: float | None = None, seq: int | None = None) -> None:
        losses = LOSSES | {"loss_mask": float(step)} if losses is None else losses
        self.tell("on_batch_losses", time, seq=seq, step=step, losses=losses, lr=0.1)

    def epoch(
        self, epoch: int, losses: Any = None, val_loss: Any = None, lr: Any = 0.1, time: float | None = None
    ) -> None:
        losses = LOSSES | {"loss_mask": float(epoch)} if losses is None else losses
        self.tell("on_epoch_end", time, epoch=epoch, losses=losses, val_loss=val_loss, lr=lr)

    def eval(
        self, epoch: int, metrics: dict[str, Any], split: str = "val", time: float | None = None, seq: int | None = None
    ) -> None:
        self.tell("on_eval", time, seq=seq, epoch=epoch, split=split, metrics=metrics)

    def metrics(self, metrics: dict[str, Any], step: int | None = None, epoch: int | None = None) -> None:
        self.tell("on_metrics", None, step=step, epoch=epoch, metrics=metrics)

    def tell(self, hook: str, time: float | None, seq: int | None = None, **data: Any) -> None:
        tell(self.plugin, hook, run=self.run, time=self.tick(time), seq=self.number(seq), **data)

    def alert(self, title: str, text: str = "", step: int | None = None, time: float | None = None) -> None:
        self.plugin.on_alert("warning", title, text, "plateau", None, step, None, self.run, self.tick(time), -1)

    def resume(self, epoch: int | None, step: int | None) -> None:
        self.plugin.on_resume(epoch, step, self.run, self.tick(None))

    def flush(self) -> None:
        self.plugin.on_flush()

    def end(self, status: str = "finished") -> None:
        self.plugin.on_run_end(status, self.tick(None))


def read(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0}).Reload()


@pytest.fixture(scope="session")
def driver() -> type[Driver]:
    return Driver


@pytest.fixture
def drive(tmp_path: Path) -> Callable[..., Driver]:
    return lambda **options: Driver(tmp_path, **options)


@pytest.fixture
def accumulate(tmp_path: Path) -> Callable[..., EventAccumulator]:
    return lambda sub="": read(tmp_path / "tensorboard" / sub)


@pytest.fixture
def points(tmp_path: Path) -> Callable[..., Points]:
    def of(tag: str, sub: str = "") -> Points:
        return [(point.step, point.value) for point in read(tmp_path / "tensorboard" / sub).Scalars(tag)]

    return of


@pytest.fixture
def tags(tmp_path: Path) -> Callable[..., set[str]]:
    def of(sub: str = "") -> set[str]:
        return set(read(tmp_path / "tensorboard" / sub).Tags()["scalars"])

    return of


@pytest.fixture
def texts(tmp_path: Path) -> Callable[..., list[tuple[int, str]]]:
    def of(tag: str, sub: str = "") -> list[tuple[int, str]]:
        found = read(tmp_path / "tensorboard" / sub).Tensors(f"{tag}/text_summary")
        return [(each.step, each.tensor_proto.string_val[0].decode()) for each in found]

    return of
