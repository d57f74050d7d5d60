"""Bad and odd originals: each is taken, or refused with its reason; none hangs, none vanishes."""

from __future__ import annotations

import os
import struct
import zlib
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pyworld")  # of the extra "data"

import av
import soundfile
from PIL import Image

from tests.conftest import Patch, refuses
from tests.unit.store_factory import encoded, tone
from tests.unit.test_prepare import LANDMARKS, found_at, make, quarantine, write_film, write_vctk
from xfavot.audio.io import load_waveform, save_waveform
from xfavot.data import prepare
from xfavot.data.readers import NOT_NEEDED, NOTED
from xfavot.data.readers.layouts import scan
from xfavot.data.report import summary
from xfavot.data.store import Store
from xfavot.errors import DataError
from xfavot.image import io
from xfavot.image.io import load_frames, load_image


def voice(path: Path, hz: float = 200.0) -> Path:
    save_waveform(path, tone(hz, 0.6, np.random.default_rng(0)))
    return path


def test_what_is_no_plain_file_is_never_opened(tmp_path: Path) -> None:
    wavs = write_vctk(tmp_path, speakers=1, clips=1) / "vctk" / "wav48" / "p225"
    os.mkfifo(wavs / "p225_010.wav")  # opening it would wait for ever
    (wavs / "p225_011.wav").symlink_to("/dev/zero")
    (wavs / "p225_012.wav").mkdir()
    (wavs / "p225_013.wav").symlink_to(tmp_path / "gone.wav")
    (wavs / "p225_014.wav").symlink_to(wavs / "p225_014.wav")
    os.mkfifo(tmp_path / "vctk" / "speakers.csv")
    os.mkfifo(tmp_path / "vctk" / "txt" / "p225" / "p225_000.txt.fifo")
    store = make("vctk", tmp_path, tmp_path / "data")
    assert [item.id for item in store.items] == ["p225/p225_000"]
    assert quarantine(store) == {
        "p225_010.wav": "not a plain file",
        "p225_011.wav": "not a plain file",
        "p225_012.wav": "a folder, not a file",
        "p225_013.wav": "cannot be opened",
        "p225_014.wav": "cannot be opened",
        "speakers.csv": "not a plain file",
        "p225_000.txt.fifo": "not a plain file",
    }
    playlist = b"#EXTM3U\n#EXTINF:9,\n/etc/passwd\n"
    for load in (load_waveform, load_image, lambda path: load_frames(path, 1)):
        refuses(DataError, "a folder or a device", load, wavs / "p225_010.wav")
        refuses(DataError, r"is text.*a playlist", load, playlist)


NAMES = ("with space.wav", "quote'\"&<b>.wav", "line\nbreak.wav", "日本 Zoë.wav", "a,b;c%d.wav")


def test_odd_names_survive_manifest_quarantine_and_report(tmp_path: Path) -> None:
    wavs = write_vctk(tmp_path, speakers=1, clips=1) / "vctk" / "wav48" / "p225"
    for name in NAMES:
        voice(wavs / name)
        (wavs / f"bad {name}").write_bytes(b"")
    os.replace(voice(tmp_path / "made.wav"), os.fsencode(wavs) + b"/caf\xe9.wav")  # no UTF-8
    store = make("vctk", tmp_path, tmp_path / "data")
    assert Store.open(store.path).items == store.items
    sources = {f"wav48/p225/{name}" for name in (*NAMES, "caf\\xe9.wav", "p225_000.wav")}
    assert {item.source for item in store.items} == sources
    assert "p225/caf\\xe9" in {item.id for item in store.items}
    assert quarantine(store) == {f"bad {name}": "empty file" for name in NAMES}
    page = (store.path / "report.html").read_text(encoding="utf-8")
    assert "bad 日本 Zoë.wav" in page
    assert "&lt;b&gt;.wav" in page
    assert "<b>.wav" not in page


def test_films_of_odd_names(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(prepare, "detect", found_at(LANDMARKS))
    film = write_film(tmp_path / "film.mpg", seconds=1.0)
    folder = tmp_path / "clips" / "Anna"
    folder.mkdir(parents=True)
    for name in (b"a b.mpg", b"caf\xe9.mpg", b"%03d.mpg", b"concat:x.mpg"):
        os.link(film, os.fsencode(folder) + b"/" + name)
    monkeypatch.chdir(folder)
    assert len(load_waveform("concat:x.mpg")) > 20_000
    assert load_frames("%03d.mpg", 1)[0].shape == (144, 176, 3)
    items = list(scan("clips", tmp_path, 0).clips.values())
    assert len(items) == 4
    done = [prepare.process(clip) for clip in items]
    assert [len(made["faces"]) for made in done] == [4] * 4


def test_a_table_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    write_vctk(tmp_path, speakers=1, clips=1)
    table = tmp_path / "vctk" / "speakers.csv"
    table.write_text("speaker,gender\np225,F\np300,M\np225,F\np225,M\n", encoding="utf-8")
    refuses(DataError, r"line 5: 'p225' is 'M'", make, "vctk", tmp_path, tmp_path / "data")
    table.write_bytes("speaker,gender\nZoë,F\n".encode("latin-1"))
    match = r"cannot be read .*as CSV in UTF-8"
    refuses(DataError, match, make, "vctk", tmp_path, tmp_path / "data")


def test_notes_reach_the_store(tmp_path: Path) -> None:
    wavs = write_vctk(tmp_path, speakers=1, clips=1) / "vctk" / "wav48" / "p225"
    wave = tone(200.0, 0.6, np.random.default_rng(0))
    soundfile.write(wavs / "p225_001.wav", np.stack([wave, -wave], axis=1), 24_000)
    voice(wavs / "p225_000_mic2.wav")
    store = make("vctk", tmp_path, tmp_path / "data")
    assert [item.id for item in store.items] == ["p225/p225_000", "p225/p225_001"]
    assert quarantine(store) == {"p225_001.wav": NOTED, "p225_000_mic2.wav": NOT_NEEDED}
    assert "cancel each other" in (store.path / "report.html").read_text(encoding="utf-8")
    assert "2 accepted, 0 rejected; 1 not needed; 1 used, with a note" in summary([store])


def grey(level: int = 100) -> Any:
    return Image.new("L", (8, 6), level)


SILENCE = np.zeros(0, np.float32)


PICTURES = {  # and what all pixels are, once read
    "grey.png": (grey(), (100, 100, 100)),
    "bilevel.png": (Image.new("1", (8, 6), 1), (255, 255, 255)),
    "deep.png": (Image.fromarray(np.full((6, 8), 100 * 257, np.uint16)), (100, 100, 100)),
    "clear.png": (Image.new("RGBA", (8, 6), (9, 9, 9, 0)), (255, 255, 255)),
    "half.png": (Image.new("LA", (8, 6), (0, 127)), (128, 128, 128)),
    "palette.png": (Image.new("RGB", (8, 6), (9, 99, 199)).quantize(), (9, 99, 199)),
    "cmyk.jpg": (Image.new("CMYK", (8, 6), (0, 255, 255, 0)), (254, 0, 0)),
    "a BMP.png": (Image.new("RGB", (8, 6), (9, 99, 199)), (9, 99, 199)),
}


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_of_every_mode_come_in_one_way(tmp_path: Path, name: str) -> None:
    path, (picture, expected) = tmp_path / name, PICTURES[name]
    picture.save(path, "BMP" if "BMP" in name else None)
    got = load_image(path)
    assert (got.shape, got.dtype) == ((6, 8, 3), np.uint8)
    np.testing.assert_allclose(got.reshape(-1, 3).mean(0), expected, atol=1)
    np.testing.assert_array_equal(load_image(path.read_bytes()), got)
    with Image.open(path) as image:
        np.testing.assert_array_equal(load_image(image), got)
        if image.mode in {"L", "RGB", "RGBA", "LA", "I;16"}:
            np.testing.assert_array_equal(load_image(np.asarray(image)), got)


def test_pictures_are_turned_upright(tmp_path: Path) -> None:
    pixels = np.zeros((6, 8, 3), np.uint8)
    pixels[:3] = 255  # the upper half as the camera saw it
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it a quarter clockwise
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    got = load_image(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        np.testing.assert_array_equal(load_image(image), got)
    assert got.shape == (8, 6, 3)
    assert (got[:, 3:] == 255).all()
    assert (got[:, :3] == 0).all()


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_of_an_animation_the_first_picture_is_taken(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    grey(200).save(path, save_all=True, append_images=[grey(20)], duration=40)
    assert abs(float(load_image(path).mean()) - 200) < 4
    (tmp_path / "avatars").mkdir()
    os.link(path, tmp_path / "avatars" / path.name)
    assert [*scan("avatars", tmp_path, 0).clips] == [path.name]


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [10_001, 30_000])
def test_pictures_that_are_huge_or_of_floats_are_refused(tmp_path: Path, side: int) -> None:
    grey().save(tmp_path / "a.png")
    data = bytearray((tmp_path / "a.png").read_bytes())
    data[16:24] = struct.pack(">II", side, side)  # it promises more than it has
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    refuses(DataError, r"pixels", load_image, bytes(data))
    Image.new("F", (8, 6), 0.5).save(tmp_path / "a.tif")
    refuses(DataError, "save it with 8 bits a channel", load_image, tmp_path / "a.tif")


def test_films_are_turned_upright() -> None:
    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[:32, :48] = 255  # the upper left quarter
    data = bytearray(encoded("mp4", "", SILENCE, pictures=[pixels] * 3, video="mpeg4"))
    place = data.index(b"tkhd") + 44  # the matrix of the track's header
    data[place : place + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    (got,) = load_frames(bytes(data), 1)
    assert got.shape == (96, 64, 3)
    assert got[:48, 32:].mean() > 250  # a quarter clockwise: the upper right one
    assert got[:48, :32].mean() < 5
    assert got[48:].mean() < 5


@pytest.mark.parametrize("pictures", [True, False])
def test_a_film_without_pictures_or_frames(tmp_path: Path, pictures: bool) -> None:
    path = tmp_path / "clips" / "Anna" / "a.mkv"
    path.parent.mkdir(parents=True)
    with av.open(str(path), "w") as film:
        if pictures:  # a track of which nothing comes
            track = film.add_stream("mpeg4", rate=25)
            track.width, track.height, track.pix_fmt = 96, 64, "yuv420p"
        wave = encoded("matroska", "flac", tone(200.0, 0.6, np.random.default_rng(0)))
        with av.open(BytesIO(wave)) as sound:
            track = film.add_stream_from_template(sound.streams[0])
            for packet in sound.demux():
                if packet.dts is not None:
                    packet.stream = track
                    film.mux(packet)
    missing = "no picture that decodes" if pictures else "no picture track"
    refuses(DataError, missing, load_frames, path, 4)
    prepared = partial(make, "clips", tmp_path, tmp_path / "data")
    if pictures:
        refuses(DataError, r"1 picture unreadable.*no picture", prepared)
    else:
        assert prepared().items[0].kind == "audio"


def test_of_a_long_film_the_same_frames_are_sought_as_counted(monkeypatch: Patch) -> None:
    levels = [np.full((48, 64, 3), level, np.uint8) for level in range(200)]
    settings = {"g": "12", "bf": "2"}
    path = encoded("mp4", "", SILENCE, pictures=levels, video="mpeg4", shown=settings)
    counted = load_frames(path, 4)
    monkeypatch.setattr(io, "SEEK_SECONDS", 0.5)
    monkeypatch.setattr(io, "itertools", None)  # frames are not to be counted from the start
    sought = load_frames(path, 4)
    for expected, got in zip(counted, sought, strict=True):
        np.testing.assert_array_equal(got, expected)
    np.testing.assert_allclose([f.mean() for f in sought], [25, 75, 125, 175], atol=3)
