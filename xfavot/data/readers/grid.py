"""GRID: films of 33 speakers, each sentence in six slots, the name of a file spells it.

Layouts: ``sN/*.mpg`` (as the archives of Zenodo unpack), ``sN/video/mpg_6000/*.mpg`` (those of the
corpus's site), anything between; alignments in ``alignments/sN/``, ``sN/align/``. The transcript
comes from the alignment, else from the file's name (``bbaf2n``: bin blue at f two now). Audio is
the film's own track; the sound files of ``audio_25k/`` are counted and left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from xfavot.data.readers import Clip, LeftOut, Reject, corpus_folder, media_kind, read_speakers, read_text, walk

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


def scan(source: Path, *, seed: int) -> Iterator[Clip | Reject | LeftOut]:
    """Yield every film once, at its best quality; sound files and pictures are left out."""
    del seed  # GRID prescribes no split
    root = corpus_folder(source, "grid")
    speakers = read_speakers(root)
    films: dict[tuple[str, str], Path] = {}
    aligns: dict[tuple[str, str], Path] = {}
    sounds: list[Path] = []
    for folder, files in walk(root):
        speaker = _speaker(folder, root)
        for path in files:
            key = (speaker, path.stem)
            kind = media_kind(path)
            if path.suffix.casefold() == ".align":
                aligns[key] = path
            elif kind == "sound":
                sounds.append(path)
            elif kind == "film" and not speaker:
                yield Reject(source=path, reason="no speaker", detail="no folder sN above it")
            elif kind == "film" and key in films:
                better, other = sorted((films[key], path), key=_is_small)
                films[key] = better
                if _is_small(other) and not _is_small(better):
                    yield LeftOut(source=other, why="films that are there at a higher rate too")
                else:
                    detail = f"{better} is taken"
                    yield Reject(source=other, reason="second copy", detail=detail)
            elif kind == "film":
                films[key] = path
    for (speaker, name), path in sorted(films.items()):
        align = aligns.get((speaker, name)) or aligns.get(("", name))
        number = int(speaker[1:])
        known = ("f" if number in WOMEN else "m") if number in SPEAKERS else ""
        yield Clip(
            id=f"{speaker}/{name}",
            kind="av",
            speaker=f"grid/{speaker}",
            gender=speakers.gender(speaker) or known,
            transcript=(read_align(align) if align else "") or sentence_of(name),
            video=path,
            extra={"seconds": SECONDS},
        )
    for path in sounds:
        if (_speaker(path.parent, root), path.stem) in films:
            yield LeftOut(source=path, why="sounds of films as files (the films' own are read)")
        else:
            why = "sound files without their film; GRID is read from films (s21 has none)"
            yield LeftOut(source=path, why=why, reason="no film")
    yield from speakers.notes()


def _is_small(path: Path) -> bool:
    """Tell a film of the video CD's rate, which GRID's site offers beside 6,000 kbit/s."""
    return any("mpg_vcd" in part.casefold() for part in path.parts[-3:-1])


def _speaker(folder: Path, root: Path) -> str:
    """Return ``sN`` of the nearest folder of that name, at most the corpus's own, else ``""``."""
    for name in (*reversed(folder.relative_to(root).parts), root.name):
        match = _SPEAKER.match(name)
        if match:
            return f"s{int(match[1])}"
    return ""
