"""Readers: one file a corpus, each turns a folder of originals into `Clip` records.

A reader only looks at names, folders and tables; it opens no media, so scanning a full corpus is
quick and a broken file is met later, in `xfavot.data.prepare`, where it is quarantined. Nothing has
to be renamed: every reader accepts the corpus's original layout. `source` is the corpus's own
folder or a folder that holds one folder a corpus.

Every media file below the corpus's folder ends up as (part of) a clip, as a `Reject` of its own, or
in a `Reject` that counts a class of files which are left out on purpose (`LeftOut`).

Lineage: design of this project; the layouts are those of the corpora's owners.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Protocol, cast

from xfavot.data.readers.folders import archives, left_over, walk
from xfavot.data.readers.records import (
    AUDIO_SUFFIXES,
    EXAMPLES,
    IMAGE_SUFFIXES,
    MEDIA_SUFFIXES,
    NOT_NEEDED,
    VIDEO_SUFFIXES,
    Clip,
    LeftOut,
    Reject,
    Tally,
    media_kind,
    note,
    printable,
)
from xfavot.data.readers.tables import (
    MALFORMED,
    UNUSED,
    Speakers,
    gender_code,
    read_speakers,
    read_text,
)
from xfavot.errors import DataError

__all__ = [
    "AUDIO_SUFFIXES",
    "FOLDERS",
    "IMAGE_SUFFIXES",
    "MALFORMED",
    "MEDIA_SUFFIXES",
    "NOT_NEEDED",
    "READERS",
    "UNUSED",
    "VAL_SHARE",
    "VIDEO_SUFFIXES",
    "Clip",
    "LeftOut",
    "Reader",
    "Reject",
    "Speakers",
    "corpus_folder",
    "fraction",
    "gender_code",
    "media_kind",
    "note",
    "printable",
    "read_speakers",
    "read_text",
    "split_of",
    "walk",
]

VAL_SHARE = 0.1  # of the utterances or images, STATED


class Reader(Protocol):
    """What `xfavot.data.prepare` needs of a corpus.

    A module ``xfavot/data/readers/<corpus>.py`` is a reader: it has the constant `LAYOUT` and the
    function `scan`.
    """

    LAYOUT: str

    def scan(self, source: Path, *, seed: int) -> Iterator[Clip | Reject | LeftOut]:
        """Yield every clip below `source` in a stable order, and what is no clip."""
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
        """Yield every clip below `source` in a stable order, then whatever is no clip.

        Raises:
            DataError: the folder is missing or holds nothing in the corpus's layout, or a table
                beside the corpus contradicts itself.
        """
        source = Path(source)
        if not source.is_dir():
            raise DataError(
                f"source folder {str(source)!r} does not exist; expected the folder of the "
                f"{self.corpus} originals: {self.LAYOUT}; set `source` to it"
            )
        clips = 0
        rejects: list[Reject] = []
        tally = Tally()
        taken: set[Path] = set()
        for record in self._module().scan(source, seed=seed):
            if isinstance(record, Clip):
                clips += 1
                taken.update(record.files)
                yield _storable(record)
            else:
                taken.add(record.source)
                rejects += _kept(record, tally)
        root = corpus_folder(source, self.corpus)
        for rest in left_over(root, taken):
            rejects += _kept(rest, tally)
        rejects += [*tally.notes(), *self._other_folders(source, root)]
        if clips == 0:
            raise DataError(self._nothing(source, root, rejects))
        yield from rejects

    def _other_folders(self, source: Path, root: Path) -> Iterator[Reject]:
        """Name the folders of `source` that bear the corpus's name too."""
        for folder in sorted(source.iterdir() if source != root else ()):
            named = folder.name.casefold() in (self.corpus, *FOLDERS[self.corpus])
            if named and folder != root and folder.is_dir():
                detail = f"a second folder of {self.corpus}; {root.name} is taken"
                yield Reject(source=folder, reason=NOT_NEEDED, detail=detail)

    def _nothing(self, source: Path, root: Path, rejects: list[Reject]) -> str:
        """Say that a folder holds nothing that could be used, and what it holds instead."""
        seen = "".join(f"; {r.source}: {r.reason} ({r.detail})" for r in rejects[:EXAMPLES])
        packed = archives(root)
        if packed:
            seen += f"; {note(len(packed), 'archives', packed)}: unpack them first"
        return (
            f"source folder {str(source)!r} holds no clip of {self.corpus}{seen}; expected "
            f"{self.LAYOUT}; set `source` to that folder or to one that holds "
            f"{self.corpus!r} as a folder"
        )


READERS: dict[str, _Module] = {corpus: _Module(corpus) for corpus in FOLDERS}


def _kept(record: Reject | LeftOut, tally: Tally) -> list[Reject]:
    """Count what is left out on purpose; return the others."""
    if isinstance(record, Reject):
        return [record]
    tally.add(record)
    return []


def _storable(clip: Clip) -> Clip:
    """Spell out what is not UTF-8 in the names that a clip has from its files."""
    names = (clip.id, clip.speaker, clip.transcript, str(clip.extra.get("group", "")))
    if all(name.isascii() or printable(name) == name for name in names):
        return clip
    extra = clip.extra | ({"group": printable(names[3])} if "group" in clip.extra else {})
    return replace(
        clip,
        id=printable(names[0]),
        speaker=printable(names[1]),
        transcript=printable(names[2]),
        extra=extra,
    )


def corpus_folder(source: Path, corpus: str) -> Path:
    """Return the folder of a corpus: a child of `source` that bears its name, or `source` itself.

    Args:
        source: the corpus's own folder, or one that holds one folder a corpus.
        corpus: its name.

    Raises:
        DataError: `source` cannot be read, or holds folders of other corpora and none of this one.
    """
    try:
        children = {child.name.casefold(): child for child in sorted(source.iterdir())}
    except OSError as error:
        raise DataError(
            f"source folder {str(source)!r} cannot be read ({error}); expected the {corpus} "
            "originals; correct its permissions"
        ) from error
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


def fraction(key: str, *, seed: int) -> float:
    """Return a number in [0, 1) that depends on the key and the seed alone."""
    digest = hashlib.sha256(f"{seed}:{printable(key)}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2.0**64


def split_of(key: str, *, seed: int) -> str:
    """Return ``"val"`` for a tenth of the keys and ``"train"`` for the others."""
    return "val" if fraction(key, seed=seed) < VAL_SHARE else "train"
