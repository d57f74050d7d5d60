"""Real people as tensors: the faces and voices of one split at a model's size, with what is known.

Only audio-visual clips of a known speaker and gender are taken, of speakers that have faces and
speech in this split. Pose comes from a made corpus's `factors.json`, where it is exact.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from xfavot.data.items import GENDERS, Item
from xfavot.data.manifest import Store
from xfavot.data.samples import planes, reflected, to_range
from xfavot.errors import DataError

FACTORS = "factors.json"
POSE = ("yaw", "pitch")  # unitless, -1 to 1, as the corpus `mini` draws them
CROP_PLACES = (0.2, 0.8)  # where crops of a clip start: 0 at its beginning, 1 as late as possible


@dataclass(frozen=True, slots=True, eq=False)
class Faces:
    """Faces: x (n, 3, H, W) in [-1, 1]; speaker, gender (n,) codes; pose (n, 2), NaN if unknown."""

    x: Tensor
    speaker: Tensor
    gender: Tensor
    pose: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Voices:
    """Crops of voices: log_mel (n, 80, T) log10; speaker, gender (n,) codes."""

    log_mel: Tensor
    speaker: Tensor
    gender: Tensor


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
    faces: Faces
    clips: tuple[Tensor, ...]
    clip_speaker: Tensor
    transcripts: tuple[str, ...]

    def digest(self) -> str:
        """16 hex digits over all names, samples and labels."""
        found = hashlib.sha256(repr((self.speakers, self.transcripts)).encode())
        faces, clips = self.faces, torch.cat(self.clips, dim=1)
        for part in (self.gender, self.clip_speaker, faces.x, faces.speaker, faces.pose, clips):
            found.update(part.numpy().tobytes())
        return found.hexdigest()[:16]

    def voices(self, frames: int, places: Sequence[float] = CROP_PLACES) -> Voices:
        """Cut crops of fixed length out of every clip.

        Args:
            frames: length of a crop; shorter clips are continued by reflection.
            places: one crop each, see :data:`CROP_PLACES`.
        """
        crops = [crop(clip, frames, place) for clip in self.clips for place in places]
        speaker = self.clip_speaker.repeat_interleave(len(places))
        return Voices(torch.stack(crops), speaker, self.gender[speaker])


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
    found = tuple(sorted(set.intersection(*sets)))
    genders = {item.gender for item in clips if item.speaker in found}
    if len(genders) < len(GENDERS):
        corpora = ", ".join(store.corpus for store in stores) or "no store"
        raise DataError(
            f"evaluation: {corpora} has {len(found)} speakers of gender {sorted(genders)} with "
            f"faces and speech in each of the splits {', '.join(splits)}; expected women and men; "
            "evaluate on an audio-visual corpus such as mini or grid"
        )
    return found


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
    pixels: list[Tensor] = []
    poses: list[Tensor] = []
    clips: list[Tensor] = []
    face_speaker: list[int] = []
    clip_speaker: list[int] = []
    transcripts: list[str] = []
    gender = torch.zeros(len(code), dtype=torch.long)
    for store in stores:
        known = _poses(store)
        for item in store.items:
            if item.split != split or item.speaker not in code or not _usable(item):
                continue
            number = code[item.speaker]
            gender[number] = GENDERS.index(item.gender)
            rows = slice(item.face_start, item.face_start + item.face_count)
            pixels.append(_pixels(store, rows, image_size))
            poses.append(known[rows])
            clips.append(store.log_mel(item))
            face_speaker += [number] * item.face_count
            clip_speaker.append(number)
            transcripts.append(item.transcript)
    speaker = torch.tensor(face_speaker)
    faces = Faces(torch.cat(pixels), speaker, gender[speaker], torch.cat(poses))
    return People(
        speakers=tuple(speakers),
        gender=gender,
        faces=faces,
        clips=tuple(clips),
        clip_speaker=torch.tensor(clip_speaker),
        transcripts=tuple(transcripts),
    )


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
