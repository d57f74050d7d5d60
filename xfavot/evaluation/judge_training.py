"""Training of the judges on real samples, once for a corpus and a model size, then kept.

They are kept in `<run_root>/auxiliary/judge_<key>/` as safetensors with a JSON beside it; the key
hashes everything that the weights follow from.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from xfavot.audio.mel import MEL
from xfavot.data.manifest import Store, mel_statistics
from xfavot.errors import TrainingError, WeightsError
from xfavot.evaluation.judges import FaceJudge, Judges, Reading, VoiceJudge, own_accuracy
from xfavot.evaluation.people import People, crop
from xfavot.identity import key_of
from xfavot.training.labels import augment, generator_of

RECIPE = 1  # raise when training changes, so that kept weights are not taken for new ones
STEPS = {"face": 450, "voice": 300}
BATCH_SIZE = 64
LR = 4.0e-3
WEIGHT_DECAY = 1.0e-2
SEED = 20_000
POSE_WEIGHT = 4.0  # on the L1 of yaw and pitch, beside the two cross-entropies
SHIFT, TURN, ZOOM = 0.06, 0.07, 0.06  # of half a side; radians; share
GAIN, TINT, NOISE = 0.12, 0.05, 0.06  # share, share a channel, of a range of 2
BLURRED = 0.6  # share of the samples
SMOOTHED = 0.5  # share of the mels
MEL_NOISE = 0.1  # log10
WEIGHTS, RECORD = "model.safetensors", "judge.json"

Log = Callable[[str], None]
Loss = Callable[[nn.Module, torch.Generator], Tensor]


def ensure_judges(
    stores: Sequence[Store],
    train: People,
    held_out: People,
    *,
    frames: int,
    folder: Path,
    device: torch.device | str = "cpu",
    on_log: Log | None = None,
) -> Judges:
    """Load the judges of a corpus and size, or train them and keep them.

    Args:
        stores: where the people come from; their mel statistics are taken.
        train, held_out: the same speakers in the training split and in one not trained on; all
            their samples go into the key.
        frames: length of a crop of a voice.
        folder: of kept networks, usually `<run_root>/auxiliary`.
        device: where they are trained and returned.
        on_log: receives a line on what is done.

    Returns:
        The judges, frozen.

    Raises:
        WeightsError: the kept files are damaged.
        TrainingError: they cannot be written.
    """
    size = train.faces.x.shape[-1]
    recipe = {
        "recipe": RECIPE,
        "contract": MEL.as_dict(),
        "speakers": list(train.speakers),
        "image_size": size,
        "frames": frames,
        "steps": STEPS,
        "seed": SEED,
        "people": [train.digest(), held_out.digest()],
    }
    key = key_of(recipe)
    place = folder / f"judge_{key}"
    say = on_log if on_log is not None else _silent
    index = torch.device(device)
    with torch.random.fork_rng(devices=[index] if index.type == "cuda" else []):
        torch.manual_seed(SEED)
        face = FaceJudge(image_size=size, speakers=len(train.speakers))
        voice = VoiceJudge(speakers=len(train.speakers))
        both = nn.ModuleDict({"face": face, "voice": voice})
        if place.is_dir():
            record = _load(place, both)
            both.requires_grad_(False).eval().to(device)
            return Judges(face, voice, record["accuracy"], key)
        voice.calibrate(mel_statistics(list(stores), split="train"))
        both.to(device)
        for name, judge, loss in (
            ("face", face, face_loss(train, device)),
            ("voice", voice, voice_loss(train, frames, device)),
        ):
            say(f"judge of {name}s: training on {len(train.speakers)} speakers")
            _optimise(judge, loss, steps=STEPS[name])
    both.requires_grad_(False).eval().cpu()
    accuracy = own_accuracy(face, voice, held_out.faces, held_out.voices(frames))
    _keep(place, both, {**recipe, "accuracy": accuracy})
    both.to(device)
    return Judges(face, voice, accuracy, key)


def face_loss(train: People, device: torch.device | str) -> Loss:
    """Loss on a batch of augmented training faces."""
    faces = train.faces

    def loss(judge: nn.Module, rng: torch.Generator) -> Tensor:
        rows = torch.randint(len(faces.x), (BATCH_SIZE,), generator=rng)
        x = augment_faces(faces.x[rows], rng).to(device)
        out: Reading = judge(x)
        pose = faces.pose[rows].to(device)
        known = pose.isfinite()
        error = (out.pose - pose.nan_to_num())[known].abs().sum() / known.sum().clamp(min=1)
        named = functional.cross_entropy(out.speaker, faces.speaker[rows].to(device))
        sexed = functional.cross_entropy(out.gender, faces.gender[rows].to(device))
        return named + sexed + POSE_WEIGHT * error

    return loss


def voice_loss(train: People, frames: int, device: torch.device | str) -> Loss:
    """Loss on a batch of augmented crops at random places of training clips."""

    def loss(judge: nn.Module, rng: torch.Generator) -> Tensor:
        rows = torch.randint(len(train.clips), (BATCH_SIZE,), generator=rng)
        places = torch.rand(BATCH_SIZE, generator=rng).tolist()
        chosen = zip(rows.tolist(), places, strict=True)
        mels = torch.stack([crop(train.clips[row], frames, place) for row, place in chosen])
        speaker = train.clip_speaker[rows]
        out: Reading = judge(augment_mels(mels, rng).to(device))
        named = functional.cross_entropy(out.speaker, speaker.to(device))
        return named + functional.cross_entropy(out.gender, train.gender[speaker].to(device))

    return loss


def _spread(count: int, width: float, rng: torch.Generator, channels: int = 1) -> Tensor:
    """(count, channels, 1, 1) evenly in -width to width."""
    return width * (2 * torch.rand(count, channels, 1, 1, generator=rng) - 1)


def augment_faces(x: Tensor, rng: torch.Generator) -> Tensor:
    """Move, blur, tint and roughen faces at random.

    Args:
        x: (B, 3, H, W) in [-1, 1].
        rng: source of randomness.

    Returns:
        (B, 3, H, W), new.
    """
    count, size = len(x), x.shape[-1]
    angle, zoom = _spread(count, TURN, rng).flatten(), 1 + _spread(count, ZOOM, rng).flatten()
    across, down = _spread(count, SHIFT, rng).flatten(), _spread(count, SHIFT, rng).flatten()
    cos, sin = zoom * angle.cos(), zoom * angle.sin()
    matrix = torch.stack(
        [torch.stack([cos, -sin, across], 1), torch.stack([sin, cos, down], 1)], 1
    )  # (B, 2, 3)
    grid = functional.affine_grid(matrix, list(x.shape), align_corners=False)
    x = functional.grid_sample(x, grid, padding_mode="border", align_corners=False)
    for factor in (2, 4):
        small = functional.avg_pool2d(x, factor)
        blurred = functional.interpolate(small, size=(size, size), mode="bilinear")
        amount = torch.rand(count, 1, 1, 1, generator=rng)
        chosen = torch.rand(count, 1, 1, 1, generator=rng) < BLURRED / factor
        x = torch.where(chosen, torch.lerp(x, blurred, amount), x)
    x = x * (1 + _spread(count, GAIN, rng)) + _spread(count, GAIN, rng)
    x = x * (1 + _spread(count, TINT, rng, 3))
    level = torch.rand(count, 1, 1, 1, generator=rng) * NOISE
    return (x + level * torch.randn(x.shape, generator=rng)).clamp(-1, 1)


def augment_mels(log_mel: Tensor, rng: torch.Generator) -> Tensor:
    """Change level and noise, smooth and roughen mels (B, 80, T), log10, at random."""
    x = augment(log_mel, rng)
    smooth = functional.avg_pool2d(
        functional.pad(x.unsqueeze(1), (1, 1, 1, 1), mode="replicate"), 3, stride=1
    ).squeeze(1)
    amount = torch.rand(len(x), 1, 1, generator=rng)
    chosen = torch.rand(len(x), 1, 1, generator=rng) < SMOOTHED
    x = torch.where(chosen, torch.lerp(x, smooth, amount), x)
    level = MEL_NOISE * torch.rand(len(x), 1, 1, generator=rng)
    return x + level * torch.randn(x.shape, generator=rng)


def _optimise(judge: nn.Module, loss: Loss, *, steps: int) -> None:
    """Minimise the loss with AdamW and one cycle of the rate."""
    judge.train()
    optimizer = torch.optim.AdamW(judge.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=LR, total_steps=steps)
    for step in range(steps):
        value = loss(judge, generator_of(SEED, step))
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(value)
        optimizer.step()
        schedule.step()


def _silent(_: str) -> None:
    """Receive a line and drop it."""


def _load(place: Path, both: nn.Module) -> dict[str, Any]:
    """Load kept weights; returns what was written beside them."""
    try:
        record: dict[str, Any] = json.loads((place / RECORD).read_text("utf-8"))
        both.load_state_dict(load_file(place / WEIGHTS), strict=True)
        record["accuracy"] = {name: float(value) for name, value in record["accuracy"].items()}
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise WeightsError(
            f"{place} cannot be loaded ({type(error).__name__}: {error}); expected {WEIGHTS} and "
            f"{RECORD} of the judges; delete that folder, they are trained again"
        ) from error
    return record


def _keep(place: Path, both: nn.Module, record: dict[str, Any]) -> None:
    """Write weights and record into a hidden folder, then give it its name in one move."""
    draft = place.with_name(f".{place.name}.{uuid.uuid4().hex[:8]}")
    try:
        draft.mkdir(parents=True)
        save_file({k: v.contiguous() for k, v in both.state_dict().items()}, draft / WEIGHTS)
        (draft / RECORD).write_text(json.dumps(record, indent=1, allow_nan=False), "utf-8")
        draft.rename(place)
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        if not place.is_dir():  # else another evaluation kept the same judges meanwhile
            raise TrainingError(
                f"{place}: the judges cannot be written ({error}); expected a folder with room "
                "for a megabyte; free some space"
            ) from error
