"""Small loops under frameworks, alone and logged, that `benchmarks.adapters` measures."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any

NAMES = ("loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg")
WARM = 100  # steps of a fit that are not counted


def net() -> Any:
    """Gives five losses."""
    import torch

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(64, 5)

        def forward(self, x: torch.Tensor) -> dict[str, Any]:
            return dict(zip(NAMES, self.linear(x).square().mean(0).unbind(), strict=True))

    return Net()


def quickest(times: list[float]) -> float:
    """The mean of the quickest tenth of steps: what others do on the machine is not in it."""
    steps = sorted(after - before for before, after in itertools.pairwise(times[WARM:]))
    return statistics.fmean(steps[: max(len(steps) // 10, 1)])


class Batches:
    """Batches that tell when they are fetched."""

    def __init__(self, steps: int, *others: Any) -> None:
        import torch

        self.times: list[float] = []
        self._batch, self._steps = (torch.ones(8, 64), *others), steps + WARM

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, index: int) -> Any:
        self.times.append(time.thread_time())
        return self._batch if len(self._batch) > 1 else self._batch[0]


def ignite(folder: str, steps: int) -> dict[str, Callable[[], float]]:
    """The same with ignite."""
    import torch
    from ignite.engine import Engine, Events
    from ignite.handlers.tensorboard_logger import TensorboardLogger

    import losslog.compat.ignite

    def fit(add: Callable[[Any], Any]) -> float:
        model, data = net(), Batches(steps)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)

        def update(engine: Any, batch: Any) -> Any:
            losses = model(batch)
            optimizer.zero_grad()
            sum(losses.values()).backward()
            optimizer.step()
            return {name: value.item() for name, value in losses.items()}

        trainer = Engine(update)
        add(trainer)
        trainer.run(torch.utils.data.DataLoader(data, batch_size=None), max_epochs=1)  # type: ignore[arg-type]
        return quickest(data.times)

    def own(trainer: Any) -> None:
        TensorboardLogger(log_dir=folder).attach_output_handler(
            trainer, Events.ITERATION_COMPLETED, tag="train", output_transform=lambda output: output
        )

    options = {"name": "bench", "dir": folder, "plugins": None}
    return {
        "bare": lambda: fit(lambda trainer: None),
        "losslog": lambda: fit(lambda trainer: losslog.compat.ignite.attach(trainer, **options)),
        "own": lambda: fit(own),
    }


def accelerate(folder: str, steps: int) -> dict[str, Callable[[], float]]:
    """The same with accelerate, whose trackers are given every step."""
    import torch
    from accelerate import Accelerator
    from accelerate.tracking import TensorBoardTracker

    from losslog.compat.accelerate import LosslogTracker

    def fit(tracker: Callable[[], Any]) -> float:
        data, found = Batches(steps), tracker()
        accelerator = Accelerator(cpu=True, log_with=found)
        accelerator.init_trackers("bench")
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
        loader = torch.utils.data.DataLoader(data, batch_size=None)  # type: ignore[arg-type, var-annotated]
        for step, batch in enumerate(loader):
            losses = model(batch)
            optimizer.zero_grad()
            accelerator.backward(sum(losses.values()))
            optimizer.step()
            if found is not None:
                accelerator.log({name: value.item() for name, value in losses.items()}, step=step)
        accelerator.end_training()
        return quickest(data.times)

    return {
        "bare": lambda: fit(lambda: None),
        "losslog": lambda: fit(lambda: LosslogTracker(name="bench", dir=folder, plugins=None)),
        "own": lambda: fit(lambda: TensorBoardTracker("bench", folder)),
    }


def mmengine(folder: str, steps: int) -> dict[str, Callable[[], float]]:
    """The same with mmengine, alone and with our hook: its own backends are thinned."""
    import torch
    from mmengine.model import BaseModel
    from mmengine.runner import Runner

    import losslog.compat.mmengine  # noqa: F401 - it is registered

    class Model(BaseModel):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.net = net()

        def forward(self, x: torch.Tensor, mode: str = "tensor") -> Any:
            return self.net(x)

    def fit(hooks: list[Any]) -> float:
        data = Batches(steps)
        loader = torch.utils.data.DataLoader(data, batch_size=None, collate_fn=lambda x: {"x": x})  # type: ignore[arg-type, var-annotated]
        Runner(
            model=Model(), work_dir=folder, train_dataloader=loader, log_level="ERROR", custom_hooks=hooks,
            train_cfg={"by_epoch": True, "max_epochs": 1}, default_hooks={"checkpoint": None, "sampler_seed": None},
            optim_wrapper={"optimizer": {"type": "SGD", "lr": 1e-4}}, experiment_name=f"bench{time.time_ns()}",
        ).train()  # fmt: skip
        return quickest(data.times)

    ours = {"type": "LosslogHook", "name": "bench", "dir": folder, "plugins": None}
    return {"bare": lambda: fit([]), "losslog": lambda: fit([ours])}


def keras(folder: str, steps: int) -> dict[str, Callable[[], float]]:
    """The same with keras, whose TensorBoard callback needs TensorFlow; five outputs, each with a loss."""
    import keras as k
    import torch

    from losslog.compat.keras import LosslogCallback

    class Clock(k.callbacks.Callback):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.times: list[float] = []

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            self.times.append(time.thread_time())

    def fit(callbacks: list[Any]) -> float:
        inputs, clock = k.Input((64,)), Clock()
        model = k.Model(inputs, {name: k.layers.Dense(1, name=name)(inputs) for name in NAMES})
        model.compile(k.optimizers.SGD(1e-4), loss=dict.fromkeys(NAMES, "mse"))
        data = Batches(steps, {name: torch.ones(8, 1) for name in NAMES})
        loader = torch.utils.data.DataLoader(data, batch_size=None)  # type: ignore[arg-type, var-annotated]
        model.fit(loader, epochs=1, verbose=0, callbacks=[clock, *callbacks])
        return quickest(clock.times)

    ours = {"name": "bench", "dir": folder, "plugins": None}
    return {"bare": lambda: fit([]), "losslog": lambda: fit([LosslogCallback(**ours)])}


def fastai(folder: str, steps: int) -> dict[str, Callable[[], float]]:
    """The same with fastai; one loss."""
    import torch
    from fastai.callback import progress  # noqa: F401 - it gives a Learner its `no_bar`
    from fastai.data.core import DataLoaders
    from fastai.learner import Learner

    from losslog.compat.fastai import LosslogCallback

    def fit(callbacks: list[Any]) -> float:
        data = Batches(steps, torch.ones(8, 1))
        loader = torch.utils.data.DataLoader(data, batch_size=None)  # type: ignore[arg-type, var-annotated]
        few = torch.utils.data.DataLoader(Batches(1 - WARM, torch.ones(8, 1)), batch_size=None)  # type: ignore[arg-type, var-annotated]
        model = torch.nn.Linear(64, 1)
        found = Learner(DataLoaders(loader, few), model, loss_func=torch.nn.MSELoss(), cbs=callbacks)
        with found.no_bar(), found.no_logging():
            found.fit(1, lr=1e-4)
        return quickest(data.times)

    ours = {"name": "bench", "dir": folder, "plugins": None}
    return {"bare": lambda: fit([]), "losslog": lambda: fit([LosslogCallback(**ours)])}
