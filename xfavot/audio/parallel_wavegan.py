"""Trained vocoders: Parallel WaveGAN, (multi-band) MelGAN, HiFi-GAN of `parallel_wavegan`.

Paper: Sec. 4 names Parallel WaveGAN (Yamamoto, Song and Kim 2020). The networks are that package's
(MIT), the weights come from a folder or from the project's own store; nothing of either is here.
Folders are not trusted: nothing in them is executed, and weights of another mel-spectrogram are
refused. This is the only file that imports the package.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
import math
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from os import PathLike
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch
import yaml
from torch import Tensor

from xfavot.audio.mel import MEL, Standardiser, Vocoder, differences
from xfavot.errors import DataError, WeightsError, XFaVoTError, import_optional

WEIGHTS = "checkpoint*.pkl"
GENERATORS = {
    "ParallelWaveGANGenerator": "parallel_wavegan",  # of settings older than the other generators
    "MelGANGenerator": "melgan",
    "HiFiGANGenerator": "hifigan",
}
STATED = {  # by every published config.yml
    "sampling_rate": MEL.sample_rate,
    "fft_size": MEL.n_fft,
    "hop_size": MEL.hop,
    "win_length": MEL.win,
    "window": MEL.window,
    "num_mels": MEL.n_mels,
    "fmin": MEL.fmin,
    "fmax": MEL.fmax,
}
SELDOM_STATED = {  # and these values hold where they are not
    "log_base": MEL.log_base,
    "eps": MEL.floor,
    "global_gain_scale": 1.0,  # else the sound would have another level than its spectrogram
    "sampling_rate_for_feats": MEL.sample_rate,
}
OLD_BANDS = {"taps": 62, "cutoff_ratio": 0.15, "beta": 9.0}  # filterbank up to version 0.4.2
CHUNK_FRAMES = 240  # 3 s; bounds the memory for any length
SHORTEST_FRAMES = 16  # the reflections of MelGAN need 6 at least


class TrainedVocoder(Vocoder):
    """A generator with its weights; :meth:`load` makes one.

    The input is standardised with the statistics that belong to the weights. A long spectrogram is
    done in chunks with as much context on both sides as the network sees, so that the result does
    not depend on the chunks and memory does not grow with the length.

    Args:
        network: of the `parallel_wavegan` package, as :func:`_generator` builds it.
        kind: one of the values of :data:`GENERATORS`.
        params: all arguments of the network.
        features: mean and deviation per band under which the network sees the log10 mel.
        name: of the weights.
        device: where the network runs.
        seed: seed of Parallel WaveGAN's noise; the others draw nothing.
    """

    def __init__(
        self,
        network: Any,
        kind: str,
        params: Mapping[str, Any],
        features: Standardiser,
        *,
        name: str,
        device: str = "cpu",
        seed: int = 0,
    ) -> None:
        """Move the network to the device; see the class."""
        shown = "multi_band_melgan" if params["out_channels"] > 1 else kind
        super().__init__(name=f"{shown} ({name})", device=device, seed=seed)
        network.remove_weight_norm()
        self._network = network.eval().requires_grad_(False).to(self.device)
        self._features = features.to(self.device)
        self._context = context_frames(kind, params)
        self._noisy = kind == "parallel_wavegan"

    @classmethod
    def load(
        cls, path: str | PathLike[str], *, device: str = "cpu", seed: int = 0
    ) -> TrainedVocoder:
        """Read a folder as the ParallelWaveGAN project publishes it, or one checkpoint file in it.

        Args:
            path: the folder (its checkpoint of the most steps is taken), or the checkpoint file.
            device, seed: see the class.

        Raises:
            WeightsError: the package is missing; a file is missing, damaged, or not as expected.
            DataError: the weights were trained on another mel-spectrogram; each setting is named.
        """
        path = Path(path)
        folder = path.parent if path.is_file() else path
        with _using(folder / "config.yml") as file:
            config = yaml.safe_load(file.read_text(encoding="utf-8"))
            _require_our_features(config, where=str(file))
            kind, params = _generator_settings(config)
        with _using(folder / "stats.npy", folder / "stats.h5") as file:
            features = _read_features(file)
        found = [path] if path.is_file() else sorted(folder.glob(WEIGHTS), key=_steps)
        with _using(folder / WEIGHTS, *found) as file:
            network = _generator(config, params, _read_state(file))
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
        name = f"{folder.resolve().name}/{file.name} sha256 {digest[:12]}"
        return cls(network, kind, params, features, name=name, device=device, seed=seed)

    def _decode(self, log_mel: Tensor, samples: int) -> Tensor:
        """Go through the chunks of one spectrogram (80, T)."""
        short = max(SHORTEST_FRAMES - log_mel.shape[1], 0)
        log_mel = torch.cat([log_mel, log_mel[:, -1:].expand(-1, short)], dim=1)
        x = self._features.standardise(log_mel).T  # (T, 80)
        frames, hop = len(x), self.hop
        noise: dict[str, Tensor] = {}
        if self._noisy:
            generator = torch.Generator().manual_seed(self.seed)
            noise["x"] = torch.randn(frames * hop, 1, generator=generator).to(self.device)
        out = torch.zeros(frames * hop)
        for start in range(0, frames, CHUNK_FRAMES):
            stop = min(start + CHUNK_FRAMES, frames)
            first, last = max(start - self._context, 0), min(stop + self._context, frames)
            drawn = {key: value[first * hop : last * hop] for key, value in noise.items()}
            wave = self._network.inference(x[first:last], **drawn)[:, 0]  # ((last - first) * hop,)
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
    kind, params = _generator_settings(config)
    network = _generator(config | {"pqmf_params": {}}, params)
    return TrainedVocoder(network, kind, params, Standardiser.neutral(), name="random weights")


def context_frames(kind: str, params: Mapping[str, Any]) -> int:
    """Frames on each side of a frame that a generator's output there depends on, rounded up.

    Args:
        kind: one of the values of :data:`GENERATORS`.
        params: all arguments of the generator.

    Returns:
        The sum of half the kernels' widths, each in frames: at the rate r (samples a frame) a
        convolution reaches (kernel - 1) / 2 * dilation / r, an upsampling at most 2 / r.
    """
    half: float = (params["kernel_size"] - 1) / 2
    after = 0.0  # samples that the residual blocks after one upsampling reach, at their own rate
    upsampled: Mapping[str, Any] = params
    frames = half
    if kind == "parallel_wavegan":
        frames, upsampled = params["aux_context_window"], params["upsample_params"]
    elif kind == "melgan":
        kernel = params["stack_kernel_size"]
        after = sum((kernel - 1) / 2 * kernel**block for block in range(params["stacks"]))
    else:
        more = 1 if params["use_additional_convs"] else 0
        blocks = zip(params["resblock_kernel_sizes"], params["resblock_dilations"], strict=True)
        after = max((size - 1) / 2 * sum(d + more for d in wide) for size, wide in blocks)
    rate = 1
    for scale in upsampled["upsample_scales"]:
        frames += 2 / rate
        rate *= scale
        frames += after / rate
    if kind == "parallel_wavegan":
        layers = params["layers"] // params["stacks"]
        frames += half * params["stacks"] * (2**layers - 1) / rate
    else:
        frames += half / rate + 1  # the filterbank of the bands is shorter than a frame
    return math.ceil(frames * (2 if params["use_causal_conv"] else 1))


@contextmanager
def _using(*files: Path) -> Iterator[Path]:
    """Yield the last of some files that is there; whatever its bytes lead to is a WeightsError."""
    there = [file for file in files if file.is_file()]
    try:
        if not there:
            raise ValueError("no such file")
        yield there[-1]
    except XFaVoTError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"[:300].replace("\n", " ")
        raise WeightsError(
            f"vocoder weights {(there or files)[-1]}: cannot be used ({reason}); expected a folder "
            f"with {WEIGHTS}, config.yml and stats.h5 (or stats.npy) of a Parallel WaveGAN, MelGAN "
            "or HiFi-GAN, as the ParallelWaveGAN project publishes them; fetch it again, or name "
            "another folder"
        ) from error


def _require_our_features(config: Any, *, where: str) -> None:
    """Refuse settings of another mel-spectrogram than ours, in that project's words."""
    if not isinstance(config, dict) or not isinstance(config.get("generator_params"), dict):
        raise ValueError("it holds no settings by name with generator_params")
    ours = STATED | SELDOM_STATED
    theirs = SELDOM_STATED | {key: value for key, value in config.items() if key in ours}
    meant = {"win_length": config.get("fft_size"), "fmin": 0, "log_base": "e"}  # by null
    meant["fmax"] = (config.get("sampling_rate") or 0) / 2
    theirs |= {key: value for key, value in meant.items() if theirs.get(key, 0) is None}
    differing = differences(theirs, ours)
    if differing:
        raise DataError(
            f"{where}: another mel-spectrogram: {differing}; expected the package's own contract; "
            "use weights that were trained on it, such as vctk_parallel_wavegan.v1"
        )


def _generator_settings(config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the kind and all arguments of a generator, its defaults included."""
    name = config.get("generator_type", next(iter(GENERATORS)))
    if name not in GENERATORS:
        raise ValueError(f"generator_type is {name!r}; expected one of {', '.join(GENERATORS)}")
    kind = GENERATORS[name]
    # the published settings of HiFi-GAN spell one name wrongly
    given = {k.replace("kernal", "kernel"): v for k, v in config["generator_params"].items()}
    bound = inspect.signature(getattr(_package().models, name)).bind(**given)
    bound.apply_defaults()
    params = copy.deepcopy(dict(bound.arguments))
    noisy = kind == "parallel_wavegan"
    scales = (params["upsample_params"] if noisy else params)["upsample_scales"]
    got = {
        "bands in": params["aux_channels" if noisy else "in_channels"],
        "samples a frame": math.prod(scales) * params["out_channels"],
        "channels out": 1 if kind == "melgan" else params["out_channels"],  # a MelGAN's are bands
        "upsample_net": params.get("upsample_net", "ConvInUpsampleNetwork"),
    }
    wanted = {"bands in": MEL.n_mels, "samples a frame": MEL.hop, "channels out": 1}
    differing = differences(got, wanted | {"upsample_net": "ConvInUpsampleNetwork"})
    if differing:
        raise ValueError(f"generator_params do not fit: {differing}")
    return kind, params


def _generator(
    config: Mapping[str, Any], params: Mapping[str, Any], state: Mapping[str, Tensor] | None = None
) -> Any:
    """Build a generator with its weights (random ones if left out), and join its bands."""
    package, bands = _package(), params["out_channels"]
    name = config.get("generator_type", next(iter(GENERATORS)))
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):  # it draws weights
        warnings.simplefilter("ignore", FutureWarning)  # the package's older weight norm
        torch.manual_seed(0)
        network: Any = getattr(package.models, name)(**copy.deepcopy(dict(params)))
    if state is not None:
        network.load_state_dict(state)
    if bands > 1:
        version = str(config.get("version", "0.1.0")).split(".")[:3]
        old = [int(part) if part.isdigit() else 0 for part in version] <= [0, 4, 2]
        usual = OLD_BANDS if old else {}
        network.pqmf = package.layers.PQMF(bands, **config.get("pqmf_params", usual))
    return network


def _read_features(file: Path) -> Standardiser:
    """Read the mean and the deviation per band, (80,) each."""
    if file.suffix == ".npy":
        mean, scale = np.load(file, allow_pickle=False)
    else:
        h5py = import_optional("h5py", extra="vocoder", purpose=f"reading {file}")
        with h5py.File(file, "r") as table:
            mean, scale = (np.asarray(table[name][()]) for name in ("mean", "scale"))
    try:
        return Standardiser(*(torch.from_numpy(x.reshape(-1)).float() for x in (mean, scale)))
    except XFaVoTError as error:  # they name the standardiser, not the file
        raise ValueError(str(error)) from error


def _steps(file: Path) -> tuple[int, str]:
    return int("".join(c for c in file.stem if c.isdigit()) or 0), file.name


def _read_state(file: Path) -> dict[str, Tensor]:
    """Read the generator's weights; nothing but tensors and plain values is unpickled."""
    try:
        mapped = zipfile.is_zipfile(file)
        whole = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # its own advice is to load the file without care
        raise ValueError("damaged, or holds more than tensors, which is not run") from error
    model = whole.get("model") if isinstance(whole, dict) else None
    state = model.get("generator") if isinstance(model, dict) else None
    if not isinstance(state, dict):
        raise ValueError("no weights under model, generator")
    for name, value in state.items():
        numbers = isinstance(value, Tensor) and value.is_floating_point()
        if not numbers or not bool(value.isfinite().all()):
            raise ValueError(f"{name} does not hold finite numbers")
    return state


@lru_cache(maxsize=1)
def _package() -> SimpleNamespace:
    """Import the package, whose last release asks SciPy for a window under a name since dropped."""
    try:
        from scipy import signal

        with mock.patch.object(signal, "kaiser", signal.windows.kaiser, create=True):
            from parallel_wavegan import layers, models, utils
    except ImportError as error:
        raise WeightsError(
            f"trained vocoders need parallel-wavegan 0.6.1 and what it imports; got {error}; "
            'pip install "xfavot[vocoder]", then make extras'
        ) from error
    return SimpleNamespace(layers=layers, models=models, utils=utils)
