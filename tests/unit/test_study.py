"""The correspondence study: pages that tell nothing, a key that tells all, answers read back."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xfavot.errors import ConfigError, DataError
from xfavot.evaluation.cpr import Triplet
from xfavot.parameters import Study as Asked
from xfavot.report import Provenance
from xfavot.report import study as study_report
from xfavot.report.study import Key, checksum, open_study, read_answers, result_rows, write_study

pytest.importorskip("scipy")
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
    for system in SYSTEMS:
        for task in ("a2i", "i2a"):
            for n in range(count):
                samples = {"prompt": voice(), "match": face(), "other": face()}
                if task == "i2a" and system == SYSTEMS[1]:
                    samples = {"prompt": face(), "match": voice(), "other": voice()}
                made.append(
                    Triplet(
                        system=system,
                        task=task,
                        people=("toy/Anna", "toy/Bert"),
                        genders=("f", "fm"[n % 2]),
                        source="clip9",
                        **samples,
                    )
                )
    return made


def make(folder: Path, *, listen_ms: int = 1000, **changes: Any) -> Key:
    drawn = toy_triplets()
    cfg = Asked(out=str(folder), **({"evaluators": 3} | changes))
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
        answers.append(
            {
                "item": item,
                "choice": choice,
                "side": "A" if choice == token_a else "B",
                "ms": 4000,
                "plays": 2,
                "heard_ms": 1500,
                "at": "2026-01-01T10:00:00.000Z",
            }
        )
    content = {
        "format": "xfavot-cpr-answers",
        "version": 1,
        "study": key["study"],
        "sheet": sheet,
        "answers": answers,
    }
    if not seal:
        content["check"] = checksum(key["study"], sheet, answers)
    change(content)
    if seal and isinstance(content["answers"], list):
        try:
            content["check"] = checksum(content["study"], content["sheet"], content["answers"])
        except (TypeError, KeyError):
            content["check"] = "0"
    folder.mkdir(exist_ok=True)
    (folder / (name or f"sheet_{sheet}.json")).write_text(json.dumps(content), "utf-8")


def test_pages_ask_everything_in_orders_of_their_own(key: Key, folder: Path) -> None:
    orders = []
    for sheet in ("01", "02", "03"):
        _, data = page_of(folder, sheet)
        items = data["items"]
        assert data["sheet"] == sheet
        assert {one["id"] for one in items} == set(key["questions"])
        assert [[one["id"], one["a"]["t"]] for one in items] == key["sheets"][sheet]
        for one in items:
            asked = key["questions"][one["id"]]
            assert {one["a"]["t"], one["b"]["t"]} == set(asked["tokens"])
        firsts = [one["a"]["t"] == key["questions"][one["id"]]["tokens"][0] for one in items]
        assert sum(firsts) == len(items) / 2
        orders.append([one["id"] for one in items])
    assert len({tuple(order) for order in orders}) == 3


def test_pages_do_not_tell_what_is_right_or_who_made_it(key: Key, folder: Path) -> None:
    text, data = page_of(folder, "01")
    for word in (*SYSTEMS, "a2i", "i2a", "Anna", "Bert", "clip9", "match", "one sex", "toy"):
        outside = text.replace("matchMedia", "")
        assert not re.search(rf"\b{word}\b", outside), word
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
                assert level == pytest.approx(study_report.LEVEL_DBFS, abs=1.0)
            kinds.add((one["p"]["k"], part["k"]))
    assert kinds == {("voice", "voice"), ("voice", "face"), ("face", "face"), ("face", "voice")}


def test_the_right_token_stands_for_the_right_sample(key: Key, folder: Path) -> None:
    drawn = toy_triplets()
    _, data = page_of(folder, "02")
    shown = {one["id"]: one for one in data["items"]}
    for (item, asked), triplet in zip(key["questions"].items(), drawn, strict=True):
        one = shown[item]
        right = next(c for c in (one["a"], one["b"]) if c["t"] == asked["tokens"][asked["match"]])
        wrong = next(c for c in (one["a"], one["b"]) if c is not right)
        assert right["d"] == base64.b64encode(study_report.encode(triplet.match)).decode()
        assert wrong["d"] == base64.b64encode(study_report.encode(triplet.other)).decode()
        assert (asked["system"], asked["task"]) == (triplet.system, triplet.task)


def test_the_same_study_may_be_written_again_but_not_another_one(tmp_path: Path) -> None:
    first = make(tmp_path, evaluators=1)
    page = (tmp_path / "pages" / "sheet_01.html").read_bytes()
    assert make(tmp_path, evaluators=1) == first
    assert (tmp_path / "pages" / "sheet_01.html").read_bytes() == page
    with pytest.raises(ConfigError, match=r"where study .* lies; this would be study"):
        make(tmp_path, seed=1)
    assert open_study(tmp_path) == first
    assert open_study(tmp_path)["provenance"] == origin()
    (tmp_path / "key.json").write_text('{"schema": 1', "utf-8")
    with pytest.raises(DataError, match=r"key.json is missing or damaged"):
        open_study(tmp_path)


def test_answers_come_back_as_given_also_half_of_them(key: Key, tmp_path: Path) -> None:
    questions = key["questions"]

    def only_models(item: str) -> bool:
        return bool(questions[item]["system"] == SYSTEMS[1])

    write_answers(key, tmp_path, "01")
    write_answers(key, tmp_path, "02", right=only_models)
    write_answers(key, tmp_path, "03", count=7)
    answers = read_answers(key, tmp_path)
    assert len(answers) == 47
    rows = {(r["system"], r["task"], r["metric"]): r for r in result_rows(key, answers)}
    for task in ("a2i", "i2a"):
        assert rows[SYSTEMS[1], task, "CPR"]["value"] == 1.0
        truth = rows[SYSTEMS[0], task, "CPR"]
        asked = [questions[item] for item, _ in key["sheets"]["03"][:7]]
        some = [q for q in asked if (q["system"], q["task"]) == (SYSTEMS[0], task)]
        assert truth["n"] == 10 + len(some)
        assert truth["value"] == pytest.approx((5 + len(some)) / truth["n"])


def test_nothing_read_is_told_and_the_automatic_rows_stay(key: Key, tmp_path: Path) -> None:
    none = read_answers(key, "")
    with pytest.raises(DataError, match="no answers yet, and no automatic CPR"):
        result_rows(key, none)
    with pytest.raises(DataError, match="0 of 0 files"):
        read_answers(key, tmp_path / "absent")


def set_answer(**values: Any) -> Change:
    return lambda content: content["answers"][2].update(values)


def repeat(content: dict[str, Any]) -> None:
    content["answers"][3] = dict(content["answers"][2])


def other_side(content: dict[str, Any]) -> None:
    one = content["answers"][2]
    one["side"] = "B" if one["side"] == "A" else "A"


def drop_time(content: dict[str, Any]) -> None:
    del content["answers"][0]["ms"]


BAD: dict[str, tuple[Change, bool, str]] = {
    "other_study": (lambda c: c.update(study="ffffffffff"), True, "belongs to study 'ffffffffff'"),
    "edited": (set_answer(ms=1), False, "was changed after the page saved it"),
    "unknown_question": (set_answer(item="abc"), True, "does not fit the page"),
    "twice": (repeat, True, "does not fit the page"),
    "other_side": (other_side, True, "does not fit the page"),
    "negative": (set_answer(plays=-1), True, "does not fit the page"),
    "text_time": (set_answer(ms="4000"), True, "is damaged"),
    "missing": (drop_time, True, "is damaged"),
    "empty": (lambda c: c.update(answers=[]), True, "holds no answer"),
    "no_dict": (lambda c: c.update(answers=[1, 2]), True, "is damaged"),
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
    (tmp_path / "large.json").write_bytes(b" " * (study_report.LARGEST_BYTES + 1))
    with pytest.raises(DataError) as error:
        read_answers(key, tmp_path)
    for told in (
        "sheet_01.json: sheet 01 is in sheet_01 (1).json, too; keep one",
        "cut.json: ",
        "large.json: it has 5000001 bytes",
    ):
        assert told in str(error.value)


def test_a_silent_voice_and_a_page_too_large_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match="voice of 100 samples has the level 0"):
        study_report.encode(np.zeros(100, np.float32))
    with pytest.raises(DataError, match="level nan"):
        study_report.encode(np.full(100, np.nan, np.float32))
    monkeypatch.setattr(study_report, "MOST_BYTES", 50_000)
    with pytest.raises(DataError, match="ask for fewer triplets"):
        make(tmp_path)
    assert not (tmp_path / "key.json").exists()
