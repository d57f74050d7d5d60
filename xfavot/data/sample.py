"""Which clips of prepared stores are shown or converted: a draw of held-out people.

Women and men take turns, and nobody comes twice while there is somebody new.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xfavot.audio.mel import MEL
from xfavot.data.store import GENDERS, Item, Store
from xfavot.errors import DataError

LONGEST_SECONDS = 4.0  # of a voice to show
HELD_OUT_FIRST = ("val", "unseen", "train")  # the order in which a split is looked for


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A sample of a prepared store: a face, a voice, or both of one speaker.

    Args:
        label: short text for a figure, such as ``s1 (m)``.
        speaker: the manifest's name, "" if unknown.
        gender: "f" or "m".
        face: (H, W, 3) uint8, aligned; or ``None``.
        waveform: (N,) float32 at 24 kHz; or ``None``.
    """

    label: str
    speaker: str
    gender: str
    face: NDArray[np.uint8] | None = None
    waveform: NDArray[np.float32] | None = None


def has_any(stores: Sequence[Store], *, modality: str, split: str) -> bool:
    """Whether a split holds a "face" or a "voice" of known gender."""
    return any(_fits(item, modality, split) for store in stores for item in store.items)


def first_split(stores: Sequence[Store], modalities: Collection[str]) -> str:
    """Return the first of val, unseen and train that holds every modality there is; else train."""
    held = {
        split: {m for m in modalities if has_any(stores, modality=m, split=split)}
        for split in HELD_OUT_FIRST
    }
    there = set().union(*held.values())
    return next((split for split, kinds in held.items() if kinds == there), HELD_OUT_FIRST[-1])


def examples(
    stores: Sequence[Store],
    *,
    modality: str,
    split: str = "",
    count: int = 4,
    seed: int = 0,
    avoid: Iterable[str] = (),
) -> tuple[Example, ...]:
    """Draw samples of a split, women and men in turn, of different speakers while there are any.

    Args:
        stores: prepared stores.
        modality: "face" or "voice", what every sample must have; samples that have both come first.
        split: "train", "val" or "unseen"; left out, the first of val, unseen and train that
            has any.
        count: how many samples, at most.
        seed: seed of the draw.
        avoid: speakers that are taken only when there is nobody else.

    Returns:
        The samples, fewer than `count` where the stores hold fewer.

    Raises:
        DataError: the split has no such sample of known gender.
    """
    split = split or first_split(stores, (modality,))
    rng = np.random.default_rng(seed)  # of a clip that has both, face and voice are drawn alike
    pool = [(s, item) for s in stores for item in s.items if _fits(item, modality, split)]
    if not pool:
        names = ", ".join(store.corpus for store in stores)
        raise DataError(
            f"no {modality} of known gender in split {split!r} of {names or 'no store'}; expected "
            "at least one; prepare more clips, or name another split"
        )
    shunned = set(avoid)
    pool = [pool[i] for i in rng.permutation(len(pool))]
    pool.sort(key=lambda p: (p[1].speaker in shunned, p[1].kind != "av"))
    chosen: list[tuple[Store, Item]] = []
    taken: set[str] = set()  # speakers
    for turn in range(min(count, len(pool))):
        # new before known, then of the gender whose turn it is
        left, sex = (p for p in pool if p not in chosen), GENDERS[turn % 2]
        store, item = min(left, key=lambda p: (p[1].speaker in taken, p[1].gender != sex))
        chosen.append((store, item))
        taken |= {item.speaker} - {""}
    return tuple(_example(store, item, rng) for store, item in chosen)


def samples(stores: Sequence[Store], *, count: int = 8, seed: int = 0) -> tuple[Example, ...]:
    """Draw samples to choose from: people with face and voice, or else faces and voices apart.

    Args:
        stores: prepared stores.
        count: how many of each.
        seed: seed of the draw.

    Raises:
        DataError: the stores hold neither a face nor a voice of known gender.
    """
    split = first_split(stores, ("face", "voice"))
    kinds = [kind for kind in ("face", "voice") if has_any(stores, modality=kind, split=split)]
    drawn: list[Example] = []
    for kind in kinds or ["face"]:
        drawn += examples(stores, modality=kind, split=split, count=count, seed=seed)
    both = [one for one in drawn if one.face is not None and one.waveform is not None]
    return tuple(both[:count] or drawn)


def _fits(item: Item, modality: str, split: str) -> bool:
    has = item.face_count > 0 if modality == "face" else item.sample_count > 0
    return has and item.split == split and item.gender != ""


def _example(store: Store, item: Item, rng: np.random.Generator) -> Example:
    name = (item.speaker.rsplit("/", 1)[-1] or Path(item.id).stem).replace("_", " ")
    frame = int(rng.integers(item.face_count)) if item.face_count else 0
    wave = store.waveform(item)[: int(LONGEST_SECONDS * MEL.sample_rate)]
    return Example(
        label=f"{name} ({item.gender})",
        speaker=item.speaker,
        gender=item.gender,
        face=np.asarray(store.face(item, frame)) if item.face_count else None,
        waveform=np.asarray(wave) if item.sample_count else None,
    )
