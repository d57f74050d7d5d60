"""The only mel-spectrogram of the package: a contract, the transform, the standardisation.

Paper: Sec. 4 ("80-band mel-spectrograms, FFT 2048, hop 300", 24 kHz); everything else of the
contract is the feature definition of the public Parallel WaveGAN VCTK v1 vocoder, the only one
under which that vocoder can be used as published. Own maths (Slaney's scale and area
normalisation), held against librosa's and the vocoder package's features by the parity tests.
"""

from __future__ import annotations

import hashlib
import json
import math
import reprlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from xfavot.errors import ConfigError, DataError, ShapeError, require_shape

LINEAR_HZ_PER_MEL = 200.0 / 3.0  # Slaney's scale: linear below 1 kHz ...
LOG_START_HZ = 1000.0
LOG_START_MEL = LOG_START_HZ / LINEAR_HZ_PER_MEL  # ... and 27 mels to each factor of 6.4 above
MELS_PER_NEPER = 27.0 / math.log(6.4)
BLOCK_FRAMES = 2048  # frames transformed at once, which bounds the memory on long audio


@dataclass(frozen=True, slots=True, kw_only=True)
class MelContract:
    """Every setting of the mel-spectrogram; stored with every corpus, checkpoint and vocoder."""

    sample_rate: int = 24_000  # Hz
    n_fft: int = 2048  # samples
    hop: int = 300  # samples
    win: int = 1200  # samples, centred inside n_fft
    window: str = "hann"  # periodic
    n_mels: int = 80
    fmin: float = 80.0  # Hz
    fmax: float = 7600.0  # Hz
    power: float = 1.0  # 1 = magnitude
    mel_scale: str = "slaney"
    mel_norm: str = "slaney"
    center: bool = True
    pad_mode: str = "reflect"
    log_base: int = 10
    floor: float = 1e-10  # linear, under the logarithm

    @property
    def hash(self) -> str:
        """First 16 hex digits of the sha256 of the canonical JSON."""
        text = json.dumps(self.as_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def as_dict(self) -> dict[str, Any]:
        """The settings by name, ready for JSON."""
        return asdict(self)


MEL = MelContract()
LOUDEST = 1.75  # log10; no waveform in [-1, 1] has a larger mel under the contract


def require_contract(got: MelContract | Mapping[str, Any], *, where: str) -> None:
    """Refuse anything that was made with another mel-spectrogram than :data:`MEL`.

    Args:
        got: its contract, or the settings by name.
        where: who carries it, for the message.

    Raises:
        DataError: at least one setting differs; each is named with both values.
    """
    theirs = got.as_dict() if isinstance(got, MelContract) else got
    theirs = theirs if isinstance(theirs, Mapping) else {}
    if differing := differences(theirs, MEL.as_dict()):
        raise DataError(
            f"{where}: another mel-spectrogram: {differing}; "
            "prepare the corpus again, or use a checkpoint and a vocoder of this contract"
        )


def differences(got: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    """Say which settings differ, with both values; "" if none does."""
    pairs = {
        name: [settings.get(name, "(absent)") for settings in (got, expected)]
        for name in sorted(got.keys() | expected.keys())
    }
    return "; ".join(
        f"{name} is {reprlib.repr(value)}, expected {wanted!r}"
        for name, (value, wanted) in pairs.items()
        if isinstance(value, bool) is not isinstance(wanted, bool) or value != wanted
    )


def hz_to_mel(hz: Tensor) -> Tensor:
    """Slaney's mel scale.

    Args:
        hz: frequencies in Hz, any shape.

    Returns:
        Mels, the same shape: linear to 1 kHz (15 mels), logarithmic above.
    """
    logarithmic = LOG_START_MEL + MELS_PER_NEPER * (hz.clamp(min=LOG_START_HZ) / LOG_START_HZ).log()
    return torch.where(hz < LOG_START_HZ, hz / LINEAR_HZ_PER_MEL, logarithmic)


def mel_to_hz(mel: Tensor) -> Tensor:
    """Inverse of :func:`hz_to_mel`."""
    above = (mel.clamp(min=LOG_START_MEL) - LOG_START_MEL) / MELS_PER_NEPER
    return torch.where(mel < LOG_START_MEL, mel * LINEAR_HZ_PER_MEL, LOG_START_HZ * above.exp())


def band_centres() -> tuple[Tensor, Tensor]:
    """Centres of the bands and half of the distance between their edges, in Hz, (80,) float64."""
    edges = _edges()
    return edges[1:-1], 0.5 * (edges[2:] - edges[:-2])


def _edges(bands: int = MEL.n_mels, fmin: float = MEL.fmin, fmax: float = MEL.fmax) -> Tensor:
    """The edges of the triangular filters: (M + 2,) Hz, float64."""
    low, high = hz_to_mel(torch.tensor([fmin, fmax], dtype=torch.float64))
    return mel_to_hz(low + (high - low) * torch.linspace(0, 1, bands + 2, dtype=torch.float64))


@lru_cache(maxsize=8)
@torch.inference_mode(mode=False)
def mel_filterbank(
    device: torch.device | str = "cpu",
    *,
    n_fft: int = MEL.n_fft,
    rate: int = MEL.sample_rate,
    **other: Any,
) -> Tensor:
    """Triangular filters on Slaney's scale, each of unit area in Hz (mel_norm "slaney").

    Args:
        device: where they are.
        n_fft, rate: of the transform, samples and Hz.
        other: `bands`, `fmin`, `fmax` (Hz) than the contract's.

    Returns:
        (80, 1025) float32: n_mels by n_fft / 2 + 1; built once a device, so leave it as it is.
    """
    edges = _edges(**other)[:, None]  # (M + 2, 1)
    bins = torch.arange(n_fft // 2 + 1, dtype=torch.float64) * (rate / n_fft)  # (F,) Hz
    widths = edges.diff(dim=0)
    rising, falling = (bins - edges[:-2]) / widths[:-1], (edges[2:] - bins) / widths[1:]
    triangles = torch.minimum(rising, falling).clamp(min=0.0)  # (M, F)
    return (triangles * (2.0 / (edges[2:] - edges[:-2]))).float().to(device)


def log_mel(waveform: Tensor) -> Tensor:
    """Logarithmic mel-spectrogram, log10 of magnitudes with a floor.

    Args:
        waveform: (..., N) float32 in [-1, 1], mono, 24 kHz.

    Returns:
        (..., 80, N // 300 + 1) float32, log10 of the linear magnitude, at least -10. Computed in
        float64, because float32 rounding shows in the quiet bands of loud tones; memory beside the
        result is bounded by :data:`BLOCK_FRAMES` frames.

    Raises:
        ShapeError: not floating point, or N is at most half of n_fft, which cannot be reflected.
    """
    half = MEL.n_fft // 2
    if not waveform.is_floating_point() or waveform.dim() == 0 or waveform.shape[-1] <= half:
        raise ShapeError(
            f"waveform: got shape {tuple(waveform.shape)} of {waveform.dtype}; expected (..., N) "
            f"float32 with N of at least {half + 1} samples; leave clips this short out"
        )
    filters = mel_filterbank(waveform.device).double()
    lead, samples = waveform.shape[:-1], waveform.shape[-1]
    padded = functional.pad(waveform.reshape(-1, 1, samples), (half, half), mode="reflect")
    padded = padded[:, 0].double()  # (B, N + n_fft)
    blocks = []
    for first, end, *_ in pieces(samples // MEL.hop + 1, BLOCK_FRAMES, 0):
        block = padded[:, first * MEL.hop : (end - 1) * MEL.hop + MEL.n_fft]
        spectrum = stft(block, center=False).abs()  # (B, F, frames of the block)
        blocks.append((filters @ spectrum).clamp(min=MEL.floor).log10().float())
    return torch.cat(blocks, dim=-1).reshape(*lead, MEL.n_mels, -1)


def pieces(frames: int, size: int, context: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield the frames [start, stop) of every piece, then with the context on both sides."""
    for start in range(0, frames, size):
        stop = min(start + size, frames)
        yield start, stop, max(start - context, 0), min(stop + context, frames)


def stft(wave: Tensor, *, center: bool = MEL.center) -> Tensor:
    """Transform (..., N) by the contract's window and hop: (..., 1025, N // 300 + 1)."""
    window = torch.hann_window(MEL.win, dtype=wave.dtype, device=wave.device)
    sizes = (MEL.n_fft, MEL.hop, MEL.win)
    return torch.stft(wave, *sizes, window, center=center, return_complex=True)


def istft(spectrum: Tensor, samples: int) -> Tensor:
    """Invert :func:`stft`: (..., 1025, T) to (..., samples)."""
    window = torch.hann_window(MEL.win, device=spectrum.device)
    return torch.istft(spectrum, MEL.n_fft, MEL.hop, MEL.win, window, length=samples)


@dataclass(frozen=True, slots=True, eq=False)
class Standardiser:
    """Mean and standard deviation per band, under which the networks see the mel-spectrogram.

    Args:
        mean, std: (80,) float32, log10 units; ``std`` positive.

    Raises:
        ShapeError: not (80,) each.
        DataError: a value is not finite, or a deviation is not positive.
    """

    mean: Tensor
    std: Tensor

    @classmethod
    def neutral(cls) -> Standardiser:
        """Mean 0 and deviation 1: nothing is changed."""
        return cls(torch.zeros(MEL.n_mels), torch.ones(MEL.n_mels))

    def __post_init__(self) -> None:
        """Check shapes and values."""
        for name, value in (("mean", self.mean), ("std", self.std)):
            require_shape(f"standardiser {name}", value, (MEL.n_mels,))
        if not (self.mean.isfinite().all() and self.std.isfinite().all() and (self.std > 0).all()):
            raise DataError(
                "standardiser: expected finite means and positive deviations, got others; compute "
                "it from a store's train split again"
            )

    def standardise(self, log_mel: Tensor) -> Tensor:
        """(..., 80, T) log10 mel to zero mean and unit deviation per band."""
        return (log_mel - self.mean[:, None]) / self.std[:, None]

    def restore(self, x: Tensor) -> Tensor:
        """Inverse of :meth:`standardise`: (..., 80, T) back to log10 mel."""
        return x * self.std[:, None] + self.mean[:, None]

    def to(self, device: torch.device | str) -> Standardiser:
        """The same statistics on another device."""
        return Standardiser(self.mean.to(device), self.std.to(device))


class Vocoder(ABC):
    """Whatever turns log10 mel-spectrograms into waveforms; each checks its input here.

    Args:
        name: the name that results carry.
        device: where it runs, as torch names it.
        seed: seed of whatever the vocoder draws; drawn on the CPU, the same for every row.

    Attributes:
        contract: the mel definition that the vocoder understands.
        hop: samples between two frames.
        shortest: frames that a shorter spectrogram is continued to by its last one.
        spare: frames that every spectrogram is continued by at least.
    """

    contract, hop = MEL, MEL.hop
    shortest, spare = 1, 0

    def __init__(self, *, name: str, device: str | torch.device = "cpu", seed: int = 0) -> None:
        """Keep the settings."""
        self.name = name
        self.device = torch.device(device)
        self.seed = seed

    def __call__(self, log_mel: Tensor, *, length: int | None = None) -> NDArray[np.float32]:
        """Turn log10 mel-spectrograms into waveforms at 24 kHz.

        Args:
            log_mel: (80, T) or (B, 80, T), log10 of the magnitude mel, not standardised, T >= 1.
            length: samples wanted, any N whose mel has T frames: (T - 1) * 300 to T * 300 - 1;
                (T - 1) * 300 if left out.

        Returns:
            (N,) or (B, N) float32, exactly N samples; not clipped. A row of a batch equals the
            same spectrogram alone, and the same input gives the same sound.

        Raises:
            ShapeError: another shape.
            DataError: nothing in it, or a value that is not finite.
            ConfigError: a length that no spectrogram of T frames has.
        """
        rows = log_mel if log_mel.dim() == 3 else log_mel[None]
        require_shape("log mel", rows, (None, MEL.n_mels, None))
        if rows.numel() == 0 or not bool(rows.isfinite().all()):
            raise DataError(
                f"vocoder {self.name}: got shape {tuple(log_mel.shape)}, no values or not all "
                "finite; expected log10 magnitudes; restore them from their standardised form"
            )
        least = (rows.shape[2] - 1) * self.hop
        samples = least if length is None else length
        if samples not in range(least, least + self.hop):
            raise ConfigError(
                f"vocoder {self.name}: length is {length!r} samples for {rows.shape[2]} frames; "
                f"expected {least} to {least + self.hop - 1}, as the waveform has; or leave it out"
            )
        with torch.inference_mode():
            rows = rows.to(device=self.device, dtype=torch.float32)
            more = max(self.shortest - rows.shape[2], self.spare)
            rows = functional.pad(rows, (0, more), mode="replicate")
            waves = [self._decode(row, samples).float().cpu().numpy() for row in rows]
        return np.stack(waves) if log_mel.dim() == 3 else waves[0]

    @abstractmethod
    def _decode(self, log_mel: Tensor, samples: int) -> Tensor:
        """Turn (80, T) float32 on the device, continued, into (samples,); see :meth:`__call__`."""
