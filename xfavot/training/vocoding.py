"""Training of the source-filter vocoder on the speech of prepared stores, without an adversary.

The filters learn by the energy score of :mod:`xfavot.losses.spectral`, the pitch by cross-entropy
with WORLD's F0; the two stacks share nothing. Batches come from `vocoder_batches.py`; where the
result is kept is `vocoder_keeping.py`'s business. A run that was stopped goes on from its `resume`
file, and the end is the same, bit for bit.
"""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from xfavot.audio.excitation import melody
from xfavot.audio.mel import Standardiser, log_mel
from xfavot.audio.source_filter import (
    PITCH_CLASSES,
    PITCH_LOW_HZ,
    PITCH_OCTAVES,
    SourceFilterNetwork,
)
from xfavot.audio.source_filter_vocoder import SourceFilterVocoder
from xfavot.data.manifest import Store
from xfavot.errors import CheckpointError, DataError, TrainingError
from xfavot.losses.spectral import distance, energy_score, views
from xfavot.training import labels, measures
from xfavot.training.supervised import Log, rate
from xfavot.training.vocoder_batches import CROP_FRAMES, Batch, crops, top_of_band

PITCH_WEIGHT, VOICING_WEIGHT = 1.0, 2.0  # beside the energy score; of a stack of their own
WEIGHT_DECAY = 1.0e-2
GRADIENT_NORM = 5.0
SAVE_EVERY = 250  # steps
LINES = 40  # records of progress a training
MEASURED_CLIPS = 24  # of a held-out split


@dataclass(frozen=True, slots=True)
class Training:
    """A finished training.

    Args:
        network: frozen, on the CPU, its weights rounded to the half precision they are kept in.
        measures: what :func:`vocoder_measures` found.
        losses: records of step, score, pitch and voicing, those before an interruption too.
        cpu_s, wall_s: seconds spent on the steps, in all.
    """

    network: SourceFilterNetwork
    measures: dict[str, float]
    losses: list[dict[str, float]]
    cpu_s: float
    wall_s: float


def pitch_losses(
    network: SourceFilterNetwork, log_mel: Tensor, f0: Tensor
) -> tuple[Tensor, Tensor]:
    """Cross-entropies of the pitch classes, over voiced frames, and of voicing.

    Args:
        network: whose pitch stack is trained.
        log_mel: (B, 80, T) log10.
        f0: (B, T) Hz, 0 where unvoiced.

    Returns:
        Two scalars.
    """
    logits, voicing = network.pitch_logits(log_mel)
    voiced = f0 > 0
    place = (f0.clamp(min=PITCH_LOW_HZ) / PITCH_LOW_HZ).log2() * (
        (PITCH_CLASSES - 1) / PITCH_OCTAVES
    )
    classes = torch.arange(PITCH_CLASSES, device=f0.device)
    wanted = (-0.5 * (classes - place.unsqueeze(-1)).square()).softmax(-1)  # (B, T, classes)
    cross = -(wanted * logits.log_softmax(-1)).sum(-1)
    pitch = (cross * voiced).sum() / voiced.sum().clamp(min=1)
    return pitch, nn.functional.binary_cross_entropy_with_logits(voicing, voiced.to(voicing.dtype))


def train_source_filter(
    stores: Sequence[Store],
    *,
    standardiser: Standardiser,
    steps: int,
    batch_size: int,
    lr: float,
    seed: int,
    device: torch.device | str = "cpu",
    on_log: Log | None = None,
    resume: Path | None = None,
) -> Training:
    """Train the vocoder on the stores' train split.

    Args:
        stores: prepared stores; those without speech do not count.
        standardiser: mel statistics, kept with the weights.
        steps: length.
        batch_size: crops of 0.8 s a step.
        lr: peak learning rate.
        seed: of the initial weights, the batches and the noise.
        device: where to train; the draws are made on the CPU and are the same everywhere.
        on_log: called about 40 times with network, step, steps and loss.
        resume: file that keeps the state every 250 steps and is gone on from if it exists.

    Raises:
        DataError: no training clip is long enough.
        TrainingError: the loss is not finite, or the state cannot be written.
        CheckpointError: the resume file is damaged or of another training.
    """
    clips = training_clips(stores)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = SourceFilterNetwork(standardiser=standardiser.to("cpu"))
    network.to(device).train()
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=lr, betas=(0.9, 0.99), weight_decay=WEIGHT_DECAY
    )
    settings = {"steps": steps, "batch_size": batch_size, "lr": lr, "seed": seed}
    settings |= {"clips": len(clips)}
    so_far: dict[str, Any] = {"step": 0, "losses": [], "cpu_s": 0.0, "wall_s": 0.0}
    if resume is not None and resume.is_file():
        so_far = _restore(resume, network, optimizer, settings)
    began = time.process_time() - so_far["cpu_s"], time.time() - so_far["wall_s"]
    every = max(1, steps // LINES)
    for step in range(so_far["step"] + 1, steps + 1):
        optimizer.param_groups[0]["lr"] = rate(step, steps=steps, lr=lr)
        batch = crops(clips, batch_size=batch_size, seed=seed, step=step)
        terms = _losses(network, batch, labels.generator_of(seed + 1, step), device)
        loss = terms["score"] + PITCH_WEIGHT * terms["pitch"] + VOICING_WEIGHT * terms["voicing"]
        if not bool(torch.isfinite(loss)):
            raise TrainingError(
                f"vocoder: the loss is {loss.detach():g} at step {step}; expected a finite number; "
                "lower pretrain.vocoder_lr"
            )
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(network.parameters(), GRADIENT_NORM)
        optimizer.step()
        so_far |= {"step": step, "cpu_s": time.process_time() - began[0]}
        so_far["wall_s"] = time.time() - began[1]
        if step % every == 0 or step == steps:
            record = {name: float(term.detach()) for name, term in terms.items()}
            so_far["losses"].append({"step": step, **record})
            if on_log is not None:
                total = {"loss": float(loss.detach())}
                on_log({"network": "vocoder", "step": step, "steps": steps, **total, **record})
        if resume is not None and (step % SAVE_EVERY == 0 or step == steps):
            _save(resume, network, optimizer, settings, so_far)
    network.load_state_dict({k: v.half().float() for k, v in network.state_dict().items()})
    network.to("cpu").requires_grad_(False).eval()
    found = vocoder_measures(SourceFilterVocoder(network), stores)
    return Training(network, found, so_far["losses"], so_far["cpu_s"], so_far["wall_s"])


def _losses(
    network: SourceFilterNetwork,
    batch: Batch,
    generator: torch.Generator,
    device: torch.device | str,
) -> dict[str, Tensor]:
    """Return the energy score of two renderings, and the losses of pitch on disturbed mels."""
    log_mel, f0, said_f0, waveform, top_hz = (x.to(device) for x in batch)
    tune = melody(said_f0)
    filters = network.filters(log_mel, tune)
    first, second = (network.render(filters, tune.pitch, generator) for _ in range(2))
    score = energy_score(first, second, waveform, top_hz)
    heard = labels.augment(batch.log_mel, generator).to(device)
    pitch, voicing = pitch_losses(network, heard, f0)
    return {"score": score, "pitch": pitch, "voicing": voicing}


def vocoder_measures(vocoder: SourceFilterVocoder, stores: Sequence[Store]) -> dict[str, float]:
    """Measure copy synthesis on clips not trained on, whole clips one by one.

    Returns:
        For each held-out split with clips: `val/mel_l1` (log10 units), `val/distance`
        (:func:`xfavot.losses.spectral.distance`), `val/clips`.
    """
    found: dict[str, float] = {}
    for split in measures.HELD_OUT:
        clips = _long_enough(measures.held_out(stores, split, needs="f0"))
        clips = clips[:: -(-len(clips) // MEASURED_CLIPS)] if clips else []
        sums = {"mel_l1": 0.0, "distance": 0.0}
        for clip in clips:
            wave = torch.from_numpy(clip.store.waveform(clip.item))
            out = torch.from_numpy(vocoder(clip.log_mel(), length=len(wave)))
            sums["mel_l1"] += float((log_mel(out) - log_mel(wave)).abs().mean())
            top = top_of_band(wave[None])
            sums["distance"] += float(distance(views(out[None]), views(wave[None]), top))
        found |= {f"{split}/{name}": total / len(clips) for name, total in sums.items() if clips}
        if clips:
            found[f"{split}/clips"] = float(len(clips))
    return found


def training_clips(stores: Sequence[Store]) -> list[labels.Clip]:
    """List the clips of the train split that are long enough for a crop and have F0.

    Raises:
        DataError: there is none.
    """
    clips = _long_enough(labels.clips_of(stores, "train", needs="f0"))
    if not clips:
        raise DataError(
            f"the vocoder has no training clip of {CROP_FRAMES} frames with F0 among {len(stores)} "
            "stores; expected at least one; prepare a corpus with speech"
        )
    return clips


def _long_enough(clips: Sequence[labels.Clip]) -> list[labels.Clip]:
    return [clip for clip in clips if clip.item.frame_count >= CROP_FRAMES]


def _save(
    path: Path,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    settings: Mapping[str, Any],
    so_far: Mapping[str, Any],
) -> None:
    """Write the state beside the old one, then put it in its place in one move."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        state = {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save({**state, "settings": dict(settings), "so_far": dict(so_far)}, partial)
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as the latter
        raise TrainingError(
            f"{path}: cannot be written ({error}); expected room for 25 MB; free some space"
        ) from error


def _restore(
    path: Path, network: nn.Module, optimizer: torch.optim.Optimizer, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Load the state; return step, losses and seconds so far."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state["settings"] != settings:
            raise CheckpointError(
                f"{path} is of another training: {state['settings']}; expected {dict(settings)}; "
                "remove it"
            )
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        return {name: state["so_far"][name] for name in ("step", "losses", "cpu_s", "wall_s")}
    except CheckpointError:
        raise
    except (
        *(OSError, RuntimeError, KeyError, TypeError, ValueError, EOFError),
        pickle.UnpicklingError,
    ) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}); expected the state of a vocoder training; remove it"
        ) from error
