"""What commands share: one line for what is wrong with the nearest fix, one way to say RUN, --dir and options."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

import losslog
from losslog.cli import COMMANDS, build_parser, main
from losslog.cli.arguments import UsageError, names_in, not_negative, parse_options, positive, positive_int
from losslog.cli.numbers import seed, side


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("", "losslog: missing: COMMAND (see losslog --help)"),
        ("shwo", "losslog: no command 'shwo' (did you mean 'show'?) (see losslog --help)"),
        ("show --jsn", "losslog show: unknown option --jsn (did you mean '--json'?) (see losslog show --help)"),
        ("show --zzz=1", "losslog show: unknown option --zzz (see losslog show --help)"),
        ("plugins a b", "losslog plugins: unknown argument 'b' (see losslog plugins --help)"),
        ("replay latest", "losslog replay: missing: --to (see losslog replay --help)"),
        ("replay --too a", "losslog replay: unknown option --too (did you mean '--to'?) (see losslog replay --help)"),
        ("train --dta x", "losslog train: unknown option --dta (did you mean '--data'?) (see losslog train --help)"),
        ("train --data x --lr 0", "losslog train: argument --lr: 0 is not a positive number (see losslog train --help)"),  # noqa: E501
        ("run", "losslog run: missing: SCRIPT (see losslog run --help)"),
        ("run --nme x a.py", "losslog run: unknown option --nme (did you mean '--name'?) (see losslog run --help)"),
        (
            "train --data x --backbone resnet51",
            "losslog train: argument --backbone: invalid choice: 'resnet51' (did you mean 'resnet50'?) "
            "(see losslog train --help)",
        ),
    ],
)  # fmt: skip
def test_wrong_usage_is_one_line_with_the_nearest_fix(
    words: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(words.split())
    captured = capsys.readouterr()
    assert (end.value.code, captured.out, captured.err) == (2, "", f"{line}\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_defaults_that_are_some_and_examples_that_parse(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([name, "--help"])
    text = capsys.readouterr().out
    assert "(default: None)" not in text
    assert "(default: [])" not in text
    examples = [line.strip() for line in text.partition("examples:\n")[2].splitlines()]
    assert examples
    for each in examples:
        words = shlex.split(each)[1:]
        build_parser(name).parse_args(words[: words.index("|")] if "|" in words else words)


def test_the_list_of_commands_says_what_each_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    lines = capsys.readouterr().out.splitlines()
    for name in COMMANDS:
        assert any(len(line.split()) > 3 and line.split()[0] == name for line in lines), name


@pytest.mark.parametrize("command", ["show", "diagnose", "replay --to console", "follow --to console"])
def test_a_run_that_is_not_there_is_one_line(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, *more = command.split()
    assert main([name, "nowhere", "--dir", str(tmp_path), *more]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"losslog {name}: no run 'nowhere'")
    assert said.count("\n") == 1


def test_losslog_dir_is_obeyed_and_dir_beats_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_run: Callable[..., losslog.Run],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    make_run(name="here").close()
    make_run(name="there", dir=tmp_path / "other").close()
    monkeypatch.setenv("LOSSLOG_DIR", str(tmp_path / "other"))
    capsys.readouterr()
    assert main(["show"]) == 0
    assert capsys.readouterr().out.startswith("there ")
    assert main(["show", "--dir", str(tmp_path / "runs")]) == 0
    assert capsys.readouterr().out.startswith("here ")


def test_options_are_json_or_text() -> None:
    assert parse_options(["a.x=1", "a.y=[1, 2]", "b.uri=http://h:1/?q=1"]) == {
        "a": {"x": 1, "y": [1, 2]}, "b": {"uri": "http://h:1/?q=1"},
    }  # fmt: skip


@pytest.mark.parametrize("word", ["", "a", "a=1", ".x=1", "a.=1", "a.x"])
def test_an_option_of_another_form_names_the_right_one(word: str) -> None:
    with pytest.raises(UsageError, match=r"write PLUGIN\.KEY=VALUE"):
        parse_options([word])


def test_numbers_and_names() -> None:
    assert (positive_int("3"), positive("0.5"), not_negative("0")) == (3, 0.5, 0.0)
    for kind, text in (
        (positive_int, "0"),
        (positive, "0"),
        (positive, "inf"),
        (positive, "nan"),
        (not_negative, "-1"),
        (positive_int, str(1 << 31)),
        (seed, str(1 << 63)),
        (side, "16385"),
    ):
        with pytest.raises(argparse.ArgumentTypeError):
            kind(text)
    assert names_in(" a, b,,a ") == ["a", "b"]
