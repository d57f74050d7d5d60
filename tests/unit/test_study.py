"""The correspondence study: pages, key and answers; CPR against hand-computed values."""

from __future__ import annotations

import base64
import dataclasses
import io
import itertools
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

pytest.importorskip("scipy")

from tests.conftest import refuses
from tests.unit.store_factory import make_store
from tests.unit.test_convert import loaded
from xfavot import report
from xfavot.audio.vocoder import GriffinLim
from xfavot.convert import Task
from xfavot.data.store import Store
from xfavot.errors import ConfigError, DataError
from xfavot.evaluation import cpr
from xfavot.evaluation.cpr import Triplet
from xfavot.parameters import Study
from xfavot.report import Provenance, study
from xfavot.report.study import Key, checksum, open_study, read_answers, result_rows, write_study
from xfavot.training.checkpoint import LoadedModel

image_module = pytest.importorskip("PIL.Image")
soundfile = pytest.importorskip("soundfile")
SYSTEMS = ("ground truth", "secret_model")
Change = Callable[[dict[str, Any]], None]


def origin() -> Provenance:
    return {"tier": "smoke", "dataset": "toy", "notebook": "cpr_study"}


def toy_triplets(count: int = 5, *, seconds: float = 0.3, seed: int = 0) -> list[Triplet]:
    """For both systems and tasks, voices as tones and faces of noise, all different."""
    rng = np.random.default_rng(seed)

    def voice() -> Any:
        time = np.arange(round(24000 * seconds)) / 24000
        return (0.2 * np.sin(2 * np.pi * rng.uniform(100, 300) * time)).astype(np.float32)

    def face() -> Any:
        return rng.integers(0, 255, (8, 8, 3)).astype(np.uint8).repeat(8, 0).repeat(8, 1)

    made = []
    for system, task, n in itertools.product(SYSTEMS, ("a2i", "i2a"), range(count)):
        prompt, shown = (voice, face)
        if task == "i2a" and system == SYSTEMS[1]:
            prompt, shown = face, voice
        known: Any = {"people": ("toy/Anna", "toy/Bert"), "genders": ("f", "fm"[n % 2])}
        known |= {"prompt": prompt(), "match": shown(), "other": shown(), "source": "clip9"}
        made.append(Triplet(system=system, task=task, **known))
    return made


def make(folder: Path, *, listen_ms: int = 1000, **changes: Any) -> Key:
    drawn = toy_triplets()
    cfg = Study(out=str(folder), **({"evaluators": 3} | changes))
    return write_study(cfg, drawn, drawn[0], origin(), listen_ms=listen_ms)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("study")


@pytest.fixture(scope="module")
def key(folder: Path) -> Key:
    return make(folder)


def page_of(folder: Path, sheet: str) -> tuple[str, dict[str, Any]]:
    text = (folder / "pages" / f"sheet_{sheet}.html").read_text("utf-8")
    found = re.search(r'<script type="application/json" id="study">(.*?)</script>', text, re.S)
    assert found
    return text, json.loads(found[1])


def write_answers(
    key: Key,
    folder: Path,
    sheet: str = "01",
    *,
    right: Callable[[str], bool] = lambda _: True,
    count: int | None = None,
    change: Change = lambda _: None,
    seal: bool = True,
    name: str = "",
) -> None:
    """Write the file that a page would have saved; `change` edits it, `seal` fits the checksum."""
    answers = []
    for item, token_a in key["sheets"][sheet][:count]:
        asked = key["questions"][item]
        choice = asked["tokens"][asked["match"] if right(item) else 1 - asked["match"]]
        one = {"item": item, "choice": choice, "side": "A" if choice == token_a else "B"}
        one |= {"ms": 4000, "plays": 2, "heard_ms": 1500, "at": "2026-01-01T10:00:00.000Z"}
        answers.append(one)
    content = {"format": "xfavot-cpr-answers", "version": 1, "study": key["study"]}
    content |= {"sheet": sheet, "answers": answers, "check": checksum(key["study"], sheet, answers)}
    change(content)
    if seal:
        content["check"] = checksum(content["study"], content["sheet"], content["answers"])
    folder.mkdir(exist_ok=True)
    (folder / (name or f"sheet_{sheet}.json")).write_text(json.dumps(content), "utf-8")


def test_pages_ask_everything_in_orders_of_their_own(key: Key, folder: Path) -> None:
    orders = set()
    for sheet in ("01", "02", "03"):
        _, data = page_of(folder, sheet)
        items = data["items"]
        assert data["sheet"] == sheet
        assert {one["id"] for one in items} == set(key["questions"])
        assert [[one["id"], one["a"]["t"]] for one in items] == key["sheets"][sheet]
        for one in items:
            assert {one["a"]["t"], one["b"]["t"]} == set(key["questions"][one["id"]]["tokens"])
        firsts = [one["a"]["t"] == key["questions"][one["id"]]["tokens"][0] for one in items]
        assert sum(firsts) == len(items) / 2
        orders.add(tuple(one["id"] for one in items))
    assert len(orders) == 3


def test_pages_do_not_tell_what_is_right_or_who_made_it(key: Key, folder: Path) -> None:
    text, data = page_of(folder, "01")
    for word in (*SYSTEMS, "a2i", "i2a", "Anna", "Bert", "clip9", "match", "one sex", "toy"):
        assert not re.search(rf"\b{word}\b", text.replace("matchMedia", "")), word
    assert set(data) == {"study", "sheet", "listen_ms", "minutes", "practice", "items"}
    assert {key for one in data["items"] for key in one} == {"id", "p", "a", "b"}
    places = [q["match"] for q in key["questions"].values()]
    assert 0 < sum(places) < len(places)  # neither token is always the right one
    assert "http" not in re.sub(r"http-equiv", "", text)  # nothing is loaded
    assert "default-src 'none'" in text


def test_samples_in_a_page_have_one_size_and_level(key: Key, folder: Path) -> None:
    _, data = page_of(folder, "01")
    kinds = set()
    for one in data["items"]:
        for part in (one["p"], one["a"], one["b"]):
            raw = base64.b64decode(part["d"])
            if part["k"] == "face":
                picture = image_module.open(io.BytesIO(raw))
                assert (picture.format, picture.size) == ("JPEG", (256, 256))
                assert not picture.getexif()
            else:
                wave, rate = soundfile.read(io.BytesIO(raw))
                level = 20 * np.log10(np.sqrt(np.square(wave[1500:6000]).mean()))
                assert rate == 24000
                assert level == pytest.approx(study.LEVEL_DBFS, abs=1.0)
            kinds.add((one["p"]["k"], part["k"]))
    assert kinds == {("voice", "voice"), ("voice", "face"), ("face", "face"), ("face", "voice")}


def test_the_right_token_stands_for_the_right_sample(key: Key, folder: Path) -> None:
    _, data = page_of(folder, "02")
    shown = {side["t"]: side["d"] for one in data["items"] for side in (one["a"], one["b"])}
    for asked, triplet in zip(key["questions"].values(), toy_triplets(), strict=True):
        right, wrong = asked["tokens"][asked["match"]], asked["tokens"][1 - asked["match"]]
        for token, sample in ((right, triplet.match), (wrong, triplet.other)):
            assert shown[token] == base64.b64encode(study.encode(sample)).decode()
        assert (asked["system"], asked["task"]) == (triplet.system, triplet.task)


def test_the_same_study_may_be_written_again_but_not_another_one(tmp_path: Path) -> None:
    first = make(tmp_path, evaluators=1)
    page = (tmp_path / "pages" / "sheet_01.html").read_bytes()
    assert make(tmp_path, evaluators=1) == first
    assert (tmp_path / "pages" / "sheet_01.html").read_bytes() == page
    refuses(ConfigError, r"where study .* lies; this would be study", make, tmp_path, seed=1)
    assert open_study(tmp_path) == first
    assert open_study(tmp_path)["provenance"] == origin()
    (tmp_path / "key.json").write_text('{"schema": 1', "utf-8")
    refuses(DataError, r"key.json is missing or damaged", open_study, tmp_path)


def test_answers_come_back_as_given_also_half_of_them(key: Key, tmp_path: Path) -> None:
    questions = key["questions"]
    write_answers(key, tmp_path, "01")
    write_answers(key, tmp_path, "02", right=lambda item: questions[item]["system"] == SYSTEMS[1])
    write_answers(key, tmp_path, "03", count=7)
    answers = read_answers(key, tmp_path)
    assert len(answers) == 47
    rows = {(r["system"], r["task"], r["metric"]): r for r in result_rows(key, answers)}
    asked = [questions[item] for item, _ in key["sheets"]["03"][:7]]
    for task in ("a2i", "i2a"):
        assert rows[SYSTEMS[1], task, "CPR"]["value"] == 1.0
        truth = rows[SYSTEMS[0], task, "CPR"]
        some = sum((q["system"], q["task"]) == (SYSTEMS[0], task) for q in asked)
        assert truth["n"] == 10 + some
        assert truth["value"] == pytest.approx((5 + some) / truth["n"])


def test_nothing_read_is_told(key: Key, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no answers yet, and no automatic CPR"):
        result_rows(key, read_answers(key, ""))
    refuses(DataError, "0 of 0 files", read_answers, key, tmp_path / "absent")


def set_answer(number: int = 2, **values: Any) -> Change:
    return lambda content: content["answers"][number].update(values)


BAD: dict[str, tuple[Change, bool, str]] = {
    "other_study": (lambda c: c.update(study="ffffffffff"), True, "belongs to study 'ffffffffff'"),
    "edited": (set_answer(ms=1), False, "was changed after the page saved it"),
    "unknown_question": (set_answer(item="abc"), True, "does not fit the page"),
    "twice": (lambda c: c["answers"][3].update(c["answers"][2]), True, "does not fit the page"),
    "other_side": (set_answer(side="C"), True, "does not fit the page"),
    "missing": (lambda c: c["answers"][0].pop("ms"), False, "is damaged"),
    "empty": (lambda c: c.update(answers=[]), True, "holds no answer"),
    "no_dict": (lambda c: c.update(answers=[1, 2]), False, "is damaged"),
    "version": (lambda c: c.update(version=2), True, "holds no answers of a study page"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_with_its_reason(key: Key, tmp_path: Path, name: str) -> None:
    change, seal, reason = BAD[name]
    write_answers(key, tmp_path, "01", change=change, seal=seal, name="bad.json")
    write_answers(key, tmp_path, "02")
    with pytest.raises(DataError, match=r"1 of 2 files cannot be used") as error:
        read_answers(key, tmp_path)
    assert reason in str(error.value)
    assert "- bad.json: " in str(error.value)


def test_every_bad_file_is_told_at_once(key: Key, tmp_path: Path) -> None:
    write_answers(key, tmp_path, "01")
    write_answers(key, tmp_path, "01", count=4, name="sheet_01 (1).json")
    (tmp_path / "cut.json").write_text('{"format": "xfav', "utf-8")
    (tmp_path / "large.json").write_bytes(b" " * (study.LARGEST_BYTES + 1))
    twice = r"sheet_01\.json: sheet 01 is in sheet_01 \(1\)\.json, too; keep one"
    for told in (twice, r"cut\.json: ", r"large\.json: it has 5000001 bytes"):
        refuses(DataError, told, read_answers, key, tmp_path)


def test_silence_and_too_large_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for value, level in ((0.0, "0"), (np.nan, "nan")):
        with pytest.raises(DataError, match=f"voice of 100 samples has the level {level}"):
            study.encode(np.full(100, value, np.float32))
    monkeypatch.setattr(study, "MOST_BYTES", 50_000)
    refuses(DataError, "ask for fewer triplets", make, tmp_path)
    assert not (tmp_path / "key.json").exists()


# Making the study from stores and models: names, provenance, what is asked


def fake(folder: Path, configuration: str, step: int, preset: str) -> LoadedModel:
    folder.mkdir(parents=True)
    for part in ("model", "ema"):
        (folder / f"{part}.safetensors").write_bytes(folder.name.encode())
    model = loaded()
    run = dataclasses.replace(model.config, configuration=configuration, preset=preset)
    return dataclasses.replace(model, path=folder, step=step, config=run)


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, LoadedModel]:
    made = {
        "one": fake(tmp_path / "one", "xfavot", 5, "smoke"),
        "two": fake(tmp_path / "two", "xfavot", 5, "paper"),
        "three": fake(tmp_path / "three", "joint", 5, "paper"),
        "later": fake(tmp_path / "later", "xfavot", 9, "paper"),
    }
    monkeypatch.setattr(study, "load_model", lambda path: made[path.name])
    quick, own = study.Converter, {"vocoder": GriffinLim(iterations=1)}
    monkeypatch.setattr(study, "Converter", lambda model, **how: quick(model, **(how | own)))
    return made


def test_models_are_named_as_shortly_as_they_differ(models: dict[str, LoadedModel]) -> None:
    assert list(study.systems_of(Study(checkpoint="one,three"))) == ["xfavot", "joint"]
    assert study.weights_digest(models["one"].path) != study.weights_digest(models["three"].path)
    names = list(study.systems_of(Study(checkpoint="one,two,three,later")))
    assert names == ["xfavot, step 5, 1", "xfavot, step 5, 2", "joint", "xfavot, step 9"]


@pytest.mark.parametrize(
    ("triplets", "presets", "tier"),
    [
        (30, ["paper", "paper"], "paper"),
        (2, ["paper"], "reduced"),
        (30, ["paper", "mini"], "reduced"),
        (30, [], "reduced"),
        (30, ["paper", "smoke"], "smoke"),
    ],
)
def test_tier_of_a_study(triplets: int, presets: list[str], tier: str) -> None:
    assert study.tier_of(Study(triplets=triplets), presets) == tier


def test_a_study_asks_truth_and_models(models: dict[str, LoadedModel], tmp_path: Path) -> None:
    stores = [make_store(tmp_path, corpus="grid", genders="ffmm", seconds=0.6)]
    lines: list[str] = []
    cfg = Study(checkpoint="one,three", dataset="grid", triplets=2, data_root=str(tmp_path))
    systems = study.systems_of(cfg)
    drawn, automatic = study.ask(cfg, stores, systems, on_log=lines.append)
    asked = [(one.system, one.task) for one in drawn]
    names = ("ground truth", "xfavot", "joint")
    assert {pair: asked.count(pair) for pair in set(asked)} == {
        (system, task): 2 for system in names for task in ("a2i", "i2a")
    }
    by = {(row["system"], row["metric"]) for row in automatic}
    assert by >= {(name, "automatic CPR, by the style encoders of joint") for name in names}
    assert "joint, i2a: 2 triplets" in lines
    about = {"began": report.begin(), "split": "train", "notebook": "cpr_study"}
    origin = study.origin_of(cfg, systems, stores, **about)
    assert [origin[k] for k in ("tier", "dataset", "notebook")] == ["smoke", "grid", "cpr_study"]
    assert origin["command"] == "papermill notebooks/cpr_study.ipynb out.ipynb"
    assert set(origin["weights"]) == {"model xfavot", "model joint"}
    assert origin["checkpoint"] == {"step": 5, "sha256": origin["weights"]["model xfavot"]}
    assert str(tmp_path) not in json.dumps(origin)


# CPR: intervals, tests and agreement against published and hand-computed values


def answer(evaluator: str, triplet: str, right: bool, **changes: Any) -> dict[str, Any]:
    fields = {"system": "xfavot", "task": "a2i", "sexes": "one sex", "first": right} | changes
    return {"evaluator": evaluator, "triplet": triplet, "right": right, **fields}


def test_wilson_the_exact_test_and_holms_are_the_textbook_ones() -> None:
    expected = {"wilson_low": 0.4902, "wilson_high": 0.9433}
    expected |= dict.fromkeys(("p", "p_holm"), 2 * (45 + 10 + 1) / 1024)
    assert cpr.binomial(8, 10) == pytest.approx(expected, abs=1e-4)
    assert cpr.binomial(5, 10)["p"] == pytest.approx(1.0)
    assert cpr.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert cpr.holm([0.5, 0.9]) == [1.0, 1.0]


def test_alpha_is_that_of_krippendorffs_worked_examples() -> None:
    a, b = "0100000010", "1110010000"  # two observers, two categories: alpha 0.095
    assert cpr.nominal_alpha(zip(a, b, strict=True)) == pytest.approx(0.095, abs=5e-4)
    four = ("123321412...", "1233224125.3", ".3332342251.", "12332441251.")
    units = [[x for x in unit if x != "."] for unit in zip(*four, strict=True)]
    assert cpr.nominal_alpha(units) == pytest.approx(0.743, abs=5e-4)
    assert cpr.nominal_alpha(["aa", "bb"]) == 1.0  # full agreement
    assert cpr.nominal_alpha(["ab"] * 4) == pytest.approx(-0.75)  # contradiction
    assert cpr.nominal_alpha(["a", "b"]) is cpr.nominal_alpha(["aa"]) is None  # nothing to compare


def test_bootstrap_is_wide_where_evaluators_differ_and_not_the_answers() -> None:
    grid = [(e, t) for e in range(6) for t in range(30)]
    # three always right, three never
    split = pd.DataFrame([answer(str(e), str(t), e < 3) for e, t in grid])
    low, high = cpr.bootstrap(split, seed=0)
    wilson = cpr.binomial(90, 180)
    assert low < 0.2 < wilson["wilson_low"]
    assert high > 0.8 > wilson["wilson_high"]
    mixed = pd.DataFrame([answer(str(e), str(t), (e + t) % 2 == 0) for e, t in grid])
    narrow = cpr.bootstrap(mixed, seed=0)
    assert 0.35 < narrow[0] < 0.5 < narrow[1] < 0.65
    assert cpr.bootstrap(mixed, seed=0) == narrow
    assert cpr.bootstrap(pd.DataFrame([answer("1", "1", True)]), seed=0) == (1.0, 1.0)


def test_rows_count_systems_tasks_and_sexes_apart() -> None:
    answers = [
        answer(str(e), f"{task}{t}", t != 0, task=task, sexes="one sex" if t % 2 else "both sexes")
        for e, task, t in itertools.product(range(3), ("a2i", "i2a"), range(4))
    ]
    answers.append(answer("3", "x", True, system="ground truth"))
    rows = cpr.cpr_rows(answers, dataset="mini", seed=4)
    found = {(r["system"], r["task"], r["metric"]): r for r in rows}
    whole = found["xfavot", "a2i", "CPR"]
    assert (whole["value"], whole["n"], whole["evaluators"], whole["triplets"]) == (0.75, 12, 3, 4)
    assert found["xfavot", "i2a", "CPR, two people of one sex"]["value"] == 1.0
    assert found["xfavot", "i2a", "CPR, a woman and a man"]["value"] == 0.5
    assert found["ground truth", "a2i", "CPR"]["n"] == 1
    assert ("ground truth", "a2i", "CPR, a woman and a man") not in found
    assert whole["alpha"] == 1.0
    assert all(r["ci_low"] <= r["value"] <= r["ci_high"] and r["p_holm"] >= r["p"] for r in rows)
    assert {(r["dataset"], r["seed"]) for r in rows} == {("mini", 4)}


def test_no_answer_and_an_answer_given_twice_are_refused() -> None:
    refuses(DataError, "CPR of 0 answers", cpr.cpr_rows, [], dataset="mini", seed=0)
    with pytest.raises(DataError, match="1 of them given twice"):
        cpr.cpr_rows([answer("1", "t", True), answer("1", "t", False)], dataset="mini", seed=0)


GENDERS = "fffmmm"
FORMS = ("faces", "outputs")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    root = tmp_path_factory.mktemp("triplets")
    made = make_store(root, genders=GENDERS, clips=5, splits=("train", "train", "val"), seconds=0.8)
    people = {
        f"toy/s{n + 1}": {"gender": g, "age": n / 6, "size": (n % 3) / 3, "liveliness": (n % 2) / 2}
        for n, g in enumerate(GENDERS)
    }
    (made.path / "factors.json").write_text(json.dumps({"people": people, "faces": []}), "utf-8")
    return made


def converted(store: Store | list[Store], **how: Any) -> tuple[list[Triplet], Any]:
    """Triplets of an echo, and what it was asked."""
    echo: Any = Echo()
    stores = store if isinstance(store, list) else [store]
    return list(cpr.converted(echo, stores, system="m", seed=0, **how)), echo.asked


def speaker_of(store: Store, sample: Any) -> str:
    """Whose recorded face or voice it is."""
    for item in store.items:
        waves = [store.waveform(item)]
        for real in waves + [store.face(item, i) for i in range(item.face_count)]:
            if real.shape == sample.shape and np.array_equal(real, sample):
                return item.speaker
    raise AssertionError("no sample of the store")


class Echo:
    """A converter that returns the reference's mark and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    def convert_face(self, face: Any, **guidance: Any) -> Any:
        self.asked.append({"source": face, **guidance})
        return SimpleNamespace(image=np.full((64, 64, 3), len(self.asked) % 256, np.uint8))

    def convert_voice(self, voice: Any, **guidance: Any) -> Any:
        self.asked.append({"source": voice, **guidance})
        return SimpleNamespace(waveform=np.full(len(voice), len(self.asked) / 100, np.float32))


@pytest.mark.parametrize("task", cpr.TASKS)
@pytest.mark.parametrize("form", FORMS)
def test_ground_truth_is_of_the_person(store: Store, task: str, form: str) -> None:
    how: Any = {"task": task, "form": form, "count": 12, "seed": 1}
    drawn, again = (cpr.ground_truth([store], **how) for _ in range(2))
    assert Counter(t.sexes for t in drawn) == {"one sex": 6, "both sexes": 6}
    assert Counter(t.people[0] for t in drawn) == {f"toy/s{n}": 2 for n in range(1, 7)}
    for one in drawn:
        assert speaker_of(store, one.prompt) == speaker_of(store, one.match) == one.people[0]
        assert speaker_of(store, one.other) == one.people[1] != one.people[0]
        assert cpr.is_face(one.prompt) is (task == "i2a" and form == "outputs")
        assert cpr.is_face(one.match) is cpr.is_face(one.other) is not cpr.is_face(one.prompt)
    assert [t.people for t in again] == [t.people for t in drawn]


def test_a_face_follows_two_voices_and_shown_with_the_first(store: Store) -> None:
    drawn, asked = converted(store, task="a2i", form="faces", count=6)
    for number, one in enumerate(drawn):
        first, second = asked[2 * number : 2 * number + 2]
        np.testing.assert_array_equal(first["source"], second["source"])
        np.testing.assert_array_equal(one.prompt, first["voice_reference"])
        voices = (first["voice_reference"], second["voice_reference"])
        assert tuple(speaker_of(store, voice) for voice in voices) == one.people
        assert speaker_of(store, first["source"]) not in one.people
        assert (first["gender"], second["gender"]) == one.genders
        assert (one.match[0, 0, 0], one.other[0, 0, 0]) == (2 * number + 1, 2 * number + 2)


def test_a_voice_is_heard_with_its_face_or_shown_beside_another_voice(store: Store) -> None:
    forms = (converted(store, task="i2a", form=form, count=2)[0] for form in FORMS)
    for heard, shown in zip(*forms, strict=True):
        assert heard.people == shown.people  # the same questions in either form
        np.testing.assert_array_equal(heard.prompt, shown.match)
        np.testing.assert_array_equal(heard.match, shown.prompt)
        assert (speaker_of(store, heard.match), speaker_of(store, heard.other)) == heard.people
        assert not np.array_equal(shown.match, shown.other)


def test_faces_and_voices_of_different_people(tmp_path: Path) -> None:
    faces = make_store(tmp_path, corpus="f", kind="image", genders="fm", known_speakers=False)
    voices = make_store(tmp_path, corpus="v", kind="audio", genders="fm")
    both = [faces, voices]
    assert cpr.ground_truth(both, task="a2i", form="faces", count=3, seed=0) == []
    for task in cpr.TASKS:
        assert len(converted(both, task=task, form="faces", count=3)[0]) == 3
    with pytest.raises(DataError, match=r"0 people with a face as reference"):
        converted(voices, task="i2a", form="faces", count=1)


def test_the_split_is_the_first_with_two_people(tmp_path: Path) -> None:
    lone = make_store(tmp_path, corpus="b", genders="f", splits=("val",))
    more = make_store(tmp_path, corpus="c", genders="fm", splits=("unseen",))
    stores = [make_store(tmp_path, corpus="a")], [lone], [lone, more]
    assert [cpr.split_of(some) for some in stores] == ["val", "train", "unseen"]


def toy(task: str, prompt: Any, match: Any, other: Any, *people: str) -> Triplet:
    fields: Any = {"people": people or ("toy/s1", "toy/s6"), "genders": ("f", "m")}
    return Triplet(system="m", task=task, prompt=prompt, match=match, other=other, **fields)


def test_the_larger_margin_decides_and_equal_ones_count_half() -> None:
    voice, fits, odd = np.ones(9, np.float32), np.ones((2, 2, 3), np.uint8), np.zeros((2, 2, 3))
    drawn = [toy("a2i", voice, *pair) for pair in ((fits, odd), (odd, fits), (fits, fits))]
    drawn.append(toy("i2a", fits, voice, voice * 0))
    raters = {"toy": lambda t: float(t.match.max()) - float(t.other.max())}
    rows = cpr.automatic_rows(drawn, raters, dataset="d", seed=0)
    found = {(r["task"], r["metric"]): r["value"] for r in rows}
    assert found["a2i", "automatic CPR, by toy"] == 0.5
    assert found["i2a", "automatic CPR, a woman and a man, by toy"] == 1.0


def test_hidden_factors_are_read_of_what_the_task_made(store: Store) -> None:
    rater = cpr.factor_rater(store)
    draw = {"form": "faces", "count": 18, "seed": 0}
    drawn = [t for task in cpr.TASKS for t in cpr.ground_truth([store], task=task, **draw)]
    rows = cpr.automatic_rows(drawn, {"toy": rater}, dataset="toy", seed=0)
    whole = {r["task"]: r["value"] for r in rows if r["metric"] == "automatic CPR, by toy"}
    assert min(whole["a2i"], whole["i2a"]) > 0.9
    first = {item.speaker: item for item in reversed(store.items)}
    face, far = (store.face(first[f"toy/s{n}"]) for n in (1, 6))
    voice = store.waveform(store.items[0])
    silent = np.zeros(24000, np.float32)
    assert rater(toy("a2i", silent, face, far)) > 0  # the prompt is known, not read
    assert rater(toy("a2i", voice, far, face)) < 0
    flat = np.zeros((128, 128, 3), np.uint8)
    assert rater(toy("i2a", voice, flat, flat)) > 0  # here the candidates are known


def test_raters_are_those_that_stores_and_models_allow(store: Store, tmp_path: Path) -> None:
    plain = make_store(tmp_path, corpus="plain")
    models: Any = {
        "m": SimpleNamespace(has=lambda kind: True, tasks=tuple(Task)),
        "image_only": SimpleNamespace(has=lambda kind: kind == "face", tasks=tuple(Task)),
        "adain_cvc": SimpleNamespace(has=lambda kind: True, tasks=(Task.I2A,)),
    }
    raters = ["the hidden factors", "the style encoders of m"]
    assert list(cpr.raters_of([store], models)) == raters
    assert list(cpr.raters_of([plain], models)) == raters[1:]
    refuses(DataError, r"hidden factors of .* cannot be read", cpr.factor_rater, plain)
    person = {"gender": "f", "age": 0.5, "size": 0.5, "liveliness": 0.5}
    (plain.path / "factors.json").write_text(json.dumps({"people": {"plain/s1": person}}), "utf-8")
    refuses(DataError, "nothing of plain/s2", cpr.factor_rater, plain)


def test_styles_of_both_are_made_with_the_gender_of_the_prompt() -> None:
    calls: list[Any] = []

    def style(sample: Any, *, gender: str, **_: Any) -> Any:
        calls.append(gender)
        return SimpleNamespace(vector=torch.tensor([[1.0, float(sample.mean())]]))

    model: Any = SimpleNamespace(style_of_face=style, style_of_voice=style)
    rater, voice = cpr.style_rater(model), np.full(100, 3.0, np.float32)
    near, far = (np.full((2, 2, 3), value) for value in (3.0, -3.0))
    assert rater(toy("a2i", voice, near, far)) > 0 > rater(toy("a2i", voice, far, near))
    assert set(calls) == {"f"}
