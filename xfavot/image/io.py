"""Reading and writing still images, and reading frames of films.

Everything is uint8 RGB, (H, W, 3), upright (the camera's orientation tag is applied). Pillow and
PyAV are imported where they are used; without them the error names the extra ``data``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xfavot.errors import DataError

if TYPE_CHECKING:
    from types import ModuleType

MAX_PIXELS = 100_000_000  # a larger picture is refused, not decoded
_TEXT_STARTS = (b"<!doctype", b"<html", b"<?xml", b"{", b"version https://git-lfs")


def load_image(path: str | PathLike[str]) -> NDArray[np.uint8]:
    """Read an image file of any common format; the suffix does not matter.

    Args:
        path: the file.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        DataError: the file is missing, empty, no image (for example a web page), broken or huge,
            or Pillow is not installed.
    """
    image_module = _pillow("Image")
    path = Path(path)
    head = _head(path)
    if head.lstrip().lower().startswith(_TEXT_STARTS):
        raise DataError(
            f"{path} is text, not an image (it begins {head[:24]!r}); expected JPEG or PNG; "
            "a download of it probably saved an error page: fetch it again"
        )
    try:
        with image_module.open(path) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise DataError(
                    f"{path} has {width}x{height} pixels; expected at most {MAX_PIXELS:,}; "
                    "scale it down"
                )
            upright = _pillow("ImageOps").exif_transpose(image)
            return np.asarray(upright.convert("RGB"), dtype=np.uint8)
    except (OSError, SyntaxError, ValueError, image_module.DecompressionBombError) as error:
        raise DataError(
            f"{path} cannot be read as an image ({error}); expected a whole JPEG or PNG; "
            "fetch the file again"
        ) from error


def save_image(
    path: str | PathLike[str],
    pixels: NDArray[np.uint8],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write an image atomically; the suffix names the format.

    Args:
        path: the file; its folder is made.
        pixels: (H, W, 3) uint8, RGB.
        metadata: texts written into the text chunks of a PNG; other formats have none.

    Raises:
        DataError: wrong type or shape, a suffix of no known format, or the disk is full.
    """
    image_module = _pillow("Image")
    path = Path(path)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise DataError(
            f"{path}: got pixels of type {pixels.dtype} and shape {pixels.shape}; "
            "expected uint8 (H, W, 3); scale floats to 0 ... 255 first"
        )
    options: dict[str, Any] = {}
    if path.suffix.casefold() == ".png" and metadata:
        chunks = _pillow("PngImagePlugin").PngInfo()
        for key, text in metadata.items():
            chunks.add_itxt(key, text)
        options["pnginfo"] = chunks
    part = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        image_module.fromarray(pixels).save(part, **options)
        os.replace(part, path)
    except (OSError, ValueError) as error:
        part.unlink(missing_ok=True)
        raise DataError(
            f"{path} cannot be written ({error}); expected a writable folder with free space and "
            "a suffix such as .png or .jpg; free some space or choose another place"
        ) from error


def load_frames(path: str | PathLike[str], count: int) -> list[NDArray[np.uint8]]:
    """Read frames of a film, evenly spaced: the middles of `count` equal parts.

    A first pass counts packets without decoding, so that memory does not grow with the film.

    Args:
        path: the film.
        count: how many frames; a film with fewer gives all it has.

    Returns:
        At least one frame, each (H, W, 3) uint8, RGB.

    Raises:
        DataError: missing, empty, no film, no picture track, nothing decodes, or PyAV is missing.
    """
    av = _av()
    path = Path(path)
    head = _head(path)
    if head.lstrip().lower().startswith(_TEXT_STARTS):
        raise DataError(f"{path} is text, not a film (it begins {head[:24]!r}); fetch it again")
    frames: list[NDArray[np.uint8]] = []
    try:
        total = _count_packets(av, path)
        wanted = {int((part + 0.5) * total / count) for part in range(count)}
        last = max(wanted, default=-1)
        with av.open(str(path)) as container:
            container.streams.video[0].thread_type = "NONE"
            for index, frame in enumerate(container.decode(video=0)):
                if index in wanted:
                    frames.append(frame.to_ndarray(format="rgb24"))
                if index >= last:
                    break
    except (av.error.FFmpegError, OSError, ValueError, IndexError) as error:
        raise DataError(
            f"{path} cannot be read as a film ({error}); expected a whole film with a picture "
            "track; fetch the file again"
        ) from error
    if not frames:
        raise DataError(f"{path} has no picture that decodes; fetch the file again")
    return frames


def resize_image(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Resize to a square with Lanczos filtering; a picture that is not square is cropped centrally.

    Args:
        pixels: (H, W, 3) uint8.
        size: pixels of a side of the result.

    Returns:
        (size, size, 3) uint8.
    """
    image_module = _pillow("Image")
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = pixels[top : top + side, left : left + side]
    if side == size:
        return np.ascontiguousarray(square)
    image = image_module.fromarray(np.ascontiguousarray(square))
    return np.asarray(image.resize((size, size), image_module.Resampling.LANCZOS), dtype=np.uint8)


def _count_packets(av: ModuleType, path: Path) -> int:
    with av.open(str(path)) as container:
        if not container.streams.video:
            raise ValueError("it has no picture track")
        return sum(1 for packet in container.demux(video=0) if packet.size)


def _head(path: Path) -> bytes:
    """Return the first bytes of a file that must exist and not be empty."""
    try:
        with path.open("rb") as stream:
            head = stream.read(64)
    except OSError as error:
        raise DataError(
            f"{path} cannot be opened ({error.strerror}); expected a readable file; check the path"
        ) from error
    if not head:
        raise DataError(f"{path} is empty (0 bytes); expected an image or film; fetch it again")
    return head


def _pillow(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(f"PIL.{name}")
    except ImportError as error:
        raise DataError(
            'images need Pillow, which is not installed; run: pip install "xfavot[data]"'
        ) from error


def _av() -> ModuleType:
    try:
        import av
        import av.error
    except ImportError as error:
        raise DataError(
            'films need PyAV, which is not installed; run: pip install "xfavot[data]"'
        ) from error
    av.logging.set_level(av.logging.PANIC)
    return av
