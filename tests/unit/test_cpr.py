"""CPR: intervals, tests and agreement against published and hand-computed values."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from tests.conftest import refuses
from tests.unit.store_factory import make_store
from xfavot.data.store import Store
from xfavot.errors import DataError
from xfavot.evaluation import cpr
from xfavot.evaluation.cpr import Triplet

pytest.importorskip("scipy")


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
        "m": SimpleNamespace(has=lambda kind: True),
        "image_only": SimpleNamespace(has=lambda kind: kind == "face"),
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
