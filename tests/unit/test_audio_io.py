"""Reading and writing waveforms: formats, time stamps, channels, levels, notes, refusals."""

from __future__ import annotations

import io
import struct
import sys
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pyworld")  # of the extra "data"

import av
import soundfile

from tests.conftest import Patch, refuses
from tests.unit.store_factory import encoded, provenance_of
from xfavot.audio.io import MediaNote, load_waveform, save_waveform
from xfavot.errors import DataError
from xfavot.media import kind_of

RATE = 24_000


def sine(seconds: float = 0.5, rate: int = RATE, hz: float = 440.0) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * hz * time)).astype(np.float32)


def grey(seconds: float) -> list[np.ndarray]:
    return [np.full((48, 64, 3), 128, np.uint8)] * int(25 * seconds)


def wav(x: np.ndarray, form: str = "WAV", subtype: str = "PCM_16", rate: int = RATE) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, x, rate, format=form, subtype=subtype)
    return stream.getvalue()


def refused(source: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load_waveform(source)
    assert not isinstance(source, Path) or str(source) in str(caught.value)


def test_depths() -> None:
    steps = {"PCM_U8": 1 / 128, "PCM_16": 1 / 32768, "PCM_24": 1e-6, "PCM_32": 1e-7}
    for subtype, step in (steps | {"FLOAT": 1e-7, "DOUBLE": 1e-7, "ULAW": 0.02}).items():
        got = load_waveform(wav(sine(), subtype=subtype))
        assert (got.dtype, got.shape) == (np.float32, (12_000,))
        np.testing.assert_allclose(got, sine(), atol=1.01 * step)


def test_a_path_bytes_and_samples_are_one_sound(tmp_path: Path) -> None:
    steps = np.arange(-32768, 32768, 7).astype(np.int16)
    (tmp_path / "a.wav").write_bytes(wav(steps))
    expected = steps.astype(np.float32) / 32768
    for source in (str(tmp_path / "a.wav"), wav(steps), steps, expected, wav(steps, "FLAC")):
        np.testing.assert_array_equal(load_waveform(source), expected)
    refused(np.zeros((2, 9)), r"mono samples \(N,\)")


@pytest.mark.parametrize("form", ["wav", "flac", "mp3", "ogg", "aiff", "w64", "caf", "au", "rf64"])
def test_content_decides_not_the_name(tmp_path: Path, form: str) -> None:
    for name in ("a.wav", "a.flac", "bare"):
        soundfile.write(tmp_path / name, sine(), RATE, format=form)
        got = load_waveform(tmp_path / name)
        assert abs(len(got) - 12_000) <= 256 * (form == "ogg")  # FFmpeg drops a block of Vorbis
        at = int(np.correlate(got[2000:8000], sine()[2000:2600], "valid")[:220].argmax())
        assert np.abs(got[2000 + at : 9000] - sine()[2000 : 9000 - at]).max() < 0.06
        assert kind_of(tmp_path / name) == "sound"


FILMS = {"mpeg": "mp2", "mp4": "aac", "avi": "mp3", "matroska": "aac", "mpegts": "ac3"}


@pytest.mark.parametrize("form", FILMS)
def test_films(form: str) -> None:
    x = np.stack([sine(1.0, 44_100), 0.2 * sine(1.0, 44_100)])
    film = encoded(form, FILMS[form], x, 44_100, pictures=grey(1))
    assert kind_of(film) == "film"
    got = load_waveform(film)
    assert abs(len(got) - RATE) < 0.1 * RATE
    middle = got[6000:18_000]
    assert abs(np.sqrt(2 * np.mean(middle**2)) - 0.3) < 0.02  # (0.5 + 0.1) / 2
    assert abs(np.abs(np.fft.rfft(middle)).argmax() * RATE / len(middle) - 440) <= 2


def test_other_rates_are_resampled() -> None:
    for rate in (8000, 44_100, 192_000):
        got = load_waveform(wav(sine(1.0, rate), subtype="FLOAT", rate=rate))
        assert got.shape == (24_000,)
        np.testing.assert_allclose(got[1000:-1000], sine(1.0)[1000:-1000], atol=1e-3)


def test_memory_holds_the_result_and_little_else(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.tile(sine(1.0, 48_000)[:, None], (30, 2)), 48_000)
    load_waveform(path)  # imports
    tracemalloc.start()
    got = load_waveform(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert abs(len(got) - 30 * RATE) < RATE
    assert peak < 2.7 * got.nbytes  # whole stereo at 48 kHz alone would take 4


# Lengths: what decodes counts, not what a header says


def changing(seconds: float) -> np.ndarray:
    """Quiet noise, then a loud tone: variable rates differ, and a guess by the first is wrong."""
    quiet = np.random.default_rng(0).normal(size=round(seconds * RATE / 2)) * 1e-3
    return np.concatenate([quiet, sine(seconds / 2)]).astype(np.float32)


def with_sizes(content: bytes, riff: int | None, data: int) -> bytes:
    place = content.index(b"data") + 4
    riff_size = content[4:8] if riff is None else struct.pack("<I", riff)
    rest = content[8:place] + struct.pack("<I", data) + content[place + 4 :]
    return content[:4] + riff_size + rest


WHOLE = wav(sine(2.0))
STREAMED = {
    "mp3, variable": lambda: encoded(
        "mp3", "libmp3lame", changing(2.0), pipe=True, flags="+qscale", global_quality="472"
    ),
    "mp3, constant": lambda: encoded("mp3", "libmp3lame", sine(2.0), pipe=True, b="64k"),
    "flac, total 0": lambda: encoded("flac", "flac", sine(2.0), pipe=True),
    "mp4, fragments": lambda: encoded("ismv", "aac", sine(2.0), pipe=True),
    "wav, data 0": lambda: with_sizes(WHOLE, None, 0),
    "wav, of sox": lambda: with_sizes(WHOLE, 0x7FFFF024, 0x7FFFF000),
    "wav, unknown": lambda: with_sizes(WHOLE, 0xFFFFFFFF, 0xFFFFFFFF),
    "au, unknown": lambda: wav(sine(2.0), "AU")[:8] + b"\xff" * 4 + wav(sine(2.0), "AU")[12:],
    "text behind": lambda: WHOLE + b"and text",
    "ID3v1 behind": lambda: WHOLE + b"TAG" + bytes(125),
}


@pytest.mark.parametrize("name", STREAMED)
def test_a_sound_without_a_true_length_is_read_whole(name: str) -> None:
    got = load_waveform(STREAMED[name]())
    assert 2.0 * RATE <= len(got) < 2.08 * RATE
    loud = np.sqrt(np.mean(got[int(1.3 * RATE) : int(1.9 * RATE)] ** 2))
    assert loud == pytest.approx(0.5 / np.sqrt(2), rel=0.06)


def test_lengths_that_differ_are_noted() -> None:
    total = bytearray(wav(sine(2.0), "FLAC"))
    total[21:26] = struct.pack(">BI", total[21] & 0xF0, 4 * RATE)  # samples: 4 s
    for content, message in (
        (bytes(total), "4.00 s are declared, 2.00 s are there"),
        (with_sizes(WHOLE, None, RATE), r"72000 of 96044 bytes lie behind the sound"),
        (2 * wav(sine(4.0), "OGG", "VORBIS"), "time stamps jump by -4"),
    ):
        with pytest.warns(MediaNote, match=message):
            assert len(load_waveform(content)) >= RATE // 2


@pytest.mark.parametrize("form", ["mp4", "matroska"])
def test_a_gap_between_time_stamps_is_silence(form: str) -> None:
    with pytest.warns(MediaNote, match=r"0\.9\d s of 4\.0\d s are missing and silent"):
        got = load_waveform(encoded(form, "aac", sine(4.0), drop=(1.5, 2.5)))
    assert abs(len(got) - 4 * RATE) < 0.1 * RATE
    assert np.abs(got[int(1.65 * RATE) : int(2.4 * RATE)]).max() == 0
    assert np.abs(got[int(2.7 * RATE) :]).max() > 0.4


def copied(parts: Sequence[bytes], path: Path, **options: str) -> Path:
    """Put the tracks of some files into another."""
    films = [av.open(io.BytesIO(part)) for part in parts]
    with av.open(str(path), "w", options=options) as other:
        tracks = [other.add_stream_from_template(film.streams.audio[0]) for film in films]
        for film, track in zip(films, tracks, strict=True):
            for packet in film.demux():
                if packet.dts is not None:
                    packet.stream = track
                    other.mux(packet)
    return path


def test_of_several_tracks_one_is_taken_with_a_note(tmp_path: Path) -> None:
    parts = [encoded("matroska", "flac", sine(1.0, hz=hz)) for hz in (300.0, 500.0)]
    with pytest.warns(MediaNote, match="2 sound tracks; stream 0"):
        got = load_waveform(copied(parts, tmp_path / "a.mkv"))
    assert np.abs(np.fft.rfft(got[:RATE])).argmax() == 300


# Channels and levels


@pytest.mark.parametrize("levels", [[0.3], [0.5, 0.1], [0.9, 0.5, 0.1, 0.0, 0.0], [0.6, 0.0]])
def test_channels_are_averaged(levels: Sequence[float]) -> None:
    got = load_waveform(wav(np.tile(levels, (100, 1)), subtype="FLOAT"))
    np.testing.assert_allclose(got, np.full(100, 0.3), rtol=1e-6)


@pytest.mark.parametrize(("gain", "late"), [(-1.0, 0), (-0.98, 1), (-1.1, 0)])
def test_where_channels_cancel_the_stronger_one_is_taken(gain: float, late: int) -> None:
    left = sine(1.0)
    content = wav(np.stack([left, gain * np.roll(left, late)], axis=1))
    with pytest.warns(MediaNote, match=f"channel {1 + (gain < -1)} alone"):
        got = load_waveform(content)
    assert np.sqrt(np.mean(got**2)) == pytest.approx(max(1, -gain) * 0.5 / np.sqrt(2), rel=1e-3)


def test_levels_of_another_scale_are_refused() -> None:
    loud = 32768 * sine()
    for source in (wav(loud, subtype="FLOAT"), loud, wav(3 * loud, "CAF", "DOUBLE")):
        refused(source, r"its peak is \d+ times full scale \(\+\d\d dB\)")
    assert len(load_waveform(3 * sine())) == 12_000  # 1.5 times full scale: as mixing makes it


def test_nothing_to_hear() -> None:
    refused(wav(np.zeros(0)), "no samples")
    refused(wav(np.full(5000, 0.9e-4), subtype="FLOAT"), "silent")
    refused(wav(np.array([0.1, np.nan]), subtype="FLOAT"), "not finite")
    refused(encoded("matroska", "", sine(), pictures=grey(0.5)), "no sound track")
    refused(wav(sine(), rate=2_000_000), "a sampling rate of 2000000 Hz")  # a damaged header
    two = b"".join(encoded("adts", "aac", sine(1.0, rate), rate) for rate in (24_000, 48_000))
    refused(two, "a sampling rate of 48000 Hz after 24000 Hz")


# Files that are missing, something else, or cut off


def test_missing_empty_and_disguised_files(tmp_path: Path) -> None:
    refused(tmp_path / "absent.wav", "No such file")
    refused(tmp_path, "a folder or a device")
    contents = {
        "is empty": b"",
        "is text.*DOCTYPE": b"\n<!DOCTYPE html><html>403 Forbidden</html>",
        "is text.*EXTM3U": b"#EXTM3U\n/etc/passwd\n",  # what a file names is never opened
        "is text.*IP4": b"v=0\no=- 0 0 IN IP4 127.0.0.1\nt=0 0\nm=audio 9 RTP/AVP 0\n",
        "damaged or not": bytes(range(256)) * 8,
    }
    for message, content in contents.items():
        (tmp_path / "a.wav").write_bytes(content)
        refused(tmp_path / "a.wav", message)
        assert kind_of(tmp_path / "a.wav") is kind_of(content) is None


@pytest.mark.parametrize("form", ["WAV", "RF64", "AIFF", "AU", "FLAC", "mp4", "matroska", "fast"])
def test_truncated_files(form: str, tmp_path: Path) -> None:
    if form.isupper():
        content = wav(sine(2.0), form)
    else:
        content = encoded("mp4" if form == "fast" else form, "aac", sine(2.0))
    if form == "fast":  # its index stands before the sound
        content = copied([content], tmp_path / "a.mp4", movflags="faststart").read_bytes()
    refused(content[: len(content) // 2], "truncated|damaged")


@pytest.mark.parametrize("library", ["av", "soxr"])
def test_a_missing_library_names_the_extra(monkeypatch: Patch, library: str) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    refused(wav(sine(), rate=16_000), rf'{library}.*pip install "xfavot\[data\]"')


# Writing


def test_saved_steps_come_back_exactly(tmp_path: Path) -> None:
    x = np.arange(-32768, 32768, 7, dtype=np.float32) / 32768
    assert save_waveform(tmp_path / "deep" / "a.wav", x) == 0
    assert (load_waveform(tmp_path / "deep" / "a.wav") == x).all()
    said = soundfile.info(tmp_path / "deep" / "a.wav")
    assert (said.samplerate, said.channels, said.subtype) == (24_000, 1, "PCM_16")
    # clipping is counted and nothing is rescaled
    assert save_waveform(tmp_path / "a.wav", np.array([0.0, 0.25, 1.0, -1.0, 1.2, -3.0])) == 2
    got = load_waveform(tmp_path / "a.wav")
    np.testing.assert_allclose(got, [0.0, 0.25, 1.0, -1.0, 1.0, -1.0], atol=1 / 32767)


def test_unfit_waveforms_are_not_written(tmp_path: Path) -> None:
    for x, message in (
        (np.array([0.1, np.nan, np.inf]), "2 of 3 samples are not finite"),
        (np.zeros((2, 10)), r"shape \(2, 10\)"),
        (np.zeros(0), "N at least 1"),
        (np.zeros(10, np.int16), "int16"),
    ):
        refuses(DataError, message, save_waveform, tmp_path / "a.wav", x)
    assert list(tmp_path.iterdir()) == []
    match = r"cannot be written .*nothing was left behind"
    refuses(DataError, match, save_waveform, tmp_path, sine())


@pytest.mark.parametrize("text", ["x", "xy", "Zoë, 日本"])
def test_provenance(tmp_path: Path, text: str) -> None:
    save_waveform(tmp_path / "a.wav", sine(), metadata={"task": "i2a", "step": 100, "note": text})
    assert provenance_of(tmp_path / "a.wav") == {"task": "i2a", "step": 100, "note": text}
    np.testing.assert_allclose(load_waveform(tmp_path / "a.wav"), sine(), atol=1 / 32768)
