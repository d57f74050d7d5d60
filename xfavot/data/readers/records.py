"""What a reader yields: clips, files that cannot be placed, files that are left out on purpose.

Names of files may hold any bytes. Paths keep them as they are; whatever is stored or shown goes
through `printable` first.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xfavot.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

AUDIO_SUFFIXES = frozenset(
    {".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".m4a", ".aac", ".aif", ".aiff", ".wma"}
)
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif", ".heic"}
)
VIDEO_SUFFIXES = frozenset(
    {".mpg", ".mpeg", ".mp4", ".m4v", ".avi", ".mov", ".mkv", ".webm", ".3gp", ".wmv", ".flv"}
)
MEDIA_SUFFIXES = AUDIO_SUFFIXES | IMAGE_SUFFIXES | VIDEO_SUFFIXES
NOT_NEEDED = "not needed"  # the reason of what is left out although nothing is wrong with it
EXAMPLES = 3  # names in a note


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """One item of a corpus as its files name it, before anything is decoded.

    Attributes:
        id: unique within the corpus and stable, for example ``s1/bbaf2n``.
        kind: ``"av"`` (face and voice of one person), ``"audio"`` or ``"image"``.
        speaker: ``"grid/s1"``; ``""`` if unknown.
        gender: ``"f"``, ``"m"`` or ``""`` if unknown.
        transcript: the words, or ``""``.
        split: ``"train"``, ``"val"``, ``"unseen"``; ``""`` lets `xfavot.data.prepare` decide by a
            hash of the id (or of ``extra["group"]``, so that one video stays in one split).
        audio: file with the voice; ``None`` takes the track of `video`.
        images: faces as still images.
        video: film from which frames are taken, instead of `images`.
        aligned: the images are face crops in CelebA-HQ's framing and are only resized.
        landmarks: eyes, nose, mouth corners known beforehand, (images, 5, 2) in pixels (x, y).
        extra: anything more the corpus knows: `group` (see `split`), `seconds` (the length that
            every clip of the corpus has; a shorter one is truncated), `hidden` and `faces` (the
            factors of `mini`: of the speaker, and one mapping an image).
    """

    id: str
    kind: str
    speaker: str = ""
    gender: str = ""
    transcript: str = ""
    split: str = ""
    audio: Path | None = None
    images: tuple[Path, ...] = ()
    video: Path | None = None
    aligned: bool = False
    landmarks: NDArray[np.float32] | None = field(default=None, compare=False)
    extra: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def source(self) -> Path:
        """The file that stands for the clip in messages, the manifest and the quarantine."""
        return self.files[0]

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file of the clip: film, sound, images."""
        known = tuple(path for path in (self.video, self.audio, *self.images) if path is not None)
        if not known:
            raise DataError(
                f"clip {self.id!r} names no file; expected audio, images or a video; "
                "this is a fault of the corpus's reader"
            )
        return known


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """A media file that a reader saw and could not place; it goes to the quarantine list."""

    source: Path
    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A media file that a reader does not take on purpose; it is counted with its like.

    All that share `reason` and `why` become one `Reject`, whose detail holds their number.

    Attributes:
        source: the file.
        why: what it is, said of several files: ``"takes of the second microphone"``.
        reason: the class of the `Reject`.
    """

    source: Path
    why: str
    reason: str = NOT_NEEDED


class Tally:
    """Counts what is left out, class by class."""

    def __init__(self) -> None:
        """Start with no class."""
        self._classes: dict[tuple[str, str], tuple[int, str, list[str]]] = {}

    def add(self, left_out: LeftOut) -> None:
        """Count one file."""
        key = (left_out.reason, left_out.why)
        count, folder, names = self._classes.get(key, (0, str(left_out.source), []))
        if len(names) < EXAMPLES:
            names.append(left_out.source.name)
        self._classes[key] = (count + 1, os.path.commonpath([folder, left_out.source]), names)

    def notes(self) -> list[Reject]:
        """Return one record a class: the folder that holds its files, their number, examples."""
        return [
            Reject(
                source=Path(folder),
                reason=reason,
                detail=note(count, f"{'file' if count == 1 else 'files'}: {why}", names),
            )
            for (reason, why), (count, folder, names) in self._classes.items()
        ]


def note(count: int, what: str, examples: Sequence[str]) -> str:
    """Say how many of something there are, with examples."""
    return f"{count:,} {what}, for example {', '.join(map(printable, examples[:EXAMPLES]))}"


def printable(name: str) -> str:
    """Return a file's name with bytes that are not UTF-8 spelled out (backslash, x, two digits)."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def media_kind(path: Path) -> str:
    """Return what a file is by its suffix: ``"sound"``, ``"picture"``, ``"film"`` or ``""``."""
    suffix = path.suffix.casefold()
    kinds = {"sound": AUDIO_SUFFIXES, "picture": IMAGE_SUFFIXES, "film": VIDEO_SUFFIXES}
    return next((kind for kind, suffixes in kinds.items() if suffix in suffixes), "")
