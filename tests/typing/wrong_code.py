"""Mistakes that a type checker must find: each line with ``# wrong`` has to be an error, and no other."""

from __future__ import annotations

import losslog
from losslog import Run

run = Run("maskrcnn", epochs="20")  # wrong
run.log_batch({"loss_mask": 0.5}, step="3")  # wrong
run.log_batch({"loss_mask": 0.5}, learning_rate=0.1)  # wrong
run.log_eval([0.5])  # wrong
run.end_epoch("1")  # wrong
run.on("on_eval")(3)  # wrong
run.should_stop = True  # wrong
run.flush(timeout="5")  # wrong
run.no_such_method()  # wrong
losslog.attach(run)  # wrong
losslog.attach(run, run, epoch=3)  # wrong
run.log_batch(0.5)
