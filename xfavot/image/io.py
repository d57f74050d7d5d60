"""Reading and writing still images, and reading frames of films.

Everything is uint8 RGB, (H, W, 3), upright (the orientation tag of pictures and films is applied).
Pillow and PyAV are imported where they are used; without them the error names the extra ``data``.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from xfavot import media
from xfavot.errors import DataError, import_optional, refusing
from xfavot.files import whole
from xfavot.media import Media, MediaError, name_of, open_container, open_media

if TYPE_CHECKING:
    from torch import Tensor

MAX_PIXELS = 100_000_000  # a larger picture is refused, not decoded
SEEK_SECONDS = 4.0  # farther apart, frames of a film are sought rather than decoded up to
Pixels = TypeVar("Pixels", NDArray[Any], "Tensor")  # an array or a tensor, and the same back
UNREADABLE = partial(MediaError, "picture unreadable")
SIXTEEN_BITS = frozenset({"I;16", "I;16L", "I;16B", "I;16N", "I"})  # Pillow's modes of grey


def to_float(pixels: Pixels) -> Pixels:
    """Turn bytes, 0 to 255 and of any shape, into float32 from -1 to 1."""
    if isinstance(pixels, np.ndarray):
        return pixels.astype(np.float32) / np.float32(127.5) - np.float32(1)
    return pixels.float() / 127.5 - 1.0


def to_bytes(x: Pixels) -> Pixels:
    """Round floats from -1 to 1, of any shape, to bytes; what lies outside is clipped."""
    if isinstance(x, np.ndarray):
        scaled = (x.astype(np.float32) + np.float32(1)) * np.float32(127.5)
        return scaled.round().clip(0, 255).astype(np.uint8)
    return ((x.float() + 1.0) * 127.5).round().clamp(0, 255).byte()


def load_image(source: Any) -> NDArray[np.uint8]:
    """Read a picture of any common format; the content decides, not the suffix.

    Whatever way it comes, it becomes the same: upright, 16 bits scaled to 8, what is transparent
    white, of an animation the first picture.

    Args:
        source: a file or its bytes, an image of Pillow, or pixels (H, W) or (H, W, 1 to 4) of
            8 or 16 bits: grey or RGB, with or without transparency.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        MediaError: missing, empty, text, no picture, broken, huge, or of floats.
        DataError: Pillow is not installed.
    """
    pillow = _pillow("Image")
    try:
        if isinstance(source, str | PathLike | bytes):
            with open_media(source) as file, pillow.open(file, formats=media.PICTURES) as image:
                return _pixels(image)
        if isinstance(source, pillow.Image):
            return _pixels(source)
        array = np.asarray(source)
        if array.dtype == np.uint16:
            array = (array >> 8).astype(np.uint8)
        if array.dtype != np.uint8:
            raise ValueError(f"pixels of type {array.dtype} and shape {array.shape}")
        return _pixels(pillow.fromarray(array[..., 0] if array.shape[2:] == (1,) else array))
    except DataError:
        raise
    except Exception as error:  # decoders raise anything
        raise UNREADABLE(
            f"{name_of(source)} cannot be read as an image ({error}); expected a whole JPEG or "
            "PNG, an image of Pillow, or uint8 pixels of shape (H, W, 3)"
        ) from error


def _pixels(image: Any) -> NDArray[np.uint8]:
    """Bring an image of Pillow to (H, W, 3)."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width}x{height} pixels are more than {MAX_PIXELS:,}")
    image = _pillow("ImageOps").exif_transpose(image)
    if image.mode in SIXTEEN_BITS:
        steps = np.asarray(image).astype(np.int64).clip(0, 65535) >> 8
        return np.repeat(steps.astype(np.uint8)[..., None], 3, axis=2)
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers; save it with 8 bits a channel")
    if image.has_transparency_data:
        white = _pillow("Image").new("RGBA", image.size, "white")
        image = _pillow("Image").alpha_composite(white, image.convert("RGBA"))
    return np.asarray(image.convert("RGB"), dtype=np.uint8)


def save_image(
    path: str | PathLike[str], pixels: NDArray[np.uint8], metadata: Mapping[str, str] | None = None
) -> None:
    """Write an image atomically; the suffix names the format.

    Args:
        path: the file; its folder is made.
        pixels: (H, W, 3) uint8, RGB.
        metadata: texts written into the text chunks of a PNG; other formats have none.

    Raises:
        DataError: wrong type or shape, a suffix of no known format, or the disk is full.
    """
    pillow = _pillow("Image")
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise DataError(
            f"{path}: got pixels of type {pixels.dtype} and shape {pixels.shape}; "
            "expected uint8 (H, W, 3); scale floats to 0 ... 255 first"
        )
    texts = _pillow("PngImagePlugin").PngInfo()
    for key, text in (metadata or {}).items():
        texts.add_itxt(key, text)
    advice = "expected room and a suffix such as .png; free some space or choose another place"
    refused = refusing((OSError, ValueError), DataError, f"{path} cannot be written", advice)
    with refused, whole(path) as draft:
        pillow.fromarray(pixels).save(draft, pnginfo=texts)  # other formats leave it out


def load_frames(path: Media, count: int) -> list[NDArray[np.uint8]]:
    """Read frames of a film, evenly spaced: the middles of `count` equal parts.

    A first pass reads the packets without decoding them, so that memory does not grow with the
    film; a long film is decoded only near the frames that are wanted.

    Args:
        path: the film.
        count: how many frames; a film with fewer gives all it has.

    Returns:
        At least one frame, each (H, W, 3) uint8, RGB, upright.

    Raises:
        DataError: missing, empty, no film, no picture track, nothing decodes, or PyAV is missing.
    """
    av = import_optional("av", extra="data", purpose="reading a film")
    faults = (av.FFmpegError, OSError, ValueError, IndexError)
    what = f"{name_of(path)} cannot be read as a film"
    advice = "expected a whole film with a picture track; fetch the file again"
    with refusing(faults, UNREADABLE, what, advice), open_media(path) as file:
        with _opened(file) as (container, stream):
            times = [packet.pts for packet in container.demux(stream) if packet.size]
            length = SEEK_SECONDS * count / stream.time_base if stream.time_base else np.inf
        places = sorted({int((part + 0.5) * len(times) / count) for part in range(count)})
        frames: list[NDArray[np.uint8]] = []
        if times and None not in times and max(times) - min(times) > length:
            frames = _sought(file, [sorted(times)[place] for place in places])
        if len(frames) < len(places):
            with _opened(file) as (container, stream):
                first = itertools.islice(container.decode(stream), places[-1] + 1)
                frames = [_upright(frame) for n, frame in enumerate(first) if n in places]
        if not frames:
            raise ValueError("it has no picture that decodes")
        return frames


@contextmanager
def _opened(file: BinaryIO) -> Iterator[tuple[Any, Any]]:
    """Open a film from its start: the container and the first picture track."""
    with open_container(file) as container:
        if not (tracks := media.moving_pictures(container)):
            raise ValueError("it has no picture track")
        tracks[0].thread_type = "NONE"
        yield container, tracks[0]


def _sought(file: BinaryIO, times: list[int]) -> list[NDArray[np.uint8]]:
    """Decode the frames of some times, each from a key frame before it; fewer if one is missed."""
    frames: list[NDArray[np.uint8]] = []
    with _opened(file) as (container, stream):
        second = int(1 / stream.time_base) if stream.time_base else 0
        for time in times:
            # a second earlier: the order of decoding runs ahead of that of showing
            container.seek(time - second, stream=stream, backward=True)
            for frame in container.decode(stream):
                if frame.pts is None or frame.pts > time:
                    return frames  # the place was missed
                if frame.pts == time:
                    frames.append(_upright(frame))
                    break
    return frames


def _upright(frame: Any) -> NDArray[np.uint8]:
    """(H, W, 3) of a frame, turned as the film's metadata say (telephones write it)."""
    pixels: NDArray[np.uint8] = frame.to_ndarray(format="rgb24")
    quarters = round(getattr(frame, "rotation", 0) / 90)  # anticlockwise; PyAV 14 and later
    return np.ascontiguousarray(np.rot90(pixels, quarters)) if quarters else pixels


def resize_image(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Resize to a square with Lanczos filtering; a picture that is not square is cropped centrally.

    Args:
        pixels: (H, W, 3) uint8.
        size: pixels of a side of the result.

    Returns:
        (size, size, 3) uint8.
    """
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = np.ascontiguousarray(pixels[top : top + side, left : left + side])
    if side == size:
        return square
    pillow = _pillow("Image")
    return np.asarray(pillow.fromarray(square).resize((size, size), pillow.Resampling.LANCZOS))


def _pillow(name: str) -> Any:
    return import_optional(f"PIL.{name}", extra="data", purpose="reading or writing an image")
