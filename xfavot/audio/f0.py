"""Fundamental frequency of a voice, frame by frame with the mel-spectrogram.

Paper: Sec. 3.3 uses a pretrained F0 network; its labels come from here. Lineage: WORLD (Morise et
al. 2016), Harvest refined by StoneMask, at 12.5 ms, as StarGANv2-VC's F0 network was trained.
Frame i lies at sample 300 i, the middle of frame i of a centred mel-spectrogram.

Harvest takes most of the time of a preparation. It works at 8 kHz inside, so that a signal of a
lower rate costs the same; its memory grows with the length (7 MiB a second of sound at 90 s), so
that a long clip is analysed in blocks that overlap.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xfavot.audio.mel import MEL, pieces
from xfavot.errors import ShapeError, import_optional

LOWEST_HZ = 60.0
HIGHEST_HZ = 600.0
WHOLE_FRAMES = 1600  # 20 s: up to here a clip is analysed as a whole
BLOCK_FRAMES = 1240  # 15.5 s: with two overlaps it fits Harvest's FFT of 2^17 samples at 8 kHz
OVERLAP_FRAMES = 32  # 0.4 s

Wave = NDArray[np.float64]


def world_f0(waveform: NDArray[np.float32]) -> NDArray[np.float32]:
    """Estimate F0 with WORLD.

    Args:
        waveform: (N,) in [-1, 1], mono, 24 kHz.

    Returns:
        (N // 300 + 1,) float32, Hz, 0 where unvoiced.

    Raises:
        ShapeError: the waveform is not of one axis.
        DataError: pyworld is not installed.
    """
    if waveform.ndim != 1:
        raise ShapeError(f"waveform: got shape {waveform.shape}; expected (N,), mono; average it")
    signal = np.ascontiguousarray(waveform, dtype=np.float64)
    frames = len(signal) // MEL.hop + 1
    f0 = np.zeros(frames, dtype=np.float32)
    size = frames if frames <= WHOLE_FRAMES else -(-frames // -(-frames // BLOCK_FRAMES))
    size += size % 2  # whole milliseconds: Harvest's own frames stay where they are
    for start, end, first, last in pieces(frames, size, OVERLAP_FRAMES):
        piece = _block(signal[first * MEL.hop : last * MEL.hop], last - first)
        f0[start:end] = piece[start - first : end - first]
    return f0


def _block(signal: Wave, frames: int) -> NDArray[np.float32]:
    """(frames,) F0 of a piece of a signal."""
    pyworld = import_optional("pyworld", extra="data", purpose="F0")
    coarse, times = pyworld.harvest(
        signal,
        MEL.sample_rate,
        f0_floor=LOWEST_HZ,
        f0_ceil=HIGHEST_HZ,
        frame_period=1000.0 * MEL.hop / MEL.sample_rate,  # ms
    )
    fine = pyworld.stonemask(signal, coarse, times, MEL.sample_rate)
    return np.pad(fine.astype(np.float32), (0, max(frames - len(fine), 0)))[:frames]
