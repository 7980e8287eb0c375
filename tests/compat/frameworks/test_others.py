"""mmengine, ultralytics, ignite, keras: loops agree with their truth."""

from __future__ import annotations

import pytest

from tests.compat.frameworks.conftest import Told, Workshop, need


@pytest.mark.parametrize("name", ["loop_mme", "loop_mm_iter"])
def test_mmengine(workshop: Workshop, name: str) -> None:
    need("mmengine")
    hook = "__import__('losslog.compat.mmengine', fromlist=['x']).LosslogHook()"
    workshop.loop(name, ("custom_hooks=[H()]", f"custom_hooks=[H(), {hook}]"))
    assert all(each["metrics"] == {"bbox_mAP": 0.5} for each in workshop.data("on_eval"))


def test_ultralytics(workshop: Workshop) -> None:
    need("ultralytics")
    add = "__import__('losslog.compat.ultralytics', fromlist=['x']).add(model)"
    truth = workshop.loop("loop_yolo", ("verbose=False)\ndef start", f"verbose=False)\n{add}\ndef start"))
    assert len(workshop.data("on_eval")) == 2
    assert truth


def test_ignite(workshop: Workshop) -> None:
    need("ignite")
    attach = "__import__('losslog.compat.ignite', fromlist=['x']).attach(trainer)"
    workshop.loop("loop_ign_sup", ("trainer.run(", f"{attach}\ntrainer.run("))


def test_keras(workshop: Workshop) -> None:
    need("keras")
    callback = "__import__('losslog.compat.keras', fromlist=['x']).LosslogCallback()"
    workshop.loop("loop_ker", ("callbacks=[C()]", f"callbacks=[C(), {callback}]"), *TRUE_BATCHES)
    assert [each["val_loss"].keys() for each in workshop.data("on_epoch_end")] == [{"loss", "cls_loss", "box_loss"}] * 2


def test_keras_without_the_adapter_names_it_once(workshop: Workshop) -> None:
    need("keras")
    script = workshop.folder / "plain.py"
    script.write_text(
        """
import numpy, keras
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
model.compile("adam", loss="mse")
model.fit(numpy.ones((16, 4)), numpy.ones((16, 1)), batch_size=4, epochs=2, verbose=0)
""",
        "utf-8",
    )
    found = workshop.run("import subprocess, sys; subprocess.run([sys.executable, '-m', 'losslog', 'run', 'plain.py'])")
    said = found.stdout + found.stderr
    assert said.count("losslog.compat.keras.LosslogCallback") == 1, said
    assert "Error" not in said
    assert "param_groups" not in said


# The loop's own truth are keras' means over the epoch so far: here each batch's losses are computed once more.
TRUE_BATCHES = (
    ("    def on_train_batch_end(self, b, logs=None): truth.step(logs)\n", ""),
    (
        "g = np.random",
        """compute = model.compute_loss
def compute_loss(x=None, y=None, y_pred=None, sample_weight=None, training=True):
    total = compute(x, y, y_pred, sample_weight, training)
    if training:
        one = keras.losses.sparse_categorical_crossentropy(y["cls"], y_pred["cls"]).mean()
        other = keras.losses.mean_absolute_error(y["box"], y_pred["box"]).mean()
        truth.step({"cls_loss": one, "box_loss": other}, total=total)
    return total
model.compute_loss = compute_loss
g = np.random""",
    ),
)


def test_a_second_optimizer_step_under_mmengine_accumulation(workshop: Workshop) -> None:
    need("mmengine")
    workshop.run(MM.replace("WRAPPER", "dict(optimizer=dict(type='SGD', lr=0.05), accumulative_counts=3)"))
    batches = workshop.data("on_batch_losses")
    assert [each.get("n", 1) for each in batches] == [3, 3, 3, 1]
    assert [each["step"] for each in batches] == [0, 1, 2, 3]
    assert all(each["total"] == pytest.approx(sum(each["losses"].values()), rel=1e-5) for each in batches[:3])
    assert all("acc" in each["metrics"] for each in workshop.data("on_metrics"))


def test_mmengine_resumes(workshop: Workshop) -> None:
    need("mmengine")
    source = MM.replace("WRAPPER", "dict(optimizer=dict(type='SGD', lr=0.05))")
    workshop.run(source)
    again = source.replace("max_epochs=2", "max_epochs=4").replace("work_dir='work'", "work_dir='work', resume=True")
    workshop.run(again, TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD="1")  # mmengine pickles classes of its own
    assert [each["step"] for each in workshop.data("on_batch_losses")] == list(range(20))
    assert [each["epoch"] for each in workshop.data("on_epoch_end")] == [1, 2, 3, 4]
    assert [each["epoch"] for each in workshop.data("on_checkpoint")] == [1, 2, 3, 4]


MM = """
import torch, losslog.compat.mmengine
from mmengine.model import BaseModel
from mmengine.runner import Runner
class Model(BaseModel):
    def __init__(self): super().__init__(); self.layer = torch.nn.Linear(4, 2)
    def forward(self, x, mode="tensor"):
        out = self.layer(x)
        rpn = [out[:, 0].square().mean(), out[:, 1].abs().mean()]
        return {"loss_rpn": rpn, "loss_cls": out.square().mean(), "acc": torch.tensor(3.)}
items = [{"x": torch.randn(4, generator=torch.Generator().manual_seed(i))} for i in range(10)]
data = dict(dataset=items, batch_size=2, num_workers=0, sampler=dict(type="DefaultSampler", shuffle=False),
            collate_fn=dict(type="default_collate"))
Runner(model=Model(), work_dir='work', train_dataloader=data, train_cfg=dict(by_epoch=True, max_epochs=2),
       optim_wrapper=WRAPPER, custom_hooks=[dict(type="LosslogHook")], log_level="ERROR").train()
"""


def test_accelerates_tracker(workshop: Workshop) -> None:
    need("accelerate")
    workshop.run("""
from accelerate import Accelerator
from losslog.compat.accelerate import LosslogTracker
accelerator = Accelerator(cpu=True, log_with=LosslogTracker(name="tracked"))
accelerator.init_trackers("project", config={"lr": 0.1})
for epoch in range(2):
    for i in range(3):
        values = {"train_loss": 1.0 + i, "loss_box": 0.5, "lr": 0.1, "speed": 7.0}
        accelerator.log(values | {"epoch": epoch}, step=epoch * 3 + i)
    accelerator.log({"val_loss": 2.0, "val_accuracy": 0.9, "epoch": epoch}, step=epoch * 3 + 2)
assert accelerator.get_tracker("losslog", unwrap=True).name == "tracked"
accelerator.end_training()
""")
    batches = workshop.data("on_batch_losses")
    assert [(each["step"], each["epoch"], each["total"], each["lr"]) for each in batches] == [
        (i, 1 + i // 3, 1.0 + i % 3, 0.1) for i in range(6)
    ]
    assert [each["val_loss"] for each in workshop.data("on_epoch_end")] == [2.0, 2.0]
    assert [each["metrics"] for each in workshop.data("on_eval")] == [{"accuracy": 0.9}] * 2
    assert [each["metrics"] for each in workshop.data("on_metrics")] == [{"speed": 7.0}] * 6
    assert workshop.data("on_run_start")[0]["config"] == {"lr": 0.1}


def test_ignite_with_parts_evaluators_and_an_error(workshop: Workshop) -> None:
    need("ignite")
    workshop.run("""
import torch, losslog.compat.ignite
from ignite.engine import Engine, Events
layer = torch.nn.Linear(4, 2); optimizer = torch.optim.SGD(layer.parameters(), 0.1)
def update(engine, x):
    if engine.state.epoch == 3: raise KeyError("three")
    out = layer(x); parts = {"loss_a": out[:, 0].square().mean(), "loss_b": out[:, 1].abs().mean()}
    optimizer.zero_grad(); (parts["loss_a"] + 2 * parts["loss_b"]).backward(); optimizer.step()
    return {**{k: v.item() for k, v in parts.items()}, "acc": 0.5}
trainer, evaluator = Engine(update), Engine(lambda engine, x: None)
@evaluator.on(Events.COMPLETED)
def _(engine): engine.state.metrics.update(loss=0.25, accuracy=0.75)
losslog.compat.ignite.attach(trainer, evaluator)
trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: evaluator.run([1]))
try: trainer.run(torch.randn(3, 2, 4), max_epochs=3)
except KeyError: print("raised")
else: raise SystemExit("swallowed")
""")
    batches = workshop.data("on_batch_losses")
    assert len(batches) == 6
    for each in batches:
        assert each["total"] == pytest.approx(each["losses"]["loss_a"] + 2 * each["losses"]["loss_b"], rel=1e-5)
        assert each["lr"] == 0.1
    assert [each["val_loss"] for each in workshop.data("on_epoch_end")] == [0.25, 0.25]
    assert [each["metrics"] for each in workshop.data("on_eval")] == [{"accuracy": 0.75}] * 2
    assert workshop.data("on_run_end")[0]["status"] == "failed"


def test_ignite_evaluates_amid_an_epoch_in_a_handler_that_comes_first(workshop: Workshop) -> None:
    need("ignite")
    workshop.run("""
import torch, losslog.compat.ignite
from ignite.engine import Engine, Events
from ignite.engine import create_supervised_evaluator
from ignite.metrics import Loss
net = torch.nn.Linear(4, 3); optimizer = torch.optim.SGD(net.parameters(), 0.1); ce = torch.nn.CrossEntropyLoss()
def update(engine, batch):
    out = net(batch[0]); parts = {"ce_loss": ce(out, batch[1]), "reg_loss": out.square().mean()}
    optimizer.zero_grad(); sum(parts.values()).backward(); optimizer.step()
    return {name: value.item() for name, value in parts.items()}
data = [(torch.randn(3, 4), torch.arange(3)) for _ in range(4)]
trainer, evaluator = Engine(update), create_supervised_evaluator(net, metrics={"loss": Loss(ce)})
trainer.add_event_handler(Events.ITERATION_COMPLETED(every=2), lambda engine: evaluator.run(data))
trainer.add_event_handler(Events.ITERATION_COMPLETED(once=5), lambda engine: evaluator.run(data))
losslog.compat.ignite.attach(trainer, evaluator)
trainer.run(data, max_epochs=2)
""")
    assert [each["step"] for each in workshop.data("on_batch_losses")] == list(range(8))
    assert [each["step"] for each in workshop.data("on_metrics") if "val/loss" in each["metrics"]] == [1, 4, 5]
    assert [each["epoch"] for each in workshop.data("on_epoch_end")] == [1, 2]
    assert all(isinstance(each["val_loss"], float) for each in workshop.data("on_epoch_end"))


def test_fastai(workshop: Workshop) -> None:
    need("fastai")
    workshop.run("""
import torch, warnings
warnings.filterwarnings("ignore")
from fastai.learner import Learner
from fastai.data.core import DataLoaders
from fastai.callback.training import GradientAccumulation
from losslog.compat.fastai import LosslogCallback
data = torch.utils.data.TensorDataset(torch.randn(12, 4), torch.randn(12, 1))
loaders = DataLoaders(torch.utils.data.DataLoader(data, 2), torch.utils.data.DataLoader(data, 4))
def mae(p, t): return (p - t).abs().mean()
from fastai.callback.core import Callback
ours = LosslogCallback(plugins=None)
class Asks(Callback):
    def before_batch(self):
        if not self.training: return
        run = ours.loop.run
        if run.next_step == 8: run.request_lr(0.5)
        if run.next_step == 20: run.request_stop("enough")
        run.flush()
learner = Learner(loaders, torch.nn.Linear(4, 1), loss_func=torch.nn.MSELoss(), metrics=mae, cbs=[ours, Asks()])
with learner.no_bar():
    learner.fit(2, lr=0.01)
    learner.fit(9, lr=0.01)
""")
    runs = [Told(workshop.folder, "script", each.parent.name) for each in workshop.journals]
    assert [each.data("on_run_end")[0]["status"] for each in runs] == ["finished", "stopped"]
    assert len(runs[1].data("on_batch_losses")) == 21
    batches, ends = runs[0].data("on_batch_losses"), runs[0].data("on_epoch_end")
    assert [each["step"] for each in batches] == list(range(12))
    assert [each["lr"] for each in batches] == pytest.approx([0.01] * 9 + [0.005] * 3)
    assert [each["epoch"] for each in ends] == [1, 2]
    assert all(isinstance(each["val_loss"], float) for each in ends)
    assert all(each["metrics"].keys() == {"mae"} for each in runs[0].data("on_eval"))


def test_stable_baselines(workshop: Workshop) -> None:
    need("stable_baselines3", "gymnasium")
    workshop.run("""
from stable_baselines3 import PPO
from stable_baselines3.common.logger import Logger
from losslog.compat.sb3 import LosslogWriter
model = PPO("MlpPolicy", "CartPole-v1", n_steps=64, batch_size=32, n_epochs=2, device="cpu")
model.set_logger(Logger(None, [LosslogWriter()]))
model.learn(256)
model.logger.close()
""")
    batches = workshop.data("on_batch_losses")
    assert len(batches) >= 3
    assert {"policy_gradient_loss", "value_loss", "entropy_loss"} == batches[0]["losses"].keys()
    assert [each["epoch"] for each in workshop.data("on_epoch_end")] == list(range(1, len(batches) + 1))
    assert any("time/fps" in each["metrics"] for each in workshop.data("on_metrics"))


def test_keras_honours_requests(workshop: Workshop) -> None:
    need("keras")
    workshop.run("""
import numpy, keras
from losslog.compat.keras import LosslogCallback
ours = LosslogCallback()
class Asks(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch, logs=None):
        if batch == 2: ours.run.request_lr(0.1)
        if batch == 4: ours.run.request_stop("enough")
        ours.run.flush()
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
model.compile(keras.optimizers.SGD(0.01), loss="mse", metrics=["mae"])
model.fit(numpy.ones((16, 4)), numpy.ones((16, 1)), batch_size=2, epochs=3, verbose=0, callbacks=[ours, Asks()])
""")
    assert [each["lr"] for each in workshop.data("on_batch_losses")] == pytest.approx([0.01] * 3 + [0.001] * 2)
    assert workshop.data("on_run_end")[0]["status"] == "stopped"


def test_keras_saves_accumulates_and_schedules(workshop: Workshop) -> None:
    need("keras")
    found = workshop.run("""
import numpy, keras
from losslog.compat.keras import LosslogCallback
x = numpy.random.default_rng(0).random((10, 4)); y = numpy.ones((10, 1)); seen = []
class Seen(keras.losses.Loss):
    def call(self, true, given):
        found = keras.ops.mean(keras.ops.square(true - given), axis=-1)
        if getattr(found, "requires_grad", False) and len(found) == 2: seen.append(float(found.mean()))
        return found
def fit(name, optimizer, *callbacks):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile(optimizer, loss=Seen())
    seen.clear()
    model.fit(x, y, batch_size=2, epochs=2, verbose=0, callbacks=[LosslogCallback(name=name, plugins=None), *callbacks])
    assert not {"save", "save_weights"} & vars(model).keys()
rates = keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)
save = keras.callbacks.ModelCheckpoint
fit("saves", keras.optimizers.SGD(rates), save("{epoch}.keras"), save("w.weights.h5", save_weights_only=True))
keras.models.load_model("2.keras", custom_objects={"Seen": Seen})
fit("window", keras.optimizers.SGD(0.1, gradient_accumulation_steps=3))
print(*seen)
""")
    saves, window = Told(workshop.folder, "saves"), Told(workshop.folder, "window")
    assert [(each["epoch"], each["path"].rpartition("/")[2]) for each in saves.data("on_checkpoint")] == [
        (epoch, name) for epoch in (1, 2) for name in (f"{epoch}.keras", "w.weights.h5")
    ]
    rates = [each["lr"] for each in saves.data("on_batch_losses")]
    assert rates == pytest.approx([0.1 * 0.5**step for step in range(10)])
    seen = [float(each) for each in found.stdout.split()[-10:]]
    batches = window.data("on_batch_losses")
    assert [each["n"] for each in batches] == [3, 3, 3]
    assert [each["total"] for each in batches] == pytest.approx([sum(seen[i : i + 3]) / 3 for i in (0, 3, 6)], rel=1e-4)
    assert "not measured" not in found.stderr


def test_fastai_saves_and_exports(workshop: Workshop) -> None:
    need("fastai")
    workshop.run("""
import pickle, torch, warnings
warnings.filterwarnings("ignore")
from fastai.learner import Learner
from fastai.data.core import DataLoaders
from fastai.callback.tracker import SaveModelCallback
from losslog.compat.fastai import LosslogCallback
data = torch.utils.data.TensorDataset(torch.randn(6, 4), torch.randn(6, 1))
loaders = DataLoaders(torch.utils.data.DataLoader(data, 2), torch.utils.data.DataLoader(data, 3))
learner = Learner(loaders, torch.nn.Linear(4, 1), loss_func=torch.nn.MSELoss(), path=".",
                  cbs=[LosslogCallback(), SaveModelCallback(every_epoch=True)])
with learner.no_bar():
    learner.fit(2, lr=0.01)
assert "save" not in vars(learner)
pickle.dumps(learner.cbs)
""")
    assert [(each["epoch"], each["path"].rpartition("/")[2]) for each in workshop.data("on_checkpoint")] == [
        (1, "model_0.pth"), (2, "model_1.pth"),
    ]  # fmt: skip


@pytest.mark.parametrize("summary", ['"val/loss": 1.0 + epoch', '"val/loss": 1.0 + epoch, "train_loss_epoch": 9.0'])
def test_accelerates_tracker_takes_epochs_that_are_told_behind_their_steps(workshop: Workshop, summary: str) -> None:
    need("accelerate")
    workshop.run(f"""
from accelerate import Accelerator
from losslog.compat.accelerate import LosslogTracker
accelerator = Accelerator(cpu=True, log_with=LosslogTracker(name="tracked"))
accelerator.init_trackers("project")
step = 0
for epoch in range(2):
    for i in range(5):
        accelerator.log({{"train/loss_a": 1.0 + i, "loss_b": 0.5}}, step=step); step += 1
    accelerator.log({{"epoch": epoch, {summary}}}, step=step)
    accelerator.log({{"val/accuracy": 0.5}}, step=step)
accelerator.end_training()
""")
    assert [each["epoch"] for each in workshop.data("on_batch_losses")] == [1] * 5 + [2] * 5
    ends = workshop.data("on_epoch_end")
    assert [(each["epoch"], each["step"], each["val_loss"], each["total"]) for each in ends] == [
        (1, 4, 1.0, 3.5), (2, 9, 2.0, 3.5),
    ]  # fmt: skip
    assert [(each["epoch"], each["metrics"]) for each in workshop.data("on_eval")] == [
        (1, {"accuracy": 0.5}), (2, {"accuracy": 0.5}),
    ]  # fmt: skip


def test_accelerates_tracker_waits_for_no_other_rank(workshop: Workshop) -> None:
    need("accelerate")
    (workshop.folder / "ranks.py").write_text("""
import torch
from accelerate import Accelerator
from losslog.compat.accelerate import LosslogTracker
accelerator = Accelerator(cpu=True, log_with=LosslogTracker(name="tracked"))
accelerator.init_trackers("project", config={"lr": 0.1})
for step in range(3):
    accelerator.log({"loss_a": 1.0 + accelerator.process_index, "epoch": 0}, step=step)
accelerator.end_training()
""")
    found = workshop.run("""
import subprocess, sys
command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "ranks.py"]
sys.exit(subprocess.run(command).returncode)
""")
    assert [each["total"] for each in workshop.data("on_batch_losses")] == [1.0] * 3
    assert all("ranks" not in each for each in workshop.data("on_batch_losses"))
    assert "has said nothing" not in found.stderr
