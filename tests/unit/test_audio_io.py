"""Reading and writing waveforms: formats, levels, refusals."""

from __future__ import annotations

import errno
import sys
import tracemalloc
import wave
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from xfavot.audio.io import load_waveform, read_provenance, save_waveform
from xfavot.errors import DataError

soundfile = pytest.importorskip("soundfile")

RATE = 24_000


def sine(seconds: float = 0.5, rate: int = RATE, hz: float = 440.0) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * hz * time)).astype(np.float32)


def write_video(path: Path, *, codec: str = "mp2", rate: int = 44_100, sound: bool = True) -> None:
    """A second of grey video, with a stereo tone of 0.5 left and 0.1 right."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg1video" if path.suffix == ".mpg" else "mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        track = container.add_stream(codec, rate=rate, layout="stereo") if sound else None
        for n in range(25):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 128, np.uint8), format="rgb24")
            frame.pts, frame.time_base = n, Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if track is None:
            return
        tone = sine(1.0, rate) * 2
        pcm = np.stack([0.5 * tone, 0.1 * tone])
        step = 1152
        for start in range(0, pcm.shape[1] - step, step):
            part = np.ascontiguousarray(pcm[:, start : start + step]).astype(np.float32)
            sound_frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="stereo")
            sound_frame.sample_rate, sound_frame.pts = rate, start
            container.mux(track.encode(sound_frame))
        container.mux(track.encode(None))


@pytest.mark.parametrize(
    ("subtype", "step"),
    [
        *(("PCM_U8", 1 / 128), ("PCM_16", 1 / 32768), ("PCM_24", 1e-6), ("PCM_32", 1e-7)),
        *(("FLOAT", 1e-7), ("DOUBLE", 1e-7), ("ULAW", 0.02)),
    ],
)
def test_depths(tmp_path: Path, subtype: str, step: float) -> None:
    soundfile.write(tmp_path / "a.wav", sine(), RATE, subtype=subtype)
    got = load_waveform(tmp_path / "a.wav")
    assert got.dtype == np.float32
    assert got.shape == (12_000,)
    np.testing.assert_allclose(got, sine(), atol=1.01 * step)


def test_flac_and_a_path_as_text(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", sine(), RATE)
    np.testing.assert_allclose(load_waveform(str(tmp_path / "a.flac")), sine(), atol=1e-4)


@pytest.mark.parametrize("levels", [[0.3], [0.5, 0.1], [0.9, 0.5, 0.1, 0.0, 0.0]])
def test_channels_are_averaged(tmp_path: Path, levels: list[float]) -> None:
    soundfile.write(tmp_path / "a.wav", np.tile(levels, (100, 1)), RATE, subtype="FLOAT")
    np.testing.assert_allclose(load_waveform(tmp_path / "a.wav"), np.full(100, 0.3), rtol=1e-6)


def test_content_decides_not_the_name(tmp_path: Path) -> None:
    pytest.importorskip("soxr")
    for kind, names in (
        ("wav", ("a.flac", "a.mp4", "a.mp3", "bare")),
        ("flac", ("b.wav", "b.m4a")),
        ("mp3", ("c.wav", "c.flac")),
        ("ogg", ("d.wav",)),
        ("aiff", ("e.wav",)),
    ):
        for name in names:
            soundfile.write(tmp_path / name, sine(), RATE, format=kind)
            got = load_waveform(tmp_path / name)
            assert got.shape == (12_000,)
            np.testing.assert_allclose(got[2000:-2000], sine()[2000:-2000], atol=0.05)
    for suffix, codec in ((".mp4", "aac"), (".mpg", "mp2"), (".avi", "mp3"), (".mkv", "aac")):
        write_video(tmp_path / f"f{suffix}", codec=codec)
        (tmp_path / f"f{suffix}").rename(tmp_path / "film.wav")
        assert abs(len(load_waveform(tmp_path / "film.wav")) - RATE) < 0.1 * RATE


def write_raw_aac(path: Path, rate: int) -> Path:
    av = pytest.importorskip("av")
    write_video(path.with_suffix(".mp4"), codec="aac", rate=rate)
    with av.open(str(path.with_suffix(".mp4"))) as film, av.open(str(path), "w") as raw:
        track = raw.add_stream_from_template(film.streams.audio[0])
        for packet in film.demux(film.streams.audio[0]):
            packet.stream = track
            if packet.dts is not None:
                raw.mux(packet)
    return path


def test_raw_aac_is_read(tmp_path: Path) -> None:
    pytest.importorskip("soxr")
    first, second = (write_raw_aac(tmp_path / f"{rate}.aac", rate) for rate in (24_000, 48_000))
    assert first.read_bytes()[:1] == b"\xff"
    for path in (first, second):
        assert abs(len(load_waveform(path)) - RATE) < 0.1 * RATE
    both = tmp_path / "both.aac"
    both.write_bytes(first.read_bytes() + second.read_bytes())
    refused(both, "a sampling rate that changes")


def test_memory_holds_the_result_and_little_else(tmp_path: Path) -> None:
    pytest.importorskip("soxr")
    path = tmp_path / "a.wav"
    long = np.tile(0.5 * sine(1.0, 48_000), 30)
    soundfile.write(path, np.stack([long, long], axis=1), 48_000)
    load_waveform(path)  # imports
    tracemalloc.start()
    got = load_waveform(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert abs(len(got) - 30 * RATE) < RATE
    assert peak < 2.7 * got.nbytes  # whole stereo at 48 kHz alone would take 4


@pytest.mark.parametrize("rate", [8000, 16_000, 44_100, 192_000])
def test_other_rates_are_resampled(tmp_path: Path, rate: int) -> None:
    pytest.importorskip("soxr")
    soundfile.write(tmp_path / "a.wav", sine(1.0, rate), rate, subtype="FLOAT")
    got = load_waveform(tmp_path / "a.wav")
    assert got.shape == (24_000,)
    np.testing.assert_allclose(got[1000:-1000], sine(1.0)[1000:-1000], atol=1e-3)


@pytest.mark.parametrize(("name", "codec"), [("a.mpg", "mp2"), ("a.mp4", "aac")])
def test_videos(tmp_path: Path, name: str, codec: str) -> None:
    pytest.importorskip("soxr")
    write_video(tmp_path / name, codec=codec)
    got = load_waveform(tmp_path / name)
    assert abs(len(got) - RATE) < 0.1 * RATE
    middle = got[6000:18_000]
    assert abs(np.sqrt(2 * np.mean(middle**2)) - 0.3) < 0.02  # (0.5 + 0.1) / 2
    spectrum = np.abs(np.fft.rfft(middle))
    assert abs(spectrum.argmax() * RATE / len(middle) - 440) <= 2


def test_real_grid_video(real_corpus: Path) -> None:
    pytest.importorskip("av")
    pytest.importorskip("soxr")
    got = load_waveform(sorted(real_corpus.glob("grid/s1/video/*.mpg"))[0])
    assert 2.8 * RATE < len(got) < 3.1 * RATE
    assert 0.01 < np.abs(got).max() < 1.1


def refused(path: Path, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load_waveform(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("rate", [1, 2_000_000])
def test_a_rate_of_a_damaged_header_is_refused(tmp_path: Path, rate: int) -> None:
    soundfile.write(tmp_path / "a.wav", sine(), rate)
    refused(tmp_path / "a.wav", f"a sampling rate of {rate} Hz")


def test_missing_empty_and_disguised_files(tmp_path: Path) -> None:
    refused(tmp_path / "absent.wav", "no such file")
    refused(tmp_path, "a folder or a device")
    contents = {
        "empty": (b"", "the file is empty"),
        "page": (b"\n<!DOCTYPE html><html>403 Forbidden</html>", "a web page"),
        "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS pointer"),
        "noise": (bytes(range(256)) * 8, "damaged or not a"),
        "stub": (b"RIFF", "damaged or not a"),
    }
    for suffix in (".wav", ".mp4"):
        for name, (content, message) in contents.items():
            path = tmp_path / f"{name}{suffix}"
            path.write_bytes(content)
            refused(path, message)


def test_truncated_files(tmp_path: Path) -> None:
    pytest.importorskip("soxr")
    soundfile.write(tmp_path / "a.wav", sine(), RATE)
    soundfile.write(tmp_path / "a.flac", sine(), RATE)
    write_video(tmp_path / "a.mpg")
    write_video(tmp_path / "a.mp4", codec="aac")
    for name, share, message in (
        ("a.wav", 0.5, "truncated, at least 12022 bytes missing"),
        ("a.flac", 0.5, "truncated|damaged"),
        ("a.mpg", 0.43, "truncated"),
        ("a.mp4", 0.5, "damaged|truncated"),
    ):
        content = (tmp_path / name).read_bytes()
        cut = tmp_path / f"cut_{name}"
        cut.write_bytes(content[: int(share * len(content))])
        refused(cut, message)


def test_nothing_to_hear(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "none.wav", np.zeros(0), RATE)
    refused(tmp_path / "none.wav", "no samples")
    soundfile.write(tmp_path / "silent.wav", np.full(5000, 0.9e-4), RATE, subtype="FLOAT")
    refused(tmp_path / "silent.wav", "silent")
    soundfile.write(tmp_path / "nan.wav", np.array([0.1, np.nan]), RATE, subtype="FLOAT")
    refused(tmp_path / "nan.wav", "not finite")
    write_video(tmp_path / "mute.mp4", sound=False)
    refused(tmp_path / "mute.mp4", "without sound track")


@pytest.mark.parametrize(
    ("library", "name"), [("soundfile", "a.wav"), ("av", "a.mp4"), ("soxr", "b.wav")]
)
def test_a_missing_library_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str, name: str
) -> None:
    soundfile.write(tmp_path / "a.wav", sine(), RATE)
    soundfile.write(tmp_path / "b.wav", sine(), 16_000)
    (tmp_path / "a.mp4").write_bytes(b"x" * 100)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(DataError, match=rf'{library}.*pip install "xfavot\[data\]"'):
        load_waveform(tmp_path / name)


def test_saved_steps_come_back_exactly(tmp_path: Path) -> None:
    x = np.arange(-32768, 32768, 7, dtype=np.float32) / 32768
    assert save_waveform(tmp_path / "deep" / "a.wav", x) == 0
    assert (load_waveform(tmp_path / "deep" / "a.wav") == x).all()
    with wave.open(str(tmp_path / "deep" / "a.wav")) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (24_000, 1, 2)
        assert file.getnframes() == len(x)


def test_clipping_is_counted_and_nothing_is_rescaled(tmp_path: Path) -> None:
    x = np.array([0.0, 0.25, 1.0, -1.0, 1.2, -3.0])
    assert save_waveform(tmp_path / "a.wav", x) == 2
    got = load_waveform(tmp_path / "a.wav")
    np.testing.assert_allclose(got, [0.0, 0.25, 1.0, -1.0, 1.0, -1.0], atol=1 / 32767)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.array([0.1, np.nan, np.inf]), "2 of 3 samples are not finite"),
        (np.zeros((2, 10)), r"shape \(2, 10\)"),
        (np.zeros(0), "N at least 1"),
        (np.zeros(10, np.int16), "int16"),
    ],
)
def test_unfit_waveforms_are_not_written(tmp_path: Path, x: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        save_waveform(tmp_path / "a.wav", x)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_waveform(tmp_path / "a.wav", sine())
    before = (tmp_path / "a.wav").read_bytes()

    def full(path: Path, data: bytes) -> int:
        path.open("wb").close()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DataError, match="No space left"):
        save_waveform(tmp_path / "a.wav", -sine())
    assert (tmp_path / "a.wav").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.wav"]


@pytest.mark.parametrize("text", ["x", "xy", "Zoë, 日本"])
def test_provenance(tmp_path: Path, text: str) -> None:
    metadata = {"task": "i2a", "step": 100, "note": text}
    save_waveform(tmp_path / "a.wav", sine(), metadata=metadata)
    assert read_provenance(tmp_path / "a.wav") == metadata
    np.testing.assert_allclose(load_waveform(tmp_path / "a.wav"), sine(), atol=1 / 32768)
    with soundfile.SoundFile(tmp_path / "a.wav") as file:
        assert '"task": "i2a"' in file.comment


def test_files_without_provenance(tmp_path: Path) -> None:
    save_waveform(tmp_path / "a.wav", sine())
    assert read_provenance(tmp_path / "a.wav") == {}
    with soundfile.SoundFile(tmp_path / "b.wav", "w", RATE, 1) as file:
        file.comment = "recorded in a kitchen"
        file.write(sine())
    assert read_provenance(tmp_path / "b.wav") == {}
    with pytest.raises(DataError, match="No such file"):
        read_provenance(tmp_path / "c.wav")


def test_what_a_file_names_is_not_opened(tmp_path: Path) -> None:
    session = (
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 9 RTP/AVP 0\n"
    )
    (tmp_path / "a.mp4").write_bytes(session)
    refused(tmp_path / "a.mp4", "not a recording")
    (tmp_path / "b.mp4").write_bytes(b"#EXTM3U\n/etc/passwd\n")
    refused(tmp_path / "b.mp4", "a playlist")
