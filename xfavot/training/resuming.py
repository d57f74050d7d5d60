"""Going on from a checkpoint: is it of this run, and everything back in its place."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import torch

from xfavot.config import RunConfig, to_dict
from xfavot.errors import CheckpointError
from xfavot.training import checkpoint
from xfavot.training.updates import Updater

MAY_DIFFER_ON_RESUME = (
    *("name", "data_root", "run_root", "steps", "device"),
    *("log_every", "sample_every", "checkpoint_every", "keep_checkpoints"),
    *("vocoder_steps", "vocoder_lr", "vocoder_batch_size"),
)


def require_same_run(path: Path, state: dict[str, Any], cfg: RunConfig, fingerprint: str) -> None:
    """Refuse to resume from a checkpoint of another configuration or of other data.

    Raises:
        CheckpointError: naming each setting that differs.
    """
    differing = _differences(state["config"], to_dict(cfg))
    if differing:
        raise CheckpointError(
            f"{path} is of another configuration: " + "; ".join(differing) + "; resume with the "
            "parameters of that run, or start a new run without resume"
        )
    if state["data"] != fingerprint:
        raise CheckpointError(
            f"{path} was trained on prepared data {state['data']}; found {fingerprint}; "
            "give the data_root of that run, or start a new run without resume"
        )


def _differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    found: list[str] = []
    for key in sorted(old.keys() | new.keys()):
        if key in MAY_DIFFER_ON_RESUME:
            continue
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += _differences(a, b, f"{prefix}{key}.")
        elif json.dumps(a) != json.dumps(b):
            found.append(f"{prefix}{key} was {a!r}, now {b!r}")
    return found


def restore(path: Path, updater: Updater) -> int:
    """Load weights, averages and optimisers of a checkpoint into an updater.

    Returns:
        The number of finished steps.

    Raises:
        CheckpointError: a file is damaged or does not fit.
    """
    state = checkpoint.read_state(path)
    checkpoint.load_strict(updater.n.nets, path / "model.safetensors")
    checkpoint.load_strict(updater.ema.modules, path / "ema.safetensors")
    checkpoint.load_strict(updater.n.f0, path / "f0.safetensors")
    checkpoint.load_strict(updater.n.content, path / "content.safetensors")
    try:
        optimizers = torch.load(path / "optimizer.pt", map_location="cpu", weights_only=True)
        for name, optimizer in updater.optimizers.items():
            optimizer.load_state_dict(optimizers[name])
    except (OSError, RuntimeError, KeyError, ValueError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"{path / 'optimizer.pt'} cannot be read ({error}); use an older checkpoint"
        ) from error
    return int(state["step"])
