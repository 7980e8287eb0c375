from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import losslog
from losslog.engine import CheckpointError, FitResult, fit, make_scheduler, read_checkpoint

OpenRun = Callable[..., losslog.Run]
Records = Callable[[losslog.Run], list[dict[str, Any]]]
FullDisk = Callable[[int], AbstractContextManager[None]]
LR = torch.optim.lr_scheduler


class Score:
    """Mean absolute error of the left prediction."""

    def __init__(self) -> None:
        self.errors: list[float] = []

    def update(self, targets: Any, outputs: Any) -> None:
        self.errors.append(float((outputs[:, 0] - targets).abs().mean()))

    def compute(self) -> dict[str, float]:
        return {"error": sum(self.errors) / len(self.errors)}


def sgd(model: nn.Module, lr: float = 0.01) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)


def test_events_come_in_order(two_losses: nn.Module, loader: Any, open_run: OpenRun, records: Records) -> None:
    with open_run() as run:
        result = fit(
            two_losses, sgd(two_losses), loader, epochs=2, run=run, val_loader=loader, evaluator=Score,
            steps_per_epoch=2, metrics_every=0,
        )  # fmt: skip
    found = [(record["hook"], record["data"].get("epoch")) for record in records(run)]
    epoch = ["on_batch_losses", "on_batch_losses", "on_eval", "on_epoch_end", "on_checkpoint"]
    assert found == [
        ("on_run_start", None),
        *((hook, 1) for hook in epoch),
        *((hook, 2) for hook in epoch),
        ("on_run_end", None),
    ]
    ends = [record["data"] for record in records(run) if record["hook"] == "on_epoch_end"]
    assert ends[-1]["losses"] == result.losses
    assert ends[-1]["val_loss"] == result.val_loss
    assert ends[-1]["lr"] == 0.01
    paths = [record["data"]["path"] for record in records(run) if record["hook"] == "on_checkpoint"]
    assert paths == ["checkpoints/epoch_001.pth", "checkpoints/epoch_002.pth"]
    assert all((run.dir / path).is_file() for path in paths)
    assert (result.epoch, result.step, result.stopped) == (2, 4, False)
    assert result.checkpoint == run.dir / paths[-1]


def test_it_works_without_a_run_and_without_validation(one_loss: nn.Module, loader: Any, tmp_path: Path) -> None:
    result = fit(one_loss, sgd(one_loss), loader, epochs=1)
    assert isinstance(result.losses, float)
    assert (result.val_loss, result.metrics, result.checkpoint) == (None, {}, None)
    result = fit(one_loss, sgd(one_loss), loader, epochs=1, checkpoint_dir=tmp_path)
    assert result.checkpoint == tmp_path / "checkpoints" / "epoch_001.pth"


def test_the_last_epoch_is_always_evaluated_and_saved(two_losses: nn.Module, loader: Any, tmp_path: Path) -> None:
    calls: list[int] = []

    def evaluator() -> Score:
        calls.append(1)
        return Score()

    fit(
        two_losses, sgd(two_losses), loader, epochs=5, val_loader=loader, evaluator=evaluator, evaluate_every=2,
        checkpoint_every=3, checkpoint_dir=tmp_path,
    )  # fmt: skip
    assert len(calls) == 3
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["epoch_003.pth", "epoch_005.pth"]


SCHEDULERS: dict[str, tuple[Callable[[Any], Any] | None, str]] = {
    "none": (None, "epoch"),
    "StepLR": (lambda optimizer: LR.StepLR(optimizer, 1, 0.5), "epoch"),
    "cosine": (lambda optimizer: LR.CosineAnnealingLR(optimizer, 4), "epoch"),
    "OneCycle": (lambda optimizer: LR.OneCycleLR(optimizer, 0.05, total_steps=24), "step"),
    "plateau": (lambda optimizer: LR.ReduceLROnPlateau(optimizer, patience=0), "epoch"),
    "ours": (lambda optimizer: make_scheduler(optimizer, "step", 24), "step"),
}


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_a_resumed_run_repeats_an_uninterrupted_one_to_the_last_digit(
    loader: Any, open_run: OpenRun, records: Records, two_losses: nn.Module, kind: str
) -> None:
    make, every = SCHEDULERS[kind]
    state = {name: value.clone() for name, value in two_losses.state_dict().items()}

    def train(run: losslog.Run, epochs: int, resume: Path | None = None) -> FitResult:
        torch.manual_seed(11)
        two_losses.load_state_dict(state)
        optimizer = sgd(two_losses)
        return fit(
            two_losses, optimizer, loader, epochs=epochs, run=run, val_loader=loader, evaluator=Score,
            scheduler=make(optimizer) if make else None, scheduler_every=every, warmup_steps=8, clip_norm=1.0,
            resume=resume, metrics_every=0,
        )  # fmt: skip

    def series(run: losslog.Run) -> list[Any]:
        kept = ("step", "epoch", "losses", "total", "val_loss", "metrics", "lr")
        hooks = ("on_batch_losses", "on_epoch_end", "on_eval")
        return [
            (record["hook"], {name: record["data"].get(name) for name in kept})
            for record in records(run)
            if record["hook"] in hooks
        ]

    with open_run() as whole:
        train(whole, 4)
    with open_run() as first:
        half = train(first, 2)
    torch.rand(13)  # whatever else happens in between
    assert half.checkpoint is not None
    content = read_checkpoint(half.checkpoint)
    with open_run(resume=first.dir, resume_epoch=content["epoch"], resume_step=content["step"] - 1) as second:
        train(second, 4, half.checkpoint)
    assert second.dir == first.dir
    assert series(second) == series(whole)


def test_a_detector_resumes_exactly(shapes: Path, tmp_path: Path) -> None:
    from losslog.detection import CocoDataset, HorizontalFlip, build_maskrcnn, collate, get_parameter_groups

    train_set = CocoDataset(shapes / "images", shapes / "annotations_train.json", transform=HorizontalFlip())
    val_set = CocoDataset(shapes / "images", shapes / "annotations_val.json", categories=train_set.categories)
    train_loader = torch.utils.data.DataLoader(train_set, 2, shuffle=True, collate_fn=collate)
    val_loader = torch.utils.data.DataLoader(val_set, 2, collate_fn=collate)

    def train(folder: Path, epochs: int, resume: Path | None = None) -> FitResult:
        torch.manual_seed(0)
        model = build_maskrcnn(4, "tiny", image_size=64)
        optimizer = torch.optim.SGD(get_parameter_groups(model, 1e-3), momentum=0.9)
        return fit(
            model, optimizer, train_loader, epochs=epochs, val_loader=val_loader, checkpoint_dir=folder, resume=resume,
            scheduler=make_scheduler(optimizer, "cosine", 9), scheduler_every="step", steps_per_epoch=3,
        )  # fmt: skip

    whole = train(tmp_path / "whole", 3)
    half = train(tmp_path / "half", 1)
    resumed = train(tmp_path / "half", 3, half.checkpoint)
    assert resumed.losses == whole.losses
    assert resumed.val_loss == whole.val_loss
    assert resumed.metrics == whole.metrics
    assert resumed.step == whole.step == 9


def test_a_loader_with_its_own_generator_resumes_exactly(one_loss: nn.Module, loader: Any, tmp_path: Path) -> None:
    state = {name: value.clone() for name, value in one_loss.state_dict().items()}

    def train(epochs: int, resume: Path | None = None) -> FitResult:
        one_loss.load_state_dict(state)
        own = torch.utils.data.DataLoader(loader.dataset, 4, shuffle=True, generator=torch.Generator().manual_seed(2))
        return fit(one_loss, sgd(one_loss), own, epochs=epochs, checkpoint_dir=tmp_path, resume=resume)

    whole, half = train(3), train(1)
    assert train(3, half.checkpoint).losses == whole.losses


def test_checkpoints_of_another_model_are_refused(
    one_loss: nn.Module, two_losses: nn.Module, loader: Any, tmp_path: Path
) -> None:
    saved = fit(one_loss, sgd(one_loss), loader, epochs=1, checkpoint_dir=tmp_path).checkpoint
    with pytest.raises(CheckpointError, match="of another model"):
        fit(two_losses, sgd(two_losses), loader, epochs=2, resume=saved)


class Heavy(nn.Module):
    """A scalar loss, and weights of 400 kB beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 1)
        self.register_buffer("ballast", torch.zeros(100_000))

    def forward(self, x: Any, y: Any) -> Any:
        return ((self.linear(x)[:, 0] - y) ** 2).mean()


@pytest.mark.parametrize("full_in", [[1], [2], [1, 2]])
def test_a_full_disk_costs_a_checkpoint_and_not_the_run(
    loader: Any, open_run: OpenRun, records: Records, full_disk: FullDisk, caplog: Any, full_in: list[int]
) -> None:
    model = Heavy()
    with ExitStack() as limit, open_run() as run:

        def before_epoch(epoch: int) -> None:
            limit.close()
            if epoch in full_in:
                limit.enter_context(full_disk(100_000))

        result = fit(model, sgd(model), loader, epochs=3, run=run, before_epoch=before_epoch, metrics_every=0)
    found = records(run)
    saved = [record["data"]["epoch"] for record in found if record["hook"] == "on_checkpoint"]
    told = [record["data"] for record in found if record["hook"] == "on_alert"]
    assert saved == [epoch for epoch in (1, 2, 3) if epoch not in full_in]
    assert [alert["title"] for alert in told] == [
        f"the checkpoint of epoch {epoch} was not written" for epoch in full_in
    ]
    assert caplog.text.count("was not written") == len(full_in)
    assert all("File too large" in alert["text"] and alert["level"] == "error" for alert in told)
    assert sorted(path.name for path in (run.dir / "checkpoints").iterdir()) == [
        f"epoch_00{each}.pth" for each in saved
    ]
    assert (result.epoch, found[-1]["data"]["status"]) == (3, "finished")


def test_a_full_disk_at_the_last_epoch_is_an_error(loader: Any, tmp_path: Path, full_disk: FullDisk) -> None:
    model = Heavy()
    with full_disk(100_000), pytest.raises(CheckpointError, match=r"epoch_002.pth cannot be written: .*File too large"):
        fit(model, sgd(model), loader, epochs=2, checkpoint_dir=tmp_path, checkpoint_every=2)


def test_a_folder_that_cannot_be_made_is_said_before_training(one_loss: nn.Module, loader: Any, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file")
    epochs: list[int] = []
    with pytest.raises(FileExistsError):
        fit(one_loss, sgd(one_loss), loader, epochs=1, checkpoint_dir=tmp_path, before_epoch=epochs.append)
    assert epochs == []


def test_ctrl_c_ends_the_run_as_stopped(
    two_losses: nn.Module, loader: Any, open_run: OpenRun, records: Records
) -> None:
    def interrupt(epoch: int) -> None:
        if epoch == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt), open_run() as run:
        fit(two_losses, sgd(two_losses), loader, epochs=3, run=run, before_epoch=interrupt, metrics_every=0)
    found = records(run)
    assert found[-1]["hook"] == "on_run_end"
    assert found[-1]["data"]["status"] == "stopped"
    assert [record["data"]["epoch"] for record in found if record["hook"] == "on_checkpoint"] == [1]


def test_a_stop_asked_for_leaves_the_epoch_to_be_done_again(
    two_losses: nn.Module, loader: Any, open_run: OpenRun, records: Records
) -> None:
    with open_run() as run:

        def stop(epoch: int) -> None:
            if epoch == 2:
                run.request_stop("enough")

        result = fit(two_losses, sgd(two_losses), loader, epochs=9, run=run, before_epoch=stop, metrics_every=0)
    assert result.stopped
    assert (result.epoch, result.step) == (1, 6)
    ends = [record["data"]["epoch"] for record in records(run) if record["hook"] in ("on_epoch_end", "on_checkpoint")]
    assert ends == [1, 1]


def test_an_inline_hook_that_stops_training_ends_the_fit(
    two_losses: nn.Module, loader: Any, open_run: OpenRun, records: Records
) -> None:
    class Enough:
        @losslog.hookimpl
        def on_epoch_end(self, epoch: int) -> None:
            if epoch == 2:
                raise losslog.StopTraining("good enough")

    with open_run() as run:
        run.register(Enough(), inline=True)
        result = fit(two_losses, sgd(two_losses), loader, epochs=9, run=run, metrics_every=0)
    assert (result.stopped, result.epoch) == (True, 2)
    end = records(run)[-1]["data"]
    assert (end["status"], end["error"]) == ("stopped", "good enough")


def test_checkpoints_are_kept_as_asked(two_losses: nn.Module, loader: Any, tmp_path: Path) -> None:
    fit(two_losses, sgd(two_losses), loader, epochs=4, val_loader=loader, checkpoint_dir=tmp_path, keep=2,
        best="val_loss")  # fmt: skip
    found = sorted(each.name for each in (tmp_path / "checkpoints").glob("*.pth"))
    assert found == ["best.pth", "epoch_003.pth", "epoch_004.pth"]


def test_the_sampler_is_told_the_epoch(one_loss: nn.Module, loader: Any) -> None:
    told: list[int] = []

    class Sampler(torch.utils.data.SequentialSampler):
        def set_epoch(self, epoch: int) -> None:
            told.append(epoch)

    data = torch.utils.data.DataLoader(loader.dataset, 4, sampler=Sampler(loader.dataset))
    fit(one_loss, sgd(one_loss), data, epochs=2)
    assert told == [1, 2]


@pytest.mark.parametrize("amp", [True, torch.bfloat16, torch.float16])
def test_mixed_precision_on_the_cpu(one_loss: nn.Module, loader: Any, tmp_path: Path, amp: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        result = fit(one_loss, sgd(one_loss), loader, epochs=2, amp=amp, checkpoint_dir=tmp_path, clip_norm=1.0)
    assert isinstance(result.losses, float)
    assert 0 < result.losses < 100
    assert result.checkpoint is not None
    assert (read_checkpoint(result.checkpoint)["scaler"] is not None) == (amp is torch.float16)


@pytest.mark.parametrize("setting", [{"epochs": 0}, {"epochs": 1, "evaluate_every": -1}])
def test_settings_out_of_range_are_refused(one_loss: nn.Module, loader: Any, setting: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least"):
        fit(one_loss, sgd(one_loss), loader, **setting)  # type: ignore[arg-type]


@pytest.mark.gpu
def test_float16_on_cuda_trains_and_resumes(shapes: Path, tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    from losslog.detection import CocoDataset, build_maskrcnn, collate

    dataset = CocoDataset(shapes / "images", shapes / "annotations_train.json")
    loader = torch.utils.data.DataLoader(dataset, 2, shuffle=True, collate_fn=collate)
    model = build_maskrcnn(4, "tiny", image_size=64).cuda()
    first = fit(model, sgd(model), loader, epochs=1, val_loader=loader, amp=True, checkpoint_dir=tmp_path)
    second = fit(
        model, sgd(model), loader, epochs=2, val_loader=loader, amp=True, checkpoint_dir=tmp_path,
        resume=first.checkpoint,
    )  # fmt: skip
    assert second.step == 2 * first.step
