"""Single samples by hand: reflection, area sums, augmentation."""

from __future__ import annotations

import numpy as np
import torch

from xfavot.data.samples import block_sums, flip_and_crop, reflected


def test_reflection() -> None:
    assert reflected(3, 8).tolist() == [0, 1, 2, 1, 0, 1, 2, 1]
    assert reflected(1, 3).tolist() == [0, 0, 0]
    assert reflected(2, 4).tolist() == [0, 1, 0, 1]


def test_block_sums_by_hand() -> None:
    x = torch.arange(16, dtype=torch.uint8).reshape(1, 4, 4, 1)
    total, area = block_sums(x, factor=2)
    assert total[0, :, :, 0].tolist() == [[10, 18], [42, 50]]
    assert area == 4
    same, one = block_sums(x, factor=1)
    assert same is x
    assert one == 1


def test_augmentation_by_hand() -> None:
    ramp = torch.arange(32, dtype=torch.uint8).repeat(3, 32, 1).permute(1, 2, 0) * 8
    x = ramp.repeat(400, 1, 1, 1)
    flip_and_crop(x, np.random.default_rng(0))
    first, last = x[:, 16, 0, 0].int(), x[:, 16, -1, 0].int()
    untouched = x.eq(ramp).flatten(1).all(dim=1).float().mean()
    mirrored = x.eq(ramp.flip(1)).flatten(1).all(dim=1).float().mean()
    assert abs(float((first > last).float().mean()) - 0.5) < 0.1
    assert abs(float(untouched) - 0.25) < 0.09
    assert abs(float(mirrored) - 0.25) < 0.09
    span = (last - first).abs() / (31 * 8)  # the share of the width that is left
    assert float(span.min()) > (0.8 * 0.9) ** 0.5 - 0.05
