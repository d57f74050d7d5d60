"""The embedded corpus: same seed same bytes, GRID's grammar, factors recorded, voices by sex."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import wave
from pathlib import Path

import numpy as np
import pytest

from xfavot.data.mini.factors import Nuisance, nuisance, people
from xfavot.data.mini.generate import generate
from xfavot.data.mini.speak import code, sentences, voice_of
from xfavot.data.readers import READERS
from xfavot.errors import DataError

SMALL = {"speakers": 2, "utterances": 2, "faces_per_clip": 2}
GRAMMAR = re.compile(
    r"(bin|lay|place|set) (blue|green|red|white) (at|by|in|with) [a-vx-z] "
    r"(zero|one|two|three|four|five|six|seven|eight|nine) (again|now|please|soon)"
)
FRONTAL = Nuisance(
    yaw=0.0, pitch=0.0, roll=0.0, gaze_x=0.0, gaze_y=0.0, mouth=0.0, blink=False, smile=0.0,
    light=-30.0, light_height=35.0, light_strength=0.7, warmth=0.0, hue=0.6, tone=0.7,
)  # fmt: skip


def digests(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("espeakng_loader")
    pytest.importorskip("pyworld")
    return generate(tmp_path_factory.mktemp("mini") / "a", seed=3, workers=2, **SMALL)


def test_same_seed_same_bytes_whatever_the_workers(corpus: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    again = generate(tmp_path / "b", seed=3, workers=1, on_log=lines.append, **SMALL)
    assert digests(again) == digests(corpus)
    assert len(lines) == 2
    assert len(digests(corpus)) == 2 + 2 * 2 * (2 + 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b"]  # no partial folder stays


def test_another_seed_gives_other_people_sentences_and_poses() -> None:
    assert people(4, seed=0) != people(4, seed=1)
    assert sentences(0, 0, 3) != sentences(1, 0, 3)
    assert nuisance(0, 0, 0, 0) != nuisance(1, 0, 0, 0)
    assert len({nuisance(0, s, c, f) for s in (0, 1) for c in (0, 1) for f in (0, 1)}) == 8


def test_sentences_follow_the_grammar_of_grid_and_differ() -> None:
    spoken = sentences(0, 5, 200)
    assert all(GRAMMAR.fullmatch(" ".join(words)) for words in spoken)
    assert len({code(words) for words in spoken}) == 200
    assert code(("bin", "blue", "at", "f", "two", "now")) == "bbaf2n"
    assert code(("set", "white", "with", "z", "zero", "please")) == "swwzzp"


def test_originals_and_factors_are_complete(corpus: Path) -> None:
    factors = json.loads((corpus / "factors.json").read_text("utf-8"))
    assert (corpus / "speakers.csv").read_text("utf-8") == "speaker,gender\ns01,f\ns02,m\n"
    assert list(factors["people"]) == ["s01", "s02"]
    for name, pose in factors["faces"].items():
        assert (corpus / f"{name}.png").is_file()
        assert set(pose) == {f.name for f in dataclasses.fields(Nuisance)} | {"landmarks"}
    for path in corpus.glob("*/*.wav"):
        with wave.open(str(path), "rb") as file:
            shape = (file.getnchannels(), file.getsampwidth(), file.getframerate())
            assert shape == (1, 2, 24_000)
            assert 1.0 < file.getnframes() / 24_000 < 4.0
        words = path.with_suffix(".txt").read_text("utf-8").strip()
        assert GRAMMAR.fullmatch(words)
        assert code(tuple(words.split())) == path.stem


def test_f0_follows_sex_and_the_speakers_target(corpus: Path) -> None:
    pyworld = pytest.importorskip("pyworld")
    factors = json.loads((corpus / "factors.json").read_text("utf-8"))
    mean = {}
    for speaker in ("s01", "s02"):
        values = []
        for path in sorted((corpus / speaker).glob("*.wav")):
            with wave.open(str(path), "rb") as file:
                x = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768
            f0, _ = pyworld.dio(x, 24_000, f0_floor=60.0, f0_ceil=500.0)
            values.append(f0[f0 > 0])
        mean[speaker] = float(np.exp(np.log(np.concatenate(values)).mean()))
        target = factors["people"][speaker]["voice"]["f0_hz"]
        assert mean[speaker] == pytest.approx(target, rel=0.15)
    assert mean["s01"] > 165 > mean["s02"]


def test_the_cast_is_balanced_and_its_factors_fill_the_range() -> None:
    cast = people(16, seed=0)
    assert [p.gender for p in cast] == ["f"] * 8 + ["m"] * 8
    assert len({(p.skin, p.hair, p.hair_style, p.glasses, p.beard) for p in cast}) == 16
    for group in (cast[:8], cast[8:]):
        for factor in ("age", "size", "liveliness"):
            values = np.sort([getattr(p, factor) for p in group])
            assert values[0] < 0.25
            assert values[-1] > 0.75
    assert len(people(41, seed=2)) == 41


def test_hidden_factors_move_the_voice() -> None:
    woman = people(2, seed=0)[0]
    small, tall = (voice_of(dataclasses.replace(woman, size=s), 0) for s in (0.0, 1.0))
    assert small.f0_hz > tall.f0_hz
    assert small.formants > tall.formants
    young, old = (voice_of(dataclasses.replace(woman, age=a), 0) for a in (0.1, 0.95))
    assert old.words_per_minute < young.words_per_minute
    assert old.tremor > young.tremor == 0.0
    calm, lively = (voice_of(dataclasses.replace(woman, liveliness=x), 0) for x in (0.0, 1.0))
    assert lively.f0_range > calm.f0_range


def test_pose_keeps_eyes_and_mouth_in_place_and_changes_the_picture() -> None:
    pytest.importorskip("PIL")
    from xfavot.data.mini.draw import draw_face

    person = people(4, seed=0)[3]
    frontal, points = draw_face(person, FRONTAL)
    assert frontal.shape == (128, 128, 3)
    assert frontal.dtype == np.uint8
    wanted = np.array([[48.0, 60.8], [80.0, 60.8], [50.6, 95.4], [77.4, 95.4]])
    for yaw, pitch in ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)):
        picture, points = draw_face(person, dataclasses.replace(FRONTAL, yaw=yaw, pitch=pitch))
        middle = points[[0, 1, 3, 4]].mean(axis=0) - wanted.mean(axis=0)
        assert np.abs(middle).max() < 0.06 * 128
        if yaw or pitch:
            assert np.abs(picture.astype(int) - frontal.astype(int)).mean() > 5
    turned = draw_face(person, dataclasses.replace(FRONTAL, yaw=1.0))[1]
    assert turned[2, 0] - turned[[0, 1], 0].mean() > 2.0  # the nose goes with the turn


def test_reader_yields_aligned_pairs_and_holds_out_of_every_speaker(corpus: Path) -> None:
    clips = list(READERS["mini"].scan(corpus, seed=0))
    assert [c.kind for c in clips] == ["av"] * 4
    assert {c.speaker for c in clips} == {"mini/s01", "mini/s02"}
    assert {c.gender for c in clips} == {"f", "m"}
    for speaker in ("mini/s01", "mini/s02"):
        assert sorted(c.split for c in clips if c.speaker == speaker) == ["train", "val"]
    for clip in clips:
        assert clip.aligned
        assert len(clip.images) == len(clip.extra["faces"]) == 2
        assert clip.landmarks.shape == (2, 5, 2)
        assert set(clip.extra["hidden"]) >= {"age", "size", "liveliness", "gender", "voice"}
        assert GRAMMAR.fullmatch(clip.transcript)
    assert clips == list(READERS["mini"].scan(corpus, seed=0))


def test_bad_requests_are_refused_with_the_next_step(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="speakers is 1; expected at least 2"):
        generate(tmp_path / "x", speakers=1)
    with pytest.raises(DataError, match="not empty"):
        generate(corpus)
    with pytest.raises(DataError, match=r"no speakers\.csv"):
        list(READERS["mini"].scan(tmp_path, seed=0))
