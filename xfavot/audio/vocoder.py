"""From a log10 mel-spectrogram back to a waveform.

The paper uses Parallel WaveGAN (Sec. 4). What is built here is Griffin-Lim, and it bears that name:
its sound is that of an estimated phase, not of a trained vocoder. Every vocoder carries the mel
contract that it understands, and a spectrogram made under another one is refused
(:func:`xfavot.audio.mel.require_contract`).

Lineage: Griffin and Lim 1984; the momentum of Perraudin, Balazs and Sondergaard 2013; the mel is
inverted by the pseudo-inverse and a few multiplicative steps (Lee and Seung 2001).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xfavot.audio.mel import MEL, MelContract, mel_filterbank, require_contract
from xfavot.errors import ConfigError, DataError, WeightsError, require_shape

MOMENTUM = 0.99  # unitless, the value of Perraudin et al.
INVERSION_STEPS = 8  # multiplicative steps after the pseudo-inverse
CHUNK_FRAMES = 2000  # 25 s; bounds the memory at about 150 MB for any length
OVERLAP_FRAMES = 24  # 0.3 s shared by two chunks, joined with a cross-fade
SHORTEST_FRAMES = 8  # torch.stft's reflect padding needs more than 1024 samples
TINY = 1e-8  # added to magnitudes before a division


@runtime_checkable
class Vocoder(Protocol):
    """Whatever turns a log10 mel-spectrogram into a waveform."""

    @property
    def name(self) -> str:
        """The name that results carry."""
        ...

    @property
    def contract(self) -> MelContract:
        """The mel definition that the vocoder understands."""
        ...

    def __call__(self, log_mel: Tensor) -> NDArray[np.float32]:
        """Turn one spectrogram (80, T), log10, not standardised, into (T - 1) * 300 samples."""
        ...


class GriffinLim:
    """Griffin-Lim with momentum, from the mel's magnitude alone.

    Works on any number of frames; a long spectrogram is done in chunks of 25 s, whose phases are
    tied to each other in their overlap, so that memory does not grow with the length.
    Deterministic: the first phase is drawn from `seed`, always on the CPU.

    Args:
        iterations: projections between the waveform and its spectrogram, 1 or more.
        seed: seed of the first phase.
        device: where the transforms run.
        contract: the mel definition; anything but the package's own is refused.

    Raises:
        ConfigError: `iterations` is not a positive whole number.
        DataError: the contract is another than the package's.
    """

    name = "griffin_lim"

    def __init__(
        self,
        *,
        iterations: int = 32,
        seed: int = 0,
        device: str = "cpu",
        contract: MelContract = MEL,
    ) -> None:
        """Keep the settings; see the class."""
        require_contract(contract, where="GriffinLim")
        if isinstance(iterations, bool) or not isinstance(iterations, int) or iterations < 1:
            raise ConfigError(
                f"GriffinLim: iterations is {iterations!r}; expected a whole number of 1 or more; "
                "32 is a good value"
            )
        self.iterations = iterations
        self.seed = seed
        self.device = torch.device(device)
        self.contract = contract

    def __call__(self, log_mel: Tensor) -> NDArray[np.float32]:
        """Estimate the waveform of one spectrogram.

        Args:
            log_mel: (80, T), log10 of the magnitude mel, not standardised, T >= 1.

        Returns:
            (N,) float32 with N = (T - 1) * 300 samples at 24 kHz; not clipped.

        Raises:
            ShapeError: another shape than (80, T).
            DataError: no frame, or a value that is not finite.
        """
        contract = self.contract
        require_shape("log mel", log_mel, (contract.n_mels, None))
        frames = log_mel.shape[1]
        if frames == 0 or not bool(torch.isfinite(log_mel).all()):
            raise DataError(
                f"GriffinLim: got {frames} frames with values that are "
                f"{'missing' if frames == 0 else 'not all finite'}; expected finite log10 "
                "magnitudes; check that the spectrogram was restored from its standardised form"
            )
        log_mel = log_mel.to(device=self.device, dtype=torch.float32)
        generator = torch.Generator().manual_seed(self.seed)
        samples = (frames - 1) * contract.hop
        out = torch.zeros(samples)
        known: Tensor | None = None  # the end of the chunk before, (OVERLAP_FRAMES - 1) * hop
        for start, stop in _chunks(frames):
            wave = self._chunk(log_mel[:, start:stop], generator, known)
            at = start * contract.hop
            if known is not None:
                fade = torch.linspace(0.0, 1.0, len(known))
                wave[: len(known)] = known * (1.0 - fade) + wave[: len(known)] * fade
            out[at : at + len(wave)] = wave
            known = wave[len(wave) - (OVERLAP_FRAMES - 1) * contract.hop :].clone()
        return out.numpy().astype(np.float32, copy=False)

    def _chunk(self, log_mel: Tensor, generator: torch.Generator, known: Tensor | None) -> Tensor:
        """Do one chunk; `known` is the waveform of its first frames, which ties the phases."""
        contract = self.contract
        frames = log_mel.shape[1]
        samples = (frames - 1) * contract.hop
        if frames < SHORTEST_FRAMES:
            tail = log_mel[:, -1:].expand(-1, SHORTEST_FRAMES - frames)
            log_mel = torch.cat([log_mel, tail], dim=1)
        magnitude = linear_magnitude(log_mel)  # (1025, T)
        turns = torch.rand(magnitude.shape, generator=generator).to(self.device)
        phase = torch.polar(torch.ones_like(turns), 2.0 * torch.pi * turns)
        anchor: Tensor | None = None
        if known is not None:
            # the last frames look past the known samples, so they are not held
            spectrum = self._stft(known.to(self.device))
            anchor = (spectrum / (spectrum.abs() + TINY))[:, : OVERLAP_FRAMES - 3]
        before = torch.zeros_like(phase)
        for _ in range(self.iterations):
            if anchor is not None:
                phase[:, : anchor.shape[1]] = anchor
            now = self._stft(self._istft(magnitude * phase))  # (1025, T)
            phase = now + MOMENTUM * (now - before)
            phase = phase / (phase.abs() + TINY)
            before = now
        return self._istft(magnitude * phase)[:samples].cpu()

    def _window(self) -> Tensor:
        return torch.hann_window(self.contract.win, device=self.device)

    def _stft(self, wave: Tensor) -> Tensor:
        c = self.contract
        return torch.stft(
            wave, n_fft=c.n_fft, hop_length=c.hop, win_length=c.win, window=self._window(),
            center=True, pad_mode="reflect", return_complex=True,
        )  # (1025, T)  # fmt: skip

    def _istft(self, spectrum: Tensor) -> Tensor:
        c = self.contract
        return torch.istft(
            spectrum, n_fft=c.n_fft, hop_length=c.hop, win_length=c.win, window=self._window(),
            center=True, length=(spectrum.shape[1] - 1) * c.hop,
        )  # (N,)  # fmt: skip


def linear_magnitude(log_mel: Tensor, *, steps: int = INVERSION_STEPS) -> Tensor:
    """Invert the mel filterbank: non-negative magnitudes whose mel comes close to the given one.

    The pseudo-inverse gives the start, a few multiplicative steps of least squares the rest; they
    keep the result non-negative and cost far less than a full non-negative solver.

    Args:
        log_mel: (80, T), log10 of the magnitude mel.
        steps: multiplicative steps, 0 or more.

    Returns:
        (1025, T) magnitudes, 0 or more; bins outside 80 to 7600 Hz are 0.
    """
    bank, inverse = (part.to(log_mel.device) for part in _filterbank())
    mel = torch.pow(10.0, log_mel)  # (80, T)
    linear = (inverse @ mel).clamp_min(TINY)  # (1025, T)
    wanted = bank.T @ mel
    for _ in range(steps):
        linear = linear * (wanted / (bank.T @ (bank @ linear) + TINY * TINY))
    return linear


@lru_cache(maxsize=1)
def _filterbank() -> tuple[Tensor, Tensor]:
    """Return the filterbank (80, 1025) and its pseudo-inverse (1025, 80)."""
    bank = mel_filterbank().to(torch.float32)
    inverse = torch.linalg.pinv(bank.double()).float()
    return bank, inverse


def _chunks(frames: int) -> Iterator[tuple[int, int]]:
    """Yield the frames [start, stop) of every chunk; neighbours share OVERLAP_FRAMES."""
    start = 0
    while frames - start > CHUNK_FRAMES:
        yield start, start + CHUNK_FRAMES
        start += CHUNK_FRAMES - OVERLAP_FRAMES
    yield start, frames


VOCODERS: dict[str, Callable[[], Vocoder]] = {GriffinLim.name: GriffinLim}
NEEDS_WEIGHTS = ("parallel_wavegan",)  # the paper's; has a name here, but no adapter yet


def vocoder(name: str) -> Vocoder:
    """Return a vocoder by its name, with its default settings.

    Args:
        name: one of :data:`VOCODERS`.

    Raises:
        WeightsError: the vocoder is known, but its weights cannot be used here.
        ConfigError: no vocoder has this name.
    """
    available = ", ".join(sorted(VOCODERS))
    if name in NEEDS_WEIGHTS:
        raise WeightsError(
            f"vocoder {name!r} needs trained weights, and this version has no adapter for them; "
            f"available: {available}; nothing is put in its place silently, so name one of these"
        )
    if name not in VOCODERS:
        raise ConfigError(f"vocoder is {name!r}; expected one of: {available}")
    return VOCODERS[name]()
