"""Batches for training and evaluation: who is in them, which crop, as tensors.

Paper: Sec. 4 (128x128 faces, 80x192 mels, batch 32). How a batch is spread over corpora, genders
and speakers is not published. Here (A27):

- Genders are balanced. Among the clips of a gender, every corpus that has the role's side is as
  likely as the others, and so is every speaker of that gender inside the corpus.
- First references are one audio-visual speaker in half of the rows, a face beside a voice of the
  same gender in the other half, or whichever of the two the stores allow; corpora are equally
  likely within each half.
- The second reference is drawn like a source; where that gives the first one, it is any other
  clip of the gender, so that in tiny stores speakers with many clips are second a little oftener.

A batch is a pure function of (seed, step), so that a resumed run sees what an uninterrupted one
would have seen.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xfavot.audio.mel import MEL, Standardiser
from xfavot.config import MODALITIES, RunConfig
from xfavot.data.store import SPLITS, Item, Store, mel_statistics, table_of, voiced_speakers
from xfavot.errors import ConfigError, DataError
from xfavot.mini.people import TWIN

FLIP_PROBABILITY = 0.5
CROP_PROBABILITY = 0.5
CROP_AREA = (0.8, 1.0)  # share of the face's area
CROP_LOG_RATIO = (math.log(0.9), math.log(1.1))  # width over height
UNKNOWN = -1  # code of a gender or a speaker, and the row of a side that is missing

Rows = NDArray[np.int64]
Change = tuple[bool, tuple[int, int, int, int]]  # mirrored; top, left, height, width kept


# What a batch holds


@dataclass(frozen=True, eq=False)
class Samples:
    """One role of a batch.

    Args:
        x: images (B, 3, H, W) in [-1, 1], or standardised mels (B, 1, 80, T); float32. Images are
            uint8 until :meth:`to`, so that a quarter of the bytes travels.
        gender: (B,) int64, 0 = f, 1 = m.
        speaker: (B,) int64, position in ``Batches.speakers``, -1 if it is not there.
        row: (B,) int64, position in ``Batches.items``.
        person: (B,) int64, who it is, also without a place in ``Batches.speakers``.
    """

    x: Tensor
    gender: Tensor
    speaker: Tensor
    row: Tensor
    person: Tensor

    def to(self, device: torch.device | str) -> Samples:
        """The same samples on a device, as float32."""
        x, *codes = (value.to(device, non_blocking=True) for value in vars(self).values())
        return Samples(to_range(x) if x.dtype == torch.uint8 else x, *codes)


@dataclass(frozen=True, eq=False)
class Batch:
    """All roles of one step; ``None`` where the stores have no faces, or no voices, at all.

    Row i of the four references has one gender, the target gender of row i; the references "2" are
    other clips of that gender, of any speaker. ``paired`` (B,) bool: the first face and the first
    voice of the row are one speaker of an audio-visual corpus. ``pair_image`` and ``pair_audio``:
    further faces and voices, row by row of one speaker, for L_xm alone (A90). ``twin_source``,
    ``twin_target``, ``twin_ref``: further faces, row by row of a person, of another in the same
    pose, with the same changes, and another face of this other (A96).
    """

    source_image: Samples | None
    source_audio: Samples | None
    ref_image: Samples | None
    ref_audio: Samples | None
    ref2_image: Samples | None
    ref2_audio: Samples | None
    paired: Tensor
    pair_image: Samples | None = None
    pair_audio: Samples | None = None
    twin_source: Samples | None = None
    twin_target: Samples | None = None
    twin_ref: Samples | None = None

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on a device."""
        moved: dict[str, Any] = {n: v if v is None else v.to(device) for n, v in vars(self).items()}
        return Batch(**moved)

    def roles(self) -> dict[str, Samples]:
        """The roles that are filled, by name."""
        return {name: role for name, role in vars(self).items() if isinstance(role, Samples)}


# Changes made to single samples: short clips, augmentation


def reflected(count: int, length: int) -> NDArray[np.int64]:
    """(length,) frame numbers that walk forth and back over a clip of ``count`` frames.

    The ends are not repeated: 3 frames give 0 1 2 1 0 1 2 ...
    """
    period = max(2 * (count - 1), 1)
    place = np.arange(length, dtype=np.int64) % period
    return np.minimum(place, period - place) * (count > 1)


def to_range(pixels: Tensor) -> Tensor:
    """Turn pixels, 0 to 255, into float32 from -1 to 1."""
    return pixels.float().mul_(1.0 / 127.5).sub_(1.0)


def draw_changes(rng: np.random.Generator, count: int, size: int) -> list[Change]:
    """Draw a horizontal flip and a resized crop for each of some square faces.

    Lineage: StarGAN v2's training transform: half of the faces are mirrored, and half of them keep
    only 0.8 to 1 of their area, of ratio 0.9 to 1.1.

    Args:
        rng: the generator of the step.
        count: faces.
        size: pixels a side.
    """
    mirrored = rng.random(count) < FLIP_PROBABILITY
    whole = rng.random(count) >= CROP_PROBABILITY
    area = rng.uniform(*CROP_AREA, count)
    ratio = np.exp(rng.uniform(*CROP_LOG_RATIO, count))
    sides = np.sqrt(np.stack([area / ratio, area * ratio]))  # height, width
    kept = np.where(whole, size, np.minimum(np.rint(size * sides), size))
    corner = np.rint(rng.random((2, count))[::-1] * (size - kept))  # top, left
    boxes = np.concatenate([corner, kept]).astype(np.int64).T.tolist()
    return [(flip, tuple(box)) for flip, box in zip(mirrored.tolist(), boxes, strict=True)]


def planes(face: NDArray[np.uint8], change: Change | None, out: NDArray[np.uint8]) -> None:
    """Write a face as three planes of colour, changed as drawn and made smaller by area averages.

    Args:
        face: (H, H, 3).
        change: of :func:`draw_changes`; crops are brought back to the size bilinearly.
        out: (3, S, S), filled; S divides H.
    """
    if change is not None:
        mirrored, (top, left, height, width) = change
        if (height, width) != face.shape[:2]:
            part = face[top : top + height, left : left + width]
            face = np.asarray(cv2.resize(part, face.shape[1::-1]), np.uint8)  # bilinear
        if mirrored:
            face = np.asarray(cv2.flip(face, 1), np.uint8)
    if len(face) != out.shape[1]:
        small = cv2.resize(face, out.shape[1:], interpolation=cv2.INTER_AREA)
        face = np.asarray(small, np.uint8)
    cv2.split(face, list(out))  # three times as fast as NumPy's transposed copy


# Which clip fills which row: by gender, corpus and speaker


class Pool:
    """Clips of one gender that can fill one role: corpus, then speaker, then clip, each uniform.

    Every corpus is as likely as the others however large it is, and so is every speaker inside it.
    A clip whose speaker is unknown counts as a speaker of its own.

    Args:
        corpora, speakers: (N,) codes of all clips; corpora are numbered in the order of the clips.
        rows: positions of those that belong to the pool, ascending, at least one.
    """

    def __init__(self, corpora: Rows, speakers: Rows, rows: Rows) -> None:
        """Sort the clips; see the class."""
        _, first, place, clips = np.unique(
            speakers[rows], return_index=True, return_inverse=True, return_counts=True
        )
        corpus = corpora[rows[first]]
        order = np.lexsort((first, corpus))  # speakers by corpus, then as they first appear
        self.rows = rows[np.argsort(np.argsort(order)[place], kind="stable")]
        # how many speakers each corpus, and clips each speaker, has; and where they begin
        self._speakers, self._clips = np.unique(corpus, return_counts=True)[1], clips[order]
        self._first_speaker = self._speakers.cumsum() - self._speakers
        self._first_clip = self._clips.cumsum() - self._clips

    def speakers(self, rng: np.random.Generator, count: int) -> Rows:
        """(count,) speakers; those of one corpus repeat only when all of them were drawn."""
        corpora = _uniform(rng, np.full(count, len(self._speakers)))
        drawn = np.empty(count, dtype=np.int64)
        for corpus in np.unique(corpora):
            where = np.flatnonzero(corpora == corpus)
            size = int(self._speakers[corpus])
            rounds = [rng.permutation(size) for _ in range(-(-len(where) // size))]
            drawn[where] = self._first_speaker[corpus] + np.concatenate(rounds)[: len(where)]
        return drawn

    def clips(self, rng: np.random.Generator, speakers: Rows) -> Rows:
        """(n,) one clip of each speaker."""
        return self.rows.take(self._first_clip[speakers] + _uniform(rng, self._clips[speakers]))

    def draw(self, rng: np.random.Generator, count: int) -> Rows:
        """(count,) clips, drawn independently."""
        corpora = _uniform(rng, np.full(count, len(self._speakers)))
        speakers = self._first_speaker[corpora] + _uniform(rng, self._speakers[corpora])
        return self.clips(rng, speakers)


ByGender = dict[int, Pool]


def _balanced_genders(rng: np.random.Generator, available: Sequence[int], count: int) -> Rows:
    """(count,) gender codes in random order, each as often as the others, the odd one at random."""
    order = rng.permutation(np.asarray(available, dtype=np.int64))
    return rng.permutation(np.resize(order, count))


def _draw(rng: np.random.Generator, side: ByGender, genders: Rows, other_than: Rows) -> Rows:
    """(B,) a clip of each row's gender, another one than given unless the pool has only one."""
    drawn = np.full(len(genders), UNKNOWN, dtype=np.int64)
    for gender, pool in side.items():
        where = np.flatnonzero(genders == gender)
        drawn[where] = pool.draw(rng, len(where))
    for row in np.flatnonzero(drawn == other_than):
        clips = side[int(genders[row])].rows
        others = clips[clips != other_than[row]]
        if len(others):
            drawn[row] = rng.choice(others)
    return drawn


def _uniform(rng: np.random.Generator, counts: Rows) -> Rows:
    """One integer below each count."""
    return np.floor(rng.random(len(counts)) * counts).astype(np.int64)


class _Joined(Sequence[Item]):
    """The items of several stores, one after the other."""

    def __init__(self, parts: Sequence[Sequence[Item]]) -> None:
        """Keep them as they are."""
        self.parts, self.ends = parts, np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        """All of them."""
        return int(self.ends[-1])

    def __getitem__(self, i: Any) -> Any:
        """One item."""
        i = range(len(self))[i]
        part = int(np.searchsorted(self.ends, i, "right"))
        return self.parts[part][i - int(self.ends[part])]


STREAMS = (
    *("genders", "sources", "references", "others", "faces", "crops", "augment", "pairs"),
    "twins",
)

Streams = Mapping[str, np.random.Generator]
Load = Callable[[Rows, Rows, Streams], Tensor]


class Batches:
    """Draws the batches of one split from a mixture of stores.

    Clips of unknown gender are left out, since every role needs one.

    Args:
        cfg: the run: pixels a side, which divide the stored size; frames of a crop, up to which
            shorter clips are continued by reflection; rows; the seed, which fixes a batch with the
            step; whether faces of the train split are flipped and cropped at random. The roles of
            a modality that it does not train stay empty; those of the other are the same.
        stores: the mixture, all with faces of one stored size.
        split: "train", "val" or "unseen".
        batch_size: rows, if others than the run's.
        speakers: ids with a code; default, all speakers of the train split with audio, sorted. Of
            more than ``model.speakers``, unless that is 0, the first have one (A91).
        standardiser: mel statistics; default, those of the stores' train split.

    Raises:
        ConfigError: a size that cannot be made from the stored one, or not positive.
        DataError: no store, no usable clip, or a side that the stores have but this split lacks.
    """

    def __init__(
        self,
        cfg: RunConfig,
        stores: Sequence[Store],
        *,
        split: str = "train",
        batch_size: int | None = None,
        speakers: Sequence[str] | None = None,
        standardiser: Standardiser | None = None,
    ) -> None:
        """Index the stores; see the class."""
        self.stores, self.split, self.seed = tuple(stores), split, cfg.seed
        self.image_size, self.mel_frames = cfg.model.image_size, cfg.model.mel_frames
        self.batch_size = cfg.train.batch_size if batch_size is None else batch_size
        self.augment = cfg.data.augment and split == "train"
        self.modalities = cfg.train.modalities
        wanted = split == "train" and cfg.loss.xm > 0
        self.pairs = cfg.train.pairs if wanted else 0
        taught = split == "train" and cfg.loss.twins > 0 and "image" in self.modalities
        self.twins = cfg.train.twins if taught else 0
        self._check_sizes()
        tables = [table_of(store.items) for store in stores]
        names = [table["speakers"].tolist() for table in tables]

        def column(name: str) -> Rows:
            return np.concatenate([np.asarray(table[name], np.int64) for table in tables])

        def coded(codes: Sequence[Sequence[int]]) -> Rows:
            pairs = zip(codes, tables, strict=True)
            return np.concatenate([np.array(c, np.int64)[t["speaker"]] for c, t in pairs])

        self.items: Sequence[Item] = _Joined([store.items for store in stores])
        self._owner = np.repeat(np.arange(len(stores)), [len(store.items) for store in stores])
        every = voiced_speakers(stores) if speakers is None else tuple(speakers)
        self.speakers = every[: cfg.model.speakers or None]
        self.without_code = len(every) - len(self.speakers)
        codes = {speaker: code for code, speaker in enumerate(self.speakers)}
        self._speaker = coded([[codes.get(name, UNKNOWN) for name in own] for own in names])
        self._gender, self._split = column("gender"), column("split")
        parts = ("face_start", "face_count", "frame_start", "frame_count")
        self._parts = np.stack([column(name) for name in parts], axis=1)
        # who a clip counts for: a speaker of its corpus, or itself where the speaker is unknown
        nobody = coded([[name == "" for name in own] for own in names])
        known = column("speaker") + (self._owner << 32)
        self._group = np.where(nobody, -1 - np.arange(len(known)), known)
        self._index()
        if standardiser is None and self._parts[:, 3].any():
            standardiser = mel_statistics(self.stores, split="train")
        self.standardiser = (standardiser or Standardiser.neutral()).to("cpu")

    @property
    def fingerprint(self) -> str:
        """16 hex digits over the manifests of the stores, in their order."""
        joined = ",".join(f"{store.corpus}:{store.manifest_hash}" for store in self.stores)
        return hashlib.sha256(joined.encode()).hexdigest()[:16]

    def batch(self, step: int, part: int = 0, parts: int = 1) -> Batch:
        """Draw a batch.

        Args:
            step: from 0 up.
            part: which of the equal parts of its rows is loaded.
            parts: how many there are; a divisor of the batch size.

        Returns:
            The batch, on the CPU; the same for the same (seed, step), whatever the parts.
        """
        kept = np.arange(self.batch_size).reshape(parts, -1)[part]
        rng = {s: np.random.default_rng([self.seed, step, n]) for n, s in enumerate(STREAMS)}
        target = _balanced_genders(rng["genders"], self._genders, self.batch_size)
        face, voice, paired = self._references(rng["references"], target)
        seen, heard = (kind in self.modalities for kind in MODALITIES)
        images = self._side(rng, self._images, target, face, kept, self._faces if seen else None)
        audios = self._side(rng, self._voices, target, voice, kept, self._mels if heard else None)
        pair = torch.from_numpy(paired[kept])
        more = (
            self._further(rng["pairs"], part, parts) if self.pairs and self._pairs else [None] * 2
        )
        more += self._drawn_twins(step, part, parts) if self.twins else []
        return Batch(images[0], audios[0], images[1], audios[1], images[2], audios[2], pair, *more)

    def waveform(self, row: int) -> NDArray[np.float32]:
        """The whole clip (N,) of a position in `items`, at 24 kHz."""
        return self.stores[int(self._owner[row])].waveform(self.items[row])

    def drawn(self, seed: int) -> Iterator[int]:
        """Yield the positions of all clips of the train split with a voice, in a random order."""
        for row in np.random.default_rng(seed).permutation(len(self.items)).tolist():
            if self.items[row].split == "train" and self.items[row].sample_count:
                yield row

    def crops(self, rows: Sequence[int]) -> Tensor:
        """Read a crop of each of some clips, always the same: (n, 1, 80, T) standardised."""
        rng = {"crops": np.random.default_rng(self.seed)}
        return self._mels(np.array(rows), np.arange(len(rows)), rng)

    def _references(
        self, rng: np.random.Generator, genders: Rows
    ) -> tuple[Rows, Rows, NDArray[np.bool_]]:
        """Draw both references of each row: a speaker with both, or a face beside a voice.

        Args:
            rng: the generator of this role.
            genders: (B,) target genders.

        Returns:
            Clips of the face and of the voice, (B,) each, -1 on a missing side, and whether they
            are one speaker. The two clips of a pair are drawn separately; both kinds of row are
            equally likely where both exist.
        """
        chance = rng.random(len(genders))
        face, voice = np.full((2, len(genders)), UNKNOWN, dtype=np.int64)
        paired = np.zeros(len(genders), dtype=np.bool_)
        for gender in np.unique(genders).tolist():
            apart = gender in self._lone_faces or gender in self._lone_voices
            share = (0.5 if apart else 1.0) if gender in self._pairs else 0.0
            here = genders == gender
            together = np.flatnonzero(here & (chance < share))
            alone = np.flatnonzero(here & (chance >= share))
            if len(together):
                pool = self._pairs[gender]
                speakers = pool.speakers(rng, len(together))
                face[together] = pool.clips(rng, speakers)
                voice[together] = pool.clips(rng, speakers)
                paired[together] = True
            for drawn, side in ((face, self._lone_faces), (voice, self._lone_voices)):
                if gender in side:
                    drawn[alone] = side[gender].draw(rng, len(alone))
        return face, voice, paired

    def _further(self, rng: np.random.Generator, part: int, parts: int) -> list[Samples | None]:
        """Draw further pairs and read the given part of them.

        Nobody is drawn twice before all of the same sex and corpus were.
        """
        genders = _balanced_genders(rng, sorted(self._pairs), self.pairs)
        clips = np.empty((2, self.pairs), dtype=np.int64)
        for gender, pool in self._pairs.items():
            where = np.flatnonzero(genders == gender)
            speakers = pool.speakers(rng, len(where))
            clips[:, where] = [pool.clips(rng, speakers) for _ in MODALITIES]
        kept = np.arange(self.pairs).reshape(parts, -1)[part]
        streams = dict.fromkeys(STREAMS, rng)
        return [
            self._samples(load(rows, kept, streams), rows[kept])
            for load, rows in zip((self._faces, self._mels), clips, strict=True)
        ]

    def _drawn_twins(self, step: int, part: int, parts: int) -> list[Samples | None]:
        """Draw two people of a pose and another face of the second, and read the given part."""
        key = [self.seed, step, STREAMS.index("twins")]
        rng, clips = np.random.default_rng(key), np.empty((3, self.twins), dtype=np.int64)
        for place, group in enumerate(rng.integers(len(self._twins), size=self.twins).tolist()):
            source, target = rng.choice(self._twins[group], 2, replace=False)
            own = self._faces_of[int(self._group[target])]
            clips[:, place] = source, target, rng.choice(own[own != target])
        kept = np.arange(self.twins).reshape(parts, -1)[part]
        found: list[Samples | None] = []
        for role, rows in enumerate(clips):  # the two of a pose are changed alike
            streams = dict.fromkeys(STREAMS, np.random.default_rng([*key, role // 2]))
            found.append(self._samples(self._faces(rows, kept, streams), rows[kept]))
        return found

    def _samples(self, x: Tensor, rows: Rows) -> Samples:
        """What was read of some clips, with their codes."""
        codes = self._gender[rows], self._speaker[rows], rows, self._group[rows]
        return Samples(x, *map(torch.from_numpy, codes))

    def _side(
        self, rng: Streams, side: ByGender, target: Rows, first: Rows, own: Rows, load: Load | None
    ) -> list[Samples | None]:
        """Source, first and second reference of one modality, read together; or only drawn.

        Of all rows, which are drawn, those `own` are read.
        """
        if not side:
            return [None, None, None]
        genders = _balanced_genders(rng["genders"], sorted(side), self.batch_size)
        nothing = np.full(self.batch_size, UNKNOWN)
        source = _draw(rng["sources"], side, genders, nothing)
        second = _draw(rng["others"], side, target, first)
        if load is None:
            return [None, None, None]
        every = np.concatenate([source, first, second])
        places = np.concatenate([own + n * self.batch_size for n in range(3)])
        x = load(every, places, rng).chunk(3)
        return list(map(self._samples, x, every[places].reshape(3, -1)))

    def _faces(self, rows: Rows, places: Rows, rng: Streams) -> Tensor:
        """(n, 3, H, W) uint8, a random face of each clip, at the n places among the rows."""
        start, count = self._parts[rows, 0], self._parts[rows, 1]
        which = start + _uniform(rng["faces"], count)
        changes: Sequence[Change | None] = [None] * len(rows)
        if self.augment:
            changes = draw_changes(rng["augment"], len(rows), self._stored_size)
        pixels = np.empty((len(places), 3, self.image_size, self.image_size), np.uint8)
        owners = [self.stores[n] for n in self._owner[rows[places]]]
        for owner, face in zip(owners, which[places].tolist(), strict=True):
            owner.want("faces", face, 1)
        for n, place in enumerate(places.tolist()):
            planes(owners[n].faces[which[place]], changes[place], pixels[n])
        return torch.from_numpy(pixels)

    def _mels(self, rows: Rows, places: Rows, rng: Streams) -> Tensor:
        """(n, 1, 80, T) float32 standardised, a random crop of each clip, as `_faces` has them."""
        length, start, count = self.mel_frames, *self._parts[rows, 2:].T
        first = start + _uniform(rng["crops"], np.maximum(count - length, 0) + 1)
        frames = np.empty((len(places), length, MEL.n_mels), np.float16)
        owners = [self.stores[n] for n in self._owner[rows[places]]]
        spans = np.stack([first, np.minimum(count, length)], axis=1)[places].tolist()
        for owner, span in zip(owners, spans, strict=True):
            owner.want("mel", *span)
        for n, (start, size) in enumerate(spans):
            clip = owners[n].mel[start : start + size]
            frames[n] = clip if len(clip) == length else clip[reflected(len(clip), length)]
        x = torch.empty((len(places), 1, MEL.n_mels, length))
        x[:, 0] = torch.from_numpy(frames).transpose(1, 2)
        return x.sub_(self.standardiser.mean[:, None]).div_(self.standardiser.std[:, None])

    def _index(self) -> None:
        """Group the usable clips by role, gender, corpus and speaker."""

        def pools(fits: NDArray[np.bool_]) -> ByGender:
            rows = {g: np.flatnonzero(fits & (self._gender == g)) for g in (0, 1)}
            return {g: Pool(self._owner, self._group, r) for g, r in rows.items() if len(r)}

        faces, voices = self._parts[:, 1] > 0, self._parts[:, 3] > 0
        usable = (self._split == SPLITS.index(self.split)) & (self._gender >= 0)
        seen, heard = usable & faces, usable & voices
        self._require_side("faces", seen.any(), faces.any())
        self._require_side("voices", heard.any(), voices.any())
        self._require_side("faces or voices", (seen | heard).any(), True)
        self._images, self._voices = pools(seen), pools(heard)
        self._pairs: ByGender = {}
        self._lone_faces, self._lone_voices = self._images, self._voices
        self._genders = sorted({*self._images, *self._voices})
        if self._images and self._voices:
            self._genders = sorted(self._images.keys() & self._voices.keys())
            self._require_side("faces and voices of one gender", self._genders, True)
            self._pairs = pools(seen & heard)
            lone, mute = pools(seen & ~heard), pools(heard & ~seen)
            # where one side is in pairs only, it is drawn from those
            apart = [gender for gender in self._genders if gender in lone or gender in mute]
            self._lone_faces = {g: lone.get(g, self._images[g]) for g in apart}
            self._lone_voices = {g: mute.get(g, self._voices[g]) for g in apart}

        if self.twins:
            self._index_twins(np.flatnonzero(seen), np.flatnonzero(seen & ~heard))

    def _index_twins(self, faces: Rows, alone: Rows) -> None:
        """Group pictures in one pose of people who have further faces; see `mini.people.twin`."""
        people, places = np.unique(self._group[faces], return_inverse=True)
        ends = np.cumsum(np.bincount(places))[:-1]
        own = np.split(faces[np.argsort(places, kind="stable")], ends)
        self._faces_of = dict(zip(people.tolist(), own, strict=True))
        groups = defaultdict[tuple[int, str], list[int]](list)
        for row in alone.tolist():
            name = self.items[row].id.rpartition("/")[2]
            if name.startswith(TWIN) and len(self._faces_of[int(self._group[row])]) > 1:
                groups[int(self._owner[row]), name].append(row)
        self._twins = [rows for rows in groups.values() if len(rows) > 1]
        self._require_side("pictures in one pose (loss.twins, -p twins)", self._twins, True)

    def _require_side(self, what: str, found: object, needed: object) -> None:
        """Refuse a split without something that it needs."""
        if needed and not found:
            lost = Counter(i.corpus for i in self.items if i.split == self.split and not i.gender)
            corpora = ", ".join(store.corpus for store in self.stores)
            raise DataError(
                f"split {self.split!r} of {corpora} has no usable {what} (left out because their "
                f"gender is unknown: {dict(lost)}); expected at least one clip; prepare more, add "
                "genders to the corpus's speakers.csv, or choose another split"
            )

    def _check_sizes(self) -> None:
        """Refuse sizes that do not fit the stores."""
        sizes = {store.image_size for store in self.stores if len(store.faces)}
        self._stored_size = max(sizes, default=self.image_size)
        wanted = self.image_size, self.mel_frames, self.batch_size
        fits = min(wanted) > 0 and len(sizes) < 2 and not self._stored_size % self.image_size
        if not (self.stores and self.split in SPLITS and fits):
            raise ConfigError(
                f"batches: {len(self.stores)} stores, split {self.split!r}, image_size, "
                f"mel_frames, batch_size {wanted}, faces stored at {sorted(sizes)} pixels; "
                "expected positive sizes, an image size that divides the one stored size, a store "
                f"and a split of {SPLITS}; change the preset or prepare anew at one size"
            )


def open_validation(
    cfg: RunConfig, stores: Sequence[Store], train: Batches, say: Callable[[str], None]
) -> Batches | None:
    """Batches of the validation split; None, with a word about it, where it is empty."""
    known: dict[str, Any] = {"speakers": train.speakers, "standardiser": train.standardiser}
    try:
        return Batches(cfg, stores, split="val", **known)
    except DataError as error:
        say(f"WARNING: no validation: {error}")
        return None


def with_speakers(cfg: RunConfig, batches: Batches) -> RunConfig:
    """The configuration with the number of speakers filled in, where it is 0."""
    count = cfg.model.speakers or max(len(batches.speakers), 1)
    return replace(cfg, model=replace(cfg.model, speakers=count))
