"""Classifiers of real faces and voices that read what a converted one shows.

They are trained on the real training split alone, at the model's size, independently of the model,
and say beside every figure how well they read real samples not trained on. Augmentation (shift,
blur, noise, colour, level) keeps them from depending on details that a generator does not render.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from xfavot.audio.mel import MEL, Standardiser
from xfavot.config import key_of
from xfavot.data.batches import planes, reflected, to_range
from xfavot.data.store import GENDERS, Item, Store, mel_statistics
from xfavot.errors import DataError, WeightsError
from xfavot.evaluation.rows import writing
from xfavot.files import whole
from xfavot.training.speech import augment, generator_of

SPLITS = ("train", "val")  # to learn from, and to say how well
FACTORS = "factors.json"
POSE = ("yaw", "pitch")  # unitless, -1 to 1, as the corpus `mini` draws them
CROP_PLACES = (0.2, 0.8)  # where crops of a clip start: 0 at its beginning, 1 as late as possible


class Labelled(NamedTuple):
    """Samples x (n, ...) with what is known of each.

    Faces are (n, 3, H, W) in [-1, 1], crops of voices (n, 80, T) log10 mels. Speaker and gender are
    (n,) codes; pose is (n, 2), NaN if unknown, and (n, 0) of voices.
    """

    x: Tensor
    speaker: Tensor
    gender: Tensor
    pose: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class People:
    """Everybody in one split.

    Args:
        speakers: names; their position is the speaker code.
        gender: (K,) codes of the speakers, 0 = f, 1 = m.
        faces: every stored face.
        clips: whole clips, (80, T) log10 mel each, with their speakers and transcripts.
    """

    speakers: tuple[str, ...]
    gender: Tensor
    faces: Labelled
    clips: tuple[Tensor, ...]
    clip_speaker: Tensor
    transcripts: tuple[str, ...]

    def digest(self) -> str:
        """16 hex digits over all names, samples and labels."""
        digest = hashlib.sha256(repr((self.speakers, self.transcripts)).encode())
        faces, clips = self.faces, torch.cat(self.clips, dim=1)
        for part in (self.gender, self.clip_speaker, faces.x, faces.speaker, faces.pose, clips):
            digest.update(part.numpy().tobytes())
        return digest.hexdigest()[:16]

    def voices(self, frames: int, places: Sequence[float] = CROP_PLACES) -> Labelled:
        """Cut crops of fixed length out of every clip.

        Args:
            frames: length of a crop; shorter clips are continued by reflection.
            places: one crop each, see :data:`CROP_PLACES`.
        """
        crops = torch.stack([crop(clip, frames, place) for clip in self.clips for place in places])
        speaker = self.clip_speaker.repeat_interleave(len(places))
        return Labelled(crops, speaker, self.gender[speaker], crops.new_empty(len(crops), 0))


def crop(clip: Tensor, frames: int, place: float) -> Tensor:
    """Cut (80, frames) out of a clip (80, T); ``place`` is 0 at its beginning, 1 at its end."""
    count = clip.shape[1]
    if count < frames:
        return clip[:, torch.from_numpy(reflected(count, frames))]
    first = round(place * (count - frames))
    return clip[:, first : first + frames]


def speakers_of(stores: Sequence[Store], splits: Sequence[str]) -> tuple[str, ...]:
    """Speakers with audio-visual clips of known gender in each of the splits, sorted.

    Raises:
        DataError: fewer than two, or only of one gender.
    """
    clips = [item for store in stores for item in store.items if _usable(item)]
    sets = [{item.speaker for item in clips if item.split == split} for split in splits]
    speakers = tuple(sorted(set.intersection(*sets)))
    genders = {item.gender for item in clips if item.speaker in speakers}
    if len(genders) < len(GENDERS):
        corpora = ", ".join(store.corpus for store in stores) or "no store"
        raise DataError(
            f"evaluation: {corpora} has {len(speakers)} speakers of gender {sorted(genders)} with "
            f"faces and speech in each of the splits {', '.join(splits)}; expected women and men; "
            "evaluate on an audio-visual corpus such as mini or grid"
        )
    return speakers


def people_of(
    stores: Sequence[Store], split: str, *, speakers: Sequence[str], image_size: int
) -> People:
    """Read the faces and clips of some speakers in one split.

    Args:
        stores: prepared stores.
        split: "train", "val" or "unseen".
        speakers: who, from :func:`speakers_of`.
        image_size: pixels a side; divides the stored size.

    Raises:
        DataError: the stored faces cannot be brought to this size.
    """
    code = {speaker: number for number, speaker in enumerate(speakers)}
    gender = torch.zeros(len(code), dtype=torch.long)
    pixels, poses, codes, clips = [], [], [], []
    for store in stores:
        pose = _poses(store)
        for item in store.items:
            if item.split == split and item.speaker in code and _usable(item):
                codes.append(code[item.speaker])
                gender[codes[-1]] = GENDERS.index(item.gender)
                rows = slice(item.face_start, item.face_start + item.face_count)
                pixels.append(_pixels(store, rows, image_size))
                poses.append(pose[rows])
                clips.append((store.log_mel(item), item.transcript))
    clip_speaker = torch.tensor(codes)
    speaker = clip_speaker.repeat_interleave(torch.tensor([len(x) for x in pixels]))
    mels, transcripts = zip(*clips, strict=True)
    faces = Labelled(torch.cat(pixels), speaker, gender[speaker], torch.cat(poses))
    return People(tuple(speakers), gender, faces, mels, clip_speaker, transcripts)


def _usable(item: Item) -> bool:
    known = bool(item.speaker) and item.gender in GENDERS
    return known and item.face_count > 0 and item.frame_count > 0


def _pixels(store: Store, rows: slice, size: int) -> Tensor:
    """Read faces and bring them to (n, 3, size, size) in [-1, 1] as training does."""
    if store.image_size % size:
        raise DataError(
            f"evaluation: {store.corpus} stores faces of {store.image_size} pixels, the model has "
            f"{size}; expected a whole multiple; prepare the corpus at another image_size"
        )
    faces = store.faces[rows]
    pixels = np.empty((len(faces), 3, size, size), np.uint8)
    for face, out in zip(faces, pixels, strict=True):
        planes(face, None, out)
    return to_range(torch.from_numpy(pixels))


def _poses(store: Store) -> Tensor:
    """(F, 2) yaw and pitch of every stored face, NaN where unknown."""
    count, file = len(store.faces), store.path / FACTORS
    entries = json.loads(file.read_text("utf-8")).get("faces", []) if file.is_file() else []
    if len(entries) != count:
        entries = [{}] * count
    values = [[float(entry.get(name, "nan")) for name in POSE] for entry in entries]
    return torch.tensor(values, dtype=torch.float32).reshape(count, len(POSE))


FACE_WIDTHS = (16, 32, 48, 64, 96, 96)  # channels after each halving
VOICE_WIDTHS = (16, 32, 48, 64)
FACE_LEAST = 4  # pixels a side at the bottom
DROPOUT = 0.2
AT_ONCE = 128  # samples


class Reading(NamedTuple):
    """What a classifier reads from n samples."""

    speaker: Tensor  # (n, K) logits
    gender: Tensor  # (n, 2) logits
    pose: Tensor  # (n, 2) yaw and pitch; (n, 0) from voices
    features: Tensor  # (n, C) what the logits are linear in


def _stage(inputs: int, outputs: int) -> nn.Sequential:
    """Halve both axes."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class FaceClassifier(nn.Module):
    """Reads speaker, gender and pose from a face.

    Speaker and gender come from averages over places, so that they do not depend on the pose; pose
    comes from a trunk of its own that keeps the places.
    """

    def __init__(self, *, image_size: int, speakers: int) -> None:
        """Make the layers; `image_size` is a power of two from 16 on."""
        super().__init__()
        depth = (image_size // FACE_LEAST).bit_length() - 1
        widths = (3, *FACE_WIDTHS[:depth])
        self.who = nn.Sequential(*map(_stage, widths[:-1], widths[1:]))
        self.where = nn.Sequential(*map(_stage, widths[:-1], widths[1:]))
        self.drop = nn.Dropout(DROPOUT)
        self.speaker = nn.Linear(widths[-1], speakers)
        self.gender = nn.Linear(widths[-1], 2)
        self.pose = nn.Linear(widths[-1] * FACE_LEAST**2, 2)

    def forward(self, x: Tensor) -> Reading:
        """Read faces (n, 3, H, W) in [-1, 1]."""
        features = self.who(x).mean((2, 3))  # (n, C)
        dropped = self.drop(features)
        pose = self.pose(self.drop(self.where(x).flatten(1)))
        return Reading(self.speaker(dropped), self.gender(dropped), pose, features)


class VoiceClassifier(nn.Module):
    """Reads speaker and gender from a crop of a log10 mel-spectrogram.

    Standardises by statistics of its own, so it does not depend on the model's.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, *, speakers: int, mel_bins: int = 80) -> None:
        """Make the layers; the statistics are set by :meth:`calibrate`."""
        super().__init__()
        widths = (1, *VOICE_WIDTHS)
        self.who = nn.Sequential(*map(_stage, widths[:-1], widths[1:]))
        features = VOICE_WIDTHS[-1] * -(-mel_bins // 2 ** len(VOICE_WIDTHS))
        self.drop = nn.Dropout(DROPOUT)
        self.speaker = nn.Linear(features, speakers)
        self.gender = nn.Linear(features, 2)
        self.register_buffer("mean", torch.zeros(mel_bins))
        self.register_buffer("std", torch.ones(mel_bins))

    def calibrate(self, statistics: Standardiser) -> None:
        """Take over the statistics of real training mels."""
        self.mean.copy_(statistics.mean)
        self.std.copy_(statistics.std)

    def forward(self, log_mel: Tensor) -> Reading:
        """Read crops (n, 80, T), log10."""
        x = (log_mel - self.mean[:, None]) / self.std[:, None]
        features = self.who(x.unsqueeze(1)).mean(3).flatten(1)  # (n, C M / 16), mean over time
        dropped = self.drop(features)
        nothing = features.new_zeros(len(features), 0)
        return Reading(self.speaker(dropped), self.gender(dropped), nothing, features)


class Classifiers(NamedTuple):
    """The two classifiers with their own accuracy on real samples not trained on, by name.

    ``accuracy`` holds `face/speaker`, `face/gender`, `voice/speaker`, `voice/gender` (shares) and
    `face/pose` (mean absolute error of yaw and pitch, absent where pose is unknown).
    """

    face: FaceClassifier
    voice: VoiceClassifier
    accuracy: dict[str, float]
    key: str


@torch.no_grad()
def read(classifier: nn.Module, x: Tensor) -> Reading:
    """Let a classifier read samples (n, ...) in portions; the result is on the samples' device."""
    parts = [classifier(part) for part in torch.split(x, AT_ONCE)]
    return Reading(*map(torch.cat, zip(*parts, strict=True)))


def own_accuracy(
    face: FaceClassifier, voice: VoiceClassifier, faces: Labelled, voices: Labelled
) -> dict[str, float]:
    """How well classifiers read real samples; see :class:`Classifiers`."""
    accuracy = {}
    for name, network, samples in (("face", face, faces), ("voice", voice, voices)):
        seen = read(network, samples.x)
        for what in ("speaker", "gender"):
            right = getattr(seen, what).argmax(1) == getattr(samples, what)
            accuracy[f"{name}/{what}"] = float(right.float().mean())
    known = faces.pose.isfinite().all(1)
    if bool(known.any()):
        pose = read(face, faces.x[known]).pose
        accuracy["face/pose"] = float((pose - faces.pose[known]).abs().mean())
    return accuracy


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

Log = Callable[[str], None]
Loss = Callable[[nn.Module, torch.Generator], Tensor]


def classifiers_of(
    stores: Sequence[Store],
    *,
    image_size: int,
    frames: int,
    folder: Path,
    device: torch.device | str = "cpu",
    on_log: Log | None = None,
) -> tuple[Classifiers, People]:
    """Load the classifiers of a corpus and size, or train them on it and keep them.

    Args:
        stores: where the people come from: those of the splits "train" and "val". All their samples
            go into the key, and their mel statistics are taken.
        image_size: pixels a side of faces.
        frames: length of a crop of a voice.
        folder: of kept networks, usually `<run_root>/auxiliary`.
        device: where they are trained and returned.
        on_log: receives a line on what is done.

    Returns:
        The classifiers, frozen, and the people of "val".

    Raises:
        DataError: there are not two sexes of speakers with faces and speech in both splits, or the
            folder cannot be written.
        WeightsError: the kept files are damaged.
    """
    names = speakers_of(stores, SPLITS)
    train, held_out = (
        people_of(stores, split, speakers=names, image_size=image_size) for split in SPLITS
    )
    recipe = {
        "recipe": RECIPE,
        "contract": MEL.as_dict(),
        "speakers": list(names),
        "image_size": image_size,
        "frames": frames,
        "steps": STEPS,
        "seed": SEED,
        "people": [train.digest(), held_out.digest()],
    }
    key = key_of(recipe)
    file = folder / f"judge_{key}.safetensors"
    place = torch.device(device)
    with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []):
        torch.manual_seed(SEED)
        face = FaceClassifier(image_size=image_size, speakers=len(names))
        voice = VoiceClassifier(speakers=len(names))
        both = nn.ModuleDict({"face": face, "voice": voice})
        kept = file.is_file()
        if kept:
            _load(file, both)
        else:
            voice.calibrate(mel_statistics(list(stores), split="train"))
            both.to(device)
            losses = {"face": face_loss(train, device), "voice": voice_loss(train, frames, device)}
            for name, loss in losses.items():
                if on_log:
                    on_log(f"classifier of {name}s: training on {len(names)} speakers")
                _optimise(both[name], loss, steps=STEPS[name])
    both.requires_grad_(False).eval().cpu()
    accuracy = own_accuracy(face, voice, held_out.faces, held_out.voices(frames))
    if not kept:
        _keep(file, both, {**recipe, "accuracy": accuracy})
    both.to(device)
    return Classifiers(face, voice, accuracy, key), held_out


def face_loss(train: People, device: torch.device | str) -> Loss:
    """Loss on a batch of augmented training faces."""
    faces = train.faces

    def loss(classifier: nn.Module, rng: torch.Generator) -> Tensor:
        rows = torch.randint(len(faces.x), (BATCH_SIZE,), generator=rng)
        x = augment_faces(faces.x[rows], rng).to(device)
        out: Reading = classifier(x)
        pose = faces.pose[rows].to(device)
        known = pose.isfinite()
        error = (out.pose - pose.nan_to_num())[known].abs().sum() / known.sum().clamp(min=1)
        named = functional.cross_entropy(out.speaker, faces.speaker[rows].to(device))
        sexed = functional.cross_entropy(out.gender, faces.gender[rows].to(device))
        return named + sexed + POSE_WEIGHT * error

    return loss


def voice_loss(train: People, frames: int, device: torch.device | str) -> Loss:
    """Loss on a batch of augmented crops at random places of training clips."""

    def loss(classifier: nn.Module, rng: torch.Generator) -> Tensor:
        rows = torch.randint(len(train.clips), (BATCH_SIZE,), generator=rng)
        places = torch.rand(BATCH_SIZE, generator=rng).tolist()
        chosen = zip(rows.tolist(), places, strict=True)
        mels = torch.stack([crop(train.clips[row], frames, place) for row, place in chosen])
        speaker = train.clip_speaker[rows]
        out: Reading = classifier(augment_mels(mels, rng).to(device))
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


def _optimise(classifier: nn.Module, loss: Loss, *, steps: int) -> None:
    """Minimise the loss with AdamW and one cycle of the rate."""
    classifier.train()
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=LR, total_steps=steps)
    for step in range(steps):
        value = loss(classifier, generator_of(SEED, step))
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(value)
        optimizer.step()
        schedule.step()


def _load(file: Path, both: nn.Module) -> None:
    """Load kept weights."""
    try:
        both.load_state_dict(load_file(file))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise WeightsError(
            f"{file} cannot be loaded ({type(error).__name__}: {error}); expected the weights of "
            "classifiers of faces and voices; delete that file, they are trained again"
        ) from error


def _keep(file: Path, both: nn.Module, record: dict[str, Any]) -> None:
    """Write the weights whole, with what they are in the file's header."""
    state = {name: value.contiguous() for name, value in both.state_dict().items()}
    with writing(file.parent), whole(file) as draft:
        save_file(state, draft, metadata={"record": json.dumps(record, allow_nan=False)})
