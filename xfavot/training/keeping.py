"""The F0 and the content network on disk: one safetensors file whose header says all of them (A28).

A run's own lie in `<run_root>/auxiliary/<network>_<key>/`, those that come with the package in
`xfavot/weights/`; both are the same kind of file. A network that saw other mel statistics in
training than a run has is loaded with an affine map in front of it, one factor and shift a band.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from xfavot import weights
from xfavot.audio.mel import Standardiser, require_contract
from xfavot.errors import DataError, TrainingError, WeightsError
from xfavot.models.content import ContentNetwork
from xfavot.models.f0 import F0Network
from xfavot.training.speech import in_words

KINDS: dict[str, type[F0Network] | type[ContentNetwork]]
KINDS = {"f0": F0Network, "content": ContentNetwork}
WEIGHTS = "model.safetensors"
RECORD = "record"  # entry of the header: network, contract, arguments, training, measures; JSON


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained network: what it is, how good on held-out clips, and where it is kept."""

    network: F0Network | ContentNetwork
    metrics: dict[str, float]
    path: Path

    def headline(self) -> str:
        """Say the measures of the held-out splits as a whole."""
        return in_words({k: value for k, value in self.metrics.items() if k.count("/") == 1})

    def summary(self) -> str:
        """Say all measures in one line, those of sexes and corpora too."""
        return in_words(self.metrics)


def keep(folder: Path, network: F0Network | ContentNetwork, record: Mapping[str, Any]) -> None:
    """Write a network into a hidden folder, then give it its name in one move.

    Args:
        folder: new; if another run made it meanwhile, that one stays.
        network: trained.
        record: what the header says: at least network, contract, arguments, standardiser, measures.

    Raises:
        TrainingError: it cannot be written.
    """
    staging = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    try:
        staging.mkdir(parents=True)
        tensors = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
        said = json.dumps(record, allow_nan=False)
        save_file(tensors, staging / WEIGHTS, metadata={RECORD: said})
        (staging / WEIGHTS).chmod(0o644)  # safetensors keeps it from others
        staging.rename(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(staging, ignore_errors=True)
        if not folder.is_dir():
            raise TrainingError(
                f"{folder}: cannot be written ({error}); expected a folder with room for a few "
                "megabytes; free some space or give another run_root"
            ) from error


def read_record(path: Path | str) -> dict[str, Any]:
    """Return what the header of a kept or shipped network says.

    Args:
        path: the safetensors file, or the folder that holds it.

    Raises:
        WeightsError: the file is missing, damaged or of another kind.
        DataError: the network was trained on another mel-spectrogram.
    """
    path = _file(path)
    try:
        with safe_open(path, framework="pt") as file:
            said: dict[str, Any] = json.loads((file.metadata() or {})[RECORD])
        if said["network"] not in KINDS:
            raise ValueError(f"network is {said['network']!r}")
        contract = said["contract"]
    except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
        raise _refusal(path, error) from error
    require_contract(contract, where=str(path))
    return said


def load_network(path: Path | str, standardiser: Standardiser | None = None) -> Trained:
    """Load a network that was kept, or that comes with the package.

    Args:
        path: the safetensors file, or `<run_root>/auxiliary/<network>_<key>`.
        standardiser: mel statistics under which it will be used; left out, those it was trained
            with.

    Returns:
        The network on the CPU, frozen, with the measures written when it was trained.

    Raises:
        WeightsError: the file is missing or damaged.
        DataError: the network was trained on another mel-spectrogram.
    """
    path = Path(path)
    said = read_record(path)
    try:
        network = KINDS[said["network"]](**said["arguments"])
        state = load_file(_file(path))
        if not all(bool(value.isfinite().all()) for value in state.values()):
            raise ValueError("a weight is not finite")
        network.load_state_dict(state, strict=True)
        own = Standardiser(*(torch.tensor(said["standardiser"][k]) for k in ("mean", "std")))
        metrics = dict(said["measures"])
    except (
        *(OSError, KeyError, TypeError, ValueError, RuntimeError),
        *(SafetensorError, DataError),
    ) as error:
        raise _refusal(path, error) from error
    if standardiser is not None:
        use_under(network, standardiser.to("cpu"), own=own)
    network.requires_grad_(False).eval()
    return Trained(network=network, metrics=metrics, path=path)


def use_under(
    network: F0Network | ContentNetwork, standardiser: Standardiser, *, own: Standardiser
) -> None:
    """Let a network trained under `own` statistics read mels that are standardised with others."""
    network.input_scale.copy_(standardiser.std / own.std)
    network.input_shift.copy_((standardiser.mean - own.mean) / own.std)


def shipped_network(
    name: str, arguments: Mapping[str, int], standardiser: Standardiser
) -> Trained | None:
    """Load the network that comes with the package, if it has the sizes asked for.

    Args:
        name: "f0" or "content".
        arguments: sizes, as the constructor takes them.
        standardiser: mel statistics of the run.

    Returns:
        None if none comes with the package, or one of other sizes.

    Raises:
        WeightsError: the file is damaged.
    """
    if name not in weights.available():
        return None
    path = weights.shipped(name)
    if read_record(path)["arguments"] != dict(arguments):
        return None
    return load_network(path, standardiser)


def _file(path: Path | str) -> Path:
    path = Path(path)
    return path if path.suffix == Path(WEIGHTS).suffix else path / WEIGHTS


def _refusal(path: Path, error: Exception) -> WeightsError:
    return WeightsError(
        f"{path} cannot be loaded ({type(error).__name__}: {error}); expected one network and a "
        "record of it; delete that folder and run notebooks/pretrain.ipynb again, or install the "
        "package again if it came with it"
    )
