"""Files that people add in the explorer: checked by size and type before they are decoded."""

from __future__ import annotations

import tempfile
from pathlib import Path

from xfavot.convert import Converter, Example
from xfavot.convert.inputs import read_face, read_voice
from xfavot.errors import DataError

MOST_UPLOAD_BYTES = 20_000_000
UPLOADS = {
    "face": (".jpg", ".jpeg", ".png", ".webp"),
    "voice": (".wav", ".flac", ".ogg", ".mp3", ".mp4"),
}


def check_upload(name: str, size: int, kind: str) -> None:
    """Refuse a file that is too large or of another type, before any of it is decoded.

    Args:
        name: its name.
        size: bytes.
        kind: "face" or "voice".

    Raises:
        DataError: too large, empty, or of another type.
    """
    allowed = UPLOADS[kind]
    if Path(name).suffix.lower() not in allowed:
        raise DataError(f"upload {name!r}: expected a {kind} as {', '.join(allowed)}")
    if not 0 < size <= MOST_UPLOAD_BYTES:
        raise DataError(
            f"upload {name!r} has {size} bytes; expected 1 to {MOST_UPLOAD_BYTES}; shorten it"
        )


def read_upload(name: str, content: bytes, converter: Converter) -> Example:
    """Read an uploaded file as a sample; a face is found and aligned.

    Args:
        name: its name, of which only the ending is used to read it.
        content: its bytes.
        converter: whose face size counts.

    Raises:
        DataError: too large, of another type, damaged, or without a face.
    """
    suffix = Path(name).suffix.lower()
    kind = "voice" if suffix in UPLOADS["voice"] else "face"
    check_upload(name, len(content), kind)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"upload{suffix}"
        path.write_bytes(content)
        label = Path(name).name
        if kind == "voice":
            wave = read_voice(path, name=label)
            return Example(label=label, speaker="", gender="", waveform=wave)
        face = read_face(path, name=label, size=converter.image_size, aligned=False)
        return Example(label=label, speaker="", gender="", face=face)
