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

from xfavot.data.readers import Clip, LeftOut, Reject, corpus_folder, media_kind, read_speakers, walk

LAYOUT = "SPEAKER/intervals/VIDEO/*.mp4 or SPEAKER/*.mp4, gender in speakers.csv"
SPEAKERS = ("chem", "chess", "dl", "eh", "hs")
CUTS, CROPS, WHOLE, RESULTS = "intervals", "preprocessed", "videos", "test_results"


def scan(source: Path, *, seed: int) -> Iterator[Clip | Reject | LeftOut]:
    """Yield every film below a speaker's folder; a lecture stays in one split."""
    del seed  # the split of a lecture is its hash; see `Clip.split`
    root = corpus_folder(source, "lip2wav")
    speakers = read_speakers(root)
    known = {*SPEAKERS, *speakers.genders}
    cuts: set[tuple[str, ...]] = set()  # (speaker, video) and (speaker, video, cut)
    whole: list[tuple[tuple[str, ...], Path]] = []
    crops: list[tuple[tuple[str, ...], Path, list[Path]]] = []
    for folder, files in walk(root):
        place = folder.relative_to(root)
        stage, below, speaker = _place((root.name, *place.parts), known)
        films = [path for path in files if media_kind(path) == "film"]
        if stage == RESULTS:
            for path in files:
                if media_kind(path):
                    yield LeftOut(source=path, why="results of the owners' own model")
        elif not speaker:
            for path in films:
                detail = f"no folder {', '.join(SPEAKERS)} or of {speakers.path.name} above it"
                yield Reject(source=path, reason="no speaker", detail=detail)
        elif stage == WHOLE:
            whole += [((speaker, path.stem), path) for path in films]
        elif stage == CROPS and not films:
            crops.append(((speaker, *below), folder, files))
        else:
            for path in films:
                cuts |= {(speaker, *below), (speaker, *below, path.stem)}
                yield Clip(
                    id=(place / path.stem).as_posix(),
                    kind="av",
                    speaker=f"lip2wav/{speaker}",
                    gender=speakers.gender(speaker),
                    video=path,
                    extra={"group": place.as_posix()} if len(place.parts) > 1 else {},
                )
    for key, path in whole:
        if key in cuts:
            yield LeftOut(source=path, why="whole lectures, whose cuts are taken")
        else:
            detail = "a whole lecture; cut it with the owners' download_speaker.sh"
            yield Reject(source=path, reason="not cut", detail=detail)
    for key, folder, files in crops:
        if key in cuts:
            for path in files:
                if media_kind(path):
                    yield LeftOut(source=path, why="sounds and crops of cuts that are taken")
        else:
            yield from _crops(folder, files, key[0], speakers.gender(key[0]), root)
    yield from speakers.notes()


def _place(parts: tuple[str, ...], known: set[str]) -> tuple[str, tuple[str, ...], str]:
    """Return the stage of the owners' scripts, what lies below it, and the speaker."""
    for number, part in enumerate(parts[1:], 1):  # the first is the root's own name
        if part in (CUTS, CROPS, WHOLE, RESULTS):
            return part, parts[number + 1 :], parts[number - 1]
    return "", (), next((part for part in reversed(parts) if part in known), "")


def _crops(
    folder: Path, files: list[Path], speaker: str, gender: str, root: Path
) -> Iterator[Clip]:
    """Yield the clip of one folder of the owners' preprocessing, if it holds one."""
    voice = next((path for path in files if media_kind(path) == "sound"), None)
    faces = [path for path in files if media_kind(path) == "picture"]
    faces.sort(key=lambda path: (len(path.stem), path.stem))  # 2 goes before 10
    if voice and faces:
        place = folder.relative_to(root)
        yield Clip(
            id=place.as_posix(),
            kind="av",
            speaker=f"lip2wav/{speaker}",
            gender=gender,
            audio=voice,
            images=tuple(faces),
            extra={"group": place.parent.as_posix()},
        )
