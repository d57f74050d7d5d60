"""Bad input while preparing: the file is listed with its reason and the rest goes on."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
from itertools import chain, repeat
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

pytest.importorskip("pyworld")  # of the extra "data"

from tests.conftest import Patch, refuses
from tests.unit.store_factory import face, tone
from tests.unit.test_prepare import (
    LANDMARKS,
    found_at,
    make,
    quarantine,
    write_celeba,
    write_film,
    write_vctk,
)
from xfavot.audio.io import save_waveform
from xfavot.data import prepare
from xfavot.data.prepare import SETTINGS, process, process_all
from xfavot.data.readers import Clip
from xfavot.data.store import mel_statistics
from xfavot.errors import DataError
from xfavot.image.io import save_image

ROOT = Path(__file__).resolve().parents[2]
FULL = OSError(errno.ENOSPC, "No space left on device")


def test_bad_sound_files(tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    wavs = write_vctk(tmp_path, clips=2) / "vctk" / "wav48" / "p225"
    good = tone(200.0, 0.6, np.random.default_rng(0))
    part = (wavs / "p225_000.wav").read_bytes()[:9000]
    contents = {10: b"", 11: b"<!DOCTYPE html><p>sign in", 12: random.Random(0).randbytes(2000)}
    for number, content in (contents | {15: part}).items():
        (wavs / f"p225_0{number}.wav").write_bytes(content)
    save_waveform(wavs / "p225_013.wav", np.zeros(24000, np.float32))
    save_waveform(wavs / "p225_014.wav", good[:4800])
    soundfile.write(wavs / "p225_016.wav", good * 32768, 24000, "FLOAT")  # int16's range
    save_waveform(wavs / "with space ü.wav", good)
    lines: list[str] = []
    store = make("vctk", tmp_path, tmp_path / "data", on_log=lines.append)
    assert len(store.items) == 5
    assert "p225/with space ü" in {item.id for item in store.items}
    unreadable = ["empty file", "not media", "sound unreadable"]
    reasons = [*unreadable, "silent", "too short", "truncated", "too loud"]
    assert quarantine(store) == {f"p225_0{n}.wav": why for n, why in enumerate(reasons, 10)}
    assert any("5 accepted, 7 rejected" in line and "1 silent" in line for line in lines)
    page = (store.path / "report.html").read_text(encoding="utf-8")
    assert "7 files rejected" in page
    assert "times full scale (+8" in page  # the level that was refused, in dB
    assert mel_statistics([store], split="train").mean.max() < 1.75


def test_bad_films(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(prepare, "detect", found_at(LANDMARKS))
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
    with pytest.raises(DataError, match=r"none of the 1 clips.*1 not square; .*has 160x100"):
        make("celeba_hq", tmp_path, tmp_path / "data")
    (tmp_path / "empty").mkdir()
    for source in ("absent", "empty"):
        with pytest.raises(DataError, match=r"expected.*wav48/pNNN"):
            make("vctk", tmp_path / source, tmp_path / "data")
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
        with pytest.raises(DataError, match=r"No space left.*run again.*kept"):
            make("vctk", tmp_path / "in", tmp_path / "data")
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
        save_waveform(path, tone(200.0, 0.6, np.random.default_rng(0)))
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
