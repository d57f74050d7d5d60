"""Single samples by hand: reflection, area sums, augmentation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from tests.unit.store_factory import make_batches as batches
from tests.unit.store_factory import role
from xfavot.audio.mel import Standardiser
from xfavot.data.manifest import Store, StoreWriter
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


def test_short_clips_are_reflected(tmp_path: Path) -> None:
    mel = np.tile(np.arange(5, dtype=np.float32), (80, 1))
    with StoreWriter(tmp_path / "toy", corpus="toy", seed=0) as writer:
        fields = {"id": "a", "kind": "audio", "speaker": "toy/s1", "gender": "f", "split": "train"}
        writer.add(fields, waveform=np.zeros(1200, np.float32), log_mel=mel)
    source = batches(
        [Store.open(tmp_path / "toy")],
        mel_frames=12,
        standardiser=Standardiser(torch.zeros(80), torch.ones(80)),
    )
    x = role(source.batch(0), "source_audio").x
    expected = torch.tensor([0.0, 1, 2, 3, 4, 3, 2, 1, 0, 1, 2, 3])
    assert x.eq(expected).all()


def test_images_by_hand(tmp_path: Path) -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    image[0, 0] = [255, 1, 0]
    image[0, 1] = [255, 2, 0]
    image[1, 0] = [255, 4, 0]
    image[1, 1] = [255, 8, 255]
    with StoreWriter(tmp_path / "toy", corpus="toy", seed=0, image_size=4) as writer:
        fields = {"id": "a", "kind": "image", "gender": "f", "split": "train"}
        writer.add(fields, faces=image[None])
    store = Store.open(tmp_path / "toy")
    whole = role(batches([store], image_size=4).batch(0), "source_image").x[0]
    torch.testing.assert_close(
        whole, torch.from_numpy(image).permute(2, 0, 1) / 127.5 - 1.0, atol=1e-6, rtol=0.0
    )
    half = role(batches([store], image_size=2).batch(0), "source_image").x[0]
    expected = torch.tensor([1.0, 3.75 / 127.5 - 1.0, 63.75 / 127.5 - 1.0])
    torch.testing.assert_close(half[:, 0, 0], expected)
    assert half[:, 1:].eq(-1.0).all()
