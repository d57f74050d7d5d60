"""Writes a prepared store: arrays grow beside the target, which appears whole at the end.

Deviation from a plain dump: the .npy headers are written last, into room reserved for them, because
the lengths are known only then; memory stays bounded by one clip.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import astuple
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from xfavot import __version__
from xfavot.audio.mel import MEL
from xfavot.data.items import ARRAYS, COLUMNS, GENDERS, KINDS, SCHEMA, SPLITS, Item, clip_arrays
from xfavot.errors import DataError

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
