"""Training of the source-filter vocoder on the speech of prepared stores, without an adversary.

The filters learn by :func:`energy_score`, the pitch by cross-entropy with WORLD's F0; the two
stacks share nothing. A run that was stopped goes on from its `resume` file, and the end is the
same, bit for bit.
"""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from xfavot import __version__
from xfavot.audio.io import PCM_SCALE
from xfavot.audio.mel import MEL, Standardiser, log_mel, mel_filterbank
from xfavot.audio.source_filter import (
    PITCH_CLASSES,
    PITCH_LOW_HZ,
    PITCH_OCTAVES,
    SourceFilterNetwork,
    SourceFilterVocoder,
    melody,
    read_record,
    save_weights,
)
from xfavot.config import RunConfig, key_of
from xfavot.data import corpora
from xfavot.data.store import Store
from xfavot.errors import CheckpointError, DataError, TrainingError, require_same_shape
from xfavot.models import device_of
from xfavot.training import speech
from xfavot.training.speech import Clip, Log, in_words

# Batches for training the vocoder: crops of waveforms with their mel-spectrogram and WORLD's F0


CROP_FRAMES = 65  # 0.8 s
PITCH_SHIFT = 0.001  # standard deviation in natural-log F0, one draw a crop
PITCH_JITTER = 0.002  # the same, drawn every eighth frame
JITTER_FRAMES = 8
VOICING_FLIPS = 0.03  # share of the frames whose voicing is wrong
GAIN_DB = (-12.0, 6.0)
WIDE_BAND_HZ = 8_500.0  # a recording of 16 kHz has nothing above
NARROW_TOP_HZ = 7_600.0  # the mel-spectrogram ends here
SILENT_BAND = 2e-5  # RMS; rounding to 16 bits leaves 0.5e-5 there


class Batch(NamedTuple):
    """Crops for one step."""

    log_mel: Tensor  # (B, 80, T) log10
    f0: Tensor  # (B, T) Hz, 0 where unvoiced
    said_f0: Tensor  # the same with errors
    waveform: Tensor  # (B, (T - 1) * 300)
    top_hz: Tensor  # (B,) Hz, the end of the recording's band


def crops(clips: Sequence[speech.Clip], *, batch_size: int, seed: int, step: int) -> Batch:
    """Draw crops, every second of speech with the same probability.

    Args:
        clips: clips of at least :data:`CROP_FRAMES` frames.
        batch_size: crops.
        seed, step: of the draw.
    """
    generator = speech.generator_of(seed, step)
    starts = torch.tensor([clip.item.frame_count - CROP_FRAMES + 1 for clip in clips])
    ends = starts.cumsum(0)
    places = (torch.rand(batch_size, generator=generator) * ends[-1]).long()
    rows = torch.searchsorted(ends, places, right=True)
    mels, pitches, waves = [], [], []
    for row, place in zip(rows.tolist(), places.tolist(), strict=True):
        clip = clips[row]
        first = place - int(ends[row] - starts[row])
        frames = slice(clip.item.frame_start + first, clip.item.frame_start + first + CROP_FRAMES)
        sample = clip.item.sample_start + first * MEL.hop
        samples = slice(sample, sample + (CROP_FRAMES - 1) * MEL.hop)
        mels.append(torch.from_numpy(np.asarray(clip.store.mel[frames], np.float32)).T)
        pitches.append(torch.from_numpy(np.array(clip.store.f0[frames])))
        waves.append(torch.from_numpy(np.asarray(clip.store.audio[samples], np.float32)))
    wave = torch.stack(waves) / PCM_SCALE
    gain = torch.empty(batch_size, 1).uniform_(*GAIN_DB, generator=generator) / speech.DB_PER_LOG10
    mel = (torch.stack(mels) + gain[:, :, None]).clamp(min=speech.FLOOR_LOG10)
    f0 = torch.stack(pitches)
    said = with_errors(f0, generator)
    return Batch(mel, f0, said, wave * 10.0**gain, top_of_band(wave))


def with_errors(f0: Tensor, generator: torch.Generator) -> Tensor:
    """Shift and jitter F0 a little and get the voicing of some frames wrong.

    Args:
        f0: (B, T) Hz, 0 where unvoiced.
        generator: source of randomness.

    Returns:
        (B, T) Hz, 0 where said to be unvoiced.
    """
    batch, frames = f0.shape
    knots = torch.randn(batch, 1, frames // JITTER_FRAMES + 2, generator=generator)
    jitter = functional.interpolate(knots, size=frames, mode="linear")[:, 0]
    shift = torch.randn(batch, 1, generator=generator)
    pitch = melody(f0).pitch * (PITCH_JITTER * jitter + PITCH_SHIFT * shift).exp()
    flipped = torch.rand(batch, frames, generator=generator) < VOICING_FLIPS
    return pitch * ((f0 > 0) ^ flipped)


def top_of_band(waveform: Tensor) -> Tensor:
    """Tell how far the band of each recording (B, N) reaches: 12,000 or 7,600 Hz, (B,)."""
    spectrum = torch.fft.rfft(waveform)
    first = int(WIDE_BAND_HZ / MEL.sample_rate * waveform.shape[1])
    power = spectrum[:, first:].abs().square().sum(1) * 2 / waveform.shape[1] ** 2
    wide = power.sqrt() > SILENT_BAND
    return torch.where(wide, MEL.sample_rate / 2, NARROW_TOP_HZ)


# How far two waveforms are apart to the ear, and a score that averaging cannot cheat


RESOLUTIONS = (  # samples: transform, window (Hann), hop
    (MEL.n_fft, 2048, 512),
    (MEL.n_fft, MEL.win, MEL.hop),  # the mel contract's
    (512, 512, 128),
    (256, 240, 60),
)
MEL_RESOLUTION = 1  # which of them makes the mel-spectrogram
FLOOR = 1e-4  # under the logarithm: white noise of this standard deviation (-80 dB)
LINEAR_WEIGHT = 1.0  # on the linear magnitudes beside the logarithmic
MEL_WEIGHT = 4.0  # on the log10 mel beside the magnitudes


@dataclass(frozen=True, slots=True, eq=False)
class Views:
    """A batch of waveforms as the distance sees it.

    Attributes:
        magnitudes: (B, F, T) for each of :data:`RESOLUTIONS`; white noise has those of its
            standard deviation.
        log_mel: (B, 80, T) log10.
    """

    magnitudes: tuple[Tensor, ...]
    log_mel: Tensor


def views(waveform: Tensor) -> Views:
    """Transform (B, N) samples at 24 kHz, N of at least 1025, for :func:`distance`."""
    found = []
    for transform, length, hop in RESOLUTIONS:
        window = _window(length, waveform.device)
        spectrum = torch.stft(waveform, transform, hop, length, window, return_complex=True)
        power = spectrum.real.square() + spectrum.imag.square()
        found.append((power + (0.1 * FLOOR) ** 2).sqrt())
    bank = _bank(waveform.device)
    mel = (bank @ found[MEL_RESOLUTION] + MEL.floor).log10()  # (B, 80, T)
    return Views(tuple(found), mel)


def distance(a: Views, b: Views, top_hz: Tensor) -> Tensor:
    """Compare two batches of waveforms.

    Args:
        a, b: the waveforms' views.
        top_hz: (B,) Hz; magnitudes above are not compared.

    Returns:
        (B,): mean absolute difference of the natural logarithms of the magnitudes, that of the
        magnitudes relative to their mean (both averaged over the resolutions), and that of the
        log10 mels, weighted.

    Raises:
        ShapeError: the shapes differ.
    """
    require_same_shape("log mels", a.log_mel, b.log_mel)
    total = a.log_mel.new_zeros(a.log_mel.shape[0])
    for x, y in zip(a.magnitudes, b.magnitudes, strict=True):
        bins = x.shape[1]
        hz = torch.linspace(0.0, MEL.sample_rate / 2, bins, device=x.device)
        share = (hz <= top_hz[:, None]).to(x.dtype)
        share = share / share.sum(1, keepdim=True)  # (B, F), sums to one
        log = ((x + FLOOR).log() - (y + FLOOR).log()).abs().mean(2)  # (B, F)
        linear = (x - y).abs().mean(2)
        level = (share * (x + y).mean(2)).sum(1, keepdim=True).detach() / 2 + FLOOR
        total = total + (share * (log + LINEAR_WEIGHT * linear / level)).sum(1)
    mel = (a.log_mel - b.log_mel).abs().mean((1, 2))
    return total / len(RESOLUTIONS) + MEL_WEIGHT * mel


def energy_score(first: Tensor, second: Tensor, truth: Tensor, top_hz: Tensor) -> Tensor:
    """Generalised energy distance from two independent outputs for one input.

    Args:
        first, second: (B, N), made with different randomness.
        truth: (B, N).
        top_hz: as in :func:`distance`.

    Returns:
        Scalar; lowest on average where the outputs are distributed as the truth is.

    Raises:
        ShapeError: the shapes differ.
    """
    a, b, x = views(first), views(second), views(truth)
    near = distance(a, x, top_hz) + distance(b, x, top_hz)
    return (near - distance(a, b, top_hz)).mean()


@lru_cache(maxsize=16)
def _window(length: int, device: torch.device) -> Tensor:
    """Hann window of unit energy."""
    with torch.inference_mode(mode=False):
        window = torch.hann_window(length, device=device)
        return window / window.square().sum().sqrt()


@lru_cache(maxsize=4)
def _bank(device: torch.device) -> Tensor:
    """Mel filterbank (80, 1025) that undoes the window's scale."""
    with torch.inference_mode(mode=False):
        energy = torch.hann_window(MEL.win).square().sum().sqrt()
        return (mel_filterbank() * energy).to(device)


PITCH_WEIGHT, VOICING_WEIGHT = 1.0, 2.0  # beside the energy score; of a stack of their own
WEIGHT_DECAY = 1.0e-2
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

    def losses(step: int) -> dict[str, Tensor]:
        batch = crops(clips, batch_size=batch_size, seed=seed, step=step)
        terms = _losses(network, batch, speech.generator_of(seed + 1, step), device)
        loss = terms["score"] + PITCH_WEIGHT * terms["pitch"] + VOICING_WEIGHT * terms["voicing"]
        return {"loss": loss, **terms}

    numbers = range(so_far["step"] + 1, steps + 1)
    loop = speech.optimise(
        "vocoder", network, losses, optimizer, steps=numbers, lr=lr, lines=LINES, on_log=on_log
    )
    for step, terms in loop:
        so_far |= {"step": step, "cpu_s": time.process_time() - began[0]}
        so_far["wall_s"] = time.time() - began[1]
        if terms:
            del terms["loss"]
            so_far["losses"].append({"step": step, **terms})
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
    heard = speech.augment(batch.log_mel, generator).to(device)
    pitch, voicing = pitch_losses(network, heard, f0)
    return {"score": score, "pitch": pitch, "voicing": voicing}


def vocoder_measures(vocoder: SourceFilterVocoder, stores: Sequence[Store]) -> dict[str, float]:
    """Measure copy synthesis on clips not trained on, whole clips one by one.

    Returns:
        For each held-out split with clips: `val/mel_l1` (log10 units), `val/distance`
        (:func:`distance`), `val/clips`.
    """
    found: dict[str, float] = {}
    for split in speech.HELD_OUT:
        clips = _long_enough(speech.held_out(stores, split, needs="f0"))
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


def training_clips(stores: Sequence[Store]) -> list[speech.Clip]:
    """List the clips of the train split that are long enough for a crop and have F0.

    Raises:
        DataError: there is none.
    """
    clips = _long_enough(speech.clips_of(stores, "train", needs="f0"))
    if not clips:
        raise DataError(
            f"the vocoder has no training clip of {CROP_FRAMES} frames with F0 among {len(stores)} "
            "stores; expected at least one; prepare a corpus with speech"
        )
    return clips


def _long_enough(clips: Sequence[speech.Clip]) -> list[speech.Clip]:
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


# Where a trained vocoder is kept, and how it is found again (A28)


RECIPE = 1  # raise when training changes, so that kept weights are not taken for new ones
WEIGHTS, STATE = "source_filter.safetensors", "state.pt"
SECONDS_A_MINUTE = 60


@dataclass(frozen=True, slots=True)
class KeptVocoder:
    """A trained vocoder, where it is kept, and what the header of its weights says."""

    vocoder: SourceFilterVocoder
    path: Path
    record: dict[str, Any]

    @property
    def metrics(self) -> dict[str, float]:
        """Measures on clips not trained on; see :func:`vocoder_measures`."""
        return dict(self.record["measures"])

    def losses(self) -> list[dict[str, float]]:
        """Records of the training: step, score, pitch, voicing."""
        return list(self.record["training"]["losses"])

    def summary(self) -> str:
        """Say the measures in one line."""
        return in_words(self.metrics)


def ensure_vocoder(
    cfg: RunConfig, stores: Sequence[Store], standardiser: Standardiser, on_log: Log | None = None
) -> KeptVocoder:
    """Load the vocoder of a run, or train it (or go on training it) and keep it.

    Args:
        cfg: run_root, seed, `pretrain` and `train.device` are read.
        stores: prepared stores of the run.
        standardiser: mel statistics of the run.
        on_log: receives records of progress: network, step, steps and terms, or a message.

    Raises:
        DataError: no training clip is long enough.
        TrainingError: the loss is not finite, or a file cannot be written.
        CheckpointError: the state of a stopped training is damaged.
        WeightsError: the kept weights are damaged.
    """
    clips, p = training_clips(stores), cfg.pretrain
    schedule: dict[str, Any] = {"steps": p.vocoder_steps, "lr": p.vocoder_lr}
    schedule |= {"batch_size": p.vocoder_batch_size, "seed": cfg.seed}
    used = [store for store in stores if any(clip.store is store for clip in clips)]
    recipe = {
        "recipe": RECIPE,
        "contract": MEL.as_dict(),
        "schedule": schedule,
        "manifests": {store.corpus: store.manifest_hash for store in used},
        "standardiser": [standardiser.mean.tolist(), standardiser.std.tolist()],
    }
    key = key_of(recipe)
    folder = Path(cfg.run_root) / "auxiliary" / f"vocoder_{key}"
    path, state = folder / WEIGHTS, folder / STATE
    found = path.is_file()
    if not found:
        done = train_source_filter(
            used,
            standardiser=standardiser,
            device=device_of(cfg.train.device),
            on_log=on_log,
            resume=state,
            **schedule,
        )
        keep(path, done, clips, used, schedule)
        state.unlink(missing_ok=True)
    kept = load_kept(path)
    if on_log is not None:
        verb = "found" if found else "kept"
        on_log({"message": f"vocoder {verb} in {folder}: {kept.summary()}"})
    return kept


def keep(
    path: Path,
    done: Training,
    clips: Sequence[Clip],
    stores: Sequence[Store],
    schedule: Mapping[str, Any],
) -> None:
    """Write the weights with a record of their training.

    Args:
        path: file `*.safetensors`.
        done: the training.
        clips: what it was trained on.
        stores: where these lie.
        schedule: steps, lr, batch_size, seed.

    Raises:
        TrainingError: the file cannot be written.
    """
    training = {
        "software": f"xfavot {__version__}",
        "data": {store.corpus: _data(store, clips) for store in stores},
        "schedule": dict(schedule),
        "cpu_s": round(done.cpu_s),
        "wall_s": round(done.wall_s),
        "losses": done.losses,
    }
    save_weights(done.network, path, {"training": training, "measures": done.measures})


def load_kept(path: Path | str) -> KeptVocoder:
    """Open the weights of a vocoder with their record.

    Raises:
        WeightsError, DataError: as in :meth:`SourceFilterVocoder.load`.
    """
    return KeptVocoder(SourceFilterVocoder.load(path), Path(path).parent, read_record(path))


def _data(store: Store, clips: Sequence[Clip]) -> dict[str, Any]:
    """What of a store was trained on, and what was left out."""
    used = [clip.item for clip in clips if clip.store is store]
    speakers = {item.speaker for item in used}
    unseen = {item.speaker for item in store.items if item.split == "unseen"}
    samples = sum(item.sample_count for item in used)
    return {
        "licence": corpora.describe(store.corpus).licence,
        "manifest": store.manifest_hash,
        "clips": len(used),
        "speakers": len(speakers),
        "minutes": round(samples / MEL.sample_rate / SECONDS_A_MINUTE, 2),
        "held_out_speakers": sorted(unseen - speakers - {""}),
        "held_out_clips": sum(item.split != "train" for item in store.items),
    }
