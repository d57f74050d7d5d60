"""Quality of the corpus `mini`: measures by hand, factors found where they were put, the sheet."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.unit.store_factory import make_store
from tests.unit.test_mini import FRONTAL
from tools import mini_quality, mini_sheet
from tools.mini_quality import FACE, VOICE, face, formant_shift, voice
from xfavot.data.store import Item, Store
from xfavot.errors import DataError
from xfavot.mini.draw import draw_face
from xfavot.mini.people import people

SAID = ("bin blue at f two now", "lay red by a zero soon", "set green in b one again")


def store_of(tmp_path: Path, *, genders: str = "ffmm", clips: int = 3) -> Store:
    """A store whose clips say different sentences, with random factors of face and voice."""
    store = make_store(tmp_path, corpus="mini", genders=genders, clips=clips, seconds=1.5)
    draw, factors = np.random.default_rng(0), ("age", "size", "liveliness")
    hidden = {
        item.speaker: {"gender": item.gender} | {name: draw.random() for name in factors}
        for item in store.items[::clips]
    }
    faces = [{name: draw.random() for name in mini_quality.NUISANCE} for _ in store.faces]
    (store.path / "factors.json").write_text(json.dumps({"people": hidden, "faces": faces}))
    said = zip(store.items, itertools.cycle(SAID), strict=False)
    items = tuple(dataclasses.replace(item, transcript=text) for item, text in said)
    return dataclasses.replace(store, items=items)


def test_word_error_is_counted_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_of(tmp_path, clips=5)  # 20 clips, 120 words
    # one letter; two words lost; nothing heard, six words lost
    said = ["bin blue at s two now", "lay red by a", ""]
    said += [item.transcript for item in store.items[3:]]
    monkeypatch.setattr(mini_quality, "_hear", lambda _store, _items: said)
    measured = mini_quality.recognition(store)
    assert measured["word error"] == pytest.approx((1 + 2 + 6) / 120)
    assert measured["nothing heard"] == pytest.approx(1 / 20)
    assert measured["chance"] > 0.5


def test_verification_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    radians = np.radians([0, 10, 16, 30, 90, 100, 180, 190])  # two clips of each of four speakers
    embeddings = np.column_stack([np.cos(radians), np.sin(radians)])
    monkeypatch.setattr(mini_quality, "_embed", lambda _store, _items: embeddings)
    measured = mini_quality.verification(store_of(tmp_path, clips=2))
    # one pair of two women, 6 degrees apart, is nearer than the pairs of one woman (10 and 14)
    assert measured["AUC, pairs of one sex"] == pytest.approx(7 / 8)
    assert measured["AUC, all pairs"] == pytest.approx(23 / 24)


def test_voice_measures_what_is_in_the_sound(tmp_path: Path) -> None:
    store = make_store(tmp_path, genders="fm", clips=1, seconds=2.0)

    def measured(f0: Any = None, number: int = 0) -> dict[str, float]:
        other = dataclasses.replace(store, f0=store.f0 if f0 is None else f0.astype(np.float32))
        return dict(zip(VOICE, voice(other, store.items[number]), strict=True))

    made = measured()
    assert made["pitch"] == pytest.approx(np.log2(210.0))
    assert measured(number=1)["pitch"] == pytest.approx(np.log2(115.0 * 1.03))
    assert made["melody"] == pytest.approx(0.0, abs=1e-3)
    assert made["rate"] == pytest.approx(6 / 2.0, rel=0.05)
    trembling = 200 * 2 ** (0.05 * np.sin(2 * np.pi * 5.2 * np.arange(len(store.f0)) / 80))
    assert measured(trembling)["tremor"] > -0.3 > -0.9 > made["tremor"]
    assert np.isnan([*measured(np.zeros(len(store.f0))).values()]).all()


def test_formants_are_found_where_they_were_moved() -> None:
    octaves = np.log2(mini_quality.band_hz())
    moved = np.array([0.0, 0.1, -0.1, 0.0])
    peaks = np.log2([[600], [1500], [2600], [3600]])
    spectra = [np.exp(-0.5 * ((octaves - peaks - m) / 0.12) ** 2).sum(axis=0) for m in moved]
    shift = formant_shift(np.stack(spectra))
    assert np.allclose(shift - shift[0], moved, atol=0.05)


@pytest.mark.parametrize(
    ("measure", "factor", "low", "high", "by"),
    [
        ("shoulder width", "size", 0.0, 1.0, 0.2),
        ("forehead lines", "age", 0.1, 0.95, 0.5),
        ("folds at the mouth", "liveliness", 0.0, 1.0, 0.2),
        ("clothes colour", "clothes", (90, 92, 94), (206, 62, 58), 0.4),
        ("mouth opening", "mouth", 0.0, 1.0, 0.1),
        ("nostrils aside", "yaw", -1.0, 1.0, 0.2),
        ("nostrils down", "pitch", 1.0, -1.0, 0.05),
        ("side light", "light", -60.0, 60.0, 0.2),
        ("background", "tone", 0.0, 1.0, 0.2),
        ("gaze", "gaze_x", -1.0, 1.0, 0.05),
    ],
)
def test_faces_show_the_factor(measure: str, factor: str, low: Any, high: Any, by: float) -> None:
    who = dataclasses.replace(people(16, seed=0)[9], beard="")  # bald, clean forehead
    parts = (who, dataclasses.replace(FRONTAL, light=0.0))

    def measured(value: Any) -> float:
        new = {factor: value}
        shown = [dataclasses.replace(x, **new) if hasattr(x, factor) else x for x in parts]
        return float(face(*draw_face(*shown))[FACE.index(measure)])

    assert measured(high) - measured(low) > by


@pytest.mark.filterwarnings("ignore:Objective did not converge")  # the toy data are too exact
def test_factors_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"NUISANCE": ("tone",), "HIDDEN": ("sex", "age", "size"), "FOLDS": 4}
    for name, value in (settings | {"BOOTSTRAPS": 30}).items():
        monkeypatch.setattr(mini_quality, name, value)
    store = store_of(tmp_path, genders="fm" * 13, clips=2)
    hidden, poses = mini_quality.known_factors(store)
    draw = np.random.default_rng(1)

    def sound(_store: Store, item: Item) -> np.ndarray:
        noise = draw.normal(size=len(VOICE)) * 0.03
        noise[VOICE.index("pitch")] -= hidden[item.speaker]["size"] + 2 * (item.gender == "m")
        return noise

    seen = iter([(item.speaker, row) for item in store.items for row in range(item.face_count)])
    rows = iter(poses)

    def sight(_pixels: np.ndarray, _marks: np.ndarray) -> np.ndarray:
        who, noise = hidden[next(seen)[0]], draw.normal(size=len(FACE)) * 0.03
        noise[FACE.index("shoulder width")] += who["size"]
        noise[FACE.index("forehead lines")] += who["age"]
        noise[FACE.index("background")] += next(rows)["tone"]
        return noise

    monkeypatch.setattr(mini_quality, "voice", sound)
    monkeypatch.setattr(mini_quality, "face", sight)
    read = mini_quality.factor_table(store)
    assert list(read.index) == ["sex", "age", "size", "tone"]
    assert read.voice["sex"] > 0.95 > 0.8 > read.face["sex"]
    assert min(read.voice["size"], read.face["size"]) > 0.8
    assert read.face_low["size"] < read.face["size"] < read.face_high["size"]
    assert read.face["age"] > 0.8 > 0.3 > read.voice["age"]
    assert read.face["tone"] > 0.8 > 0.3 > read.voice["tone"]
    assert read.n["tone"] == len(store.faces)
    assert read["shows in the voice"]["sex"].startswith("pitch -1.00")
    assert read["shows in the face"]["size"].startswith("shoulder width +")
    assert read["shows in the voice"]["tone"] == "nothing"


def test_factor_table_refuses_stores_it_cannot_read(tmp_path: Path) -> None:
    store = store_of(tmp_path)
    with pytest.raises(DataError, match="4 speakers, 2 of them men; expected at least 12"):
        mini_quality.factor_table(store)
    (store.path / "factors.json").unlink()
    with pytest.raises(DataError, match="knows 0 people"):
        mini_quality.factor_table(store)


def test_the_sheet_shows_everybody_and_says_what(tmp_path: Path) -> None:
    store = store_of(tmp_path)
    file = store.path / "factors.json"
    known = json.loads(file.read_text())
    for number, one in enumerate(known["faces"]):
        one.update(blink=False, yaw=(-1.0, 0.0, 1.0, 0.1)[number % 4], mouth=float(number % 4 == 3))
    file.write_text(json.dumps(known))
    record = mini_sheet.people_sheet(store, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as picture:
        assert (picture.mode, picture.width > 1000) == ("P", True)
    assert json.loads((tmp_path / "sheet.json").read_text()) == record
    assert record["data"] == store.manifest_hash
    assert list(record["shown"]) == [f"mini/s{n}" for n in (1, 2, 3, 4)]
    pictures = record["shown"]["mini/s1"]["pictures"]
    assert {pictures["turned left"], pictures["turned right"]} <= {0, 2, 4}
    assert len(set(pictures.values())) == 4
