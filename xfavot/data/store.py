"""The prepared store: one folder a corpus, flat arrays on disk and one manifest row a clip.

:func:`write_store` writes it once; everything after reads it through :class:`Store`. Arrays grow
while the clips stream by and are memory-mapped afterwards, so that neither side ever holds a corpus
in memory. Frames are stored time first, (T, 80), so that a crop of a clip is one
contiguous piece of the file. The system reads nothing ahead (it would read megabytes for each clip
of a large corpus): who uses rows asks for just these, :meth:`Store.want`.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import mmap
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import astuple, dataclass, field, fields
from os import PathLike
from pathlib import Path
from tokenize import TokenError
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xfavot import __version__
from xfavot.audio.io import HIGHEST_PEAK, PCM_SCALE
from xfavot.audio.mel import LOUDEST, MEL, Standardiser, require_contract
from xfavot.errors import DataError
from xfavot.files import whole_folder, write_whole

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
INDEX = "index.npz"  # of the manifest, made with it; a store without one is read row by row
UNREADABLE = (OSError, EOFError, BadZipFile, TokenError)  # an array whose header is damaged, too
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


class Items(Sequence[Item]):
    """The items of a store, each read from the manifest when it is asked for.

    A million of them take 60 MB so, and the store opens in seconds.

    Args:
        text: the manifest, memory-mapped.
        table: see :func:`table_of`; and `lines`, where each of its rows begins, and its end.
    """

    def __init__(self, text: mmap.mmap, table: dict[str, Array]) -> None:
        """Keep both."""
        self.text, self.table = text, table

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.table["lines"]) - 1

    def __getitem__(self, i: Any) -> Any:
        """Read one row, or those of a slice."""
        if isinstance(i, slice):
            return tuple(self[n] for n in range(len(self))[i])
        i, lines = range(len(self))[i], self.table["lines"]
        row = next(csv.reader([self.text[lines[i] : lines[i + 1]].decode(errors="replace")]))
        return _item(dict(zip(COLUMNS, row, strict=True)))


def table_of(items: Sequence[Item]) -> dict[str, Array]:
    """What items are drawn by, as one array a column.

    Returns:
        `split` and `gender`, positions in :data:`SPLITS` and :data:`GENDERS` or -1; `speaker`,
        position in `speakers`; :data:`POSITIONS`.
    """
    if isinstance(items, Items):
        return items.table
    table: dict[str, Array] = {
        name: np.array([getattr(i, name) for i in items], np.int64) for name in POSITIONS
    }
    speakers, codes = np.unique(np.array([i.speaker for i in items], str), return_inverse=True)
    for name, known in (("split", SPLITS), ("gender", GENDERS)):
        place = {value: n for n, value in enumerate(known)}
        table[name] = np.array([place.get(getattr(i, name), -1) for i in items], np.int8)
    return {**table, "speakers": speakers, "speaker": codes.astype(np.int32)}


@dataclass(frozen=True, slots=True, eq=False)
class Store:
    """A prepared store, opened for reading; :meth:`open` builds it.

    Args:
        path: its folder.
        corpus: name of the corpus.
        items: one a clip, in the order of the scan; :class:`Items` where there is an index.
        image_size: pixels a side of the stored faces.
        seed: seed of the splits.
        manifest_hash: 16 hex digits over the manifest, the mel contract and the image size.
        faces: (F, H, W, 3) uint8, memory-mapped like the others.
        landmarks: (F, 5, 2) float32 in pixels of the crop, NaN where unknown.
        audio: (N,) int16 at 24 kHz.
        mel: (T, 80) float16, log10.
        f0: (T,) float32 in Hz, 0 where unvoiced, NaN where not estimated.
        sums: by split, of its mel frames: their number, sums and sums of squares, (161,); empty
            where there is no index, or a clip that does not count.
        maps: by array, its memory map and where its rows begin in that.
    """

    path: Path
    corpus: str
    items: Sequence[Item]
    image_size: int
    seed: int
    manifest_hash: str
    faces: Array
    landmarks: Array
    audio: Array
    mel: Array
    f0: Array
    sums: Mapping[str, Any] = field(default_factory=dict)
    maps: Mapping[str, tuple[mmap.mmap, int]] = field(default_factory=dict)

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
            arrays, maps = dict[str, Array](), dict[str, tuple[mmap.mmap, int]]()
            for name in ARRAYS:
                file, expected = f"{name}.npy", described[name]
                view = np.load(path / file, mmap_mode="r", allow_pickle=False)
                if [*view.shape, view.dtype] != [*expected["shape"], expected["dtype"]]:
                    raise ValueError(f"{view.shape} {view.dtype}; expected {expected}")
                arrays[name] = view.view(np.ndarray)  # slices of a plain array cost less
                if hasattr(mmap, "MADV_RANDOM"):
                    maps[name] = view._mmap, view.offset
                    view._mmap.madvise(mmap.MADV_RANDOM)
            file = MANIFEST
            with (path / file).open("rb") as rows:
                text = mmap.mmap(rows.fileno(), 0, access=mmap.ACCESS_READ)
            digest = _digest(text, size)
            file, table = INDEX, _index(path / INDEX, digest)
            file, ends = MANIFEST, {part: len(arrays[name]) for name, (_, part) in ARRAYS.items()}
            items: Sequence[Item] = Items(text, table) if table else _items(text)
            _require_inside(items, ends)
            if len(items) != head["items"]:
                raise ValueError(f"{len(items)} rows; expected {head['items']}")
        except (*UNREADABLE, ValueError, KeyError, TypeError) as error:
            missing = isinstance(error, FileNotFoundError)
            raise DataError(
                f"prepared store {path}: {file} {'missing' if missing else f'is damaged ({error})'}"
                "; correct data_root, or remove it and prepare it by notebooks/prepare_data.ipynb"
            ) from error
        sums = dict(zip(SPLITS, table.get("sums", ()), strict=False))
        known: dict[str, Any] = {**arrays, "sums": sums, "maps": maps}
        return cls(path, head["corpus"], items, size, seed, digest, **known)

    def want(self, name: str, start: int, count: int) -> None:
        """Ask the system to read rows of an array; several are read at once, while others wait."""
        if name in self.maps:
            (view, offset), size = self.maps[name], getattr(self, name).strides[0]
            begin = (offset + start * size) // mmap.PAGESIZE * mmap.PAGESIZE
            view.madvise(mmap.MADV_WILLNEED, begin, offset + (start + count) * size - begin)

    def part(self, name: str, start: int, count: int) -> Array:
        """Rows of an array."""
        self.want(name, start, count)
        part: Array = getattr(self, name)[start : start + count]
        return part

    def waveform(self, item: Item) -> NDArray[np.float32]:
        """(N,) float32 in [-1, 1) at 24 kHz; empty for a picture."""
        stored = self.part("audio", item.sample_start, item.sample_count)
        return np.asarray(stored, dtype=np.float32) / np.float32(PCM_SCALE)

    def log_mel(self, item: Item) -> Tensor:
        """(80, T) float32, log10; float16 on disk keeps about three digits."""
        stored = self.part("mel", item.frame_start, item.frame_count)
        return torch.from_numpy(np.asarray(stored, dtype=np.float32)).T.contiguous()

    def f0_hz(self, item: Item) -> NDArray[np.float32]:
        """(T,) float32 in Hz, 0 where unvoiced, NaN where not estimated."""
        return np.array(self.part("f0", item.frame_start, item.frame_count))

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


def _digest(text: bytes | mmap.mmap, image_size: int) -> str:
    """16 hex digits over a manifest, the mel contract and the image size."""
    digest = hashlib.sha256(text)
    digest.update(MEL.hash.encode() + str(image_size).encode())
    return digest.hexdigest()[:16]


def _index(path: Path, digest: str) -> dict[str, Array]:
    """The index of a manifest; empty where there is none of just this one."""
    if not path.exists():
        return {}
    with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
        return dict(file) if str(file["digest"]) == digest else {}


def _items(text: mmap.mmap) -> tuple[Item, ...]:
    """Read all rows of a manifest."""
    rows = csv.DictReader(io.StringIO(text[:].decode(errors="replace"), newline=""))
    if tuple(rows.fieldnames or ()) != COLUMNS:
        raise ValueError(f"columns {rows.fieldnames}; expected {list(COLUMNS)}")
    return tuple(_item(row) for row in rows)


def _item(row: Mapping[str, Any]) -> Item:
    """One row of a manifest."""
    return Item(**{**row, **{column: int(row[column]) for column in POSITIONS}})


def _require_inside(items: Sequence[Item], ends: Mapping[str, int]) -> None:
    """Refuse rows that do not lie inside the arrays."""
    table = table_of(items)
    for part, end in ends.items():
        start, count = table[f"{part}_start"], table[f"{part}_count"]
        wrong = np.flatnonzero((np.minimum(start, count) < 0) | (start + count > end))
        for n in wrong[:1]:
            where = f"{start[n]} + {count[n]}"
            raise ValueError(f"clip {items[n].id!r} points outside the arrays: {where}")


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
    tables = [table_of(store.items) for store in stores]
    voiced = [t["speaker"][(t["split"] == 0) & (t["frame_count"] > 0)] for t in tables]
    named = (t["speakers"][np.unique(c)].tolist() for t, c in zip(tables, voiced, strict=True))
    return tuple(sorted({name for names in named for name in names} - {""}))


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
    known = [store.sums[split] if store.sums else _sums(store, split) for store in stores]
    count, total, square = np.split(np.sum(known, axis=0), [1, 1 + MEL.n_mels])
    if not count:
        names = ", ".join(store.corpus for store in stores)
        raise DataError(
            f"mel statistics: split {split!r} of {names} has no audio; expected at least one clip; "
            "prepare more clips or choose another split"
        )
    mean = total / count
    std = np.sqrt(np.maximum(square / count - mean**2, STD_FLOOR**2))
    return Standardiser(torch.from_numpy(mean).float(), torch.from_numpy(std).float())


def _sums(store: Store, split: str) -> Array:
    """(161,) the number of mel frames of a split, their sums and their sums of squares."""
    sums = np.zeros(1 + 2 * MEL.n_mels)
    for item in (i for i in store.items if i.split == split and i.frame_count):
        frames = store.part("mel", item.frame_start, item.frame_count)
        if (own := _sums_of(frames)) is not None:
            sums += own
            continue
        warnings.warn(
            f"prepared store {store.path}: {item.id} is left out of the mel statistics: its log "
            f"mel reaches {frames.max():.2f}; expected at most {HIGHEST_MEL:.2f}; prepare the "
            "corpus anew",
            stacklevel=3,
        )
    return sums


def _sums_of(frames: Array) -> Array | None:
    """The same of a clip (T, 80); None where it is louder than sound or not finite."""
    block = np.array(frames, np.float64, order="C")
    if not (np.isfinite(block).all() and block.max() <= HIGHEST_MEL):
        return None
    return np.concatenate([[len(block)], block.sum(axis=0), np.square(block).sum(axis=0)])


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
    tails = {"faces": (image_size, image_size, 3), "landmarks": (5, 2), "mel": (MEL.n_mels,)}
    ends, items = {"face": 0, "sample": 0, "frame": 0}, list[Item]()
    sums, fit = np.zeros((len(SPLITS), 1 + 2 * MEL.n_mels)), True
    described: dict[str, Any] = {}
    with whole_folder(path) as draft, ExitStack() as stack:
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
            if frames:
                own = _sums_of(arrays["mel"])
                fit = fit and own is not None
                sums[SPLITS.index(items[-1].split)] += 0.0 if own is None else own
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
        text = (draft / MANIFEST).read_bytes()
        lines = np.flatnonzero(np.frombuffer(text, np.uint8) == ord("\n")) + 1
        if len(lines) == len(items) + 1:  # else some text has a line of its own
            index: dict[str, Any] = {**table_of(items), **({"sums": sums} if fit else {})}
            index |= {"lines": lines, "digest": _digest(text, image_size)}
            np.savez(draft / INDEX, **index)
        for name, value in {**(beside or {}), HEAD: head}.items():
            write_whole(draft / name, json.dumps(value, indent=1) + "\n")
    return Store.open(path, corpus=path.name)


def subset(store: Store, path: Path, speakers: Sequence[str]) -> Store:
    """Write a store of some speakers of another one; what is there already is opened.

    Args:
        store: prepared, of any corpus.
        path: folder of the new one, ``<data_root>/<corpus>``.
        speakers: their names in the manifest.

    Raises:
        DataError: the store has no such speaker, or another store is there already.
        OSError: the disk is full; nothing is left.
    """
    known = {item.speaker for item in store.items}
    if absent := [name for name in speakers if name not in known]:
        raise DataError(
            f"prepared store {store.path} has no speakers {absent}; expected some of its "
            f"{len(known)}, such as {min(known, default='none')!r}; correct the names"
        )
    if path.exists():
        there = Store.open(path, corpus=path.name)
        if {item.speaker for item in there.items} != set(speakers):
            raise DataError(f"{path} holds other speakers; expected {speakers}; delete that folder")
        return there

    def clips() -> Iterator[tuple[dict[str, str], dict[str, Array]]]:
        for item in store.items:
            if item.speaker in speakers:
                at = {part: (f"{part}_start", f"{part}_count") for _, part in ARRAYS.values()}
                rows = {part: [getattr(item, one) for one in names] for part, names in at.items()}
                texts = {n: getattr(item, n) for n in COLUMNS if n not in (*POSITIONS, "corpus")}
                yield texts, {n: store.part(n, *rows[part]) for n, (_, part) in ARRAYS.items()}

    return write_store(path, clips(), image_size=store.image_size, seed=store.seed)
