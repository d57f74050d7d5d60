"""LRS3: TED talks, films of one speaker a folder.

Layouts: ``{pretrain,trainval,test}/ID/*.mp4`` with ``*.txt`` beside; or, where only a voice and a
face of a talk are at hand, ``trainval/ID/*.wav`` and ``*.jpg``: a voice goes with the face of its
name, else with all faces of its talk. Files outside those three folders are pairs of an unknown
speaker. LRS3 has no table of speakers; a ``speakers.csv`` (speaker, gender) gives the genders.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from xfavot.data.readers.source import Clip, Source, of_kind, read_text

LAYOUT = "trainval/ID/*.mp4 (or *.wav with *.jpg), gender in speakers.csv (speaker, gender)"
SETS = frozenset({"trainval", "pretrain", "test"})


def read_transcript(path: Path) -> str:
    """Read the words of a clip's text file (``Text:  HELLO ...``, further lines are times)."""
    lines = read_text(path.with_suffix(".txt")).splitlines()
    text = next((line for line in lines if line.startswith("Text:")), "")
    return " ".join(text.removeprefix("Text:").split())


def scan(source: Source) -> Iterator[Clip]:
    """Yield every clip of every talk: films, and voices paired with faces."""
    for place, files in source.folders:
        folder = source.root / place
        named = SETS & {folder.parent.name, source.root.name}
        talk = folder.name if named or folder.name in source.speakers.codes else ""
        films = of_kind(files, "film")
        filmed = {path.stem for path in films}  # sounds and pictures of these are left out
        others = [path for path in files if path.stem not in filmed]
        voices, faces = of_kind(others, "sound"), of_kind(others, "picture")
        gender = source.speakers.gender(talk) if films or voices or faces else ""
        clip = partial(Clip, speaker=f"lrs3/{talk}" if talk else "", gender=gender)
        by_name = {path.stem: (path,) for path in faces}
        used: set[Path] = set()
        for path in films:
            name = (place / path.stem).as_posix()
            yield clip(id=name, kind="av", transcript=read_transcript(path), video=path)
        for path in voices:
            images = by_name.get(path.stem) or (tuple(faces) if talk else ())
            used.update(images)
            yield clip(
                id=(place / path.stem).as_posix(),
                kind="av" if images else "audio",
                transcript=read_transcript(path),
                audio=path,
                images=images,
            )
        for path in faces:
            if path not in used:
                yield clip(id=(place / path.name).as_posix(), kind="image", images=(path,))
