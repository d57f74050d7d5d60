"""One clip made ready: its voice decoded and analysed, its faces found and framed.

Lineage: GRID-like films give several frames a clip, spread evenly; CelebA-HQ's images come framed.
Whatever a file holds, `process` returns a reason instead of raising.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from xfavot.identity import key_of
from xfavot.audio.io import load_waveform
from xfavot.audio.mel import MEL, log_mel
from xfavot.data.f0 import world_f0
from xfavot.data.items import PCM_SCALE
from xfavot.data.readers import Clip, Reject
from xfavot.errors import DataError
from xfavot.image.align import align_face, align_points, align_quad, detect, outside_share
from xfavot.image.io import load_frames, load_image, resize_image

STAGING_SCHEMA = 2  # of a staging file; another number is not resumed from
HASH_BLOCK_BYTES = 1 << 20
CANNOT_BE_OPENED, CANNOT_BE_READ = "cannot be opened", "cannot be read"  # perhaps not for ever

# Words of a message (of `audio.io`, `image.io`) to the class of a fault, for counting.
_SOUND_REASONS = (
    ("web page", "not media"),
    ("a playlist", "not media"),
    ("LFS pointer", "not media"),
    ("is empty", "empty file"),
    ("without sound track", "no sound track"),
    ("no samples", "no sound track"),
    ("silent", "silent"),
    ("truncated", "truncated"),
)
_IMAGE_REASONS = (("is text, not", "not media"), ("is empty (", "empty file"))

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What decides how a clip is made ready; a change makes staging files and stores differ."""

    image_size: int = 128  # pixels, STATED
    faces_per_clip: int = 4  # frames of a film, evenly spaced
    least_seconds: float = 0.5
    least_share: float = 0.9  # of the length that a corpus promises; less is a truncated file
    least_face: int = 40  # pixels: width of the framed square in the picture
    most_outside: float = 0.6  # of the framed square may lie outside the picture

    @property
    def hash(self) -> str:
        """First 16 hex digits of the sha256 of the settings, the mel contract and the schema."""
        plain = {**asdict(self), "mel": MEL.hash, "schema": STAGING_SCHEMA}
        return key_of(plain)


class _Unusable(Exception):
    """A clip that goes to the quarantine, with a short reason and the message behind it."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


def process(clip: Clip, settings: Settings) -> Arrays | Reject:
    """Make one clip ready.

    Args:
        clip: what to read.
        settings: how.

    Returns:
        `faces` (F, H, W, 3) uint8 and `landmarks` (F, 5, 2) float32 in pixels of the crop, `audio`
        (N,) int16, `mel` (80, T) float16, `f0` (T,) float32 Hz, `kept` (F,) the numbers of the
        images or frames kept, `sha256` of the content; or why the clip cannot be used. Nothing is
        raised for what a file may hold.
    """
    try:
        arrays: Arrays = {"sha256": np.array(content_sha256(clip))}
        if clip.kind in ("av", "audio"):
            arrays |= _voice(clip, settings)
        if clip.kind in ("av", "image"):
            arrays |= _faces(clip, settings)
    except _Unusable as error:
        return Reject(source=clip.source, reason=error.reason, detail=error.detail)
    except OSError as error:
        return Reject(source=clip.source, reason=CANNOT_BE_OPENED, detail=str(error))
    except Exception as error:  # decoders raise anything; a bad file must never stop the rest
        detail = f"{type(error).__name__}: {error}"
        return Reject(source=clip.source, reason=CANNOT_BE_READ, detail=detail)
    return arrays


def _voice(clip: Clip, settings: Settings) -> Arrays:
    path = clip.audio or clip.video
    if path is None:
        raise _Unusable("no voice", "the clip names no sound file and no film")
    try:
        waveform = load_waveform(path)
    except DataError as error:
        text = str(error).replace(str(path), "")
        reason = next((r for words, r in _SOUND_REASONS if words in text), "sound unreadable")
        raise _Unusable(reason, str(error)) from error
    seconds = len(waveform) / MEL.sample_rate
    promised = float(clip.extra.get("seconds", 0.0))
    if promised and seconds < settings.least_share * promised:
        raise _Unusable(
            "truncated", f"{path}: {seconds:.2f} s of sound; a clip of this corpus has {promised} s"
        )
    if seconds < settings.least_seconds:
        raise _Unusable(
            "too short", f"{path}: {seconds:.2f} s of sound; at least {settings.least_seconds} s"
        )
    mel = log_mel(torch.from_numpy(np.ascontiguousarray(waveform, dtype=np.float32)))
    pcm = np.clip(np.rint(waveform * PCM_SCALE), -PCM_SCALE, PCM_SCALE - 1).astype(np.int16)
    return {"audio": pcm, "mel": mel.numpy().astype(np.float16), "f0": world_f0(waveform)}


def _faces(clip: Clip, settings: Settings) -> Arrays:
    pictures, failures = _pictures(clip, settings)
    crops: list[NDArray[np.uint8]] = []
    points: list[NDArray[np.float32]] = []
    kept: list[int] = []
    for number, picture in pictures:
        known = None if clip.landmarks is None else clip.landmarks[number]
        try:
            crop, landmarks = _framed(picture, known, aligned=clip.aligned, settings=settings)
        except _Unusable as error:
            failures.append((error.reason, error.detail))
            continue
        crops.append(crop)
        points.append(landmarks)
        kept.append(number)
    if not crops:
        reason, detail = failures[-1] if failures else ("no picture", "the clip names none")
        raise _Unusable(reason, f"{detail} ({len(failures)} of {len(failures)} pictures)")
    return {"faces": np.stack(crops), "landmarks": np.stack(points), "kept": np.array(kept)}


def _pictures(
    clip: Clip, settings: Settings
) -> tuple[list[tuple[int, NDArray[np.uint8]]], list[tuple[str, str]]]:
    """Decode frames or still images; the second list holds the faults of those that do not."""
    count = settings.faces_per_clip
    if clip.video is not None and not clip.images:
        try:
            return list(enumerate(load_frames(clip.video, count))), []
        except DataError as error:
            raise _Unusable(_image_reason(error), str(error)) from error
    total = len(clip.images)
    chosen = (
        range(total) if total <= count else [int((i + 0.5) * total / count) for i in range(count)]
    )
    pictures: list[tuple[int, NDArray[np.uint8]]] = []
    failures: list[tuple[str, str]] = []
    for number in chosen:
        try:
            pictures.append((number, load_image(clip.images[number])))
        except DataError as error:
            failures.append((_image_reason(error), str(error)))
    return pictures, failures


def _image_reason(error: DataError) -> str:
    return next((r for words, r in _IMAGE_REASONS if words in str(error)), "picture unreadable")


def _framed(
    picture: NDArray[np.uint8],
    known: NDArray[np.float32] | None,
    *,
    aligned: bool,
    settings: Settings,
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Return the crop of one picture and its landmarks in the crop's pixels."""
    size = settings.image_size
    height, width = picture.shape[:2]
    if aligned:
        if abs(height - width) > 0.02 * max(height, width):
            raise _Unusable("not square", f"aligned faces are square; this has {width}x{height}")
        scale = size / min(height, width)
        points = np.full((5, 2), np.nan, np.float32) if known is None else known * np.float32(scale)
        return resize_image(picture, size), points.astype(np.float32)
    landmarks = known if known is not None else detect([picture])[0]
    if landmarks is None:
        raise _Unusable("no face found", f"no face in a picture of {width}x{height} pixels")
    quad = align_quad(landmarks)
    side = float(np.hypot(*(quad[3] - quad[0])))
    if side < settings.least_face:
        raise _Unusable("face too small", f"{side:.0f} pixels; at least {settings.least_face}")
    outside = outside_share(picture.shape, landmarks)
    if outside > settings.most_outside:
        raise _Unusable("face cut off", f"{outside:.0%} of the framed square lies outside")
    return align_face(picture, landmarks, size), align_points(landmarks, landmarks, size)


def content_sha256(clip: Clip) -> str:
    """Return the sha256 of what a clip's files hold, as 64 hex digits.

    That of the one file; of several (film, sound, images, in this order), that of their sha256 as
    hex digits, each with a newline. A file beside the first that cannot be read counts as an empty
    line, because one bad picture does not cost the clip.

    Raises:
        OSError: the first file cannot be read.
    """
    first, *others = clip.files
    lines = [file_sha256(first)]
    for path in others:
        try:
            lines.append(file_sha256(path))
        except OSError:
            lines.append("")
    if not others:
        return lines[0]
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file as 64 hex digits.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
