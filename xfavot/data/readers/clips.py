"""Clips: a folder of talking people of your own.

Layout: films, or a voice and a face of one name, anywhere below the folder. The first folder level
names the speaker, as it is written there (``Anna`` and ``anna`` are two); files that lie in the
folder itself are of unknown speakers. A ``speakers.csv`` (speaker, gender) gives genders, by
speaker or, for loose files, by file name. ``NAME.txt`` beside a clip is its transcript. A sound
file beside a film of its name goes before the film's own track.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from xfavot.data.readers import Clip, LeftOut, Reject, corpus_folder, media_kind, read_speakers, read_text, walk

LAYOUT = "SPEAKER/*.mp4, or SPEAKER/NAME.wav with SPEAKER/NAME.jpg; gender in speakers.csv"


def scan(source: Path, *, seed: int) -> Iterator[Clip | Reject | LeftOut]:
    """Yield every film and every voice with a face, and whatever stands alone."""
    del seed  # the split of a clip is its hash; see `Clip.split`
    root = corpus_folder(source, "clips")
    speakers = read_speakers(root)
    for folder, files in walk(root):
        place = folder.relative_to(root)
        speaker = place.parts[0] if place.parts else ""
        named: dict[str, dict[str, Path]] = {"film": {}, "sound": {}, "picture": {}}
        for path in files:
            kind = media_kind(path)
            if kind and path.stem in named[kind]:
                detail = f"{named[kind][path.stem].name}, of the same name, is taken"
                yield Reject(source=path, reason="second copy", detail=detail)
            elif kind:
                named[kind][path.stem] = path
        films, voices, faces = named.values()
        texts = {path.stem: path for path in files if path.suffix.casefold() == ".txt"}
        for stem in sorted({*films, *voices, *faces}):
            heard, seen = stem in films or stem in voices, stem in films or stem in faces
            text = texts.get(stem)
            yield Clip(
                id=(place / stem).as_posix(),
                kind="av" if heard and seen else "audio" if heard else "image",
                speaker=f"clips/{speaker}" if speaker else "",
                gender=speakers.gender(speaker or stem),
                transcript=" ".join(read_text(text).split()) if text else "",
                audio=voices.get(stem),
                images=(faces[stem],) if stem in faces and stem not in films else (),
                video=films.get(stem),
            )
            if stem in films and stem in faces:
                why = "pictures beside a film of their name (its frames are taken)"
                yield LeftOut(source=faces[stem], why=why)
    yield from speakers.notes()
