"""Single samples by hand: reflection, area sums, augmentation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from tests.unit.store_factory import make_batches as batches
from tests.unit.store_factory import role, write_store
from xfavot.audio.mel import Standardiser
from xfavot.data.batches import Change, draw_changes, planes, reflected


def test_reflection() -> None:
    assert reflected(3, 8).tolist() == [0, 1, 2, 1, 0, 1, 2, 1]
    assert reflected(1, 3).tolist() == [0, 0, 0]
    assert reflected(2, 4).tolist() == [0, 1, 0, 1]


def test_changes_are_drawn_as_documented() -> None:
    count, size = 4000, 128
    changes = draw_changes(np.random.default_rng(0), count, size)
    mirrored = np.array([flip for flip, _ in changes])
    top, left, height, width = np.array([box for _, box in changes]).T
    cropped = (height < size) | (width < size)
    four = 4 * 0.5 / count**0.5  # four deviations of a share
    assert abs(mirrored.mean() - 0.5) < four
    assert abs(cropped.mean() - 0.5) < four
    assert abs((mirrored & cropped).mean() - 0.25) < four
    assert min(top.min(), left.min()) == 0
    assert max((top + height).max(), (left + width).max()) == size
    area = (height * width / size**2)[cropped]
    assert area.min() > 0.8 - 2 / size  # whole pixels
    assert abs(area.mean() - 0.895) < 0.01  # below 0.9: a side is never longer than the face
    ratio = (width / height)[cropped]
    assert ratio.min() > 0.9 - 2 / size
    assert ratio.max() < 1.1 + 2 / size
    assert abs(np.log(ratio).mean()) < 4 * 0.06 / (count / 2) ** 0.5
    room = cropped & (size - width > 4)
    assert abs((left / (size - width).clip(1))[room].mean() - 0.5) < 0.05


def changed(face: np.ndarray, change: Change | None) -> np.ndarray:
    out = np.zeros((3, *face.shape[:2]), np.uint8)
    planes(face, change, out)
    return out


def test_changed_faces_by_hand() -> None:
    face = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    face = face.repeat(4, 0).repeat(4, 1)
    whole = (0, 0, 32, 32)
    upright = face.transpose(2, 0, 1)
    assert np.array_equal(changed(face, None), upright)
    assert np.array_equal(changed(face, (False, whole)), upright)
    assert np.array_equal(changed(face, (True, whole)), upright[:, :, ::-1])
    for box in ((3, 1, 28, 31), (0, 4, 32, 28), (2, 0, 29, 32)):
        top, left, height, width = box
        part = torch.from_numpy(upright[:, top : top + height, left : left + width].copy())
        exact = functional.interpolate(part[None].float(), size=(32, 32), mode="bilinear")[0]
        for mirrored in (False, True):
            got = torch.from_numpy(changed(face, (mirrored, box))).float()
            assert float((got - (exact.flip(2) if mirrored else exact)).abs().max()) <= 1.0
    assert float((got - torch.from_numpy(upright.copy()).float()).abs().max()) > 20.0


def test_short_clips_are_reflected(tmp_path: Path) -> None:
    mel = np.tile(np.arange(5, dtype=np.float32), (80, 1))
    clip = {"id": "a", "kind": "audio", "speaker": "toy/s1", "gender": "f", "split": "train"}
    store = write_store(tmp_path / "toy", [clip | {"waveform": np.zeros(1200), "mel": mel}])
    source = batches(
        [store], mel_frames=12, standardiser=Standardiser(torch.zeros(80), torch.ones(80))
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
    clip = {"id": "a", "kind": "image", "gender": "f", "split": "train", "faces": image[None]}
    store = write_store(tmp_path / "toy", [clip], image_size=4)
    whole = role(batches([store], image_size=4).batch(0), "source_image").to("cpu").x[0]
    torch.testing.assert_close(
        whole, torch.from_numpy(image).permute(2, 0, 1) / 127.5 - 1.0, atol=1e-6, rtol=0.0
    )
    half = role(batches([store], image_size=2).batch(0), "source_image").to("cpu").x[0]
    expected = torch.tensor([255, 4, 64]) / 127.5 - 1.0  # averages 255, 3.75 and 63.75, in bytes
    torch.testing.assert_close(half[:, 0, 0], expected)
    assert half[:, 1:].eq(-1.0).all()
