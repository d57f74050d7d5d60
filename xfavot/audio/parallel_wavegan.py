"""Trained vocoders: Parallel WaveGAN, (multi-band) MelGAN, HiFi-GAN of `parallel_wavegan`.

Paper: Sec. 4 names Parallel WaveGAN (Yamamoto, Song and Kim 2020). The networks are that package's
(MIT), the weights come from a folder or from the project's own store; nothing of either is here.
Folders are not trusted: nothing in them is executed, and weights of another mel-spectrogram are
refused. This is the only file that imports the package.
"""

from __future__ import annotations

import copy
import hashlib
import math
import warnings
import zipfile
from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import cached_property, lru_cache
from os import PathLike
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import yaml
from torch import Tensor

from xfavot.audio.mel import MEL, Standardiser, Vocoder, differences, pieces
from xfavot.errors import DataError, WeightsError, import_optional, refusing

WEIGHTS = "checkpoint*.pkl"
PARALLEL_WAVEGAN = "ParallelWaveGANGenerator"  # of settings older than the other generators
GENERATORS = {
    PARALLEL_WAVEGAN: "parallel_wavegan",
    "MelGANGenerator": "melgan",
    "HiFiGANGenerator": "hifigan",
}
OURS = {  # what a published config.yml says of the mel-spectrogram
    "sampling_rate": MEL.sample_rate,
    "fft_size": MEL.n_fft,
    "hop_size": MEL.hop,
    "win_length": MEL.win,
    "window": MEL.window,
    "num_mels": MEL.n_mels,
    "fmin": MEL.fmin,
    "fmax": MEL.fmax,
    "log_base": MEL.log_base,
    "eps": MEL.floor,
    "global_gain_scale": 1.0,  # else the sound would have another level than its spectrogram
    "sampling_rate_for_feats": MEL.sample_rate,
}
SELDOM_STATED = ("log_base", "eps", "global_gain_scale", "sampling_rate_for_feats")  # else as ours
OLD_BANDS = {"taps": 62, "cutoff_ratio": 0.15, "beta": 9.0}  # filterbank up to version 0.4.2
CHUNK_FRAMES = 240  # 3 s; bounds the memory for any length
CONTEXTS = (24, 64)  # frames tried; the published networks see less than the first


class TrainedVocoder(Vocoder):
    """A generator with its weights; :meth:`load` makes one.

    The input is standardised with the statistics that belong to the weights. A long spectrogram is
    done in chunks with as much context on both sides as the network sees, so that the result does
    not depend on the chunks and memory does not grow with the length.

    Args:
        network: of the `parallel_wavegan` package, as :func:`_generator` builds it.
        features: mean and deviation per band under which the network sees the log10 mel.
        name: of the weights.
        device: where the network runs.
        seed: seed of Parallel WaveGAN's noise; the others draw nothing.

    Raises:
        ValueError: the network makes no mono sound of a mel-spectrogram of ours.
    """

    shortest = 16  # the reflections of MelGAN need 6 at least

    def __init__(self, network: Any, features: Standardiser, *, name: str, **how: Any) -> None:
        """Move the network to the device; see the class."""
        kind = type(network).__name__
        bands = "multi_band_" if getattr(network, "pqmf", None) is not None else ""
        super().__init__(name=f"{bands}{GENERATORS[kind]} ({name})", **how)
        network.remove_weight_norm()
        self._network = network.eval().requires_grad_(False).to(self.device)
        self._features = features.to(self.device)
        self._noisy = kind == PARALLEL_WAVEGAN
        tried = torch.zeros(self.shortest, MEL.n_mels, device=self.device)
        noise = tried.new_zeros(self.shortest * MEL.hop, 1)
        if (made := self._run(self._network, tried, noise)).shape != noise.shape:
            wanted = f"expected {tuple(noise.shape)}"
            raise ValueError(f"it makes {tuple(made.shape)} samples of 16 frames; {wanted}")

    @classmethod
    def load(cls, path: str | PathLike[str], **how: Any) -> TrainedVocoder:
        """Read a folder as the ParallelWaveGAN project publishes it, or one checkpoint file in it.

        Args:
            path: the folder (its checkpoint of the most steps is taken), or the checkpoint file.
            how: device and seed; see the class.

        Raises:
            WeightsError: the package is missing; a file is missing, damaged, or not as expected.
            DataError: the weights were trained on another mel-spectrogram; each setting is named.
        """
        path = Path(path)
        folder = path.parent if path.is_file() else path
        settings, statistics = folder / "config.yml", folder / "stats.h5"
        _package()
        with _using(settings):
            config = yaml.safe_load(settings.read_text(encoding="utf-8"))
            if not isinstance(config, dict) or not isinstance(config.get("generator_params"), dict):
                raise ValueError("it holds no settings by name with generator_params")
        theirs = {key: OURS[key] for key in SELDOM_STATED}
        theirs |= {key: value for key, value in config.items() if key in OURS}
        if differing := differences(theirs, OURS):
            raise DataError(
                f"{settings}: another mel-spectrogram: {differing}; expected the package's own "
                "contract; use weights that were trained on it, such as vctk_parallel_wavegan.v1"
            )
        if not statistics.is_file():
            statistics = folder / "stats.npy"
        with _using(statistics):
            features = _read_features(statistics)
        files = [path] if path.is_file() else folder.glob(WEIGHTS)
        file = max(files, key=_steps, default=folder / WEIGHTS)
        with _using(file):
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            network = _generator(config, _read_state(file))
            name = f"{folder.resolve().name}/{file.name} sha256 {digest[:12]}"
            return cls(network, features, name=name, **how)

    @cached_property
    def _context(self) -> int:
        """Frames on each side that a sample depends on; a value that is no number shows it."""
        network = copy.deepcopy(self._network).cpu()  # others may spread it further
        for reach in CONTEXTS:
            x, noise = torch.zeros(2 * reach + 1, MEL.n_mels), torch.zeros(2 * reach + 1, MEL.hop)
            x[reach] = torch.nan
            heard = self._run(network, x, noise.reshape(-1, 1)).isnan().nonzero()[:, 0] / MEL.hop
            context = math.ceil(max(reach - float(heard[0]), float(heard[-1]) - reach))
            if context < reach:
                return context
        reason = f"looks further than {CONTEXTS[-1]} frames, so its chunks cannot be joined"
        raise WeightsError(f"vocoder {self.name}: {reason}; take one that looks less far")

    def _run(self, network: Any, x: Tensor, noise: Tensor) -> Tensor:
        """Make (T * 300, 1) of standardised (T, 80) and noise of the same length."""
        wave: Tensor = network.inference(x, **({"x": noise} if self._noisy else {}))
        return wave

    def _decode(self, log_mel: Tensor, samples: int) -> Tensor:
        """Go through the chunks of one spectrogram (80, T)."""
        x = self._features.standardise(log_mel).T  # (T, 80)
        frames, hop = len(x), self.hop
        generator = torch.Generator().manual_seed(self.seed)
        noise = torch.randn(frames * hop if self._noisy else 0, 1, generator=generator)
        out = torch.zeros(frames * hop)
        context = self._context if frames > CHUNK_FRAMES else 0
        for start, stop, first, last in pieces(frames, CHUNK_FRAMES, context):
            drawn = noise[first * hop : last * hop].to(self.device)
            wave = self._run(self._network, x[first:last], drawn)[:, 0]  # ((last - first) * hop,)
            out[start * hop : stop * hop] = wave[(start - first) * hop : (stop - first) * hop].cpu()
        return out[:samples]


def untrained(generator_type: str, generator_params: dict[str, Any]) -> TrainedVocoder:
    """Return a vocoder of a published size with random weights, which can be timed.

    Args:
        generator_type, generator_params: as in a published config.yml.

    Raises:
        WeightsError: the package is missing.
    """
    config = {"generator_type": generator_type, "generator_params": generator_params}
    network = _generator(config | {"pqmf_params": {}})
    return TrainedVocoder(network, Standardiser.neutral(), name="random weights")


def _using(file: Path) -> AbstractContextManager[None]:
    """Raise whatever the bytes of a file lead to as a WeightsError that names it."""
    advice = (
        f"expected a folder with {WEIGHTS}, config.yml and stats.h5 (or stats.npy) of a Parallel "
        "WaveGAN, MelGAN or HiFi-GAN, as the ParallelWaveGAN project publishes them; fetch it "
        "again, or name another folder"
    )
    return refusing(Exception, WeightsError, f"vocoder weights {file}: cannot be used", advice)


def _generator(config: Mapping[str, Any], state: Mapping[str, Tensor] | None = None) -> Any:
    """Build a generator with its weights (random ones if left out), and join its bands."""
    name = config.get("generator_type", PARALLEL_WAVEGAN)
    if name not in GENERATORS:
        raise ValueError(f"generator_type is {name!r}; expected one of {', '.join(GENERATORS)}")
    # the published settings of HiFi-GAN spell one name wrongly
    params = {k.replace("kernal", "kernel"): v for k, v in config["generator_params"].items()}
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):  # it draws weights
        warnings.simplefilter("ignore", FutureWarning)  # the package's older weight norm
        torch.manual_seed(0)
        network: Any = getattr(_package().models, name)(**copy.deepcopy(params))
    if state is not None:
        network.load_state_dict(state)
    if (bands := params.get("out_channels", 1)) > 1:
        version = str(config.get("version", "0.1.0")).split(".")[:3]
        old = [int(part) if part.isdigit() else 0 for part in version] <= [0, 4, 2]
        usual = OLD_BANDS if old else {}
        network.pqmf = _package().layers.PQMF(bands, **config.get("pqmf_params", usual))
    return network


def _read_features(file: Path) -> Standardiser:
    """Read the mean and the deviation per band, (80,) each."""
    if file.suffix == ".npy":
        mean, scale = np.load(file, allow_pickle=False)
    else:
        h5py = import_optional("h5py", extra="vocoder", purpose=f"reading {file}")
        with h5py.File(file, "r") as table:
            mean, scale = (np.asarray(table[name][()]) for name in ("mean", "scale"))
    return Standardiser(*(torch.from_numpy(x.reshape(-1)).float() for x in (mean, scale)))


def _steps(file: Path) -> tuple[int, str]:
    return int("".join(c for c in file.stem if c.isdigit()) or 0), file.name


def _read_state(file: Path) -> dict[str, Tensor]:
    """Read the generator's weights; nothing but tensors and plain values is unpickled."""
    mapped = zipfile.is_zipfile(file)
    try:
        whole = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # its own advice is to load the file without care
        raise ValueError("damaged, or holds more than tensors, which is not run") from error
    state: dict[str, Tensor] = whole["model"]["generator"]
    for name, value in state.items():
        numbers = isinstance(value, Tensor) and value.is_floating_point()
        if not numbers or not bool(value.isfinite().all()):
            raise ValueError(f"{name} does not hold finite numbers")
    return state


@lru_cache(maxsize=1)
def _package() -> Any:
    """Import the package, whose last release asks SciPy for a window under a name since dropped."""
    what = "trained vocoders need parallel-wavegan 0.6.1 and what it imports"
    advice = 'pip install "xfavot[vocoder]", then make extras'
    with refusing(ImportError, WeightsError, what, advice):
        from scipy import signal

        with mock.patch.object(signal, "kaiser", signal.windows.kaiser, create=True):
            import parallel_wavegan.models
            import parallel_wavegan.utils
    return parallel_wavegan
