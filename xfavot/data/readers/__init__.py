"""Readers: one file a corpus, each turns a folder of originals into `Clip` records.

A reader only looks at names, folders and tables; it opens no media, so scanning a full corpus is
quick and a broken file is met later, in `xfavot.data.prepare`, where it is quarantined. Nothing has
to be renamed: every reader accepts the corpus's original layout. `source` is the corpus's own
folder or a folder that holds one folder a corpus.

Lineage: design of this project; the layouts are those of the corpora's owners.
"""

from __future__ import annotations

import csv
import hashlib
import importlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from xfavot.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac"})
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
VIDEO_SUFFIXES = frozenset({".mpg", ".mpeg", ".mp4", ".m4v", ".avi", ".mov", ".mkv", ".webm"})
MEDIA_SUFFIXES = AUDIO_SUFFIXES | IMAGE_SUFFIXES | VIDEO_SUFFIXES
VAL_SHARE = 0.1  # of the utterances or images, STATED


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """One item of a corpus as its files name it, before anything is decoded.

    Attributes:
        id: unique within the corpus and stable, for example ``s1/bbaf2n``.
        kind: ``"av"`` (face and voice of one person), ``"audio"`` or ``"image"``.
        speaker: ``"grid/s1"``; ``""`` if unknown.
        gender: ``"f"``, ``"m"`` or ``""`` if unknown.
        transcript: the words, or ``""``.
        split: ``"train"``, ``"val"``, ``"unseen"``; ``""`` lets `xfavot.data.prepare` decide by a
            hash of the id (or of ``extra["group"]``, so that one video stays in one split).
        audio: file with the voice; ``None`` takes the track of `video`.
        images: faces as still images.
        video: film from which frames are taken, instead of `images`.
        aligned: the images are face crops in CelebA-HQ's framing and are only resized.
        landmarks: eyes, nose, mouth corners known beforehand, (images, 5, 2) in pixels (x, y).
        extra: anything more the corpus knows: `group` (see `split`), `seconds` (the length that
            every clip of the corpus has; a shorter one is truncated), `hidden` and `faces` (the
            factors of `mini`: of the speaker, and one mapping an image).
    """

    id: str
    kind: str
    speaker: str = ""
    gender: str = ""
    transcript: str = ""
    split: str = ""
    audio: Path | None = None
    images: tuple[Path, ...] = ()
    video: Path | None = None
    aligned: bool = False
    landmarks: NDArray[np.float32] | None = field(default=None, compare=False)
    extra: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def source(self) -> Path:
        """The file that stands for the clip in messages, the manifest and the quarantine."""
        first = self.video or self.audio or (self.images[0] if self.images else None)
        if first is None:
            raise DataError(
                f"clip {self.id!r} names no file; expected audio, images or a video; "
                "this is a fault of the corpus's reader"
            )
        return first


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """A media file that a reader saw and could not place; it goes to the quarantine list."""

    source: Path
    reason: str
    detail: str = ""


class Reader(Protocol):
    """What `xfavot.data.prepare` needs of a corpus.

    A module ``xfavot/data/readers/<corpus>.py`` is a reader: it has the constant `LAYOUT` and the
    function `scan`.
    """

    LAYOUT: str

    def scan(self, source: Path, *, seed: int) -> Iterator[Clip | Reject]:
        """Yield every clip below `source` in a stable order."""
        ...


# What a corpus's folder may be called below `source`, beside its own name.
FOLDERS: dict[str, tuple[str, ...]] = {
    "mini": (),
    "grid": ("grid_corpus",),
    "vctk": ("vctk-corpus", "vctk-corpus-0.92", "vctk_corpus"),
    "celeba_hq": ("celebahq", "celeba-hq", "celebamask-hq"),
    "lrs3": ("lrs3-ted", "lrs3_ted"),
    "lip2wav": (),
    "voxceleb": ("voxceleb1", "vox1"),
    "librispeech": (),
    "avatars": (),
    "clips": ("talking_clips",),
}


class _Module:
    """A reader whose module is imported when it is first used."""

    def __init__(self, corpus: str) -> None:
        self.corpus = corpus

    def _module(self) -> Reader:
        return cast("Reader", importlib.import_module(f"{__name__}.{self.corpus}"))

    @property
    def LAYOUT(self) -> str:
        """The layout that the reader expects, in words."""
        return str(self._module().LAYOUT)

    def scan(self, source: Path, *, seed: int) -> Iterator[Clip | Reject]:
        """Yield every clip below `source` in a stable order.

        Raises:
            DataError: the folder is missing or holds nothing in the corpus's layout.
        """
        source = Path(source)
        if not source.is_dir():
            raise DataError(
                f"source folder {str(source)!r} does not exist; expected the folder of the "
                f"{self.corpus} originals: {self.LAYOUT}; set `source` to it"
            )
        clips = 0
        rejects: list[Reject] = []
        for record in self._module().scan(source, seed=seed):
            if isinstance(record, Clip):
                clips += 1
            elif len(rejects) < 3:
                rejects.append(record)
            yield record
        if clips == 0:
            seen = "".join(f"; {reject.source}: {reject.reason}" for reject in rejects)
            raise DataError(
                f"source folder {str(source)!r} holds no clip of {self.corpus}{seen}; expected "
                f"{self.LAYOUT}; set `source` to that folder or to one that holds "
                f"{self.corpus!r} as a folder"
            )


READERS: dict[str, _Module] = {corpus: _Module(corpus) for corpus in FOLDERS}


def corpus_folder(source: Path, corpus: str) -> Path:
    """Return the folder of a corpus: a child of `source` that bears its name, or `source` itself.

    Args:
        source: the corpus's own folder, or one that holds one folder a corpus.
        corpus: its name.

    Raises:
        DataError: `source` holds folders of other corpora and none of this one.
    """
    children = {child.name.casefold(): child for child in sorted(source.iterdir())}
    for name in (corpus, *FOLDERS[corpus]):
        if name in children and children[name].is_dir():
            return children[name]
    others = sorted(
        children[name].name
        for other, names in FOLDERS.items()
        for name in (other, *names)
        if name in children and children[name].is_dir()
    )
    if others:
        raise DataError(
            f"source folder {str(source)!r} holds {', '.join(others)} but no folder {corpus!r}; "
            f"put the {corpus} originals into a folder of that name, or set `source` to them"
        )
    return source


def walk(folder: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Yield each folder below `folder` with its files, sorted, hidden ones left out.

    Links are followed, every folder is entered once, so that a loop of links ends.
    """
    seen: set[tuple[int, int]] = set()
    for here, folders, files in os.walk(folder, followlinks=True):
        state = os.stat(here)
        key = (state.st_dev, state.st_ino)
        if key in seen:
            folders.clear()
            continue
        seen.add(key)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        path = Path(here)
        yield path, [path / name for name in sorted(files) if not name.startswith(".")]


def read_speakers(folder: Path) -> dict[str, str]:
    """Read ``speakers.csv`` (speaker, gender) beside a corpus; an absent file is an empty table.

    Raises:
        DataError: the file has no column `speaker` or `gender`.
    """
    path = folder / "speakers.csv"
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8-sig") as stream:
        rows = csv.DictReader(stream)
        columns = rows.fieldnames or []
        if not {"speaker", "gender"} <= set(columns):
            raise DataError(
                f"{path} has the columns {list(columns)}; expected speaker, gender; "
                "write one row a speaker, gender F or M"
            )
        return {row["speaker"].strip(): gender_code(row["gender"]) for row in rows}


def gender_code(word: str | None) -> str:
    """Return ``"f"``, ``"m"`` or ``""`` for the ways in which tables write a gender."""
    first = (word or "").strip().casefold()[:1]
    return {"f": "f", "w": "f", "m": "m"}.get(first, "")


def read_text(path: Path) -> str:
    """Read a small text file of unknown encoding; an unreadable one gives ``""``."""
    try:
        return path.read_bytes().decode("utf-8-sig", errors="replace")
    except OSError:
        return ""


def fraction(key: str, *, seed: int) -> float:
    """Return a number in [0, 1) that depends on the key and the seed alone."""
    digest = hashlib.sha256(f"{seed}:{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2.0**64


def split_of(key: str, *, seed: int) -> str:
    """Return ``"val"`` for a tenth of the keys and ``"train"`` for the others."""
    return "val" if fraction(key, seed=seed) < VAL_SHARE else "train"
