"""Vocoders by name: from a log10 mel-spectrogram back to a waveform.

The paper uses Parallel WaveGAN (Sec. 4). Its weights are not part of this package; where they are
at hand, :func:`vocoder` runs them. What comes with the package is a small source-filter vocoder,
trained by this project and the default, and Griffin-Lim. Every vocoder carries the mel contract
that it understands, and a spectrogram or weights made under another one are refused. Nothing is put
in another's place silently.
"""

from __future__ import annotations

from os import PathLike, fspath
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from xfavot import presets
from xfavot.audio.mel import MEL, Vocoder, istft, mel_filterbank, stft
from xfavot.audio.parallel_wavegan import TrainedVocoder
from xfavot.audio.source_filter import NAME, SourceFilterVocoder
from xfavot.errors import ConfigError
from xfavot.strict import nearest, require
from xfavot.weights import fetched, shipped

__all__ = ["DEFAULT", "PUBLISHED", "GriffinLim", "Vocoder", "vocoder"]

# Griffin-Lim from the mel-spectrogram alone: no weights, and the sound of an estimated phase


ITERATIONS = 32
MOMENTUM = 0.99  # unitless, the value of Perraudin et al.
INVERSION_STEPS = 8  # multiplicative steps for the first magnitudes
TINY = 1e-8  # added to magnitudes before a division
FAINT = 1e-12  # the same for mel magnitudes, under the contract's floor


class GriffinLim(Vocoder):
    """Griffin-Lim with momentum, magnitudes tied to the mel.

    Works on any number of frames, all at once, in about 6.4 MB a second of sound.

    Args:
        iterations: projections between the waveform and its spectrogram, 1 or more.
        seed: seed of the first phase.
        device: where the transforms run.

    Raises:
        ConfigError: less than one iteration.
    """

    shortest = 8  # torch.stft's reflect padding needs more than 1024 samples

    def __init__(self, *, iterations: int = ITERATIONS, **how: Any) -> None:
        """Keep the settings; see the class."""
        require(iterations >= 1, "iterations", iterations, "1 or more", f"such as {ITERATIONS}")
        super().__init__(name="griffin_lim", **how)
        self.iterations = iterations

    def _decode(self, log_mel: Tensor, samples: int) -> Tensor:
        """Estimate the phase of one spectrogram (80, T)."""
        span = (log_mel.shape[1] - 1) * self.hop
        whole = mel_filterbank(self.device)
        covered = whole.sum(dim=0).nonzero().flatten()
        low, high = int(covered[0]), int(covered[-1]) + 1  # bins [low, high) have a band
        bank = whole[:, low:high].contiguous()  # (80, F')
        spread = (bank / bank.sum(dim=0)).T.contiguous()  # (F', 80), rows sum to one
        mel = torch.pow(10.0, log_mel)  # (80, T)

        def scaled(magnitude: Tensor) -> Tensor:
            """Scale (F', T) magnitudes, band by band, towards those asked for."""
            return magnitude * (spread @ (mel / (bank @ magnitude + FAINT)))

        def sound(spectrum: Tensor, length: int) -> Tensor:
            """Make the waveform of (F', T)."""
            above = MEL.n_fft // 2 + 1 - high
            return istft(torch.nn.functional.pad(spectrum, (0, 0, low, above)), length)

        magnitude = spread @ (mel / bank.sum(dim=1, keepdim=True))  # (F', T)
        for _ in range(INVERSION_STEPS):
            magnitude = scaled(magnitude)
        generator = torch.Generator().manual_seed(self.seed)
        turns = torch.rand(magnitude.shape, generator=generator).to(self.device)
        phase = torch.polar(torch.ones_like(turns), 2.0 * torch.pi * turns)
        before = torch.zeros_like(phase)
        for _ in range(self.iterations):
            now = stft(sound(magnitude * phase, span))[low:high]
            magnitude = scaled(now.abs())
            phase = now + MOMENTUM * (now - before)
            phase = phase / (phase.abs() + TINY)
            before = now
        return sound(magnitude * phase, max(samples, span))[:samples]


DEFAULT = NAME  # the name that is used where none is given

PUBLISHED = tuple(n for n in presets.names("weights") if n.startswith(("vctk_", "libritts_")))


def vocoder(
    name: str | PathLike[str],
    *,
    cache: str | PathLike[str] | None = None,
    download: bool = False,
    **how: Any,
) -> Vocoder:
    """Return a vocoder by its name, or from weights on disk.

    All of them understand the package's one mel contract (24 kHz, hop 300, 80 bands):

    ============================  ===========================  =================================
    name                          what it is                   licence of the weights
    ============================  ===========================  =================================
    source_filter                 pulses and noise; default    MIT, as the package
    griffin_lim                   phase estimate, no weights   none needed
    vctk_parallel_wavegan.v1      the paper's, 400k steps      not stated; trained on VCTK
    vctk_parallel_wavegan.v1.long the same, 1M steps           not stated; trained on VCTK
    vctk_multi_band_melgan.v2     the fastest, 1M steps        not stated; trained on VCTK
    vctk_hifigan.v1               2.5M steps                   not stated; trained on VCTK
    libritts_...                  the same four                not stated; trained on LibriTTS
    a folder, or its checkpoint   what its config.yml says     whatever came with it
    a file `*.safetensors`        source_filter, trained here  whatever came with it
    ============================  ===========================  =================================

    The ParallelWaveGAN project's code is MIT; for its weights it states no licence of their own and
    sends one to the licence of each corpus. LibriTTS and VCTK 0.92 are CC BY 4.0; the project's
    recipe takes an older VCTK, whose terms are in its archive.

    Args:
        name: "source_filter", "griffin_lim", one of :data:`PUBLISHED`, a folder (or a checkpoint
            file in it) laid out as that project publishes its models, or a file of weights that
            `notebooks/pretrain.ipynb` trained with `-p network vocoder`.
        cache: folder of the published weights, one folder a name.
        download: fetch published weights that are not in the cache; never done unasked.
        how: `device`, where it runs, as torch names it; `seed` of what the vocoder draws
            (Griffin-Lim's first phase, Parallel WaveGAN's noise, the source-filter vocoder's noise
            and first phase).

    Raises:
        ConfigError: no vocoder has this name, and no folder is there.
        WeightsError: the weights are missing, damaged or of another kind.
        DataError: the weights were trained on another mel-spectrogram.
    """
    asked = fspath(name)
    if asked == NAME:
        return SourceFilterVocoder.load(shipped(NAME), name=NAME, **how)
    if asked == "griffin_lim":
        return GriffinLim(**how)
    if asked in PUBLISHED:
        return TrainedVocoder.load(fetched.path(asked, cache, download=download), **how)
    path = Path(asked).expanduser()
    if path.suffix == ".safetensors":
        return SourceFilterVocoder.load(path, **how)
    if asked and path.exists():
        return TrainedVocoder.load(path, **how)
    names = (NAME, "griffin_lim", *PUBLISHED)
    raise ConfigError(
        f"vocoder is {asked!r}, neither a name nor weights on disk; {nearest(asked, names)}; "
        "or give a file *.safetensors or the folder of a checkpoint"
    )
