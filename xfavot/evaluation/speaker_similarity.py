"""SpkSim: does a converted voice sound like the person whom it should?

Paper: Sec. 4.2, Tables 3 and 5. Cosine of the utterance embeddings of Resemblyzer (GE2E, Wan et al.
2018), which lie in [0, 1] by its last ReLU. Where a face leads, the paper averages over ten
utterances of the face's speaker (`MOST_UTTERANCES`). Resemblyzer itself resamples to 16 kHz,
raises quiet voices to -30 dBFS and cuts long silences; a wave handed over at 24 kHz and the same
file read by Resemblyzer at its own rate differ by that first resampling alone.
"""

from __future__ import annotations

import warnings
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xfavot.errors import DataError, WeightsError
from xfavot.weights import fetched

METRIC = "speaker_similarity"
DEFINITION = "SpkSim: cosine of Resemblyzer's utterance embeddings"
MOST_UTTERANCES = 10

Wave = NDArray[np.float32]
Vector = NDArray[np.float64]


class SpeakerEncoder:
    """Resemblyzer with its checked weights, loaded once for many voices; on the CPU.

    Args:
        cache: the folder of weights; see `fetched.root`. The package brings its own.

    Raises:
        WeightsError: the package is not installed, or its weights are others than published.
    """

    def __init__(self, *, cache: str | PathLike[str] | None = None) -> None:
        """Load the network; see the class."""
        path = fetched.path("resemblyzer", cache)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of its own imports
                from resemblyzer import (  # type: ignore[import-untyped]
                    VoiceEncoder,
                    preprocess_wav,
                )
        except ImportError as error:
            raise WeightsError(
                f'Resemblyzer is not installed ({error}); run: pip install "xfavot[metrics]"'
            ) from error
        self._prepare: Any = preprocess_wav
        self._network: Any = VoiceEncoder("cpu", verbose=False, weights_fpath=path)

    def embed(self, wave: Wave, rate_hz: int) -> Vector:
        """Embed one utterance.

        Args:
            wave: (N,) in [-1, 1], mono.
            rate_hz: of the wave, any.

        Returns:
            (256,) of unit length.

        Raises:
            DataError: not finite or of another shape, or no voice is left once silence is cut.
        """
        x = np.asarray(wave, dtype=np.float32)
        if x.ndim != 1 or not np.isfinite(x).all() or not np.abs(x).max(initial=0.0) > 0:
            raise DataError(
                f"speaker similarity: got samples of shape {x.shape}, "
                f"{int((~np.isfinite(x)).sum())} not finite, peak {np.abs(x).max(initial=0.0):g}; "
                "expected one mono voice, finite and not silent; read it with load_waveform"
            )
        voice = self._prepare(x, source_sr=rate_hz)
        if not len(voice):
            raise DataError(
                f"speaker similarity: Resemblyzer finds no voice in {len(x) / rate_hz:.2f} s of "
                "sound; expected speech; listen to the file"
            )
        return np.asarray(self._network.embed_utterance(voice), dtype=np.float64)


def similarity(output: Vector, *utterances: Vector) -> float:
    """Mean cosine of an output with utterances of one speaker, (256,) each, of unit length."""
    return float(np.mean([output @ one for one in utterances]))
