"""The prepared store: one folder a corpus, flat arrays on disk and one manifest row a clip.

Written once by `prepare` through :class:`StoreWriter`, read by everything after it through
:class:`Store`. Arrays are appended while the corpus streams by and are memory-mapped afterwards, so
that neither side ever holds a corpus in memory. Frames are stored time first, (T, 80), so that a
crop of a clip is one contiguous piece of the file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xfavot.audio.mel import MEL, Standardiser, require_contract
from xfavot.data.items import ARRAYS, GENDERS, PCM_SCALE, SCHEMA, Item, read_items
from xfavot.data.writer import StoreWriter
from xfavot.errors import DataError

__all__ = ["GENDERS", "Item", "Store", "StoreWriter", "mel_statistics"]

Array = NDArray[Any]

STD_FLOOR = 1e-3  # log10 units; keeps a band that never changes from being divided by zero
BLOCK_FRAMES = 65_536  # frames read at once for statistics


@dataclass(frozen=True, slots=True, eq=False)
class Store:
    """A prepared store, opened for reading; :meth:`open` builds it.

    Args:
        path: its folder.
        corpus: name of the corpus.
        items: one a clip, in the order of the arrays.
        image_size: pixels a side of the stored faces.
        seed: seed of the splits.
        manifest_hash: 16 hex digits over the manifest, the mel contract and the image size.
        faces: (F, H, W, 3) uint8, memory-mapped like the others.
        landmarks: (F, 5, 2) float32 in pixels of the crop, NaN where unknown.
        audio: (N,) int16 at 24 kHz.
        mel: (T, 80) float16, log10.
        f0: (T,) float32 in Hz, 0 where unvoiced, NaN where not estimated.
    """

    path: Path
    corpus: str
    items: tuple[Item, ...]
    image_size: int
    seed: int
    manifest_hash: str
    faces: Array
    landmarks: Array
    audio: Array
    mel: Array
    f0: Array

    @classmethod
    def open(cls, path: Path | str, *, corpus: str = "") -> Store:
        """Open a store and check that it is whole, without reading its arrays.

        Args:
            path: the folder.
            corpus: the corpus expected there; empty accepts any.

        Raises:
            DataError: the folder, a file or a row is missing or damaged, an array has another size
                than when it was written, or corpus, schema or mel contract differ.
        """
        path = Path(path)
        advice = "run notebooks/prepare_data.ipynb for this corpus"
        if not path.is_dir():
            raise DataError(f"prepared store {path}: no such folder; expected a store; {advice}")
        if not any(path.iterdir()):
            raise DataError(f"prepared store {path}: the folder is empty; {advice}")
        wanted = ["store.json", "manifest.csv", *(f"{name}.npy" for name in ARRAYS)]
        missing = [name for name in wanted if not (path / name).is_file()]
        if missing:
            raise DataError(f"prepared store {path}: {', '.join(missing)} missing; {advice} again")
        try:
            head = json.loads((path / "store.json").read_text(encoding="utf-8"))
            schema, found, count = head["schema"], head["corpus"], head["items"]
            size, seed, contract, arrays = (
                head[key] for key in ("image_size", "seed", "mel", "arrays")
            )
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"prepared store {path}: store.json is damaged ({error!r}); {advice} again"
            ) from error
        if schema != SCHEMA:
            raise DataError(
                f"prepared store {path}: schema {schema}; expected {SCHEMA}; {advice} again"
            )
        if corpus and found != corpus:
            raise DataError(
                f"prepared store {path}: holds corpus {found!r}; expected {corpus!r}; "
                "correct data_root or data.corpora"
            )
        require_contract(contract, where=f"prepared store {path}")
        views = {name: _map(path / f"{name}.npy", arrays[name], advice) for name in ARRAYS}
        text = (path / "manifest.csv").read_bytes()
        items = read_items(text, path, count, {name: len(view) for name, view in views.items()})
        digest = hashlib.sha256(text + MEL.hash.encode() + str(size).encode()).hexdigest()[:16]
        return cls(path, found, items, size, seed, digest, **views)

    def waveform(self, item: Item) -> NDArray[np.float32]:
        """(N,) float32 in [-1, 1) at 24 kHz; empty for a picture."""
        stored = self.audio[item.sample_start : item.sample_start + item.sample_count]
        return np.asarray(stored, dtype=np.float32) / np.float32(PCM_SCALE)

    def log_mel(self, item: Item) -> Tensor:
        """(80, T) float32, log10; float16 on disk keeps about three digits."""
        stored = self.mel[item.frame_start : item.frame_start + item.frame_count]
        return torch.from_numpy(np.asarray(stored, dtype=np.float32)).T.contiguous()

    def f0_hz(self, item: Item) -> NDArray[np.float32]:
        """(T,) float32 in Hz, 0 where unvoiced, NaN where not estimated."""
        return np.array(self.f0[item.frame_start : item.frame_start + item.frame_count])

    def face(self, item: Item, i: int = 0) -> NDArray[np.uint8]:
        """(H, W, 3) uint8, face number ``i`` of a clip.

        Raises:
            DataError: the clip has no face of this number.
        """
        if not 0 <= i < item.face_count:
            raise DataError(
                f"clip {item.id}: no face number {i}; it has {item.face_count} faces; "
                "ask for one from 0 up, of a clip of kind 'av' or 'image'"
            )
        return np.array(self.faces[item.face_start + i])

    def mel_statistics(self, split: str = "train") -> Standardiser:
        """Mean and deviation per band over all frames of a split; see :func:`mel_statistics`."""
        return mel_statistics([self], split=split)


def mel_statistics(stores: list[Store] | tuple[Store, ...], *, split: str) -> Standardiser:
    """Mean and standard deviation per band, pooled over every frame of a split of some stores.

    Args:
        stores: the mixture; each frame counts once, so long corpora weigh more.
        split: "train", "val" or "unseen".

    Returns:
        (80,) each; deviations are the population's, at least :data:`STD_FLOOR`.

    Raises:
        DataError: the split has no frame.
    """
    count, total, square = 0, np.zeros(MEL.n_mels), np.zeros(MEL.n_mels)
    for store in stores:
        for first, last in _runs(store.items, split):
            for start in range(first, last, BLOCK_FRAMES):
                block = np.asarray(store.mel[start : min(last, start + BLOCK_FRAMES)], np.float64)
                count += len(block)
                total += block.sum(axis=0)
                square += np.square(block).sum(axis=0)
    if not count:
        names = ", ".join(store.corpus for store in stores)
        raise DataError(
            f"mel statistics: split {split!r} of {names} has no audio; expected at least one clip; "
            "prepare more clips or choose another split"
        )
    mean = total / count
    std = np.sqrt(np.maximum(square / count - mean**2, STD_FLOOR**2))
    return Standardiser(torch.from_numpy(mean).float(), torch.from_numpy(std).float())


def _runs(items: tuple[Item, ...], split: str) -> list[tuple[int, int]]:
    """Frame ranges of a split, neighbouring clips joined."""
    runs: list[tuple[int, int]] = []
    for item in items:
        if item.split == split and item.frame_count:
            first, last = item.frame_start, item.frame_start + item.frame_count
            runs[-1:] = (
                [(runs[-1][0], last)]
                if runs and runs[-1][1] == first
                else [*runs[-1:], (first, last)]
            )
    return runs


def _map(file: Path, expected: Mapping[str, Any], advice: str) -> Array:
    """Memory-map one array after checking its size against store.json."""
    size = file.stat().st_size
    if size != expected["bytes"]:
        raise DataError(
            f"prepared store {file.parent}: {file.name} has {size} bytes; expected "
            f"{expected['bytes']}; the file is truncated or replaced, {advice} again"
        )
    shape, dtype = tuple(expected["shape"]), np.dtype(expected["dtype"])
    if 0 in shape:  # an empty file cannot be mapped
        return np.zeros(shape, dtype)
    try:
        view: Array = np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise DataError(
            f"prepared store {file.parent}: {file.name} is damaged ({error}); {advice} again"
        ) from error
    if view.shape != shape or view.dtype != dtype:
        raise DataError(
            f"prepared store {file.parent}: {file.name} holds {view.shape} {view.dtype}; expected "
            f"{shape} {dtype}; {advice} again"
        )
    return view.view(np.ndarray)
