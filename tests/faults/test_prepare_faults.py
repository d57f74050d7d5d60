"""Bad input while preparing: the file is listed with its reason and the rest goes on."""

from __future__ import annotations

import csv
import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("PIL")
pytest.importorskip("soundfile")
pytest.importorskip("soxr")
pytest.importorskip("pyworld")

from tests.unit.store_factory import face, tone
from tests.unit.test_prepare import LANDMARKS, found_at, make, write_celeba, write_film, write_vctk
from xfavot.audio.io import save_waveform
from xfavot.data import prepare
from xfavot.data.prepare import Settings, process_all
from xfavot.data.readers import Clip, Reject
from xfavot.data.store import Draft, Store
from xfavot.errors import DataError
from xfavot.image.io import save_image

ROOT = Path(__file__).resolve().parents[2]


def quarantine(store: Store) -> dict[str, str]:
    with (store.path / "quarantine.csv").open(encoding="utf-8", newline="") as file:
        return {row["source"]: row["reason"] for row in csv.DictReader(file)}


def test_bad_sound_files(tmp_path: Path) -> None:
    wavs = write_vctk(tmp_path, clips=2) / "vctk" / "wav48" / "p225"
    (wavs / "p225_010.wav").write_bytes(b"")
    (wavs / "p225_011.wav").write_text("<!DOCTYPE html><p>sign in", encoding="utf-8")
    (wavs / "p225_012.wav").write_bytes(os.urandom(2000))
    save_waveform(wavs / "p225_013.wav", np.zeros(24000, np.float32))
    save_waveform(wavs / "p225_014.wav", tone(200.0, 0.2, np.random.default_rng(0)))
    (wavs / "p225_015.wav").write_bytes((wavs / "p225_000.wav").read_bytes()[:9000])
    save_waveform(wavs / "with space ü.wav", tone(200.0, 0.6, np.random.default_rng(0)))
    lines: list[str] = []
    store = make("vctk", tmp_path, tmp_path / "data", on_log=lines.append)
    assert len(store.items) == 5
    assert "p225/with space ü" in {item.id for item in store.items}
    assert quarantine(store) == {
        "wav48/p225/p225_010.wav": "empty file",
        "wav48/p225/p225_011.wav": "not media",
        "wav48/p225/p225_012.wav": "sound unreadable",
        "wav48/p225/p225_013.wav": "silent",
        "wav48/p225/p225_014.wav": "too short",
        "wav48/p225/p225_015.wav": "truncated",
    }
    assert any("5 accepted, 6 rejected" in line and "1 silent" in line for line in lines)
    page = (store.path / "report.html").read_text(encoding="utf-8")
    assert "p225_013.wav" in page
    assert "6 files rejected" in page


def test_bad_films(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "detect", found_at(LANDMARKS))
    whole = write_film(tmp_path / "s1" / "bbaf2n.mpg")
    (tmp_path / "s1" / "bbaf3s.mpg").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    write_film(tmp_path / "s1" / "bbaf4p.mpg", sound=False)
    write_film(tmp_path / "s1" / "bbaf5a.mpg", seconds=1.6)
    (tmp_path / "s1" / "bbal6n.mpg").write_bytes(b"")
    (tmp_path / "s1" / "bbal7s.mpg").write_text("<html>no</html>", encoding="utf-8")
    (tmp_path / "s1" / "bbal8p.mpg").write_bytes(os.urandom(5000))
    (tmp_path / "s1" / "bbal9a.mpg").symlink_to(tmp_path / "gone.mpg")
    store = make("grid", tmp_path, tmp_path / "data")
    assert [item.id for item in store.items] == ["s1/bbaf2n"]
    found = quarantine(store)
    assert found == {
        "s1/bbaf3s.mpg": "truncated",
        "s1/bbaf4p.mpg": "no sound track",
        "s1/bbaf5a.mpg": "truncated",
        "s1/bbal6n.mpg": "empty file",
        "s1/bbal7s.mpg": "not media",
        "s1/bbal8p.mpg": "sound unreadable",
        "s1/bbal9a.mpg": "cannot be opened",
    }


def test_bad_faces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "avatars" / "female"
    save_image(folder / "ok.png", face((90, 90, 90), 160))
    save_image(folder / "none.png", face((91, 90, 90), 160))
    save_image(folder / "far.png", face((92, 90, 90), 160))
    save_image(folder / "cut.png", face((93, 90, 90), 160))
    (folder / "page.jpg").write_text("<!doctype html><title>404</title>", encoding="utf-8")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "half.jpg").write_bytes(b"\xff\xd8\xff\xe0" + os.urandom(300))
    places = {90: LANDMARKS, 91: None, 92: LANDMARKS * 0.1, 93: LANDMARKS - 110}
    monkeypatch.setattr(prepare, "detect", lambda images: [places[images[0][0, -1, 0]]])
    store = make("avatars", tmp_path, tmp_path / "data")
    assert [item.id for item in store.items] == ["female/ok.png"]
    assert quarantine(store) == {
        "female/none.png": "no face found",
        "female/far.png": "face too small",
        "female/cut.png": "face cut off",
        "female/page.jpg": "not media",
        "female/empty.jpg": "empty file",
        "female/half.jpg": "picture unreadable",
    }


def test_aligned_faces_must_be_square(tmp_path: Path) -> None:
    write_celeba(tmp_path)
    wide = np.zeros((100, 160, 3), np.uint8)
    save_image(tmp_path / "celeba_hq" / "train" / "male" / "wide.png", wide)
    store = make("celeba_hq", tmp_path, tmp_path / "data")
    assert quarantine(store) == {"train/male/wide.png": "not square"}


def test_a_decoder_that_raises_anything_is_quarantined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_vctk(tmp_path, clips=2)
    load = prepare.load_waveform

    def odd(path: Path) -> Any:
        if path.stem == "p225_001":
            raise ZeroDivisionError("odd header")
        return load(path)

    monkeypatch.setattr(prepare, "load_waveform", odd)
    store = make("vctk", tmp_path, tmp_path / "data")
    assert len(store.items) == 3
    assert quarantine(store) == {"wav48/p225/p225_001.wav": "cannot be read"}


def test_nothing_usable_says_why_and_leaves_no_store(tmp_path: Path) -> None:
    folder = tmp_path / "vctk" / "wav48" / "p225"
    folder.mkdir(parents=True)
    (folder / "p225_001.wav").write_bytes(b"")
    with pytest.raises(DataError, match=r"none of the 1 clips.*1 empty file.*p225_001\.wav"):
        make("vctk", tmp_path, tmp_path / "data")
    assert not (tmp_path / "data" / "vctk").exists()


@pytest.mark.parametrize("source", ["", "absent", "empty"])
def test_missing_and_empty_sources(source: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"expected.*wav48/pNNN"):
        make("vctk", tmp_path / source if source else "", tmp_path / "data")  # type: ignore[arg-type]
    assert not (tmp_path / "data").exists()


def test_a_store_that_stands_in_the_way_is_never_overwritten(tmp_path: Path) -> None:
    store = make("vctk", write_vctk(tmp_path / "in", clips=2), tmp_path)
    manifest = (store.path / "manifest.csv").read_bytes()
    with pytest.raises(DataError, match=r"held_out is .*now \['p225'\].*remove"):
        make("vctk", tmp_path / "in", tmp_path, held_out=["p225"])
    with pytest.raises(DataError, match="settings is"):
        make("vctk", tmp_path / "in", tmp_path, settings=Settings(faces_per_clip=1))
    write_vctk(tmp_path / "in", clips=3)  # a source that has grown
    with pytest.raises(DataError, match="list of source files"):
        make("vctk", tmp_path / "in", tmp_path)
    (tmp_path / "celeba_hq").mkdir()
    write_celeba(tmp_path / "in")
    store.path.rename(tmp_path / "celeba_hq")
    with pytest.raises(DataError, match=r"corpus.: .vctk."):
        make("celeba_hq", tmp_path / "in", tmp_path)
    assert (tmp_path / "celeba_hq" / "manifest.csv").read_bytes() == manifest


def test_a_folder_that_is_no_store_is_refused(tmp_path: Path) -> None:
    write_vctk(tmp_path / "in", clips=2)
    (tmp_path / "vctk").mkdir()
    (tmp_path / "vctk" / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(DataError, match=r"store\.json missing"):
        make("vctk", tmp_path / "in", tmp_path)
    assert (tmp_path / "vctk" / "thesis.txt").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("when", ["the first clips", "the last clip", "all are there"])
def test_a_full_disk_keeps_what_is_finished(
    when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_vctk(tmp_path / "in", clips=2)
    finished = ["the first clips", "", "", "the last clip", "all are there"].index(when)
    append, sync, room = Draft.append, os.fsync, [finished]

    def full(draft: Draft, entry: Any, arrays: Any) -> Any:
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        room[0] -= 1
        return append(draft, entry, arrays)

    def full_at_the_end(descriptor: int) -> None:
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(Draft, "append", full)
        patch.setattr(os, "fsync", full_at_the_end if finished == 4 else sync)
        with pytest.raises(DataError, match=r"No space left.*run again.*kept"):
            make("vctk", tmp_path / "in", tmp_path / "data")
    assert [path.name for path in (tmp_path / "data").iterdir()] == [".vctk.partial"]
    lines: list[str] = []
    store = make("vctk", tmp_path / "in", tmp_path / "data", on_log=lines.append)
    assert "4 clips in" in lines[0]
    assert (f"{finished} of them finished before" in lines[0]) == (0 < finished < 4)
    assert len(store.items) == 4
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["vctk"]


KILLED = """
import sys, time
from xfavot.data import prepare, store
store.COMMIT_SECONDS = 0.0
append = store.Draft.append
def slowly(*arguments):
    append(*arguments)
    print("saved", flush=True)
    time.sleep(0.2)
store.Draft.append = slowly
prepare.prepare("vctk", source=sys.argv[1], data_root=sys.argv[2], workers=1, seed=0)
"""


def test_killed_and_resumed_equals_uninterrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_vctk(tmp_path / "in", speakers=2, clips=4)
    whole = make("vctk", source, tmp_path / "whole")
    command = [sys.executable, "-c", KILLED, str(source), str(tmp_path / "killed")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        for _ in range(3):
            assert process.stdout.readline() == b"saved\n"
        process.send_signal(signal.SIGKILL)
        # the worker holds the pipe open: its end comes when that is gone, too
        assert process.communicate(timeout=60)[0] in (b"", b"saved\n")
    journal = (tmp_path / "killed" / ".vctk.partial" / "journal.jsonl").read_text()
    before = journal.count("\n")
    assert 3 <= before < 8
    assert not (tmp_path / "killed" / "vctk").exists()
    worked: list[str] = []
    lines: list[str] = []
    process_clip = prepare.process
    monkeypatch.setattr(
        prepare, "process", lambda *given: worked.append(given[0].id) or process_clip(*given)
    )
    store = make("vctk", source, tmp_path / "killed", on_log=lines.append)
    assert len(worked) == 8 - before
    assert f"{before} of them finished before" in lines[0]
    assert store.manifest_hash == whole.manifest_hash
    for name in ("audio", "mel", "f0"):
        np.testing.assert_array_equal(getattr(store, name), getattr(whole, name))


def test_a_resumed_run_takes_over_what_has_not_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wavs = write_vctk(tmp_path / "in", clips=2) / "vctk" / "wav48"
    save_waveform(wavs / "p225" / "p225_000.wav", np.zeros(24000, np.float32))
    load, worked = prepare.load_waveform, list[str]()

    def odd(path: Path) -> Any:
        worked.append(path.stem)
        if path.stem == "p225_001" and len(worked) < 5:
            raise ZeroDivisionError("perhaps no fault of the file")
        return load(path)

    def full(*arguments: Any, **keywords: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(prepare, "load_waveform", odd)
    with monkeypatch.context() as patch:
        patch.setattr(Draft, "publish", full)
        with pytest.raises(DataError, match="No space left"):
            make("vctk", tmp_path / "in", tmp_path)
        assert worked == ["p225_000", "p225_001", "p226_000", "p226_001"]
        with pytest.raises(DataError, match="No space left"):
            make("vctk", tmp_path / "in", tmp_path)
        assert worked[4:] == ["p225_001"]  # a silent file stays silent; this may get well
        os.utime(wavs / "p226" / "p226_000.wav", (1, 1))
        with pytest.raises(DataError, match="No space left"):
            make("vctk", tmp_path / "in", tmp_path)
        assert worked[5:] == ["p225_001", "p226_000", "p226_001"]  # all from the changed one on
    store = make("vctk", tmp_path / "in", tmp_path)
    assert len(worked) == 8
    assert [item.id[5:] for item in store.items] == ["p225_001", "p226_000", "p226_001"]
    assert quarantine(store) == {"wav48/p225/p225_000.wav": "silent"}
    for item in store.items:
        wave = load(store.path.parent / "in" / "vctk" / item.source)
        np.testing.assert_allclose(store.waveform(item), wave, atol=1e-4)


def test_a_clip_that_kills_its_process_costs_itself_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / f"{name}.wav" for name in ("a", "killer", "b")]
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
        "    c.load_waveform = lambda p: os._exit(9) if p.stem == 'killer' else load(p)\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(plant), str(ROOT)]))
    clips = [Clip(id=path.stem, kind="audio", audio=path) for path in paths]
    done = list(process_all(clips, Settings(), workers=1))
    assert [clip.id for clip, _ in done] == ["a", "killer", "b"]
    reasons = [outcome.reason if isinstance(outcome, Reject) else "" for _, outcome in done]
    assert reasons == ["", "decoder died", ""]


def test_an_interrupted_run_leaves_a_store_record_only_when_whole(tmp_path: Path) -> None:
    store = make("vctk", write_vctk(tmp_path / "in", clips=2), tmp_path)
    record = store.path / "prepare.json"
    found = json.loads(record.read_text(encoding="utf-8"))
    assert found["fingerprint"]
    record.write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match=r"prepare\.json is missing or damaged"):
        make("vctk", tmp_path / "in", tmp_path)
