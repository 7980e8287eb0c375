"""A training that was killed goes on with its run: with what ignite, keras and fastai save."""

from __future__ import annotations

import pytest

from tests.compat.frameworks.conftest import Workshop, need

IGNITE = """
import glob, os, torch, losslog.compat.ignite
from ignite.engine import Engine, Events
from ignite.handlers import Checkpoint, DiskSaver
torch.manual_seed(0)
layer = torch.nn.Linear(4, 2); optimizer = torch.optim.SGD(layer.parameters(), 0.1)
again = sorted(glob.glob("ck/*.pt"), key=os.path.getmtime)
def update(engine, x):
    if not again and engine.state.iteration == KILL: os.kill(os.getpid(), 9)
    out = layer(x); parts = {"loss_a": out[:, 0].square().mean(), "loss_b": out[:, 1].abs().mean()}
    optimizer.zero_grad(); sum(parts.values()).backward(); optimizer.step()
    return {name: value.item() for name, value in parts.items()}
trainer = Engine(update)
logs = losslog.compat.ignite.attach(trainer)
saved = {"trainer": trainer, "layer": layer, "optimizer": optimizer, "losslog": logs}
trainer.add_event_handler(EVENT, Checkpoint(saved, DiskSaver("ck", create_dir=True, require_empty=False), n_saved=None))
if again:
    Checkpoint.load_objects(to_load=saved, checkpoint=torch.load(again[-1], weights_only=False))
trainer.run(torch.randn(5, 2, 4), max_epochs=4)
"""
KERAS = """
import os, numpy, keras
from losslog.compat.keras import LosslogCallback
class Kill(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch, logs=None):
        if KILL and self.model.optimizer.iterations == KILL and not again: os.kill(os.getpid(), 9)
again = os.path.exists("killed"); open("killed", "w").close()
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
model.compile(keras.optimizers.SGD(0.01), loss="mse")
model.fit(
    numpy.ones((10, 4)), numpy.ones((10, 1)), batch_size=2, epochs=4, verbose=0,
    callbacks=[LosslogCallback(resume="auto"), keras.callbacks.BackupAndRestore("backup"), Kill()],
)
"""
FASTAI = """
import glob, os, torch, warnings
warnings.filterwarnings("ignore")
from fastai.learner import Learner
from fastai.data.core import DataLoaders
from fastai.callback.core import Callback
from fastai.callback.tracker import SaveModelCallback
from losslog.compat.fastai import LosslogCallback
data = torch.utils.data.TensorDataset(torch.randn(10, 4), torch.randn(10, 1))
loaders = DataLoaders(torch.utils.data.DataLoader(data, 2), torch.utils.data.DataLoader(data, 5))
again = os.path.exists("killed"); open("killed", "w").close()
class Kill(Callback):
    def before_batch(self):
        if self.training and self.learn.train_iter == KILL and not again: os.kill(os.getpid(), 9)
learner = Learner(loaders, torch.nn.Linear(4, 1), loss_func=torch.nn.MSELoss(), path=".",
                  cbs=[LosslogCallback(resume="auto"), SaveModelCallback(every_epoch=True, with_opt=True), Kill()])
done = len(glob.glob("models/model_*.pth"))
if done:
    learner.load(f"model_{done - 1}", with_opt=True, weights_only=False)
with learner.no_bar():
    learner.fit(4, lr=0.01, start_epoch=done)
"""


@pytest.mark.parametrize(
    ("framework", "source", "kill", "after"),
    [
        ("ignite", IGNITE.replace("EVENT", "Events.EPOCH_COMPLETED"), 13, 10),
        ("ignite", IGNITE.replace("EVENT", "Events.ITERATION_COMPLETED(every=3)"), 14, 12),
        ("keras", KERAS, 12, 10),
        ("keras", KERAS, 3, 0),
        ("fastai", FASTAI, 12, 10),
    ],
    ids=["ignite-epochs", "ignite-steps", "keras", "keras-first-epoch", "fastai"],
)
def test_a_kill_and_a_resume_are_one_run_without_a_gap(
    workshop: Workshop, framework: str, source: str, kill: int, after: int
) -> None:
    need(framework)
    source = f"KILL = {kill}\n" + source
    workshop.run(source, ok=-9)
    workshop.run(source)
    assert [each["step"] for each in workshop.data("on_resume")] == [after - 1]
    where = [hook for hook, _ in workshop.records].index("on_resume")
    before = [data["step"] for hook, data in workshop.records[:where] if hook == "on_batch_losses"]
    again = [data["step"] for hook, data in workshop.records[where:] if hook == "on_batch_losses"]
    assert before[:after] == list(range(after))
    assert again == list(range(after, 20))
    assert [each["epoch"] for each in workshop.data("on_epoch_end")] == [1, 2, 3, 4]
    assert workshop.data("on_run_end")[-1]["status"] == "finished"
