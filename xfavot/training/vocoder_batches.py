"""Batches for training the vocoder: crops of waveforms with their mel-spectrogram and WORLD's F0.

A batch is a pure function of (seed, step).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from xfavot.audio.excitation import melody
from xfavot.audio.mel import MEL
from xfavot.data.items import PCM_SCALE
from xfavot.training import labels

CROP_FRAMES = 65  # 0.8 s
PITCH_SHIFT = 0.001  # standard deviation in natural-log F0, one draw a crop
PITCH_JITTER = 0.002  # the same, drawn every eighth frame
JITTER_FRAMES = 8
VOICING_FLIPS = 0.03  # share of the frames whose voicing is wrong
GAIN_DB = (-12.0, 6.0)
WIDE_BAND_HZ = 8_500.0  # a recording of 16 kHz has nothing above
NARROW_TOP_HZ = 7_600.0  # the mel-spectrogram ends here
SILENT_BAND = 2e-5  # RMS; rounding to 16 bits leaves 0.5e-5 there


class Batch(NamedTuple):
    """Crops for one step."""

    log_mel: Tensor  # (B, 80, T) log10
    f0: Tensor  # (B, T) Hz, 0 where unvoiced
    said_f0: Tensor  # the same with errors
    waveform: Tensor  # (B, (T - 1) * 300)
    top_hz: Tensor  # (B,) Hz, the end of the recording's band


def crops(clips: Sequence[labels.Clip], *, batch_size: int, seed: int, step: int) -> Batch:
    """Draw crops, every second of speech with the same probability.

    Args:
        clips: clips of at least :data:`CROP_FRAMES` frames.
        batch_size: crops.
        seed, step: of the draw.
    """
    generator = labels.generator_of(seed, step)
    starts = torch.tensor([clip.item.frame_count - CROP_FRAMES + 1 for clip in clips])
    ends = starts.cumsum(0)
    places = (torch.rand(batch_size, generator=generator) * ends[-1]).long()
    rows = torch.searchsorted(ends, places, right=True)
    mels, pitches, waves = [], [], []
    for row, place in zip(rows.tolist(), places.tolist(), strict=True):
        clip = clips[row]
        first = place - int(ends[row] - starts[row])
        frames = slice(clip.item.frame_start + first, clip.item.frame_start + first + CROP_FRAMES)
        sample = clip.item.sample_start + first * MEL.hop
        samples = slice(sample, sample + (CROP_FRAMES - 1) * MEL.hop)
        mels.append(torch.from_numpy(np.asarray(clip.store.mel[frames], np.float32)).T)
        pitches.append(torch.from_numpy(np.array(clip.store.f0[frames])))
        waves.append(torch.from_numpy(np.asarray(clip.store.audio[samples], np.float32)))
    wave = torch.stack(waves) / PCM_SCALE
    gain = torch.empty(batch_size, 1).uniform_(*GAIN_DB, generator=generator) / labels.DB_PER_LOG10
    mel = (torch.stack(mels) + gain[:, :, None]).clamp(min=labels.FLOOR_LOG10)
    f0 = torch.stack(pitches)
    said = with_errors(f0, generator)
    return Batch(mel, f0, said, wave * 10.0**gain, top_of_band(wave))


def with_errors(f0: Tensor, generator: torch.Generator) -> Tensor:
    """Shift and jitter F0 a little and get the voicing of some frames wrong.

    Args:
        f0: (B, T) Hz, 0 where unvoiced.
        generator: source of randomness.

    Returns:
        (B, T) Hz, 0 where said to be unvoiced.
    """
    batch, frames = f0.shape
    knots = torch.randn(batch, 1, frames // JITTER_FRAMES + 2, generator=generator)
    jitter = functional.interpolate(knots, size=frames, mode="linear")[:, 0]
    shift = torch.randn(batch, 1, generator=generator)
    pitch = melody(f0).pitch * (PITCH_JITTER * jitter + PITCH_SHIFT * shift).exp()
    flipped = torch.rand(batch, frames, generator=generator) < VOICING_FLIPS
    return pitch * ((f0 > 0) ^ flipped)


def top_of_band(waveform: Tensor) -> Tensor:
    """Tell how far the band of each recording (B, N) reaches: 12,000 or 7,600 Hz, (B,)."""
    spectrum = torch.fft.rfft(waveform)
    first = int(WIDE_BAND_HZ / MEL.sample_rate * waveform.shape[1])
    power = spectrum[:, first:].abs().square().sum(1) * 2 / waveform.shape[1] ** 2
    wide = power.sqrt() > SILENT_BAND
    return torch.where(wide, MEL.sample_rate / 2, NARROW_TOP_HZ)
