"""Fundamental frequency of a voice, frame by frame with the mel-spectrogram.

Paper: Sec. 3.3 uses a pretrained F0 network; its labels come from here. Lineage: WORLD (Morise et
al. 2016), Harvest refined by StoneMask, at 12.5 ms, as StarGANv2-VC's F0 network was trained.
Frame i lies at sample 300 i, the middle of frame i of a centred mel-spectrogram.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xfavot.audio.mel import MEL
from xfavot.errors import DataError, ShapeError

LOWEST_HZ = 60.0
HIGHEST_HZ = 600.0


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
    try:
        import pyworld
    except ImportError as error:
        raise DataError(
            'F0 needs pyworld, which is not installed; run: pip install "xfavot[data]"'
        ) from error
    signal = np.ascontiguousarray(waveform, dtype=np.float64)
    period = 1000.0 * MEL.hop / MEL.sample_rate  # ms
    coarse, times = pyworld.harvest(
        signal,
        MEL.sample_rate,
        f0_floor=LOWEST_HZ,
        f0_ceil=HIGHEST_HZ,
        frame_period=period,
    )
    fine = pyworld.stonemask(signal, coarse, times, MEL.sample_rate)
    frames = len(signal) // MEL.hop + 1
    f0 = np.zeros(frames, dtype=np.float32)
    count = min(frames, len(fine))
    f0[:count] = fine[:count]
    return f0
