"""The prepared store: one folder a corpus, flat arrays on disk and one manifest row a clip.

Written once by `prepare` through :class:`StoreWriter`, read by everything after it through
:class:`Store`. Arrays are appended while the corpus streams by and are memory-mapped afterwards, so
that neither side ever holds a corpus in memory. Frames are stored time first, (T, 80), so that a
crop of a clip is one contiguous piece of the file.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from xfavot.audio.mel import MEL, log_mel
from xfavot.errors import DataError
import json
import os
from os import PathLike
import shutil
import tempfile
import time
from contextlib import suppress
from dataclasses import astuple
from types import TracebackType
from typing import Any, BinaryIO
from numpy.typing import ArrayLike
from xfavot import __version__
from xfavot.audio.mel import MEL
import hashlib
from dataclasses import dataclass
from numpy.typing import NDArray
from xfavot.audio.mel import MEL, Standardiser, require_contract


# One clip of a prepared store: its manifest row, its arrays, and the checks of both


SCHEMA = 1  # of a prepared store; another number is refused
KINDS = ("av", "audio", "image")
GENDERS = ("f", "m")  # the position is the gender code
SPLITS = ("train", "val", "unseen")
PCM_SCALE = 32768.0  # int16 steps in a full-scale sample
ARRAYS = {  # file name and type of every array
    "faces": "uint8",
    "landmarks": "float32",
    "audio": "int16",
    "mel": "float16",
    "f0": "float32",
}


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
NUMBERS = COLUMNS[-6:]


def read_items(text: bytes, path: Path, count: int, lengths: Mapping[str, int]) -> tuple[Item, ...]:
    """Parse manifest.csv and check every row against the arrays' lengths.

    Args:
        text: the file's bytes.
        path: the store's folder, for messages.
        count: rows expected.
        lengths: length of each array by name.

    Returns:
        The items, in file order.

    Raises:
        DataError: other columns, a damaged row, a row outside the arrays, another number of rows.
    """
    where = f"prepared store {path}: manifest.csv"
    rows = csv.DictReader(io.StringIO(text.decode("utf-8", errors="replace"), newline=""))
    if tuple(rows.fieldnames or ()) != COLUMNS:
        raise DataError(
            f"{where} has columns {rows.fieldnames}; expected {list(COLUMNS)}; prepare it again"
        )
    items: list[Item] = []
    for number, row in enumerate(rows, start=1):
        try:
            values: dict[str, Any] = {k: int(v) if k in NUMBERS else v for k, v in row.items()}
            item = Item(**values)
        except (TypeError, ValueError) as error:
            raise DataError(f"{where}, row {number}, is damaged ({error}); prepare again") from None
        ends = {
            "faces": (item.face_start, item.face_count),
            "audio": (item.sample_start, item.sample_count),
            "mel": (item.frame_start, item.frame_count),
        }
        if any(a < 0 or n < 0 or a + n > lengths[name] for name, (a, n) in ends.items()):
            raise DataError(
                f"{where}, row {number} ({item.id}), points outside the arrays: {ends}; expected "
                f"lengths {dict(lengths)}; prepare the corpus again"
            )
        items.append(item)
    if len(items) != count:
        raise DataError(
            f"{where} has {len(items)} rows; expected {count}; the file is truncated or edited, "
            "prepare the corpus again"
        )
    return tuple(items)


def clip_arrays(
    row: Mapping[str, str],
    faces: ArrayLike | None,
    landmarks: ArrayLike | None,
    waveform: ArrayLike | None,
    mel: Tensor | ArrayLike | None,
    f0: ArrayLike | None,
    *,
    tails: Mapping[str, tuple[int, ...]],
) -> dict[str, NDArray[Any]]:
    """Convert what a clip has to the types of the files, checked against its kind and each other.

    Args:
        row: the clip's text fields.
        faces, landmarks, waveform, mel, f0: as in ``StoreWriter.add``.
        tails: shape of one entry of each array.

    Returns:
        An array for each of :data:`ARRAYS`, empty where the kind has none.

    Raises:
        DataError: something is missing, superfluous, misshapen or not finite.
    """
    where, seen, heard = f"clip {row['id']!r}", row["kind"] != "audio", row["kind"] != "image"
    if (faces is not None) != seen or (waveform is not None) != heard:
        raise DataError(
            f"{where} of kind {row['kind']!r}: faces given: {faces is not None}, waveform "
            f"given: {waveform is not None}; expected {seen} and {heard}; correct the reader"
        )
    out = {name: np.zeros((0, *tails[name]), dtype) for name, dtype in ARRAYS.items()}
    if seen:
        out["faces"] = np.asarray(faces)
        count = len(out["faces"])
        given = np.full((count, 5, 2), np.nan) if landmarks is None else np.asarray(landmarks)
        out["landmarks"] = given.astype(np.float32)
        _require(where, "faces", out["faces"], (count, *tails["faces"]), ARRAYS["faces"])
        _require(where, "landmarks", out["landmarks"], (count, 5, 2), ARRAYS["landmarks"])
        if not count:
            raise DataError(f"{where}: no face; expected at least one; quarantine it instead")
    if heard:
        out["audio"] = _pcm(where, np.asarray(waveform))
        wave = torch.from_numpy(out["audio"].astype(np.float32) / np.float32(PCM_SCALE))
        frames = len(wave) // MEL.hop + 1
        bands = log_mel(wave) if mel is None else torch.as_tensor(mel)
        out["mel"] = bands.detach().cpu().numpy().T.astype(ARRAYS["mel"])
        given = np.full(frames, np.nan) if f0 is None else np.asarray(f0)
        out["f0"] = given.astype(np.float32)
        _require(where, "log_mel (transposed)", out["mel"], (frames, MEL.n_mels), ARRAYS["mel"])
        _require(where, "f0", out["f0"], (frames,), ARRAYS["f0"])
        if not np.isfinite(out["mel"]).all():
            raise DataError(
                f"{where}: log_mel has values that are not finite in float16; expected log10 "
                "magnitudes of at least -10; compute it with audio.mel.log_mel"
            )
    return out


def _require(
    where: str, name: str, array: NDArray[Any], shape: tuple[int, ...], dtype: str
) -> None:
    """Refuse an array of another shape or type."""
    if array.shape != shape or array.dtype != np.dtype(dtype):
        raise DataError(
            f"{where}: {name} is {array.shape} {array.dtype}; expected {shape} {dtype}; correct "
            "what prepares the clip"
        )


def _pcm(where: str, wave: NDArray[Any]) -> NDArray[np.int16]:
    """A mono waveform as int16."""
    floating = np.issubdtype(wave.dtype, np.floating)
    if wave.ndim != 1 or not (floating or wave.dtype == np.int16) or not np.isfinite(wave).all():
        raise DataError(
            f"{where}: waveform is {wave.shape} {wave.dtype}, or not finite; expected (N,) finite "
            "float in [-1, 1] or int16; load it with audio.io.load_waveform"
        )
    steps = np.rint(wave * PCM_SCALE) if floating else wave
    return np.clip(steps, -PCM_SCALE, PCM_SCALE - 1).astype(np.int16)


# Writes a prepared store: arrays grow beside the target, which appears whole at the end


HEADER_BYTES = 128  # of an .npy file, reserved and filled in at close
STALE_SECONDS = 24 * 3600.0  # a writer's folder untouched this long belongs to a killed process
FIELDS = ("id", "kind", "speaker", "gender", "split", "transcript", "source", "sha256")


class StoreWriter:
    """Streams clips into a new prepared store; use it in a ``with`` statement.

    Leaving the block closes the store, an exception inside it removes what was written. Other
    files (`factors.json`, `report.html`) may be put into :attr:`folder` before the end.

    Args:
        path: the store's folder, ``<data_root>/<corpus>``; it appears at :meth:`close`.
        corpus: name of the corpus.
        seed: seed of the splits, recorded.
        image_size: pixels a side of every face.
        replace: take the place of an existing store, which stays until the new one is whole.

    Raises:
        DataError: the folder exists and may not be replaced, or cannot be written.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        corpus: str,
        seed: int,
        image_size: int = 128,
        replace: bool = False,
    ) -> None:
        """Open the files of a new store; see the class."""
        self.path = Path(path)
        self.corpus, self.seed, self.image_size = corpus, seed, image_size
        self._replace = replace
        self._require_free()
        stem = f".{self.path.name}.partial-"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            for old in self.path.parent.glob(f"{stem}*"):
                if _is_stale(old):
                    shutil.rmtree(old, ignore_errors=True)
            self.folder = Path(tempfile.mkdtemp(prefix=stem, dir=self.path.parent))
            self.folder.chmod(0o755)
        except OSError as error:
            raise _unwritable(self.path, error) from error
        tails = {"faces": (image_size, image_size, 3), "landmarks": (5, 2), "mel": (MEL.n_mels,)}
        self._tails: dict[str, tuple[int, ...]] = {name: tails.get(name, ()) for name in ARRAYS}
        self._lengths = dict.fromkeys(ARRAYS, 0)
        self._files: dict[str, BinaryIO] = {}
        self._ids: set[str] = set()
        self._items: list[Item] = []
        self._quarantined: list[tuple[str, str, str]] = []
        self._open = True
        try:
            for name in ARRAYS:
                self._files[name] = (self.folder / f"{name}.npy").open("wb")
                self._files[name].write(bytes(HEADER_BYTES))
        except OSError as error:
            self.abort()
            raise _unwritable(self.path, error) from error

    def add(
        self,
        item_fields: Mapping[str, str],
        *,
        faces: ArrayLike | None = None,
        landmarks: ArrayLike | None = None,
        waveform: ArrayLike | None = None,
        log_mel: Tensor | ArrayLike | None = None,
        f0: ArrayLike | None = None,
    ) -> Item:
        """Append one clip.

        Args:
            item_fields: id, kind, split; speaker, gender, transcript, source, sha256 if known.
            faces: (n, H, W, 3) uint8, for kinds "av" and "image".
            landmarks: (n, 5, 2) pixels of the crop; NaN is stored when not given.
            waveform: (N,) float in [-1, 1] or int16 at 24 kHz, for kinds "av" and "audio".
            log_mel: (80, N // 300 + 1) log10; computed from the waveform when not given.
            f0: (N // 300 + 1,) Hz, 0 unvoiced; NaN ("not estimated") is stored when not given.

        Returns:
            The manifest row.

        Raises:
            DataError: a field or an array does not fit, or the disk is full (the writer is then
                closed and its files removed).
        """
        row = dict.fromkeys(FIELDS, "") | dict(item_fields)
        self._check_fields(row)
        arrays = clip_arrays(row, faces, landmarks, waveform, log_mel, f0, tails=self._tails)
        item = Item(
            **row,
            corpus=self.corpus,
            face_start=self._lengths["faces"],
            face_count=len(arrays["faces"]),
            sample_start=self._lengths["audio"],
            sample_count=len(arrays["audio"]),
            frame_start=self._lengths["mel"],
            frame_count=len(arrays["mel"]),
        )
        try:
            for name, array in arrays.items():
                self._files[name].write(np.ascontiguousarray(array).data)
                self._lengths[name] += len(array)
        except OSError as error:
            self.abort()
            raise _unwritable(self.path, error) from error
        self._items.append(item)
        self._ids.add(item.id)
        return item

    def quarantine(self, source: str, reason: str, detail: str = "") -> None:
        """Record a file that could not be used.

        Args:
            source: the file, relative to the corpus.
            reason: a short class of errors, the same words for the same cause.
            detail: the full message.
        """
        self._quarantined.append((source, reason, detail))

    def close(self) -> Path:
        """Write headers, manifest and store.json, then let the store appear at its path.

        Returns:
            The store's folder, ready for ``Store.open``.

        Raises:
            DataError: the target has appeared meanwhile, or the disk is full; nothing is left.
        """
        if not self._open:
            return self.path
        try:
            self._require_free()
            self._finish()
            retired = self.folder.with_name(self.folder.name + "-old")
            if self.path.exists():
                self.path.rename(retired)
            self.folder.rename(self.path)
            shutil.rmtree(retired, ignore_errors=True)
        except OSError as error:
            self.abort()
            raise _unwritable(self.path, error) from error
        except DataError:
            self.abort()
            raise
        self._open = False
        return self.path

    def abort(self) -> None:
        """Remove everything written so far; the target stays as it was."""
        self._open = False
        for file in self._files.values():
            with suppress(OSError):  # a full disk fails the flush again
                file.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> StoreWriter:
        """Return the writer itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close, or remove everything after an exception."""
        if kind is None:
            self.close()
        elif self._open:
            self.abort()

    def _require_free(self) -> None:
        """Refuse a target that exists, unless it is a store that may be replaced."""
        if not self.path.exists() or (self.path.is_dir() and not any(self.path.iterdir())):
            return
        if not self._replace or not (self.path / "store.json").is_file():
            raise DataError(
                f"prepared store {self.path}: the folder exists; expected no folder, or a store "
                "and replace=True; open the store that is there, or remove it"
            )

    def _check_fields(self, row: Mapping[str, str]) -> None:
        """Refuse unknown fields, values outside the schema and a repeated id."""
        allowed = {"kind": KINDS, "gender": (*GENDERS, ""), "split": SPLITS}
        wrong = {k: row[k] for k, values in allowed.items() if row[k] not in values}
        unknown = sorted(set(row) - set(FIELDS))
        if wrong or unknown or not row["id"] or row["id"] in self._ids:
            raise DataError(
                f"clip {row['id']!r}: unknown fields {unknown}, wrong values {wrong}, repeated id: "
                f"{row['id'] in self._ids}; expected fields {FIELDS}, a new non-empty id and "
                f"values of {allowed}; correct the corpus's reader"
            )

    def _finish(self) -> None:
        """Write everything that waits for the end into the folder and flush it to the disk."""
        written: dict[str, dict[str, Any]] = {}
        for name, dtype in ARRAYS.items():
            shape = (self._lengths[name], *self._tails[name])
            file = self._files[name]
            file.seek(0)
            file.write(_npy_header(shape, dtype))
            file.flush()
            os.fsync(file.fileno())
            file.close()
            size = (self.folder / f"{name}.npy").stat().st_size
            written[name] = {"dtype": dtype, "shape": list(shape), "bytes": size}
        _write_csv(self.folder / "manifest.csv", COLUMNS, [astuple(item) for item in self._items])
        columns = ("source", "reason", "detail")
        _write_csv(self.folder / "quarantine.csv", columns, self._quarantined)
        kinds = {kind: sum(item.kind == kind for item in self._items) for kind in KINDS}
        head = {
            "schema": SCHEMA,
            "corpus": self.corpus,
            "created_by": f"xfavot {__version__}",
            "seed": self.seed,
            "image_size": self.image_size,
            "mel": MEL.as_dict(),
            "mel_hash": MEL.hash,
            "items": len(self._items),
            "counts": {**kinds, "quarantined": len(self._quarantined)},
            "arrays": written,
        }
        text = json.dumps(head, indent=2) + "\n"
        (self.folder / "store.json").write_text(text, encoding="utf-8")


def _npy_header(shape: tuple[int, ...], dtype: str) -> bytes:
    """An .npy header (format 1.0) of exactly HEADER_BYTES."""
    description = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
    room = HEADER_BYTES - 10
    text = repr(description).encode("latin1").ljust(room - 1) + b"\n"
    return b"\x93NUMPY\x01\x00" + room.to_bytes(2, "little") + text


def _write_csv(path: Path, columns: tuple[str, ...], rows: list[Any]) -> None:
    """Write a CSV file in UTF-8."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def _is_stale(folder: Path) -> bool:
    """Whether nothing in a writer's folder changed for a day."""
    newest = max((file.stat().st_mtime for file in folder.iterdir()), default=0.0)
    return time.time() - max(newest, folder.stat().st_mtime) > STALE_SECONDS


def _unwritable(path: Path, error: OSError) -> DataError:
    """The error for a store that could not be written."""
    return DataError(
        f"prepared store {path}: cannot be written ({error}); nothing was left behind; free space "
        "and prepare again, which goes on from the clips that are ready"
    )


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
