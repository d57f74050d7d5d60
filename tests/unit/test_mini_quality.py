"""Quality of the embedded corpus: measures by hand, faulty cases refused, the sheet."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.store_factory import make_store
from tools import mini_quality
from tools.mini_quality import FACE, VOICE, face, formant_shift, voice
from xfavot.data.store import Item, Store
from xfavot.errors import DataError
from xfavot.evaluation import rows as rows_module
from xfavot.mini.people import Nuisance, people

STILL = Nuisance(
    yaw=0.0,
    pitch=0.0,
    roll=0.0,
    gaze_x=0.0,
    gaze_y=0.0,
    mouth=0.0,
    blink=False,
    smile=0.0,
    light=0.0,
    light_height=35.0,
    light_strength=0.7,
    warmth=0.0,
    hue=0.6,
    tone=0.7,
)
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


def values(rows: list[dict[str, Any]]) -> dict[str, float]:
    return {one["metric"]: one["value"] for one in rows}


def test_word_error_is_counted_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("jiwer")
    store = store_of(tmp_path, clips=5)  # 20 clips, 120 words

    def hear(_store: Store, items: list[Item], _log: object) -> list[str]:
        heard = [item.transcript for item in items]
        heard[0] = "bin blue at s two now"  # one letter
        heard[1] = "lay red by a"  # two words lost
        heard[2] = ""  # nothing heard: six words lost
        return heard

    monkeypatch.setattr(mini_quality, "_hear", hear)
    rows = mini_quality.recognition(store)
    found = values(rows)
    assert found["word error rate"] == pytest.approx((1 + 2 + 6) / 120)
    assert found["clips without a hypothesis"] == pytest.approx(1 / 20)
    assert found["error, letter"] == pytest.approx(2 / 20)
    assert found["error, adverb"] == pytest.approx(2 / 20)
    assert found["error, command"] == pytest.approx(1 / 20)
    assert rows[0]["met"] is True
    assert rows[0]["n"] == rows[0]["clips"] == 20
    assert rows[0]["speakers"] == 4
    assert rows[0]["chance"] > 0.5
    assert "1 of 1 goals met" in rows_module.markdown(rows)


def test_recognition_refuses_what_it_cannot_judge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("jiwer")
    store = store_of(tmp_path)
    monkeypatch.setattr(mini_quality, "_hear", lambda _store, items, _log: [""] * len(items))
    with pytest.raises(DataError, match="no hypothesis for 100% of 12 clips"):
        mini_quality.recognition(store)
    monkeypatch.setattr(mini_quality, "_hear", lambda _store, items, _log: ["no"] * len(items))
    rows = mini_quality.recognition(store, clips=4)
    assert rows[0]["value"] == pytest.approx(1.0)
    assert rows[0]["met"] is False
    assert rows[0]["n"] == 4
    odd = dataclasses.replace(store.items[3], transcript="hello there")
    items = (*store.items[:3], odd, *store.items[4:])
    with pytest.raises(DataError, match=r"1 of them with other transcripts than GRID's"):
        mini_quality.recognition(dataclasses.replace(store, items=items))


def test_a_tone_is_no_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recogniser itself, on clips in which nothing is said."""
    pytest.importorskip("pocketsphinx")
    pytest.importorskip("jiwer")
    monkeypatch.setattr(mini_quality, "MOST_UNHEARD", 1.0)
    rows = mini_quality.recognition(store_of(tmp_path, clips=1))
    assert rows[0]["value"] > 0.6
    assert rows[0]["met"] is False


def test_verification_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    store = store_of(tmp_path, clips=2)
    angles = {"mini/s1": (0, 10), "mini/s2": (16, 30), "mini/s3": (90, 100), "mini/s4": (180, 190)}

    def embed(_store: Store, items: list[Item], _log: object) -> np.ndarray:
        seen: dict[str, int] = {}
        degrees = []
        for item in items:
            degrees.append(angles[item.speaker][seen.setdefault(item.speaker, 0)])
            seen[item.speaker] += 1
        radians = np.radians(degrees)
        return np.column_stack([np.cos(radians), np.sin(radians)])

    monkeypatch.setattr(mini_quality, "_embed", embed)
    rows = mini_quality.verification(store)
    found = values(rows)
    assert {one["metric"]: one["n"] for one in rows}["verification AUC, all pairs"] == 8 * 7 / 2
    # one pair of two women, 6 degrees apart, is nearer than the pairs of one woman (10 and 14)
    assert found["verification AUC, pairs of women"] == pytest.approx(3 / 4)
    assert found["verification AUC, pairs of men"] == 1.0
    assert found["equal error rate, pairs of men"] == 0.0
    assert found["verification AUC, all pairs"] == pytest.approx(23 / 24)
    asked = {one["metric"]: one["met"] for one in rows if one["goal"]}
    assert found["verification AUC, pairs of one sex"] == pytest.approx(7 / 8)
    assert asked == {
        "verification AUC, all pairs": True,
        "verification AUC, pairs of one sex": False,
    }


def test_verification_refuses_one_clip_a_speaker_and_one_man(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    with pytest.raises(DataError, match="4 clips of 2 women and 2 men"):
        mini_quality.verification(store_of(tmp_path / "a", clips=1))
    with pytest.raises(DataError, match="2 women and 1 men"):
        mini_quality.verification(store_of(tmp_path / "b", genders="ffm"))


def test_voice_measures_what_is_in_the_sound(tmp_path: Path) -> None:
    store = make_store(tmp_path, genders="fm", clips=1, seconds=2.0)
    made = [dict(zip(VOICE, voice(store, item), strict=True)) for item in store.items]
    assert made[0]["pitch"] == pytest.approx(np.log2(210.0))
    assert made[1]["pitch"] == pytest.approx(np.log2(115.0 * 1.03))
    assert made[0]["melody"] == pytest.approx(0.0, abs=1e-3)
    assert made[0]["rate"] == pytest.approx(6 / 2.0, rel=0.05)
    store.f0.setflags(write=False)
    trembling = 200 * 2 ** (0.05 * np.sin(2 * np.pi * 5.2 * np.arange(len(store.f0)) / 80))
    shaken = dataclasses.replace(store, f0=trembling.astype(np.float32))
    assert dict(zip(VOICE, voice(shaken, store.items[0]), strict=True))["tremor"] > -0.3
    assert made[0]["tremor"] < -0.9
    silent = dataclasses.replace(store, f0=np.zeros(len(store.f0), np.float32))
    assert np.isnan(voice(silent, store.items[0])).all()


def test_formants_are_found_where_they_were_moved() -> None:
    octaves = np.log2(mini_quality.band_hz())
    moved = np.array([0.0, 0.1, -0.1, 0.0])

    def envelope(shift: float) -> np.ndarray:
        return sum(
            np.exp(-0.5 * ((octaves - np.log2(hz) - shift) / 0.12) ** 2)
            for hz in (600, 1500, 2600, 3600)
        )

    found = formant_shift(np.stack([envelope(shift) for shift in moved]))
    assert np.allclose(found - found[0], moved, atol=0.05)


def test_faces_show_what_was_drawn() -> None:
    pytest.importorskip("PIL")
    from xfavot.mini.draw import draw_face

    who = people(16, seed=0)[9]  # bald, clean forehead

    def measured(person: dict[str, Any] | None = None, **pose: Any) -> dict[str, float]:
        drawn = draw_face(
            dataclasses.replace(who, beard="", **(person or {})), dataclasses.replace(STILL, **pose)
        )
        return dict(zip(FACE, face(drawn[0], drawn[1]), strict=True))

    def rises(name: str, low: dict[str, float], high: dict[str, float], by: float) -> None:
        assert high[name] - low[name] > by, name

    rises("shoulder width", measured({"size": 0.0}), measured({"size": 1.0}), 0.2)
    rises("forehead lines", measured({"age": 0.1}), measured({"age": 0.95}), 0.5)
    rises("folds at the mouth", measured({"liveliness": 0.0}), measured({"liveliness": 1.0}), 0.2)
    rises(
        "clothes colour",
        measured({"clothes": (90, 92, 94)}),
        measured({"clothes": (206, 62, 58)}),
        0.4,
    )
    rises("mouth opening", measured(mouth=0.0), measured(mouth=1.0), 0.1)
    rises("nostrils aside", measured(yaw=-1.0), measured(yaw=1.0), 0.2)
    rises("nostrils down", measured(pitch=1.0), measured(pitch=-1.0), 0.05)
    rises("side light", measured(light=-60.0), measured(light=60.0), 0.2)
    rises("background", measured(tone=0.0), measured(tone=1.0), 0.2)
    rises("gaze", measured(gaze_x=-1.0), measured(gaze_x=1.0), 0.05)


def known_store(tmp_path: Path, count: int) -> Store:
    """A store with a `factors.json` in which the factors of face and voice are random."""
    store = store_of(tmp_path, genders="fm" * (count // 2), clips=2)
    draw = np.random.default_rng(0)
    names = sorted({item.speaker for item in store.items})
    genders = {item.speaker: item.gender for item in store.items}
    hidden = {
        name: {
            "gender": genders[name],
            **dict(zip(("age", "size", "liveliness"), draw.uniform(size=3).tolist(), strict=True)),
        }
        for name in names
    }
    faces = [{name: float(draw.uniform()) for name in mini_quality.NUISANCE} for _ in store.faces]
    (store.path / "factors.json").write_text(json.dumps({"people": hidden, "faces": faces}))
    return store


@pytest.mark.filterwarnings("ignore:Objective did not converge")  # the toy data are too exact
def test_factor_table_finds_what_was_put_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.setattr(mini_quality, "NUISANCE", {"tone": "wall"})
    monkeypatch.setattr(mini_quality, "BOOTSTRAPS", 50)
    monkeypatch.setattr(mini_quality, "FOLDS", 6)
    store = known_store(tmp_path, 26)
    known = json.loads((store.path / "factors.json").read_text())
    draw = np.random.default_rng(1)

    def sound(_store: Store, item: Item) -> np.ndarray:
        who, noise = known["people"][item.speaker], draw.normal(size=len(VOICE)) * 0.03
        noise[0] -= who["size"] + 2 * (item.gender == "m")  # pitch
        noise[1] += who["liveliness"]  # melody
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
    table = mini_quality.factor_table(store)
    read = {one["factor"]: one for one in table.readings}
    assert read["sex"]["voice"] > 0.95
    assert read["sex"]["face"] < 0.8
    assert read["size"]["voice"] > 0.8
    assert read["size"]["face"] > 0.8
    assert read["size"]["agreement"] > 0.8
    assert read["size"]["face_low"] < read["size"]["face"] < read["size"]["face_high"]
    assert read["age"]["face"] > 0.8 > 0.3 > read["age"]["voice"]
    assert read["liveliness"]["voice"] > 0.8 > 0.3 > read["liveliness"]["face"]
    assert read["tone"]["face"] > 0.8 > 0.3 > read["tone"]["voice"]
    assert read["tone"]["n"] == len(store.faces)
    assert read["tone"]["agreement"] is None
    cells = {(c["factor"], c["modality"], c["measure"]): c["value"] for c in table.correlations}
    assert cells["sex", "voice", "pitch"] == -1.0
    assert cells["size", "voice", "pitch"] < -0.9
    assert cells["size", "face", "shoulder width"] > 0.9
    assert abs(cells["age", "voice", "pitch"]) < 0.5
    assert table.conditions["speakers"] == 26
    text = table.markdown()
    assert text.count("\n| ") == 1 + len(read)
    assert "shoulder width +1.0" in text
    assert "\n| **sex** (balanced accuracy) |" in text
    assert "\n| wall | nothing | background +" in text
    assert "-0.00" not in text


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
    sheet = mini_sheet.people_sheet(store, columns=2).save(tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as picture:
        assert picture.mode == "P"
        assert min(picture.size) > 500
    record = json.loads((tmp_path / "sheet.json").read_text())
    assert record["data"] == store.manifest_hash
    assert list(record["shown"]) == [f"mini/s{n}" for n in (1, 2, 3, 4)]
    first = record["shown"]["mini/s1"]
    assert first["pictures"]["turned left"] == 0
    assert first["pictures"]["turned right"] == 2
    assert len(set(first["pictures"].values())) == 4
    assert sheet.render("pdf").startswith(b"%PDF")
    with pytest.raises(DataError, match="expected a prepared store of `mini`"):
        mini_sheet.people_sheet(store_of(tmp_path / "bare"))
