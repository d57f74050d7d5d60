"""Sound of any file as mono float32 at 24 kHz.

Sound files are read with soundfile, videos (GRID's MPEG with 44.1 kHz stereo, MP4) with PyAV, other
rates go through soxr; all three are imported on first use. What a file is, its content decides, not
its name. Sound is averaged and resampled piece by piece, so that memory holds the result and little
else, however long the film.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xfavot.audio.mel import MEL
from xfavot.errors import DataError

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
