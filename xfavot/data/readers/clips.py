"""Clips: a folder of talking people of your own.

Layout: films, or a voice and a face of one name, anywhere below the folder. The first folder level
names the speaker; files that lie in the folder itself are of unknown speakers. A ``speakers.csv``
(speaker, gender) gives genders, by speaker or, for loose files, by file name. ``NAME.txt`` beside a
clip is its transcript.
"""

from __future__ import annotations

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

LAYOUT = "SPEAKER/*.mp4, or SPEAKER/NAME.wav with SPEAKER/NAME.jpg; gender in speakers.csv"


def scan(source: Path, *, seed: int) -> Iterator[Clip | Reject]:
    """Yield every film and every voice with a face, and whatever stands alone."""
    del seed  # the split of a clip is its hash; see `Clip.split`
    root = corpus_folder(source, "clips")
    genders = read_speakers(root)
    for folder, files in walk(root):
        place = folder.relative_to(root)
        speaker = place.parts[0] if place.parts else ""
        films = _named(files, VIDEO_SUFFIXES)
        voices = _named(files, AUDIO_SUFFIXES)
        faces = _named(files, IMAGE_SUFFIXES)
        texts = {path.stem: path for path in files if path.suffix.casefold() == ".txt"}
        for stem in sorted({*films, *voices, *faces}):
            heard, seen = stem in films or stem in voices, stem in films or stem in faces
            text = texts.get(stem)
            yield Clip(
                id=(place / stem).as_posix(),
                kind="av" if heard and seen else "audio" if heard else "image",
                speaker=f"clips/{speaker}" if speaker else "",
                gender=genders.get(speaker or stem, ""),
                transcript=" ".join(read_text(text).split()) if text else "",
                audio=voices.get(stem),
                images=(faces[stem],) if stem in faces and stem not in films else (),
                video=films.get(stem),
            )


def _named(files: list[Path], suffixes: frozenset[str]) -> dict[str, Path]:
    """Name to file, for some kinds of file; of two with one name the first is taken."""
    found: dict[str, Path] = {}
    for path in files:
        if path.suffix.casefold() in suffixes:
            found.setdefault(path.stem, path)
    return found
