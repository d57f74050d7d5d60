"""The correspondence study: how it is made, pages that tell nothing, answers read back."""

from __future__ import annotations

import base64
import dataclasses
import io
import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("scipy")

from tests.conftest import refuses
from tests.unit.store_factory import make_store
from tests.unit.test_convert import loaded
from xfavot import report
from xfavot.audio.vocoder import GriffinLim
from xfavot.errors import ConfigError, DataError
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
