"""Originals become a store: splits, order, resuming, mixtures, pitch, and what is said of it."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

pytest.importorskip("pyworld")  # of the extra "data"
pytest.importorskip("matplotlib")


from tests.conftest import Patch, refuses
from tests.unit.store_factory import encoded, face, make_store, tone
from tools import cards
from xfavot.audio import f0 as f0_module
from xfavot.audio.f0 import world_f0
from xfavot.audio.io import save_waveform
from xfavot.audio.mel import MEL
from xfavot.data import prepare as prepare_module
from xfavot.data import report
from xfavot.data.prepare import assign_splits, content_sha256, prepare_dataset
from xfavot.data.readers import NOT_NEEDED, NOTED, Clip
from xfavot.data.readers.layouts import READERS
from xfavot.data.report import card, preview, summary
from xfavot.data.store import Store
from xfavot.errors import DataError
from xfavot.files import write_whole
from xfavot.image.io import save_image
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
    wanted = prepare_module.asked_for(corpus, 0) | more
    plan = prepare_module.scan(corpus, source, 0)
    return prepare_module.prepare(plan, wanted, root, workers, on_log or (lambda line: None))


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
    monkeypatch.setattr(prepare_module, "process", None)  # no work may be done
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
    monkeypatch.setattr(prepare_module, "detect", lambda images: [LANDMARKS] * len(images))
    store = make("grid", tmp_path, tmp_path / "data")
    (item,) = store.items
    assert (item.face_count, item.transcript) == (4, "bin blue at f two now")
    assert item.sample_count == pytest.approx(3 * 24000, rel=0.03)
    eyes = store.landmarks[:, :2].mean(axis=(0, 1)) / 128
    np.testing.assert_allclose(eyes, [0.5, 0.472], atol=0.01)
    reds = [float(store.face(item, i)[..., 0].mean()) for i in range(4)]
    assert np.all(np.diff(reds) > 5)  # frames spread over the film, which grows redder
    answers = iter([None, None, LANDMARKS, LANDMARKS, None])  # a bad frame costs that frame
    monkeypatch.setattr(prepare_module, "detect", lambda images: [next(answers)])
    assert make("grid", tmp_path, tmp_path / "again").items[0].face_count == 2


def test_a_mixture_is_a_list_of_stores(tmp_path: Path, monkeypatch: Patch) -> None:
    write_celeba(write_vctk(tmp_path / "in", clips=2))
    lines, scans = list[str](), list[str]()
    scan = prepare_module.scan
    monkeypatch.setattr(prepare_module, "scan", lambda *a: scans.append(a[0]) or scan(*a))
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
    store = again()
    factors = json.loads((store.path / "factors.json").read_text(encoding="utf-8"))
    ages = {name: who["age"] for name, who in factors["people"].items()}
    assert ages == {"mini/s01": 0.5, "mini/s09": 0.5}
    assert factors["faces"] == [{"yaw": 3.0}, {}]
    (tmp_path / "originals").rename(tmp_path / "away")  # a finished store does not need them
    assert again().items == store.items
    (tmp_path / "away").rename(tmp_path / "originals")
    assert sorted(calls) == ["s01", "s09"]
    for other, message in (
        ({"seed": 6}, "seed is 5, now 6"),
        ({"speakers": 3}, "speakers is 2, now 3"),
        ({"voices": "espeak"}, r"speech is 'kokoro \w+', now 'espeak'"),
    ):
        refuses(DataError, message, again, **other)
    for module in (prepare_module, generate):  # a generator that draws otherwise
        monkeypatch.setattr(module, "SCHEMA", SCHEMA + 1)
    refuses(DataError, f"generator is {SCHEMA}, now {SCHEMA + 1}", again)
    shutil.rmtree(store.path)
    refuses(DataError, f"'schema': {SCHEMA}, .* expected .'schema': {SCHEMA + 1}", again)


def test_progress_tells_the_time_left(vctk: Path, tmp_path: Path, monkeypatch: Patch) -> None:
    ticks = iter([0.0, 60.0, 70.0, 80.0, 90.0, 100.0, 110.0])  # the first takes a minute to start
    monkeypatch.setattr(prepare_module.time, "monotonic", lambda: next(ticks))
    monkeypatch.setattr(prepare_module, "process", lambda *_: {"reject": ["silent", ""]})
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


ROOT = Path(__file__).resolve().parents[2]


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
