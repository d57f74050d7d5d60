"""How fast every vocoder is: seconds of work for a second of sound, on one core, in one run.

Published networks are timed at their published sizes with random weights, since their time does not
depend on what they have learnt; their rows say so. Everything takes turns, as in `speed.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from statistics import median
from typing import Any

import torch

from xfavot.audio.mel import MEL
from xfavot.audio.parallel_wavegan import untrained
from xfavot.audio.vocoder import DEFAULT, Vocoder, vocoder
from xfavot.config import RunConfig
from xfavot.errors import WeightsError
from xfavot.evaluation.speed import Row, Say, take_turns

SECONDS = 2.0  # of sound
RANDOM = "published size, random weights"
SPEECH_MEAN, SPEECH_STD = -2.0, 0.5  # log10, of the mel that is decoded
# Generators of the ParallelWaveGAN project's VCTK models v1 (conf/*.yaml there, 24 kHz, hop 300).
PUBLISHED_SIZES: Mapping[str, tuple[str, dict[str, Any]]] = {
    "multi_band_melgan.v2": (
        "MelGANGenerator",
        {
            "in_channels": 80, "out_channels": 4, "kernel_size": 7, "channels": 384,
            "upsample_scales": [5, 5, 3], "stack_kernel_size": 3, "stacks": 4,
            "use_weight_norm": True, "use_causal_conv": False,
        },
    ),
    "hifigan.v1": (
        "HiFiGANGenerator",
        {
            "in_channels": 80, "out_channels": 1, "channels": 512, "kernel_size": 7,
            "upsample_scales": [5, 5, 4, 3], "upsample_kernel_sizes": [10, 10, 8, 6],
            "resblock_kernel_sizes": [3, 7, 11], "resblock_dilations": [[1, 3, 5]] * 3,
            "use_additional_convs": True, "bias": True, "use_weight_norm": True,
        },
    ),
    "parallel_wavegan.v1": (
        "ParallelWaveGANGenerator",
        {
            "in_channels": 1, "out_channels": 1, "kernel_size": 3, "layers": 30, "stacks": 3,
            "residual_channels": 64, "gate_channels": 128, "skip_channels": 64,
            "aux_channels": 80, "aux_context_window": 2, "dropout": 0.0, "use_weight_norm": True,
            "upsample_net": "ConvInUpsampleNetwork",
            "upsample_params": {"upsample_scales": [4, 5, 3, 5]},
        },
    ),
}  # fmt: skip


def real_time_factors(
    cfg: RunConfig, *, rounds: int = 5, seconds: float = SECONDS, on_log: Say | None = None
) -> list[Row]:
    """Time every vocoder on the same random spectrogram.

    Args:
        cfg: dataset and seed, for the rows.
        rounds: how often each is timed, after a round that does not count.
        seconds: of sound, each time.
        on_log: told what happens, and what cannot be timed.

    Returns:
        One row a vocoder: seconds of CPU time on one core for a second of sound, the median, the
        lowest and the highest round; how many times real time; the ratio to the first row.
    """
    say = on_log or (lambda _: None)
    vocoders = _vocoders(say)
    generator = torch.Generator().manual_seed(cfg.seed)
    frames = round(seconds * MEL.sample_rate / MEL.hop) + 1
    mel = SPEECH_MEAN + SPEECH_STD * torch.randn(MEL.n_mels, frames, generator=generator)
    say(f"timing {len(vocoders)} vocoders, {rounds} rounds of {seconds:g} s of sound")
    calls = {what: partial(made, mel) for what, made in vocoders.items()}
    found = take_turns(calls, rounds=rounds)
    base = median(next(iter(found.values())))
    return [
        {
            "system": system, "task": task, "dataset": cfg.data.dataset, "metric": "rtf",
            "value": median(times) / seconds, "ci_low": None, "ci_high": None, "n": len(times),
            "seed": cfg.seed, "lowest": min(times) / seconds, "highest": max(times) / seconds,
            "per_second": seconds / median(times), "ratio": median(times) / base,
        }
        for (system, task), times in found.items()
    ]  # fmt: skip


def _vocoders(say: Say) -> dict[tuple[str, str], Vocoder]:
    """Everything that can be timed here, by system and task."""
    found: dict[tuple[str, str], Vocoder] = {(DEFAULT, "comes with the package"): vocoder(DEFAULT)}
    found["griffin_lim", "no weights"] = vocoder("griffin_lim")
    for name, (generator, params) in PUBLISHED_SIZES.items():
        try:
            found[name, RANDOM] = untrained(generator, params)
        except WeightsError as error:
            say(f"{name} is not timed: {error}")
    return found
