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
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from xfavot.audio.mel import MEL, Standardiser
from xfavot.data.draws import (
    UNKNOWN,
    ByGender,
    References,
    Rows,
    balanced_genders,
    draw_others,
    draw_rows,
    pools,
)
from xfavot.data.items import GENDERS, SPLITS, Item
from xfavot.data.manifest import Store, mel_statistics
from xfavot.data.samples import (
    Batch,
    Change,
    Samples,
    draw_changes,
    planes,
    reflected,
)
from xfavot.errors import ConfigError, DataError

__all__ = ["Batch", "Batches", "Samples"]

STREAMS = ("genders", "sources", "references", "others", "faces", "crops", "augment")
BLOCK = 16  # mels converted together, so that they stay in a core's cache
_reflected = lru_cache(maxsize=4096)(reflected)  # clips have few lengths; never written to

Streams = Mapping[str, np.random.Generator]


class Batches:
    """Draws the batches of one split from a mixture of stores.

    Clips of unknown gender are left out, since every role needs one; see :attr:`unknown_gender`.

    Args:
        stores: the mixture, all with faces of one stored size.
        split: "train", "val" or "unseen".
        image_size: pixels a side; the stored size divided by a whole number.
        mel_frames: frames of a crop; shorter clips are continued by reflection.
        batch_size: rows.
        seed: with the step, fixes a batch.
        speakers: ids with a code; default, all speakers of the train split with audio, sorted.
        standardiser: mel statistics; default, those of the stores' train split.
        augment: flip and crop faces at random.

    Raises:
        ConfigError: a size that cannot be made from the stored one, or not positive.
        DataError: no store, no usable clip, or a side that the stores have but this split lacks.
    """

    def __init__(
        self,
        stores: Sequence[Store],
        *,
        split: str,
        image_size: int,
        mel_frames: int,
        batch_size: int,
        seed: int,
        speakers: Sequence[str] | None = None,
        standardiser: Standardiser | None = None,
        augment: bool = False,
    ) -> None:
        """Index the stores; see the class."""
        self.stores = tuple(stores)
        self.split, self.seed, self.augment = split, seed, augment
        self.image_size, self.mel_frames, self.batch_size = image_size, mel_frames, batch_size
        self.items: tuple[Item, ...] = tuple(item for store in stores for item in store.items)
        self._check_sizes()
        self._firsts = np.cumsum([0, *(len(store.items) for store in stores)])
        voiced = {i.speaker for i in self.items if i.split == "train" and i.frame_count}
        self.speakers = tuple(sorted(voiced - {""}) if speakers is None else speakers)
        codes = {speaker: code for code, speaker in enumerate(self.speakers)}
        self._speaker = np.array([codes.get(i.speaker, UNKNOWN) for i in self.items], np.int64)
        self._gender = np.array(
            [GENDERS.index(i.gender) if i.gender else UNKNOWN for i in self.items], np.int64
        )
        parts = [(i.face_start, i.face_count, i.frame_start, i.frame_count) for i in self.items]
        self._parts = np.array(parts, np.int64).reshape(-1, 4)
        self._index()
        audible = any(item.frame_count for item in self.items)
        if standardiser is None and audible:
            standardiser = mel_statistics(self.stores, split="train")
        neutral = Standardiser(torch.zeros(MEL.n_mels), torch.ones(MEL.n_mels))  # no mel is read
        self.standardiser = neutral if standardiser is None else standardiser.to("cpu")

    @property
    def fingerprint(self) -> str:
        """16 hex digits over the manifests of the stores, in their order."""
        joined = ",".join(f"{store.corpus}:{store.manifest_hash}" for store in self.stores)
        return hashlib.sha256(joined.encode()).hexdigest()[:16]

    @property
    def unknown_gender(self) -> dict[str, int]:
        """How many clips of the split each corpus loses because their gender is unknown."""
        lost = [i.corpus for i in self.items if i.split == self.split and not i.gender]
        return {store.corpus: lost.count(store.corpus) for store in self.stores}

    def batch(self, step: int) -> Batch:
        """Draw a batch.

        Args:
            step: from 0 up.

        Returns:
            The batch, on the CPU; the same for the same (seed, step).
        """
        rng = {s: np.random.default_rng([self.seed, step, n]) for n, s in enumerate(STREAMS)}
        target = balanced_genders(rng["genders"], self._genders, self.batch_size)
        face, voice, paired = self._references.draw(rng["references"], target)
        images = self._side(rng, self._images, target, face, self._faces)
        audios = self._side(rng, self._voices, target, voice, self._mels)
        return Batch(
            source_image=images[0],
            source_audio=audios[0],
            ref_image=images[1],
            ref_audio=audios[1],
            ref2_image=images[2],
            ref2_audio=audios[2],
            paired=torch.from_numpy(paired),
        )

    def _side(
        self,
        rng: Streams,
        side: ByGender,
        target: Rows,
        first: Rows,
        load: Callable[[Rows, Streams], Tensor],
    ) -> list[Samples | None]:
        """Source, first and second reference of one modality, read together."""
        if not side:
            return [None, None, None]
        genders = balanced_genders(rng["genders"], sorted(side), self.batch_size)
        source = draw_rows(rng["sources"], side, genders)
        second = draw_others(rng["others"], side, target, first)
        x = load(np.concatenate([source, first, second]), rng).chunk(3)
        return [
            Samples(
                x=part,
                gender=torch.from_numpy(self._gender[rows]),
                speaker=torch.from_numpy(self._speaker[rows]),
                row=torch.from_numpy(rows),
            )
            for part, rows in zip(x, (source, first, second), strict=True)
        ]

    def _owners(self, rows: Rows) -> list[Store]:
        """The store that holds each clip."""
        owner = np.searchsorted(self._firsts, rows, side="right") - 1
        return [self.stores[n] for n in owner.tolist()]

    def _faces(self, rows: Rows, rng: Streams) -> Tensor:
        """(n, 3, H, W) uint8, a random face of each clip."""
        start, count = self._parts[rows, 0], self._parts[rows, 1]
        which = start + np.floor(rng["faces"].random(len(rows)) * count).astype(np.int64)
        changes: Sequence[Change | None] = [None] * len(rows)
        if self.augment:
            changes = draw_changes(rng["augment"], len(rows), self._stored_size)
        pixels = np.empty((len(rows), 3, self.image_size, self.image_size), np.uint8)
        for n, store in enumerate(self._owners(rows)):
            planes(store.faces[which[n]], changes[n], pixels[n])
        return torch.from_numpy(pixels)

    def _mels(self, rows: Rows, rng: Streams) -> Tensor:
        """(n, 1, 80, T) float32 standardised, a random crop of each clip."""
        length, owners = self.mel_frames, self._owners(rows)
        start, count = self._parts[rows, 2], self._parts[rows, 3]
        room = np.maximum(count - length, 0) + 1
        first = np.floor(rng["crops"].random(len(rows)) * room).astype(np.int64)
        frames = np.empty((BLOCK, length, MEL.n_mels), np.float16)
        x = torch.empty((len(rows), 1, MEL.n_mels, length))
        mean, std = self.standardiser.mean[:, None], self.standardiser.std[:, None]
        begins = (start + first).tolist()
        for row in range(0, len(rows), BLOCK):
            block = slice(row, row + BLOCK)
            for n, (store, begin) in enumerate(zip(owners[block], begins[block], strict=True)):
                clip = store.mel[begin : begin + min(int(count[row + n]), length)]
                if len(clip) == length:
                    frames[n] = clip
                else:  # mode "clip" only because "raise" would go through a copy
                    clip.take(_reflected(len(clip), length), axis=0, out=frames[n], mode="clip")
            part = x[block, 0]  # (n, M, T)
            part.copy_(torch.from_numpy(frames[: len(part)]).transpose(1, 2)).sub_(mean).div_(std)
        return x

    def _index(self) -> None:
        """Group the usable clips by role, gender, corpus and speaker."""
        usable = [
            row
            for row, item in enumerate(self.items)
            if item.split == self.split and self._gender[row] != UNKNOWN
        ]
        seen = [row for row in usable if self.items[row].face_count]
        heard = [row for row in usable if self.items[row].frame_count]
        self._require_side("faces", seen, any(item.face_count for item in self.items))
        self._require_side("voices", heard, any(item.frame_count for item in self.items))
        self._require_side("faces or voices", [*seen, *heard], True)
        self._images = pools(self.items, seen, self._gender)
        self._voices = pools(self.items, heard, self._gender)
        if not (self._images and self._voices):
            self._references = References(pairs={}, faces=self._images, voices=self._voices)
            self._genders = sorted({*self._images, *self._voices})
            return
        self._genders = sorted(self._images.keys() & self._voices.keys())
        self._require_side("faces and voices of one gender", self._genders, True)
        pairs = pools(self.items, sorted({*seen} & {*heard}), self._gender)
        faces = pools(self.items, sorted({*seen} - {*heard}), self._gender)
        voices = pools(self.items, sorted({*heard} - {*seen}), self._gender)
        apart = [gender for gender in self._genders if gender in faces or gender in voices]
        self._references = References(
            pairs=pairs,
            faces={gender: faces.get(gender, self._images[gender]) for gender in apart},
            voices={gender: voices.get(gender, self._voices[gender]) for gender in apart},
        )

    def _require_side(self, what: str, found: Sequence[int], needed: bool) -> None:
        """Refuse a split without something that it needs."""
        if needed and not found:
            corpora = ", ".join(store.corpus for store in self.stores)
            raise DataError(
                f"split {self.split!r} of {corpora} has no usable {what} (left out because their "
                f"gender is unknown: {self.unknown_gender}); expected at least one clip; prepare "
                "more clips, add genders to the corpus's speakers.csv, or choose another split"
            )

    def _check_sizes(self) -> None:
        """Refuse sizes that do not fit the stores."""
        if not self.stores or self.split not in SPLITS:
            raise ConfigError(
                f"batches: {len(self.stores)} stores, split {self.split!r}; expected at least one "
                f"store and a split of {SPLITS}; check data.corpora"
            )
        sizes = {store.image_size for store in self.stores if len(store.faces)}
        self._stored_size = max(sizes, default=self.image_size)
        wanted = {"image_size": self.image_size, "mel_frames": self.mel_frames}
        wanted["batch_size"] = self.batch_size
        if min(wanted.values()) < 1 or len(sizes) > 1 or self._stored_size % self.image_size:
            raise ConfigError(
                f"batches: {wanted} with faces stored at {sorted(sizes)} pixels; expected positive "
                "sizes and an image size that divides the one stored size; change the preset or "
                "prepare the corpora again at one size"
            )
