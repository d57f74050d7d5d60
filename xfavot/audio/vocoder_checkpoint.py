"""Folders as the ParallelWaveGAN project publishes its models; nothing in them is executed.

A folder holds `checkpoint-<N>steps.pkl` (weights), `config.yml` (settings) and `stats.h5` or
`stats.npy` (mean and deviation of the features). The settings are held against the package's mel
contract one by one. What that project's features leave unsaid in its settings is fixed in its code
and the same as here: slaney bands of the magnitude, log10 over 1e-10, centred, reflected.
"""

from __future__ import annotations

import hashlib
import importlib
import reprlib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from xfavot.audio.mel import MEL, Standardiser
from xfavot.errors import DataError, ShapeError, WeightsError

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
        raise _refusal(folder / "config.yml", f"generator_params is {reprlib.repr(params)}")
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
        raise _refusal(folder, f"no file {WEIGHTS} in it")

    def steps(file: Path) -> tuple[int, str]:
        return int("".join(c for c in file.stem if c.isdigit()) or 0), file.name

    return max(found, key=steps)


def _read_config(file: Path) -> dict[str, Any]:
    """Read the settings as plain YAML, without its tags for Python objects."""
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise _refusal(file, f"cannot be read ({first_line(error)})") from error
    if not isinstance(config, dict):
        raise _refusal(file, f"holds {reprlib.repr(config)} instead of settings by name")
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
        raise _refusal(table, "no such file, and no stats.npy")
    try:
        if file == array:
            values = np.load(file, allow_pickle=False)
            mean, scale = values[0], values[1]
        else:
            mean, scale = _read_table(file)
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise _refusal(file, f"cannot be read ({first_line(error)})") from error
    try:
        return Standardiser(*(torch.from_numpy(x.reshape(-1)).float() for x in (mean, scale)))
    except (ShapeError, DataError, TypeError) as error:
        raise _refusal(file, f"does not hold {MEL.n_mels} means and scales ({error})") from error


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
        raise _refusal(
            file,
            f"damaged, or holds more than tensors, which is not run ({first_line(error)})",
        ) from error
    model = whole.get("model") if isinstance(whole, dict) else None
    state = model.get("generator") if isinstance(model, dict) else None
    if not isinstance(state, dict) or not state:
        raise _refusal(file, "no weights under model, generator")
    for name, value in state.items():
        if not isinstance(value, Tensor) or not value.is_floating_point():
            raise _refusal(file, f"{name} is {reprlib.repr(value)}, no tensor of numbers")
        if not bool(value.isfinite().all()):
            raise _refusal(file, f"{name} has values that are not finite")
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


def _refusal(path: Path, reason: str) -> WeightsError:
    """Return the error for a file that cannot be used."""
    return WeightsError(
        f"vocoder weights {path}: {reason}; expected a folder with {WEIGHTS}, config.yml and "
        "stats.h5 (or stats.npy), as the ParallelWaveGAN project publishes its models; "
        "download it again, or name another folder"
    )
