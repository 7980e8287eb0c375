"""The training engine: epochs, validation, evaluation, checkpoints and resume for models with one loss or many."""

from losslog.engine.batches import as_losses, call_model, to_device, total_of
from losslog.engine.checkpoint import (
    CheckpointError,
    checkpoint_path,
    find_checkpoint,
    read_checkpoint,
    restore_checkpoint,
    save_checkpoint,
)
from losslog.engine.epoch import Progress, train_one_epoch
from losslog.engine.fit import FitResult, fit
from losslog.engine.optimization import MixedPrecision, Warmup, learning_rates
from losslog.engine.schedules import SCHEDULES, make_scheduler, schedule_factor
from losslog.engine.validation import Evaluator, evaluate, evaluator_of, untouched, validation_losses
from losslog.instrument.rng import preserved_rng, rng_state, set_rng_state

__all__ = [
    "SCHEDULES",
    "CheckpointError",
    "Evaluator",
    "FitResult",
    "MixedPrecision",
    "Progress",
    "Warmup",
    "as_losses",
    "call_model",
    "checkpoint_path",
    "evaluate",
    "evaluator_of",
    "find_checkpoint",
    "fit",
    "learning_rates",
    "make_scheduler",
    "preserved_rng",
    "read_checkpoint",
    "restore_checkpoint",
    "rng_state",
    "save_checkpoint",
    "schedule_factor",
    "set_rng_state",
    "to_device",
    "total_of",
    "train_one_epoch",
    "untouched",
    "validation_losses",
]
