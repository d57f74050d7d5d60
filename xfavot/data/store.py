"""The prepared store: one folder a corpus, flat arrays on disk and one manifest row a clip.

:func:`write_store` writes it once; everything after reads it through :class:`Store`. Arrays grow
while the clips stream by and are memory-mapped afterwards, so that neither side ever holds a corpus
in memory. Frames are stored time first, (T, 80), so that a crop of a clip is one
contiguous piece of the file.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import astuple, dataclass, fields
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xfavot import __version__
from xfavot.audio.io import HIGHEST_PEAK, PCM_SCALE
from xfavot.audio.mel import LOUDEST, MEL, Standardiser, require_contract
from xfavot.errors import DataError
from xfavot.files import write_whole

SCHEMA = 1  # of a prepared store; another number is refused
GENDERS = ("f", "m")  # the position is the gender code
SPLITS = ("train", "val", "unseen")
ALLOWED = {"kind": ("av", "audio", "image"), "gender": (*GENDERS, ""), "split": SPLITS}
ARRAYS = {  # the file's type, and the part of an item's columns that counts its rows
    "faces": ("uint8", "face"),
    "landmarks": ("float32", "face"),
    "audio": ("int16", "sample"),
    "mel": ("float16", "frame"),
    "f0": ("float32", "frame"),
}
HEAD, MANIFEST, QUARANTINE = "store.json", "manifest.csv", "quarantine.csv"
LEFT_OUT = ("source", "reason", "detail", "files")  # columns of the quarantine; files: how many
HEADER = 128  # bytes at the start of an .npy file, however many rows follow
STD_FLOOR = 1e-3  # log10 units; keeps a band that never changes from being divided by zero
HIGHEST_MEL = LOUDEST + np.log10(HIGHEST_PEAK)  # log10, of a waveform that the reader accepts

Array = NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One clip or picture: who, where it came from, and where its parts lie in the arrays."""

    id: str
    corpus: str
    kind: str  # "av" | "audio" | "image"
    speaker: str  # "grid/s1"; "" if unknown
    gender: str  # "f" | "m" | "" if unknown
    split: str  # "train" | "val" | "unseen"
    transcript: str
    source: str  # path inside the corpus
    sha256: str  # of the source file
    face_start: int
    face_count: int
    sample_start: int
    sample_count: int
    frame_start: int
    frame_count: int


COLUMNS = tuple(f.name for f in fields(Item))
POSITIONS = COLUMNS[-6:]


@dataclass(frozen=True, slots=True, eq=False)
class Store:
    """A prepared store, opened for reading; :meth:`open` builds it.

    Args:
        path: its folder.
        corpus: name of the corpus.
        items: one a clip, in the order of the scan.
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
            DataError: the folder, a file or a row is missing or damaged, an array is not what was
                written, or corpus, schema or mel contract differ.
        """
        path, file = Path(path), HEAD
        try:
            head = json.loads((path / file).read_text(encoding="utf-8"))
            found = {"schema": head["schema"], "corpus": head["corpus"]}
            if found != {"schema": SCHEMA, "corpus": corpus or head["corpus"]}:
                raise ValueError(f"it says {found}; expected schema {SCHEMA}, corpus {corpus!r}")
            size, seed, described = head["image_size"], head["seed"], dict(head["arrays"])
            require_contract(head["mel"], where=f"prepared store {path}")
            arrays: dict[str, Array] = {}
            for name in ARRAYS:
                file, expected = f"{name}.npy", described[name]
                view = np.load(path / file, mmap_mode="r", allow_pickle=False)
                if [*view.shape, view.dtype] != [*expected["shape"], expected["dtype"]]:
                    raise ValueError(f"{view.shape} {view.dtype}; expected {expected}")
                arrays[name] = view.view(np.ndarray)  # slices of a plain array cost less
            file = MANIFEST
            text = (path / file).read_bytes()
            rows = csv.DictReader(io.StringIO(text.decode(errors="replace"), newline=""))
            if tuple(rows.fieldnames or ()) != COLUMNS:
                raise ValueError(f"columns {rows.fieldnames}; expected {list(COLUMNS)}")
            ends = {part: len(arrays[name]) for name, (_, part) in ARRAYS.items()}
            items = tuple(_item(row, ends) for row in rows)
            if len(items) != head["items"]:
                raise ValueError(f"{len(items)} rows; expected {head['items']}")
        except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
            missing = isinstance(error, FileNotFoundError)
            raise DataError(
                f"prepared store {path}: {file} {'missing' if missing else f'is damaged ({error})'}"
                "; correct data_root, or remove it and prepare it by notebooks/prepare_data.ipynb"
            ) from error
        digest = hashlib.sha256(text + MEL.hash.encode() + str(size).encode()).hexdigest()[:16]
        return cls(path, head["corpus"], items, size, seed, digest, **arrays)

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


def _item(row: Mapping[str, Any], ends: Mapping[str, int]) -> Item:
    """One row of a manifest, which has to lie inside the arrays."""
    item = Item(**{**row, **{column: int(row[column]) for column in POSITIONS}})
    for part, end in ends.items():
        start, count = getattr(item, f"{part}_start"), getattr(item, f"{part}_count")
        if min(start, count) < 0 or start + count > end:
            raise ValueError(f"clip {item.id!r} points outside the arrays: {start} + {count}")
    return item


def open_stores(
    data_root: str | PathLike[str],
    corpora: Iterable[str],
    on_log: Callable[[str], object] | None = None,
) -> list[Store]:
    """Open the prepared stores of a mixture, as far as they are there.

    Args:
        data_root: folder of prepared stores.
        corpora: names, one folder each.
        on_log: receives a warning that names the corpora which are missing.

    Raises:
        DataError: none is there, or one is damaged or of another corpus.
    """
    folders = {corpus: Path(data_root) / corpus for corpus in corpora}
    present = [corpus for corpus, folder in folders.items() if folder.is_dir()]
    missing = ", ".join(corpus for corpus in folders if corpus not in present)
    if not present:
        raise DataError(
            f"data_root '{data_root}' holds no prepared store of {missing}; prepare it with: "
            "papermill notebooks/prepare_data.ipynb runs/prepare.ipynb -p dataset <dataset> "
            "-p source <folder of the originals>"
        )
    if missing and on_log is not None:
        on_log(f"WARNING: {missing} not in {data_root}; going on without")
    return [Store.open(folders[corpus], corpus=corpus) for corpus in present]


def voiced_speakers(stores: Sequence[Store]) -> tuple[str, ...]:
    """The speakers of the train split with audio, sorted: those that have a code in training."""
    items = (item for store in stores for item in store.items)
    voiced = {i.speaker for i in items if i.split == "train" and i.frame_count}
    return tuple(sorted(voiced - {""}))


def mel_statistics(stores: Sequence[Store], *, split: str) -> Standardiser:
    """Mean and standard deviation per band, pooled over every frame of a split of some stores.

    A clip above what sound within full scale can reach (older stores may hold such), or with a
    value that is not finite, is left out with a warning.

    Args:
        stores: the mixture; each frame counts once, so long corpora weigh more.
        split: "train", "val" or "unseen".

    Returns:
        (80,) each; deviations are the population's, at least :data:`STD_FLOOR`.

    Raises:
        DataError: the split has no frame.
    """
    count, total, square = 0, np.zeros(MEL.n_mels), np.zeros(MEL.n_mels)
    clips = ((s, i) for s in stores for i in s.items if i.split == split and i.frame_count)
    for store, item in clips:
        frames = store.mel[item.frame_start : item.frame_start + item.frame_count]
        block = np.asarray(frames, np.float64)  # (T, 80)
        if not (np.isfinite(block).all() and block.max() <= HIGHEST_MEL):
            warnings.warn(
                f"prepared store {store.path}: {item.id} is left out of the mel statistics: its "
                f"log mel reaches {block.max():.2f}; expected at most {HIGHEST_MEL:.2f}; prepare "
                "the corpus anew",
                stacklevel=2,
            )
            continue
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


# A store while it is written


def write_store(
    path: Path,
    clips: Iterable[tuple[Mapping[str, str], Mapping[str, Array]]],
    *,
    image_size: int,
    seed: int,
    left_out: Sequence[tuple[str, str, str, int]] = (),
    beside: Mapping[str, object] | None = None,
) -> Store:
    """Write a store clip by clip, and let it appear at its path, whole.

    Args:
        path: the store's folder, ``<data_root>/<corpus>``; absent or empty.
        clips: of each one the texts of its :class:`Item`, but for the corpus, and any of `faces`
            (n, H, W, 3) uint8 with `landmarks` (n, 5, 2) float32, and `audio` (N,) int16 with
            `mel` (N // 300 + 1, 80) float16 and `f0` (N // 300 + 1,) float32.
        image_size: pixels a side of every face.
        seed: of the splits, recorded.
        left_out: :data:`LEFT_OUT` of what is not used.
        beside: more JSON files, by name.

    Returns:
        The store, opened.

    Raises:
        DataError: arrays that do not fit each other or the store, or a text that no store may hold.
        OSError: the path is taken or the disk is full; nothing is left.
    """
    draft = path.with_name(f".{path.name}.new")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    tails = {"faces": (image_size, image_size, 3), "landmarks": (5, 2), "mel": (MEL.n_mels,)}
    ends, items = {"face": 0, "sample": 0, "frame": 0}, list[Item]()
    described: dict[str, Any] = {}
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, draft, ignore_errors=True)
        files = {n: stack.enter_context((draft / f"{n}.npy").open("wb")) for n in ARRAYS}
        for file in files.values():
            file.seek(HEADER)
        for texts, arrays in clips:
            samples = len(arrays.get("audio", ()))
            frames = samples // MEL.hop + 1 if samples else 0
            counts = {"face": len(arrays.get("faces", ())), "sample": samples, "frame": frames}
            for name, (dtype, part) in ARRAYS.items():
                shape = (counts[part], *tails.get(name, ()))
                array = arrays.get(name, np.zeros((0, *shape[1:]), dtype))
                if array.shape != shape or array.dtype != dtype:
                    raise DataError(
                        f"clip {texts['id']!r}: {name} is {array.shape} {array.dtype}; expected "
                        f"{shape} {dtype}; correct what prepares the clip"
                    )
                files[name].write(array.tobytes())
            row: dict[str, Any] = {**texts, "corpus": path.name}
            row |= {f"{part}_start": end for part, end in ends.items()}
            row |= {f"{part}_count": count for part, count in counts.items()}
            items.append(Item(**row))
            if any(getattr(items[-1], name) not in values for name, values in ALLOWED.items()):
                raise DataError(f"{items[-1]}; expected {ALLOWED}; correct the corpus's reader")
            ends = {part: end + counts[part] for part, end in ends.items()}
        for name, (dtype, part) in ARRAYS.items():
            file, shape = files[name], (ends[part], *tails.get(name, ()))
            described[name] = {"dtype": dtype, "shape": [*shape]}
            start = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
            file.seek(0)
            np.lib.format.write_array_header_1_0(file, start)
            file.flush()
            os.fsync(file.fileno())
        kinds = {kind: sum(item.kind == kind for item in items) for kind in ALLOWED["kind"]}
        head = {
            "schema": SCHEMA,
            "corpus": path.name,
            "created_by": f"xfavot {__version__}",
            "seed": seed,
            "image_size": image_size,
            "mel": MEL.as_dict(),
            "mel_hash": MEL.hash,
            "items": len(items),
            "counts": {**kinds, "quarantined": len(left_out)},
            "arrays": described,
        }
        tables = {MANIFEST: [COLUMNS, *map(astuple, items)], QUARANTINE: [LEFT_OUT, *left_out]}
        for name, rows in tables.items():
            with (draft / name).open("w", encoding="utf-8", newline="") as table:
                csv.writer(table, lineterminator="\n").writerows(rows)
        for name, value in {**(beside or {}), HEAD: head}.items():
            write_whole(draft / name, json.dumps(value, indent=1) + "\n")
        draft.rename(path)
    return Store.open(path, corpus=path.name)
