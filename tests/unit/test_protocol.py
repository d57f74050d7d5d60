"""The paper's protocol on a checkpoint: who meets whom, every part, what is kept, bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.unit.store_factory import make_store
from tests.unit.test_evaluation import loaded
from tests.unit.test_foreign_outputs import Encoder, Recogniser
from xfavot.audio.vocoder import GriffinLim
from xfavot.convert.converter import Converter, Task
from xfavot.data.store import Store
from xfavot.errors import ConfigError, DataError
from xfavot.evaluation import images, judges, protocol, voices
from xfavot.evaluation.images import Direction, Metrics
from xfavot.evaluation.manifest import Output
from xfavot.evaluation.protocol import PARTS, VoiceStudy
from xfavot.parameters import METRICS, Evaluate
from xfavot.report import artifact
from xfavot.training.checkpoint import LoadedModel

SPLITS = ("train", "val", "unseen")
FACE_TASKS, VOICE_TASKS = {"i2i", "a2i", "z2i"}, {"a2a", "i2a", "z2a"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    root = tmp_path_factory.mktemp("protocol")
    return make_store(root, genders="ffmm", clips=3, faces=2, seconds=1.1, splits=SPLITS)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(judges, "STEPS", {"face": 1, "voice": 1})
    monkeypatch.setattr(judges, "BATCH_SIZE", 4)
    monkeypatch.setattr(voices, "SpeakerEncoder", lambda **_: Encoder())
    monkeypatch.setattr(voices, "load_recogniser", lambda *_, **__: Recogniser())
    monkeypatch.setattr(voices, "world_f0", melody)  # WORLD takes seconds


def evaluate(model: LoadedModel, *stores: Store, **given: Any) -> protocol.Evaluation:
    options: dict[str, Any] = {
        "dataset": "toy",
        "vocoder": GriffinLim(iterations=1),
        "conversions": 2,
        "recogniser": voices.SPHINX_GRID,
        "weights": model.path / "no weights",
    }
    return protocol.evaluate(model, stores, **(options | given))


def melody(wave: np.ndarray) -> np.ndarray:
    return (200 + 20 * np.sin(np.arange(len(wave) // 300 + 1))).astype(np.float32)


class Sound(GriffinLim):
    """A vocoder that gives one value for every sample."""

    def __init__(self, value: float) -> None:
        super().__init__(iterations=1)
        self.value = value

    def __call__(self, log_mel: torch.Tensor, *, length: int | None = None) -> np.ndarray:
        return np.full(length or 24_000, self.value, np.float32)


def test_every_part_is_measured_and_kept(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = loaded(store, tmp_path)
    options: dict[str, Any] = {
        "metrics": ("fid", "speaker_similarity", "word_error", "f0"),
        "substitute": "judge",
    }
    found = evaluate(model, store, **options)
    for row in artifact.plain_rows("evaluation", found.rows, "smoke"):
        artifact.require_columns(row["metric"], row)
    for speakers in ("seen", "unseen"):
        own = [row for row in found.rows if row["speakers"] == speakers]
        assert {row["task"] for row in own} == {
            *FACE_TASKS,
            *VOICE_TASKS,
            *("faces", "sources", "references"),
        }
    label = "frechet, judge of the faces of toy"
    rows = [r for r in found.rows if (r["task"], r["metric"]) == ("a2i", label)][:3]
    assert [row["direction"] for row in rows] == ["female to male", "male to female", "mean"]
    assert [row["sex"] for row in rows] == ["male", "female", ""]
    assert [row["n"] for row in rows] == [20, 20, 40]  # ten outputs of two faces
    assert rows[2]["value"] == pytest.approx((rows[0]["value"] + rows[1]["value"]) / 2)
    assert {row["guidance"] for row in rows} == {"voice"}
    words = [r for r in found.rows if (r["task"], r["metric"]) == ("i2a", "word_error")]
    assert [row["n"] for row in words if not row["sex"]] == [2, 2]
    assert sum(row["n"] for row in words if row["direction"]) == 4
    assert "fetch-weights inception_torchvision" in reasons(found)["i2i", "fid_stargan_v2"]
    assert "nobody's" in reasons(found)["z2a", "speaker_similarity"]
    assert not [one for one in found.missing if one["metric"].startswith(("nisqa", "lpips"))]
    assert not list(found.folder.glob(".voices_*"))

    monkeypatch.setattr(Converter, "convert_voice", None)  # a second run converts nothing
    monkeypatch.setattr(protocol, "_convert", None)
    again = evaluate(model, store, **options)
    assert again.rows == found.rows
    with pytest.raises(TypeError):
        evaluate(model, store, **options, seed=1)

    table = protocol.save(found)
    assert "Reduced: 2 voices a task" in table.read_text("utf-8")
    back = artifact.from_csv(table.with_suffix(".csv").read_text("utf-8"))
    assert [row["value"] for row in back] == [row["value"] for row in found.rows]
    assert table.with_name("missing.csv").read_text("utf-8").startswith("system,task,speakers,")
    assert json.loads(table.with_suffix(".json").read_text())["step"] == 7


def test_styles_tell_whose_face_and_voice_are_one(store: Store, tmp_path: Path) -> None:
    model = loaded(store, tmp_path / "both")
    found = evaluate(model, store, metrics=("verification", "word_error"))
    for speakers in ("seen", "unseen"):
        rows = {
            (row["metric"], row["direction"]): row
            for row in found.rows
            if (row["task"], row["speakers"]) == (protocol.VERIFICATION, speakers)
        }
        for way in ("face to voice", "voice to face"):
            assert rows["R@1", way]["chance"] == pytest.approx(1 / 4)
            assert rows["R@1 within one sex", way]["chance"] == pytest.approx(1 / 2)
        for part, pairs in (("all pairs", 8 * 4), ("pairs of one sex", 8 * 2)):  # faces, voices
            auc = rows[f"verification AUC, {part}", ""]
            assert 0 <= auc["ci_low"] <= auc["value"] <= auc["ci_high"] <= 1
            assert auc["n"] == pairs
    deaf = loaded(store, tmp_path / "deaf", modalities=("image",))
    found = evaluate(deaf, store, metrics=("verification", "fid"), substitute="judge")
    assert "trained without voices" in reasons(found)[protocol.VERIFICATION, "all"]
    assert not [row for row in found.rows if row["task"] == protocol.VERIFICATION]


def reasons(found: protocol.Evaluation) -> dict[tuple[str, str], str]:
    return {(one["task"], one["metric"]): one["reason"] for one in found.missing}


def test_an_image_is_that_of_the_converter(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    converter = Converter(loaded(store, tmp_path), vocoder=GriffinLim(iterations=1))
    caught: list[Any] = []
    monkeypatch.setattr(images, "score", lambda *a, **k: caught.append((a, k)) or [])
    named = {"system": "toy", "dataset": "toy", "seed": 0}
    for task in (Task.I2I, Task.A2I):
        protocol.score_faces(task, "seen", converter, [store], Metrics(missing={}), {}, **named)
    women = [i for i in store.items if (i.split, i.gender) == ("val", "f")]
    men = [i for i in store.items if (i.split, i.gender) == ("val", "m")]
    for (generate, directions, *_), options in caught:
        direction: Direction = directions[1]
        assert direction.name == "male to female"
        assert options["batch"] == direction.references
        made = generate(direction, torch.tensor([3]), torch.tensor([[1, 0]]))  # (1, 2, 3, H, W)
        guidance: dict[str, Any] = (
            {"voice_reference": store.waveform(women[1])}
            if direction.references == len(women)
            else {"face_reference": store.face(women[0], 1), "reference_aligned": True}
        )
        wanted = converter.convert_face(
            store.face(men[1], 1), aligned=True, gender="f", **guidance
        ).image
        pixels = images.to_bytes(made)[0, 0].permute(1, 2, 0).numpy()
        assert np.abs(pixels.astype(int) - wanted.astype(int)).max() <= 1
    assert {a[1][0].references for a, _ in caught} == {4, 2}
    protocol.score_real_faces("seen", [store], Metrics(missing={}), {}, size=128, **named)
    generate, directions, *_ = caught[-1][0]
    real = generate(directions[1], torch.tensor([3]), torch.tensor([[1, 0]]))[0, 0]
    assert np.array_equal(real.permute(1, 2, 0).numpy(), store.face(women[0], 1))


def test_pairs_are_random_different_people_and_the_same_again(tmp_path: Path) -> None:
    store = make_store(
        tmp_path, genders="ffmm", clips=3, faces=2, seconds=0.2, splits=("train", "val", "val")
    )

    def study(**given: Any) -> VoiceStudy:
        options = {"stores": [store], "speakers": "seen", "folder": tmp_path, "seed": 0}
        return VoiceStudy(**(options | given))

    counts = {task: len(study().pairs(task)) for task in protocol.VOICE_TASKS}
    assert counts == {Task.A2A: 140, Task.I2A: 180, Task.Z2A: 140}  # the paper's
    pairs = study().pairs(Task.I2A)
    assert all(p.reference and p.reference.item.speaker != p.source.item.speaker for p in pairs)
    assert {p.source.item.split for p in pairs} == {"val"}
    outputs = [
        (
            p,
            Output(
                line=0,
                task=Task.I2A,
                source=tmp_path,
                reference=None,
                output=tmp_path,
                model=p.source.item.gender,
                gender=p.gender,
            ),
            "",
        )
        for p in pairs
    ]
    parts = {name: own for name, _, own in protocol._parts(outputs) if name}
    for source, target in (("female", "female"), ("female", "male"), ("male", "female")):
        assert {(o.model, o.gender) for o in parts[f"{source} to {target}"]} == {
            (source[0], target[0])
        }
    assert sum(map(len, parts.values())) == 180
    names = [[p.source.name for p in study(seed=s).pairs(Task.A2A)] for s in (0, 0, 1)]
    assert names[0] == names[1] != names[2]
    assert names[0] == [p.source.name for p in pairs][:140]
    (name, *_) = {p.reference.item.speaker for p in pairs if p.reference}
    told = study().told([name, ""], tmp_path / "source.wav")
    assert len(told) == 3  # all its utterances, of any split
    assert {one.speaker for one in told} == {name}


def test_a_damaged_part_is_measured_again(store: Store, tmp_path: Path) -> None:
    model = loaded(store, tmp_path)
    first = evaluate(model, store, metrics=("f0",), conversions=1)
    assert {row["task"] for row in first.rows} == VOICE_TASKS
    metrics = {row["metric"] for row in first.rows}
    assert metrics <= {
        "unusable_outputs",
        "f0_correlation",
        "voicing_agreement",
        "gender_agreement_f0",
    }
    for file in (first.folder / PARTS).iterdir():
        file.write_text(file.read_text()[:50])
    assert evaluate(model, store, metrics=("f0",), conversions=1).rows == first.rows


@pytest.mark.parametrize(
    ("value", "said"), [(0.0, "silent"), (float("nan"), "not converted: waveform for a2a/0000.wav")]
)
def test_conversions_that_cannot_be_heard(
    store: Store, tmp_path: Path, value: float, said: str
) -> None:
    found = evaluate(
        loaded(store, tmp_path),
        store,
        metrics=("f0", "word_error"),
        vocoder=Sound(value),
        conversions=1,
    )
    share = [r["value"] for r in found.rows if r["metric"] == "unusable_outputs" and not r["sex"]]
    assert share == [1.0] * 6
    assert {r["metric"] for r in found.rows if r["system"] != "ground truth"} == {
        "unusable_outputs"
    }
    told = [one["reason"] for one in found.missing if one["task"] == "a2a"]
    assert any(said in reason for reason in told)
    assert not any(str(tmp_path) in reason for reason in told)


def test_a_checkpoint_without_voices(store: Store, tmp_path: Path) -> None:
    model = loaded(store, tmp_path, modalities=("image",))
    found = evaluate(model, store, metrics=("fid", "f0"), substitute="judge", conversions=1)
    assert {row["task"] for row in found.rows} == {"i2i", "z2i", "faces"}
    for task in ("a2i", *VOICE_TASKS):
        assert "was trained without voices" in reasons(found)[task, "all"]


def test_faces_and_voices_of_nobody_in_common(store: Store, tmp_path: Path) -> None:
    splits = ("train", "val")
    stores = [
        make_store(
            tmp_path, corpus="faces", kind="image", clips=2, splits=splits, known_speakers=False
        ),
        make_store(tmp_path, corpus="voices", kind="audio", clips=2, splits=splits),
    ]
    found = evaluate(
        loaded(store, tmp_path),
        *stores,
        metrics=("fid", "speaker_similarity"),
        substitute="judge",
        conversions=1,
    )
    told = reasons(found)
    assert "no voice of the reference's person" in told["i2a", "speaker_similarity"]
    assert "expected women and men" in told["a2i", "frechet, judge of the faces of toy"]
    assert "unseen" in told["", "all"]  # nobody was left out
    assert {row["task"] for row in found.rows if row["metric"] == "speaker_similarity"} >= {"a2a"}


def test_one_speaker_alone(store: Store, tmp_path: Path) -> None:
    alone = make_store(tmp_path, genders="f", clips=2, splits=("train", "val"))
    found = evaluate(loaded(store, tmp_path), alone, metrics=("speaker_similarity", "word_error"))
    told = reasons(found)
    for task in ("a2a", "i2a"):
        assert "of another person among" in told[task, "all"]
    assert {row["task"] for row in found.rows} == {"z2a", "sources", "references"}
    with pytest.raises(DataError, match=r"nothing could be measured.*expected women and men"):
        evaluate(loaded(store, tmp_path), alone, metrics=("fid",), substitute="judge")


def test_women_alone_have_no_direction(store: Store, tmp_path: Path) -> None:
    maker = Converter(loaded(store, tmp_path), vocoder=GriffinLim(iterations=1))
    alone = make_store(tmp_path, genders="f", clips=2, splits=("train", "val"))
    with pytest.raises(DataError, match="female to male: 2 female faces and 0 male references"):
        protocol.score_faces(
            Task.I2I,
            "seen",
            maker,
            [alone],
            Metrics(missing={}),
            {},
            system="toy",
            dataset="toy",
            seed=0,
        )


def test_settings() -> None:
    assert set(protocol.PREFIXES) == set(METRICS)
    assert Evaluate.resolve(dataset="mini").count == 24
    assert Evaluate.resolve(dataset="grid").count == 0
    cfg = Evaluate.resolve(metrics="nisqa, fid", conversions=5, substitute="judge")
    assert (cfg.chosen, cfg.count, cfg.substitute) == (("fid", "nisqa"), 5, "judge")
    for wrong in ({"metrics": "mos"}, {"metrics": " "}, {"conversions": -2}, {"substitute": "x"}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            Evaluate.resolve(**wrong)
