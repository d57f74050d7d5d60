"""VCTK: sentences read by 109 English speakers, sound only.

Layouts: ``wav48/pNNN/*.wav`` (0.80), ``wav48_silence_trimmed/pNNN/*_mic1.flac`` (0.92) and copies
at other rates (``wav22``, ``wav16`` ...); ``txt/pNNN/*.txt``; ``speaker-info.txt``. An utterance
that is present at two rates or by two microphones is taken once: highest rate, first microphone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from xfavot.data.readers import MALFORMED, Clip, LeftOut, Reject, corpus_folder, gender_code, media_kind, note, read_speakers, read_text, walk

LAYOUT = (
    "wav48/pNNN/*.wav or wav48_silence_trimmed/pNNN/*_mic1.flac, "
    "with txt/pNNN/*.txt and speaker-info.txt"
)
INFO = "speaker-info.txt"
UNLISTED = {"p280": "f"}  # absent from the list of 0.80, a woman in that of 0.92
_SPEAKER = re.compile(r"^[ps]\d+$", re.IGNORECASE)
_RATE = re.compile(r"^wav(\d+)?", re.IGNORECASE)
_MICROPHONE = re.compile(r"_mic(\d)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True, order=True)
class _Take:
    """One file of an utterance; the least is the best."""

    rate: int  # minus kHz
    microphone: int
    path: Path

    def why_not(self, best: _Take) -> str:
        """Say why the best take goes before this one; empty if nothing tells them apart."""
        if self.path.parents[1] != best.path.parents[1]:
            return "takes that are there in another folder too (rate or release)"
        return "takes of the second microphone" if self.microphone != best.microphone else ""


def read_speaker_info(path: Path) -> tuple[dict[str, str], list[str]]:
    """Read ``speaker-info.txt`` of either release (ids with or without ``p``).

    Returns:
        Speaker to gender, and the lines that do not fit.
    """
    genders: dict[str, str] = {}
    malformed: list[str] = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        words = line.split()
        if not words or words[0].casefold() == "id":
            continue
        name = (words[0] if words[0][:1].isalpha() else f"p{words[0]}").casefold()
        code = gender_code(words[2]) if len(words) > 2 else ""
        if not code or genders.get(name, code) != code:
            malformed.append(f"line {number} ({line.strip()[:40]!r})")
        else:
            genders[name] = code
    return genders, malformed


def scan(source: Path, *, seed: int) -> Iterator[Clip | Reject | LeftOut]:
    """Yield every utterance once."""
    del seed  # VCTK prescribes no split
    root = corpus_folder(source, "vctk")
    speakers = read_speakers(root)
    genders = dict(UNLISTED)
    texts: dict[tuple[str, str], Path] = {}
    takes: dict[tuple[str, str], list[_Take]] = {}
    for folder, files in walk(root):
        speaker = folder.name.casefold()
        if not _SPEAKER.match(speaker):
            for path in files:
                if path.name.casefold() == INFO:
                    listed, malformed = read_speaker_info(path)
                    genders |= listed
                    if malformed:
                        detail = note(len(malformed), "lines are not id, age, F or M", malformed)
                        yield Reject(source=path, reason=MALFORMED, detail=detail)
                elif media_kind(path) == "sound":
                    yield Reject(source=path, reason="no speaker", detail="no folder pNNN above")
            continue
        for path in files:
            if path.suffix.casefold() == ".txt":
                texts[speaker, path.stem.casefold()] = path
            elif media_kind(path) == "sound":
                found = _MICROPHONE.search(path.stem)
                name = path.stem[: found.start()] if found else path.stem
                take = _Take(-_rate(folder.parent.name), int(found[1]) if found else 0, path)
                takes.setdefault((speaker, name.casefold()), []).append(take)
    for (speaker, name), found_takes in sorted(takes.items()):
        best = min(found_takes)
        text = texts.get((speaker, name))
        yield Clip(
            id=f"{speaker}/{name}",
            kind="audio",
            speaker=f"vctk/{speaker}",
            gender=speakers.gender(speaker) or genders.get(speaker, ""),
            transcript=" ".join(read_text(text).split()) if text else "",
            audio=best.path,
        )
        for take in sorted(found_takes)[1:]:
            why = take.why_not(best)
            if why:
                yield LeftOut(source=take.path, why=why)
            else:
                detail = f"{best.path} is taken"
                yield Reject(source=take.path, reason="second copy", detail=detail)
    yield from speakers.notes()


def _rate(name: str) -> int:
    """Return the kHz that a folder's name tells (``wav48_silence_trimmed``), 0 if none."""
    match = _RATE.match(name)
    return int(match[1] or 0) if match else 0
