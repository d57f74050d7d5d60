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
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
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

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> MelContract:
        """Rebuild a contract from its settings.

        Raises:
            DataError: a setting is missing or unknown.
        """
        known = {f.name for f in fields(cls)}
        if set(settings) != known:
            raise DataError(
                f"mel contract: missing settings {sorted(known - set(settings))}, unknown "
                f"{sorted(set(settings) - known)}; expected exactly {sorted(known)}; it was "
                "written by another version of the package, prepare the corpus again"
            )
        return cls(**settings)


MEL = MelContract()


def require_contract(got: MelContract | Mapping[str, Any], *, where: str) -> None:
    """Refuse anything that was made with another mel-spectrogram than :data:`MEL`.

    Args:
        got: the contract found, or its settings by name.
        where: who carries it, for the message.

    Raises:
        DataError: at least one setting differs; each is named with both values.
    """
    found = got.as_dict() if isinstance(got, MelContract) else dict(got)
    wanted = MEL.as_dict()
    differing = [
        f"{name} is {found.get(name, '(absent)')!r}, expected {wanted.get(name, '(absent)')!r}"
        for name in sorted(wanted.keys() | found.keys())
        if name not in found or name not in wanted or found[name] != wanted[name]
    ]
    if differing:
        raise DataError(
            f"{where}: another mel-spectrogram: {'; '.join(differing)}; "
            "prepare the corpus again, or use a checkpoint and a vocoder of this contract"
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


def mel_filterbank(*, contract: MelContract = MEL) -> Tensor:
    """Triangular filters on Slaney's scale, each of unit area in Hz (mel_norm "slaney").

    Args:
        contract: the settings.

    Returns:
        (n_mels, n_fft / 2 + 1) float32, (80, 1025) under :data:`MEL`.

    Raises:
        ConfigError: the contract asks for another scale or normalisation.
    """
    if (contract.mel_scale, contract.mel_norm) != ("slaney", "slaney"):
        raise ConfigError(
            f"mel contract: scale {contract.mel_scale!r} and norm {contract.mel_norm!r}; expected "
            "'slaney' and 'slaney', the only ones implemented; use the package's own contract"
        )
    ends = hz_to_mel(torch.tensor([contract.fmin, contract.fmax], dtype=torch.float64))
    steps = torch.linspace(0.0, 1.0, contract.n_mels + 2, dtype=torch.float64)
    edges = mel_to_hz(ends[0] + (ends[1] - ends[0]) * steps)  # (M + 2,) Hz
    bins = torch.arange(contract.n_fft // 2 + 1, dtype=torch.float64)
    bins = bins * (contract.sample_rate / contract.n_fft)  # (F,) Hz
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (bins - low) / (centre - low), (high - bins) / (high - centre)
    triangles = torch.minimum(rising, falling).clamp(min=0.0)  # (M, F)
    return (triangles * (2.0 / (high - low))).float()


@lru_cache(maxsize=8)
def _filters_and_window(contract: MelContract, device: torch.device) -> tuple[Tensor, Tensor]:
    """The filterbank and the window on a device, built once."""
    settings = (contract.window, contract.center, contract.pad_mode, contract.log_base)
    if settings != ("hann", True, "reflect", 10) or contract.power != 1.0:
        raise ConfigError(
            f"mel contract: window, center, pad_mode, log_base, power are {settings}, "
            f"{contract.power}; expected ('hann', True, 'reflect', 10), 1.0, the only ones "
            "implemented; use the package's own contract"
        )
    with torch.inference_mode(mode=False):
        window = torch.hann_window(contract.win, periodic=True, dtype=torch.float64, device=device)
        return mel_filterbank(contract=contract).double().to(device), window


def log_mel(waveform: Tensor, *, contract: MelContract = MEL) -> Tensor:
    """Logarithmic mel-spectrogram, log10 of magnitudes with a floor.

    Args:
        waveform: (..., N) float32 in [-1, 1], mono, at ``contract.sample_rate``.
        contract: the settings.

    Returns:
        (..., 80, N // 300 + 1) float32, log10 of the linear magnitude, at least -10. Computed in
        float64, because float32 rounding shows in the quiet bands of loud tones; memory beside the
        result is bounded by :data:`BLOCK_FRAMES` frames.

    Raises:
        ShapeError: not floating point, or N is at most half of n_fft, which cannot be reflected.
        ConfigError: the contract has a setting that is not implemented.
    """
    half = contract.n_fft // 2
    if not waveform.is_floating_point() or waveform.dim() == 0 or waveform.shape[-1] <= half:
        raise ShapeError(
            f"waveform: got shape {tuple(waveform.shape)} of {waveform.dtype}; expected (..., N) "
            f"float32 with N of at least {half + 1} samples; leave clips this short out"
        )
    filters, window = _filters_and_window(contract, waveform.device)
    lead, samples = waveform.shape[:-1], waveform.shape[-1]
    padded = functional.pad(waveform.reshape(-1, 1, samples), (half, half), mode="reflect")
    padded = padded[:, 0].double()  # (B, N + n_fft)
    frames = samples // contract.hop + 1
    blocks = []
    for first in range(0, frames, BLOCK_FRAMES):
        count = min(BLOCK_FRAMES, frames - first)
        start = first * contract.hop
        spectrum = torch.stft(
            padded[:, start : start + (count - 1) * contract.hop + contract.n_fft],
            n_fft=contract.n_fft,
            hop_length=contract.hop,
            win_length=contract.win,
            window=window,
            center=False,
            normalized=False,
            onesided=True,
            return_complex=True,
        ).abs()  # (B, F, count)
        blocks.append((filters @ spectrum).clamp(min=contract.floor).log10().float())
    return torch.cat(blocks, dim=-1).reshape(*lead, contract.n_mels, frames)


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

    def __post_init__(self) -> None:
        """Check shapes and values."""
        for name, value in (("mean", self.mean), ("std", self.std)):
            if value.shape != (MEL.n_mels,):
                raise ShapeError(
                    f"standardiser {name}: got shape {tuple(value.shape)}; expected "
                    f"({MEL.n_mels},), one value a band; compute it from a store's train split"
                )
        if not (self.mean.isfinite().all() and self.std.isfinite().all() and (self.std > 0).all()):
            raise DataError(
                "standardiser: a value is not finite or a deviation is not positive; expected "
                "finite means and positive deviations; compute it from a store's train split again"
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


# What every vocoder shares: the check of its input, its exact length, a batch row by row


class MelDecoder(ABC):
    """Base of the vocoders.

    Args:
        name: the name that results carry.
        contract: the mel definition that the vocoder understands.
        device: where it runs, as torch names it.
        seed: seed of whatever the vocoder draws; drawn on the CPU, the same for every row.
    """

    def __init__(self, *, name: str, contract: MelContract, device: str, seed: int) -> None:
        """Keep the settings."""
        self.name = name
        self.contract = contract
        self.device = torch.device(device)
        self.seed = seed

    @property
    def hop(self) -> int:
        """Samples between two frames."""
        return self.contract.hop

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
        bands = self.contract.n_mels
        batched = log_mel.dim() == 3
        require_shape("log mel", log_mel, (None, bands, None) if batched else (bands, None))
        if log_mel.numel() == 0 or not bool(torch.isfinite(log_mel).all()):
            raise DataError(
                f"vocoder {self.name}: got a spectrogram of shape {tuple(log_mel.shape)} whose "
                f"values are {'not all finite' if log_mel.numel() else 'missing'}; expected finite "
                "log10 magnitudes; check that it was restored from its standardised form"
            )
        samples = self._samples(log_mel.shape[-1], length)
        with torch.inference_mode():
            rows = log_mel if batched else log_mel[None]
            rows = rows.to(device=self.device, dtype=torch.float32)
            waves = [self._decode(row, samples).float().cpu().numpy() for row in rows]
        return np.stack(waves) if batched else waves[0]

    @abstractmethod
    def _decode(self, log_mel: Tensor, samples: int) -> Tensor:
        """Turn (80, T) float32 on the device into exactly (samples,); see :meth:`__call__`."""

    def _samples(self, frames: int, length: int | None) -> int:
        """Return how many samples to give."""
        least = (frames - 1) * self.hop
        if length is None:
            return least
        if (
            isinstance(length, bool)
            or not isinstance(length, int)
            or length // self.hop != (frames - 1)
        ):
            raise ConfigError(
                f"vocoder {self.name}: length is {length!r} samples for {frames} frames; expected "
                f"{least} to {least + self.hop - 1}, whose spectrogram has that many frames; "
                "leave it out, or pass the length of the waveform that was analysed"
            )
        return length
