"""Waveforms from and to files: mono float32 at 24 kHz inside, 16-bit WAV outside.

PyAV (FFmpeg) judges what a file holds. Time stamps decide where a sound lies, and a gap is silence;
a length that a header declares is compared with what decodes and otherwise not believed. Writing
needs no library. Levels are never changed: no peak normalisation, no gain.
"""

from __future__ import annotations

import json
import struct
import warnings
from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xfavot.audio.mel import MEL
from xfavot.errors import DataError, import_optional, refusing
from xfavot.files import write_whole
from xfavot.media import Media, MediaError, name_of, open_container, open_media

Wave = NDArray[np.float32]

LOWEST_RATE, HIGHEST_RATE = 4000, 1_000_000  # Hz; others are damaged headers
GAP_SECONDS, MOST_GAP_SECONDS = 0.1, 60.0  # of silence between time stamps; beyond, they jump
LENGTH_SLACK = 0.1  # share of a declared length that may be missing
NOTED_SECONDS = 0.1  # a difference of lengths that is worth a note
CANCELLED = 0.25  # of the power of unrelated channels: the mean of these has less if they cancel
SILENT_PEAK = 1e-4  # full scale 1; -80 dB
OPEN_ENDED = 0x7FFF0000  # RIFF sizes from here up stand for "unknown", written by streams
HIGHEST_PEAK = 2.0  # what is louder by 6 dB than full scale is on another scale
PCM_SCALE = 32768.0  # int16 steps in a full-scale sample


class MediaNote(UserWarning):
    """A sound is used, and something about its file is worth knowing."""


def load_waveform(source: Media | ArrayLike) -> Wave:
    """Read a sound, or the sound of a film; the content decides, not the suffix.

    Of several channels the mean is taken, or the strongest one where they cancel each other; of
    several tracks, the one that a player would choose.

    Args:
        source: a file or its bytes; or samples (N,) at 24 kHz, floats in [-1, 1] or signed whole
            numbers.

    Returns:
        (N,) float32, mono, 24 kHz, at the level of the source; resampling a recording that touches
        full scale can pass 1 by a little.

    Warns:
        MediaNote: a part of the file is missing and silent here, its header declares another
            length, its channels cancel each other, or it has several tracks.

    Raises:
        MediaError: the file is missing, empty, text, damaged, truncated, without sound track;
            without samples, not finite, silent, or far above full scale.
        DataError: an array of another kind; a library of the extra "data" is missing.
    """
    name, notes = name_of(source), list[str]()
    if isinstance(source, str | PathLike | bytes):
        with open_media(source) as file:
            av = import_optional("av", extra="data", purpose="reading sound")
            try:
                wave = _decoded(file, name, notes)
            except (av.FFmpegError, OSError, ValueError) as error:
                reason = f"damaged or not a recording ({error})"
                raise _refusal(name, "sound unreadable", reason) from error
    else:
        wave = _samples(np.asarray(source), name)
    if not wave.size:
        raise _refusal(name, "no sound track", "no samples in it")
    peak = float(np.abs(wave).max())
    if not np.isfinite(peak):
        raise _refusal(name, "sound unreadable", "samples that are not finite; export it again")
    if peak < SILENT_PEAK:
        raise _refusal(name, "silent", f"silent, its peak is below {SILENT_PEAK:g} of full scale")
    if peak > HIGHEST_PEAK:
        decibel = 20 * np.log10(peak)
        reason = f"its peak is {peak:.6g} times full scale (+{decibel:.0f} dB); scale it to [-1, 1]"
        raise _refusal(name, "too loud", reason)
    for note in notes:
        warnings.warn(f"sound {name}: {note}", MediaNote, stacklevel=2)
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
    fits = wave.ndim == 1 and wave.size and np.issubdtype(wave.dtype, np.floating)
    bad = int((~np.isfinite(wave)).sum()) if fits else 0
    if bad or not fits:
        raise DataError(
            f"waveform for {path}: got shape {wave.shape} of {wave.dtype}, {bad} of {wave.size} "
            "samples are not finite; expected finite floats (N,), N at least 1; pass one mono clip"
        )
    steps = np.clip(np.rint(wave * PCM_SCALE), -PCM_SCALE, PCM_SCALE - 1).astype("<i2")
    form = struct.pack("<HHIIHH", 1, 1, MEL.sample_rate, 2 * MEL.sample_rate, 2, 16)
    body = b"WAVE" + _chunk(b"fmt ", form)
    if metadata is not None:
        comment = json.dumps(dict(metadata), sort_keys=True).encode("ascii") + b"\0"
        body += _chunk(b"LIST", b"INFO" + _chunk(b"ICMT", comment))
    advice = "nothing was left behind; free space or choose another folder"
    with refusing(OSError, DataError, f"waveform {path}: cannot be written", advice):
        write_whole(path, _chunk(b"RIFF", body + _chunk(b"data", steps.tobytes())))
    return int((np.abs(wave) > 1.0).sum())


def _samples(x: NDArray[Any], name: str) -> Wave:
    """Bring an array to floats of full scale 1."""
    if x.ndim != 1 or x.dtype.kind not in "fi":
        raise DataError(
            f"sound {name}: got type {x.dtype} and shape {x.shape}; expected a path, or mono "
            f"samples (N,) at {MEL.sample_rate} Hz, floats or signed whole numbers"
        )
    scale = -float(np.iinfo(x.dtype).min) if x.dtype.kind == "i" else 1.0
    return np.ascontiguousarray(x / scale, dtype=np.float32)


def _decoded(file: BinaryIO, name: str, notes: list[str], channel: int | None = None) -> Wave:
    """Decode the sound of a file to (N,) at 24 kHz, resampled with soxr's high quality.

    Samples lie where their time stamps say, and a gap is silence. The channels are averaged, or one
    is taken.
    """
    waves, resampler = [np.zeros(0, np.float32)], None
    mean_power, powers = 0.0, np.zeros(1)
    count = missing = first = 0  # samples, samples, Hz
    zero = 0.0  # seconds, the time stamp of the first sample
    for rate, place, samples in _pieces(file, name, notes):
        first = first or rate
        if rate != first or not LOWEST_RATE <= rate <= HIGHEST_RATE:
            reason = f"a sampling rate of {rate} Hz after {first} Hz; export it again"
            raise _refusal(name, "sound unreadable", reason)
        zero, silence = zero if count else place, 0
        gap = place - zero - count / rate
        if GAP_SECONDS < gap < MOST_GAP_SECONDS:
            silence = round(gap * rate)
        elif abs(gap) > GAP_SECONDS:  # of joined files, or of a clock that was set
            zero += gap
            notes.append(f"its time stamps jump by {gap:.2f} s")
        piece = samples.mean(axis=0, dtype=np.float32) if channel is None else samples[channel]
        mean_power += float(np.square(piece).sum(dtype=np.float64))
        powers = powers + np.square(samples).sum(axis=1, dtype=np.float64)
        piece = np.pad(piece, (silence, 0))
        count, missing = count + len(piece), missing + silence
        if rate != MEL.sample_rate and resampler is None:
            soxr = import_optional("soxr", extra="data", purpose=f"sound at {rate} Hz")
            resampler = soxr.ResampleStream(rate, MEL.sample_rate, 1, dtype="float32")
        waves.append(resampler.resample_chunk(piece) if resampler else piece)
    if missing:
        notes.append(f"{missing / first:.2f} s of {count / first:.2f} s are missing and silent")
    if channel is None and mean_power < CANCELLED * powers.sum() / len(powers) ** 2:
        strongest = int(powers.argmax())
        notes.append(f"its channels cancel each other; channel {strongest + 1} alone is taken")
        file.seek(0)
        return _decoded(file, name, [], strongest)
    if resampler:
        waves.append(resampler.resample_chunk(np.zeros(0, np.float32), last=True))
    return np.concatenate(waves)


def _pieces(file: BinaryIO, name: str, notes: list[str]) -> Iterator[tuple[int, float, Wave]]:
    """Decode the track that a player would choose.

    Yields:
        The rate in Hz, the time stamp in seconds (NaN if there is none), the next (C, n) samples.
    """
    av = import_optional("av", extra="data", purpose="reading sound")
    head = file.read(8)
    with open_container(file) as container:
        tracks = container.streams.audio
        if not tracks:
            raise _refusal(name, "no sound track", "it has no sound track")
        track = container.streams.best("audio") or tracks[0]
        if len(tracks) > 1:
            notes.append(f"it has {len(tracks)} sound tracks; stream {track.index} is taken")
        planar = av.AudioResampler(format="fltp")
        end, last, packets, cut, heard, fault = 0.0, 0, 0, False, False, None
        for packet in container.demux():
            if packet.size and packet.pts is not None:  # of any stream
                length = packet.duration or 0
                length *= length < 1 << 31  # FFmpeg gives a last one of Vorbis as -128 in 32 bits
                end = max(end, float((packet.pts + length) * packet.time_base))
                last = max(last, (packet.pos or 0) + packet.size)
            if packet.stream_index != track.index:
                continue
            packets += bool(packet.size)
            cut = packet.is_corrupt or (cut and not packet.size)
            try:
                for frame in packet.decode():
                    place = float("nan" if frame.pts is None else frame.pts * frame.time_base)
                    for part in planar.resample(frame):
                        yield frame.sample_rate, place, part.to_ndarray()
                    heard = True
            except av.error.InvalidDataError as error:
                if heard:
                    raise
                fault = error  # a running stream may begin in the middle of a packet
        if fault and not heard:
            raise fault
        start, declared = (container.start_time or 0) / 1e6, (container.duration or 0) / 1e6
        # an index says how many packets there are; FLAC's frames have checksums
        whole = packets == track.frames or container.format.name == "flac"
    decoded, total = end - start, file.seek(0, 2)
    if head.startswith(b"RIFF"):
        stated = 8 + int.from_bytes(head[4:], "little")
        if cut and total < stated < OPEN_ENDED:
            raise _refusal(name, "truncated", f"truncated, {stated - total} bytes are missing")
        if total - last > LENGTH_SLACK * total:
            notes.append(f"{total - last} of {total} bytes lie behind the sound that is declared")
    if not whole and decoded < (1 - LENGTH_SLACK) * declared and _states_length(file):
        reason = f"truncated, {decoded:.2f} s of {declared:.2f} s are there"
        raise _refusal(name, "truncated", reason)
    if declared and abs(declared - decoded) > NOTED_SECONDS:
        notes.append(f"{declared:.2f} s are declared, {decoded:.2f} s are there")


def _states_length(file: BinaryIO) -> bool:
    """Tell a length that a header or an index states from one guessed by the size of the file."""
    av = import_optional("av", extra="data", purpose="reading sound")
    file.seek(0)
    endless = SimpleNamespace(read=file.read)  # which cannot tell its size
    try:
        with av.open(endless, "r", options={"protocol_whitelist": "none"}) as container:
            return bool(container.duration)
    except av.FFmpegError:  # its index lies at its end
        return True


def _chunk(name: bytes, body: bytes) -> bytes:
    """One RIFF chunk, padded to an even length."""
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def _refusal(name: str, fault: str, reason: str) -> MediaError:
    return MediaError(
        fault, f"sound {name}: {reason}; expected a whole recording; fetch it again or leave it out"
    )
