"""What the documentation tells people to type: every code block runs, every command parses, every link resolves."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import losslog
from losslog.cli import build_parser
from losslog.cli.arguments import parse_options
from losslog.runtime import endings

ROOT = Path(losslog.__file__).parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import docs_blocks  # noqa: E402

STANDINS = Path(__file__).with_name("standins.py")


def with_python() -> list[Any]:
    return [
        pytest.param(page, id=docs_blocks.name_of(page))
        for page in docs_blocks.docs()
        if any(block.language == "python" and not block.title for block in docs_blocks.blocks(page))
    ]


def with_commands() -> list[Any]:
    return [
        pytest.param(page, id=docs_blocks.name_of(page))
        for page in docs_blocks.pages()
        if next(docs_blocks.commands(page), None)
    ]


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A reader's folder: empty but for a run folder's journal; no process but this one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOSSLOG_FOLLOWER", "0")
    monkeypatch.setenv("LOSSLOG_PLUGINS", "console")
    monkeypatch.setenv("WANDB_SILENT", "true")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "epoch_001.pth").touch()
    yield tmp_path
    close_runs()


def close_runs() -> None:
    """End what a block left open; its report would name a hook that failed."""
    for run in endings.open_runs():
        run.close(10)
        assert [name for name, lane in run.stats["lanes"].items() if lane["errors"]] == []


@pytest.fixture
def journal(reader: Path) -> Path:
    """``journal.jsonl`` in the reader's folder."""
    folder = runpy.run_path(str(STANDINS))["make_journal"]()
    return Path(shutil.copy(folder / "journal.jsonl", reader))


@pytest.mark.parametrize("page", with_python())
@pytest.mark.filterwarnings("default")  # those of other packages' making are not the reader's
def test_the_python_blocks_run(page: Path, journal: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = runpy.run_path(str(STANDINS)) | {"__name__": "__main__"}
    names["run"] = losslog.Run("page", plugins=None)
    for block in docs_blocks.blocks(page):
        if block.language == "python" and not block.not_run and not block.title:
            code = compile("\n" * (block.line - 1) + block.code, docs_blocks.name_of(page), "exec")
            exec(code, names)
    close_runs()
    warned = [each.getMessage() for each in caplog.records if each.name == "losslog" and each.levelname != "INFO"]
    assert [each for each in warned if not each.startswith("no step was logged")] == []  # lines that only attach


def test_the_script_for_torchrun_runs_on_two_ranks(reader: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = ROOT / "docs" / "torchrun.md"
    (block,) = [each for each in docs_blocks.blocks(page) if each.title]
    shutil.copy(STANDINS, reader / "standins.py")
    (reader / block.title).write_text("from standins import make_loader, make_model\n\n" + block.code, "utf-8")
    (command,) = [line for _, line in docs_blocks.commands(page) if line.startswith("torchrun")]
    words = [sys.executable, "-m", "torch.distributed.run", *shlex.split(command)[1:]]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    for _ in range(3):  # gloo's threads may end a process with SIGABRT while Python does (pytorch/pytorch, 179291)
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120, check=False)
        if "terminate called without an active exception" not in done.stderr:
            break
    assert done.returncode == 0, done.stderr
    (run,) = (reader / "runs" / "ddp").iterdir()
    from losslog.history import records

    batches = [each.data for each in records(run) if each.hook == "on_batch_losses"]
    assert [(each["step"], each["ranks"]) for each in batches] == [(step, 2) for step in range(6)]


@pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed")
def test_the_jq_examples_print_something(journal: Path) -> None:
    lines = [line for _, line in docs_blocks.commands(ROOT / "docs/reference/journal.md") if line.startswith("jq")]
    assert len(lines) >= 4
    for line in lines:
        done = subprocess.run(["bash", "-ec", line], capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip(), line


@pytest.mark.parametrize("page", with_commands())
def test_the_commands_exist_and_take_these_arguments(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data" / "val").mkdir(parents=True)  # the folders that are named have to be there
    monkeypatch.chdir(tmp_path)
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for number, line in docs_blocks.commands(page):
        words = [word for word in shlex.split(line, comments=True) if word != "..."]
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            del words[0]
        place = f"{docs_blocks.name_of(page)}:{number}: {line}"
        if words[:3] == ["python", "-m", "losslog"]:
            words[:3] = ["losslog"]
        if words[0] == "losslog":
            cut = next((at for at, word in enumerate(words) if word in ("|", ">", "&&", "&", ";")), len(words))
            try:
                args = build_parser().parse_args(words[1:cut])
            except SystemExit as error:
                raise AssertionError(place) from error
            parse_options(getattr(args, "option", []))
        elif words[0] == "make":
            assert set(words[1:]) <= targets, place
        elif words[:2] == ["pip", "install"]:
            for word in words[2:]:
                if word.startswith("./") and "losslog-my" not in word and page.parent.name not in ("plugins",):
                    assert (ROOT / word.partition("[")[0]).is_dir(), place


@pytest.mark.parametrize("page", [pytest.param(page, id=docs_blocks.name_of(page)) for page in docs_blocks.pages()])
def test_the_links_resolve(page: Path) -> None:
    """In a checkout; those of the site are also checked by its build."""
    missing = []
    for target in docs_blocks.links(page):
        if re.match(r"[a-z]+:", target) or target.startswith("#"):
            continue
        path = (page.parent / target.partition("#")[0]).resolve()
        if not path.exists():
            missing.append(target)
    assert missing == []


@pytest.fixture
def chat() -> Iterator[tuple[str, list[str]]]:
    """A webhook on loopback, and what it was told."""
    told: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook", told
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_webhook_of_the_alerts_page_is_told(reader: Path, chat: tuple[str, list[str]]) -> None:
    page = ROOT / "docs" / "alerts.md"
    first = next(block for block in docs_blocks.blocks(page) if "class ToChat" in block.code)
    names: dict[str, Any] = {}
    exec(first.code.partition("\n\nrun = ")[0], names)
    run = losslog.Run("maskrcnn", plugins=None)
    run.register(names["ToChat"](chat[0]))
    run.log_batch({"loss_mask": float("nan")})
    run.alert("only to know", level="info")
    run.end_epoch()
    run.close()
    assert [text.splitlines()[0] for text in chat[1]] == [
        f"maskrcnn {run.id}: loss_mask is nan (step 0)", f"maskrcnn {run.id}: finished",
    ]  # fmt: skip


def test_every_reason_for_not_running_a_block_is_given() -> None:
    reasons = [block.not_run for page in docs_blocks.docs() for block in docs_blocks.blocks(page) if block.not_run]
    assert all(len(reason.split()) >= 3 for reason in reasons)


def other_tests() -> dict[Path, str]:
    """The text of every test module but this one."""
    folders = (ROOT / "tests", *ROOT.glob("plugins/*/tests"))
    found = {path: path.read_text("utf-8") for folder in folders for path in folder.rglob("*.py")}
    return {path: text for path, text in found.items() if path != Path(__file__)}


def test_every_example_is_run_by_a_test() -> None:
    texts = "".join(other_tests().values())
    names = [path.name for path in (ROOT / "examples").rglob("*.py") if path.name != "__init__.py"]
    assert names
    missing = [name for name in names if name not in texts and name.removesuffix(".py") not in texts]
    # those of a family are run by one test that puts their names together
    assert [name for name in missing if re.sub(r"^f\d_", "f{family}_", name) not in texts] == []


def test_every_page_whose_blocks_are_files_has_a_test_of_its_own() -> None:
    texts = "".join(other_tests().values())
    titled = {page for page in docs_blocks.docs() for block in docs_blocks.blocks(page) if block.title}
    assert [page.name for page in titled if page.name not in texts and page.name != "torchrun.md"] == []


def test_no_page_names_this_machine() -> None:
    for page in docs_blocks.pages():
        text = page.read_text("utf-8")
        with contextlib.suppress(ValueError):
            raise AssertionError(f"{page}: {text[text.index(str(ROOT)) :][:80]}")
