"""transformers: components, totals, accumulation, evaluation, checkpoints, resume, requests."""

from __future__ import annotations

import pytest

from tests.compat.frameworks.conftest import Told, Workshop, need

need("transformers")
OURS = "__import__('losslog.compat.transformers', fromlist=['x']).LosslogCallback()"


@pytest.mark.parametrize(
    ("name", "environment"),
    [
        ("loop_hf_detr", {}),
        ("loop_hf_detr", {"AUX": "1"}),
        ("loop_hf_lm", {"ACC": "4"}),
        ("loop_hf_lm", {"NS": "15"}),
        ("loop_hf_custom", {}),
    ],
)
def test_loops_agree_with_their_truth(workshop: Workshop, name: str, environment: dict[str, str]) -> None:
    workshop.loop(name, ("callbacks=[CB()]", f"callbacks=[CB(), {OURS}]"), **environment)
    assert workshop.data("on_run_end")[0]["status"] == "finished"


TOY = """
import os, warnings; warnings.filterwarnings("ignore")
import torch
from transformers import Trainer, TrainingArguments, TrainerCallback
from losslog.compat.transformers import LosslogCallback
class Model(torch.nn.Module):
    def __init__(self): super().__init__(); self.layer = torch.nn.Linear(4, 2)
    def forward(self, x, return_loss=True):
        out = self.layer(x); parts = {"loss_a": out[:, 0].square().mean(), "loss_b": out[:, 1].abs().mean()}
        beside = {**parts, "class_error": torch.tensor(9.0)}
        return {"loss": parts["loss_a"] + 2 * parts["loss_b"], "loss_dict": beside, "logits": out}
class Data(torch.utils.data.Dataset):
    def __len__(self): return 20
    def __getitem__(self, i): return {"x": torch.randn(4, generator=torch.Generator().manual_seed(i))}
def train(callbacks=(), resume=None, trainer=Trainer, ours=None, model=None, evals=None, **kw):
    kw = dict(num_train_epochs=2, save_strategy="no", logging_steps=1) | kw
    kw |= dict(per_device_train_batch_size=2, report_to=[], use_cpu=True, disable_tqdm=True, learning_rate=1e-3)
    found = trainer(model=model or Model(), args=TrainingArguments("out", **kw), train_dataset=Data(),
                    eval_dataset=evals or Data(), callbacks=[*callbacks, ours or LosslogCallback()])
    found.train(resume_from_checkpoint=resume)
    return found
"""


def test_accumulation_evaluation_and_metrics_beside(workshop: Workshop) -> None:
    workshop.run(
        TOY
        + """
train(gradient_accumulation_steps=4, eval_strategy="epoch", save_strategy="epoch")
"""
    )
    batches, ends = workshop.data("on_batch_losses"), workshop.data("on_epoch_end")
    assert [each["n"] for each in batches] == [4, 4, 2] * 2
    for each in batches:
        assert each["total"] == pytest.approx(each["losses"]["loss_a"] + 2 * each["losses"]["loss_b"], rel=1e-5)
    assert [each["val_loss"].keys() for each in ends] == [{"loss_a", "loss_b", "loss"}] * 2
    assert [each["epochs"] for each in ends] == [2, 2]
    beside = [each["metrics"] for each in workshop.data("on_metrics")]
    assert {"class_error": 9.0} in beside
    assert any("grad_norm" in each for each in beside)
    order = [hook for hook, _ in workshop.records if hook in ("on_epoch_end", "on_checkpoint")]
    assert order == ["on_epoch_end", "on_checkpoint"] * 2
    assert [each["epoch"] for each in workshop.data("on_checkpoint")] == [1, 2]


def test_a_kill_and_a_resume_are_one_run_without_a_gap(workshop: Workshop) -> None:
    source = (
        TOY
        + """
class Kill(TrainerCallback):
    def on_step_begin(self, args, state, control, **k):
        if state.global_step == 17 and not resume: os.kill(os.getpid(), 9)
resume = os.path.isdir("out") and any(os.scandir("out"))
train([Kill()], resume=resume or None, save_strategy="steps", save_steps=STEPS, num_train_epochs=3)
"""
    )
    for steps, last, ends in ((5, 14, [2, 3]), (10, 9, [2, 3])):
        folder = workshop.folder / str(steps)
        folder.mkdir()
        each = Workshop(folder)
        each.run(source.replace("STEPS", str(steps)), ok=-9)
        each.run(source.replace("STEPS", str(steps)))
        assert [data["step"] for data in each.data("on_resume")] == [last]
        where = [hook for hook, _ in each.records].index("on_resume")
        before, after = each.records[:where], each.records[where:]
        assert [data["step"] for hook, data in before if hook == "on_batch_losses"][: last + 1] == list(range(last + 1))
        assert [data["step"] for hook, data in after if hook == "on_batch_losses"] == list(range(last + 1, 30))
        assert [data["epoch"] for hook, data in after if hook == "on_epoch_end"] == ends


def test_limits_requests_logged_parts_and_several_data_sets(workshop: Workshop) -> None:
    workshop.run(
        TOY
        + """
class Parts(Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, **kw):
        out = model.layer(inputs["x"]); a, b = out[:, 0].square().mean(), out[:, 1].abs().mean()
        if model.training: self.log({"loss_first": a.item(), "loss_second": b.item()})
        return (a + b, {"logits": out}) if return_outputs else a + b
train(trainer=Parts, max_steps=13, ours=LosslogCallback(name="parts", plugins=None), logging_steps=500)
class Asks(TrainerCallback):
    def on_step_begin(self, args, state, control, **k):
        if state.global_step == 2: ours.run.request_lr(0.1)
        if state.global_step == 4: ours.run.request_stop("enough")
        ours.run.flush()
ours = LosslogCallback(name="asks", plugins=None)
train([Asks()], ours=ours, lr_scheduler_type="constant")
sets = {"one": Data(), "two": Data()}
train(ours=LosslogCallback(name="sets", plugins=None), eval_strategy="steps", eval_steps=5, evals=sets)
class Rewards(Trainer):
    def log(self, logs, *args): super().log(logs | {"rewards/chosen": 1.5, "kl": 0.25}, *args)
train(trainer=Rewards, ours=LosslogCallback(name="rewards", plugins=None))
""",
        LOSSLOG_PLUGINS="",
    )
    parts = Told(workshop.folder, "parts")
    assert [each["step"] for each in parts.data("on_batch_losses")] == list(range(13))
    for each in parts.data("on_batch_losses"):
        assert each["losses"].keys() == {"loss_first", "loss_second"}
        assert each["total"] == pytest.approx(sum(each["losses"].values()), rel=1e-5)
    assert [each["epoch"] for each in parts.data("on_epoch_end")] == [1, 2]
    asks = Told(workshop.folder, "asks")
    assert [each["lr"] for each in asks.data("on_batch_losses")] == pytest.approx([1e-3] * 3 + [1e-4] * 2)
    assert asks.data("on_run_end")[0]["status"] == "stopped"
    sets = Told(workshop.folder, "sets")
    assert [each["epoch"] for each in sets.data("on_epoch_end")] == [1, 2]
    assert all(each["val_loss"].keys() == {"loss_a", "loss_b", "loss"} for each in sets.data("on_epoch_end"))
    assert [each["step"] for each in sets.data("on_metrics") if "val/loss" in each["metrics"]] == [4, 14]
    others = [(each["split"], each["step"]) for each in sets.data("on_eval") if "loss" in each["metrics"]]
    assert others == [("two", step) for step in (4, 9, 14, 19)]
    both = [each["metrics"]["loss"] for each in sets.data("on_eval") if each["step"] in (9, 19)]
    assert [each["val_loss"]["loss"] for each in sets.data("on_epoch_end")] == both  # of one set: they do not add up
    rewards = [each["metrics"] for each in Told(workshop.folder, "rewards").data("on_metrics")]
    assert any(each.get("rewards/chosen") == 1.5 and each.get("kl") == 0.25 for each in rewards)


def test_a_checkpoint_of_before_the_adapter_is_gone_on_with(workshop: Workshop) -> None:
    workshop.run(
        TOY
        + """
train(ours=TrainerCallback(), save_strategy="epoch", num_train_epochs=1)
train(resume=True, save_strategy="epoch", restore_callback_states_from_checkpoint=True)
"""
    )
    assert [each["step"] for each in workshop.data("on_batch_losses")] == list(range(10))
