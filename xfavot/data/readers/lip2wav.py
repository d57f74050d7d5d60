"""Lip2Wav: lectures, films of one speaker a folder.

Layouts: ``SPEAKER/intervals/video/*.mp4`` (as the owners' scripts cut them), ``SPEAKER/*.mp4``,
anything between. Five speakers exist (chem, chess, dl, eh, hs); the paper uses four and does not
tell which. There is no table of speakers; a ``speakers.csv`` (speaker, gender) gives the genders.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from xfavot.data.readers import (
    VIDEO_SUFFIXES,
    Clip,
    Reject,
    corpus_folder,
    read_speakers,
    walk,
)

LAYOUT = "SPEAKER/intervals/VIDEO/*.mp4 or SPEAKER/*.mp4, gender in speakers.csv"
SPEAKERS = ("chem", "chess", "dl", "eh", "hs")


def scan(source: Path, *, seed: int) -> Iterator[Clip | Reject]:
    """Yield every film below a speaker's folder; a lecture stays in one split."""
    del seed  # the split of a lecture is its hash; see `Clip.split`
    root = corpus_folder(source, "lip2wav")
    genders = read_speakers(root)
    known = {*SPEAKERS, *genders}
    for folder, files in walk(root):
        place = folder.relative_to(root)
        speaker = next((part for part in place.parts if part in known), "")
        for path in files:
            if path.suffix.casefold() not in VIDEO_SUFFIXES:
                continue
            if not speaker:
                yield Reject(
                    source=path,
                    reason="no speaker",
                    detail=f"no folder {', '.join(SPEAKERS)} or of speakers.csv above it",
                )
                continue
            yield Clip(
                id=(place / path.stem).as_posix(),
                kind="av",
                speaker=f"lip2wav/{speaker}",
                gender=genders.get(speaker, ""),
                video=path,
                extra={"group": place.as_posix()} if len(place.parts) > 1 else {},
            )
