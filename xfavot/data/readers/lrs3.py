"""LRS3: TED talks, films of one speaker a folder.

Layouts: ``{pretrain,trainval,test}/ID/*.mp4`` with ``*.txt`` beside; or, where only a voice and a
face of a talk are at hand, ``trainval/ID/*.wav`` and ``*.jpg``: a voice goes with the face of its
name, else with all faces of its talk. Files outside those three folders are pairs of an unknown
speaker. LRS3 has no table of speakers; a ``speakers.csv`` (speaker, gender) gives the genders.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from xfavot.data.readers import Clip, LeftOut, Reject, corpus_folder, media_kind, read_speakers, read_text, walk

LAYOUT = "trainval/ID/*.mp4 (or *.wav with *.jpg), gender in speakers.csv (speaker, gender)"
SETS = frozenset({"trainval", "pretrain", "test"})


def read_transcript(path: Path) -> str:
    """Read the words of a clip's text file (``Text:  HELLO ...``, further lines are times)."""
    for line in read_text(path).splitlines():
        if line.startswith("Text:"):
            return " ".join(line.removeprefix("Text:").split())
    return ""


def scan(source: Path, *, seed: int) -> Iterator[Clip | Reject | LeftOut]:
    """Yield every clip of every talk."""
    del seed  # the split of a clip is its hash; see `Clip.split`
    root = corpus_folder(source, "lrs3")
    speakers = read_speakers(root)
    for folder, files in walk(root):
        talk = folder.name if SETS & {folder.parent.name, root.name} else ""
        if not talk and folder.name in speakers.genders:
            talk = folder.name
        if any(media_kind(path) for path in files):
            gender = speakers.gender(talk)
            yield from _talk(folder, files, root, talk=talk, gender=gender)
    yield from speakers.notes()


def _talk(
    folder: Path, files: list[Path], root: Path, *, talk: str, gender: str
) -> Iterator[Clip | LeftOut]:
    """Yield the clips of one folder: films, and voices paired with faces."""
    speaker = f"lrs3/{talk}" if talk else ""
    place = folder.relative_to(root)
    films, voices, faces = (
        [path for path in files if media_kind(path) == kind]
        for kind in ("film", "sound", "picture")
    )
    named = {path.stem: path for path in faces}
    used: set[Path] = set()
    taken = {path.stem for path in films}
    for path in films:
        yield Clip(
            id=(place / path.stem).as_posix(),
            kind="av",
            speaker=speaker,
            gender=gender,
            transcript=read_transcript(path.with_suffix(".txt")),
            video=path,
        )
    for path in voices:
        if path.stem in taken:
            yield LeftOut(source=path, why="sounds of films as files (the films' own are read)")
            continue
        same = [named[path.stem]] if path.stem in named else []
        images = tuple(same or (faces if talk else []))
        used.update(images)
        yield Clip(
            id=(place / path.stem).as_posix(),
            kind="av" if images else "audio",
            speaker=speaker,
            gender=gender,
            transcript=read_transcript(path.with_suffix(".txt")),
            audio=path,
            images=images,
        )
    for path in faces:
        if path.stem in taken:
            yield LeftOut(source=path, why="pictures beside a film of their name")
        elif path not in used:
            yield Clip(
                id=(place / path.name).as_posix(),
                kind="image",
                speaker=speaker,
                gender=gender,
                images=(path,),
            )
