"""What is said of two runs that were compared, as lines.

No thread, no I/O. Contract:

- Only what was measured is said: what one run did not log is not called the same, nor different.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from losslog.viewing.rows import counted

NAMED: Final = 6  # components that are named in one line
AXES: Final = {"step": "step", "images": "image", "epoch": "epoch"}
Lines = list[tuple[str, str]]


def lines_of(found: Mapping[str, Any]) -> Lines:
    """What is said, as (what it is about, the text)."""
    said = [*_config(found), *_losses(found), *_scores(found["scores"]), *_rates(found), *_data(found)]
    a, b = found["speed"]
    if a and b:
        said.append(("speed", f"{a:.3g} -> {b:.3g} steps/s ({100 * (b / a - 1):+z.0f} %)"))
    return said


def parting_of(found: Mapping[str, Any]) -> Lines:
    """The part of it that says what was set differently, and where losses and learning rates part."""
    return [*_config(found), *_losses(found), *_rates(found), *_data(found)]


def _config(found: Mapping[str, Any]) -> Lines:
    said = [("config", f"{key}: {_absent(a)} -> {_absent(b)}") for key, a, b in found["config"]]
    return said or [("config", "the same")]


def _losses(found: Mapping[str, Any]) -> Lines:
    said, things = [("losses", _equal(found))], AXES[found["axis"]]
    unit = "epoch" if found["axis"] == "epoch" else "step"
    for each in found["not_finite"]:
        whose = _run(found, each["run"])
        if each["lasting"]:
            share = f"{each['count']} of {counted(each['of'], 'value')}"
            text = f"not finite in {whose} from {unit} {each['at']} ({share})"
        else:
            share = f"{each['count']} of {counted(each['of'], 'value')}"
            text = f"{share} not finite in {whose}, the first at {unit} {each['first']}"
        said.append((each["component"], text))
    for each in found["apart"]:
        where = f"{things} {each['at']} (a block is {counted(each['width'], things)})"
        said.append((each["component"], f"apart for good from {where}, {100 * each['change']:+z.0f} % at the end"))
    groups: dict[str, list[str]] = {}
    for name, why in found["untold"].items():
        groups.setdefault(why, []).append(name)
    if found["together"]:
        groups["no lasting gap"] = found["together"]
    if found["same"] and not found["whole"]:
        groups["equal to the last bit"] = found["same"]
    named = 0
    for text, names in groups.items():
        last = named + len(names) == sum(map(len, groups.values()))
        before = len(names) < len(found["shared"])
        several = f"the other {len(names)}" if last and before else f"all {len(names)}" if last else _several(names)
        said.append((", ".join(names) if len(names) <= 2 else several, text))
        named += len(names)
    for place, names in enumerate(found["only"]):
        if names:
            said.append((_several(names), f"only in {_run(found, place, whole=True)}"))
    return said


def _equal(found: Mapping[str, Any]) -> str:
    """How far the losses are equal to the last bit."""
    unit, number = "epoch" if found["axis"] == "epoch" else "step", found["equal"]
    if not found["shared"]:
        return f"none that both have by {unit}"
    if found["first"] is None:
        return f"no {unit} that both have"
    every = f"all {found['common']} {unit}s" if found["common"] > 1 else f"the one {unit}"
    if found["whole"]:
        those = "those of both " if any(found["only"]) else ""
        return f"{those}equal to the last bit in {every} that both have"
    early = found["equal"] <= found["first"]
    if found["same"]:
        differ = [name for name in found["shared"] if name not in found["same"]]
        whose = f"only {_several(differ)} {'differs' if len(differ) == 1 else 'differ'}"
        return f"{whose}, from {'the first ' + unit if early else f'{unit} {number}'} on"
    return f"not equal from the first {unit} on" if early else f"equal to the last bit before {unit} {number}"


def _several(names: list[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")


def _run(found: Mapping[str, Any], place: int, *, whole: bool = False) -> str:
    """A run's name, with its id where names do not tell them apart."""
    one, two = found["runs"]
    run = (one, two)[place]
    return f"{run['name']} {run['id']}" if whole or one["name"] == two["name"] else str(run["name"])


def _absent(text: str | None) -> str:
    return "(not set)" if text is None else text


def _rates(found: Mapping[str, Any]) -> Lines:
    axis = AXES[found["axis"]]
    said = [
        f"{each['group']}: {each['values'][0]:.4g} -> {each['values'][1]:.4g} from {axis} {each['at']}"
        for each in found["rates"]
    ]
    said += [
        f"{_several(groups)}: logged only in {_run(found, place)}"
        for place, groups in enumerate(found["rates_only"])
        if groups
    ]
    nothing = "the same" if found["rates_both"] else "not logged"
    return [("learning rate", text) for text in said or [nothing]]


def _data(found: Mapping[str, Any]) -> Lines:
    said = []
    for key, what in (("batch", "images a step"), ("steps", "steps"), ("epochs", "epochs")):
        a, b = found["data"][key]
        if a != b:
            one, two = (f"{each:.6g}" if each or key != "batch" else "not logged" for each in (a, b))
            said.append(("data", f"{what}: {one} -> {two}"))
    return said


def _scores(scores: list[dict[str, Any]]) -> Lines:
    """Overall scores, and of the classes those that changed most."""
    said = []
    for each in scores:
        a, b = each["values"]
        one, two = each["epochs"]
        when = "" if one == two else f", epochs {one} and {two}"
        overall = each["tag"].startswith("mAP") and not each["tag"].startswith("mAP_class")
        if overall and each["tag"].endswith("_AP"):
            said.append((each["tag"], f"{a:.3f} -> {b:.3f} ({100 * (b - a):+z.1f}){when}"))
        elif not each["tag"].startswith("mAP"):
            said.append((each["tag"], f"{a:.4g} -> {b:.4g}{when}"))
    classes = [each for each in scores if each["tag"].startswith("mAP_class")]
    classes.sort(key=lambda each: -abs(each["values"][1] - each["values"][0]))
    most = [each for each in classes[:4] if abs(each["values"][1] - each["values"][0]) >= 0.01]
    if most:
        told = [
            f"{each['tag'].partition('/')[2]} {100 * (each['values'][1] - each['values'][0]):+.1f}" for each in most
        ]
        said.append(("by class", ", ".join(told)))
    return said
