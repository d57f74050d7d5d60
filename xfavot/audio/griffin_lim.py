"""Griffin-Lim from the mel-spectrogram alone: no weights, and the sound of an estimated phase.

The paper uses Parallel WaveGAN (Sec. 4); this is what there is without its weights, and it bears
its own name. Each projection between waveform and spectrogram also scales the magnitudes, band by
band, so that their mel is the one asked for; holding them at one inverse of the filterbank instead
gives twice the log-mel distance in the same time.

Lineage: Griffin and Lim 1984; the momentum of Perraudin, Balazs and Sondergaard 2013; the scaling
is the multiplicative step of Lee and Seung 2001 for the divergence.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import torch
from torch import Tensor

from xfavot.audio.mel import MEL, MelContract, mel_filterbank, require_contract
from xfavot.audio.mel_decoder import MelDecoder
from xfavot.errors import ConfigError

ITERATIONS = 32
MOMENTUM = 0.99  # unitless, the value of Perraudin et al.
INVERSION_STEPS = 8  # multiplicative steps for the first magnitudes
CHUNK_FRAMES = 800  # 10 s; bounds the memory for any length
OVERLAP_FRAMES = 24  # 0.3 s shared by two chunks, joined with a cross-fade
SHORTEST_FRAMES = 8  # torch.stft's reflect padding needs more than 1024 samples
TINY = 1e-8  # added to magnitudes before a division
FAINT = 1e-12  # the same for mel magnitudes, under the contract's floor


class GriffinLim(MelDecoder):
    """Griffin-Lim with momentum, magnitudes tied to the mel.

    Works on any number of frames; a long spectrogram is done in chunks of 10 s, whose phases are
    tied to each other in their overlap, so that memory does not grow with the length.

    Args:
        iterations: projections between the waveform and its spectrogram, 1 or more.
        seed: seed of the first phase.
        device: where the transforms run.
        contract: the mel definition; anything but the package's own is refused.

    Raises:
        ConfigError: `iterations` is not a positive whole number.
        DataError: the contract is another than the package's.
    """

    def __init__(
        self,
        *,
        iterations: int = ITERATIONS,
        seed: int = 0,
        device: str = "cpu",
        contract: MelContract = MEL,
    ) -> None:
        """Keep the settings; see the class."""
        require_contract(contract, where="GriffinLim")
        if isinstance(iterations, bool) or not isinstance(iterations, int) or iterations < 1:
            raise ConfigError(
                f"GriffinLim: iterations is {iterations!r}; expected a whole number of 1 or more; "
                f"{ITERATIONS} is a good value"
            )
        super().__init__(name="griffin_lim", contract=contract, device=device, seed=seed)
        self.iterations = iterations

    def _decode(self, log_mel: Tensor, samples: int) -> Tensor:
        """Go through the chunks of one spectrogram (80, T)."""
        generator = torch.Generator().manual_seed(self.seed)
        out = torch.zeros(samples)
        known: Tensor | None = None  # the end of the chunk before, (OVERLAP_FRAMES - 1) * hop
        frames = log_mel.shape[1]
        for start, stop in _chunks(frames):
            last = stop == frames
            wanted = samples - start * self.hop if last else (stop - start - 1) * self.hop
            wave = self._chunk(log_mel[:, start:stop], wanted, generator, known)
            at = start * self.hop
            if known is not None:
                fade = torch.linspace(0.0, 1.0, len(known))
                wave[: len(known)] = known * (1.0 - fade) + wave[: len(known)] * fade
            out[at : at + len(wave)] = wave
            known = wave[len(wave) - (OVERLAP_FRAMES - 1) * self.hop :].clone()
        return out

    def _chunk(
        self, log_mel: Tensor, samples: int, generator: torch.Generator, known: Tensor | None
    ) -> Tensor:
        """Do one chunk; `known` is the waveform of its first frames, which ties the phases."""
        short = max(SHORTEST_FRAMES - log_mel.shape[1], 0)
        log_mel = torch.cat([log_mel, log_mel[:, -1:].expand(-1, short)], dim=1)
        bank, spread, low, high = _filterbank(self.device)
        mel = torch.pow(10.0, log_mel)  # (80, T)
        magnitude = spread @ (mel / bank.sum(dim=1, keepdim=True))  # (F', T)
        for _ in range(INVERSION_STEPS):
            magnitude = _scaled(magnitude, mel, bank, spread)
        turns = torch.rand(magnitude.shape, generator=generator).to(self.device)
        phase = torch.polar(torch.ones_like(turns), 2.0 * torch.pi * turns)
        anchor: Tensor | None = None
        if known is not None:
            # the last frames look past the known samples, so they are not held
            spectrum = self._stft(known.to(self.device))[low:high]
            anchor = (spectrum / (spectrum.abs() + TINY))[:, : OVERLAP_FRAMES - 3]
        whole = phase.new_zeros(self.contract.n_fft // 2 + 1, phase.shape[1])  # (1025, T)
        before = torch.zeros_like(phase)
        for _ in range(self.iterations):
            if anchor is not None:
                phase[:, : anchor.shape[1]] = anchor
            whole[low:high] = magnitude * phase
            now = self._stft(self._istft(whole))[low:high]
            magnitude = _scaled(now.abs(), mel, bank, spread)
            phase = now + MOMENTUM * (now - before)
            phase = phase / (phase.abs() + TINY)
            before = now
        whole[low:high] = magnitude * phase
        return self._istft(whole, max(samples, (log_mel.shape[1] - 1) * self.hop))[:samples].cpu()

    def _window(self) -> Tensor:
        return torch.hann_window(self.contract.win, device=self.device)

    def _stft(self, wave: Tensor) -> Tensor:
        c = self.contract
        return torch.stft(
            wave, n_fft=c.n_fft, hop_length=c.hop, win_length=c.win, window=self._window(),
            center=True, pad_mode="reflect", return_complex=True,
        )  # (1025, T)  # fmt: skip

    def _istft(self, spectrum: Tensor, samples: int | None = None) -> Tensor:
        c = self.contract
        return torch.istft(
            spectrum, n_fft=c.n_fft, hop_length=c.hop, win_length=c.win, window=self._window(),
            center=True, length=(spectrum.shape[1] - 1) * c.hop if samples is None else samples,
        )  # (N,)  # fmt: skip


def _scaled(magnitude: Tensor, mel: Tensor, bank: Tensor, spread: Tensor) -> Tensor:
    """Scale (F', T) magnitudes, band by band, towards those whose mel is (80, T)."""
    return magnitude * (spread @ (mel / (bank @ magnitude + FAINT)))


@lru_cache(maxsize=8)
def _filterbank(device: torch.device) -> tuple[Tensor, Tensor, int, int]:
    """Return what takes magnitudes to bands and the bands' ratios back to bins, built once.

    Returns:
        The filterbank (80, F') in the bins [low, high) where it is not zero, its transpose with
        rows that sum to one (F', 80), low and high.
    """
    with torch.inference_mode(mode=False):
        bank = mel_filterbank()
        covered = bank.sum(dim=0).nonzero().flatten()
        low, high = int(covered[0]), int(covered[-1]) + 1
        bank = bank[:, low:high]
        spread = (bank / bank.sum(dim=0)).T
        return bank.contiguous().to(device), spread.contiguous().to(device), low, high


def _chunks(frames: int) -> Iterator[tuple[int, int]]:
    """Yield the frames [start, stop) of every chunk; neighbours share OVERLAP_FRAMES."""
    start = 0
    while frames - start > CHUNK_FRAMES:
        yield start, start + CHUNK_FRAMES
        start += CHUNK_FRAMES - OVERLAP_FRAMES
    yield start, frames
