"""Faces and voices decoded from files for every batch, as the ancestors' data loaders do.

A yardstick for the prepared store; nothing else reads data this way. Lineage: StarGAN v2 decodes a
picture with Pillow, crops it at random, resizes it; StarGANv2-VC reads a whole recording, computes
its spectrogram (float32) and cuts a piece out. Pillow and soundfile come with the extra ``data``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xfavot.audio.io import save_waveform
from xfavot.audio.mel import MEL, Standardiser, mel_filterbank
from xfavot.data.samples import draw_changes, reflected
from xfavot.errors import DataError

try:
    import soundfile
    from PIL import Image
except ImportError as error:
    raise DataError(
        "comparing with files needs Pillow and soundfile, which are not installed; "
        'run: pip install "xfavot[data]"'
    ) from error

QUALITY = 95  # of the JPEG files


def write_faces(faces: Sequence[NDArray[np.uint8]], folder: Path, *, pixels: int) -> list[Path]:
    """Write faces as JPEG files.

    Args:
        faces: (H, W, 3) each.
        folder: made if it is not there.
        pixels: a side of the files; other faces are resampled, and then compress better than a
            photograph of that size would.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{number}.jpg" for number in range(len(faces))]
    for file, face in zip(files, faces, strict=True):
        image = Image.fromarray(face)
        if image.width != pixels:
            image = image.resize((pixels, pixels), Image.Resampling.BICUBIC)
        image.save(file, quality=QUALITY)
    return files


def write_voices(voices: Sequence[NDArray[np.float32]], folder: Path) -> list[Path]:
    """Write (N,) recordings at 24 kHz as 16-bit WAV files; returns them."""
    files = [folder / f"{number}.wav" for number in range(len(voices))]
    for file, voice in zip(files, voices, strict=True):
        save_waveform(file, voice)
    return files


def load_faces(
    files: Sequence[Path], *, size: int, rng: np.random.Generator | None = None
) -> Tensor:
    """Decode, resize and scale pictures.

    Args:
        files: square pictures of one size.
        size: pixels a side of the result.
        rng: flips and crops half of them at random where given, as the prepared store's batches do.

    Returns:
        (n, 3, size, size) float32 in [-1, 1].
    """
    with Image.open(files[0]) as first:
        side = first.width
    changes = [None] * len(files) if rng is None else draw_changes(rng, len(files), side)
    x = []
    for file, change in zip(files, changes, strict=True):
        with Image.open(file) as opened:
            image = opened.convert("RGB")
        if change is not None:
            mirrored, (top, left, height, width) = change
            image = image.crop((left, top, left + width, top + height))
            if mirrored:
                image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        image = image.resize((size, size), Image.Resampling.BILINEAR)
        x.append(torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float())
    return torch.stack(x).div_(127.5).sub_(1.0)


def load_voices(
    files: Sequence[Path], *, frames: int, standardiser: Standardiser, rng: np.random.Generator
) -> Tensor:
    """Read recordings whole, compute their log mels and cut a piece out of each.

    Args:
        files: mono WAV files at 24 kHz.
        frames: length of the pieces; shorter clips are continued by reflection.
        standardiser: statistics of the bands.
        rng: chooses the pieces.

    Returns:
        (n, 1, 80, frames) float32, standardised.
    """
    x = []
    for file in files:
        wave, _ = soundfile.read(file, dtype="float32")
        mel = _log_mel(torch.from_numpy(wave))  # (80, T)
        if mel.shape[1] < frames:
            mel = mel[:, torch.from_numpy(reflected(mel.shape[1], frames))]
        first = int(rng.integers(mel.shape[1] - frames + 1))
        x.append(standardiser.standardise(mel[:, first : first + frames]))
    return torch.stack(x).unsqueeze(1)


@lru_cache(maxsize=1)
def _filters() -> tuple[Tensor, Tensor]:
    return mel_filterbank(), torch.hann_window(MEL.win)


def _log_mel(wave: Tensor) -> Tensor:
    """(80, T) of (N,), in float32 as the ancestors compute it."""
    filters, window = _filters()
    spectrum = torch.stft(
        wave, MEL.n_fft, MEL.hop, MEL.win, window, center=True, return_complex=True
    ).abs()  # (F, T)
    return (filters @ spectrum).clamp_(min=MEL.floor).log10_()
