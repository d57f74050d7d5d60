"""What one full training step of a preset costs here: seconds and memory, on random inputs."""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import dataclass

import torch

from xfavot.audio.mel import Standardiser
from xfavot.config import RunConfig
from xfavot.data.batches import Batch, Samples
from xfavot.models.content import ContentNetwork
from xfavot.models.f0 import F0Network
from xfavot.models.xfavot import XFaVoT
from xfavot.training import checkpoint
from xfavot.training.step import Networks
from xfavot.training.stores import pick_device
from xfavot.training.supervised import content_shape
from xfavot.training.updates import Updater


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Measured cost of training steps."""

    seconds: list[float]  # one a step, the first includes making the optimisers' state
    peak_bytes: int  # of the whole process, resident
    parameters: list[tuple[str, int]]
    terms: dict[str, float]  # of the last step


def measure_step(cfg: RunConfig, *, steps: int = 1) -> Cost:
    """Run full steps of a configuration on random faces and mels.

    Args:
        cfg: the run; ``model.speakers`` has to be over 0.
        steps: how many.

    Returns:
        The cost; all style sources that the configuration uses are in it.
    """
    device = pick_device(cfg.train.device)
    m, b = cfg.model, cfg.train.batch_size
    torch.manual_seed(cfg.seed)
    zero, one = torch.zeros(m.mel_bins), torch.ones(m.mel_bins)
    n = Networks(
        XFaVoT.from_config(m),
        F0Network.from_config(m),
        ContentNetwork.from_config(m, depth=content_shape(m)[0]),
        Standardiser(zero, one),
    )
    updater = Updater(checkpoint.place(n, device), cfg, guidances=("z", "i", "a"), outputs="ia")
    seconds, terms = [], {}
    first = cfg.train.warmup + 1
    for step in range(first, first + steps):
        batch = _random_batch(b, m.image_size, m.mel_bins, m.mel_frames).to(device)
        started = time.perf_counter()
        terms = {k: float(v) for k, v in updater(batch, step).items()}
        seconds.append(time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Cost(
        seconds=seconds,
        peak_bytes=peak if sys.platform == "darwin" else peak * 1024,
        parameters=n.nets.parameter_table(),
        terms=terms,
    )


def _random_batch(batch_size: int, image_size: int, mel_bins: int, mel_frames: int) -> Batch:
    """Pairs of one speaker a row, women and men in turn."""
    code = torch.arange(batch_size)

    def samples(*shape: int) -> Samples:
        return Samples(x=torch.randn(batch_size, *shape), gender=code % 2, speaker=code, row=code)

    faces = [samples(3, image_size, image_size) for _ in range(3)]
    voices = [samples(1, mel_bins, mel_frames) for _ in range(3)]
    return Batch(
        source_image=faces[0],
        source_audio=voices[0],
        ref_image=faces[1],
        ref_audio=voices[1],
        ref2_image=faces[2],
        ref2_audio=voices[2],
        paired=torch.ones(batch_size, dtype=torch.bool),
    )
