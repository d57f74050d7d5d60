"""Lip2Wav: lectures, films of one speaker a folder.

Layouts: ``SPEAKER/intervals/VIDEO/cut-N.mp4`` (as the owners' download script cuts the lectures);
where only their preprocessing is left, ``SPEAKER/preprocessed/VIDEO/cut-N/`` with ``audio.wav`` and
numbered face crops; ``SPEAKER/*.mp4``; anything between. Whole lectures (``videos/``) and results
of the owners' model (``test_results/``) are left out. Five speakers exist (chem, chess, dl, eh,
hs); the paper uses four and does not tell which. There is no table of speakers; a ``speakers.csv``
(speaker, gender) gives the genders.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from xfavot.data.readers.source import Clip, Reject, Source, of_kind

LAYOUT = "SPEAKER/intervals/VIDEO/*.mp4 or SPEAKER/*.mp4, gender in speakers.csv"
SPEAKERS = ("chem", "chess", "dl", "eh", "hs")
STAGES = ("intervals", "preprocessed", "videos", "test_results")


def scan(source: Source) -> Iterator[Clip | Reject]:
    """Yield every film below a speaker's folder, and crops of cuts without a film.

    A lecture stays in one split.
    """
    known = {*SPEAKERS, *source.speakers.codes}
    cuts: set[tuple[str, ...]] = set()  # (speaker, video) and (speaker, video, cut)
    crops: list[tuple[tuple[str, ...], Path, list[Path]]] = []
    for place, files in source.folders:
        stage, below, speaker = _place((source.root.name, *place.parts), known)
        films = of_kind(files, "film")
        if stage in ("videos", "test_results"):
            continue
        if stage == "preprocessed" and not films:
            crops.append(((speaker, *below), place, files))
        for path in films:
            if not speaker:
                detail = f"no folder {', '.join(SPEAKERS)} or of speakers.csv above it"
                yield Reject(path, "no speaker", detail)
                continue
            cuts |= {(speaker, *below), (speaker, *below, path.stem)}
            yield Clip(
                (place / path.stem).as_posix(),
                "av",
                f"lip2wav/{speaker}",
                source.speakers.gender(speaker),
                video=path,
                extra={"group": place.as_posix()} if len(place.parts) > 1 else {},
            )
    for key, place, files in crops:
        voice, *_ = (*of_kind(files, "sound"), None)
        faces = sorted(of_kind(files, "picture"), key=lambda path: (len(path.stem), path.stem))
        if voice and faces and key not in cuts:
            yield Clip(
                place.as_posix(),
                "av",
                f"lip2wav/{key[0]}",
                source.speakers.gender(key[0]),
                audio=voice,
                images=tuple(faces),
                extra={"group": place.parent.as_posix()},
            )


def _place(parts: tuple[str, ...], known: set[str]) -> tuple[str, tuple[str, ...], str]:
    """Return the stage of the owners' scripts, what lies below it, and the speaker."""
    for number, part in enumerate(parts[1:], 1):  # the first is the root's own name
        if part in STAGES:
            return part, parts[number + 1 :], parts[number - 1]
    return "", (), next((part for part in reversed(parts) if part in known), "")
