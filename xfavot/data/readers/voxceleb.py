"""VoxCeleb: voices of celebrities with faces of the same video.

Layouts: ``Name/video/segment.{flac,jpg}`` (one face a segment); or VoxCeleb1's ``wav/idNNNNN/
video/*.wav`` beside face frames ``unzippedFaces/Name/1.6/video/*.jpg``. Gender, and the official
test speakers, come from ``vox1_meta.csv`` (tab-separated); ``speakers.csv``, by id or by name,
completes it. One video stays in one split, since its segments share the face.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from xfavot.data.readers.source import Clip, Genders, Reject, Source, media_kind, of_kind, read_text

LAYOUT = (
    "Name/video/segment.{flac,wav} with segment.jpg, or wav/idNNNNN/video/*.wav with "
    "unzippedFaces/Name/1.6/video/*.jpg; gender in vox1_meta.csv or speakers.csv"
)
META = ("vox1_meta.csv", "vox2_meta.csv")
_SCALES = frozenset({"1.6", "1.3", "2.0"})  # crop factors, a folder level of the face archives


def read_meta(path: Path) -> tuple[Genders, dict[str, tuple[str, str, bool]]]:
    """Read VoxCeleb's metadata.

    Returns:
        Gender by id; and, by id and by name, of every speaker: id, name, whether of the test set.
    """
    lines = [line for line in read_text(path).splitlines() if line.strip()]
    table = csv.reader(lines[1:], delimiter="\t" if "\t" in "".join(lines[:1]) else ",")
    rows = [[cell.strip() for cell in row] for row in table]
    genders = Genders(
        path, [(n, row[0], row[2] if row[2:] else None) for n, row in enumerate(rows, 2)]
    )
    people: dict[str, tuple[str, str, bool]] = {}
    for row in rows:
        if row[2:] and row[0] in genders.codes:
            test = "test" in map(str.casefold, row[3:])
            people[row[0]] = people[row[1]] = row[0], row[1], test
    return genders, people


def scan(source: Source) -> Iterator[Clip | Reject]:
    """Yield every segment with its face, and voices or faces that stand alone."""
    people: dict[str, tuple[str, str, bool]] = {}
    genders: dict[str, str] = {}
    every = [path for _, files in source.folders for path in files]
    for path in sorted(path for path in every if path.name in META):
        table, known = read_meta(path)
        people |= known
        genders |= table.codes
        yield from table.malformed()
    videos: defaultdict[tuple[str, str], dict[str, dict[str, Path]]]
    videos = defaultdict(lambda: {"sound": {}, "picture": {}})  # kind and place to file
    for place, files in source.folders:
        media = of_kind(files, "sound", "picture")
        parts = tuple(part for part in place.parts if part not in _SCALES)
        at = next((i for i, part in enumerate(parts[:-1]) if part in people), len(parts) - 2)
        for path in media:
            if at < 0:
                yield Reject(path, "no speaker", "no Name/video/ above")
                continue
            speaker = people[parts[at]][0] if parts[at] in people else parts[at]
            name = "/".join((*parts[at + 2 :], path.stem))
            videos[speaker, parts[at + 1]][media_kind(path)].setdefault(name, path)
    for (speaker, video), segments in sorted(videos.items(), key=lambda entry: entry[0]):
        voices, faces = segments["sound"], segments["picture"]
        number, name, test = people.get(speaker, (speaker, speaker, False))
        clip = partial(
            Clip,
            speaker=f"voxceleb/{speaker}",
            gender=source.speakers.gender(number, name) or genders.get(speaker, ""),
            split="unseen" if test else "",
            extra={"group": f"{speaker}/{video}"},
        )
        # a segment has the face of its name, else all faces without a segment
        lone = tuple(path for name, path in sorted(faces.items()) if name not in voices)
        for name, voice in sorted(voices.items()):
            images = (faces[name],) if name in faces else lone
            kind = "av" if images else "audio"
            yield clip(id=f"{speaker}/{video}/{name}", kind=kind, audio=voice, images=images)
        for path in () if voices else lone:
            yield clip(id=f"{speaker}/{video}/{path.stem}", kind="image", images=(path,))
