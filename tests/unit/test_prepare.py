"""Originals become a store: splits, order, resuming, mixtures, pitch, and what is said of it."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import yaml

pytest.importorskip("pyworld")  # of the extra "data"
pytest.importorskip("matplotlib")

import soundfile

from tests.conftest import FULL_DISK, ROOT, Patch, refuses
from tests.unit.store_factory import encoded, face, make_store, tone
from tools import cards
from xfavot.audio import f0 as f0_module
from xfavot.audio.f0 import world_f0
from xfavot.audio.io import load_waveform, save_waveform
from xfavot.audio.mel import MEL
from xfavot.data import prepare, report
from xfavot.data.prepare import assign_splits, content_sha256, prepare_dataset, process, process_all
from xfavot.data.readers import NOT_NEEDED, NOTED, Clip
from xfavot.data.readers.layouts import READERS
from xfavot.data.report import card, preview, summary
from xfavot.data.store import Store, subset
from xfavot.errors import DataError
from xfavot.files import write_whole
from xfavot.image.io import load_frames, load_image, save_image
from xfavot.mini.people import SCHEMA
from xfavot.parameters import Prepare

LANDMARKS = np.array([[70, 80], [100, 80], [85, 95], [73, 110], [97, 110]], np.float32)


def write_vctk(root: Path, *, speakers: int = 2, clips: int = 3, seconds: float = 0.6) -> Path:
    """Write originals in VCTK's layout; women and men in turn, every clip of another pitch."""
    rng = np.random.default_rng(0)
    lines = ["ID AGE GENDER"]
    for s in range(speakers):
        name = f"p{225 + s}"
        lines.append(f"{name} 20 {'FM'[s % 2]}")
        (root / "vctk" / "txt" / name).mkdir(parents=True, exist_ok=True)
        for k in range(clips):
            wave = tone((210.0, 110.0)[s % 2] + 5 * k, seconds, rng)
            save_waveform(root / "vctk" / "wav48" / name / f"{name}_{k:03d}.wav", wave)
            text = root / "vctk" / "txt" / name / f"{name}_{k:03d}.txt"
            text.write_text(f"sentence {k}\n", encoding="utf-8")
    (root / "vctk" / "speaker-info.txt").write_text("\n".join(lines), encoding="utf-8")
    return root


def write_celeba(root: Path) -> Path:
    """Write originals in StarGAN v2's tree, eight faces."""
    for n, split in enumerate(("train", "val")):
        for m, gender in enumerate(("female", "male")):
            for i in range(2):
                path = root / "celeba_hq" / split / gender / f"{i}.png"
                save_image(path, face((9 * (2 * n + m), 9 * i, 7), 160))
    return root


def write_film(path: Path, *, seconds: float = 3.0, sound: bool = True) -> Path:
    """Write an MPEG film as GRID's, 25 frames a second, with a tone of 200 Hz."""
    pictures = [face((2 * n, 90, 120), 176)[:144] for n in range(round(25 * seconds))]
    wave = tone(200.0, seconds, np.random.default_rng(0))
    film = encoded("mpeg", "mp2" if sound else "", wave, pictures=pictures, video="mpeg1video")
    write_whole(path, film)
    return path


def quarantine(store: Store) -> dict[str, str]:
    """Reason by name of the file."""
    with (store.path / "quarantine.csv").open(encoding="utf-8", newline="") as file:
        return {row["source"].rsplit("/")[-1]: row["reason"] for row in csv.DictReader(file)}


def make(
    corpus: str, source: Path, root: Path, on_log: Any = None, workers: int = 0, **more: Any
) -> Store:
    wanted = prepare.asked_for(corpus, 0) | more
    plan = prepare.scan(corpus, source, 0)
    return prepare.prepare(plan, wanted, root, workers, on_log or (lambda line: None))


@pytest.fixture(scope="module")
def vctk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_vctk(tmp_path_factory.mktemp("originals"))


@pytest.fixture(scope="module")
def prepared(vctk: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make("vctk", vctk, tmp_path_factory.mktemp("prepared"))


def test_a_store_of_voices(prepared: Store, vctk: Path) -> None:
    names = [f"p{s}/p{s}_{k:03d}" for s in (225, 226) for k in range(3)]
    assert [item.id for item in prepared.items] == names
    item = prepared.items[3]
    assert (item.speaker, item.gender, item.kind) == ("vctk/p226", "m", "audio")
    assert (item.transcript, item.source) == ("sentence 0", "wav48/p226/p226_000.wav")
    assert item.sha256 == content_sha256(Clip("a", "audio", audio=vctk / "vctk" / item.source))
    assert prepared.waveform(item).shape == (14400,)
    assert prepared.log_mel(item).shape == (80, 49)
    f0 = prepared.f0_hz(item)
    assert np.median(f0[f0 > 0]) == pytest.approx(110.0, rel=0.02)
    assert [path.name for path in prepared.path.parent.iterdir()] == ["vctk"]
    record = json.loads((prepared.path / "prepare.json").read_text(encoding="utf-8"))
    assert (record["clips"], record["seed"], record["source"]) == (6, 0, str(vctk / "vctk"))


def test_a_finished_store_is_opened(prepared: Store, vctk: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(prepare, "process", None)  # no work may be done
    lines: list[str] = []
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pyworld", None)
        match, other = r"pyworld.*xfavot\[data\]", prepared.path.parent / "other"
        refuses(DataError, match, make, "vctk", vctk, other)
    before = (prepared.path / "manifest.csv").stat().st_mtime_ns
    again = make("vctk", vctk, prepared.path.parent, on_log=lines.append)
    assert again.manifest_hash == prepared.manifest_hash
    assert (prepared.path / "manifest.csv").stat().st_mtime_ns == before
    assert "nothing to do" in lines[-1]


def test_held_out_speakers_are_unseen(tmp_path: Path) -> None:
    store = make("vctk", write_vctk(tmp_path / "in", clips=2), tmp_path, held_out=["p225"])
    splits = {(item.speaker[5:], item.split) for item in store.items}
    assert splits == {("p225", "unseen"), ("p226", "train"), ("p226", "val")}
    lines = summary([store]).splitlines()
    assert "  beside the paper: speakers 2 (109), unseen 1 (30)" in lines
    assert any(line.startswith("  held-out speakers not present: p228, p231, ") for line in lines)


def test_a_store_of_some_speakers_of_another(tmp_path: Path) -> None:
    whole = make_store(tmp_path / "all", corpus="toy", genders="fm", clips=2)
    name = whole.items[-1].speaker
    for _ in range(2):  # made, then opened
        few = subset(whole, tmp_path / "few" / "toy", [name])
        assert {item.speaker for item in few.items} == {name}
        kept = [item for item in whole.items if item.speaker == name]
        for one, old in zip(few.items, kept, strict=True):
            assert (one.id, one.split, one.sha256) == (old.id, old.split, old.sha256)
            np.testing.assert_array_equal(few.face(one), whole.face(old))
            np.testing.assert_array_equal(few.waveform(one), whole.waveform(old))
            np.testing.assert_array_equal(few.f0_hz(one), whole.f0_hz(old))
    refuses(DataError, "has no speakers", subset, whole, tmp_path / "few" / "toy", ["typo"])
    others = [item.speaker for item in whole.items]
    refuses(DataError, "holds other speakers", subset, whole, few.path, others)


def test_splits_keep_groups_and_what_a_corpus_prescribes() -> None:
    def splits(names: Iterable[str], group: bool = False, **more: str) -> dict[str, str]:
        made = [
            Clip(n, "image", extra={"group": n[0]} if group else {}, split=more.get(n, ""))
            for n in names
        ]
        return assign_splits(made, seed=3, held_out=[])

    grouped = splits([f"{g}/{i}" for g in "abcdefghij" for i in range(5)], group=True)
    for g in "abcdefghij":
        assert len({grouped[f"{g}/{i}"] for i in range(5)}) == 1
    assert set(grouped.values()) == {"train", "val"}
    assert splits("x") == {"x": "train"}
    assert splits("xyz", x="val", y="train")["x"] == "val"
    many = splits(map(str, range(3000)))
    assert list(many.values()).count("val") == pytest.approx(300, abs=60)


def test_a_film_gives_frames_sound_and_landmarks(tmp_path: Path, monkeypatch: Patch) -> None:
    write_film(tmp_path / "grid" / "s1" / "bbaf2n.mpg")
    monkeypatch.setattr(prepare, "detect", lambda images: [LANDMARKS] * len(images))
    store = make("grid", tmp_path, tmp_path / "data")
    (item,) = store.items
    assert (item.face_count, item.transcript) == (4, "bin blue at f two now")
    assert item.sample_count == pytest.approx(3 * 24000, rel=0.03)
    eyes = store.landmarks[:, :2].mean(axis=(0, 1)) / 128
    np.testing.assert_allclose(eyes, [0.5, 0.472], atol=0.01)
    reds = [float(store.face(item, i)[..., 0].mean()) for i in range(4)]
    assert np.all(np.diff(reds) > 5)  # frames spread over the film, which grows redder
    answers = iter([None, None, LANDMARKS, LANDMARKS, None])  # a bad frame costs that frame
    monkeypatch.setattr(prepare, "detect", lambda images: [next(answers)])
    assert make("grid", tmp_path, tmp_path / "again").items[0].face_count == 2


def test_a_mixture_is_a_list_of_stores(tmp_path: Path, monkeypatch: Patch) -> None:
    write_celeba(write_vctk(tmp_path / "in", clips=2))
    lines, scans = list[str](), list[str]()
    scan = prepare.scan
    monkeypatch.setattr(prepare, "scan", lambda *a: scans.append(a[0]) or scan(*a))
    given = {"source": str(tmp_path / "in"), "data_root": str(tmp_path)}
    stores = prepare_dataset(Prepare(dataset="paper", **given), lines.append, workers=0)
    assert scans == ["grid", "lip2wav", "lrs3", "celeba_hq", "vctk"]  # once each
    assert [store.corpus for store in stores] == ["celeba_hq", "vctk"]
    faces = stores[0]
    assert [item.split for item in faces.items] == ["train"] * 4 + ["val"] * 4
    assert faces.faces.shape == (8, 128, 128, 3)
    assert np.isnan(faces.landmarks).all()
    missing = [line for line in lines if line.startswith("MISSING from paper: ")]
    assert [line.split(": ")[1] for line in missing] == ["grid", "lip2wav", "lrs3"]
    assert "zenodo.org" in missing[0]
    text, html = summary(stores), preview(stores)
    assert "celeba_hq: 8 accepted, 0 rejected" in text
    assert "speakers: 1 women, 1 men" in text
    assert (html.count("<img"), html.count("<audio")) == (8, 3)
    match = r"nothing to prepare[\s\S]*lrs3[\s\S]*robots\.ox"
    absent = Prepare(dataset="lrs3_lip2wav", **given)
    refuses(DataError, match, prepare_dataset, absent, workers=0)


def test_mini_makes_its_own_originals_once(tmp_path: Path, monkeypatch: Patch) -> None:
    generate = pytest.importorskip("xfavot.mini.generate")
    calls: list[Any] = []

    def small(folder: Path, job: dict[str, Any]) -> dict[str, Any]:
        name = f"s{job['number'] + 1:02d}"
        calls.append(name)
        save_waveform(folder / name / "bbaf2n.wav", tone(150.0, 0.6, np.random.default_rng(0)))
        save_image(folder / name / "bbaf2n_0.png", face((9, 9, 9), 128))
        hidden = {"speaker": name, "gender": "f" if name == "s01" else "m", "age": 0.5}
        faces = {"bbaf2n_0": {"yaw": 3.0}} if name == "s01" else {}
        return {"hidden": hidden, "voice": {}, "faces": faces}

    def again(**changes: Any) -> Store:
        given = {"data_root": str(tmp_path), "seed": 5, "speakers": 2} | changes
        return prepare_dataset(Prepare(**given), workers=0)[0]

    monkeypatch.setattr(generate, "_in_own_process", small)
    monkeypatch.setattr(generate, "_unpack", lambda *_: None)
    monkeypatch.setattr(generate.fetched, "path", lambda name: None)  # nobody speaks
    store = again()
    factors = json.loads((store.path / "factors.json").read_text(encoding="utf-8"))
    ages = {name: who["age"] for name, who in factors["people"].items()}
    assert ages == {"mini/s01": 0.5, "mini/s09": 0.5}
    assert factors["faces"] == [{"yaw": 3.0}, {}]
    (tmp_path / "originals").rename(tmp_path / "away")  # a finished store does not need them
    assert [*again().items] == [*store.items]
    (tmp_path / "away").rename(tmp_path / "originals")
    assert sorted(calls) == ["s01", "s09"]
    for other, message in (
        ({"seed": 6, "speakers": 3}, "seed is 5, now 6; speakers is 2, now 3"),
        ({"utterances": 8}, "utterances is 24, now 8"),
        ({"twins": 2}, "twins is 0, now 2"),
        ({"voices": "espeak"}, r"speech is 'kokoro \w+', now 'espeak'"),
    ):
        refuses(DataError, message, again, **other)
    for module in (prepare, generate):  # a generator that draws otherwise
        monkeypatch.setattr(module, "SCHEMA", SCHEMA + 1)
    refuses(DataError, f"generator is {SCHEMA}, now {SCHEMA + 1}", again)
    shutil.rmtree(store.path)
    refuses(DataError, f"'schema': {SCHEMA}, .* expected .'schema': {SCHEMA + 1}", again)


def test_progress_tells_the_time_left(vctk: Path, tmp_path: Path, monkeypatch: Patch) -> None:
    ticks = iter([0.0, 60.0, 70.0, 80.0, 90.0, 100.0, 110.0])  # the first takes a minute to start
    monkeypatch.setattr(prepare.time, "monotonic", lambda: next(ticks))
    monkeypatch.setattr(prepare, "process", lambda *_: {"reject": ["silent", ""]})
    lines: list[str] = []
    refuses(DataError, "6 silent", make, "vctk", vctk, tmp_path, on_log=lines.append)
    left = {2: "0:00:40", 4: "0:00:20", 6: "0:00:00"}
    assert lines[1:] == [f"vctk: {n} of 6 clips, {t} left, {n} rejected" for n, t in left.items()]


def test_the_digest_of_a_clip_covers_all_its_files(tmp_path: Path) -> None:
    def digest(*texts: str) -> str:
        return hashlib.sha256("".join(texts).encode()).hexdigest()

    paths = [tmp_path / name for name in ("voice.wav", "one.png", "two.png")]
    for path in paths:
        path.write_bytes(path.name.encode())
    clip = Clip("a", "av", audio=paths[0], images=tuple(paths[1:]))
    assert content_sha256(clip) == digest(*(f"{digest(path.name)}\n" for path in paths))
    paths[2].unlink()  # one bad picture does not cost the clip
    assert content_sha256(clip) == digest(*(f"{digest(path.name)}\n" for path in paths[:2]), "\n")
    paths[0].unlink()
    refuses(OSError, r"voice\.wav", content_sha256, clip)


@pytest.mark.parametrize("samples", [12000, 12299, 12300, 24007])
def test_pitch_lies_on_the_frames_of_the_mel(samples: int) -> None:
    f0 = world_f0(tone(180.0, 1.2, np.random.default_rng(0))[:samples])
    assert f0.shape == (samples // MEL.hop + 1,)
    assert np.median(f0[f0 > 0]) == pytest.approx(180.0, rel=0.01)
    assert world_f0(np.zeros(samples, np.float32)).max() == 0.0


def test_pitch_of_a_long_voice_is_that_of_the_whole(monkeypatch: Patch) -> None:
    rng = np.random.default_rng(0)
    wave = np.concatenate([np.pad(tone(hz, 0.5, rng), (0, 6000)) for hz in (110.0, 190.0, 240.0)])
    whole = world_f0(wave)
    monkeypatch.setattr(f0_module, "WHOLE_FRAMES", 80)
    monkeypatch.setattr(f0_module, "BLOCK_FRAMES", 80)
    block, sizes = f0_module._block, list[int]()
    monkeypatch.setattr(f0_module, "_block", lambda x, n: sizes.append(n) or block(x, n))
    blocks = world_f0(wave)
    assert sizes == [62 + 32, 62 + 64, 57 + 32]  # three even blocks with their overlaps
    assert np.mean((whole > 0) == (blocks > 0)) > 0.99
    voiced = (whole > 0) & (blocks > 0)
    assert voiced.mean() > 0.5
    assert np.mean(np.abs(blocks[voiced] / whole[voiced] - 1) < 0.01) > 0.98


def test_real_clips_of_every_corpus(real_corpus: Path, tmp_path: Path) -> None:
    pytest.importorskip("facenet_pytorch")
    parts = {"grid": "s5/video", "voxceleb": "Brett_Davern", "lrs3": "trainval/01GWGmg5jn8"}
    for corpus, part in parts.items():
        folder = tmp_path / "in" / corpus
        (folder / part).parent.mkdir(parents=True)
        for name in (part, "speakers.csv"):
            (folder / name).symlink_to(real_corpus / corpus / name)
        store = make(corpus, tmp_path / "in", tmp_path / "data")
        assert {item.kind for item in store.items} == {"av"}
        assert {item.gender for item in store.items} <= {"f", "m"}


def page_of(store: Store, rows: Sequence[tuple[object, ...]] = (), files: bool = True) -> str:
    head = ("source", "reason", "detail", "files")
    with (store.path / "quarantine.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([head[: 3 + files], *rows])
    report.write_report(store)
    return (store.path / "report.html").read_text(encoding="utf-8")


def test_whatever_was_not_used_is_counted_by_files_with_its_reason(tmp_path: Path) -> None:
    store = make_store(tmp_path, corpus="grid", genders="f", clips=1, seconds=0.5)
    rows: list[tuple[object, ...]]
    rows = [(f"a/<b>{i}.wav", "silent", "peak & all", 1) for i in range(25)]
    rows += [("b.wav", "truncated", "short", 1), ("c", NOT_NEEDED, "second microphone", 1700)]
    rows += [("d.wav", NOTED, "a gap of 3 s", 1)]
    page = page_of(store, rows)
    assert "<b>26</b>files rejected" in page
    assert "<b>1,700</b>files not needed" in page
    assert "<td>a/&lt;b&gt;19.wav</td><td>peak &amp; all</td><td>1</td>" in page
    assert "5 more in quarantine.csv" in page
    assert set(re.findall(r'(?:href|src)="(\w+:|#|//)', page)) <= {"data:", "#"}  # asks nobody
    assert not re.search("<script|<link|a/&lt;b&gt;20", page)
    text = "1 accepted, 26 rejected (25 silent, 1 truncated); 1700 not needed; 1 used, with a note"
    assert text in summary([store])
    old = [row[:3] for row in rows]  # of a store whose quarantine counts no files
    assert "<b>26</b>files rejected" in page_of(store, old, files=False)


def test_a_page_that_cannot_be_written_and_a_preview(tmp_path: Path, monkeypatch: Patch) -> None:
    store = make_store(tmp_path, genders="fm" * 3, clips=1, faces=1, seconds=0.1, image_size=32)
    (store.path / "report.html").mkdir()
    match = r"report\.html cannot be written.*store itself is whole"
    refuses(DataError, match, report.write_report, store)
    monkeypatch.setattr(report, "PREVIEW_FACES", 4)
    assert re.search(r"4 of\s+6 faces", preview([store]))


def test_the_committed_cards_are_complete_and_those_of_the_descriptions() -> None:
    committed = (ROOT / "DATASETS.md").read_text(encoding="utf-8")
    assert committed == cards.datasets(), "run make cards"
    for corpus in READERS:
        for heading in ("Content", "Licence", "How to get it", "Consent", "Bias and limits"):
            body = card(corpus).split(f"**{heading}.** ")[1].split("\n")[0]
            assert len(body) > 8, (corpus, heading)


def test_the_card_of_a_store_counts_what_is_in_it(tmp_path: Path) -> None:
    store = make_store(tmp_path, corpus="grid", genders="ffm", clips=3, faces=2, seconds=2.0)
    page_of(store, [("a.mpg", "silent", "", 1), ("b", NOT_NEEDED, "", 40), ("c", NOTED, "", 1)])
    text = (store.path / "CARD.md").read_text(encoding="utf-8")
    head = yaml.safe_load(text.split("---")[1])
    assert (head["tags"], head["size_items"]) == (["face", "voice"], 9)
    assert head["license_name"].startswith("CC BY 4.0")
    assert "| face and voice, female | 2 | 4 | 2 | 0 |" in text  # speakers, train, val, unseen
    assert "| speakers | 33 | 3 |" in text  # the paper's beside ours
    assert "in 9 clips, median 2.00 s; 9 with a transcript" in text
    assert text.endswith("| --- | --- |\n| silent | 1 |\n| not needed | 40 |\n")


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
    refused("settings is", settings={**prepare.SETTINGS, "faces_per_clip": 1})
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
        patch.setattr(os, "fsync", Mock(side_effect=chain([None] * finished, repeat(FULL_DISK))))
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
            patch.setattr(prepare, "write_store", Mock(side_effect=FULL_DISK))
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


def test_a_film_without_pictures_or_frames(tmp_path: Path) -> None:
    path = tmp_path / "clips" / "Anna" / "a.mkv"
    path.parent.mkdir(parents=True)
    film = encoded("matroska", "flac", VOICE, pictures=[np.zeros((64, 96, 3), np.uint8)])
    path.write_bytes(film.replace(b"\0\0\1\0", bytes(4)))  # no start of a picture
    refuses(DataError, "no picture that decodes", load_frames, path, 4)
    prepared = partial(make, "clips", tmp_path, tmp_path / "data")
    refuses(DataError, r"1 picture unreadable.*no picture", prepared)
    path.write_bytes(encoded("matroska", "flac", VOICE))
    refuses(DataError, "no picture track", load_frames, path, 4)
    assert prepared().items[0].kind == "audio"
