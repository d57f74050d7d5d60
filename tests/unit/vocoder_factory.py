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

FEATURES = {
    "sampling_rate": 24000,
    "fft_size": 2048,
    "hop_size": 300,
    "win_length": 1200,
    "window": "hann",
    "num_mels": 80,
    "fmin": 80,
    "fmax": 7600,
    "global_gain_scale": 1.0,
    "trim_silence": False,
    "format": "hdf5",
    "version": "0.5.1",
}
GENERATORS: dict[str, dict[str, Any]] = {
    "parallel_wavegan": {  # written before the other generators: no generator_type
        "generator_params": {
            "in_channels": 1,
            "out_channels": 1,
            "kernel_size": 3,
            "layers": 30,
            "stacks": 3,
            "residual_channels": 64,
            "gate_channels": 128,
            "skip_channels": 64,
            "aux_channels": 80,
            "aux_context_window": 2,
            "dropout": 0.0,
            "use_weight_norm": True,
            "upsample_net": "ConvInUpsampleNetwork",
            "upsample_params": {"upsample_scales": [4, 5, 3, 5]},
        }
    },
    "multi_band_melgan": {
        "generator_type": "MelGANGenerator",
        "generator_params": {
            "in_channels": 80,
            "out_channels": 4,
            "kernel_size": 7,
            "channels": 384,
            "upsample_scales": [5, 5, 3],
            "stack_kernel_size": 3,
            "stacks": 4,
            "use_weight_norm": True,
            "use_causal_conv": False,
        },
    },
    "hifigan": {
        "generator_type": "HiFiGANGenerator",
        "generator_params": {
            "in_channels": 80,
            "out_channels": 1,
            "channels": 512,
            "kernel_size": 7,
            "upsample_scales": [5, 5, 4, 3],
            "upsample_kernal_sizes": [10, 10, 8, 6],  # spelt so in the published settings
            "resblock_kernel_sizes": [3, 7, 11],
            "resblock_dilations": [[1, 3, 5], [1, 3, 5], [1, 3, 5]],
            "use_additional_convs": True,
            "bias": True,
            "nonlinear_activation": "LeakyReLU",
            "nonlinear_activation_params": {"negative_slope": 0.1},
            "use_weight_norm": True,
        },
    },
}
THIN = {  # fewer channels, the same kernels
    "parallel_wavegan": {"residual_channels": 8, "gate_channels": 8, "skip_channels": 8},
    "multi_band_melgan": {"channels": 80},
    "hifigan": {"channels": 32},
}
LOUDNESS = {
    "ParallelWaveGANGenerator": 1.5,
    "HiFiGANGenerator": 1.2,
}  # length of the weight vectors
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
    torch.save(
        trained(config, seed),
        folder / "checkpoint-400000steps.pkl",
        _use_new_zipfile_serialization=zip_file,
    )
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
                value.fill_(
                    LOUDNESS.get(name, 0.7)
                )  # keeps every layer's output loud enough to compare
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
