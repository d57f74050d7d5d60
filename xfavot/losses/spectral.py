"""How far two waveforms are apart to the ear, and a score that averaging cannot cheat.

The distance compares magnitudes at several resolutions and the package's mel-spectrogram. Taken
alone it makes a vocoder average over what it cannot know (the noise, the phase of the pulses),
which sounds dull or buzzes. The energy score draws two outputs for one input and credits them with
their distance from each other, so that the right distribution scores best.

Lineage: multi-resolution spectral distance (Yamamoto et al. 2020); generalised energy distance
(Gritsenko et al. 2020).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from xfavot.audio.mel import MEL, mel_filterbank
from xfavot.errors import require_same_shape

RESOLUTIONS = (  # samples: transform, window (Hann), hop
    (MEL.n_fft, 2048, 512),
    (MEL.n_fft, MEL.win, MEL.hop),  # the mel contract's
    (512, 512, 128),
    (256, 240, 60),
)
MEL_RESOLUTION = 1  # which of them makes the mel-spectrogram
FLOOR = 1e-4  # under the logarithm: white noise of this standard deviation (-80 dB)
LINEAR_WEIGHT = 1.0  # on the linear magnitudes beside the logarithmic
MEL_WEIGHT = 4.0  # on the log10 mel beside the magnitudes


@dataclass(frozen=True, slots=True, eq=False)
class Views:
    """A batch of waveforms as the distance sees it.

    Attributes:
        magnitudes: (B, F, T) for each of :data:`RESOLUTIONS`; white noise has those of its
            standard deviation.
        log_mel: (B, 80, T) log10.
    """

    magnitudes: tuple[Tensor, ...]
    log_mel: Tensor


def views(waveform: Tensor) -> Views:
    """Transform (B, N) samples at 24 kHz, N of at least 1025, for :func:`distance`."""
    found = []
    for transform, length, hop in RESOLUTIONS:
        window = _window(length, waveform.device)
        spectrum = torch.stft(waveform, transform, hop, length, window, return_complex=True)
        power = spectrum.real.square() + spectrum.imag.square()
        found.append((power + (0.1 * FLOOR) ** 2).sqrt())
    bank = _bank(waveform.device)
    mel = (bank @ found[MEL_RESOLUTION] + MEL.floor).log10()  # (B, 80, T)
    return Views(tuple(found), mel)


def distance(a: Views, b: Views, top_hz: Tensor) -> Tensor:
    """Compare two batches of waveforms.

    Args:
        a, b: the waveforms' views.
        top_hz: (B,) Hz; magnitudes above are not compared.

    Returns:
        (B,): mean absolute difference of the natural logarithms of the magnitudes, that of the
        magnitudes relative to their mean (both averaged over the resolutions), and that of the
        log10 mels, weighted.

    Raises:
        ShapeError: the shapes differ.
    """
    require_same_shape("log mels", a.log_mel, b.log_mel)
    total = a.log_mel.new_zeros(a.log_mel.shape[0])
    for x, y in zip(a.magnitudes, b.magnitudes, strict=True):
        bins = x.shape[1]
        hz = torch.linspace(0.0, MEL.sample_rate / 2, bins, device=x.device)
        share = (hz <= top_hz[:, None]).to(x.dtype)
        share = share / share.sum(1, keepdim=True)  # (B, F), sums to one
        log = ((x + FLOOR).log() - (y + FLOOR).log()).abs().mean(2)  # (B, F)
        linear = (x - y).abs().mean(2)
        level = (share * (x + y).mean(2)).sum(1, keepdim=True).detach() / 2 + FLOOR
        total = total + (share * (log + LINEAR_WEIGHT * linear / level)).sum(1)
    mel = (a.log_mel - b.log_mel).abs().mean((1, 2))
    return total / len(RESOLUTIONS) + MEL_WEIGHT * mel


def energy_score(first: Tensor, second: Tensor, truth: Tensor, top_hz: Tensor) -> Tensor:
    """Generalised energy distance from two independent outputs for one input.

    Args:
        first, second: (B, N), made with different randomness.
        truth: (B, N).
        top_hz: as in :func:`distance`.

    Returns:
        Scalar; lowest on average where the outputs are distributed as the truth is.

    Raises:
        ShapeError: the shapes differ.
    """
    a, b, x = views(first), views(second), views(truth)
    near = distance(a, x, top_hz) + distance(b, x, top_hz)
    return (near - distance(a, b, top_hz)).mean()


@lru_cache(maxsize=16)
def _window(length: int, device: torch.device) -> Tensor:
    """Hann window of unit energy."""
    with torch.inference_mode(mode=False):
        window = torch.hann_window(length, device=device)
        return window / window.square().sum().sqrt()


@lru_cache(maxsize=4)
def _bank(device: torch.device) -> Tensor:
    """Mel filterbank (80, 1025) that undoes the window's scale."""
    with torch.inference_mode(mode=False):
        energy = torch.hann_window(MEL.win).square().sum().sqrt()
        return (mel_filterbank() * energy).to(device)
