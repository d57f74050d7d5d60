"""Whatever people hand in, a face or a voice, brought into the form that the networks see.

A face goes through detection and CelebA-HQ's alignment unless it is said to be aligned; a voice is
read as mono at 24 kHz.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from xfavot.audio.io import load_waveform
from xfavot.audio.mel import MEL
from xfavot.errors import DataError
from xfavot.image.align import align_face, detect
from xfavot.image.io import load_image

ALIGNED_PIXELS = 128  # the size at which prepared stores hold faces
SMALLEST_FACE_PIXELS = 32
SHORTEST_SECONDS = 0.1


def read_face(face: Any, *, name: str, size: int, aligned: bool) -> NDArray[np.uint8]:
    """Read a face and bring it to the size of the model.

    Args:
        face: a file or its bytes, a PIL image, or pixels, as :func:`load_image` takes them.
        name: what the face is, for messages.
        size: pixels of a side of the result.
        aligned: the picture is already a square crop as in CelebA-HQ; no face is looked for.

    Returns:
        (size, size, 3) uint8.

    Raises:
        DataError: not an image, too small, not square although `aligned`, or no face in it.
    """
    pixels = load_image(face)
    height, width = pixels.shape[:2]
    shown = f"{name}: the image is {width}x{height} pixels"
    if min(height, width) < SMALLEST_FACE_PIXELS:
        raise DataError(f"{shown}; expected at least {SMALLEST_FACE_PIXELS} on each side")
    if aligned and height != width:
        raise DataError(
            f"{shown}, yet said to be aligned; expected a square crop as in CelebA-HQ; leave "
            "aligned=False to have the face found"
        )
    if not aligned:
        (landmarks,) = detect([pixels])
        if landmarks is None:
            raise DataError(
                f"{shown} and no face was found in it; expected one frontal face; crop closer to "
                "it, or pass aligned=True for an aligned crop"
            )
        pixels = align_face(pixels, landmarks, max(ALIGNED_PIXELS, size))
    return resize_face(pixels, size)


def resize_face(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Resize a square picture: by area where the factor is whole, as batches do, else smoothly.

    Args:
        pixels: (H, H, 3) uint8.
        size: pixels of a side of the result.

    Returns:
        (size, size, 3) uint8.
    """
    side = pixels.shape[0]
    if side == size:
        return pixels
    x = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None].float()  # (1, 3, H, H)
    if side % size == 0:
        x = functional.avg_pool2d(x, side // size)
    else:
        x = functional.interpolate(x, size=(size, size), mode="bilinear", antialias=True)
    x = x.round().clamp(0, 255).to(torch.uint8)
    return np.asarray(x[0].permute(1, 2, 0).contiguous().numpy())


def read_voice(voice: Any, *, name: str) -> NDArray[np.float32]:
    """Read speech as mono at 24 kHz.

    Args:
        voice: a sound or a film, its bytes, or samples (N,) at 24 kHz, as
            :func:`load_waveform` takes them.
        name: what the voice is, for messages.

    Returns:
        (N,) float32, N at least a tenth of a second.

    Raises:
        DataError: not a sound, shorter than 0.1 s, silent, not finite, or far too loud.
    """
    wave = load_waveform(voice)
    seconds = len(wave) / MEL.sample_rate
    if seconds < SHORTEST_SECONDS:
        raise DataError(
            f"{name}: the clip lasts {seconds:.3f} s; expected at least {SHORTEST_SECONDS} s"
        )
    return wave
