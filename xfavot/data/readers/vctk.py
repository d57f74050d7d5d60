"""VCTK: sentences read by 109 English speakers, sound only.

Layouts: ``wav48/pNNN/*.wav`` (0.80), ``wav48_silence_trimmed/pNNN/*_mic1.flac`` (0.92) and copies
at other rates (``wav22``, ``wav16`` ...); ``txt/pNNN/*.txt``; ``speaker-info.txt``. An utterance
that is present at two rates or by two microphones is taken once: highest rate, first microphone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from xfavot.data.readers import (
    AUDIO_SUFFIXES,
    Clip,
    Reject,
    corpus_folder,
    gender_code,
    read_speakers,
    read_text,
    walk,
)

LAYOUT = (
    "wav48/pNNN/*.wav or wav48_silence_trimmed/pNNN/*_mic1.flac, "
    "with txt/pNNN/*.txt and speaker-info.txt"
)
_SPEAKER = re.compile(r"^[ps]\d+$", re.IGNORECASE)
_RATE = re.compile(r"^wav(\d+)?", re.IGNORECASE)
_MICROPHONE = re.compile(r"_mic(\d)$", re.IGNORECASE)


def read_speaker_info(path: Path) -> dict[str, str]:
    """Read ``speaker-info.txt`` of either release (ids with or without ``p``)."""
    genders: dict[str, str] = {}
    for line in read_text(path).splitlines():
        words = line.split()
        if len(words) >= 3 and words[0].casefold() != "id":
            name = words[0] if words[0][:1].isalpha() else f"p{words[0]}"
            genders[name.casefold()] = gender_code(words[2])
    return genders


def scan(source: Path, *, seed: int) -> Iterator[Clip | Reject]:
    """Yield every utterance once."""
    del seed  # VCTK prescribes no split
    root = corpus_folder(source, "vctk")
    genders: dict[str, str] = {}
    texts: dict[tuple[str, str], Path] = {}
    best: dict[tuple[str, str], tuple[tuple[int, int, str], Path]] = {}
    for folder, files in walk(root):
        speaker = folder.name.casefold()
        if not _SPEAKER.match(speaker):
            for path in files:
                if path.name.casefold() == "speaker-info.txt":
                    genders = read_speaker_info(path)
                elif path.suffix.casefold() in AUDIO_SUFFIXES:
                    yield Reject(source=path, reason="no speaker", detail="no folder pNNN above")
            continue
        rate = _rate(folder.parent.name)
        for path in files:
            suffix = path.suffix.casefold()
            if suffix == ".txt":
                texts[speaker, path.stem.casefold()] = path
            elif suffix in AUDIO_SUFFIXES:
                microphone = _MICROPHONE.search(path.stem)
                name = path.stem[: microphone.start()] if microphone else path.stem
                rank = (-rate, int(microphone[1]) if microphone else 0, str(path))
                key = (speaker, name.casefold())
                if key not in best or rank < best[key][0]:
                    best[key] = (rank, path)
    genders |= {name.casefold(): code for name, code in read_speakers(root).items() if code}
    for (speaker, name), (_, path) in sorted(best.items()):
        text = texts.get((speaker, name))
        yield Clip(
            id=f"{speaker}/{name}",
            kind="audio",
            speaker=f"vctk/{speaker}",
            gender=genders.get(speaker, ""),
            transcript=" ".join(read_text(text).split()) if text else "",
            audio=path,
        )


def _rate(name: str) -> int:
    """Return the kHz that a folder's name tells (``wav48_silence_trimmed``), 0 if none."""
    match = _RATE.match(name)
    return int(match[1] or 0) if match else 0
