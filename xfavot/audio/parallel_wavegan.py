"""Trained vocoders: Parallel WaveGAN, (multi-band) MelGAN, HiFi-GAN of `parallel_wavegan`.

Paper: Sec. 4 names Parallel WaveGAN (Yamamoto, Song and Kim 2020). The networks are that package's
(MIT), the weights come from a folder or from the project's own store; nothing of either is here.
This is the only file that imports the package, and the only one with the alias that it needs: it
asks SciPy for a window under a name that SciPy has dropped.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import importlib
import inspect
import math
import reprlib
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from os import PathLike
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from xfavot.audio.mel import MEL, MelDecoder, Standardiser
from xfavot.errors import DataError, ShapeError, WeightsError

# Folders as the ParallelWaveGAN project publishes its models; nothing in them is executed


WEIGHTS = "checkpoint*.pkl"
DEFAULT_GENERATOR = "ParallelWaveGANGenerator"  # of settings older than the other generators
ABSENT = "(absent)"
_OURS: dict[str, object] = {
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
_SELDOM_STATED = ("log_base", "eps", "global_gain_scale", "sampling_rate_for_feats")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VocoderCheckpoint:
    """What a folder holds, checked.

    Args:
        name: folder and file with the beginning of the file's sha256, for results and messages.
        generator_type: the generator's class in the `parallel_wavegan` package.
        generator_params: its arguments.
        pqmf_params: arguments of the filterbank that joins the bands of a multi-band generator.
        features: mean and deviation per band under which the generator sees the log10 mel.
        state: its weights by name, all finite.
    """

    name: str
    generator_type: str
    generator_params: dict[str, Any]
    pqmf_params: dict[str, Any]
    features: Standardiser
    state: dict[str, Tensor]


def read_checkpoint(path: str | PathLike[str]) -> VocoderCheckpoint:
    """Read a folder, or one checkpoint file inside it.

    Args:
        path: the folder (its newest checkpoint is taken), or the checkpoint file.

    Raises:
        WeightsError: a file is missing, damaged, or holds something else than expected.
        DataError: the weights were trained on another mel-spectrogram; each setting is named.
    """
    path = Path(path)
    folder = path.parent if path.is_file() else path
    weights = path if path.is_file() else _newest(folder)
    config = _read_config(folder / "config.yml")
    require_our_features(config, where=str(folder / "config.yml"))
    params = config.get("generator_params")
    if not isinstance(params, dict):
        raise _config_refusal(folder / "config.yml", f"generator_params is {reprlib.repr(params)}")
    old = _version(config.get("version", "0.1.0")) <= (0, 4, 2)
    joined = {"taps": 62, "cutoff_ratio": 0.15, "beta": 9.0} if old else {}
    return VocoderCheckpoint(
        name=f"{folder.resolve().name}/{weights.name} sha256 {_digest(weights)[:12]}",
        generator_type=str(config.get("generator_type", DEFAULT_GENERATOR)),
        generator_params=params,
        pqmf_params=config.get("pqmf_params", joined),
        features=_read_features(folder),
        state=_read_state(weights),
    )


def require_our_features(config: Mapping[str, Any], *, where: str) -> None:
    """Refuse settings of another mel-spectrogram than :data:`xfavot.audio.mel.MEL`.

    Args:
        config: the settings in the ParallelWaveGAN project's words.
        where: who carries them, for the message.

    Raises:
        DataError: at least one setting differs; each is named with both values.
    """
    theirs = {**{key: _OURS[key] for key in _SELDOM_STATED}, **config}
    rate = theirs.get("sampling_rate")
    meant = {  # what null stands for
        "win_length": theirs.get("fft_size"),
        "fmin": 0,
        "fmax": rate / 2 if isinstance(rate, int | float) else None,
        "log_base": "e",
    }
    differing = []
    for key, ours in _OURS.items():
        value = theirs.get(key, ABSENT)
        value = meant.get(key) if value is None else value
        if isinstance(value, bool) or value != ours:
            differing.append(f"{key} is {reprlib.repr(value)}, ours is {ours!r}")
    if differing:
        raise DataError(
            f"{where}: another mel-spectrogram: {'; '.join(differing)}; expected the package's own "
            "contract; use weights that were trained on it, such as vctk_parallel_wavegan.v1"
        )


def _newest(folder: Path) -> Path:
    """Return the checkpoint of a folder with the most steps."""
    found = list(folder.glob(WEIGHTS)) if folder.is_dir() else []
    if not found:
        raise _config_refusal(folder, f"no file {WEIGHTS} in it")

    def steps(file: Path) -> tuple[int, str]:
        return int("".join(c for c in file.stem if c.isdigit()) or 0), file.name

    return max(found, key=steps)


def _read_config(file: Path) -> dict[str, Any]:
    """Read the settings as plain YAML, without its tags for Python objects."""
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise _config_refusal(file, f"cannot be read ({first_line(error)})") from error
    if not isinstance(config, dict):
        raise _config_refusal(file, f"holds {reprlib.repr(config)} instead of settings by name")
    return config


def _version(text: object) -> tuple[int, ...]:
    """Return "0.4.2" as (0, 4, 2); what is no number counts as 0."""
    parts = str(text).split(".")[:3]
    return tuple(int(part) if part.isdigit() else 0 for part in parts)


def _read_features(folder: Path) -> Standardiser:
    """Read the mean and the deviation of the features."""
    table, array = folder / "stats.h5", folder / "stats.npy"
    file = table if table.is_file() else array
    if not file.is_file():
        raise _config_refusal(table, "no such file, and no stats.npy")
    try:
        if file == array:
            values = np.load(file, allow_pickle=False)
            mean, scale = values[0], values[1]
        else:
            mean, scale = _read_table(file)
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise _config_refusal(file, f"cannot be read ({first_line(error)})") from error
    try:
        return Standardiser(*(torch.from_numpy(x.reshape(-1)).float() for x in (mean, scale)))
    except (ShapeError, DataError, TypeError) as error:
        raise _config_refusal(
            file, f"does not hold {MEL.n_mels} means and scales ({error})"
        ) from error


def _read_table(file: Path) -> tuple[Any, Any]:
    """Read `mean` and `scale` of an HDF5 file, however many values they have."""
    try:
        h5py: Any = importlib.import_module("h5py")
    except ImportError as error:
        raise WeightsError(
            f"{file}: reading it needs h5py, which is not installed; expected the extra `vocoder`; "
            'pip install "xfavot[vocoder]"'
        ) from error
    with h5py.File(file, "r") as table:
        return np.asarray(table["mean"][()]), np.asarray(table["scale"][()])


def _read_state(file: Path) -> dict[str, Tensor]:
    """Read the generator's weights; nothing but tensors and plain values is unpickled."""
    try:
        whole = torch.load(
            file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file)
        )
    except Exception as error:  # a damaged file raises whatever its bytes lead to
        raise _config_refusal(
            file, f"damaged, or holds more than tensors, which is not run ({first_line(error)})"
        ) from error
    model = whole.get("model") if isinstance(whole, dict) else None
    state = model.get("generator") if isinstance(model, dict) else None
    if not isinstance(state, dict) or not state:
        raise _config_refusal(file, "no weights under model, generator")
    for name, value in state.items():
        if not isinstance(value, Tensor) or not value.is_floating_point():
            raise _config_refusal(file, f"{name} is {reprlib.repr(value)}, no tensor of numbers")
        if not bool(value.isfinite().all()):
            raise _config_refusal(file, f"{name} has values that are not finite")
    return dict(state)


def _digest(file: Path) -> str:
    """Return the sha256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def first_line(error: Exception) -> str:
    """Return the kind and the first line of another library's error, for a message."""
    text = f"{type(error).__name__}: {error}"
    return text.splitlines()[0][:200]


def _config_refusal(path: Path, reason: str) -> WeightsError:
    """Return the error for a file that cannot be used."""
    return WeightsError(
        f"vocoder weights {path}: {reason}; expected a folder with {WEIGHTS}, config.yml and "
        "stats.h5 (or stats.npy), as the ParallelWaveGAN project publishes its models; "
        "download it again, or name another folder"
    )


GENERATORS = {
    "ParallelWaveGANGenerator": "parallel_wavegan",
    "MelGANGenerator": "melgan",
    "HiFiGANGenerator": "hifigan",
}
CHUNK_FRAMES = 240  # 3 s; bounds the memory for any length
SHORTEST_FRAMES = 16  # the reflections of MelGAN need 6 at least


class TrainedVocoder(MelDecoder):
    """A generator with its trained weights.

    The input is standardised with the statistics that belong to the weights. A long spectrogram is
    done in chunks with as much context on both sides as the network sees, so that the result does
    not depend on the chunks and memory does not grow with the length.

    Args:
        checkpoint: what :func:`xfavot.audio.vocoder_checkpoint.read_checkpoint` returns.
        device: where the network runs.
        seed: seed of Parallel WaveGAN's noise; the others draw nothing.

    Raises:
        WeightsError: the package is missing, the network is of another kind, or the weights do not
            fit it.
    """

    def __init__(
        self, checkpoint: VocoderCheckpoint, *, device: str = "cpu", seed: int = 0
    ) -> None:
        """Build the network; see the class."""
        kind, params = _arguments(checkpoint)
        shown = "multi_band_melgan" if params["out_channels"] > 1 else kind
        super().__init__(
            name=f"{shown} ({checkpoint.name})", contract=MEL, device=device, seed=seed
        )
        self._network = _network(checkpoint, copy.deepcopy(params)).to(self.device)
        self._features = checkpoint.features.to(self.device)
        self._context = context_frames(kind, params)
        self._noisy = kind == "parallel_wavegan"

    @classmethod
    def load(
        cls, path: str | PathLike[str], *, device: str = "cpu", seed: int = 0
    ) -> TrainedVocoder:
        """Read a folder as the ParallelWaveGAN project publishes it, or one checkpoint file in it.

        Raises:
            WeightsError: see the class; or a file is missing or damaged.
            DataError: the weights were trained on another mel-spectrogram.
        """
        return cls(read_checkpoint(path), device=device, seed=seed)

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
        WeightsError: the package is missing, or it has no such generator.
    """
    features = Standardiser(torch.zeros(MEL.n_mels), torch.ones(MEL.n_mels))
    empty = VocoderCheckpoint(
        name="random weights",
        generator_type=generator_type,
        generator_params=generator_params,
        pqmf_params={},
        features=features,
        state={},
    )
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore", FutureWarning)  # the package's older weight norm
        torch.manual_seed(0)
        network = getattr(_package().models, generator_type)(**_arguments(empty)[1])
    return TrainedVocoder(dataclasses.replace(empty, state=network.state_dict()))


def context_frames(kind: str, params: dict[str, Any]) -> int:
    """Frames on each side of a frame that a generator's output there depends on, rounded up.

    Args:
        kind: one of the values of :data:`GENERATORS`.
        params: all arguments of the generator.

    Returns:
        The sum of half the kernels' widths, each in frames: at the rate r (samples a frame) a
        convolution reaches (kernel - 1) / 2 * dilation / r, an upsampling at most 2 / r.
    """
    half: float = (params["kernel_size"] - 1) / 2
    frames: float
    rate = 1
    if kind == "parallel_wavegan":
        frames = params["aux_context_window"]
        for scale in params["upsample_params"]["upsample_scales"]:
            frames += 2 / rate
            rate *= scale
        layers = params["layers"] // params["stacks"]
        frames += half * params["stacks"] * (2**layers - 1) / rate
    else:
        frames = half
        for scale in params["upsample_scales"]:
            frames += 2 / rate
            rate *= scale
            frames += _stage(kind, params) / rate
        frames += half / rate + 1  # the filterbank of the bands is shorter than a frame
    return math.ceil(frames * (2 if params["use_causal_conv"] else 1))


def _stage(kind: str, params: dict[str, Any]) -> float:
    """Samples that the residual blocks after one upsampling reach, at their own rate."""
    if kind == "melgan":
        kernel = params["stack_kernel_size"]
        return float(sum((kernel - 1) / 2 * kernel**block for block in range(params["stacks"])))
    blocks = zip(params["resblock_kernel_sizes"], params["resblock_dilations"], strict=True)
    more = 1 if params["use_additional_convs"] else 0
    return float(max((kernel - 1) / 2 * sum(d + more for d in wide) for kernel, wide in blocks))


def _arguments(checkpoint: VocoderCheckpoint) -> tuple[str, dict[str, Any]]:
    """Return the kind and all arguments of a generator, its defaults included."""
    kind = GENERATORS.get(checkpoint.generator_type)
    if kind is None:
        raise _refusal(
            checkpoint, f"generator_type is {checkpoint.generator_type!r}", ", ".join(GENERATORS)
        )
    # the published settings of HiFi-GAN spell one name wrongly
    given = {k.replace("kernal", "kernel"): v for k, v in checkpoint.generator_params.items()}
    known = inspect.signature(getattr(_package().models, checkpoint.generator_type))
    try:
        bound = known.bind(**given)
        bound.apply_defaults()
        params = copy.deepcopy(dict(bound.arguments))
        aux = params["upsample_params"] if kind == "parallel_wavegan" else params
        bands = params["aux_channels" if kind == "parallel_wavegan" else "in_channels"]
        hop = math.prod(aux["upsample_scales"]) * params["out_channels"]
    except (TypeError, KeyError) as error:
        raise _refusal(checkpoint, f"generator_params do not fit ({error})", str(known)) from error
    found = (bands, hop, params.get("upsample_net", "ConvInUpsampleNetwork"))
    wanted = (MEL.n_mels, MEL.hop, "ConvInUpsampleNetwork")
    if found != wanted or (params["out_channels"] != 1 and kind != "melgan"):
        raise _refusal(
            checkpoint,
            f"the generator has (bands in, samples a frame, upsampling) {found} and "
            f"{params['out_channels']} channels out",
            f"{wanted} and 1 channel (of a MelGAN, any number)",
        )
    return kind, params


def _network(checkpoint: VocoderCheckpoint, params: dict[str, Any]) -> Any:
    """Build a generator with its weights, ready to run."""
    package = _package()
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):  # it draws weights
            warnings.simplefilter("ignore", FutureWarning)  # the package's older weight norm
            network: Any = getattr(package.models, checkpoint.generator_type)(**params)
        if params["out_channels"] > 1:
            joined = package.layers.PQMF(params["out_channels"], **checkpoint.pqmf_params)
    except Exception as error:  # whatever strange settings lead to
        raise _refusal(
            checkpoint, f"no generator has its settings ({error!r})", "the published settings"
        ) from error
    wanted = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in checkpoint.state.items()}
    if wanted != found:
        odd = sorted({name for name, _ in wanted.items() ^ found.items()})
        named = "; ".join(
            f"{name} is {found.get(name, 'missing')}, wanted {wanted.get(name, 'absent')}"
            for name in odd[:3]
        )
        raise _refusal(checkpoint, f"{len(odd)} tensors do not fit: {named}", "all of them to fit")
    network.load_state_dict(checkpoint.state)
    if params["out_channels"] > 1:
        network.pqmf = joined
    network.remove_weight_norm()
    return network.eval().requires_grad_(False)


def _refusal(checkpoint: VocoderCheckpoint, reason: str, expected: str) -> WeightsError:
    return WeightsError(
        f"vocoder weights {checkpoint.name}: {reason}; expected {expected}; use weights of "
        "Parallel WaveGAN, MelGAN or HiFi-GAN as the ParallelWaveGAN project publishes them"
    )


@lru_cache(maxsize=1)
def _package() -> SimpleNamespace:
    """Import the package; SciPy's old name for the window is there meanwhile only."""
    try:
        from scipy import signal

        alias = not hasattr(signal, "kaiser")
        if alias:
            signal.kaiser = signal.windows.kaiser
        try:
            from parallel_wavegan import layers, models, utils
        finally:
            if alias:
                del signal.kaiser
    except ImportError as error:
        raise WeightsError(
            f"trained vocoders need parallel-wavegan 0.6.1 and what it imports; got {error}; "
            'pip install "xfavot[vocoder]", then make extras'
        ) from error
    return SimpleNamespace(layers=layers, models=models, utils=utils)
