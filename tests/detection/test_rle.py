"""Run lengths read with numpy alone are pycocotools' own, and garbled ones cost an error, nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pycocotools import mask as mask_api

from losslog.detection.rle import decode, sampled


def mask_of(random: Any) -> Any:
    height, width = random.integers(1, 90, 2).tolist()
    mask = np.zeros((height, width), np.uint8)
    for _ in range(int(random.integers(0, 4))):
        top, left = int(random.integers(0, height)), int(random.integers(0, width))
        mask[top : top + int(random.integers(1, 40)), left : left + int(random.integers(1, 40))] = 1
    return mask if random.random() < 0.7 else (random.random((height, width)) < 0.5).astype(np.uint8)


@pytest.mark.parametrize("seed", range(40))
def test_masks_come_back_to_the_pixel(seed: int) -> None:
    random = np.random.default_rng(seed)
    mask = mask_of(random)
    rle = mask_api.encode(np.asfortranarray(mask))
    for counts in (rle["counts"], rle["counts"].decode()):
        assert np.array_equal(decode({"size": rle["size"], "counts": counts}), mask.astype(bool))
    rows = np.sort(random.choice(mask.shape[0], random.integers(1, mask.shape[0] + 1), replace=False))
    columns = np.sort(random.choice(mask.shape[1], random.integers(1, mask.shape[1] + 1), replace=False))
    down, across, part = sampled(rle, rows, columns)
    whole = np.zeros((len(rows), len(columns)), bool)
    whole[down, across] = part
    assert np.array_equal(whole, mask[np.ix_(rows, columns)].astype(bool))


@pytest.mark.parametrize("counts", ["", "P", "1", "ooooooooooo1", "a b", "é0", "NaN", "0" * 5000, "52203203"])
def test_garbled_counts_are_an_error_and_no_more(counts: str) -> None:
    rle = {"size": [1 << 20, 1 << 20], "counts": counts}
    with pytest.raises(ValueError, match="run lengths"):
        sampled(rle, np.arange(4), np.arange(4))
    with pytest.raises(ValueError, match=r"run lengths|not made whole"):
        decode(rle)
