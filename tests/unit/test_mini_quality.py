"""Quality of the corpus `mini`: measures by hand, factors found where they were put, the sheet."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pandas")

from tests.unit.store_factory import make_store
from tests.unit.test_mini import FRONTAL
from tools import mini_quality
from tools.mini_quality import FACE, VOICE, face, formant_shift, voice
from xfavot.data.store import Item, Store
from xfavot.errors import DataError
from xfavot.mini.people import people

SAID = (
    "bin blue at f two now",
    "lay red by a zero soon",
    "set green in b one again",
    "place white with c nine please",
)


def store_of(tmp_path: Path, *, genders: str = "ffmm", clips: int = 3) -> Store:
    """A store whose clips say different sentences."""
    store = make_store(tmp_path, corpus="mini", genders=genders, clips=clips, seconds=1.5)
    items = tuple(
        dataclasses.replace(item, transcript=SAID[number % len(SAID)])
        for number, item in enumerate(store.items)
    )
    return dataclasses.replace(store, items=items)


def test_word_error_is_counted_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("jiwer")
    store = store_of(tmp_path, clips=5)  # 20 clips, 120 words

    def hear(_store: Store, items: list[Item]) -> list[str]:
        heard = [item.transcript for item in items]
        heard[0] = "bin blue at s two now"  # one letter
        heard[1] = "lay red by a"  # two words lost
        heard[2] = ""  # nothing heard: six words lost
        return heard

    monkeypatch.setattr(mini_quality, "_hear", hear)
    measured = mini_quality.recognition(store)
    assert measured["word error"] == pytest.approx((1 + 2 + 6) / 120)
    assert measured["nothing heard"] == pytest.approx(1 / 20)
    assert measured["chance"] > 0.5


def test_a_tone_is_no_sentence(tmp_path: Path) -> None:
    """The recogniser itself, on clips in which nothing is said."""
    pytest.importorskip("pocketsphinx")
    pytest.importorskip("jiwer")
    assert mini_quality.recognition(store_of(tmp_path, clips=1))["word error"] > 0.6


def test_verification_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    radians = np.radians([0, 10, 16, 30, 90, 100, 180, 190])  # two clips of each of four speakers
    embeddings = np.column_stack([np.cos(radians), np.sin(radians)])
    monkeypatch.setattr(mini_quality, "_embed", lambda _store, _items: embeddings)
    measured = mini_quality.verification(store_of(tmp_path, clips=2))
    # one pair of two women, 6 degrees apart, is nearer than the pairs of one woman (10 and 14)
    assert measured["AUC, pairs of one sex"] == pytest.approx(7 / 8)
    assert measured["AUC, all pairs"] == pytest.approx(23 / 24)


def test_voice_measures_what_is_in_the_sound(tmp_path: Path) -> None:
    store = make_store(tmp_path, genders="fm", clips=1, seconds=2.0)
    made = [dict(zip(VOICE, voice(store, item), strict=True)) for item in store.items]
    assert made[0]["pitch"] == pytest.approx(np.log2(210.0))
    assert made[1]["pitch"] == pytest.approx(np.log2(115.0 * 1.03))
    assert made[0]["melody"] == pytest.approx(0.0, abs=1e-3)
    assert made[0]["rate"] == pytest.approx(6 / 2.0, rel=0.05)
    trembling = 200 * 2 ** (0.05 * np.sin(2 * np.pi * 5.2 * np.arange(len(store.f0)) / 80))
    shaken = dataclasses.replace(store, f0=trembling.astype(np.float32))
    assert dict(zip(VOICE, voice(shaken, store.items[0]), strict=True))["tremor"] > -0.3
    assert made[0]["tremor"] < -0.9
    silent = dataclasses.replace(store, f0=np.zeros(len(store.f0), np.float32))
    assert np.isnan(voice(silent, store.items[0])).all()


def test_formants_are_found_where_they_were_moved() -> None:
    octaves = np.log2(mini_quality.band_hz())
    moved = np.array([0.0, 0.1, -0.1, 0.0])
    peaks = np.log2([[600], [1500], [2600], [3600]])
    spectra = [np.exp(-0.5 * ((octaves - peaks - m) / 0.12) ** 2).sum(axis=0) for m in moved]
    shift = formant_shift(np.stack(spectra))
    assert np.allclose(shift - shift[0], moved, atol=0.05)


@pytest.mark.parametrize(
    ("measure", "low", "high", "by"),
    [
        ("shoulder width", {"size": 0.0}, {"size": 1.0}, 0.2),
        ("forehead lines", {"age": 0.1}, {"age": 0.95}, 0.5),
        ("folds at the mouth", {"liveliness": 0.0}, {"liveliness": 1.0}, 0.2),
        ("clothes colour", {"clothes": (90, 92, 94)}, {"clothes": (206, 62, 58)}, 0.4),
        ("mouth opening", {"mouth": 0.0}, {"mouth": 1.0}, 0.1),
        ("nostrils aside", {"yaw": -1.0}, {"yaw": 1.0}, 0.2),
        ("nostrils down", {"pitch": 1.0}, {"pitch": -1.0}, 0.05),
        ("side light", {"light": -60.0}, {"light": 60.0}, 0.2),
        ("background", {"tone": 0.0}, {"tone": 1.0}, 0.2),
        ("gaze", {"gaze_x": -1.0}, {"gaze_x": 1.0}, 0.05),
    ],
)
def test_faces_show_what_was_drawn(
    measure: str, low: dict[str, Any], high: dict[str, Any], by: float
) -> None:
    pytest.importorskip("PIL")
    from xfavot.mini.draw import draw_face

    who = dataclasses.replace(people(16, seed=0)[9], beard="")  # bald, clean forehead
    still = dataclasses.replace(FRONTAL, light=0.0)
    found = []
    for change in (low, high):
        poses = {f.name for f in dataclasses.fields(still)}
        of_pose = {name: value for name, value in change.items() if name in poses}
        of_person = {name: value for name, value in change.items() if name not in poses}
        drawn = draw_face(
            dataclasses.replace(who, **of_person), dataclasses.replace(still, **of_pose)
        )
        found.append(dict(zip(FACE, face(*drawn), strict=True))[measure])
    assert found[1] - found[0] > by


def known_store(tmp_path: Path, count: int) -> Store:
    """A store with a `factors.json` in which the factors of face and voice are random."""
    store = store_of(tmp_path, genders="fm" * (count // 2), clips=2)
    draw = np.random.default_rng(0)
    genders = {item.speaker: item.gender for item in store.items}
    hidden = {
        name: {"gender": genders[name]}
        | dict(zip(("age", "size", "liveliness"), draw.uniform(size=3).tolist(), strict=True))
        for name in sorted(genders)
    }
    faces = [{name: float(draw.uniform()) for name in mini_quality.NUISANCE} for _ in store.faces]
    (store.path / "factors.json").write_text(json.dumps({"people": hidden, "faces": faces}))
    return store


@pytest.mark.filterwarnings("ignore:Objective did not converge")  # the toy data are too exact
def test_factor_table_finds_what_was_put_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.setattr(mini_quality, "NUISANCE", ("tone",))
    monkeypatch.setattr(mini_quality, "HIDDEN", ("sex", "age", "size"))
    monkeypatch.setattr(mini_quality, "BOOTSTRAPS", 30)
    monkeypatch.setattr(mini_quality, "FOLDS", 4)
    store = known_store(tmp_path, 26)
    known = json.loads((store.path / "factors.json").read_text())
    draw = np.random.default_rng(1)

    def sound(_store: Store, item: Item) -> np.ndarray:
        who, noise = known["people"][item.speaker], draw.normal(size=len(VOICE)) * 0.03
        noise[0] -= who["size"] + 2 * (item.gender == "m")  # pitch
        return noise

    rows = iter(range(len(store.faces)))
    owner = [item.speaker for item in store.items for _ in range(item.face_count)]

    def sight(_pixels: np.ndarray, _marks: np.ndarray) -> np.ndarray:
        row = next(rows)
        who, noise = known["people"][owner[row]], draw.normal(size=len(FACE)) * 0.03
        noise[FACE.index("shoulder width")] += who["size"]
        noise[FACE.index("forehead lines")] += who["age"]
        noise[FACE.index("background")] += known["faces"][row]["tone"]
        return noise

    monkeypatch.setattr(mini_quality, "voice", sound)
    monkeypatch.setattr(mini_quality, "face", sight)
    read = mini_quality.factor_table(store)
    assert list(read.index) == ["sex", "age", "size", "tone"]
    assert read.voice["sex"] > 0.95
    assert read.face["sex"] < 0.8
    assert min(read.voice["size"], read.face["size"]) > 0.8
    assert read.face_low["size"] < read.face["size"] < read.face_high["size"]
    assert read.face["age"] > 0.8 > 0.3 > read.voice["age"]
    assert read.face["tone"] > 0.8 > 0.3 > read.voice["tone"]
    assert read.n["tone"] == len(store.faces)
    assert read["shows in the voice"]["sex"].startswith("pitch -1.00")
    assert read["shows in the face"]["size"].startswith("shoulder width +")
    assert read["shows in the voice"]["tone"] == "nothing"


def test_factor_table_refuses_stores_it_cannot_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="knows 0 people"):
        mini_quality.factor_table(store_of(tmp_path / "a"))
    with pytest.raises(DataError, match="4 speakers, 2 of them men; expected at least 12"):
        mini_quality.factor_table(known_store(tmp_path / "b", 4))


def test_the_sheet_shows_everybody_and_says_what(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from PIL import Image

    from tools import mini_sheet

    store = known_store(tmp_path, 4)
    file = store.path / "factors.json"
    known = json.loads(file.read_text())
    for number, one in enumerate(known["faces"]):
        one.update(blink=False, yaw=(-1.0, 0.0, 1.0, 0.1)[number % 4], mouth=float(number % 4 == 3))
    file.write_text(json.dumps(known))
    record = mini_sheet.people_sheet(store, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as picture:
        assert picture.mode == "P"
        assert picture.width > 1000
    assert json.loads((tmp_path / "sheet.json").read_text()) == record
    assert record["data"] == store.manifest_hash
    assert list(record["shown"]) == [f"mini/s{n}" for n in (1, 2, 3, 4)]
    pictures = record["shown"]["mini/s1"]["pictures"]
    assert (pictures["turned left"], pictures["turned right"]) == (0, 2)
    assert len(set(pictures.values())) == 4
