"""What every vocoder shares: the check of its input, its exact length, a batch row by row.

A vocoder fills in :meth:`MelDecoder._decode` for one spectrogram; the rest is here, so that every
vocoder refuses the same things with the same words and promises the same length. Lengths follow the
centred transform of :mod:`xfavot.audio.mel`, where N samples give N // 300 + 1 frames.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xfavot.audio.mel import MelContract
from xfavot.errors import ConfigError, DataError, require_shape


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
