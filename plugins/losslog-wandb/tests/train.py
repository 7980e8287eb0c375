"""A training script: ``train.py FOLDER STEPS FATE OPTIONS``.

FATE is ``end``, ``kill`` (as by the OOM killer), or ``pause``: half-way, until there is a file ``go`` in the folder.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import losslog

if __name__ == "__main__":
    folder, steps, fate, options = sys.argv[1], int(sys.argv[2]), sys.argv[3], json.loads(sys.argv[4])
    run = losslog.Run("maskrcnn", dir=folder, plugins=list(options), options=options, config={"api_key": "hunter2"})
    sys.stdout.write(f"{run.dir}\n")
    sys.stdout.flush()
    for step in range(steps):
        run.log_batch({"loss_box": 1.0 + step, "loss_mask": 0.5}, lr=0.1)
        time.sleep(0.02)
        for _ in range(6000):
            if fate != "pause" or step != steps // 2 or (Path(folder) / "go").exists():
                break
            time.sleep(0.01)
    run.end_epoch(val_loss=0.25)
    if fate == "kill":
        run.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    run.close(timeout=10)
