"""mmengine, ultralytics, ignite, keras: loops agree with their truth."""

from __future__ import annotations

import pytest

from tests.compat.frameworks.conftest import Workshop, need


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
        truth.step({"cls_loss": one, "box_loss": keras.losses.mean_absolute_error(y["box"], y_pred["box"]).mean()}, total=total)
    return total
model.compute_loss = compute_loss
g = np.random""",
    ),
)
