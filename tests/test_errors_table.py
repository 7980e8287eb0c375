"""Bad input: what was given, what is said, what is kept. docs/errors.md is made from these cases.

Run it with ``WRITE_PAGES=1`` to write the page anew.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import losslog
from losslog.journal.file import Writer

torch = pytest.importorskip("torch")
PAGE = Path(losslog.__file__).parent.parent / "docs" / "errors.md"
NOTHING = "nothing of this call; the run goes on"


class Case(NamedTuple):
    """One row.

    Attributes:
        given: an expression with ``run``, ``Run``, ``torch``, ``np``, ``losslog``.
        error: the exception's name, or "" where none is raised.
        said: what the message contains.
        kept: what becomes of it.
        hooks: the records this makes, besides the run's start and end.
    """

    given: str
    error: str
    said: str
    kept: str = NOTHING
    hooks: tuple[str, ...] = ()


BATCH, ALERT = "on_batch_losses", "on_alert"
CASES = [
    # losses
    Case("run.log_batch({})", "ValueError", "losses is an empty dict: pass at least one component, or a scalar"),
    Case("run.log_batch({'a': None})", "TypeError", "losses['a'] is None: leave the key out, or pass a number"),
    Case("run.log_batch({'a': '0.5'})", "TypeError", "losses['a'] is a str ('0.5'): pass a number or a 0-d tensor"),
    Case("run.log_batch({'a': True})", "TypeError", "losses['a'] is a bool (True): pass a number"),
    Case("run.log_batch({'a': {'b': 1.0}})", "TypeError", "losses['a'] is a nested dict: flatten it"),
    Case("run.log_batch({'a': [1.0]})", "TypeError", "losses['a'] is a list"),
    Case("run.log_batch({'a': torch.zeros(2, 3)})", "TypeError", "pass one number per key, e.g. its .mean()"),
    Case("run.log_batch({'a': np.zeros(3)})", "TypeError", "losses['a'] is a ndarray of shape (3,)"),
    Case("run.log_batch({'a': np.ma.masked})", "TypeError", "losses['a'] is masked"),
    Case("run.log_batch({'a': torch.tensor(1j)})", "TypeError", "pass a real number"),
    Case("run.log_batch({'a': torch.zeros(0)})", "TypeError", "shape (0,)"),
    Case("run.log_batch({'a': torch.zeros((), device='meta')})", "TypeError", "meta device: it has no value"),
    Case("run.log_batch({'a': torch.zeros(2).to_sparse()})", "TypeError", "losses['a'] is a Tensor of shape (2,)"),
    Case("run.log_batch({1: 0.5})", "TypeError", "keys must be strings, got 1 of type int"),
    Case("run.log_batch({'': 0.5})", "ValueError", "a component has an empty name"),
    Case("run.log_batch({'a': 10**400})", "ValueError", "losses['a'] is too large for a float"),
    Case("run.log_batch({'a\\udcff': 1.0})", "", "", "the batch; what no encoder takes becomes `?`", (BATCH,)),
    Case("run.log_batch(None)", "TypeError", "losses is None"),
    Case("run.log_batch('0.5')", "TypeError", "losses is a str"),
    Case("run.log_batch([0.5, 0.1])", "TypeError", "losses is a list"),
    Case("run.log_batch(torch.zeros(4))", "TypeError", "losses is a Tensor of shape (4,)"),
    Case("run.log_batch({'a': 1.0, 'loss': 1.0})", "", "is the sum of the others: taken as the total",
         "the batch; `loss` is its total", (BATCH,)),
    Case("run.log_batch({'a': 1.0}, total=5.0)", "", "is not the sum of the components", "the batch, with that total",
         (BATCH,)),
    Case("run.log_batch({'a': float('nan')})", "", "", "the batch, and an alert that names the component",
         (BATCH, ALERT)),
    Case("run.log_batch({'a': torch.tensor([0.5])})", "", "", "the batch: one element is a number", (BATCH,)),
    Case("run.log_batch(1.0); run.log_batch({'a': 1.0})", "", "dict and scalar losses mix in one epoch",
         "both; the epoch's losses are those of the dicts", (BATCH, BATCH)),
    Case("run.log_batch({'a': 1.0}, total='5')", "TypeError", "total is a str"),
    # what goes with them
    Case("run.log_batch(1.0, lr='0.1')", "TypeError", "lr is a str"),
    Case("run.log_batch(1.0, lr={'head': None})", "TypeError", "lr['head'] is None"),
    Case("run.log_batch(1.0, step=1.5)", "TypeError", "step must be a whole number, got 1.5 of type float"),
    Case("run.log_batch(1.0, epoch='1')", "TypeError", "epoch must be a whole number"),
    Case("run.log_batch(1.0, batch_size=2.5)", "TypeError", "batch_size must be a whole number"),
    # evaluations, metrics, epochs, checkpoints, alerts
    Case("run.log_eval([0.5])", "TypeError", "metrics must be a dict of numbers or of dicts, got list"),
    Case("run.log_eval({'bbox': {'AP': '0.5'}})", "TypeError", "metrics['bbox']['AP'] is '0.5'"),
    Case("run.log_eval({'bbox': {'AP': None}})", "TypeError", "pass a number, or leave it out"),
    Case("run.log_eval({'a': np.ma.masked})", "TypeError", "metrics['a'] is masked"),
    Case("run.log_eval({'a': {'b': {'c/d': 1.0, 'c': {'d': 2.0}}}})", "ValueError", "two entries are called 'c/d'"),
    Case("run.log_eval({'map_50': 0.5, 'map_per_class': torch.tensor([0.1, 0.2]), 'classes': torch.tensor([1, 2])})",
         "", "", "the evaluation; each class's figure under its name", ("on_eval",)),
    Case("run.log_eval({'map_50': 0.5, 'mar_small': torch.tensor(-1.0)})", "", "",
         "the evaluation without the -1, which says that there is nothing to measure", ("on_eval",)),
    Case("run.log_eval({'x': np.zeros(3)})", "TypeError", "metrics['x']: ndarray is not a number"),
    Case("run.log_metrics({'a': {'b': 1}})", "TypeError", "metrics['a'] is a nested dict"),
    Case("run.log_metrics(5)", "TypeError", "metrics must be a dict of numbers, got int"),
    Case("run.end_epoch(val_loss={'a': None})", "TypeError", "val_loss['a'] is None"),
    Case("run.end_epoch('1')", "TypeError", "epoch must be a whole number"),
    Case("run.end_epoch()", "", "", "an epoch without losses", ("on_epoch_end",)),
    Case("run.log_checkpoint(5)", "TypeError", "log_checkpoint takes the path of a file, got 5"),
    Case("run.alert('x', level='fatal')", "ValueError", "alert level 'fatal': use one of info, warning, error"),
    Case("run.request_lr(-1)", "ValueError", "factor must be a positive number, got -1"),
    Case("run.emit('on_nothing')", "ValueError", "no hook 'on_nothing': add its specification"),
    # plugins
    Case("run.register(object())", "TypeError", "object implements no hook: mark its methods with @losslog.hookimpl"),
    Case("run.register(Hook)", "TypeError", "Hook is a class: pass an instance, Hook(...)"),
    Case("run.on('on_evall')(print)", "ValueError", "there is no hook 'on_evall' (did you mean 'on_eval'?)"),
    Case("run.on('on_eval')(lambda metrcs: None)", "ValueError", "has no argument 'metrcs' (did you mean 'metrics'?)"),
    Case("run.on('on_eval')(lambda **all: None)", "ValueError", "takes **all: name the arguments you want; there are"),
    Case("run.on('on_eval')(lambda: (yield))", "ValueError", "is a generator or a coroutine: a hook is a plain"),
    Case("run.on('on_eval')(3)", "TypeError", "run.on('on_eval') takes a function, got 3"),
    Case("run.emit('on_eval', metrics={})", "ValueError", "on_eval is losslog's own hook: use run.log_eval()"),
    Case("run.add_hookspecs(Specs); run.emit('on_sampel')", "ValueError", "(did you mean 'on_sample'?)"),
    Case("run.add_hookspecs(Specs); run.emit('on_sample', imge='a')", "TypeError", "its arguments are image"),
    Case("run.add_hookspecs(Hook)", "ValueError", "Hook: nothing is specified: mark functions with @losslog.hookspec"),
    Case("run.add_hookspecs(Taken)", "ValueError", "give them names that losslog's own hooks do not have"),
    Case("run.register(Hook()); run.register(Hook())", "ValueError", "registered already: pass name="),
    Case("Run(plugins=['nobody'])", "PluginError", "no plugin named 'nobody' is installed", "no run folder is made"),
    Case("Run(plugins=['x' * 255])", "PluginError", "no plugin named", "no run folder is made"),
    Case("Run(plugins=[Typo()])", "ValueError", "there is no hook on_evall (did you mean 'on_eval'?)",
         "no run folder is made"),
    Case("run.register(Typo())", "ValueError", "there is no hook on_evall (did you mean 'on_eval'?)"),
    Case("Run(options={'mlflw': {}})", "PluginError", "options are given for 'mlflw'", "no run folder is made"),
    Case("Run(plugins=[object()])", "TypeError", "implements no hook", "no run folder is made"),
    Case("Run(options=['x'])", "TypeError", "options must be a dict by plugin name", "no run folder is made"),
    Case("Run(options={'a': {'batch_every': 0}})", "TypeError", "must be a whole number of steps >= 1",
         "no run folder is made"),
    # runs
    Case("Run(name='latest')", "ValueError", "no run can be called 'latest': latest means the newest run",
         "no run folder is made"),
    Case("Run(name='-x')", "ValueError", "no run can be called '-x': it begins as an option does",
         "no run folder is made"),
    Case("Run(config=['x'])", "TypeError", "config must be a dict, got list", "no run folder is made"),
    Case("Run(epochs='20')", "TypeError", "epochs must be a whole number", "no run folder is made"),
    Case("Run(resume='nowhere')", "JournalError", "no run 'nowhere'", "no run folder is made"),
    Case("Run(resume=run.dir)", "RunLocked", "is being written by another live run", "the live run is not touched"),
    Case("run.close(); run.log_batch(1.0)", "", "log_batch after close(): ignored (said once)",
         "what was logged before the close"),
]  # fmt: skip


class Hook:
    @losslog.hookimpl
    def on_eval(self) -> None:
        pass


class Typo:
    @losslog.hookimpl
    def on_evall(self) -> None:
        pass


class Specs:
    @losslog.hookspec
    def on_sample(self, image: str) -> None:
        """A picture was drawn."""


class Taken:
    @losslog.hookspec
    def on_eval(self, metrics: dict) -> None:
        """Not theirs to specify."""


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 30
    assert len({case.given for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.given)
def test_bad_input(
    case: Case, make_run: Callable[..., losslog.Run], records: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = make_run()
    folders = {each.parent for each in (tmp_path / "runs").rglob("journal.jsonl")}
    space = {
        "run": run,
        "torch": torch,
        "np": np,
        "losslog": losslog,
        "Hook": Hook,
        "Typo": Typo,
        "Specs": Specs,
        "Taken": Taken,
    }
    space["Run"] = lambda **options: make_run(**options)
    # Calls before the last one are made to prepare it.
    *before, last = case.given.split("; ")
    for each in before:
        eval(each, space)
    if case.error:
        with pytest.raises(BaseException) as raised:  # noqa: PT011 - its type and message are the case's
            eval(last, space)
        assert type(raised.value).__name__ == case.error
        assert case.said in str(raised.value)
    else:
        eval(last, space)
    run.close()
    if not case.error and case.said:
        assert case.said in caplog.text
    found = records(run.dir)
    assert [each.hook for each in found] == ["on_run_start", *case.hooks, "on_run_end"]
    assert {each.parent for each in (tmp_path / "runs").rglob("journal.jsonl")} == folders
    Writer(run.dir).close()  # and the folder is free


TEXT = """\
Values are checked where they are handed over, so an error is raised at the line that made it and names the key and
the type. What is wrong with a value never reaches the drain thread or a plugin. In the table `run` is an open run. It
is made from `tests/test_errors_table.py`, which runs every line (`WRITE_PAGES=1` writes it anew)."""


def page() -> str:
    rows = []
    for case in CASES:
        said = case.said.replace("|", "\\|") or "nothing"
        error = f"`{case.error}`" if case.error else "no error" + (", a warning" if case.said else "")
        rows.append(f"| `{case.given}` | {error} | {said} | {case.kept} |")
    return "\n".join(
        [
            "# Bad input: what was given, what is said, what is kept",
            "",
            *TEXT.splitlines(),
            "",
            "| Given | Raised | Said | Kept |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )


def test_the_page_is_made_from_these_cases() -> None:
    if os.environ.get("WRITE_PAGES"):
        PAGE.write_text(page(), "utf-8")
    assert PAGE.read_text("utf-8") == page()
