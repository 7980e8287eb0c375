"""The house rules, read off the source: who may import whom, who may do what, and how large a room may grow."""

from __future__ import annotations

import ast
import functools
import io
import re
import tokenize
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import losslog

PACKAGE = Path(losslog.__file__).parent
HOUSE = PACKAGE.parent
# Each module imports only modules that stand before it, inside functions and for type checkers too.
FLOORS = """
    errors
    runtime.pace runtime.containment runtime.notices runtime.settings runtime.endings
    values.losses values.snapshot values.targets values.totals values.means values.picture values.pictures
    tags
    journal.folder journal.files journal.packing journal.archive journal.ends journal.locks journal.shapes
    journal.records journal.fences journal.metrics journal.redaction journal.origin journal.lines journal.scan
    journal.tally journal.index journal.file journal.tail journal.spill
    journal.resuming journal.cursors history
    control hookspecs
    ranks.tree ranks.store ranks.sums ranks.mail ranks.relay ranks.joining ranks.leases
    delivery.wire delivery.thinning delivery.trust delivery.caller delivery.options delivery.installed
    delivery.discovery delivery.inline
    delivery.report delivery.progress delivery.patience delivery.refusals delivery.beginning delivery.lane
    delivery.follower delivery.delivery delivery.attached
    recording.items recording.alike recording.hardest recording.highlights recording.intake recording.sender
    recording.nowhere recording.drain recording.recorder
    run
""".split()  # noqa: SIM905 - as a list it would be one name a line
# The core's packages, and the most lines of code that each may have; the root is `losslog` itself.
ROOMS = {"": 1092, "values": 681, "journal": 2228, "recording": 759, "delivery": 1858, "ranks": 621, "runtime": 319}
CORE = 7558  # lines of code in all, the follower's child included
# Packages above the core, and the facade: they may import any of it.
ABOVE = ("cli", "testing", "engine", "detection", "instrument", "compat", "viewing")
WRITERS = {
    "journal.archive", "journal.ends", "journal.files", "journal.index", "journal.file", "journal.spill",
    "journal.cursors", "journal.locks", "journal.folder", "delivery.follower",
}  # fmt: skip
TORCH = {"engine", "detection", "instrument", "compat"}
LONGEST = 300  # lines of a module; the docstrings of `run` and `hookspecs` are the reference
LARGEST_CLASS = 250  # lines of code, besides `Run`


def name_of(path: Path) -> str:
    """A module's dotted name below losslog, a package's its own."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


@functools.cache
def modules() -> dict[str, Path]:
    return {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def core() -> dict[str, Path]:
    return {name: path for name, path in modules().items() if name.split(".")[0] not in (*ABOVE, "__main__")}


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def imported(body: ast.AST, package: str = "") -> set[str]:
    """Dotted names of everything imported anywhere, ``from losslog import tags`` as ``losslog.tags``.

    ``from . import x`` counts as from ``package``.
    """
    found: set[str] = set()
    for node in ast.walk(body):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = ".".join(filter(None, [package if node.level else "", node.module]))
            found |= {f"{module}.{alias.name}" for alias in node.names} | {module}
    return found


def arrows(files: dict[str, Path], package: str) -> dict[str, set[str]]:
    """Which modules of a package each of its modules imports."""
    found = {}
    for name, path in files.items():
        every = imported(tree(path), package)
        below = {each.removeprefix(f"{package}.") for each in every if each.startswith(f"{package}.")}
        found[name] = {each for each in below if each in files and each != name}
    return found


@functools.cache
def house() -> dict[str, set[str]]:
    return arrows(modules(), "losslog")


def plugin_packages() -> list[Path]:
    return sorted(path for path in (HOUSE / "plugins").glob("losslog-*/src/*") if (path / "__init__.py").is_file())


def test_design_md_names_each_module_in_its_room_and_none_that_there_is_not() -> None:
    text = (HOUSE / "docs" / "design.md").read_text("utf-8")
    rows = re.findall(r"^\| (?:the root|`(\w+)/`) \| [^|]+ \| (.+) \|$", text, re.MULTILINE)
    told = {f"{room}.{each}".lstrip(".") for room, names in rows for each in re.findall(r"`(\w+)`", names)}
    assert told == set(FLOORS)
    paths = {each.replace("/", ".") for each in re.findall(r"`(\w+/\w+)(?:\.py)?`", text)} - {"tests.test_house"}
    assert paths <= set(modules())


# ---------------------------------------------------------------------- who imports whom


def test_every_module_has_its_place() -> None:
    places = {name for name, path in core().items() if path.name != "__init__.py"}
    assert places == set(FLOORS)
    assert len(FLOORS) == len(set(FLOORS))


@pytest.mark.parametrize("name", FLOORS)
def test_imports_go_down(name: str) -> None:
    files = modules()
    upward = {each for each in house()[name] if files[each].name != "__init__.py"}
    assert upward <= set(FLOORS[: FLOORS.index(name)])
    names = {each.removeprefix("losslog.") for each in imported(tree(files[name])) if each.count(".") == 1}
    assert not names & set(losslog.__all__), "the facade stands above the core"


def test_nothing_imports_in_a_circle() -> None:
    try:
        tuple(TopologicalSorter(house()).static_order())
    except CycleError as error:
        pytest.fail(f"a circle: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("package", plugin_packages(), ids=lambda path: path.name)
def test_no_plugin_imports_in_a_circle(package: Path) -> None:
    files = {path.stem: path for path in package.glob("*.py")}
    try:
        tuple(TopologicalSorter(arrows(files, package.name)).static_order())
    except CycleError as error:
        pytest.fail(f"a circle: {' -> '.join(error.args[1])}")


def test_only_the_packages_that_need_torch_import_it() -> None:
    heavy = {"torch", "torchvision", "pycocotools", "numpy", "PIL"}
    guilty = {
        name.split(".")[0]
        for name, path in modules().items()
        if {each.split(".")[0] for each in imported(tree(path))} & heavy
    }
    assert guilty - TORCH <= {"cli"}  # its train and demo commands import them when they run


def test_the_command_line_imports_torch_only_inside_functions() -> None:
    for path in (PACKAGE / "cli").glob("*.py"):
        top = ast.Module([node for node in tree(path).body if isinstance(node, ast.Import | ast.ImportFrom)], [])
        assert not {name.split(".")[0] for name in imported(top)} & {"torch", "torchvision", "pycocotools"}, path.name


# ---------------------------------------------------------------------- who may do what


def private_names(path: Path) -> set[str]:
    """Private names that a file defines: functions, classes, and attributes of its own objects."""
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.attr)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return {name for name in found if name.startswith("_") and not name.startswith("__")}


def test_nobody_reaches_for_what_is_private_to_another() -> None:
    """``x._y`` only where the file itself has a ``_y``, or nobody in the house has: what is a vendor's own matter."""
    paths = [*modules().values(), *(file for package in plugin_packages() for file in sorted(package.rglob("*.py")))]
    names = {path: private_names(path) for path in paths}
    everybody = set().union(*names.values()) - {"_replace", "_asdict", "_make", "_fields"}  # public, of a NamedTuple
    reaches = [
        f"{path.relative_to(HOUSE)}:{node.lineno} {ast.unparse(node)}"
        for path in paths
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute) and node.attr in everybody - names[path]
    ]
    assert reaches == []


def calls(path: Path) -> set[str]:
    return {ast.unparse(node.func) for node in ast.walk(tree(path)) if isinstance(node, ast.Call)}


def test_only_pace_starts_threads() -> None:
    starters = {"threading.Thread", "Thread", "threading.Timer", "Timer", "ThreadPoolExecutor"}
    assert {name for name, path in core().items() if calls(path) & starters} == {"runtime.pace"}


def test_only_the_follower_starts_a_process() -> None:
    starters = {"subprocess.Popen", "subprocess.run", "subprocess.call", "os.fork", "os.system", "os.posix_spawn"}
    assert {name for name, path in core().items() if calls(path) & starters} == {"delivery.follower"}


def test_only_a_few_modules_write_files() -> None:
    assert {name for name, path in core().items() if writes(tree(path))} <= WRITERS


def writes(body: ast.Module) -> bool:
    names = {"os.open", "os.write", "os.replace", "os.rename", "os.remove", "os.unlink", "os.ftruncate", "os.mkdir"}
    methods = {"write_text", "write_bytes", "mkdir", "unlink", "touch", "rename", "rmdir"}
    for node in ast.walk(body):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        if name in names or name.rpartition(".")[2] in methods:
            return True
        modes = [arg.value for arg in node.args[1:2] if isinstance(arg, ast.Constant)]
        if name == "open" and any(isinstance(mode, str) and set(mode) & set("wax+") for mode in modes):
            return True
    return False


def test_only_containment_catches_broadly() -> None:
    broad = {"Exception", "BaseException"}
    guilty = set()
    for name, path in core().items():
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ExceptHandler):
                caught = (
                    {part.strip() for part in ast.unparse(node.type).strip("()").split(",")} if node.type else broad
                )
                if caught & broad:
                    guilty.add(name)
    assert guilty == {"runtime.containment"}


def test_only_containment_knows_what_an_errno_means() -> None:
    assert {name for name, path in core().items() if "errno" in imported(tree(path))} == {"runtime.containment"}


def test_every_module_says_what_it_is_and_promises() -> None:
    for name, path in core().items():
        text = ast.get_docstring(tree(path)) or ""
        if path.name == "__init__.py":
            assert text, f"{name} does not say what is in it"
        else:
            assert "Contract" in text, name


# ---------------------------------------------------------------------- how large


def code_lines(source: str, node: ast.AST | None = None) -> int:
    """Lines that hold code, of a module or of one of its classes: no blanks, no comments, no docstrings."""
    docstrings: set[int] = set()
    for each in ast.walk(ast.parse(source)):
        if isinstance(each, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = each.body[0] if each.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                docstrings |= set(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    silent = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    found: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in silent:
            found |= set(range(token.start[0], token.end[0] + 1))
    if isinstance(node, ast.ClassDef):
        found &= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(found - docstrings)


@functools.cache
def lines_by_room() -> dict[str, int]:
    found = dict.fromkeys(ROOMS, 0)
    for name, path in core().items():
        room = name.split(".")[0]
        found[room if room in ROOMS else ""] += code_lines(path.read_text("utf-8"))
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_no_room_grows_beyond_its_walls(room: str) -> None:
    assert lines_by_room()[room] <= ROOMS[room]


def test_the_core_does_not_grow() -> None:
    assert sum(lines_by_room().values()) <= CORE


def test_few_modules_lie_loose_at_the_root() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 8


@pytest.mark.parametrize("name", sorted(modules()))
def test_no_module_is_too_long(name: str) -> None:
    assert name in ("run", "hookspecs") or len(modules()[name].read_text("utf-8").splitlines()) <= LONGEST


def test_no_class_is_too_large() -> None:
    found = {}
    for name, path in modules().items():
        source = path.read_text("utf-8")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ClassDef):
                found[f"{name}.{node.name}"] = code_lines(source, node)
    assert {name: lines for name, lines in found.items() if lines >= LARGEST_CLASS} == {"run.Run": found["run.Run"]}
