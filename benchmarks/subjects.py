"""Who logs: nobody, losslog with one plugin or another, and what people use today, called as they call it.

Child processes only. Contract:

- A subject gets a folder and returns two functions: ``log(losses, step)``, called once a step, and ``close()``.
- All do the same duty: five components, their total and the learning rate, at every step, in every backend they name.
- A subject whose package is missing raises `Absent`, and is left out of the table.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.workload import LR, NAMES

Log = Callable[[dict[str, Any], int], None]
FAR = ("tensorboard", "wandb", "mlflow")
FIVE = ("console", *FAR, "plateau")
FOUR = ("console", *FAR)
PEERS = ("SummaryWriter", "wandb", "mlflow", "MetricLogger", "four inline")
OPTIONAL = {"lightning": "lightning", "ignite": "ignite", "accelerate": "accelerate", "mmengine": "mmengine"}


class Absent(Exception):
    """The subject's package is not installed."""


BURNER = """
import time
import losslog

class Burner:
    @losslog.hookimpl
    def on_batch_losses(self, step):
        until = time.thread_time() + 1e-3
        while time.thread_time() < until:
            pass
"""


def install_burner(folder: Path) -> None:
    """Install a plugin ``burner`` that burns 1 ms of Python a record, for this process and its follower."""
    about = folder / "losslog_burner-0.0.dist-info"
    about.mkdir(parents=True)
    (folder / "losslog_burner.py").write_text(BURNER, "ascii")
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: losslog-burner\nVersion: 0.0\n", "ascii")
    (about / "entry_points.txt").write_text("[losslog.plugins]\nburner = losslog_burner:Burner\n", "ascii")
    sys.path.insert(0, str(folder))


def need(module: str) -> Any:
    """Import a package, or say that it is absent."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise Absent(f"{module}: {error}") from error


def make(name: str, folder: Path, store: str = "") -> tuple[Log, Callable[[], None], Any]:
    """A subject by name.

    Args:
        name: ``nothing``, ``items``, ``losslog:console,plateau`` (``losslog:`` is the journal alone; ``!`` in front of
            the names puts all of them near), or a peer's name.
        folder: where it may write.
        store: a new MLflow sqlite file, to be copied: making one takes 6 to 10 s.

    Returns:
        ``log``, ``close``, and the run where there is one.
    """
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    if store and ("mlflow" in name or name == "four inline"):
        shutil.copy(store, folder / "mlflow.db")
    if name.startswith("losslog:"):
        return losslog_subject(name.removeprefix("losslog:"), folder, uri)
    log, close = {
        "nothing": nothing,
        "items": items,
        "SummaryWriter": summary_writer,
        "wandb": wandb_offline,
        "mlflow": lambda where: mlflow_sync(where, uri),
        "MetricLogger": metric_logger,
        "four inline": lambda where: four_inline(where, uri),
        "lightning": lightning_logger,
        "ignite": ignite_handler,
        "accelerate": accelerate_tracker,
        "mmengine": mmengine_backend,
    }[name](folder)
    return log, close, None


def losslog_subject(plugins: str, folder: Path, uri: str) -> tuple[Log, Callable[[], None], Any]:
    import losslog

    near = plugins.startswith("!")
    names = [each for each in plugins.lstrip("!").split(",") if each]
    os.environ["WANDB_MODE"] = "offline"
    os.environ["WANDB_SILENT"] = "true"
    if "burner" in names:
        install_burner(folder / "burner")
    options = {"mlflow": {"tracking_uri": uri}, "plateau": {"ignore": list(NAMES)}}  # no advice on losses made up here
    run = losslog.Run(
        "benchmark", dir=folder, plugins=names, options={name: options[name] for name in names if name in options},
        epochs=1, steps_per_epoch=10_000_000, follower=not near,
    )  # fmt: skip

    def log(losses: dict[str, Any], step: int) -> None:
        run.log_batch(losses, lr=LR)

    return log, run.close, run


# ---------------------------------------------------------------------- floors


def nothing(folder: Path) -> tuple[Log, Callable[[], None]]:
    return lambda losses, step: None, lambda: None


def items(folder: Path) -> tuple[Log, Callable[[], None]]:
    def log(losses: dict[str, Any], step: int) -> None:
        [value.item() for value in losses.values()]

    return log, lambda: None


# ---------------------------------------------------------------------- peers


def _values(losses: dict[str, Any]) -> dict[str, float]:
    values = {f"batch/train_{name}": value.item() for name, value in losses.items()}
    values["batch/train_total"] = sum(values.values())
    values["batch/lr"] = LR
    return values


def summary_writer(folder: Path) -> tuple[Log, Callable[[], None]]:
    writer = need("torch.utils.tensorboard").SummaryWriter(str(folder))

    def log(losses: dict[str, Any], step: int) -> None:
        for tag, value in _values(losses).items():
            writer.add_scalar(tag, value, step)

    return log, writer.close


def wandb_offline(folder: Path) -> tuple[Log, Callable[[], None]]:
    wandb = need("wandb")
    run = wandb.init(project="benchmark", dir=str(folder), mode="offline", settings=wandb.Settings(silent=True))

    def log(losses: dict[str, Any], step: int) -> None:
        run.log(_values(losses), step=step)

    return log, run.finish


def mlflow_sync(folder: Path, uri: str) -> tuple[Log, Callable[[], None]]:
    mlflow = need("mlflow")
    os.environ["MLFLOW_LOGGING_LEVEL"] = "ERROR"
    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment("benchmark")
    mlflow.start_run()

    def log(losses: dict[str, Any], step: int) -> None:
        mlflow.log_metrics({tag.replace("/", "."): value for tag, value in _values(losses).items()}, step=step)

    return log, mlflow.end_run


def metric_logger(folder: Path) -> tuple[Log, Callable[[], None]]:
    """torchvision's references/detection/utils.py as its training script calls it: update, and a print every 10."""
    from benchmarks.metriclogger import MetricLogger

    logger = MetricLogger()
    sink = io.StringIO()

    def log(losses: dict[str, Any], step: int) -> None:
        logger.update(loss=sum(losses.values()), **losses)
        logger.update(lr=LR)
        if step % 10 == 0:
            sink.write(f"Epoch: [0]  [{step}]  {logger}\n")
            sink.seek(0)

    return log, lambda: None


def four_inline(folder: Path, uri: str) -> tuple[Log, Callable[[], None]]:
    """A line of text, TensorBoard, W&B and MLflow, each called in the loop."""
    parts = [summary_writer(folder), wandb_offline(folder), mlflow_sync(folder, uri)]
    text = io.StringIO()

    def log(losses: dict[str, Any], step: int) -> None:
        text.write("  ".join(f"{name}: {value:.4f}" for name, value in _values(losses).items()) + "\n")
        for each, _ in parts:
            each(losses, step)

    def end() -> None:
        for _, close in parts:
            close()

    return log, end


# ---------------------------------------------------------------------- optional peers


def lightning_logger(folder: Path) -> tuple[Log, Callable[[], None]]:
    """Lightning's TensorBoardLogger alone, without its Trainer (log_dict in a Trainer costs more)."""
    logger = need("lightning.pytorch.loggers").TensorBoardLogger(str(folder))
    return lambda losses, step: logger.log_metrics(_values(losses), step), logger.save


def ignite_handler(folder: Path) -> tuple[Log, Callable[[], None]]:
    """Ignite's TensorboardLogger writer, as its OutputHandler calls it."""
    logger = need("ignite.handlers.tensorboard_logger").TensorboardLogger(log_dir=str(folder))

    def log(losses: dict[str, Any], step: int) -> None:
        for tag, value in _values(losses).items():
            logger.writer.add_scalar(tag, value, step)

    return log, logger.close


def accelerate_tracker(folder: Path) -> tuple[Log, Callable[[], None]]:
    accelerator = need("accelerate").Accelerator(log_with="tensorboard", project_dir=str(folder), cpu=True)
    accelerator.init_trackers("benchmark")
    return lambda losses, step: accelerator.log(_values(losses), step=step), accelerator.end_training


def mmengine_backend(folder: Path) -> tuple[Log, Callable[[], None]]:
    backend = need("mmengine.visualization").TensorboardVisBackend(str(folder))
    return lambda losses, step: backend.add_scalars(_values(losses), step), backend.close


def quiet() -> contextlib.AbstractContextManager[Any]:
    """Backends say a lot on stdout; the child's last line is its answer."""
    return contextlib.redirect_stdout(io.StringIO())
