"""GRID: films of 33 speakers, each sentence in six slots, the name of a file spells it.

Layouts: ``sN/*.mpg`` (as the archives of Zenodo unpack), ``sN/video/mpg_6000/*.mpg`` (those of the
corpus's site), anything between; alignments in ``alignments/sN/``, ``sN/align/``. The transcript
comes from the alignment, else from the file's name (``bbaf2n``: bin blue at f two now). Audio is
the film's own track; the sound files of ``audio_25k/`` are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from xfavot.data.readers.source import Clip, Reject, Source, media_kind, read_text

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
    if len(name) != len(SLOTS):
        return ""
    words = [slot.get(letter, "") for slot, letter in zip(SLOTS, name.casefold(), strict=True)]
    return " ".join(words) if all(words) else ""


def read_align(path: Path) -> str:
    """Read the words of an alignment (lines of start, end, word), silences left out."""
    rows = [line.split() for line in read_text(path).splitlines()]
    words = [row[2].casefold() for row in rows if len(row) == 3]
    return " ".join(word for word in words if word not in {"sil", "sp"})


def scan(source: Source) -> Iterator[Clip | Reject]:
    """Yield every film once, at its best quality."""
    films: dict[tuple[str, str], Path] = {}  # of speaker and sentence
    aligns: dict[tuple[str, str], Path] = {}
    for place, files in source.folders:
        speaker = _speaker((source.root.name, *place.parts))
        for path in files:
            key = (speaker, path.stem)
            if path.suffix.casefold() == ".align":
                aligns[key] = path
            elif media_kind(path) == "film" and not speaker:
                yield Reject(path, "no speaker", "no folder sN above it")
            elif media_kind(path) == "film":
                films[key] = min(films.get(key, path), path, key=_is_small)
    for (speaker, name), path in sorted(films.items()):
        align = aligns.get((speaker, name)) or aligns.get(("", name))
        number = int(speaker[1:])
        known = ("f" if number in WOMEN else "m") if number in SPEAKERS else ""
        yield Clip(
            f"{speaker}/{name}",
            "av",
            f"grid/{speaker}",
            source.speakers.gender(speaker) or known,
            (read_align(align) if align else "") or sentence_of(name),
            video=path,
            extra={"seconds": SECONDS},
        )


def _is_small(path: Path) -> bool:
    """Tell a film of the video CD's rate, which GRID's site offers beside 6,000 kbit/s."""
    return any("mpg_vcd" in part.casefold() for part in path.parts[-3:-1])


def _speaker(parts: tuple[str, ...]) -> str:
    """Return ``sN`` of the nearest folder of that name, at most the corpus's own, else ``""``."""
    matches = [match for part in parts if (match := _SPEAKER.match(part))]
    return f"s{int(matches[-1][1])}" if matches else ""
