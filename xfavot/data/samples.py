"""What a batch holds, and the changes made to single samples: augmentation, short clips."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

FLIP_PROBABILITY = 0.5
CROP_PROBABILITY = 0.5
CROP_AREA = (0.8, 1.0)  # share of the face's area
CROP_LOG_RATIO = (math.log(0.9), math.log(1.1))  # width over height


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """One role of a batch.

    Args:
        x: images (B, 3, H, W) in [-1, 1], or standardised mels (B, 1, 80, T); float32. Images are
            uint8 until :meth:`to`, so that a quarter of the bytes travels.
        gender: (B,) int64, 0 = f, 1 = m.
        speaker: (B,) int64, position in ``Batches.speakers``, -1 if it is not there.
        row: (B,) int64, position in ``Batches.items``.
    """

    x: Tensor
    gender: Tensor
    speaker: Tensor
    row: Tensor

    def to(self, device: torch.device | str) -> Samples:
        """The same samples on a device, as float32."""
        values = [getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)]
        if values[0].dtype == torch.uint8:
            values[0] = to_range(values[0])
        return Samples(*values)


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


def to_range(pixels: Tensor) -> Tensor:
    """Turn pixels, 0 to 255, into float32 from -1 to 1."""
    return pixels.float().mul_(1.0 / 127.5).sub_(1.0)


Change = tuple[bool, tuple[int, int, int, int]]  # mirrored; top, left, height, width kept


def draw_changes(rng: np.random.Generator, count: int, size: int) -> list[Change]:
    """Draw a horizontal flip and a resized crop for each of some square faces.

    Lineage: StarGAN v2's training transform: half of the faces are mirrored, and half of them keep
    only 0.8 to 1 of their area, of ratio 0.9 to 1.1.

    Args:
        rng: the generator of the step.
        count: faces.
        size: pixels a side.
    """
    mirrored = rng.random(count) < FLIP_PROBABILITY
    whole = rng.random(count) >= CROP_PROBABILITY
    area = rng.uniform(*CROP_AREA, count)
    ratio = np.exp(rng.uniform(*CROP_LOG_RATIO, count))
    sides = np.sqrt(np.stack([area / ratio, area * ratio]))  # height, width
    kept = np.where(whole, size, np.minimum(np.rint(size * sides), size))
    corner = np.rint(rng.random((2, count))[::-1] * (size - kept))  # top, left
    boxes = np.concatenate([corner, kept]).astype(np.int64).T.tolist()
    return [(flip, tuple(box)) for flip, box in zip(mirrored.tolist(), boxes, strict=True)]


def planes(face: NDArray[np.uint8], change: Change | None, out: NDArray[np.uint8]) -> None:
    """Write a face as three planes of colour, changed as drawn and made smaller by area averages.

    Args:
        face: (H, H, 3).
        change: of :func:`draw_changes`; crops are brought back to the size bilinearly.
        out: (3, S, S), filled; S divides H.
    """
    if change is not None:
        mirrored, (top, left, height, width) = change
        if (height, width) != face.shape[:2]:
            part = face[top : top + height, left : left + width]
            face = np.asarray(cv2.resize(part, face.shape[1::-1]), np.uint8)  # bilinear
        if mirrored:
            face = np.asarray(cv2.flip(face, 1), np.uint8)
    if len(face) != out.shape[1]:
        small = cv2.resize(face, out.shape[1:], interpolation=cv2.INTER_AREA)
        face = np.asarray(small, np.uint8)
    cv2.split(face, list(out))  # three times as fast as NumPy's transposed copy
