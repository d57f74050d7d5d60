"""LibriSpeech: audiobooks read by volunteers, sound only; for the F0, content and vocoder networks.

Layout: ``{train-clean-100, test-other ...}/SPEAKER/CHAPTER/*.flac`` with ``*.trans.txt``, and
``SPEAKERS.TXT`` for the genders. Not in the paper. One chapter stays in one split.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from xfavot.data.readers.source import Clip, Genders, Reject, Source, of_kind, read_text

LAYOUT = "SUBSET/SPEAKER/CHAPTER/*.flac with *.trans.txt, and SPEAKERS.TXT"


def read_speaker_table(root: Path) -> Genders:
    """Read ``SPEAKERS.TXT`` (id | sex | subset | minutes | name) beside, above or below subsets."""
    places = (root, root.parent, root / "LibriSpeech")
    paths = [place / name for place in places for name in ("SPEAKERS.TXT", "speakers.txt")]
    path = next(filter(Path.is_file, paths), paths[0])
    lines = enumerate(read_text(path).splitlines(), 1)
    cells = [(number, line.split("|")) for number, line in lines if not line.startswith(";")]
    return Genders(path, [(number, row[0].strip(), row[1]) for number, row in cells if row[2:]])


def read_transcripts(path: Path) -> dict[str, str]:
    """Read utterance to words of a chapter's ``*.trans.txt``."""
    rows = [line.partition(" ") for line in read_text(path).splitlines()]
    return {name: " ".join(words.split()).casefold() for name, _, words in rows if words}


def scan(source: Source) -> Iterator[Clip | Reject]:
    """Yield every utterance."""
    listed = read_speaker_table(source.root)
    for place, files in source.folders:
        speaker = place.parts[-2] if len(place.parts) > 1 else ""
        texts: dict[str, str] = {}
        for path in files:
            if path.name.casefold().endswith(".trans.txt"):
                texts |= read_transcripts(path)
        for path in of_kind(files, "sound"):
            if not speaker.isdecimal():
                yield Reject(path, "no speaker", "no SPEAKER/CHAPTER/ above")
                continue
            yield Clip(
                f"{speaker}/{path.stem}",
                "audio",
                f"librispeech/{speaker}",
                source.speakers.gender(speaker) or listed.gender(speaker),
                texts.get(path.stem, ""),
                audio=path,
                extra={"group": f"{speaker}/{place.name}"},
            )
