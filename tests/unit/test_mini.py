"""The embedded corpus: same seed same bytes, factors recorded and found, voices by sex, quality."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
import platform
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from tests.conftest import ROOT, Patch, refuses
from tests.unit.store_factory import make_store
from tools import mini_quality, mini_sheet
from tools.mini_quality import FACE, VOICE, face, formant_shift, voice
from xfavot.data.readers.layouts import scan
from xfavot.data.store import Item, Store
from xfavot.errors import DataError
from xfavot.mini import speak
from xfavot.mini.draw import draw_face
from xfavot.mini.generate import MOST_SPEAKERS, generate, speech_of
from xfavot.mini.people import Nuisance, nuisance, numbers, people, person, stream, twin
from xfavot.mini.speak import SLOTS, code, sentences, voice_of
from xfavot.weights import FOLDER, fetched

SMALL = {"speakers": 2, "utterances": 2, "faces_per_clip": 2}
GRAMMAR = re.compile(
    r"(bin|lay|place|set) (blue|green|red|white) (at|by|in|with) [a-vx-z] "
    r"(zero|one|two|three|four|five|six|seven|eight|nine) (again|now|please|soon)"
)
SOUND_TOLERANCE = 128  # steps of 16 bits; of 384 clips, 2 differed, by at most 65
PICTURES_OF_SEED_0 = "be24f1b499c1b094"
FRONTAL = Nuisance(
    **dict.fromkeys([field.name for field in dataclasses.fields(Nuisance)], 0.0)
    | {"light": -30.0, "light_height": 35.0, "light_strength": 0.7, "hue": 0.6, "tone": 0.7}
)


def run(command: list[str], environment: dict[str, str], folder: Path) -> str:
    return subprocess.check_output(command, cwd=folder, env=os.environ | environment, text=True)


def digests(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first woman and the first man, whose voices come with the package."""
    pytest.importorskip("av")
    pytest.importorskip("soxr")
    return generate(tmp_path_factory.mktemp("mini") / "a", seed=0, workers=2, **SMALL)


def test_same_seed_same_bytes_whatever_the_process(corpus: Path, tmp_path: Path) -> None:
    """Another process, hash seed, folder, language, thread count and number of workers."""
    (tmp_path / "wave.py").write_text("raise RuntimeError('not the standard library')")
    call = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from pathlib import Path; "
        "from xfavot.mini.generate import generate; lines = []; "
        f"generate(Path('b'), seed=0, workers=1, on_log=lines.append, **{SMALL!r}); "
        "sys.stdout.write(str(len(lines)))"
    )
    odd = {"PYTHONHASHSEED": "7", "LC_ALL": "C", "TZ": "Asia/Tokyo", "XFAVOT_WEIGHTS": "/nowhere"}
    odd |= {"OMP_NUM_THREADS": "3", "OPENBLAS_NUM_THREADS": "3"}
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    done = run([sys.executable, "-c", call], odd, folder)
    assert done == "2"  # one line a speaker
    assert digests(folder / "b") == digests(corpus)
    assert len(digests(corpus)) == 2 + 2 * 2 * (2 + 2)
    assert [p.name for p in folder.iterdir()] == ["b"]  # no partial folder stays


def test_another_processor_draws_the_same_and_speaks_nearly_the_same(tmp_path: Path) -> None:
    """Vector units, BLAS kernels and the C library's FMA code are switched off; espeak-ng speaks.

    Fewer clips and pictures are asked for, which are among those of the larger corpus.
    """
    pytest.importorskip("espeakng_loader")
    pytest.importorskip("pyworld")
    units = ("AVX512F", "AVX2", "FMA", "FMA4")
    without = ",".join(f"-{unit}{end}" for unit in units for end in ("", "_Usable"))
    old = {
        "NPY_DISABLE_CPU_FEATURES": "AVX512F AVX512_SKX X86_V4 AVX2 FMA3 X86_V3",
        "OPENBLAS_CORETYPE": "Nehalem",
        "GLIBC_TUNABLES": f"glibc.cpu.hwcaps={without}",
    }
    for place, count, environment in (("whole", 2, {}), ("part", 1, old)):
        job = {"number": 8, "utterances": count, "faces_per_clip": count, "seed": 3}
        text = json.dumps(job | {"speech": speech_of("espeak")})
        (tmp_path / place).mkdir()
        command = [sys.executable, "-m", "xfavot.mini.generate", str(tmp_path / place), text]
        run(command, environment, ROOT)
    made = {path.suffix: path for path in (tmp_path / "part" / "s09").iterdir()}
    same = {suffix: tmp_path / "whole" / "s09" / path.name for suffix, path in made.items()}
    assert made.keys() == {".png", ".txt", ".wav"}
    assert made[".txt"].read_bytes() == same[".txt"].read_bytes()
    one, other = (np.asarray(Image.open(files[".png"])) for files in (made, same))
    assert np.array_equal(one, other)
    one, other = (soundfile.read(files[".wav"], dtype="int16")[0] for files in (made, same))
    assert np.abs(one.astype(int) - other).max() <= SOUND_TOLERANCE


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="the digest is of x86-64 machines"
)
def test_pictures_of_seed_0_are_the_committed_ones() -> None:
    """Other pixels are another corpus: a new digest belongs into the CHANGELOG."""
    found = hashlib.sha256()
    for number in (0, 4, 9, 13, 24):
        found.update(draw_face(person(number, seed=0), nuisance(0, number, 0, 0))[0].tobytes())
    assert found.hexdigest()[:16] == PICTURES_OF_SEED_0


def test_a_speaker_is_the_same_in_a_corpus_of_any_size() -> None:
    assert [numbers(count) for count in (2, 5)] == [[0, 8], [0, 1, 2, 8, 9]]
    assert numbers(19) == [*range(16), 16, 17, 24]
    everybody = {p.speaker: p for p in people(MOST_SPEAKERS, seed=5)}
    for count in (2, 3, 16, 41):
        cast = people(count, seed=5)
        assert len({p.speaker for p in cast}) == count
        assert sum(p.gender == "f" for p in cast) == (count + 1) // 2
        assert all(everybody[p.speaker] == p for p in cast if p.speaker in everybody)


def test_a_thousand_people_look_and_speak_differently() -> None:
    for gender in "fm":
        group = [p for p in people(MOST_SPEAKERS, seed=0) if p.gender == gender]
        assert len({(p.skin, p.hair_style, p.glasses, p.beard, p.clothes) for p in group}) > 250
        voices = [voice_of(p, rank) for rank, p in enumerate(group)]
        assert len({(v.base, round(v.f0_hz, 1), round(v.formants, 3)) for v in voices}) == 500


@pytest.mark.parametrize("gender", ["f", "m"])
@pytest.mark.parametrize("look", ["skin", "hair_style", "glasses", "beard", "hue"])
def test_looks_tell_nothing_of_the_voice_they_have(gender: str, look: str) -> None:
    """Chi-squared of a look and the synthesiser's voice, over its degrees of freedom."""
    group = [p for p in people(MOST_SPEAKERS, seed=1) if p.gender == gender]
    found = Counter(
        (voice_of(p, rank).base, np.argmax(p.clothes) if look == "hue" else str(getattr(p, look)))
        for rank, p in enumerate(group)
    )
    rows, columns = (sorted({pair[side] for pair in found}) for side in (0, 1))
    seen = np.array([[found[row, column] for column in columns] for row in rows], float)
    expected = seen.sum(1, keepdims=True) * seen.sum(0, keepdims=True) / seen.sum()
    freedom = max((len(rows) - 1) * (len(columns) - 1), 1)
    assert ((seen - expected) ** 2 / expected).sum() / freedom < 2


def test_originals_and_factors_are_complete(corpus: Path) -> None:
    factors = json.loads((corpus / "factors.json").read_text("utf-8"))
    assert (corpus / "speakers.csv").read_text("utf-8") == "speaker,gender\ns01,f\ns09,m\n"
    assert list(factors["people"]) == ["s01", "s09"]
    assert all((corpus / f"{name}.png").is_file() for name in factors["faces"])
    for path in corpus.glob("*/*.wav"):
        sound = soundfile.info(path)
        assert (sound.channels, sound.subtype, sound.samplerate) == (1, "PCM_16", 24_000)
        assert 1.0 < sound.duration < 4.0
        words = path.with_suffix(".txt").read_text("utf-8").split()
        assert code(tuple(words)) == path.stem
    assert len({code(words) for words in sentences(0, 5, 200)}) == 200


def test_f0_follows_sex_and_the_speakers_target(corpus: Path) -> None:
    pyworld = pytest.importorskip("pyworld")
    factors = json.loads((corpus / "factors.json").read_text("utf-8"))
    mean = {}
    for speaker, known in factors["people"].items():
        waves = [soundfile.read(path)[0] for path in (corpus / speaker).glob("*.wav")]
        pitch = [pyworld.dio(x, 24_000, f0_floor=60.0, f0_ceil=500.0)[0] for x in waves]
        f0 = np.concatenate(pitch)
        mean[speaker] = float(np.exp(np.log(f0[f0 > 0]).mean()))
        assert mean[speaker] == pytest.approx(known["voice"]["f0_hz"], rel=0.15)
    assert mean["s01"] > 165 > mean["s09"]


def test_the_cast_is_balanced_and_each_seed_has_its_own() -> None:
    cast = people(16, seed=0)
    assert len({(p.skin, p.hair, p.hair_style, p.glasses, p.beard) for p in cast}) == 16
    for group, factor in itertools.product((cast[:8], cast[8:]), ("age", "size", "liveliness")):
        values = [getattr(p, factor) for p in group]
        assert min(values) < 0.25 < 0.75 < max(values)
    assert people(16, seed=1) != cast
    assert sentences(0, 0, 3) != sentences(1, 0, 3)
    assert len({nuisance(n, s, c, f) for n, s, c, f in itertools.product((0, 1), repeat=4)}) == 16


def test_hidden_factors_move_the_voice() -> None:
    woman = people(2, seed=0)[0]
    for factor, part, sign in (
        *(("size", "f0_hz", -1), ("size", "formants", -1), ("age", "words_per_minute", -1)),
        *(("age", "tremor", 1), ("liveliness", "f0_range", 1)),
    ):
        low, high = (voice_of(dataclasses.replace(woman, **{factor: x}), 0) for x in (0.1, 0.95))
        assert sign * (getattr(high, part) - getattr(low, part)) > 0


def test_pose_keeps_eyes_and_mouth_in_place_and_changes_the_picture() -> None:
    who = people(4, seed=0)[3]
    frontal, _ = draw_face(who, FRONTAL)
    assert (frontal.shape, frontal.dtype) == ((128, 128, 3), np.uint8)
    wanted = np.array([[48.0, 60.8], [80.0, 60.8], [50.6, 95.4], [77.4, 95.4]])
    for yaw, pitch in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        picture, points = draw_face(who, dataclasses.replace(FRONTAL, yaw=yaw, pitch=pitch))
        middle = points[[0, 1, 3, 4]].mean(axis=0) - wanted.mean(axis=0)
        assert np.abs(middle).max() < 0.06 * 128
        assert np.abs(picture.astype(int) - frontal.astype(int)).mean() > 5
        if yaw:  # the nose goes with the turn
            assert yaw * (points[2, 0] - points[[0, 1], 0].mean()) > 2.0


def test_reader_yields_aligned_pairs_and_holds_out_of_every_speaker(corpus: Path) -> None:
    clips = list(scan("mini", corpus, 0).clips.values())
    assert clips == list(scan("mini", corpus, 0).clips.values())
    found = sorted((c.kind, c.speaker, c.gender, c.split) for c in clips)
    who = [("mini/s01", "f"), ("mini/s09", "m")]
    assert found == [("av", *one, split) for one in who for split in ("train", "val")]
    for clip in clips:
        assert clip.aligned
        assert len(clip.images) == len(clip.extra["faces"]) == 2
        assert clip.landmarks.shape == (2, 5, 2)
        assert set(clip.extra["hidden"]) >= {"age", "size", "liveliness", "gender", "voice"}
        assert GRAMMAR.fullmatch(clip.transcript)


def test_twins_are_other_people_in_the_same_pose(corpus: Path, tmp_path: Path) -> None:
    groups = [twin(3, number, 1, 10) for number in numbers(10)]
    assert Counter(group for group, _ in groups) == {0: 4, 1: 4, 2: 2}
    assert len({pose for _, pose in groups}) == 3
    assert groups != [twin(3, number, 0, 10) for number in numbers(10)]
    folder = generate(tmp_path / "twins", seed=0, twins=2, **SMALL)
    plain, more = digests(corpus), digests(folder)
    del plain["factors.json"], more["factors.json"]
    assert plain.items() < more.items()
    clips = {clip.id: clip for clip in scan("mini", folder, 0).clips.values()}
    for rank in range(2):
        one, other = (clips[f"{who}/twin_{rank}_0"] for who in ("s01", "s09"))
        assert (one.kind, one.split, one.speaker) == ("image", "train", "mini/s01")
        assert one.extra["faces"] == other.extra["faces"] != [{}]
        assert more[f"s01/twin_{rank}_0.png"] != more[f"s09/twin_{rank}_0.png"]
    refuses(DataError, "'twins': 2.*'twins': 0", generate, folder, seed=0, **SMALL)


def test_words_are_spelt_in_kokoros_symbols_and_fit_its_tables() -> None:
    assert [len(slot) for slot in SLOTS] == [4, 4, 4, 25, 10, 4]
    with np.load(FOLDER / "kokoro_voices.npz") as tables:
        known, symbols = tables["voices"].tolist(), set(tables["symbols"].tolist())
        assert tables["styles"].shape == (len(known), 12, 256)
    voices = [row["voice"] for row in speak.BASES if row["synthesiser"] == speak.KOKORO]
    assert sorted(known) == sorted(voices)
    for accent in ("american", "british"):
        assert symbols > set("".join(row[accent] for row in speak.WORDS.values()))
        lengths = [[len(speak.WORDS[word][accent]) for word in slot] for slot in SLOTS]
        assert sum(map(min, lengths)) + len(SLOTS) - 1 == speak.LEAST_SYMBOLS


def test_kokoro_says_again_what_is_shipped(corpus: Path) -> None:
    """Nearly: what is shipped went through Opus, and other processors round otherwise."""
    for module in ("onnxruntime", "pyworld"):
        pytest.importorskip(module)
    if fetched.here("kokoro") is None:
        pytest.skip("Kokoro-82M is not here")
    speaker, (words,) = person(0, seed=0), sentences(0, 0, 1)
    voice = voice_of(speaker, 0)
    made = speak.become(speak.Kokoro().say(words, voice), 24_000, voice, stream(0, "voice", 0, 0))
    clip, _ = soundfile.read(corpus / speaker.speaker / f"{code(words)}.wav")
    assert len(made) == pytest.approx(len(clip), rel=0.1)
    level = [20 * np.log10(np.std(wave)) for wave in (made, clip)]
    assert level[0] == pytest.approx(level[1], abs=1.0)


def test_other_people_need_kokoro_and_bad_requests(tmp_path: Path, monkeypatch: Patch) -> None:
    """Nothing stands in for a synthesiser that is not here; what speaks is recorded."""
    monkeypatch.setenv("XFAVOT_WEIGHTS", str(tmp_path / "none"))
    assert speech_of("auto", speakers=2) == speech_of("auto")
    assert re.fullmatch(r"shipped [0-9a-f]{16}", speech_of("auto"))
    for asked in ({"seed": 1}, {"speakers": 17}, {"utterances": 25}):
        assert speech_of("auto", **asked) == speech_of("kokoro") == "kokoro 6e742170d309016e"
    match, folder = r"fetch-weights kokoro[\s\S]*or choose voices espeak", tmp_path / "a"
    refuses(DataError, match, generate, folder, seed=1, **SMALL)
    assert not folder.exists()
    (tmp_path / "taken").touch()
    for given, message in (
        ({"voices": "espaek"}, "voices is 'espaek'; did you mean 'espeak'"),
        ({"speakers": MOST_SPEAKERS + 1}, "mini: 1001 speakers.*expected 2 to 1000"),
        ({}, "not empty"),
    ):
        refuses(DataError, message, generate, tmp_path, **given)


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


def test_word_error_is_counted_by_hand(tmp_path: Path, monkeypatch: Patch) -> None:
    store = store_of(tmp_path, clips=5)  # 20 clips, 120 words
    # one letter; two words lost; nothing heard, six words lost
    said = ["bin blue at s two now", "lay red by a", ""]
    said += [item.transcript for item in store.items[3:]]
    monkeypatch.setattr(mini_quality, "_hear", lambda _store, _items: said)
    measured = mini_quality.recognition(store)
    assert measured["word error"] == pytest.approx((1 + 2 + 6) / 120)
    assert measured["nothing heard"] == pytest.approx(1 / 20)
    assert measured["chance"] > 0.5


def test_verification_by_hand(tmp_path: Path, monkeypatch: Patch) -> None:
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
def test_factors_are_found(tmp_path: Path, monkeypatch: Patch) -> None:
    settings = {"NUISANCE": ("tone",), "HIDDEN": ("sex", "age", "size")}
    for name, value in (settings | {"FOLDS": 4, "BOOTSTRAPS": 30}).items():
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
    assert read["shows in the voice"]["sex"].startswith("pitch -1.00")
    assert read["shows in the voice"]["tone"] == "nothing"


def test_factor_table_refuses_stores_it_cannot_read(tmp_path: Path) -> None:
    store = store_of(tmp_path)
    match = "4 speakers, 2 of them men; expected at least 12"
    refuses(DataError, match, mini_quality.factor_table, store)
    (store.path / "factors.json").unlink()
    refuses(DataError, "knows 0 people", mini_quality.factor_table, store)


def test_the_sheet_shows_everybody_and_says_what(tmp_path: Path) -> None:
    store = store_of(tmp_path)
    file = store.path / "factors.json"
    known = json.loads(file.read_text())
    for number, one in enumerate(known["faces"]):
        one.update(blink=False, yaw=(-1.0, 0.0, 1.0, 0.1)[number % 4], mouth=float(number % 4 == 3))
    file.write_text(json.dumps(known))
    record = mini_sheet.people_sheet(store, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as picture:
        assert picture.width > 1000
    assert json.loads((tmp_path / "sheet.json").read_text()) == record
    assert list(record["shown"]) == [f"mini/s{n}" for n in (1, 2, 3, 4)]
    assert len(set(record["shown"]["mini/s1"]["pictures"].values())) == 4
