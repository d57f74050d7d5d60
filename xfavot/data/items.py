"""One clip of a prepared store: its manifest row, its arrays, and the checks of both."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from xfavot.audio.mel import MEL, log_mel
from xfavot.errors import DataError

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
