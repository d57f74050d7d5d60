"""Waveforms from and to files: mono float32 at 24 kHz inside, 16-bit WAV outside.

Reading needs the extra "data" (soundfile for what it knows, PyAV for films and the rest); writing
needs no library. Levels are never changed: no peak normalisation, no gain.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xfavot.audio.mel import MEL
from xfavot.errors import DataError, import_optional
from xfavot.files import write_whole

Wave = NDArray[np.float32]

LOWEST_RATE, HIGHEST_RATE = 4000, 1_000_000  # Hz; others are damaged headers
BLOCK_SAMPLES = 1 << 16  # read at once
DURATION_SLACK = 0.1  # share of a film's declared duration that may be missing
SILENT_PEAK = 1e-4  # full scale 1; -80 dB
PCM_SCALE = 32768.0  # int16 steps in a full-scale sample
OPEN_ENDED = 0x7FFF0000  # RIFF sizes from here up stand for "unknown", written by streams
RIFF_SLACK = 8  # bytes; some writers count the header twice
DISGUISES = (  # what a download or a checkout may leave in a file's place, by its first bytes
    ((b"<!doctype html", b"<html", b"<?xml"), "a web page (HTML), not sound; log in first"),
    ((b"version https://git-lfs",), "a Git LFS pointer, not sound; run git lfs pull"),
    ((b"#extm3u", b"ffconcat"), "a playlist, not sound; use the files that it names"),
)


def load_waveform(path: Path | str) -> Wave:
    """Read a sound file or a film's first sound track; the content decides, not the suffix.

    Args:
        path: WAV, FLAC or another file soundfile reads (8, 16, 24 bit, float), or a film.

    Returns:
        (N,) float32, mono (mean of the channels), 24 kHz, at the level of the file; resampling a
        recording that touches full scale can pass 1 by a little.

    Raises:
        DataError: the file is missing, empty, a web page, damaged, truncated, without sound track,
            without samples, not finite or silent; or a library of the extra "data" is missing.
    """
    path = Path(path)
    if not path.is_file():
        reason = "a folder or a device, not a file" if path.exists() else "no such file"
        raise _refusal(path, f"{reason}; correct the path")
    try:
        with path.open("rb") as file:  # opened here, lest a name be taken for an address
            _require_whole(file)
            wave = _mono(_pieces(file))
    except (OSError, ValueError) as error:
        raise _refusal(path, str(error)) from error
    if not wave.size:
        raise _refusal(path, "no samples in it")
    low, high = float(wave.min()), float(wave.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise _refusal(path, "samples that are not finite; export it again")
    if max(-low, high) < SILENT_PEAK:
        raise _refusal(path, f"silent, its peak is below {SILENT_PEAK:g} of full scale")
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
    form = struct.pack("<HHIIHH", 1, 1, MEL.sample_rate, 2 * MEL.sample_rate, 2, 16)
    body = b"WAVE" + _chunk(b"fmt ", form)
    if metadata is not None:
        comment = json.dumps(dict(metadata), sort_keys=True).encode("ascii") + b"\0"
        body += _chunk(b"LIST", b"INFO" + _chunk(b"ICMT", comment))
    try:
        write_whole(path, _chunk(b"RIFF", body + _chunk(b"data", steps.tobytes())))
    except OSError as error:
        raise DataError(
            f"waveform {path}: cannot be written ({error}); nothing was left behind; free space or "
            "choose another folder"
        ) from error
    return int((np.abs(wave) > 1.0).sum())


def read_provenance(path: Path | str) -> dict[str, Any]:
    """Read the metadata that :func:`save_waveform` stored; empty where there is none.

    Raises:
        DataError: no such file, or no sound file.
    """
    soundfile = import_optional("soundfile", extra="data", purpose=f"reading {path}")
    try:
        with Path(path).open("rb") as stream, soundfile.SoundFile(stream) as file:
            found = json.loads(file.comment)
    except (OSError, RuntimeError) as error:
        raise _refusal(path, f"cannot be read ({error})") from error
    except ValueError:  # no comment, or somebody else's
        return {}
    return found if isinstance(found, dict) else {}


def _require_whole(file: BinaryIO) -> None:
    """Refuse what is no sound, and a RIFF file or MPEG programme stream whose end is missing."""
    start = file.read(512)
    text = start.lstrip().lower()
    if not text:
        raise ValueError("the file is empty (0 bytes or blank)")
    for starts, reason in DISGUISES:
        if text.startswith(starts):
            raise ValueError(reason)
    total = end = file.seek(0, io.SEEK_END)
    if start.startswith(b"RIFF"):
        size = int.from_bytes(start[4:8], "little")
        end = 8 + size if size < OPEN_ENDED else total
        end = total if end - total <= RIFF_SLACK else end
    elif start.startswith(b"\0\0\1\xba"):
        end = _programme_end(file, total)
    if end > total:
        raise ValueError(f"truncated, at least {end - total} bytes missing")
    file.seek(0)


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


def _pieces(file: BinaryIO) -> Iterator[tuple[int, Wave]]:
    """Yield the rate in Hz and the next (n, C) samples, by soundfile if it knows the format."""
    soundfile = import_optional("soundfile", extra="data", purpose="reading sound")
    try:
        sound = soundfile.SoundFile(file)
    except RuntimeError:  # a film perhaps
        file.seek(0)
        yield from _film_pieces(file)
        return
    with sound:
        count = 0
        try:
            while len(block := sound.read(BLOCK_SAMPLES, dtype="float32", always_2d=True)):
                yield int(sound.samplerate), block
                count += len(block)
        except RuntimeError as error:
            raise ValueError(f"damaged ({error})") from error
        if count < sound.frames:
            raise ValueError(f"truncated, {count} of {sound.frames} samples are there")


def _film_pieces(file: BinaryIO) -> Iterator[tuple[int, Wave]]:
    """Yield the same of whatever PyAV reads."""
    av = import_optional("av", extra="data", purpose="reading the sound of a film")
    seconds, rate = 0.0, 0
    try:
        # what the file names, such as the parts of a playlist, is not opened
        with av.open(file, "r", options={"protocol_whitelist": "none"}) as container:
            if not container.streams.audio:
                raise ValueError("a film without sound track")
            stream = container.streams.audio[0]
            declared = float((stream.duration or 0) * (stream.time_base or 0))
            planar = av.AudioResampler(format="fltp")
            for frame in container.decode(stream):
                rate = rate or frame.sample_rate
                if frame.sample_rate != rate:
                    raise ValueError("a sampling rate that changes; export it again")
                for part in planar.resample(frame):
                    yield rate, part.to_ndarray().T.astype(np.float32, copy=False)
                    seconds += part.samples / rate
    except av.FFmpegError as error:
        raise ValueError(f"damaged or not a recording ({error})") from error
    if seconds < (1.0 - DURATION_SLACK) * declared:
        raise ValueError(f"truncated, {seconds:.2f} s of {declared:.2f} s of sound are there")


def _mono(pieces: Iterable[tuple[int, Wave]]) -> Wave:
    """Average the channels of all pieces and resample them to 24 kHz, soxr's high quality."""
    waves: list[Wave] = [np.zeros(0, np.float32)]
    resampler: Any = None
    for rate, channels in pieces:
        if not LOWEST_RATE <= rate <= HIGHEST_RATE:
            raise ValueError(f"damaged, a sampling rate of {rate} Hz; export it again")
        piece = channels.mean(axis=1, dtype=np.float32)
        if rate != MEL.sample_rate:
            if resampler is None:
                soxr = import_optional("soxr", extra="data", purpose=f"sound at {rate} Hz")
                resampler = soxr.ResampleStream(
                    rate, MEL.sample_rate, 1, dtype="float32", quality="HQ"
                )
            piece = resampler.resample_chunk(piece)
        waves.append(piece)
    if resampler is not None:
        waves.append(resampler.resample_chunk(np.zeros(0, np.float32), last=True))
    return np.concatenate(waves, dtype=np.float32)


def _chunk(name: bytes, body: bytes) -> bytes:
    """One RIFF chunk, padded to an even length."""
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def _refusal(path: Path | str, reason: str) -> DataError:
    return DataError(
        f"sound file {path}: {reason}; expected a whole recording; fetch it again or leave it out"
    )
