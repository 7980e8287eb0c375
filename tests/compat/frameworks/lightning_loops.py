"""Loops of all kinds under Lightning, each with what truly happened; run by a test as a script."""
# ruff: noqa: E402

import contextlib
import json
import sys
import warnings

warnings.filterwarnings("ignore")
import torch
from torch import nn

SPACE = sys.argv[1] if len(sys.argv) > 1 else "lightning.pytorch"
if SPACE == "pytorch_lightning":
    import pytorch_lightning as L
    from pytorch_lightning.callbacks import ModelCheckpoint
    from pytorch_lightning.utilities.exceptions import SIGTERMException
else:
    import lightning.pytorch as L
    from lightning.pytorch.callbacks import ModelCheckpoint
    from lightning.pytorch.utilities.exceptions import SIGTERMException
from losslog.compat.lightning import LosslogCallback, LosslogLogger

T = {}


def loader(n=12, batch=2):
    g = torch.Generator().manual_seed(0)
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(n, 4, generator=g)), batch)


class Base(L.LightningModule):
    def __init__(self, truth, **kw):
        super().__init__()
        self.truth, self.kw = truth, kw
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def parts(self, x):
        return {"loss_a": self.a(x).square().mean(), "kl": (self.b(x) - 1).abs().mean()}

    def training_step(self, batch, i):
        parts = self.parts(batch[0])
        total = parts["loss_a"] + 3 * parts["kl"]
        self.truth.setdefault("steps", []).append({k: float(v) for k, v in parts.items()} | {"total": float(total)})
        self.log_dict({f"train/{k}": v for k, v in parts.items()}, **self.kw)
        self.log("train_loss", total, prog_bar=True, on_step=True, on_epoch=True)
        self.log("train_acc", 0.25)
        return total

    def on_train_epoch_end(self):
        self.truth["epochs"] = self.truth.get("epochs", 0) + 1
        self.log("train_miou", 0.5)

    def validation_step(self, batch, i):
        parts = self.parts(batch[0])
        self.log_dict(
            {f"val/{k}" if "loss" in k else f"val/loss_{k}": v for k, v in parts.items()}, on_step=True, on_epoch=True
        )
        self.log("val_acc", 0.75)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


def trainer(name, **kw):
    kw.setdefault("enable_checkpointing", False)
    callbacks = [*kw.pop("callbacks", []), LosslogCallback(name=name, plugins=None)]
    return L.Trainer(
        accelerator="cpu",
        logger=kw.pop("logger", False),
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks,
        **kw,
    )


def accumulation():
    truth = T["accumulation"] = {}
    trainer("accumulation", max_epochs=2, accumulate_grad_batches=4, gradient_clip_val=0.5).fit(
        Base(truth, on_step=False, on_epoch=True), loader()
    )
    windows = [truth["steps"][i : i + n] for e in (0, 6) for i, n in ((e, 4), (e + 4, 2))]
    truth["steps"] = [{k: sum(each[k] for each in w) / len(w) for k in w[0]} for w in windows]


def midway():
    """Validation twice an epoch, a limit, and max_steps in the middle of the second epoch."""
    truth = T["midway"] = {}
    trainer("midway", max_steps=6, limit_train_batches=4, val_check_interval=2).fit(Base(truth), loader(), loader(4))


def every_other():
    truth = T["every_other"] = {}
    checkpoint = ModelCheckpoint(dirpath="every_other", save_top_k=-1)
    trainer(
        "every_other", max_epochs=4, check_val_every_n_epoch=2, enable_checkpointing=True, callbacks=[checkpoint]
    ).fit(Base(truth), loader(), loader(4))


class Gan(Base):
    def __init__(self, truth):
        super().__init__(truth)
        self.automatic_optimization = False

    def training_step(self, batch, i):
        g, d = self.optimizers()
        parts = self.parts(batch[0])
        g.zero_grad()
        self.manual_backward(parts["loss_a"])
        self.clip_gradients(g, gradient_clip_val=0.5)
        g.step()
        d.zero_grad()
        self.manual_backward(parts["kl"])
        d.step()
        self.log_dict({"g_loss_step": parts["loss_a"], "d_loss": parts["kl"]}, prog_bar=True)
        found = {"g_loss": float(parts["loss_a"]), "d_loss": float(parts["kl"])}
        self.truth.setdefault("steps", []).append(found | {"total": sum(found.values())})

    def configure_optimizers(self):
        g, d = torch.optim.Adam(self.a.parameters(), lr=0.01), torch.optim.SGD(self.b.parameters(), lr=0.02)
        return [g, d], [torch.optim.lr_scheduler.StepLR(g, 1)]


def gan():
    trainer("gan", max_epochs=2).fit(Gan(T.setdefault("gan", {})), loader())


class ByHand(Base):
    """Manual optimisation with accumulation by hand."""

    def __init__(self, truth):
        super().__init__(truth)
        self.automatic_optimization = False
        self.window = []

    def training_step(self, batch, i):
        parts = self.parts(batch[0])
        self.manual_backward(sum(parts.values()) / 3)
        self.log_dict(parts)
        self.window.append({k: float(v) for k, v in parts.items()})
        if (i + 1) % 3 == 0:
            self.optimizers().step()
            self.optimizers().zero_grad()
            mean = {k: sum(each[k] for each in self.window) / 3 for k in parts}
            self.truth.setdefault("steps", []).append(mean | {"total": sum(mean.values())})
            self.window = []


class Critics(Gan):
    """The second optimizer steps first, and more often."""

    def training_step(self, batch, i):
        g, d = self.optimizers()
        parts = self.parts(batch[0])
        d.zero_grad()
        self.manual_backward(parts["kl"])
        d.step()
        found = {"d_loss": float(parts["kl"])}
        self.log("d_loss", parts["kl"])
        if i % 3 == 2:
            g.zero_grad()
            self.manual_backward(parts["loss_a"])
            g.step()
            self.log("g_loss", parts["loss_a"])
            found["g_loss"] = float(parts["loss_a"])
        self.truth.setdefault("steps", []).append(found | {"total": sum(found.values())})


def critics():
    trainer("critics", max_epochs=2).fit(Critics(T.setdefault("critics", {})), loader())


def by_hand():
    trainer("by_hand", max_epochs=2).fit(ByHand(T.setdefault("by_hand", {})), loader())


class Lbfgs(Base):
    def training_step(self, batch, i):
        total = super().training_step(batch, i)
        steps = self.truth["steps"]
        if self.truth.get("last") == (self.current_epoch, i):
            steps.pop()  # the closure looks again
        self.truth["last"] = (self.current_epoch, i)
        return total

    def configure_optimizers(self):
        return torch.optim.LBFGS(self.parameters(), lr=0.01, max_iter=3)


def lbfgs():
    trainer("lbfgs", max_epochs=1).fit(Lbfgs(T.setdefault("lbfgs", {})), loader())


def twice():
    truth = T["twice"] = {}
    module, fitter = Base(truth), trainer("twice", max_epochs=1)
    fitter.fit(module, loader())
    fitter.fit_loop.max_epochs = 2
    fitter.fit(module, loader())


class Broken(Base):
    error = ValueError("broken")

    def on_train_batch_start(self, batch, i):
        if i == 3:
            raise self.error


def fails():
    with contextlib.suppress(ValueError):
        trainer("fails", max_epochs=1).fit(Broken(T.setdefault("fails", {})), loader())


def interrupted():
    module = Broken(T.setdefault("interrupted", {}))
    module.error = KeyboardInterrupt()
    with contextlib.suppress(SystemExit, KeyboardInterrupt):
        trainer("interrupted", max_epochs=1).fit(module, loader())


def terminated():
    """Lightning's own end on SIGTERM."""
    module = Broken(T.setdefault("terminated", {}))
    module.error = SIGTERMException()
    with contextlib.suppress(SystemExit):
        trainer("terminated", max_epochs=1).fit(module, loader())


class Judged(Base):
    def validation_step(self, batch, i, dataloader_idx=0):
        parts = self.parts(batch[0])
        self.log_dict({f"val_loss_{k}": v for k, v in parts.items()}, add_dataloader_idx=self.kw["apart"])
        self.log("val_total", parts["loss_a"] + 3 * parts["kl"], add_dataloader_idx=self.kw["apart"])

    def training_step(self, batch, i):
        parts = self.parts(batch[0])
        total = parts["loss_a"] + 3 * parts["kl"]
        self.truth.setdefault("steps", []).append({k: float(v) for k, v in parts.items()} | {"total": float(total)})
        self.log_dict({f"train/{k}": v for k, v in parts.items()})
        return total

    def on_train_epoch_end(self):
        self.truth["epochs"] = self.truth.get("epochs", 0) + 1

    def on_validation_epoch_end(self):
        if not self.trainer.sanity_checking:
            with torch.no_grad():
                sets = [[self.parts(b[0]) for b in loader(n)] for n in self.kw["sets"]]
            means = [float(sum(p["loss_a"] + 3 * p["kl"] for p in s) / len(s)) for s in sets]
            self.truth.setdefault("val", []).append(means)


def two_sets():
    """Losses of two validation sets do not add up."""
    truth = T["two_sets"] = {}
    trainer("two_sets", max_epochs=2).fit(Judged(truth, apart=True, sets=[4, 8]), loader(), [loader(4), loader(8)])


def one_set():
    """A total that is logged beside the losses is theirs."""
    truth = T["one_set"] = {}
    trainer("one_set", max_epochs=2).fit(Judged(truth, apart=False, sets=[4]), loader(), loader(4))


class Asks(L.Callback):
    def on_train_batch_start(self, trainer, module, batch, i):
        run = next(each.run for each in trainer.callbacks if isinstance(each, LosslogCallback))
        if trainer.global_step == 2:
            run.request_lr(0.1)
        if trainer.global_step == 4:
            run.request_stop("enough")
        run.flush()


def asked():
    truth = T["asked"] = {}
    module = Base(truth)
    trainer("asked", max_epochs=3, callbacks=[Asks()]).fit(module, loader())
    truth["lr"] = module.optimizers().param_groups[0]["lr"]


def logger():
    truth = T["logger"] = {}
    module = Base(truth)
    own = LosslogLogger(name="logger", plugins=None)
    fitter = L.Trainer(
        accelerator="cpu",
        logger=own,
        max_epochs=2,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    fitter.callbacks.append(Beside())
    fitter.fit(module, loader(), loader(4))
    truth["version"] = own.version


class Beside(L.Callback):
    def on_train_batch_end(self, trainer, module, *args):
        trainer.logger.log_metrics({"beside": 1.0}, step=trainer.global_step - 1)


ALL = [accumulation, midway, every_other, gan, critics, by_hand, lbfgs, twice, fails, asked, logger, interrupted]
ALL += [terminated, two_sets, one_set]
for each in ALL if SPACE == "lightning.pytorch" else [accumulation, gan, logger]:
    L.seed_everything(0)
    each()
    assert "log" not in vars(L.LightningModule) or not hasattr(L.LightningModule.log, "__wrapped__"), each
with open("truth.json", "w") as file:
    json.dump(T, file)
