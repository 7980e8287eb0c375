"""Every scalar of a run on a Tally board."""

from importlib.util import find_spec

from losslog import BackendUnavailable, NotReady, hookimpl


class TallyPlugin:
    def __init__(self, board="run.board"):
        if find_spec("tally") is None:
            raise NotReady("tally is not installed: pip install tally")
        self._board, self._marks = board, []

    @hookimpl
    def on_scalars(self, series, axis, x, seq):
        self._marks += [(f"{seq}/{tag}", tag, x, value) for tag, value in series.items()]

    @hookimpl
    def on_flush(self, run):
        import tally

        marks, self._marks = self._marks, []
        try:
            tally.Board(run.dir / self._board).put(marks)
        except tally.Closed as error:
            raise BackendUnavailable(f"tally: {error}") from error
