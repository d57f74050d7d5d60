"""GRID: films of 33 speakers, each sentence in six slots, the name of a file spells it.

Layouts: ``sN/video/*.mpg``, ``sN/*.mpg`` (as the archives unpack), anything between; alignments in
``sN/align/*.align``, ``align/sN/``, ``alignments/sN/``. The transcript comes from the alignment,
else from the file's name (``bbaf2n``: bin blue at f two now). Audio is the film's own track.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from xfavot.data.readers import (
    AUDIO_SUFFIXES,
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    Clip,
    Reject,
    corpus_folder,
    read_speakers,
    read_text,
    walk,
)

LAYOUT = "sN/video/*.mpg or sN/*.mpg, with sN/align/*.align or alignments/sN/*.align if at hand"
# Women among the 34 speakers, checked by eye on 13 of them; s21 has no video.
WOMEN = frozenset({4, 7, 11, 15, 16, 18, 20, 22, 23, 24, 25, 29, 31, 33, 34})
SPEAKERS = range(1, 35)
SECONDS = 3.0  # of every film (75 frames at 25 a second); a shorter one was cut off
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SLOTS: tuple[dict[str, str], ...] = (
    {"b": "bin", "l": "lay", "p": "place", "s": "set"},
    {"b": "blue", "g": "green", "r": "red", "w": "white"},
    {"a": "at", "b": "by", "i": "in", "w": "with"},
    {letter: letter for letter in "abcdefghijklmnopqrstuvxyz"},  # no w
    dict(zip("z123456789", _DIGITS, strict=True)),
    {"a": "again", "n": "now", "p": "please", "s": "soon"},
)
_SPEAKER = re.compile(r"^s(\d{1,2})(?:[_.\- ].*)?$", re.IGNORECASE)


def sentence_of(name: str) -> str:
    """Spell the sentence of a file's name (``bbaf2n``); a name that is no code gives ``""``."""
    code = name.casefold()
    if len(code) != len(SLOTS):
        return ""
    words = [slot.get(letter, "") for slot, letter in zip(SLOTS, code, strict=True)]
    return " ".join(words) if all(words) else ""


def read_align(path: Path) -> str:
    """Read the words of an alignment (lines of start, end, word), silences left out."""
    rows = [line.split() for line in read_text(path).splitlines()]
    words = [row[2].casefold() for row in rows if len(row) == 3]
    return " ".join(word for word in words if word not in {"sil", "sp"})


def scan(source: Path, *, seed: int) -> Iterator[Clip | Reject]:
    """Yield every film; a sound file or image without a film is rejected by name."""
    del seed  # GRID prescribes no split
    root = corpus_folder(source, "grid")
    genders = read_speakers(root)
    films: dict[tuple[str, str], Path] = {}
    aligns: dict[tuple[str, str], Path] = {}
    others: list[Path] = []
    for folder, files in walk(root):
        speaker = _speaker(folder, root)
        for path in files:
            suffix = path.suffix.casefold()
            key = (speaker, path.stem)
            if suffix == ".align":
                aligns[key] = path
            elif suffix in AUDIO_SUFFIXES or suffix in IMAGE_SUFFIXES:
                others.append(path)
            elif suffix not in VIDEO_SUFFIXES:
                continue
            elif not speaker:
                yield Reject(source=path, reason="no speaker", detail="no folder sN above it")
            elif key in films:
                yield Reject(source=path, reason="second copy", detail=f"taken: {films[key]}")
            else:
                films[key] = path
    for (speaker, name), path in sorted(films.items()):
        align = aligns.get((speaker, name)) or aligns.get(("", name))
        number = int(speaker[1:])
        known = ("f" if number in WOMEN else "m") if number in SPEAKERS else ""
        yield Clip(
            id=f"{speaker}/{name}",
            kind="av",
            speaker=f"grid/{speaker}",
            gender=genders.get(speaker) or known,
            transcript=(read_align(align) if align else "") or sentence_of(name),
            video=path,
            extra={"seconds": SECONDS},
        )
    for path in others:
        if (_speaker(path.parent, root), path.stem) not in films:
            yield Reject(source=path, reason="no film", detail="GRID clips are read from films")


def _speaker(folder: Path, root: Path) -> str:
    """Return ``sN`` of the nearest folder of that name, at most the corpus's own, else ``""``."""
    for name in (*reversed(folder.relative_to(root).parts), root.name):
        match = _SPEAKER.match(name)
        if match:
            return f"s{int(match[1])}"
    return ""
