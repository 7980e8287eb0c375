"""``python -m benchmarks``: measure what logging costs here, and write the tables of docs/performance.md.

python -m benchmarks                    all of it, about 12 minutes on 2 quiet cores
python -m benchmarks --quick            one short repeat of each, about 4 minutes, to see that it works
python -m benchmarks --full             more repeats, 1,000,000 steps for the memory, about 40 minutes
python -m benchmarks --only call,loop   some measures: call, loop, detector, ops, memory, imports, journal
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from benchmarks import harness, plan, tables

PAGE = harness.ROOT / "docs" / "performance.md"


def main(arguments: list[str] | None = None) -> int:
    """Run it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_const", const="quick", dest="size", help="one short repeat of each")
    size.add_argument("--full", action="store_const", const="full", dest="size", help="more and longer repeats")
    parser.add_argument("--only", default="", metavar="A,B", help=f"only these measures: {', '.join(plan.MEASURES)}")
    parser.add_argument("--repeats", type=int, help="repeats of each variant")
    parser.add_argument("--seed", type=int, default=0, help="of the order")
    parser.add_argument("--raw", type=Path, help="also write every answer to this file, as JSON")
    parser.add_argument("--page", type=Path, default=PAGE, help="whose tables to renew (default: docs/performance.md)")
    parser.add_argument("--no-page", action="store_true", help="print the tables only")
    options = parser.parse_args(arguments)
    only = [name.strip() for name in options.only.split(",") if name.strip()]
    unknown = set(only) - set(plan.MEASURES)
    if unknown:
        parser.error(
            f"--only: there is no measure {', '.join(sorted(unknown))}; choose from {', '.join(plan.MEASURES)}"
        )
    with tempfile.TemporaryDirectory(prefix="losslog-benchmark-") as folder:
        scale = plan.SCALES[options.size or "default"]
        setting = plan.prepare(Path(folder), only or list(plan.MEASURES))
        requests = plan.requests(scale, setting, only or list(plan.MEASURES))
        results = harness.run(requests, options.repeats or scale.repeats, seed=options.seed)
    if options.raw:
        options.raw.write_text(json.dumps({"setting": setting, "results": results}, indent=1), "utf-8")
    text = tables.render(results, setting, scale)
    print(text)
    if not options.no_page and not only:
        tables.renew(options.page, text)
        print(f"written to {options.page}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
