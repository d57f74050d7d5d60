"""LibriSpeech: audiobooks read by volunteers, sound only; for the F0, content and vocoder networks.

Layout: ``{train-clean-100, test-other ...}/SPEAKER/CHAPTER/*.flac`` with ``*.trans.txt``, and
``SPEAKERS.TXT`` for the genders. Not in the paper. One chapter stays in one split.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from xfavot.data.readers import Clip, Reject, corpus_folder, gender_code, media_kind, read_speakers, read_text, walk

LAYOUT = "SUBSET/SPEAKER/CHAPTER/*.flac with *.trans.txt, and SPEAKERS.TXT"


def read_speaker_table(path: Path) -> dict[str, str]:
    """Read speaker to gender of ``SPEAKERS.TXT`` (id | sex | subset | minutes | name)."""
    rows = [line.split("|") for line in read_text(path).splitlines() if not line.startswith(";")]
    return {row[0].strip(): gender_code(row[1]) for row in rows if len(row) > 2}


def read_transcripts(path: Path) -> dict[str, str]:
    """Read utterance to words of a chapter's ``*.trans.txt``."""
    rows = [line.partition(" ") for line in read_text(path).splitlines()]
    return {name: " ".join(words.split()).casefold() for name, _, words in rows if words}


def scan(source: Path, *, seed: int) -> Iterator[Clip | Reject]:
    """Yield every utterance."""
    del seed  # the split of a chapter is its hash; see `Clip.split`
    root = corpus_folder(source, "librispeech")
    genders = read_speaker_table(_table(root))
    table = read_speakers(root)
    for folder, files in walk(root):
        voices = [path for path in files if media_kind(path) == "sound"]
        parts = folder.relative_to(root).parts
        if len(parts) < 2 or not parts[-2].isdecimal():
            for path in voices:
                yield Reject(source=path, reason="no speaker", detail="no SPEAKER/CHAPTER/ above")
            continue
        speaker = parts[-2]
        texts: dict[str, str] = {}
        for path in files:
            if path.name.casefold().endswith(".trans.txt"):
                texts |= read_transcripts(path)
        for path in voices:
            yield Clip(
                id=f"{speaker}/{path.stem}",
                kind="audio",
                speaker=f"librispeech/{speaker}",
                gender=table.gender(speaker) or genders.get(speaker, ""),
                transcript=texts.get(path.stem, ""),
                audio=path,
                extra={"group": f"{speaker}/{parts[-1]}"},
            )
    yield from table.notes()


def _table(root: Path) -> Path:
    """Find the table of speakers beside, above or below the subsets, in either case of its name."""
    for folder in (root, root.parent, root / "LibriSpeech"):
        for name in ("SPEAKERS.TXT", "speakers.txt"):
            if (folder / name).is_file():
                return folder / name
    return root / "SPEAKERS.TXT"
