"""Folders laid out as the ParallelWaveGAN project publishes its models, with random weights.

from tests.unit.vocoder_factory import make_weights
folder = make_weights(tmp_path / "w", "hifigan", thin=True, fmax=8000)
"""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from xfavot.audio.parallel_wavegan import _package
from xfavot.errors import WeightsError

PUBLISHED = yaml.safe_load(Path(__file__).with_name("parallel_wavegan.yaml").read_text())
FEATURES: dict[str, Any] = PUBLISHED["features"]
GENERATORS: dict[str, dict[str, Any]] = PUBLISHED["generators"]
THIN = {  # fewer channels, the same kernels
    "parallel_wavegan": {"residual_channels": 8, "gate_channels": 8, "skip_channels": 8},
    "multi_band_melgan": {"channels": 80},
    "hifigan": {"channels": 32},
}
LOUDNESS = {"ParallelWaveGANGenerator": 1.5, "HiFiGANGenerator": 1.2}  # of the weight vectors
KINDS = tuple(GENERATORS)


def vocoder_package() -> Any:
    """The `parallel_wavegan` package; the test skips where it is not installed."""
    try:
        return _package()
    except WeightsError as error:
        pytest.skip(str(error))


def make_weights(
    folder: Path,
    kind: str,
    *,
    thin: bool = False,
    seed: int = 0,
    zip_file: bool = True,
    generator: dict[str, Any] | None = None,
    **settings: Any,
) -> Path:
    """Write checkpoint-400000steps.pkl, config.yml and stats.h5.

    Args:
        folder: where to; made.
        kind: one of :data:`KINDS`.
        thin: few channels, for quick tests of lengths and seams.
        seed: seed of the weights and statistics.
        zip_file: torch's format since 1.6; the older one otherwise.
        generator: changes to `generator_params`.
        settings: changes to the rest of config.yml.
    """
    config = copy.deepcopy({**FEATURES, **GENERATORS[kind], **settings})
    params = config["generator_params"]
    params.update(THIN[kind] if thin else {})
    params.update(generator or {})
    folder.mkdir(parents=True)
    (folder / "config.yml").write_text(yaml.safe_dump(config))
    file = folder / "checkpoint-400000steps.pkl"
    torch.save(trained(config, seed), file, _use_new_zipfile_serialization=zip_file)
    rng = np.random.default_rng(seed)
    write_stats(folder / "stats.h5", rng.normal(-2.0, 0.5, 80), rng.uniform(0.3, 0.8, 80))
    return folder


def trained(config: dict[str, Any], seed: int) -> dict[str, Any]:
    """What the project's trainer saves: the networks, and what goes on with training."""
    models = vocoder_package().models
    params = {k.replace("kernal", "kernel"): v for k, v in config["generator_params"].items()}
    name = config.get("generator_type", "ParallelWaveGANGenerator")
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        network = getattr(models, name)(**copy.deepcopy(params))
        for key, value in network.state_dict().items():
            if key.endswith("weight_g") and value.dim() == 3:
                value.fill_(LOUDNESS.get(name, 0.7))  # every layer loud enough to compare
            elif key.endswith("bias"):
                value.normal_(0.0, 0.05)
    moments = {"step": 1, "exp_avg": torch.zeros(3), "exp_avg_sq": torch.ones(3)}
    groups = [{"lr": 1e-4, "betas": (0.9, 0.999), "buffer": [[None, 2.5, 1]], "params": [0]}]
    return {
        "optimizer": {"generator": {"state": {0: moments}, "param_groups": groups}},
        "scheduler": {"generator": {"milestones": Counter({200000: 1}), "gamma": 0.5}},
        "steps": 400000,
        "epochs": 61,
        "model": {"generator": network.state_dict(), "discriminator": {"w": torch.ones(2)}},
    }


def write_stats(file: Path, mean: np.ndarray, scale: np.ndarray) -> None:
    """Write the statistics as the project does, as HDF5 or as one array."""
    if file.suffix == ".npy":
        np.save(file, np.stack([mean, scale]).astype(np.float32))
        return
    h5py = pytest.importorskip("h5py")
    with h5py.File(file, "w") as table:
        table["mean"] = mean.astype(np.float32)
        table["scale"] = scale.astype(np.float32)


def speech_like(frames: int, seed: int = 1) -> torch.Tensor:
    """(80, T) smooth log10 mel."""
    generator = torch.Generator().manual_seed(seed)
    rough = torch.randn(1, 80, frames + 6, generator=generator)
    return torch.nn.functional.avg_pool1d(rough, 7, stride=1)[0] * 1.5 - 2.0
