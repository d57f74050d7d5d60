"""Supervised training of the F0 (JDC) and the content (CTC) network (A28, A36, A37).

Lineage (dossier, section 7): 0.1 SmoothL1 of F0 in Hz plus cross-entropy of silence, here L1 of the
classes of pitch plus that of voicing; CTC plus an attention decoder, here CTC alone. Labels
and batches come from `labels.py`; what is kept on disk is `pretrain.py`'s business.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from xfavot.audio.mel import Standardiser
from xfavot.config import ModelConfig
from xfavot.data.manifest import Store
from xfavot.errors import DataError, TrainingError, WeightsError
from xfavot.models.content import BLANK, ContentNetwork
from xfavot.models.f0 import PITCH_CLASSES, F0Network, F0Output, class_of
from xfavot.training import labels, measures
from xfavot.training.augment import Versions

LINES = 20  # records of progress a training
WARMUP_SHARE = 0.1  # of the steps, linear
FINAL_SHARE = 0.02  # of the rate, reached along a cosine
WEIGHT_DECAY = 1.0e-4
GRADIENT_NORM = 5.0
VOICING_WEIGHT = 2.0  # beside the cross-entropy of the pitch
CLASS_BLUR = 1.0  # standard deviation, in classes, of the pitch asked for
LEAP = 0.15  # change of F0 between two frames that is taken for a mistake of WORLD's
CONTENT_SHAPES = {256: (6, 0.2), 128: (4, 0.1), 64: (3, 0.05)}  # least width: depth, dropout
SMALLEST_SHAPE = (1, 0.0)

Log = Callable[[Mapping[str, Any]], None]
N = TypeVar("N", F0Network, ContentNetwork)


def train_f0(
    stores: Sequence[Store],
    *,
    model: ModelConfig,
    standardiser: Standardiser,
    steps: int,
    batch_size: int,
    lr: float,
    seed: int,
    device: torch.device | str = "cpu",
    on_log: Log | None = None,
) -> tuple[F0Network, dict[str, float]]:
    """Train the F0 network on WORLD's labels in the stores' train split.

    Args:
        stores: prepared stores; those without speech do not count.
        model: widths; crops have `model.mel_frames` frames.
        standardiser: mel statistics of the run.
        steps: length.
        batch_size: crops a step.
        lr: peak learning rate.
        seed: of the initial weights and the batches.
        device: where to train.
        on_log: called about 20 times with network, step, steps, loss, pitch, voicing.

    Returns:
        The network, frozen and in evaluation mode, and :func:`measures.f0_measures`.

    Raises:
        DataError: no training clip has speech.
        TrainingError: the loss is not finite.
    """
    clips = labels.clips_of(stores, "train", needs="f0")
    if not clips:
        raise DataError(_no_clips("F0", stores, "speech"))

    speech = Versions(clips, seed=seed)

    def loss(network: F0Network, step: int) -> dict[str, Tensor]:
        log_mel, f0 = labels.f0_batch(
            speech, batch_size=batch_size, frames=model.mel_frames, seed=seed, step=step
        )
        x = standardiser.standardise(log_mel).unsqueeze(1).to(device)
        return f0_loss(network(x), f0.to(device))

    with _own_randomness(seed, device):
        network = F0Network.from_config(model).to(device)
        cast(Any, network).to(memory_format=torch.channels_last)  # a fifth faster; not in the stubs
        _optimise("f0", network, loss, steps=steps, lr=lr, on_log=on_log)
    return network, measures.f0_measures(network, stores, standardiser)


def f0_loss(out: F0Output, f0: Tensor) -> dict[str, Tensor]:
    """Cross-entropy of the pitch over voiced frames, and of voicing.

    Frames whose F0 leaps are left out of the first: there WORLD itself is in doubt.

    Args:
        out: of the network.
        f0: (B, T) Hz, 0 where unvoiced.

    Returns:
        loss, pitch, voicing: scalars.
    """
    voiced = f0 > 0
    leap = (f0[:, 1:] - f0[:, :-1]).abs() > LEAP * f0[:, 1:].minimum(f0[:, :-1])
    leap &= voiced[:, 1:] & voiced[:, :-1]
    beside = functional.pad(leap, (1, 0)) | functional.pad(leap, (0, 1))
    sure = voiced & ~beside
    number = torch.arange(PITCH_CLASSES, device=f0.device)
    off = (number - class_of(f0).unsqueeze(-1)) / CLASS_BLUR
    wanted = (-0.5 * off.square()).softmax(-1)  # (B, T, classes)
    cross = -(wanted * out.classes.log_softmax(-1)).sum(-1)
    pitch = (cross * sure).sum() / sure.sum().clamp(min=1)
    voicing = functional.binary_cross_entropy_with_logits(out.voicing, voiced.to(f0.dtype))
    return {"loss": pitch + VOICING_WEIGHT * voicing, "pitch": pitch, "voicing": voicing}


def train_content(
    stores: Sequence[Store],
    *,
    model: ModelConfig,
    standardiser: Standardiser,
    steps: int,
    batch_size: int,
    lr: float,
    seed: int,
    device: torch.device | str = "cpu",
    on_log: Log | None = None,
) -> tuple[ContentNetwork, dict[str, float]]:
    """Train the content network on the transcripts of the stores' train split.

    Args:
        stores: prepared stores; clips without a transcript do not count.
        model: widths.
        standardiser: mel statistics of the run.
        steps: length.
        batch_size: clips a step.
        lr: peak learning rate.
        seed: of the initial weights, the batches and the dropout.
        device: where to train.
        on_log: called about 20 times with network, step, steps, loss.

    Returns:
        The network, frozen and in evaluation mode, and :func:`measures.content_measures`.

    Raises:
        WeightsError: no training clip has a transcript.
        TrainingError: the loss is not finite.
    """
    clips = labels.clips_of(stores, "train", needs="transcript")
    if not clips:
        raise WeightsError(_no_clips("content", stores, "a transcript"))

    def loss(network: ContentNetwork, step: int) -> dict[str, Tensor]:
        batch = labels.content_batch(clips, batch_size=batch_size, seed=seed, step=step)
        x = standardiser.standardise(batch.log_mel).unsqueeze(1).to(device)
        ctc = functional.ctc_loss(
            network(x).transpose(0, 1),  # (T', B, V)
            batch.targets,
            (batch.frames + 1) // 2,
            batch.lengths,
            blank=BLANK,
            zero_infinity=True,
        )
        return {"loss": ctc}

    with _own_randomness(seed, device):
        depth, dropout = content_shape(model)
        network = ContentNetwork.from_config(model, depth=depth, dropout=dropout).to(device)
        _optimise("content", network, loss, steps=steps, lr=lr, on_log=on_log)
    return network, measures.content_measures(network, stores, standardiser)


def content_shape(model: ModelConfig) -> tuple[int, float]:
    """Return depth and dropout of the content network for a run's widths.

    The lineage's six blocks and dropout of 0.2 are for width 256; narrow networks underfit with so
    much dropout and do not need so many blocks.
    """
    fitting = (v for width, v in CONTENT_SHAPES.items() if model.content_width >= width)
    return next(fitting, SMALLEST_SHAPE)


def rate(step: int, *, steps: int, lr: float) -> float:
    """Return the learning rate of a step (from 1): a linear rise, then a cosine fall."""
    rise = max(1, round(WARMUP_SHARE * steps))
    if step <= rise:
        return lr * step / rise
    done = (step - rise) / max(1, steps - rise)
    return lr * (FINAL_SHARE + (1 - FINAL_SHARE) * 0.5 * (1 + math.cos(math.pi * done)))


def _optimise(
    name: str,
    network: N,
    loss: Callable[[N, int], dict[str, Tensor]],
    *,
    steps: int,
    lr: float,
    on_log: Log | None,
) -> None:
    """Minimise `loss(network, step)["loss"]`, then freeze the network."""
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=lr, weight_decay=WEIGHT_DECAY)
    every = max(1, steps // LINES)
    for step in range(1, steps + 1):
        optimizer.param_groups[0]["lr"] = rate(step, steps=steps, lr=lr)
        terms = loss(network, step)
        if not bool(torch.isfinite(terms["loss"])):
            raise TrainingError(
                f"{name} network: the loss is {terms['loss'].detach():g} at step {step}; expected "
                f"a finite number; lower pretrain.{name}_lr"
            )
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(terms["loss"])
        nn.utils.clip_grad_norm_(network.parameters(), GRADIENT_NORM)
        optimizer.step()
        if on_log is not None and (step % every == 0 or step == steps):
            values = {key: float(value.detach()) for key, value in terms.items()}
            on_log({"network": name, "step": step, "steps": steps, **values})
    network.requires_grad_(False).eval()


@contextmanager
def _own_randomness(seed: int, device: torch.device | str) -> Iterator[None]:
    """Seed weights and dropout inside, and leave the caller's random state as it was."""
    index = torch.device(device)
    devices = [index] if index.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def _no_clips(network: str, stores: Sequence[Store], what: str) -> str:
    corpora = ", ".join(store.corpus for store in stores) or "no store"
    return (
        f"the {network} network has no training clip with {what} in {corpora}; expected at least "
        f"one; prepare mini into the same data root with "
        "papermill notebooks/prepare_data.ipynb out.ipynb -p dataset mini"
    )
