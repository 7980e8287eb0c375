"""The kit finds faults: each plugin of `faulty` fails the check that is named for its fault, and no other.

Two checks start a process each; they are run on the plugins whose fault they are to find, and on a few others.
"""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from importlib.util import find_spec
from pathlib import Path

import pytest

from losslog.cli.new_plugin import generate

HERE = Path(__file__).parent
OPTIONS = ["-q", "-c", os.devnull, "-p", "no:cacheprovider", "-p", "no:randomly", "-W", "error", "--tb=short"]

VENDOR = """
import fakevendor
from losslog_sink import SinkPlugin


class ImportsItsVendor(SinkPlugin):
    pass
"""

CONFORMANCE = '''
import json

import faulty
import faulty_vendor
import losslog_sink
from losslog.testing import PluginConformance


class Checked(PluginConformance):
    close_within = 0.3

    def read_back(self, run_dir):
        path = run_dir / "sink.jsonl"
        return losslog_sink.read_points(path) if path.exists() else {}


class Quick(Checked):
    test_far_lane = test_import_without_vendor = test_cost_per_call = None


class TestImportsItsVendor(Checked):
    name = "ImportsItsVendor"
    vendor = ("fakevendor",)


class TestNotInstalled(Quick):
    name = "NotInstalled"

    def make_plugin(self, tmp_path):
        return faulty.NotInstalled()


class TestOnlyScalars(PluginConformance):
    name = "OnlyScalars"
    resume = "appends"

    def read_back(self, run_dir):
        points = {}
        for path in sorted(run_dir.glob("points/*")):
            x, series = json.loads(path.read_text())
            for tag, value in series.items():
                points.setdefault(tag, []).append((x, value))
        return points


class TestMute(PluginConformance):
    """A sound plugin that cannot be read back."""

    name = "Sound"


WHOLE = (faulty.Sound, faulty.FourHooks, faulty.OtherwiseInTheFollower, faulty.DropsAnEpoch, faulty.IgnoresAResume)
for each in (faulty.Sound, faulty.FourHooks, *faulty.FAULTS):
    base, name = Checked if each in WHOLE else Quick, f"Test{each.__name__}"
    globals().setdefault(name, type(name, (base,), {"name": each.__name__}))
'''


def names_in(text: str) -> list[str]:
    lines = [line for line in text.splitlines() if line.startswith("class ")]
    return [line.rstrip(":").split("(")[0].removeprefix("class ") for line in lines]


FAULTY = (HERE / "faulty.py").read_text("utf-8")
EXPECTED = {
    line.split(":")[0].strip(): line.split('"')[1]
    for line in FAULTY[FAULTY.index("FAULTS = {") :].splitlines()
    if '"' in line
} | {"ImportsItsVendor": "test_import_without_vendor"}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """What became of every check of every plugin: one pytest run in a process of its own."""
    home = tmp_path_factory.mktemp("faults")
    source = generate("sink", home) / "src"
    (source / "faulty.py").write_text(FAULTY, "utf-8")
    (source / "faulty_vendor.py").write_text(VENDOR, "utf-8")
    (source / "fakevendor.py").touch()
    info = source / "faulty-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty\nVersion: 0.1\n")
    entries = [f"{name} = faulty:{name}" for name in names_in(FAULTY) if name != "NotInstalled"]
    entries.append("ImportsItsVendor = faulty_vendor:ImportsItsVendor")
    (info / "entry_points.txt").write_text("\n".join(["[losslog.plugins]", *entries, ""]))
    tests = home / "tests"
    tests.mkdir()
    (tests / "test_conformance.py").write_text(CONFORMANCE)
    root = HERE.parent.parent
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *OPTIONS, "--junitxml", str(home / "result.xml"), str(tests)],
        cwd=home,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(source), str(root)])},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert (home / "result.xml").exists(), done.stdout + done.stderr
    found: dict[str, dict[str, str]] = {}
    for case in ElementTree.parse(home / "result.xml").iter("testcase"):
        plugin = case.get("classname", "").rpartition(".Test")[2]
        state = next((f"{each.tag}: {each.get('message')}" for each in case if each.tag != "properties"), "passed")
        found.setdefault(plugin, {})[case.get("name", "")] = state
    (home / "output.txt").write_text(done.stdout)
    return found


def failed(checks: dict[str, str]) -> dict[str, str]:
    return {name: state for name, state in checks.items() if state.startswith(("failure", "error"))}


@pytest.mark.parametrize("plugin", EXPECTED)
def test_a_fault_fails_the_check_named_for_it_and_no_other(outcomes, plugin):
    found = failed(outcomes[plugin])
    assert list(found) == [EXPECTED[plugin]], found


@pytest.mark.parametrize("plugin", ["Sound", "FourHooks", "OnlyScalars"])
def test_a_sound_plugin_passes_every_check(outcomes, plugin):
    assert failed(outcomes[plugin]) == {}


def test_a_plugin_of_one_hook_is_spared_what_it_does_not_have(outcomes):
    skipped = {name for name, state in outcomes["OnlyScalars"].items() if state.startswith("skipped")}
    assert skipped <= {"test_failing_flush", "test_delivered_upto", "test_tensor_losses", "test_numpy_losses",
                       "test_keeps_no_graph"}  # fmt: skip
    assert {"test_failing_flush", "test_delivered_upto"} <= skipped


def test_nothing_is_skipped_for_a_sound_plugin(outcomes):
    if find_spec("torch") is None or find_spec("numpy") is None:
        pytest.skip("torch or numpy is not installed")
    assert {name: state for name, state in outcomes["Sound"].items() if state.startswith("skipped")} == {}


def test_a_plugin_without_read_back_is_checked_for_what_needs_none(outcomes):
    checks = outcomes["Mute"]
    assert failed(checks) == {}
    skipped = {name for name, state in checks.items() if state.startswith("skipped")}
    assert skipped == {
        "test_names",
        "test_every_point_once",
        "test_values",
        "test_axes",
        "test_delivered_means_delivered",
        "test_order",
        "test_resume",
        "test_scalar_losses",
    }


def test_every_check_finds_its_fault(outcomes):
    measured = {"test_cost_per_call", "test_near_lane"}  # the one only prints; the other lane differs by its rests
    assert set(outcomes["Sound"]) - measured == set(EXPECTED.values())
