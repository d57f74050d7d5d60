"""Frozen networks that others trained, opened by transformers from local folders.

Nothing is fetched and no program that lies beside weights is run. A folder lies below that of
fetched weights (`XFAVOT_WEIGHTS`) and holds what transformers saves: `config.json`,
`model.safetensors` and, of an encoder of speech, `preprocessor_config.json`.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor, nn

from xfavot.audio.mel import MEL
from xfavot.errors import DataError, WeightsError, import_optional, refusing
from xfavot.strict import nearest
from xfavot.weights import fetched

RATE_HZ = 16_000  # of what the encoders of speech hear
AST = "audio-spectrogram-transformer"
SPEECH = {  # what config.json names, and its class
    "wav2vec2": "Wav2Vec2Model",
    "hubert": "HubertModel",
    "wavlm": "WavLMModel",
    "unispeech-sat": "UniSpeechSatModel",
    "data2vec-audio": "Data2VecAudioModel",
    AST: "ASTModel",
}
FRAME_S = 0.01  # between two frames of AST's spectrogram
SHORTEST_S = 0.1


def library(purpose: str) -> Any:
    """Import transformers.

    Raises:
        DataError: it is not installed.
    """
    return import_optional("transformers", extra="encoders", purpose=purpose)


def pretrained(network: str, name: str) -> nn.Module:
    """Open a frozen network of transformers from a local folder.

    Args:
        network: its class there.
        name: its folder below that of fetched weights.

    Raises:
        DataError: transformers is not installed.
        WeightsError: the files are missing or damaged, or of other shapes, which are named.
    """
    made, folder = getattr(library(network), network), fetched.root() / name
    advice = f"expected config.json and model.safetensors of {network}, as transformers saves them"
    faults = (OSError, ValueError, KeyError, RuntimeError, SafetensorError)
    with refusing(faults, WeightsError, f"{folder} cannot be used", advice):
        model, about = made.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are told below
        )
        if missing := sorted(
            map(str, {*about["missing_keys"], *(key for key, *_ in about["mismatched_keys"])})
        ):
            raise ValueError(f"{len(missing)} tensors are missing or do not fit: {missing[:3]}")
    opened: nn.Module = model.eval().requires_grad_(False)
    return opened


class SpeechEncoder:
    """An encoder of speech with its weights: wav2vec 2.0, HuBERT, WavLM and their kin, or AST.

    SSAST's weights are read once they are in AST's layout. BEATs, ATST, MERT and Sylber are not
    part of transformers and bring programs of their own, which are not run.

    Args:
        name: its folder below that of fetched weights.

    Raises:
        DataError: transformers is not installed.
        WeightsError: the files are missing or damaged, or of a network that is not listed here.
    """

    def __init__(self, name: str) -> None:
        """Load the network and its preparation of waves; see the class."""
        of_transformers, folder = library(f"the encoder of speech {name}"), fetched.root() / name
        advice = "expected config.json, model.safetensors, preprocessor_config.json of transformers"
        faults = (OSError, ValueError, KeyError, TypeError, AttributeError)
        with refusing(faults, WeightsError, f"{folder} cannot be used", advice):
            self.kind = json.loads((folder / "config.json").read_bytes())["model_type"]
            if str(self.kind) not in SPEECH:
                raise ValueError(
                    f"its model_type is {self.kind!r}; {nearest(str(self.kind), SPEECH)}"
                )
            self._prepare = of_transformers.AutoFeatureExtractor.from_pretrained(
                folder, local_files_only=True
            )
            if (rate := self._prepare.sampling_rate) != RATE_HZ:
                raise ValueError(f"it hears {rate} Hz; expected {RATE_HZ}")
        self.name = name
        self.network: Any = pretrained(SPEECH[self.kind], name)
        config: Any = self.network.config
        self.size = int(config.hidden_size)
        self.hop_s = float(
            config.time_stride * FRAME_S
            if self.kind == AST
            else math.prod(config.conv_stride) / RATE_HZ
        )

    def __call__(self, wave: NDArray[np.float32]) -> Tensor:
        """Hear (N,) at 24 kHz: (T, F) of the last layer, one vector every `hop_s`."""
        return self._hear(wave)[-1]

    def embed(self, wave: NDArray[np.float32]) -> NDArray[np.float64]:
        """Embed one utterance (N,) at 24 kHz: (F,), the mean over all layers and times."""
        return torch.stack(self._hear(wave)).mean((0, 1)).double().numpy()

    @torch.no_grad()
    def _hear(self, wave: NDArray[np.float32]) -> list[Tensor]:
        """(T, F) of every layer."""
        soxr = import_optional("soxr", extra="data", purpose=self.name)
        y = soxr.resample(np.asarray(wave, dtype=np.float32), MEL.sample_rate, RATE_HZ)
        if y.ndim != 1 or len(y) < SHORTEST_S * RATE_HZ or not np.isfinite(y).all():
            raise DataError(
                f"{self.name}: got samples of shape {np.shape(wave)}; expected (N,) finite ones, "
                f"{SHORTEST_S} s at least; leave the clip out"
            )
        if self.kind != AST:
            given = self._prepare(y, sampling_rate=RATE_HZ, return_tensors="pt")
            made = self.network(given["input_values"], output_hidden_states=True)
            return [*(x[0] for x in made.hidden_states[:-1]), made.last_hidden_state[0]]
        config: Any = self.network.config
        times = (config.max_length - config.patch_size) // config.time_stride + 1  # of one window
        window, step = (
            round(frames * FRAME_S * RATE_HZ)
            for frames in (config.max_length, times * config.time_stride)
        )
        left = {
            first: math.ceil((len(y) - first) * times / step) for first in range(0, len(y), step)
        }
        parts = [self._seen(y[n : n + window], min(times, most)) for n, most in left.items()]
        return [torch.cat(layer) for layer in zip(*parts, strict=True)]

    def _seen(self, y: NDArray[np.float32], times: int) -> list[Tensor]:
        """(times, F) of every layer of AST, which pads what it is given; the mean over bands."""
        config: Any = self.network.config
        given = self._prepare(y, sampling_rate=RATE_HZ, return_tensors="pt")
        made = self.network(given["input_values"], output_hidden_states=True)
        bands = (config.num_mel_bins - config.patch_size) // config.frequency_stride + 1
        layers = [*made.hidden_states[:-1], made.last_hidden_state]
        patches = (x[0, -bands * (x.shape[1] // bands) :] for x in layers)  # without its two tokens
        return [x.unflatten(0, (bands, -1)).mean(0)[:times] for x in patches]


def similarities(x: Tensor) -> Tensor:
    """Cosines (T, T) of the vectors (T, F) of a clip, once their mean is taken away."""
    x = nn.functional.normalize(x - x.mean(0, keepdim=True), dim=1)
    return x @ x.T
