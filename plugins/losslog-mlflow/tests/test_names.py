from __future__ import annotations

import pytest
from losslog_mlflow.names import LONGEST, clean, flatten
from mlflow.utils.validation import _validate_metric_name

OURS = ["loss/train_total", "loss/val", "mAP/bbox_AP50", "mAP_class/segm_cat", "lr", "lr_group/0", "batch/lr"]
ODD = ["loss@x", "a\\b", "f(x)", "50%", "a//b", "/x", "x/", "..", ".", "a/../b", "a/./b", "", "x" * 300, "a\nb", "é/ü?"]


@pytest.mark.parametrize("name", [*OURS, "épsilon", "a b", "a:b", "x" * LONGEST])
def test_a_name_that_mlflow_takes_is_kept(name: str) -> None:
    assert clean(name) == name


@pytest.mark.parametrize("name", ODD)
def test_any_other_becomes_one_that_mlflow_takes(name: str) -> None:
    assert len(clean(name)) <= LONGEST
    _validate_metric_name(clean(name))


def test_two_names_never_fall_together() -> None:
    assert len({clean(name) for name in [*ODD, "loss_x", "loss#x"]}) == len(ODD) + 2


def test_a_cleaned_name_is_still_readable() -> None:
    assert clean("loss/train_head@2").startswith("loss/train_head_2.")


def test_nested_config_is_flattened() -> None:
    assert dict(flatten({"a": 1, "m": {"b": {"c": 2}}, "e": {}})) == {"a": 1, "m.b.c": 2, "e": {}}
