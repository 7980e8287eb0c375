import tally

from losslog.testing import PluginConformance


class TestTally(PluginConformance):
    name = "tally"
    vendor = ("tally",)
    resume = "appends"

    def read_back(self, run_dir):
        points = {}
        for tag, x, value in tally.Board(run_dir / "run.board").marks().values():
            points.setdefault(tag, []).append((x, value))
        return points
