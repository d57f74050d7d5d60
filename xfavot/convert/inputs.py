"""Whatever people hand in, a face or a voice, brought into the form that the networks see.

A face goes through detection and CelebA-HQ's alignment unless it is said to be aligned; a voice is
read as mono at 24 kHz.
"""

from __future__ import annotations

from os import PathLike, fspath
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from xfavot.audio.io import SILENT_PEAK, load_waveform
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
        face: a path, a PIL image, or uint8 pixels (H, W), (H, W, 3) or (H, W, 4).
        name: what the face is, for messages.
        size: pixels of a side of the result.
        aligned: the picture is already a square crop as in CelebA-HQ; no face is looked for.

    Returns:
        (size, size, 3) uint8.

    Raises:
        DataError: not an image, too small, not square although `aligned`, or no face in it.
    """
    pixels = _pixels(face, name)
    height, width = pixels.shape[:2]
    if min(height, width) < SMALLEST_FACE_PIXELS:
        raise DataError(
            f"{name}: the image is {width}x{height} pixels; expected at least "
            f"{SMALLEST_FACE_PIXELS} on each side; give a larger picture"
        )
    if aligned:
        if height != width:
            raise DataError(
                f"{name}: the image is {width}x{height} pixels, yet said to be aligned; expected a "
                "square crop as in CelebA-HQ; leave aligned=False to have the face found"
            )
        return resize_face(pixels, size)
    landmarks = detect([pixels])[0]
    if landmarks is None or not np.isfinite(landmarks).all():
        raise DataError(
            f"{name}: no face was found in the image of {width}x{height} pixels; expected one "
            "frontal face; crop closer to it, or pass aligned=True for an aligned crop"
        )
    return resize_face(align_face(pixels, landmarks, max(ALIGNED_PIXELS, size)), size)


def _pixels(face: Any, name: str) -> NDArray[np.uint8]:
    """Return (H, W, 3) uint8 of a path, a PIL image or an array."""
    if isinstance(face, str | PathLike):
        return load_image(fspath(face))
    if hasattr(face, "convert") and hasattr(face, "getbands"):  # a PIL image
        return np.asarray(face.convert("RGB"), dtype=np.uint8)
    pixels = np.asarray(face)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (3, 4):
        raise DataError(
            f"{name}: got {type(face).__name__} of type {pixels.dtype} and shape {pixels.shape}; "
            "expected a path, a PIL image, or uint8 pixels of shape (H, W, 3)"
        )
    return np.ascontiguousarray(pixels[:, :, :3])


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
        voice: a path of a sound or video file, or samples (N,) at 24 kHz, floats in [-1, 1] or
            whole numbers.
        name: what the voice is, for messages.

    Returns:
        (N,) float32, N at least a tenth of a second.

    Raises:
        DataError: not a sound, shorter than 0.1 s, silent, or not finite.
    """
    wave = np.asarray(load_waveform(fspath(voice)) if isinstance(voice, str | PathLike) else voice)
    if wave.ndim != 1 or wave.dtype.kind not in "fi":
        raise DataError(
            f"{name}: got {type(voice).__name__} of type {wave.dtype} and shape {wave.shape}; "
            f"expected a path, or mono samples (N,) at {MEL.sample_rate} Hz"
        )
    if wave.dtype.kind == "i":
        wave = wave / float(np.iinfo(wave.dtype).max)
    wave = np.ascontiguousarray(wave, dtype=np.float32)
    seconds = len(wave) / MEL.sample_rate
    if seconds < SHORTEST_SECONDS:
        raise DataError(
            f"{name}: the clip lasts {seconds:.3f} s; expected at least {SHORTEST_SECONDS} s of "
            "speech; give a longer one"
        )
    peak = float(np.abs(wave).max())
    if not np.isfinite(peak) or peak < SILENT_PEAK:
        raise DataError(
            f"{name}: the largest sample is {peak}; expected speech with finite samples and a peak "
            f"above {SILENT_PEAK}; the clip is silent or damaged"
        )
    return wave
