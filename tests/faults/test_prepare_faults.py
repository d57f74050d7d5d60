"""Bad and odd originals: each is taken, or listed with its reason, and the rest goes on."""

from __future__ import annotations

import errno
import os
import random
import signal
import struct
import subprocess
import sys
import zlib
from functools import partial
from io import BytesIO
from itertools import chain, repeat
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

pytest.importorskip("pyworld")  # of the extra "data"

import av
import soundfile
from PIL import Image

from tests.conftest import Patch, refuses
from tests.unit.store_factory import encoded, face, tone
from tests.unit.test_prepare import (
    LANDMARKS,
    make,
    quarantine,
    write_celeba,
    write_film,
    write_vctk,
)
from xfavot.audio.io import load_waveform, save_waveform
from xfavot.data import prepare
from xfavot.data.prepare import SETTINGS, process, process_all
from xfavot.data.readers import NOT_NEEDED, NOTED, Clip
from xfavot.data.readers.layouts import scan
from xfavot.data.report import summary
from xfavot.data.store import Store
from xfavot.errors import DataError
from xfavot.image import io
from xfavot.image.io import load_frames, load_image, save_image

ROOT = Path(__file__).resolve().parents[2]
FULL = OSError(errno.ENOSPC, "No space left on device")


VOICE = tone(200.0, 0.6, np.random.default_rng(0))
NAMES = ("with space.wav", "quote'\"&<b>.wav", "line\nbreak.wav", "日本 Zoë.wav", "a,b;c%d.wav")


def test_odd_and_bad_sound_files(tmp_path: Path) -> None:
    wavs = write_vctk(tmp_path, speakers=1, clips=1) / "vctk" / "wav48" / "p225"
    bad = {why: wavs / f"{why}.wav" for why in ("empty file", "not media", "sound unreadable")}
    bad["truncated"] = wavs / "part.wav"
    part = (wavs / "p225_000.wav").read_bytes()[:9000]
    contents = b"", b"<!DOCTYPE html><p>sign in", random.Random(0).randbytes(2000), part
    for path, content in zip(bad.values(), contents, strict=True):
        path.write_bytes(content)
    save_waveform(wavs / "silent.wav", np.zeros(24000, np.float32))
    save_waveform(wavs / "too short.wav", VOICE[:4800])
    soundfile.write(wavs / "too loud.wav", VOICE * 32768, 24000, "FLOAT")  # int16's range
    os.mkfifo(wavs / "pipe.wav")  # opening it would wait for ever
    os.mkfifo(tmp_path / "vctk" / "speakers.csv")
    for name, target in (("device", "/dev/zero"), ("gone", "nowhere"), ("loop", "loop.wav")):
        (wavs / f"{name}.wav").symlink_to(target)
    (wavs / "folder.wav").mkdir()
    for name in NAMES:
        save_waveform(wavs / name, VOICE)
        (wavs / f"bad {name}").write_bytes(b"")
    os.link(wavs / NAMES[0], os.fsencode(wavs) + b"/caf\xe9.wav")  # no UTF-8
    soundfile.write(wavs / "p225_001.wav", np.stack([VOICE, -VOICE], axis=1), 24_000)
    save_waveform(wavs / "p225_000_mic2.wav", VOICE)
    lines: list[str] = []
    store = make("vctk", tmp_path, tmp_path / "data", on_log=lines.append)
    assert Store.open(store.path).items == store.items
    used = {*NAMES, "caf\\xe9.wav", "p225_000.wav", "p225_001.wav"}
    assert {item.source for item in store.items} == {f"wav48/p225/{name}" for name in used}
    device, gone = "not a plain file", "cannot be opened"
    assert quarantine(store) == {
        **{path.name: why for why, path in bad.items()},
        **{f"{why}.wav": why for why in ("silent", "too short", "too loud")},
        **{"pipe.wav": device, "speakers.csv": device, "device.wav": device},
        **{"folder.wav": "a folder, not a file", "gone.wav": gone, "loop.wav": gone},
        **{f"bad {name}": "empty file" for name in NAMES},
        **{"p225_001.wav": NOTED, "p225_000_mic2.wav": NOT_NEEDED},
    }
    assert any("8 accepted, 18 rejected" in line and "1 silent" in line for line in lines)
    assert "; 1 not needed; 1 used, with a note" in summary([store])
    page = (store.path / "report.html").read_text(encoding="utf-8")
    for text in ("18 files rejected", "bad 日本 Zoë.wav", "&lt;b&gt;.wav", "cancel each other"):
        assert text in page
    assert "times full scale (+8" in page  # the level that was refused, in dB
    assert "<b>.wav" not in page
    playlist = b"#EXTM3U\n#EXTINF:9,\n/etc/passwd\n"
    for load in (load_waveform, load_image, lambda path: load_frames(path, 1)):
        refuses(DataError, "a folder or a device", load, wavs / "pipe.wav")
        refuses(DataError, r"is text.*a playlist", load, playlist)


def test_bad_films(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(prepare, "detect", lambda images: [LANDMARKS] * len(images))
    whole = write_film(tmp_path / "s1" / "bbaf2n.mpg")
    (tmp_path / "s1" / "bbaf3s.mpg").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    write_film(tmp_path / "s1" / "bbaf4p.mpg", seconds=1.0, sound=False)
    write_film(tmp_path / "s1" / "bbaf5a.mpg", seconds=1.6)
    (tmp_path / "s1" / "bbal8p.mpg").write_bytes(random.Random(0).randbytes(5000))
    (tmp_path / "s1" / "bbal9a.mpg").symlink_to(tmp_path / "gone.mpg")
    store = make("grid", tmp_path, tmp_path / "data")
    assert [item.id for item in store.items] == ["s1/bbaf2n"]
    assert quarantine(store) == {
        "bbaf3s.mpg": "truncated",
        "bbaf4p.mpg": "no sound track",
        "bbaf5a.mpg": "truncated",
        "bbal8p.mpg": "sound unreadable",
        "bbal9a.mpg": "cannot be opened",
    }


def test_bad_faces(tmp_path: Path, monkeypatch: Patch) -> None:
    folder = tmp_path / "avatars" / "female"
    places = {"ok": LANDMARKS, "none": None, "far": LANDMARKS * 0.1, "cut": LANDMARKS - 110}
    for number, name in enumerate(places):
        save_image(folder / f"{name}.png", face((number, 90, 90), 160))
    (folder / "page.jpg").write_text("<!doctype html><title>404</title>", encoding="utf-8")
    (folder / "half.jpg").write_bytes(b"\xff\xd8\xff\xe0" + random.Random(0).randbytes(300))
    found = list(places.values())
    monkeypatch.setattr(prepare, "detect", lambda images: [found[images[0][0, -1, 0]]])
    store = make("avatars", tmp_path, tmp_path / "data")
    assert [item.id for item in store.items] == ["female/ok.png"]
    assert quarantine(store) == {
        "none.png": "no face found",
        "far.png": "face too small",
        "cut.png": "face cut off",
        "page.jpg": "not media",
        "half.jpg": "picture unreadable",
    }


def test_nothing_usable_says_why_and_leaves_no_store(tmp_path: Path) -> None:
    wide = tmp_path / "celeba_hq" / "train" / "male" / "wide.png"
    save_image(wide, np.zeros((100, 160, 3), np.uint8))
    match = r"none of the 1 clips.*1 not square; .*has 160x100"
    refuses(DataError, match, make, "celeba_hq", tmp_path, tmp_path / "data")
    (tmp_path / "empty").mkdir()
    for source in ("absent", "empty"):
        refuses(DataError, "wav48/pNNN", make, "vctk", tmp_path / source, tmp_path / "data")
    assert [path.name for path in (tmp_path / "data").iterdir()] == [".celeba_hq.partial"]


def test_a_store_that_stands_in_the_way_is_never_overwritten(tmp_path: Path) -> None:
    store = make("vctk", write_vctk(tmp_path / "in", clips=1), tmp_path)
    manifest = (store.path / "manifest.csv").read_bytes()

    def refused(message: str, corpus: str = "vctk", **more: Any) -> None:
        refuses(DataError, message, make, corpus, tmp_path / "in", tmp_path, **more)

    refused(r"held_out is .*now \['p225'\].*remove", held_out=["p225"])
    refused("settings is", settings={**SETTINGS, "faces_per_clip": 1})
    write_vctk(tmp_path / "in", clips=2)  # a source that has grown
    refused("list of source files")
    (store.path / "prepare.json").write_text("{", encoding="utf-8")
    refused(r"prepare\.json is missing or damaged")
    write_celeba(tmp_path / "in")
    store.path.rename(tmp_path / "celeba_hq")
    refused(r"corpus.: .vctk.", "celeba_hq")
    assert (tmp_path / "celeba_hq" / "manifest.csv").read_bytes() == manifest
    (tmp_path / "vctk").mkdir()
    (tmp_path / "vctk" / "thesis.txt").write_text("mine", encoding="utf-8")
    refused(r"store\.json missing")
    assert (tmp_path / "vctk" / "thesis.txt").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("finished", [3, 4])  # clips when the disk is full; 4 are all
def test_a_full_disk_keeps_the_rest(finished: int, tmp_path: Path, monkeypatch: Patch) -> None:
    write_vctk(tmp_path / "in", clips=2)
    with monkeypatch.context() as patch:
        answers = chain([None] * finished, repeat(FULL))
        patch.setattr(os, "fsync", Mock(side_effect=answers))
        refuses(DataError, "space left.*kept", make, "vctk", tmp_path / "in", tmp_path / "data")
    assert [path.name for path in (tmp_path / "data").iterdir()] == [".vctk.partial"]
    lines: list[str] = []
    store = make("vctk", tmp_path / "in", tmp_path / "data", on_log=lines.append)
    assert f"{finished} of them finished before" in lines[0]
    assert len(store.items) == 4
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["vctk"]


KILLED = """
import sys
from tests.unit.test_prepare import make
from xfavot.data import prepare
process_all = prepare.process_all
def slowly(*arguments):
    for made in process_all(*arguments):
        print("saved", flush=True)
        yield made
prepare.process_all = slowly
make("vctk", sys.argv[1], sys.argv[2], workers=1)
"""


def test_killed_and_resumed_equals_uninterrupted(tmp_path: Path, monkeypatch: Patch) -> None:
    source = write_vctk(tmp_path / "in", clips=3)
    complete = make("vctk", source, tmp_path / "whole")
    command = [sys.executable, "-c", KILLED, str(source), str(tmp_path / "killed")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as running:
        assert running.stdout is not None
        for _ in range(2):
            assert running.stdout.readline() == b"saved\n"
        running.send_signal(signal.SIGKILL)
        # the worker holds the pipe open: its end comes when that is gone, too
        assert set(running.communicate(timeout=60)[0].splitlines()) <= {b"saved"}
    before = len([*(tmp_path / "killed" / ".vctk.partial").glob("[!.]*.npz")])
    assert 2 <= before <= 6
    assert not (tmp_path / "killed" / "vctk").exists()
    worked: list[str] = []
    monkeypatch.setattr(prepare, "process", lambda *a: worked.append(a[0].id) or process(*a))
    store = make("vctk", source, tmp_path / "killed")
    assert len(worked) == 6 - before
    assert store.manifest_hash == complete.manifest_hash
    for name in ("audio", "mel", "f0"):
        np.testing.assert_array_equal(getattr(store, name), getattr(complete, name))


def test_a_resumed_run_takes_over_what_has_not_changed(tmp_path: Path, monkeypatch: Patch) -> None:
    wavs = write_vctk(tmp_path / "in", clips=2) / "vctk" / "wav48"
    save_waveform(wavs / "p225" / "p225_000.wav", np.zeros(24000, np.float32))
    load, worked = prepare.load_waveform, list[str]()

    def odd(path: Path) -> Any:
        worked.append(path.stem)
        if path.stem == "p225_001" and len(worked) < 5:
            raise ZeroDivisionError("perhaps no fault of the file")
        return load(path)

    def interrupted() -> list[str]:
        before = len(worked)
        with monkeypatch.context() as patch:
            patch.setattr(prepare, "write_store", Mock(side_effect=FULL))
            refuses(DataError, "No space left", make, "vctk", tmp_path / "in", tmp_path)
        return worked[before:]

    monkeypatch.setattr(prepare, "load_waveform", odd)
    assert interrupted() == ["p225_000", "p225_001", "p226_000", "p226_001"]
    os.utime(wavs / "p226" / "p226_000.wav", (1, 1))
    # a silent file stays silent; this one may get well, and that one has changed
    assert interrupted() == ["p225_001", "p226_000"]
    store = make("vctk", tmp_path / "in", tmp_path)
    assert len(worked) == 6
    assert [item.id[5:] for item in store.items] == ["p225_001", "p226_000", "p226_001"]
    assert quarantine(store) == {"p225_000.wav": "silent"}
    for item in store.items:
        wave = load(store.path.parent / "in" / "vctk" / item.source)
        np.testing.assert_allclose(store.waveform(item), wave, atol=1e-4)


def test_a_clip_that_kills_its_process_costs_itself(tmp_path: Path, monkeypatch: Patch) -> None:
    paths = [tmp_path / f"{name}.wav" for name in ("a", "killer", "odd", "b")]
    for path in paths:
        save_waveform(path, VOICE)
    # the workers import the package anew, so the fault is planted through their start-up
    plant = tmp_path / "plant"
    plant.mkdir()
    (plant / "sitecustomize.py").write_text(
        "import os, sys\n"
        "if any('multiprocessing' in a or 'spawn' in a for a in sys.orig_argv):\n"
        "    import xfavot.data.prepare as c\n"
        "    load = c.load_waveform\n"
        "    faults = {'killer': lambda: os._exit(9), 'odd': lambda: 1 / 0}\n"
        "    c.load_waveform = lambda p: faults.get(p.stem, lambda: load(p))()\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(plant), str(ROOT)]))
    clips = [Clip(path.stem, "audio", audio=path) for path in paths]
    done = list(process_all(process, clips, workers=1))
    assert [clip.id for clip, _ in done] == ["a", "killer", "odd", "b"]
    reasons = [made.get("reject", [""])[0] for _, made in done]
    assert reasons == ["", "decoder died", "cannot be read", ""]


def test_names_of_films_are_no_addresses(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("concat:x.mpg", "%03d.mpg"):
        write_film(tmp_path / name, seconds=1.0)
        assert len(load_waveform(name)) > 20_000
        assert load_frames(name, 1)[0].shape == (144, 176, 3)


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
    with Image.open(path) as image:
        arrays = [np.asarray(image)] if image.mode in {"L", "RGB", "RGBA", "LA", "I;16"} else []
        for same in (path.read_bytes(), image, *arrays):
            np.testing.assert_array_equal(load_image(same), got)


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
        wave = encoded("matroska", "flac", VOICE)
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
