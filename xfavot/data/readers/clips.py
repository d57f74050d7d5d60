"""Clips: a folder of talking people of your own.

Layout: films, or a voice and a face of one name, anywhere below the folder. The first folder level
names the speaker, as it is written there (``Anna`` and ``anna`` are two); files that lie in the
folder itself are of unknown speakers. A ``speakers.csv`` (speaker, gender) gives genders, by
speaker or, for loose files, by file name. ``NAME.txt`` beside a clip is its transcript. A sound
file beside a film of its name goes before the film's own track; a picture beside it is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from xfavot.data.readers.source import Clip, Reject, Source, media_kind, read_words

LAYOUT = "SPEAKER/*.mp4, or SPEAKER/NAME.wav with SPEAKER/NAME.jpg; gender in speakers.csv"


def scan(source: Source) -> Iterator[Clip | Reject]:
    """Yield every film and every voice with a face, and whatever stands alone."""
    for place, files in source.folders:
        speaker = place.parts[0] if place.parts else ""
        named: dict[str, dict[str, Path]] = {}  # stem and kind to file
        for path in files:
            kind = "text" if path.suffix.casefold() == ".txt" else media_kind(path)
            first = named.setdefault(path.stem, {}).setdefault(kind, path)
            if kind and kind != "text" and first != path:
                yield Reject(path, "second copy", f"{first} is taken")
        for stem, parts in sorted(named.items()):
            film, voice, face = (parts.get(kind) for kind in ("film", "sound", "picture"))
            heard, seen = film or voice, film or face
            if not (heard or seen):
                continue
            yield Clip(
                (place / stem).as_posix(),
                "av" if heard and seen else "audio" if heard else "image",
                f"clips/{speaker}" if speaker else "",
                source.speakers.gender(speaker or stem),
                read_words(parts.get("text")),
                audio=voice,
                images=(face,) if face and not film else (),
                video=film,
            )
