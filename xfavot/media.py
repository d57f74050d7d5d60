"""What a file holds is decided by its content: the one door to sounds, pictures and films.

A suffix is a hint for people. Pillow and PyAV (FFmpeg) say what a file is; nothing that a file
names, such as the parts of a playlist, is opened.
"""

from __future__ import annotations

import io
from contextlib import suppress
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from xfavot.errors import DataError, import_optional

Media: TypeAlias = str | PathLike[str] | bytes  # a path, or what a file holds

# Formats of Pillow that say what they are in their first bytes; others guess.
PICTURES = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "JPEG2000", "PPM")
COMMON = {b"\xff\xd8\xff": "picture", b"\x89PNG\r\n": "picture", b"fLaC": "sound"}
HEAD_BYTES = 2048  # in which a file of sound or pictures has a byte that no text has
_TEXT = bytes({*b"\t\n\f\r\x1b", *range(32, 256)})
_QUICK = {"probesize": "65536", "formatprobesize": "4096"}  # bytes looked at


class MediaError(DataError):
    """A file of sound or pictures cannot be used; `reason` is the class of its fault, to count."""

    def __init__(self, reason: str, message: str) -> None:
        """Keep both; the message is what people read."""
        super().__init__(reason, message)
        self.reason = reason

    def __str__(self) -> str:
        """Return the message alone."""
        return str(self.args[1])


def name_of(source: object) -> str:
    """Name a path for messages, and what is none by its type."""
    return str(source) if isinstance(source, str | PathLike) else f"<{type(source).__name__}>"


def open_media(source: Media) -> BinaryIO:
    """Open a file, or bytes as one; what is missing, empty or text is refused.

    Raises:
        MediaError: for one of these reasons.
    """
    if isinstance(source, bytes):
        file: BinaryIO = io.BytesIO(source)
    else:
        path = Path(source)
        if path.exists() and not path.is_file():  # opening a pipe would wait for ever
            raise MediaError(
                "not a plain file", f"{path}: a folder or a device, not a file; correct the path"
            )
        try:
            file = path.open("rb")  # opened here, lest a name be taken for an address
        except OSError as error:
            message = f"{path}: cannot be opened ({error.strerror}); correct the path"
            raise MediaError("cannot be opened", message) from error
    head = file.read(HEAD_BYTES)
    file.seek(0)
    if head.strip(b" \t\r\n") and head.translate(None, _TEXT):
        return file
    file.close()
    if not head.strip(b" \t\r\n"):
        raise MediaError("empty file", f"{name_of(source)}: is empty; fetch the file again")
    raise MediaError(
        "not media",
        f"{name_of(source)}: is text, neither sound nor picture (it begins {head.strip()[:40]!r}); "
        "a saved web page, a Git LFS pointer or a playlist stands for a file: fetch that file",
    )


def open_container(file: BinaryIO, **options: str) -> Any:
    """Open a sound or a film with PyAV.

    Args:
        file: as :func:`open_media` returns it.
        options: of FFmpeg.

    Raises:
        DataError: PyAV is not installed.
        av.FFmpegError: the file is neither.
    """
    av = import_optional("av", extra="data", purpose="reading sounds and films")
    av.logging.set_level(av.logging.PANIC)
    file.seek(0)
    if file.read(4) == b"RIFF":  # its header says all, yet FFmpeg looks for DTS, in short packets
        options |= {"probesize": "4096", "max_size": "65536"}
    file.seek(0)
    return av.open(file, "r", options={"protocol_whitelist": "none", **options})


def kind_of(source: Media) -> str | None:
    """Decide by its content what a file is; its name does not matter.

    Args:
        source: a path, or the bytes of a file.

    Returns:
        "picture", "sound", "film" (moving pictures, with sound or without), or ``None`` for what is
        missing, empty, text, damaged at its start, or anything else.

    Raises:
        DataError: Pillow or PyAV is not installed.
    """
    if isinstance(source, bytes):
        return _look(source)
    try:
        found = Path(source).stat()
        return _known(Path(source), found.st_size, found.st_mtime_ns)
    except OSError:
        return None


@lru_cache(maxsize=1 << 20)
def _known(path: Path, _size: int, _changed_ns: int) -> str | None:
    """Look once into a file that stays as it is; a folder is scanned several times."""
    return _look(path)


def _look(source: Media) -> str | None:
    pillow = import_optional("PIL.Image", extra="data", purpose="reading pictures")
    import_optional("av", extra="data", purpose="reading sounds and films")
    try:
        with open_media(source) as file:
            head = file.read(12)
            for start, kind in COMMON.items():
                if head.startswith(start):
                    return kind
            if head[:4] + head[8:] == b"RIFFWAVE":
                return "sound"
            file.seek(0)
            with suppress(OSError, SyntaxError), pillow.open(file, formats=PICTURES):
                return "picture"
            file.seek(0)
            with open_container(file, **_QUICK) as container:
                streams = container.streams.audio or container.streams.video
                if next(container.decode(streams[0]), None) is None:  # some formats are guessed
                    return None
                return "film" if moving_pictures(container) else "sound"
    except Exception:  # decoders raise anything; what they refuse is no media
        return None


def moving_pictures(container: Any) -> list[Any]:
    """Return the tracks of a film's pictures; the cover of a sound is none."""
    tracks = [(track, track.disposition) for track in container.streams.video]
    return [track for track, flags in tracks if not flags & type(flags).attached_pic]
