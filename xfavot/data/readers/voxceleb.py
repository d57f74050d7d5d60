"""VoxCeleb: voices of celebrities with faces of the same video.

Layouts: ``Name/video/segment.{flac,jpg}`` (one face a segment); or VoxCeleb1's ``wav/idNNNNN/
video/*.wav`` beside face frames ``unzippedFaces/Name/1.6/video/*.jpg``. Gender, and the official
test speakers, come from ``vox1_meta.csv`` (tab-separated); ``speakers.csv``, by id or by name,
completes it. One video stays in one split, since its segments share the face.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from xfavot.data.readers import MALFORMED, Clip, LeftOut, Reject, corpus_folder, gender_code, media_kind, note, read_speakers, read_text, walk

LAYOUT = (
    "Name/video/segment.{flac,wav} with segment.jpg, or wav/idNNNNN/video/*.wav with "
    "unzippedFaces/Name/1.6/video/*.jpg; gender in vox1_meta.csv or speakers.csv"
)
META = ("vox1_meta.csv", "vox2_meta.csv")
_SCALES = frozenset({"1.6", "1.3", "2.0"})  # crop factors, a folder level of the face archives


@dataclass(frozen=True, slots=True, kw_only=True)
class _Speaker:
    """A row of the metadata."""

    id: str
    name: str
    gender: str
    test: bool


@dataclass(frozen=True, slots=True)
class _Video:
    """The files of one video by their place in it, without suffix (``00001``, ``1/07``)."""

    voices: dict[str, Path] = field(default_factory=dict)
    faces: dict[str, Path] = field(default_factory=dict)


def read_meta(path: Path) -> tuple[dict[str, _Speaker], list[str]]:
    """Read VoxCeleb's metadata.

    Returns:
        Id, and name, of every speaker to one record; and the rows that do not fit.
    """
    speakers: dict[str, _Speaker] = {}
    malformed: list[str] = []
    lines = [line for line in read_text(path).splitlines() if line.strip()]
    if not lines:
        return speakers, malformed
    rows = csv.reader(lines[1:], delimiter="\t" if "\t" in lines[0] else ",")
    for number, row in enumerate(rows, 2):
        cells = [cell.strip() for cell in row]
        code = gender_code(cells[2]) if len(cells) >= 3 and cells[0] else ""
        if not code or (cells[0] in speakers and speakers[cells[0]].gender != code):
            malformed.append(f"row {number} ({' '.join(cells)[:40]!r})")
            continue
        test = any(cell.casefold() == "test" for cell in cells[3:])
        known = _Speaker(id=cells[0], name=cells[1], gender=code, test=test)
        speakers[cells[0]] = speakers[cells[1]] = known
    return speakers, malformed


def scan(source: Path, *, seed: int) -> Iterator[Clip | Reject | LeftOut]:
    """Yield every segment with its face, and voices or faces that stand alone."""
    del seed  # the split of a video is its hash; see `Clip.split`
    root = corpus_folder(source, "voxceleb")
    meta: dict[str, _Speaker] = {}
    for path in sorted(path for name in META for path in (root / name, *root.glob(f"*/{name}"))):
        known, malformed = read_meta(path)
        meta |= known
        if malformed:
            detail = note(len(malformed), "rows are not id, name, m or f", malformed)
            yield Reject(source=path, reason=MALFORMED, detail=detail)
    speakers = read_speakers(root)
    videos: dict[tuple[str, str], _Video] = {}
    for folder, files in walk(root):
        media = [path for path in files if media_kind(path) in ("sound", "picture")]
        key, below = _place(folder.relative_to(root).parts, meta) if media else ((), ())
        for path in media:
            if len(key) < 2:
                yield Reject(source=path, reason="no speaker", detail="no Name/video/ above")
                continue
            video = videos.setdefault((key[0], key[1]), _Video())
            known_files = video.voices if media_kind(path) == "sound" else video.faces
            name = "/".join((*below, path.stem))
            if name in known_files:
                detail = f"{known_files[name]} is taken"
                yield Reject(source=path, reason="second copy", detail=detail)
            else:
                known_files[name] = path
    for (speaker, name), video in sorted(videos.items(), key=lambda entry: entry[0]):
        person = meta.get(speaker)
        names = (person.id, person.name) if person else (speaker,)
        gender = speakers.gender(*names) or (person.gender if person else "")
        split = "unseen" if person and person.test else ""
        yield from _segments(speaker, name, video, gender=gender, split=split)
    yield from speakers.notes()


def _place(
    parts: tuple[str, ...], meta: dict[str, _Speaker]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return speaker and video of a folder, if it names both, and what lies below the video."""
    parts = tuple(part for part in parts if part not in _SCALES)
    for number, part in enumerate(parts[:-1]):
        if part in meta:
            return (meta[part].id, parts[number + 1]), parts[number + 2 :]
    return parts[-2:], ()


def _segments(
    speaker: str, video: str, files: _Video, *, gender: str, split: str
) -> Iterator[Clip | LeftOut]:
    """Pair the segments of one video: the face of the same name, else all lone faces."""
    lone = tuple(path for name, path in sorted(files.faces.items()) if name not in files.voices)
    shared = False
    for name, voice in sorted(files.voices.items()):
        images = (files.faces[name],) if name in files.faces else lone
        shared = shared or images is lone
        yield Clip(
            id=f"{speaker}/{video}/{name}",
            kind="av" if images else "audio",
            speaker=f"voxceleb/{speaker}",
            gender=gender,
            split=split,
            audio=voice,
            images=images,
            extra={"group": f"{speaker}/{video}"},
        )
    for face in () if shared else lone:
        if files.voices:
            yield LeftOut(source=face, why="faces without a segment in a video that has segments")
            continue
        yield Clip(
            id=f"{speaker}/{video}/{face.stem}",
            kind="image",
            speaker=f"voxceleb/{speaker}",
            gender=gender,
            split=split,
            images=(face,),
            extra={"group": f"{speaker}/{video}"},
        )
