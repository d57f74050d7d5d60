"""LRS3: TED talks, films of one speaker a folder.

Layouts: ``{trainval,pretrain,test}/ID/*.mp4`` with ``*.txt`` beside; or, where only a voice and a
face of a talk are at hand, ``trainval/ID/*.wav`` and ``*.jpg``: a voice goes with the face of its
name, else with all faces of its talk. Files outside those three folders are pairs of an unknown
speaker. LRS3 has no table of speakers; a ``speakers.csv`` (speaker, gender) gives the genders.
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

LAYOUT = "trainval/ID/*.mp4 (or *.wav with *.jpg), gender in speakers.csv (speaker, gender)"
SETS = frozenset({"trainval", "pretrain", "test"})


def read_transcript(path: Path) -> str:
    """Read the words of a clip's text file (``Text:  HELLO ...``, further lines are times)."""
    for line in read_text(path).splitlines():
        if line.startswith("Text:"):
            return " ".join(line.removeprefix("Text:").split())
    return ""


def scan(source: Path, *, seed: int) -> Iterator[Clip | Reject]:
    """Yield every clip of every talk."""
    del seed  # the split of a clip is its hash; see `Clip.split`
    root = corpus_folder(source, "lrs3")
    genders = read_speakers(root)
    for folder, files in walk(root):
        by_suffix: dict[str, list[Path]] = {"audio": [], "image": [], "video": []}
        for path in files:
            suffix = path.suffix.casefold()
            if suffix in AUDIO_SUFFIXES:
                by_suffix["audio"].append(path)
            elif suffix in IMAGE_SUFFIXES:
                by_suffix["image"].append(path)
            elif suffix in VIDEO_SUFFIXES:
                by_suffix["video"].append(path)
        if any(by_suffix.values()):
            talk = folder.name if SETS & {folder.parent.name, root.name} else ""
            if not talk and folder.name in genders:
                talk = folder.name
            yield from _talk(
                folder,
                root,
                talk=talk,
                gender=genders.get(talk, ""),
                films=by_suffix["video"],
                voices=by_suffix["audio"],
                faces=by_suffix["image"],
            )


def _talk(
    folder: Path,
    root: Path,
    *,
    talk: str,
    gender: str,
    films: list[Path],
    voices: list[Path],
    faces: list[Path],
) -> Iterator[Clip | Reject]:
    """Yield the clips of one folder: films, and voices paired with faces."""
    speaker = f"lrs3/{talk}" if talk else ""
    place = folder.relative_to(root)
    named = {path.stem: path for path in faces}
    used: set[Path] = set()
    for path in films:
        yield Clip(
            id=(place / path.stem).as_posix(),
            kind="av",
            speaker=speaker,
            gender=gender,
            transcript=read_transcript(path.with_suffix(".txt")),
            video=path,
        )
    taken = {path.stem for path in films}
    for path in voices:
        if path.stem in taken:  # the film's own sound track as a file
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
        if path not in used and path.stem not in taken:
            yield Clip(
                id=(place / path.name).as_posix(),
                kind="image",
                speaker=speaker,
                gender=gender,
                images=(path,),
            )
