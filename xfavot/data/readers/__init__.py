"""Readers: one file a corpus, each turns a folder of originals into `Clip` records.

Nothing has to be renamed: every reader accepts the corpus's original layout. The folder given is
the corpus's own or one that holds one folder a corpus. Every media file below the corpus's folder
ends up as (part of) a clip, as a `Reject` of its own, or in a `Reject` that counts a class of files
which are left out on purpose.

Lineage: design of this project; the layouts are those of the corpora's owners.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from xfavot.data.readers.source import (
    ARCHIVES,
    EXAMPLES,
    NOT_NEEDED,
    NOT_REJECTED,
    NOTED,
    VAL_SHARE,
    Clip,
    Reject,
    Source,
    fraction,
    note,
    printable,
    summed,
)
from xfavot.errors import DataError

__all__ = [
    "FOLDERS",
    "NOTED",
    "NOT_NEEDED",
    "NOT_REJECTED",
    "READERS",
    "VAL_SHARE",
    "Clip",
    "Reject",
    "corpus_folder",
    "fraction",
    "printable",
]

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


@dataclass(frozen=True)
class Reader:
    """The reader of one corpus.

    Its module ``xfavot/data/readers/<corpus>.py`` has the constant `LAYOUT` and the generator
    ``scan(source: Source)``, and is imported when it is first used.
    """

    corpus: str

    @property
    def layout(self) -> str:
        """The layout that the reader expects, in words."""
        return str(self._module().LAYOUT)

    def _module(self) -> Any:
        return importlib.import_module(f"{__name__}.{self.corpus}")

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
                f"{self.corpus} originals: {self.layout}; set `source` to it"
            )
        root = corpus_folder(source, self.corpus)
        folder = Source(root, seed=seed)
        taken: set[Path] = set()
        rejects: list[Reject] = []
        clips = 0
        for record in self._module().scan(folder):
            if isinstance(record, Clip):
                clips += 1
                taken.update(record.files)
                yield _storable(record)
            else:
                taken.add(record.source)
                rejects.append(record)
        rejects = summed([*rejects, *folder.rest(taken)])
        for other in sorted(source.iterdir() if source != root else ()):
            named = other.name.casefold() in (self.corpus, *FOLDERS[self.corpus])
            if named and other != root and other.is_dir():
                detail = f"a second folder of {self.corpus}; {root.name} is taken"
                rejects.append(Reject(other, NOT_NEEDED, detail))
        if not clips:
            raise DataError(self._nothing(source, folder, rejects))
        yield from rejects

    def _nothing(self, source: Path, folder: Source, rejects: list[Reject]) -> str:
        """Say that a folder holds nothing that could be used, and what it holds instead."""
        seen = "".join(f"; {r.source}: {r.reason} ({r.detail})" for r in rejects[:EXAMPLES])
        names = [path.name for _, files in folder.folders for path in files]
        packed = [name for name in names if Path(name).suffix.casefold() in ARCHIVES]
        if packed:
            seen += f"; {note(len(packed), 'archives', packed)}: unpack them first"
        return (
            f"source folder {str(source)!r} holds no clip of {self.corpus}{seen}; expected "
            f"{self.layout}; set `source` to that folder or to one that holds "
            f"{self.corpus!r} as a folder"
        )


READERS = {corpus: Reader(corpus) for corpus in FOLDERS}


def _storable(clip: Clip) -> Clip:
    """Spell out what is not UTF-8 in the names that a clip has from its files."""
    extra = dict(clip.extra)
    if "group" in extra:
        extra["group"] = printable(extra["group"])
    return replace(
        clip,
        id=printable(clip.id),
        speaker=printable(clip.speaker),
        transcript=printable(clip.transcript),
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
        folders = {path.name.casefold(): path for path in sorted(source.iterdir()) if path.is_dir()}
    except OSError as error:
        raise DataError(
            f"source folder {str(source)!r} cannot be read ({error}); expected the {corpus} "
            "originals; correct its permissions"
        ) from error
    for name in (corpus, *FOLDERS[corpus]):
        if name in folders:
            return folders[name]
    every = {name for other, names in FOLDERS.items() for name in (other, *names)}
    others = sorted(path.name for name, path in folders.items() if name in every)
    if others:
        raise DataError(
            f"source folder {str(source)!r} holds {', '.join(others)} but no folder {corpus!r}; "
            f"put the {corpus} originals into a folder of that name, or set `source` to them"
        )
    return source
