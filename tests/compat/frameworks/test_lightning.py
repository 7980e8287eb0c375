"""Lightning: components, totals, epochs, validation, checkpoints, resume, ranks, requests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.compat.frameworks.conftest import Told, Workshop, need

need("lightning")
OURS = "__import__('losslog.compat.lightning', fromlist=['x']).LosslogCallback()"
TRAINER = ("L.Trainer(", f"L.Trainer(callbacks=[{OURS}], ")
LOOPS = Path(__file__).with_name("lightning_loops.py")


@pytest.mark.parametrize("name", ["loop_pl_dict", "loop_pl_functional", "loop_map"])
def test_loops_agree_with_their_truth(workshop: Workshop, name: str) -> None:
    workshop.loop(name, TRAINER)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    workshop = Workshop(tmp_path_factory.mktemp("lightning"))
    found = workshop.run(LOOPS.read_text("utf-8"), LOSSLOG_PLUGINS="")
    assert "is not the sum of the components" not in found.stderr  # weighted losses are none of the loop's mistakes
    return workshop.folder, json.loads((workshop.folder / "truth.json").read_text("utf-8"))


@pytest.mark.parametrize(
    "name",
    [
        "accumulation",
        "midway",
        "every_other",
        "gan",
        "critics",
        "by_hand",
        "lbfgs",
        "twice",
        "fails",
        "asked",
        "logger",
        "interrupted",
        "terminated",
        "two_sets",
        "one_set",
    ],
)
def test_every_step_and_epoch_is_what_it_was(told: tuple[Path, dict[str, Any]], name: str) -> None:
    folder, truth = told
    Told(folder, name).agrees(truth[name])


def test_a_short_window_is_a_mean_of_its_batches(told: tuple[Path, dict[str, Any]]) -> None:
    run = Told(told[0], "accumulation")
    assert [each["total"] for each in run.data("on_batch_losses")]
    metrics = [each["metrics"] for each in run.data("on_metrics")]
    assert {"train_acc": 0.25} in metrics
    assert {"train_miou": 0.5} in metrics  # logged at the epoch's end


def test_validations_amid_an_epoch_are_at_their_step(told: tuple[Path, dict[str, Any]]) -> None:
    run = Told(told[0], "midway")
    assert [(each["epoch"], each["step"]) for each in run.data("on_eval")] == [(1, 1), (1, 3), (2, 5)]
    earlier = [each["step"] for each in run.data("on_metrics") if "val/loss_a" in each["metrics"]]
    assert earlier == [1]
    assert [each["val_loss"].keys() for each in run.data("on_epoch_end")] == [{"loss_a", "loss_kl"}] * 2
    assert all(each["metrics"] == {"acc": 0.75} for each in run.data("on_eval"))


def test_checkpoints_are_logged_behind_their_epoch(told: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = told
    run = Told(folder, "every_other")
    saved = run.data("on_checkpoint")
    assert [each["epoch"] for each in saved] == [2, 4]
    assert all((folder / each["path"]).is_file() for each in saved)
    assert ["val_loss" in each for each in run.data("on_epoch_end")] == [False, True, False, True]


def test_several_optimizers_are_one_series_with_all_rates(told: tuple[Path, dict[str, Any]]) -> None:
    batch = Told(told[0], "gan").data("on_batch_losses")[0]
    assert batch["lr"] == {"0-Adam": 0.01, "1-SGD": 0.02}
    batches = Told(told[0], "critics").data("on_batch_losses")  # numbered as configured, whichever steps first
    assert {(*each["lr"],) for each in batches} == {("0-Adam", "1-SGD")}


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("fails", "failed"),
        ("interrupted", "stopped"),
        ("terminated", "stopped"),
        ("asked", "stopped"),
        ("gan", "finished"),
    ],
)
def test_a_run_tells_how_it_ended(told: tuple[Path, dict[str, Any]], name: str, status: str) -> None:
    assert Told(told[0], name).data("on_run_end")[-1]["status"] == status


@pytest.mark.parametrize("name", ["two_sets", "one_set"])
def test_the_validation_is_that_of_the_first_set_with_its_total(told: tuple[Path, dict[str, Any]], name: str) -> None:
    run, truth = Told(told[0], name), told[1][name]["val"]
    found = [each["val_loss"]["total"] for each in run.data("on_epoch_end")]
    assert found == pytest.approx([each[0] for each in truth])
    others = [each["metrics"]["total"] for each in run.data("on_eval")]
    assert others == pytest.approx([each[1] for each in truth if len(each) > 1])
    assert {each["split"] for each in run.data("on_eval")} <= {"val_1"}


def test_requests_are_honoured(told: tuple[Path, dict[str, Any]]) -> None:
    folder, truth = told
    run = Told(folder, "asked")
    assert truth["asked"]["lr"] == pytest.approx(0.001)
    assert [each["lr"] for each in run.data("on_batch_losses")] == pytest.approx([0.01] * 3 + [0.001] * 2)


def test_the_logger_brings_the_callback_and_logs_what_others_give_it(told: tuple[Path, dict[str, Any]]) -> None:
    folder, truth = told
    metrics = [each["metrics"] for each in Told(folder, "logger").data("on_metrics")]
    assert metrics.count({"beside": 1.0}) == 12
    assert not any("epoch" in each or "train_loss_step" in each for each in metrics)
    assert list((folder / "lightning_logs").parent.rglob(f"logger/{truth['logger']['version']}/checkpoints/*.ckpt"))


def test_the_older_namespace(workshop: Workshop) -> None:
    need("pytorch_lightning")
    source = LOOPS.read_text("utf-8").replace(
        'SPACE = sys.argv[1] if len(sys.argv) > 1 else "lightning.pytorch"', 'SPACE = "pytorch_lightning"'
    )
    workshop.run(source, LOSSLOG_PLUGINS="")
    truth = json.loads((workshop.folder / "truth.json").read_text("utf-8"))
    for name in ("accumulation", "gan", "logger"):
        Told(workshop.folder, name).agrees(truth[name])


MODULE = """
import os, sys, torch, warnings
warnings.filterwarnings("ignore")
import lightning as L
from torch.nn import functional as F
class Lit(L.LightningModule):
    def __init__(self): super().__init__(); self.layer = torch.nn.Linear(4, 2)
    def training_step(self, batch, i):
        x, = batch
        parts = {"loss_a": self.layer(x)[:, 0].square().mean(), "loss_b": self.layer(x)[:, 1].abs().mean()}
        self.log_dict(parts, sync_dist=SYNC)
        seen(self, parts)
        return sum(parts.values())
    def configure_optimizers(self): return torch.optim.SGD(self.parameters(), 0.01)
def data(): return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.arange(80.).reshape(20, 4) / 80), 2)
L.seed_everything(0)
quiet = dict(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
"""


def test_a_kill_and_a_resume_are_one_run_without_a_gap(workshop: Workshop) -> None:
    source = (
        MODULE
        + """
from losslog.compat.lightning import LosslogCallback
from lightning.pytorch.callbacks import ModelCheckpoint
SYNC, again = False, os.path.exists("ck/last.ckpt")
def seen(module, parts):
    if not again and module.trainer.global_step == 17: os.kill(os.getpid(), 9)
saves = ModelCheckpoint("ck", every_n_train_steps=3, save_last=True, save_top_k=-1)
trainer = L.Trainer(max_epochs=3, callbacks=[LosslogCallback(), saves], **quiet)
trainer.fit(Lit(), data(), ckpt_path="ck/last.ckpt" if again else None)
"""
    )
    workshop.run(source, ok=-9)
    workshop.run(source)
    resume = workshop.data("on_resume")
    assert [each["step"] for each in resume] == [14]
    where = [hook for hook, _ in workshop.records].index("on_resume")
    before = [data["step"] for hook, data in workshop.records[:where] if hook == "on_batch_losses"]
    after = [data["step"] for hook, data in workshop.records[where:] if hook == "on_batch_losses"]
    assert before[:15] == list(range(15))
    assert after == list(range(15, 30))
    assert [data["epoch"] for hook, data in workshop.records[where:] if hook == "on_epoch_end"] == [2, 3]


@pytest.mark.parametrize("val", [True, False])
def test_a_checkpoint_at_an_epochs_end_goes_on_with_the_next(workshop: Workshop, val: bool) -> None:
    source = (
        MODULE
        + f"""
from losslog.compat.lightning import LosslogCallback
from lightning.pytorch.callbacks import ModelCheckpoint
SYNC = False
def seen(module, parts): pass
class Val(Lit):
    def validation_step(self, batch, i): self.log("val_loss", self.layer(batch[0]).square().mean())
for epochs, path in ((2, None), (4, "ck/last.ckpt")):
    saves = ModelCheckpoint("ck", save_last=True)
    trainer = L.Trainer(max_epochs=epochs, callbacks=[LosslogCallback(), saves], **quiet)
    trainer.fit({"Val" if val else "Lit"}(), data(), *({"[data()]" if val else "[]"}), ckpt_path=path)
"""
    )
    workshop.run(source)
    assert [each["step"] for each in workshop.data("on_batch_losses")] == list(range(40))
    assert [each["epoch"] for each in workshop.data("on_epoch_end")] == [1, 2, 3, 4]
    assert [(each["epoch"], each["step"]) for each in workshop.data("on_resume")] == [(2, 19)]


def test_two_ranks_are_one_run_of_means(workshop: Workshop) -> None:
    source = (
        MODULE
        + """
from losslog.compat.lightning import LosslogCallback
import json
SYNC = True
def seen(module, parts):
    with open(f"rank{module.global_rank}.txt", "a") as file:
        file.write(json.dumps({k: float(v) for k, v in parts.items()}) + "\\n")
quiet |= dict(devices=2, strategy="ddp", callbacks=[LosslogCallback()], enable_checkpointing=False)
trainer = L.Trainer(max_epochs=2, **quiet)
trainer.fit(Lit(), data())
"""
    )
    workshop.run(source)
    ranks = [
        [json.loads(line) for line in (workshop.folder / f"rank{rank}.txt").read_text().splitlines()] for rank in (0, 1)
    ]
    batches = workshop.data("on_batch_losses")
    assert len(batches) == len(ranks[0]) == len(ranks[1]) == 10
    for batch, *both in zip(batches, *ranks, strict=True):
        assert batch["ranks"] == 2
        means = {name: (both[0][name] + both[1][name]) / 2 for name in both[0]}
        assert batch["losses"] == pytest.approx(means, rel=1e-5)
        assert batch["total"] == pytest.approx(sum(means.values()), rel=1e-5)


def test_the_entry_point_serves_only_those_who_ask(workshop: Workshop) -> None:
    about = workshop.folder / "losslog_here.dist-info"
    about.mkdir()
    pyproject = (Path(__file__).parents[3] / "pyproject.toml").read_text("utf-8")
    points = pyproject.partition('[project.entry-points."lightning.pytorch.callbacks_factory"]')[2].partition("[")[0]
    assert "losslog.compat.lightning:callbacks" in points
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: losslog-here\nVersion: 0\n")
    (about / "entry_points.txt").write_text(
        "[lightning.pytorch.callbacks_factory]\nlosslog = losslog.compat.lightning:callbacks\n"
    )
    source = (
        MODULE
        + "SYNC = False\ndef seen(*args): pass\n"
        + "L.Trainer(max_epochs=1, enable_checkpointing=False, **quiet).fit(Lit(), data())\n"
    )
    workshop.run(source)
    assert workshop.journals == []
    workshop.run(source, LOSSLOG_LIGHTNING="1")
    assert len(workshop.data("on_batch_losses")) == 10
