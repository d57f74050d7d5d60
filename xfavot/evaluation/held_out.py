"""Who is evaluated: faces and voices of known sex that a checkpoint was not trained on.

Paper, Sec. 4.1 and App. B: the validation split holds other samples of the speakers that were
trained on (`seen`), and some speakers are left out altogether (`unseen`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from xfavot.convert.inputs import resize_face
from xfavot.data.items import GENDERS, Item
from xfavot.data.manifest import Store
from xfavot.errors import DataError

SPLITS = {"seen": "val", "unseen": "unseen"}  # by the speakers
SEXES = {"f": "female", "m": "male"}
TRAIN = "train"


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """A stored face or voice.

    Args:
        store: where it lies.
        item: its clip.
        face: number of the face in the clip; for a voice, which is the whole clip, 0.
    """

    store: Store
    item: Item
    face: int = 0

    @property
    def name(self) -> str:
        """Of the clip, with its corpus."""
        return f"{self.store.corpus}/{self.item.id}"


def faces_of(stores: Sequence[Store], split: str, gender: str) -> list[Sample]:
    """List every stored face of a split and sex, in the stores' order."""
    return [
        Sample(store, item, number)
        for store in stores
        for item in store.items
        if item.split == split and item.gender == gender
        for number in range(item.face_count)
    ]


def voices_of(stores: Sequence[Store], split: str = "", gender: str = "") -> list[Sample]:
    """List every voice of known sex; "" takes all splits or both sexes."""
    return [
        Sample(store, item)
        for store in stores
        for item in store.items
        if item.sample_count
        and item.split in ((split,) if split else (*SPLITS.values(), TRAIN))
        and item.gender in ((gender,) if gender else GENDERS)
    ]


def pixels(samples: Sequence[Sample], size: int) -> Tensor:
    """Read faces: (n, 3, size, size) uint8."""
    x = [resize_face(one.store.face(one.item, one.face), size) for one in samples]
    return torch.from_numpy(np.stack(x)).permute(0, 3, 1, 2).contiguous()


def require_held_out(stores: Sequence[Store], speakers: str) -> None:
    """Refuse a split without anybody.

    Raises:
        DataError: no clip of known sex lies in it.
    """
    split = SPLITS[speakers]
    if not any(item.split == split and item.gender for store in stores for item in store.items):
        corpora = ", ".join(store.corpus for store in stores) or "no store"
        raise DataError(
            f"no clip of {speakers} speakers of known sex in {corpora} (split {split!r}); expected "
            "one; prepare a corpus that holds some out, or read the figures of the others alone"
        )
