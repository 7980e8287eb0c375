"""The names of the series, the same in every backend.

No thread, no I/O. Contract:

- A plugin turns a record into ``{tag: float}`` with these functions and nothing else, so all backends agree.
- They take what hooks take: a dict of losses or one scalar, plain floats, 0-d tensors or numpy scalars.
- Epoch series stand on the epoch axis, `batch_series` on the global step axis; they never share a tag.
- `points_of` is the one place that says which series a record has, and where they stand: hooks and `losslog.history`
  get it from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

from losslog.values.losses import as_float, check_names, normalise
from losslog.values.totals import total_name, total_of

_FLOAT: Final = {float}
SCALAR_HOOKS: Final = ("on_batch_losses", "on_eval", "on_metrics", "on_epoch_end")  # whose records have points


class Points(NamedTuple):
    """One value of each of some series, all at one x: the arguments of ``on_scalars``.

    Attributes:
        series: value by tag.
        axis: ``step`` or ``epoch``.
        x: the global step or the epoch.
    """

    series: dict[str, float]
    axis: str
    x: int


def scalars(prefix: str, losses: Any, total: Any = None) -> dict[str, float]:
    """The series of one dict of losses, or of one scalar loss.

    Args:
        prefix: ``loss/train``, ``loss/val`` or ``batch/train``.
        losses: components by name, or one scalar.
        total: their total; None means the entry that is the total (`losslog.values.totals`), or the sum.

    Returns:
        A scalar gives ``{prefix: value}``. A dict gives ``<prefix>_<component>`` for each component and the total under
        ``<prefix>_total``; for a prefix ending in ``val`` the total stands under the bare prefix, so that ``loss/val``
        is there whatever the loop computes.

    Raises:
        TypeError, ValueError: a value or a key is not what a loss may be.
    """
    plain = normalise(losses)
    if not isinstance(plain, dict):
        return {prefix: plain}
    tag = prefix if prefix.endswith("val") else f"{prefix}_total"
    own = total_name(plain) if total is None else None
    series = dict(zip(_tags(prefix, tuple(plain)), plain.values(), strict=True))
    if own is not None:
        del series[f"{prefix}_{own}"]
    series[tag] = total_of(plain, None if total is None else as_float(total, "total"))
    return series


@lru_cache(maxsize=1024)  # asked for with each record, and most are of one loop
def _tags(prefix: str, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{prefix}_{name}" for name in check_names(names))


def lr_series(lr: Any, prefix: str = "") -> dict[str, float]:
    """``lr`` (the first group) and, when there are several groups, ``lr_group/<name>`` for each."""
    if lr is None:
        return {}
    if not isinstance(lr, Mapping):
        return {f"{prefix}lr": as_float(lr, "lr")}
    groups = {str(name): as_float(value, f"lr[{name!r}]") for name, value in lr.items()}
    if not groups:
        return {}
    series = {f"{prefix}lr": next(iter(groups.values()))}
    if len(groups) > 1:
        series |= {f"{prefix}lr_group/{name}": value for name, value in groups.items()}
    return series


def epoch_series(
    losses: Any = None, total: Any = None, val_loss: Any = None, lr: Any = None, weights: Any = None
) -> dict[str, float]:
    """The series of an ``on_epoch_end`` record, x = epoch; of ``weights`` one ``weight/<component>`` each."""
    series = {} if losses is None else scalars("loss/train", losses, total)
    if val_loss is not None:
        series |= scalars("loss/val", val_loss)
    series |= {f"weight/{name}": as_float(value, f"weights[{name!r}]") for name, value in (weights or {}).items()}
    return series | lr_series(lr)


def batch_series(losses: Any, total: Any = None, lr: Any = None) -> dict[str, float]:
    """The series of an ``on_batch_losses`` record, x = global step."""
    if type(losses) is dict and _FLOAT.issuperset(map(type, (*losses.values(), total))):  # as nearly all are
        series = dict(zip(_tags("batch/train", tuple(losses)), losses.values(), strict=True))
        series["batch/train_total"] = total
        if type(lr) is not float:
            return series | lr_series(lr, "batch/")
        series["batch/lr"] = lr
        return series
    return scalars("batch/train", losses, total) | lr_series(lr, "batch/")


def eval_series(metrics: Mapping[str, Any], split: str = "val") -> dict[str, float]:
    """The series of an ``on_eval`` record, x = epoch.

    Nested COCO results give ``mAP/<kind>_<metric>`` and ``mAP_class/<kind>_<class>``; another split than ``val`` gives
    ``mAP_<split>/...`` and ``mAP_class_<split>/...``. Flat metrics give ``eval/<name>`` (``eval_<split>/<name>``).
    """
    suffix = "" if split == "val" else f"_{split}"
    series: dict[str, float] = {}
    for name, value in metrics.items():
        if not isinstance(value, Mapping):
            series[f"eval{suffix}/{name}"] = as_float(value, f"metrics[{name!r}]")
            continue
        for metric, score in value.items():
            if isinstance(score, Mapping):
                group = "mAP_class" if metric == "classes" else f"mAP_{metric}"
                for label, part in score.items():
                    where = f"metrics[{name!r}][{metric!r}][{label!r}]"
                    series[f"{group}{suffix}/{name}_{label}"] = as_float(part, where)
            else:
                series[f"mAP{suffix}/{name}_{metric}"] = as_float(score, f"metrics[{name!r}][{metric!r}]")
    return series


def points_of(hook: str, data: Mapping[str, Any]) -> Points | None:
    """What a record puts into every backend; None where its hook carries no numbers.

    Metrics stand at their step, else at their epoch. Where a record says neither, x is 0 on the axis its series belong
    to, which is the step axis for metrics: `losslog.Run.log_metrics` fills in the last step, so they came before the
    first. This asks nothing but the record, so that it stands at the same x however often it comes.

    Raises:
        TypeError, ValueError: a value is no number, or x not a whole one.
    """
    get = data.get
    axis = "epoch"
    if hook == "on_batch_losses":
        axis, losses = "step", get("losses")
        series = {} if losses is None else batch_series(losses, get("total"), get("lr"))
    elif hook == "on_epoch_end":
        series = epoch_series(get("losses"), get("total"), get("val_loss"), get("lr"), get("weights"))
    elif hook == "on_eval":
        series = eval_series(get("metrics") or {}, get("split") or "val")
    elif hook == "on_metrics":
        axis = "epoch" if get("step") is None and get("epoch") is not None else "step"
        series = {tag: as_float(value, f"metrics[{tag!r}]") for tag, value in (get("metrics") or {}).items()}
    else:
        return None
    return Points(series, axis, _whole(get(axis), axis))


def _whole(x: Any, axis: str) -> int:
    if type(x) is int or x is None:
        return x or 0
    if isinstance(x, bool) or int(x) != x:  # a backend would cut the fraction off, silently
        raise ValueError(f"{axis}={x!r}: pass a whole number")
    return int(x)
