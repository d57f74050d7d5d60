"""VoxCeleb: voices of celebrities with faces of the same video.

Layouts: ``Name/video/segment.{flac,jpg}`` (one face a segment); or VoxCeleb1's ``wav/idNNNNN/
video/*.wav`` beside face frames ``unzippedFaces/Name/1.6/video/*.jpg``. Gender, and the official
test speakers, come from ``vox1_meta.csv`` (tab-separated); ``speakers.csv`` completes it. One
video stays in one split, since its segments share the face.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from xfavot.data.readers import (
    AUDIO_SUFFIXES,
    IMAGE_SUFFIXES,
    Clip,
    Reject,
    corpus_folder,
    gender_code,
    read_speakers,
    read_text,
    walk,
)

LAYOUT = (
    "Name/video/segment.{flac,wav} with segment.jpg, or wav/idNNNNN/video/*.wav with "
    "unzippedFaces/Name/1.6/video/*.jpg; gender in vox1_meta.csv or speakers.csv"
)
META = ("vox1_meta.csv", "vox2_meta.csv")
_SCALES = frozenset({"1.6", "1.3", "2.0"})  # crop factors, a folder level of the face archives


@dataclass(frozen=True, slots=True, kw_only=True)
class _Speaker:
    """A row of the metadata."""

    name: str
    gender: str
    test: bool


def read_meta(path: Path) -> dict[str, _Speaker]:
    """Read VoxCeleb's metadata: id and name of every speaker to one record."""
    speakers: dict[str, _Speaker] = {}
    lines = [line for line in read_text(path).splitlines() if line.strip()]
    if not lines:
        return speakers
    rows = csv.reader(lines[1:], delimiter="\t" if "\t" in lines[0] else ",")
    for row in rows:
        cells = [cell.strip() for cell in row]
        if len(cells) >= 3:
            test = any(cell.casefold() == "test" for cell in cells[3:])
            known = _Speaker(name=cells[0], gender=gender_code(cells[2]), test=test)
            speakers[cells[0]] = speakers[cells[1]] = known
    return speakers


def scan(source: Path, *, seed: int) -> Iterator[Clip | Reject]:
    """Yield every segment with its face, and voices or faces that stand alone."""
    del seed  # the split of a video is its hash; see `Clip.split`
    root = corpus_folder(source, "voxceleb")
    meta: dict[str, _Speaker] = {}
    for name in META:
        meta |= read_meta(root / name)
    genders = read_speakers(root)
    voices: dict[tuple[str, str], list[Path]] = {}
    faces: dict[tuple[str, str], list[Path]] = {}
    for folder, files in walk(root):
        kinds = {path.suffix.casefold() for path in files}
        if not kinds & (AUDIO_SUFFIXES | IMAGE_SUFFIXES):
            continue
        parts = [part for part in folder.relative_to(root).parts if part not in _SCALES]
        if len(parts) < 2:
            for path in files:
                if path.suffix.casefold() in AUDIO_SUFFIXES | IMAGE_SUFFIXES:
                    yield Reject(source=path, reason="no speaker", detail="no Name/video/ above")
            continue
        known = meta.get(parts[-2])
        key = (known.name if known else parts[-2], parts[-1])
        if kinds & AUDIO_SUFFIXES:
            voices.setdefault(key, []).append(folder)
        if kinds & IMAGE_SUFFIXES:
            faces.setdefault(key, []).append(folder)
    for key in sorted(voices.keys() | faces.keys()):
        known = meta.get(key[0])
        gender = genders.get(key[0]) or (known.gender if known else "")
        test = known.test if known else False
        yield from _video(
            key,
            _files(voices.get(key, []), AUDIO_SUFFIXES),
            _files(faces.get(key, []), IMAGE_SUFFIXES),
            gender=gender,
            split="unseen" if test else "",
        )


def _files(folders: list[Path], suffixes: frozenset[str]) -> list[Path]:
    return [
        path
        for folder in folders
        for path in sorted(folder.iterdir())
        if path.suffix.casefold() in suffixes and not path.name.startswith(".")
    ]


def _video(
    key: tuple[str, str], voices: list[Path], faces: list[Path], *, gender: str, split: str
) -> Iterator[Clip]:
    """Pair the segments of one video: the face of the same name, else all faces of the video."""
    speaker, video = key
    named = {path.stem: path for path in faces}
    lone = [path for path in faces if path.stem not in {voice.stem for voice in voices}]
    for voice in voices:
        images = (named[voice.stem],) if voice.stem in named else tuple(lone)
        yield Clip(
            id=f"{speaker}/{video}/{voice.stem}",
            kind="av" if images else "audio",
            speaker=f"voxceleb/{speaker}",
            gender=gender,
            split=split,
            audio=voice,
            images=images,
            extra={"group": f"{speaker}/{video}"},
        )
    if not voices:
        for face in faces:
            yield Clip(
                id=f"{speaker}/{video}/{face.stem}",
                kind="image",
                speaker=f"voxceleb/{speaker}",
                gender=gender,
                split=split,
                images=(face,),
                extra={"group": f"{speaker}/{video}"},
            )
