"""Waveforms from and to files: mono float32 at 24 kHz inside, 16-bit WAV outside.

Sound files are read with soundfile, videos (GRID's MPEG with 44.1 kHz stereo, MP4) with PyAV, other
rates go through soxr; these three are imported on first use. Writing needs none of them. Levels are
never changed: no peak normalisation, no gain.
"""

from __future__ import annotations

import io
import json
import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xfavot.audio.mel import MEL
from xfavot.errors import DataError

Wave = NDArray[np.float32]

VIDEO_SUFFIXES = (".mpg", ".mpeg", ".mp4", ".m4a", ".mkv", ".mov", ".avi", ".webm", ".3gp")
SILENT_PEAK = 1e-4  # full scale 1; -80 dB
DURATION_SLACK = 0.1  # share of the declared duration that may be missing
PCM_SCALE = 32768.0  # int16 steps in a full-scale sample
OPEN_ENDED = 0x7FFF0000  # chunk sizes from here up stand for "unknown", written by streams
WEB_PAGE = (b"<!doctype html", b"<html", b"<?xml")
POINTER = b"version https://git-lfs"


def load_waveform(path: Path | str) -> Wave:
    """Read a sound file or a video's sound.

    Args:
        path: WAV, FLAC or another file soundfile reads (8, 16, 24 bit, float), or a video.

    Returns:
        (N,) float32, mono (mean of the channels), 24 kHz, at the level of the file; resampling a
        recording that touches full scale can pass 1 by a little.

    Raises:
        DataError: the file is missing, empty, a web page, damaged, truncated, without sound track,
            without samples, not finite or silent; or a library of the extra "data" is missing.
    """
    path = Path(path)
    if not path.is_file():
        raise _refusal(path, "no such file", "correct the path")
    with path.open("rb") as file:
        start = file.read(512).lstrip().lower()
        if not start:
            raise _refusal(path, "the file is empty (0 bytes or blank)", "download it again")
        if start.startswith(WEB_PAGE):
            raise _refusal(path, "a web page (HTML), not sound", "log in and download it again")
        if start.startswith(POINTER):
            raise _refusal(path, "a Git LFS pointer, not sound", "fetch the file with git lfs pull")
        missing = _missing_bytes(file)
    if missing:
        raise _refusal(path, f"truncated, at least {missing} bytes missing", "download it again")
    video = path.suffix.lower() in VIDEO_SUFFIXES
    channels, rate = _read_video(path) if video else _read_sound(path)  # (N, C)
    if not channels.size:
        raise _refusal(path, "no samples in it", "download it again")
    wave = channels.mean(axis=1, dtype=np.float32)
    if not np.isfinite(wave).all():
        raise _refusal(path, "samples that are not finite", "export it again")
    if np.abs(wave).max() < SILENT_PEAK:
        raise _refusal(
            path, f"silent, its peak is below {SILENT_PEAK:g} of full scale", "record it again"
        )
    return _resample(wave, rate)


def save_waveform(
    path: Path | str, x: ArrayLike, *, metadata: Mapping[str, Any] | None = None
) -> int:
    """Write a 16-bit mono WAV at 24 kHz; the file appears whole or not at all.

    Args:
        path: where to; folders are made.
        x: (N,) float, full scale 1; never rescaled.
        metadata: provenance, stored as JSON in the file's comment (RIFF INFO, ICMT).

    Returns:
        How many samples lay outside [-1, 1] and were clipped.

    Raises:
        DataError: ``x`` has another shape or type, is empty or not finite, or writing failed.
    """
    path = Path(path)
    wave = np.asarray(x)
    if wave.ndim != 1 or not wave.size or not np.issubdtype(wave.dtype, np.floating):
        raise DataError(
            f"waveform for {path}: got shape {wave.shape} of {wave.dtype}; expected (N,) floats, "
            "N at least 1; pass one mono clip"
        )
    if not np.isfinite(wave).all():
        raise DataError(
            f"waveform for {path}: {int((~np.isfinite(wave)).sum())} of {wave.size} samples are "
            "not finite; expected numbers; look for the cause before anything is written"
        )
    steps = np.clip(np.rint(wave * PCM_SCALE), -PCM_SCALE, PCM_SCALE - 1).astype("<i2")
    pieces = [
        _chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, MEL.sample_rate, 2 * MEL.sample_rate, 2, 16))
    ]
    if metadata is not None:
        comment = json.dumps(dict(metadata), sort_keys=True).encode("ascii") + b"\0"
        pieces.append(_chunk(b"LIST", b"INFO" + _chunk(b"ICMT", comment)))
    body = b"WAVE" + b"".join([*pieces, _chunk(b"data", steps.tobytes())])
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(_chunk(b"RIFF", body))
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise DataError(
            f"waveform {path}: cannot be written ({error}); nothing was left behind; free space or "
            "choose another folder"
        ) from error
    return int((np.abs(wave) > 1.0).sum())


def read_provenance(path: Path | str) -> dict[str, Any]:
    """Read the metadata that :func:`save_waveform` stored.

    Args:
        path: a WAV file.

    Returns:
        The metadata; empty if the file has none.

    Raises:
        DataError: no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise _refusal(path, "no such file", "correct the path")
    with path.open("rb") as file:
        for name, start, size in _riff_chunks(file):
            file.seek(start)
            if name != b"LIST" or file.read(4) != b"INFO":
                continue
            info = io.BytesIO(file.read(max(size - 4, 0)))
            for tag, place, length in _chunks(info, 0, len(info.getvalue())):
                if tag == b"ICMT":
                    text = info.getvalue()[place : place + length].rstrip(b"\0")
                    try:
                        found = json.loads(text)
                    except ValueError:  # somebody else's comment
                        return {}
                    return found if isinstance(found, dict) else {}
    return {}


def _read_sound(path: Path) -> tuple[Wave, int]:
    """(N, C) float32 and the rate of a sound file."""
    try:
        import soundfile
    except ImportError as error:
        raise _without("soundfile", path) from error
    try:
        with soundfile.SoundFile(path) as file:
            declared, rate = file.frames, int(file.samplerate)
            samples: Wave = file.read(dtype="float32", always_2d=True)
    except (RuntimeError, OSError) as error:
        raise _refusal(
            path, f"damaged or not a sound file ({error})", "download it again"
        ) from error
    if len(samples) < declared:
        raise _refusal(
            path, f"truncated, {len(samples)} of {declared} samples are there", "download it again"
        )
    return samples, rate


def _read_video(path: Path) -> tuple[Wave, int]:
    """(N, C) float32 and the rate of a video's first sound track."""
    try:
        import av
    except ImportError as error:
        raise _without("av", path) from error
    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise _refusal(path, "a video without sound track", "use the one with sound")
            stream = container.streams.audio[0]
            rate = int(stream.rate)
            declared = float((stream.duration or 0) * (stream.time_base or 0))  # seconds
            planar = av.AudioResampler(format="fltp")
            frames = [
                part.to_ndarray()
                for frame in container.decode(stream)
                for part in planar.resample(frame)
            ]
    except av.FFmpegError as error:
        raise _refusal(path, f"damaged or not a video ({error})", "download it again") from error
    samples: Wave = np.concatenate(frames or [np.zeros((1, 0))], axis=1, dtype=np.float32).T
    if len(samples) < (1.0 - DURATION_SLACK) * declared * rate:
        raise _refusal(
            path,
            f"truncated, {len(samples) / rate:.2f} s of {declared:.2f} s of sound are there",
            "download it again",
        )
    return samples, rate


def _resample(wave: Wave, rate: int) -> Wave:
    """(N,) to 24 kHz, soxr's high quality."""
    if rate == MEL.sample_rate:
        return np.ascontiguousarray(wave)
    try:
        import soxr
    except ImportError as error:
        raise _without("soxr", f"sound at {rate} Hz") from error
    resampled: Wave = soxr.resample(wave, rate, MEL.sample_rate, quality="HQ")
    return resampled.astype(np.float32, copy=False)


def _missing_bytes(file: BinaryIO) -> int:
    """How many bytes a WAV or an MPEG programme stream announces beyond its end; 0 if none."""
    total = file.seek(0, io.SEEK_END)
    file.seek(0)
    start = file.read(4)
    if start == b"RIFF":
        ends = [place + size for _, place, size in _riff_chunks(file) if size < OPEN_ENDED]
    elif start == b"\0\0\1\xba":
        ends = [_programme_end(file, total)]
    else:
        return 0
    return max(0, max(ends, default=0) - total)


def _riff_chunks(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Name, place and declared size of each chunk of a WAV file."""
    total = file.seek(0, io.SEEK_END)
    file.seek(0)
    head = file.read(12)
    if head[:4] == b"RIFF" and head[8:] == b"WAVE":
        yield from _chunks(file, 12, total)


def _chunks(file: BinaryIO, place: int, total: int) -> Iterator[tuple[bytes, int, int]]:
    """Chunks between two places of a file."""
    while place + 8 <= total:
        file.seek(place)
        head = file.read(8)
        size = int.from_bytes(head[4:], "little")
        yield head[:4], place + 8, size
        place += 8 + size + size % 2


def _programme_end(file: BinaryIO, total: int) -> int:
    """Where the last packet of an MPEG programme stream (ISO 11172-1, 13818-1) says it ends."""
    place = 0
    while place + 14 <= total:
        file.seek(place)
        head = file.read(14)
        if head[:3] != b"\0\0\1" or head[3] == 0xB9:  # padding, or the end code
            break
        if head[3] == 0xBA:  # pack header: MPEG-2 with stuffing, or MPEG-1
            place += 14 + (head[13] & 7) if head[4] >> 6 == 1 else 12
        else:
            place += 6 + int.from_bytes(head[4:6], "big")
    return place


def _chunk(name: bytes, body: bytes) -> bytes:
    """One RIFF chunk, padded to an even length."""
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def _refusal(path: Path, reason: str, advice: str) -> DataError:
    """The error for a file that cannot be used as sound."""
    return DataError(
        f"sound file {path}: {reason}; expected a readable recording; {advice} or leave it out"
    )


def _without(library: str, what: object) -> DataError:
    """The error for a missing optional library."""
    return DataError(
        f'{what}: reading it needs {library}, which is not installed; pip install "xfavot[data]"'
    )
