from __future__ import annotations

import math
import random

from losslog.values.means import EpochMeans


def test_no_batches_no_means() -> None:
    assert EpochMeans().result() == (None, None)


def test_a_component_is_averaged_over_the_batches_that_had_it() -> None:
    means = EpochMeans()
    means.add({"a": 1.0, "b": 4.0}, 5.0, given=False)
    means.add({"a": 3.0}, 3.0, given=False)
    assert means.result() == ({"a": 2.0, "b": 4.0}, 6.0)


def test_scalars() -> None:
    means = EpochMeans()
    for value in (1.0, 2.0, 6.0):
        means.add(value, value, given=False)
    assert means.result() == (3.0, 3.0)


def test_a_total_that_was_given_is_averaged_itself() -> None:
    means = EpochMeans()
    means.add({"a": 1.0}, 10.0, given=True)
    means.add({"a": 1.0}, 20.0, given=True)
    assert means.result() == ({"a": 1.0}, 15.0)


def test_accumulated_batches_count_each_of_their_passes() -> None:
    means = EpochMeans()
    means.add({"a": 1.0}, 1.0, given=False, n=3)
    means.add({"a": 5.0}, 5.0, given=False)
    assert means.result() == ({"a": 2.0}, 2.0)


def test_where_both_kinds_mix_the_dict_counts() -> None:
    means = EpochMeans()
    means.add({"a": 1.0}, 1.0, given=False)
    assert not means.mixed
    means.add(9.0, 9.0, given=False)
    assert means.mixed
    assert means.result()[0] == {"a": 1.0}


def test_a_new_epoch_begins_empty() -> None:
    means = EpochMeans()
    means.add({"a": 1.0}, 1.0, given=True)
    means.reset()
    assert means.result() == (None, None)
    means.add(2.0, 2.0, given=False)
    assert means.result() == (2.0, 2.0)


def test_the_mean_is_that_of_a_hand_written_loop() -> None:
    values = [random.Random(4).random() for _ in range(20_000)]
    means, total = EpochMeans(), 0.0
    for value in values:
        means.add({"a": value}, value, given=False)
        total += value
    assert means.result() == ({"a": total / len(values)}, total / len(values))


def test_nan_is_not_hidden() -> None:
    means = EpochMeans()
    means.add({"a": math.nan}, math.nan, given=False)
    means.add({"a": 1.0}, 1.0, given=False)
    losses, total = means.result()
    assert isinstance(losses, dict)
    assert math.isnan(losses["a"])
    assert total is not None
    assert math.isnan(total)
