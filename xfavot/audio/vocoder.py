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
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from xfavot.audio.griffin_lim import GriffinLim
from xfavot.audio.mel import MelContract
from xfavot.audio.parallel_wavegan import TrainedVocoder
from xfavot.audio.source_filter_vocoder import NAME, SourceFilterVocoder
from xfavot.errors import ConfigError, WeightsError
from xfavot.strict import nearest
from xfavot.weights import fetched, shipped

__all__ = [
    "DEFAULT",
    "PUBLISHED",
    "GriffinLim",
    "SourceFilterVocoder",
    "TrainedVocoder",
    "Vocoder",
    "vocoder",
]

DEFAULT = NAME  # the name that is used where none is given

PUBLISHED = tuple(
    f"{corpus}_{network}"
    for corpus in ("vctk", "libritts")
    for network in (
        *("parallel_wavegan.v1", "parallel_wavegan.v1.long"),
        *("multi_band_melgan.v2", "hifigan.v1"),
    )
)
KINDS = ("parallel_wavegan", "melgan", "multi_band_melgan", "hifigan")  # names without weights


@runtime_checkable
class Vocoder(Protocol):
    """Whatever turns log10 mel-spectrograms into waveforms."""

    @property
    def name(self) -> str:
        """The name that results carry."""
        ...

    @property
    def contract(self) -> MelContract:
        """The mel definition that the vocoder understands."""
        ...

    @property
    def hop(self) -> int:
        """Samples between two frames."""
        ...

    def __call__(self, log_mel: Tensor, *, length: int | None = None) -> NDArray[np.float32]:
        """Turn (80, T) or (B, 80, T), log10, not standardised, into (N,) or (B, N) samples.

        N is `length`, any length whose spectrogram has T frames; (T - 1) * 300 if left out.
        """
        ...


def vocoder(
    name: str | PathLike[str],
    *,
    device: str = "cpu",
    seed: int = 0,
    cache: str | PathLike[str] | None = None,
    download: bool = False,
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
        device: where it runs, as torch names it.
        seed: seed of what the vocoder draws (Griffin-Lim's first phase, Parallel WaveGAN's noise,
            the source-filter vocoder's noise and first phase).
        cache: folder of the published weights, one folder a name.
        download: fetch published weights that are not in the cache; never done unasked.

    Raises:
        ConfigError: no vocoder has this name, and no folder is there.
        WeightsError: the weights are missing, damaged or of another kind.
        DataError: the weights were trained on another mel-spectrogram.
    """
    asked = fspath(name)
    if asked == NAME:
        return SourceFilterVocoder.load(shipped(NAME), name=NAME, device=device, seed=seed)
    if asked == "griffin_lim":
        return GriffinLim(device=device, seed=seed)
    if asked in PUBLISHED:
        folder = fetched.path(asked, cache, download=download)
        return TrainedVocoder.load(folder, device=device, seed=seed)
    path = Path(asked).expanduser()
    if path.suffix == ".safetensors":
        return SourceFilterVocoder.load(path, device=device, seed=seed)
    if asked and path.exists():
        return TrainedVocoder.load(path, device=device, seed=seed)
    names = (NAME, "griffin_lim", *PUBLISHED)
    choices = f"{', '.join(names)}, a folder with weights or a file *.safetensors"
    if asked in KINDS:
        raise WeightsError(
            f"vocoder {asked!r} needs trained weights, and the name says not which; available: "
            f"{choices}; nothing is put in its place silently, so name one of these"
        )
    raise ConfigError(
        f"vocoder is {asked!r}, neither a name nor weights on disk; {nearest(asked, names)}; "
        "or give the folder of a checkpoint"
    )
