"""Waveforms from and to files: mono float32 at 24 kHz inside, 16-bit WAV outside.

Reading goes through `xfavot.audio.decode`, which needs the extra "data"; writing needs no library.
Levels are never changed: no peak normalisation, no gain.
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

# Sound of any file as mono float32 at 24 kHz


Wave = NDArray[np.float32]

VIDEO_SUFFIXES = (".mpg", ".mpeg", ".mp4", ".m4v", ".mkv", ".mov", ".avi", ".webm", ".3gp")
# What PyAV reads, by first bytes: MPEG, Matroska, ASF, Flash; MP4, AVI and ADTS (AAC) are below.
VIDEO_STARTS = (b"\0\0\1\xba", b"\0\0\1\xb3", b"\x1aE\xdf\xa3", b"0&\xb2u", b"FLV")
SOUND_STARTS = (b"fLaC", b"OggS", b"FORM", b"ID3")
LOWEST_RATE, HIGHEST_RATE = 4000, 1_000_000  # Hz; others are damaged headers
BLOCK_SAMPLES = 1 << 16  # read at once
DURATION_SLACK = 0.1  # share of the declared duration that may be missing


def decode(path: Path, start: bytes) -> Wave:
    """Read the sound of a file.

    Args:
        path: the file.
        start: its first bytes, which decide how it is read.

    Returns:
        (N,) float32 at 24 kHz, the mean of the channels; N may be 0.

    Raises:
        DataError: damaged, truncated, without sound track, or a library is missing.
    """
    return _read_video(path) if _is_video(path, start) else _read_sound(path)


def _is_video(path: Path, start: bytes) -> bool:
    """Whether PyAV is to read a file rather than soundfile: by its first bytes, else its name."""
    if start.startswith(b"RIFF"):
        return start[8:12] == b"AVI "
    if start.startswith(SOUND_STARTS):
        return False
    if start[4:8] == b"ftyp" or start.startswith(VIDEO_STARTS):
        return True
    if start[:1] == b"\xff" and int.from_bytes(start[1:2], "big") & 0xF6 == 0xF0:
        return True  # ADTS; an MPEG layer (MP3) has other bits there
    return path.suffix.lower() in VIDEO_SUFFIXES


def _read_sound(path: Path) -> Wave:
    """(N,) at 24 kHz of a sound file."""
    try:
        import soundfile
    except ImportError as error:
        raise _without("soundfile", path) from error
    try:
        # opened here, since soundfile takes no name whose bytes are not UTF-8
        with path.open("rb") as stream, soundfile.SoundFile(stream) as file:
            declared, count = file.frames, 0
            sink = _Sink(path, int(file.samplerate))
            while len(block := file.read(BLOCK_SAMPLES, dtype="float32", always_2d=True)):
                sink.add(block)  # (n, C)
                count += len(block)
    except (RuntimeError, OSError) as error:
        raise refusal(
            path, f"damaged or not a sound file ({error})", "download it again"
        ) from error
    if count < declared:
        raise refusal(
            path, f"truncated, {count} of {declared} samples are there", "download it again"
        )
    return sink.wave()


def _read_video(path: Path) -> Wave:
    """(N,) at 24 kHz of a video's first sound track."""
    try:
        import av
    except ImportError as error:
        raise _without("av", path) from error
    sink: _Sink | None = None
    count = 0
    try:
        # opened here, so that a name is never taken for an address or a pattern
        with path.open("rb") as file, av.open(file, "r") as container:
            if not container.streams.audio:
                raise refusal(path, "a video without sound track", "use the one with sound")
            stream = container.streams.audio[0]
            declared = float((stream.duration or 0) * (stream.time_base or 0))  # seconds
            planar = av.AudioResampler(format="fltp")
            for frame in container.decode(stream):
                sink = sink or _Sink(path, int(frame.sample_rate))
                if frame.sample_rate != sink.rate:
                    raise refusal(path, "a sampling rate that changes", "export it again")
                for part in planar.resample(frame):
                    sink.add(part.to_ndarray().T.astype(np.float32, copy=False))  # (n, C)
                    count += part.samples
    except (av.FFmpegError, OSError) as error:
        raise refusal(path, f"damaged or not a video ({error})", "download it again") from error
    seconds = count / sink.rate if sink else 0.0
    if seconds < (1.0 - DURATION_SLACK) * declared:
        raise refusal(
            path,
            f"truncated, {seconds:.2f} s of {declared:.2f} s of sound are there",
            "download it again",
        )
    return sink.wave() if sink else np.zeros(0, np.float32)


class _Sink:
    """Collects pieces of sound as mono at 24 kHz, soxr's high quality."""

    def __init__(self, path: Path, rate: int) -> None:
        """Take sound of one rate, in Hz."""
        if not LOWEST_RATE <= rate <= HIGHEST_RATE:
            raise refusal(path, f"damaged, a sampling rate of {rate} Hz", "export it again")
        self.rate = rate
        self._pieces: list[Wave] = []
        self._resampler: Any = None
        if rate != MEL.sample_rate:
            try:
                import soxr
            except ImportError as error:
                raise _without("soxr", f"sound at {rate} Hz") from error
            self._resampler = soxr.ResampleStream(
                rate, MEL.sample_rate, 1, dtype="float32", quality="HQ"
            )

    def add(self, channels: Wave, *, last: bool = False) -> None:
        """Take (n, C) samples."""
        piece = channels.mean(axis=1, dtype=np.float32)
        if self._resampler is not None:
            piece = self._resampler.resample_chunk(piece, last=last)
        self._pieces.append(piece)

    def wave(self) -> Wave:
        """(N,), the whole of it."""
        self.add(np.zeros((0, 1), np.float32), last=True)
        return np.concatenate(self._pieces, dtype=np.float32)


def refusal(path: Path, reason: str, advice: str) -> DataError:
    """The error for a file that cannot be used as sound."""
    return DataError(
        f"sound file {path}: {reason}; expected a readable recording; {advice} or leave it out"
    )


def _without(library: str, what: object) -> DataError:
    """The error for a missing optional library."""
    return DataError(
        f'{what}: reading it needs {library}, which is not installed; pip install "xfavot[data]"'
    )


SILENT_PEAK = 1e-4  # full scale 1; -80 dB
PCM_SCALE = 32768.0  # int16 steps in a full-scale sample
OPEN_ENDED = 0x7FFF0000  # chunk sizes from here up stand for "unknown", written by streams
WEB_PAGE = (b"<!doctype html", b"<html", b"<?xml")
PLAYLIST = (b"#extm3u", b"ffconcat")  # these name other files, which would be opened
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
        found = "a folder or a device, not a file" if path.exists() else "no such file"
        raise refusal(path, found, "correct the path")
    try:
        with path.open("rb") as file:
            start = file.read(512)
            missing = _missing_bytes(file)
    except OSError as error:
        raise refusal(path, f"cannot be opened ({error})", "correct its permissions") from error
    text = start.lstrip().lower()
    if not text:
        raise refusal(path, "the file is empty (0 bytes or blank)", "download it again")
    if text.startswith(WEB_PAGE):
        raise refusal(path, "a web page (HTML), not sound", "log in and download it again")
    if text.startswith(POINTER):
        raise refusal(path, "a Git LFS pointer, not sound", "fetch the file with git lfs pull")
    if text.startswith(PLAYLIST):
        raise refusal(path, "a playlist, not sound", "use the files that it names")
    if missing:
        raise refusal(path, f"truncated, at least {missing} bytes missing", "download it again")
    wave = decode(path, start)
    if not wave.size:
        raise refusal(path, "no samples in it", "download it again")
    low, high = float(wave.min()), float(wave.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise refusal(path, "samples that are not finite", "export it again")
    if max(-low, high) < SILENT_PEAK:
        raise refusal(
            path, f"silent, its peak is below {SILENT_PEAK:g} of full scale", "record it again"
        )
    return wave


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
        raise refusal(path, "no such file", "correct the path")
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
