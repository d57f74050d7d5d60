"""What a batch holds, and the changes made to single samples: augmentation, short clips."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

FLIP_PROBABILITY = 0.5
CROP_PROBABILITY = 0.5
CROP_AREA = (0.8, 1.0)  # share of the face's area
CROP_LOG_RATIO = (math.log(0.9), math.log(1.1))  # width over height


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """One role of a batch.

    Args:
        x: images (B, 3, H, W) in [-1, 1], or standardised mels (B, 1, 80, T); float32.
        gender: (B,) int64, 0 = f, 1 = m.
        speaker: (B,) int64, position in ``Batches.speakers``, -1 if it is not there.
        row: (B,) int64, position in ``Batches.items``.
    """

    x: Tensor
    gender: Tensor
    speaker: Tensor
    row: Tensor

    def to(self, device: torch.device | str) -> Samples:
        """The same samples on a device."""
        values = [getattr(self, f.name) for f in fields(self)]
        return Samples(*(value.to(device, non_blocking=True) for value in values))


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """All roles of one step; ``None`` where the stores have no faces, or no voices, at all.

    Row i of the four references has one gender, the target gender of row i; the references "2" are
    other clips of that gender, of any speaker. ``paired`` (B,) bool: the first face and the first
    voice of the row are one speaker of an audio-visual corpus.
    """

    source_image: Samples | None
    source_audio: Samples | None
    ref_image: Samples | None
    ref_audio: Samples | None
    ref2_image: Samples | None
    ref2_audio: Samples | None
    paired: Tensor

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on a device."""
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        moved: dict[str, Any] = {k: v if v is None else v.to(device) for k, v in values.items()}
        return Batch(**moved)

    def roles(self) -> dict[str, Samples]:
        """The roles that are filled, by name."""
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        return {k: v for k, v in values.items() if isinstance(v, Samples)}


def reflected(count: int, length: int) -> NDArray[np.int64]:
    """(length,) frame numbers that walk forth and back over a clip of ``count`` frames.

    The ends are not repeated: 3 frames give 0 1 2 1 0 1 2 ...
    """
    period = max(2 * (count - 1), 1)
    place = np.arange(length, dtype=np.int64) % period
    return np.minimum(place, period - place) if count > 1 else np.zeros(length, np.int64)


def block_sums(x: Tensor, *, factor: int) -> tuple[Tensor, int]:
    """Sums over square blocks of pixels; divided by the second value they are the area average.

    Args:
        x: (B, H, W, C) uint8, H and W multiples of ``factor``.
        factor: pixels a side of a block.

    Returns:
        (B, H / factor, W / factor, C) of integers, exact, and the pixels of a block.
    """
    if factor == 1:
        return x, 1
    places = [(i, j) for i in range(factor) for j in range(factor)]
    total = x[:, ::factor, ::factor].to(torch.int32)
    for i, j in places[1:]:
        total += x[:, i::factor, j::factor]
    return total, factor**2


def flip_and_crop(x: Tensor, rng: np.random.Generator) -> None:
    """Random horizontal flip and random resized crop of each image, in place.

    Lineage: StarGAN v2's training transform (crop of 0.8 to 1 of the area, ratio 0.9 to 1.1, in
    half of the images), resampled bilinearly.

    Args:
        x: (B, H, W, 3) uint8, changed.
        rng: the generator of the step.
    """
    count, height, width = x.shape[:3]
    flipped = np.flatnonzero(rng.random(count) < FLIP_PROBABILITY)
    x[flipped] = x[flipped].flip(2)
    cropped = np.flatnonzero(rng.random(count) < CROP_PROBABILITY)
    area = rng.uniform(*CROP_AREA, count)
    ratio = np.exp(rng.uniform(*CROP_LOG_RATIO, count))
    across, down = rng.random((2, count))
    for n in cropped.tolist():
        w = min(round(width * math.sqrt(area[n] * ratio[n])), width)
        h = min(round(height * math.sqrt(area[n] / ratio[n])), height)
        left, top = round(across[n] * (width - w)), round(down[n] * (height - h))
        part = x[n, top : top + h, left : left + w].permute(2, 0, 1)[None]  # (1, 3, h, w)
        resized = functional.interpolate(
            part, size=(height, width), mode="bilinear", align_corners=False
        )
        x[n] = resized[0].permute(1, 2, 0)
