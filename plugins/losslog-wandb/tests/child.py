"""A process that logs and is killed: ``child.py FOLDER OPTIONS FIRST LAST``; it says READY and waits."""

import json
import sys
import time
from pathlib import Path

from losslog_wandb import WandbPlugin

from losslog.control import RunHandle
from losslog.testing import tell

folder, options, first, last = Path(sys.argv[1]), json.loads(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
run = RunHandle(id=folder.name, name="maskrcnn", dir=folder, config={}, source="wandb", post=lambda *_: None)
plugin = WandbPlugin(**options)
plugin.on_run_start(name="maskrcnn", config={}, run=run)
for seq in range(first, last):
    tell(plugin, "on_batch_losses", step=seq, losses={"a": float(seq)}, lr=None, seq=seq, time=time.time())
while plugin.on_flush() is not None:
    time.sleep(0.02)
sys.stdout.write("READY\n")
sys.stdout.flush()
time.sleep(60)
