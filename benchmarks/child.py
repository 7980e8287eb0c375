"""One measure of one subject in a fresh process: ``python -m benchmarks.child '{"measure": ..., ...}'``.

The last line on stdout is the answer as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any


def main() -> None:
    request: dict[str, Any] = json.loads(sys.argv[1])
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what backends print is none of the answer
    measure = request.pop("measure")
    from benchmarks import measures, subjects

    if measure not in ("imports", "journal"):
        import torch

        torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="losslog-benchmark-") as folder:
        os.chdir(folder)
        try:
            found = getattr(measures, measure)(request.pop("subject"), Path(folder), **request)
        except subjects.Absent as error:
            found = {"absent": str(error)}
    answer.write(json.dumps(found) + "\n")
    answer.flush()
    os._exit(0)  # a backend's exit handlers are not what is measured


if __name__ == "__main__":
    main()
