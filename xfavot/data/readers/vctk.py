"""VCTK: sentences read by 109 English speakers, sound only.

Layouts: ``wav48/pNNN/*.wav`` (0.80), ``wav48_silence_trimmed/pNNN/*_mic1.flac`` (0.92) and copies
at other rates (``wav22``, ``wav16`` ...); ``txt/pNNN/*.txt``; ``speaker-info.txt``. An utterance
that is present at two rates or by two microphones is taken once: highest rate, first microphone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from xfavot.data.readers.source import (
    Clip,
    Genders,
    Reject,
    Source,
    media_kind,
    read_text,
    read_words,
)

LAYOUT = (
    "wav48/pNNN/*.wav or wav48_silence_trimmed/pNNN/*_mic1.flac, "
    "with txt/pNNN/*.txt and speaker-info.txt"
)
UNLISTED = {"p280": "f"}  # absent from the list of 0.80, a woman in that of 0.92
_SPEAKER = re.compile(r"[ps]\d+")
_RATE = re.compile(r"wav(\d+)", re.IGNORECASE)
_MICROPHONE = re.compile(r"_mic(\d)$", re.IGNORECASE)


def read_speaker_info(path: Path) -> Genders:
    """Read ``speaker-info.txt`` of either release (id with or without ``p``, age, gender ...)."""
    rows: list[tuple[int, str, str | None]] = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        words = line.casefold().split()
        if words and words[0] != "id":
            name = words[0] if words[0][0].isalpha() else f"p{words[0]}"
            rows.append((number, name, words[2] if len(words) > 2 else None))
    return Genders(path, rows)


def scan(source: Source) -> Iterator[Clip | Reject]:
    """Yield every utterance once, by its best take."""
    genders = dict(UNLISTED)
    texts: dict[tuple[str, str], Path] = {}
    takes: dict[tuple[str, str], Path] = {}
    for place, files in source.folders:
        speaker = (place.name or source.root.name).casefold()
        named = _SPEAKER.fullmatch(speaker)
        for path in files:
            name = path.stem.casefold()
            if named and path.suffix.casefold() == ".txt":
                texts[speaker, name] = path
            elif path.name.casefold() == "speaker-info.txt":
                info = read_speaker_info(path)
                genders |= info.codes
                yield from info.malformed()
            elif media_kind(path) == "sound" and not named:
                yield Reject(path, "no speaker", "no folder pNNN above")
            elif media_kind(path) == "sound":
                key = speaker, _MICROPHONE.sub("", name)
                takes[key] = min(takes.get(key, path), path, key=_rank)
    for (speaker, name), path in sorted(takes.items()):
        yield Clip(
            f"{speaker}/{name}",
            "audio",
            f"vctk/{speaker}",
            source.speakers.gender(speaker) or genders.get(speaker, ""),
            read_words(texts.get((speaker, name))),
            audio=path,
        )


def _rank(path: Path) -> tuple[int, int, Path]:
    """Return what orders the takes of an utterance; the least is the best."""
    rate = _RATE.match(path.parents[1].name)
    microphone = _MICROPHONE.search(path.stem)
    return -int(rate[1]) if rate else 0, int(microphone[1]) if microphone else 0, path
