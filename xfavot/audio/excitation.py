"""What drives a source-filter vocoder: a train of pulses at F0, and the phase of its filter.

Lineage: Dirichlet's kernel as a band-limited pulse; minimum phase by the cepstrum (Oppenheim and
Schafer), as WORLD uses it (Morise et al. 2016).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from xfavot.audio.mel import MEL

PITCH_DEFAULT_HZ = 150.0  # of a clip without a voiced frame
PULSE_LEVEL_HZ = 1024.0  # pulses of amplitude f0 / this have a mel-spectrogram of about 1
HIGHEST_PARTIAL_HZ = 11_800.0
LIFTER = 72  # samples (3 ms) of the cepstrum that count for the phase, fading
TINY_SINE = 1e-7


class Melody(NamedTuple):
    """A pitch without gaps, and where it is heard."""

    pitch: Tensor  # (B, T) Hz, positive
    voiced: Tensor  # (B, T) bool


def melody(f0: Tensor) -> Melody:
    """Fill the unvoiced frames: logarithmic interpolation inside, held at both ends.

    Args:
        f0: (B, T) Hz, 0 where unvoiced.

    Returns:
        Pitch, :data:`PITCH_DEFAULT_HZ` for a clip without a voiced frame, and voicing.
    """
    frames = f0.shape[1]
    place = torch.arange(frames, device=f0.device).expand_as(f0)
    voiced = f0 > 0
    before = torch.where(voiced, place, -1).cummax(1).values
    after = torch.where(voiced, place, frames).flip(1).cummin(1).values.flip(1)
    before, after = (
        torch.where(before < 0, after, before).clamp(max=frames - 1),
        torch.where(after == frames, before, after).clamp(min=0),
    )
    log = torch.where(voiced, f0, PITCH_DEFAULT_HZ).log2()
    share = (place - before) / (after - before).clamp(min=1)
    return Melody(torch.lerp(log.gather(1, before), log.gather(1, after), share).exp2(), voiced)


def cycles_at_frames(pitch: Tensor) -> Tensor:
    """Count the periods from the first frame to every frame.

    Args:
        pitch: (B, T) Hz, positive; linear between frames, 300 samples apart.

    Returns:
        (B, T) float64; what a sum over samples gives, so that a long clip can be made in pieces.
    """
    pitch = pitch.double()
    last, here = pitch[:, :-1], pitch[:, 1:]
    steps = (MEL.hop * last + (here - last) * (MEL.hop + 1) / 2) / MEL.sample_rate
    return functional.pad(steps.cumsum(1), (1, 0))


def pulses(pitch: Tensor, first_cycle: Tensor) -> Tensor:
    """Sum all cosine partials of a pitch below :data:`HIGHEST_PARTIAL_HZ`.

    The sum is Dirichlet's kernel in closed form; its last partial fades in and out, so that nothing
    clicks when the number of partials changes. The phase is added up in float64.

    Args:
        pitch: (B, T) Hz, positive.
        first_cycle: (B,) phase of the first frame, in cycles.

    Returns:
        (B, (T - 1) * 300 + 1) float32, from the first frame to the last, of a flat spectrum; a
        partial has amplitude pitch / 1024.
    """
    dense = functional.interpolate(
        pitch.double().unsqueeze(1),
        size=(pitch.shape[1] - 1) * MEL.hop + 1,
        mode="linear",
        align_corners=True,
    )[:, 0]  # (B, N)
    turned = functional.pad((dense[:, 1:] / MEL.sample_rate).cumsum(1), (1, 0))
    cycles = first_cycle.double().unsqueeze(1) + turned
    phase = 2 * math.pi * (cycles - cycles.round())  # [-pi, pi]
    count = HIGHEST_PARTIAL_HZ / dense
    whole = count.floor()
    sine = (phase / 2).sin()
    peak = sine.abs() < TINY_SINE
    kernel = ((whole + 0.5) * phase).sin() / (2 * torch.where(peak, 1.0, sine)) - 0.5
    kernel = torch.where(peak, whole, kernel) + (count - whole) * ((whole + 1) * phase).cos()
    return (kernel * dense / PULSE_LEVEL_HZ).float()


def minimum_phase(log_magnitude: Tensor) -> Tensor:
    """Return the phase that goes with a smoothed magnitude in a causal filter of least delay.

    The mel-spectrogram shows the partials of high voices; were they not smoothed away, the phase at
    a partial would turn with every frame, and the pitch would tremble.

    Args:
        log_magnitude: (..., K) natural logarithm at the bins of a transform of 2 (K - 1) samples.

    Returns:
        (..., K) radians.
    """
    size = 2 * (log_magnitude.shape[-1] - 1)
    cepstrum = torch.fft.irfft(log_magnitude, n=size)
    fade = torch.hann_window(2 * LIFTER, device=cepstrum.device)[LIFTER + 1 :]
    causal = functional.pad(2 * fade * cepstrum[..., 1:LIFTER], (1, size - LIFTER))
    phase: Tensor = torch.fft.rfft(causal).imag
    return phase
