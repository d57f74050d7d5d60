"""Classifiers of real faces and voices that read what a converted one shows.

They are trained on the real training split alone, at the model's size, independently of the model,
and say beside every figure how well they read real samples not trained on. Augmentation (shift,
blur, noise, colour, level) keeps them from depending on details that a generator does not render.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from xfavot.audio.mel import MEL, Standardiser
from xfavot.baselines.training import Model
from xfavot.config import key_of
from xfavot.data.batches import planes, reflected, to_range
from xfavot.data.store import GENDERS, Store, mel_statistics
from xfavot.errors import DataError, refusing
from xfavot.training import speech
from xfavot.weights import recorded

SPLITS = ("train", "val")  # to learn from, and to say how well
FACTORS = "factors.json"
POSE = ("yaw", "pitch")  # unitless, -1 to 1, as the corpus `mini` draws them
CROP_PLACES = (0.2, 0.8)  # where crops of a clip start: 0 at its beginning, 1 as late as possible

Device = torch.device | str


class Labelled(NamedTuple):
    """Samples x (n, ...) with what is known of each.

    Faces are (n, 3, H, W) in [-1, 1], crops of voices (n, 80, T) log10 mels. Speaker and gender are
    (n,) codes; pose is (n, 2), NaN if unknown, and (n, 0) of voices.
    """

    x: Tensor
    speaker: Tensor
    gender: Tensor
    pose: Tensor

    def take(self, rows: Tensor) -> Labelled:
        """Some of the samples."""
        return Labelled(*(part[rows] for part in self))

    def to(self, device: Device) -> Labelled:
        """The samples on a device."""
        return Labelled(*(part.to(device) for part in self))


class People(NamedTuple):
    """Everybody in one split.

    Speakers are names, whose position is the speaker code, with their genders (K,), 0 = f, 1 = m.
    Faces are all stored ones. Clips are whole, (80, T) log10 mel each, with their speakers (n,) and
    transcripts.
    """

    speakers: tuple[str, ...]
    gender: Tensor
    faces: Labelled
    clips: list[Tensor]
    clip_speaker: Tensor
    transcripts: list[str]

    def voices(self, frames: int) -> Labelled:
        """Cut crops of fixed length out of every clip, at :data:`CROP_PLACES`."""
        crops = [crop(clip, frames, place) for clip in self.clips for place in CROP_PLACES]
        speaker = self.clip_speaker.repeat_interleave(len(CROP_PLACES))
        return self.heard(torch.stack(crops), speaker)

    def heard(self, crops: Tensor, speaker: Tensor) -> Labelled:
        """Label crops (n, 80, T) of the voices of speakers (n,)."""
        return Labelled(crops, speaker, self.gender[speaker], torch.empty(len(crops), 0))


def crop(clip: Tensor, frames: int, place: float) -> Tensor:
    """Cut (80, frames) out of a clip (80, T); ``place`` is 0 at its beginning, 1 at its end.

    Shorter clips are continued by reflection.
    """
    count = clip.shape[1]
    if count < frames:
        return clip[:, torch.from_numpy(reflected(count, frames))]
    first = round(place * (count - frames))
    return clip[:, first : first + frames]


def clips_of(stores: Sequence[Store], split: str) -> list[speech.Clip]:
    """Clips of a split with faces and speech of a speaker of known gender."""
    return [
        clip
        for clip in speech.clips_of(stores, split, needs="")
        if clip.item.face_count and clip.item.speaker and clip.item.gender
    ]


def speakers_of(stores: Sequence[Store], splits: Sequence[str]) -> dict[str, str]:
    """Speakers with audio-visual clips in each of the splits, sorted, and their genders.

    Raises:
        DataError: fewer than two, or only of one gender.
    """
    known = [{c.item.speaker: c.item.gender for c in clips_of(stores, split)} for split in splits]
    names = sorted(set.intersection(*map(set, known)))
    genders = {name: known[0][name] for name in names}
    if len(set(genders.values())) < len(GENDERS):
        corpora = ", ".join(store.corpus for store in stores) or "no store"
        raise DataError(
            f"evaluation: {corpora} has {len(names)} speakers of gender "
            f"{sorted(set(genders.values()))} with faces and speech in each of the splits "
            f"{', '.join(splits)}; expected women and men; evaluate on one such as mini or grid"
        )
    return genders


def people_of(
    stores: Sequence[Store], split: str, speakers: Mapping[str, str], image_size: int
) -> People:
    """Read the faces and clips of some speakers in one split.

    Args:
        stores: prepared stores.
        split: "train", "val" or "unseen".
        speakers: who, and their genders, from :func:`speakers_of`.
        image_size: pixels a side of the faces, made smaller as in training.

    Raises:
        DataError: the stored size is no multiple of it.
    """
    clips = [clip for clip in clips_of(stores, split) if clip.item.speaker in speakers]
    if odd := {c.store.corpus for c in clips if c.store.image_size % image_size}:
        raise DataError(
            f"evaluation: the faces of {', '.join(sorted(odd))} are not stored at a multiple of "
            f"{image_size} pixels, the model's size; prepare at another image_size"
        )
    gender = torch.tensor([GENDERS.index(one) for one in speakers.values()])
    clip_speaker = torch.tensor([[*speakers].index(clip.item.speaker) for clip in clips])
    known = {store.corpus: _poses(store) for store in stores}
    pixels, poses = [], []
    for store, item in clips:
        rows = slice(item.face_start, item.face_start + item.face_count)
        poses.append(known[store.corpus][rows])
        for face in store.faces[rows]:
            pixels.append(np.empty((3, image_size, image_size), np.uint8))
            planes(face, None, pixels[-1])
    speaker = clip_speaker.repeat_interleave(torch.tensor([len(one) for one in poses]))
    x = to_range(torch.from_numpy(np.stack(pixels)))
    faces = Labelled(x, speaker, gender[speaker], torch.cat(poses))
    mels, texts = [clip.log_mel() for clip in clips], [clip.item.transcript for clip in clips]
    return People(tuple(speakers), gender, faces, mels, clip_speaker, texts)


def _poses(store: Store) -> Tensor:
    """(F, 2) yaw and pitch of every stored face, NaN where unknown."""
    count, file = len(store.faces), store.path / FACTORS
    faults = (OSError, ValueError, TypeError, AttributeError)
    with refusing(faults, DataError, f"{file} is damaged", "prepare the corpus anew"):
        entries = json.loads(file.read_text("utf-8")).get("faces", []) if file.is_file() else []
        if len(entries) != count:
            entries = [{}] * count
        return torch.tensor([[float(entry.get(name, "nan")) for name in POSE] for entry in entries])


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


def _stages(*widths: int) -> nn.Sequential:
    """Halve both axes once for every width after the first."""
    stages = [
        nn.Sequential(nn.Conv2d(a, b, 3, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU())
        for a, b in pairwise(widths)
    ]
    return nn.Sequential(*stages)


class FaceClassifier(nn.Module):
    """Reads speaker, gender and pose from a face.

    Speaker and gender come from averages over places, so that they do not depend on the pose; pose
    comes from a trunk of its own that keeps the places.
    """

    def __init__(self, *, image_size: int, speakers: int) -> None:
        """Make the layers; `image_size` is a power of two from 16 on."""
        super().__init__()
        widths = FACE_WIDTHS[: (image_size // FACE_LEAST).bit_length() - 1]
        self.who, self.where = _stages(3, *widths), _stages(3, *widths)
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

    Standardises by statistics of its own, those of real training mels, so it does not depend on the
    model's.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, *, speakers: int, statistics: Standardiser | None = None) -> None:
        """Make the layers."""
        super().__init__()
        self.who = _stages(1, *VOICE_WIDTHS)
        features = VOICE_WIDTHS[-1] * -(-MEL.n_mels // 2 ** len(VOICE_WIDTHS))
        self.drop = nn.Dropout(DROPOUT)
        self.speaker = nn.Linear(features, speakers)
        self.gender = nn.Linear(features, 2)
        statistics = statistics or Standardiser.neutral()
        self.register_buffer("mean", statistics.mean)
        self.register_buffer("std", statistics.std)

    def forward(self, log_mel: Tensor) -> Reading:
        """Read crops (n, 80, T), log10."""
        x = (log_mel - self.mean[:, None]) / self.std[:, None]
        features = self.who(x.unsqueeze(1)).mean(3).flatten(1)  # (n, C M / 16), mean over time
        dropped = self.drop(features)
        nothing = features.new_zeros(len(features), 0)
        return Reading(self.speaker(dropped), self.gender(dropped), nothing, features)


class Classifiers(nn.Module):
    """The two classifiers with their own accuracy on real samples not trained on, by name.

    ``accuracy`` holds `face/speaker`, `face/gender`, `voice/speaker`, `voice/gender` (shares) and
    `face/pose` (mean absolute error of yaw and pitch, absent where pose is unknown).
    """

    def __init__(
        self, *, image_size: int, speakers: int, statistics: Standardiser | None = None
    ) -> None:
        """Make the layers of both."""
        super().__init__()
        self.face = FaceClassifier(image_size=image_size, speakers=speakers)
        self.voice = VoiceClassifier(speakers=speakers, statistics=statistics)
        self.accuracy: dict[str, float] = {}
        self.key = ""


@torch.no_grad()
def read(classifier: nn.Module, x: Tensor) -> Reading:
    """Let a classifier read samples (n, ...) in portions; the result is on the samples' device."""
    parts = [classifier(part) for part in torch.split(x, AT_ONCE)]
    return Reading(*map(torch.cat, zip(*parts, strict=True)))


def own_accuracy(classifiers: nn.Module, held_out: Mapping[str, Labelled]) -> dict[str, float]:
    """How well classifiers read real samples; see :class:`Classifiers`."""
    accuracy = {}
    for name, samples in held_out.items():
        seen = read(getattr(classifiers, name), samples.x)
        for what in ("speaker", "gender"):
            right = getattr(seen, what).argmax(1) == getattr(samples, what)
            accuracy[f"{name}/{what}"] = float(right.float().mean())
        error = (seen.pose - samples.pose).abs()[samples.pose.isfinite().all(1)]
        if error.numel():
            accuracy[f"{name}/pose"] = float(error.mean())
    return accuracy


NETWORK = "classifiers of faces and voices"  # in the record of the kept file
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


def classifiers_of(
    model: Model, stores: Sequence[Store], *, device: Device, on_log: Callable[[str], None]
) -> tuple[Classifiers, People]:
    """Load the classifiers of a corpus and size, or train them on it and keep them.

    Args:
        model: the checkpoint, for the sizes of faces and crops; they are kept beside its run, or,
            where it lies elsewhere, in its configuration's `run_root`.
        stores: where the people come from: those of the splits "train" and "val". Their manifests
            go into the key, and their mel statistics are taken.
        device: where they are trained and returned.
        on_log: receives a line on what is done.

    Returns:
        The classifiers, frozen, and the people of "val".

    Raises:
        DataError: there are not two sexes of speakers with faces and speech in both splits.
        TrainingError: the folder cannot be written.
        WeightsError: the kept file is damaged.
    """
    speakers, frames = speakers_of(stores, SPLITS), model.config.model.mel_frames
    sizes = {"image_size": model.config.model.image_size, "speakers": len(speakers)}
    held_out = people_of(stores, "val", speakers, sizes["image_size"])
    recipe = {
        "network": NETWORK,
        "contract": MEL.as_dict(),
        "arguments": sizes,
        "recipe": [RECIPE, SEED, STEPS, frames],
        "manifests": {store.corpus: store.manifest_hash for store in stores},
    }
    key = key_of(recipe)
    path = model.path.resolve()  # of a run; or in the package or a hub, which stay as they are
    of_run = path.parent.name == "checkpoints"
    root = path.parents[2] if of_run else Path(model.config.run_root)
    file = root / "auxiliary" / f"classifiers_{key}.safetensors"
    place = torch.device(device)
    with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []):
        torch.manual_seed(SEED)
        if not file.is_file():
            train = people_of(stores, "train", speakers, sizes["image_size"])
            new = Classifiers(**sizes, statistics=mel_statistics(stores, split="train")).to(place)
            voices = partial(voice_batch, train, frames)
            for name, draw in (("face", partial(face_batch, train)), ("voice", voices)):
                on_log(f"classifier of {name}s: training on {len(speakers)} speakers")
                fit(getattr(new, name), draw, steps=STEPS[name])
            known = {"face": held_out.faces, "voice": held_out.voices(frames)}
            accuracy = own_accuracy(new.eval().cpu(), known)
            recorded.write(file, new, {**recipe, "accuracy": accuracy})
        loaded, said = recorded.load(file, {NETWORK: Classifiers})
    assert isinstance(loaded, Classifiers)
    loaded.accuracy, loaded.key = said["accuracy"], key
    return loaded.to(place), held_out


def fit(classifier: nn.Module, draw: Callable[[torch.Generator], Labelled], *, steps: int) -> None:
    """Minimise the errors on the batches that are drawn, with AdamW and one cycle of the rate."""
    classifier.train()
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=LR, total_steps=steps)
    device = next(classifier.parameters()).device
    for step in range(steps):
        batch = draw(speech.generator_of(SEED, step)).to(device)
        out, known = classifier(batch.x), batch.pose.isfinite()
        named = functional.cross_entropy(out.speaker, batch.speaker)
        sexed = functional.cross_entropy(out.gender, batch.gender)
        error = (out.pose - batch.pose.nan_to_num())[known].abs().sum() / known.sum().clamp(min=1)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(named + sexed + POSE_WEIGHT * error)
        optimizer.step()
        schedule.step()


def face_batch(train: People, rng: torch.Generator) -> Labelled:
    """Draw training faces, augmented."""
    batch = train.faces.take(torch.randint(len(train.faces.x), (BATCH_SIZE,), generator=rng))
    return batch._replace(x=augment_faces(batch.x, rng))


def voice_batch(train: People, frames: int, rng: torch.Generator) -> Labelled:
    """Draw crops at random places of training clips, augmented."""
    rows = torch.randint(len(train.clips), (BATCH_SIZE,), generator=rng)
    chosen = zip(rows.tolist(), torch.rand(BATCH_SIZE, generator=rng).tolist(), strict=True)
    mels = torch.stack([crop(train.clips[row], frames, place) for row, place in chosen])
    return train.heard(augment_mels(mels, rng), train.clip_speaker[rows])


def _spread(count: int, width: float, rng: torch.Generator, channels: int = 1) -> Tensor:
    """(count, channels, 1, 1) evenly in -width to width."""
    return width * (2 * torch.rand(count, channels, 1, 1, generator=rng) - 1)


def augment_faces(x: Tensor, rng: torch.Generator) -> Tensor:
    """Move, blur, tint and roughen faces (B, 3, H, W) in [-1, 1] at random."""
    count, size = len(x), x.shape[-1]
    angle, zoom, across, down = (
        _spread(count, width, rng).flatten() for width in (TURN, ZOOM, SHIFT, SHIFT)
    )
    cos, sin = (1 + zoom) * angle.cos(), (1 + zoom) * angle.sin()
    matrix = torch.stack([cos, -sin, across, sin, cos, down], 1).view(-1, 2, 3)
    grid = functional.affine_grid(matrix, list(x.shape), align_corners=False)
    x = functional.grid_sample(x, grid, padding_mode="border", align_corners=False)
    for factor in (2, 4):
        small = functional.avg_pool2d(x, factor)
        blurred = functional.interpolate(small, (size, size), mode="bilinear")
        x = _mixed(x, blurred, BLURRED / factor, rng)
    x = x * (1 + _spread(count, GAIN, rng)) + _spread(count, GAIN, rng)
    x = x * (1 + _spread(count, TINT, rng, 3))
    return _roughened(x, NOISE, rng).clamp(-1, 1)


def augment_mels(log_mel: Tensor, rng: torch.Generator) -> Tensor:
    """Change level and noise, smooth and roughen mels (B, 80, T), log10, at random."""
    x = speech.augment(log_mel, rng).unsqueeze(1)
    padded = functional.pad(x, (1, 1, 1, 1), mode="replicate")
    x = _mixed(x, functional.avg_pool2d(padded, 3, stride=1), SMOOTHED, rng)
    return _roughened(x, MEL_NOISE, rng).squeeze(1)


def _mixed(x: Tensor, other: Tensor, share: float, rng: torch.Generator) -> Tensor:
    """Mix something into a share of samples (B, C, H, W), each by an amount of its own."""
    amount, chosen = (torch.rand(len(x), 1, 1, 1, generator=rng) for _ in range(2))
    return torch.where(chosen < share, torch.lerp(x, other, amount), x)


def _roughened(x: Tensor, most: float, rng: torch.Generator) -> Tensor:
    """Add noise to samples (B, C, H, W), each at a level of its own."""
    level = most * torch.rand(len(x), 1, 1, 1, generator=rng)
    return x + level * torch.randn(x.shape, generator=rng)
