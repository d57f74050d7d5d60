"""The paper's protocol on a checkpoint: who meets whom, every part, what is kept, bad input."""

from __future__ import annotations

import dataclasses
import json
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import Patch
from tests.unit.store_factory import make_store
from tests.unit.test_evaluation import loaded
from tests.unit.test_external_outputs import Encoder, Recogniser, melody
from tests.unit.training_factory import shared_store
from xfavot import report
from xfavot.audio.vocoder import GriffinLim
from xfavot.convert.converter import Converter, Task
from xfavot.data.store import Store
from xfavot.evaluation import classifiers, conversions, images, protocol, voice_networks, voices
from xfavot.evaluation.conversions import Sample, Study, pixels, plan
from xfavot.evaluation.manifest import Group, Output
from xfavot.evaluation.protocol import Evaluation
from xfavot.parameters import Evaluate
from xfavot.training.checkpoint import LoadedModel

SPLITS = ("train", "val", "unseen")
FACE_TASKS, VOICE_TASKS = {"i2i", "a2i", "z2i"}, {"a2a", "i2a", "z2a"}
LABEL = "frechet, judge of the faces of mini"
Rows = list[dict[str, Any]]


@pytest.fixture(scope="module", autouse=True)
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with Patch.context() as patch:
        patch.setenv("XFAVOT_WEIGHTS", str(tmp_path_factory.mktemp("none")))
        patch.setattr(classifiers, "STEPS", {"face": 1, "voice": 1})
        patch.setattr(classifiers, "BATCH_SIZE", 4)
        patch.setattr(conversions, "BATCH", 4)
        patch.setattr("xfavot.convert.converter.vocoder_of", lambda _: GriffinLim(iterations=1))
        patch.setattr(voice_networks, "SpeakerEncoder", Encoder)
        patch.setitem(voice_networks.RECOGNISERS, "pocketsphinx_grid", Recogniser)
        patch.setattr(voices, "world_f0", melody)
        yield


store = shared_store(genders="ffmm", clips=3, faces=2, seconds=0.6, splits=SPLITS)


def opened(model: LoadedModel, *stores: Store, metrics: str, **given: Any) -> Evaluation:
    options: dict[str, Any] = {"conversions": 2, "recogniser": "pocketsphinx_grid"} | given
    cfg = Evaluate.resolve(dataset="mini", device="cpu", metrics=metrics, **options)
    return protocol.of_checkpoint(cfg, model, stores)


def results(model: LoadedModel, *stores: Store, **given: Any) -> tuple[Rows, dict[Any, str]]:
    """Scores, and reasons by task and metric."""
    scores, missing = opened(model, *stores, **given).results()
    told: dict[Any, str] = defaultdict(str)
    for one in missing:
        told[one["task"], one["metric"]] += one["reason"]
    return scores, told


def test_the_draw_is_that_of_stargan_v2() -> None:
    blocks = list(plan("female to male", 10, 9, seed=1, outputs=3, batch=4))
    assert [tuple(references.shape) for _, references in blocks] == [(4, 3), (4, 3), (2, 3)]
    assert sorted(torch.cat([s for s, _ in blocks]).tolist()) == list(range(10))
    drawn = [references[:, j].tolist() for _, references in blocks for j in range(3)]
    # nine references make two whole batches of four; then they are shuffled again
    assert all(one != two for one, two in pairwise(drawn[::2]))
    assert all(not {*one} & {*two} for one, two in zip(drawn[::2], drawn[1::2], strict=False))
    assert max(map(max, drawn)) == 8
    whole = list(plan("female to male", 1000, 1000, seed=0, batch=32))  # the paper's
    assert [len(sources) for sources, _ in whole] == [32] * 31 + [8]
    assert sum(references.numel() for _, references in whole) == 10_000


def test_every_part_is_kept(store: Store, tmp_path: Path, monkeypatch: Patch) -> None:
    model = loaded(store, tmp_path)
    families = "fid, speaker_similarity, word_error, f0, verification"
    options = {"metrics": families, "substitute": "judge"}
    evaluation = opened(model, store, **options)
    scores, missing = evaluation.results()
    for row in report.plain_rows("evaluation", scores):
        report.require_columns(row["metric"], row)
    for speakers in ("seen", "unseen"):
        own = [row for row in scores if row["speakers"] == speakers]
        real = {"faces", "sources", "references", "verification"}
        assert {row["task"] for row in own} == FACE_TASKS | VOICE_TASKS | real
        styles = {
            (r["metric"], r["direction"]): r for r in own if r["task"] == "verification"
        }  # whose face and voice are one
        for way in ("face to voice", "voice to face"):
            assert styles["R@1", way]["chance"] == pytest.approx(1 / 4)
            assert styles["R@1 within one sex", way]["chance"] == pytest.approx(1 / 2)
        for part, pairs in (("all pairs", 8 * 4), ("pairs of one sex", 8 * 2)):  # faces, voices
            auc = styles[f"verification AUC, {part}", ""]
            assert 0 <= auc["ci_low"] <= auc["value"] <= auc["ci_high"] <= 1
            assert auc["n"] == pairs
    rows = [r for r in scores if (r["task"], r["metric"]) == ("a2i", LABEL)][:3]
    cells = [tuple(row[name] for name in ("direction", "sex", "n", "guidance")) for row in rows]
    assert cells == [  # ten outputs of two faces
        ("female to male", "male", 20, "voice"),
        ("male to female", "female", 20, "voice"),
        ("mean", "", 40, "voice"),
    ]
    assert rows[2]["value"] == pytest.approx((rows[0]["value"] + rows[1]["value"]) / 2)
    words = [r for r in scores if (r["task"], r["metric"]) == ("i2a", "word_error")]
    assert [row["n"] for row in words if not row["sex"]] == [2, 2]
    assert sum(row["n"] for row in words if row["direction"]) == 4
    told = {(one["task"], one["metric"]): one["reason"] for one in missing}
    assert "fetch-weights inception_torchvision" in told["i2i", "fid_stargan_v2"]
    assert "nobody's" in told["z2a", "speaker_similarity"]
    assert not [one for one in missing if one["metric"].startswith(("nisqa", "lpips"))]
    assert json.loads(evaluation.save().with_suffix(".json").read_text())["step"] == 7

    monkeypatch.setattr(Converter, "convert_voice", None)  # a second run converts nothing
    monkeypatch.setattr(Study, "convert_faces", None)
    assert opened(model, store, **options).results() == (scores, missing)
    _, told = results(model, store, **options, seed=1)  # another seed converts anew
    assert "not callable" in told["a2a", "all"]
    assert "not callable" in told["a2i", "fid_stargan_v2"]


def test_a_checkpoint_of_faces_alone(store: Store, tmp_path: Path) -> None:
    deaf = loaded(store, tmp_path, modalities=("image",))
    scores, told = results(deaf, store, metrics="fid, f0, verification", substitute="judge")
    assert {row["task"] for row in scores} == {"i2i", "z2i", "faces"}
    for task in ("a2i", *VOICE_TASKS):
        assert "was trained on faces;" in told[task, "all"]
    assert "expected one trained on voices too" in told["verification", "verification"]


def study(store: Store, folder: Path, model: LoadedModel, seed: int = 0) -> Study:
    cfg = Evaluate.resolve(dataset="mini", device="cpu", seed=seed, conversions=0)
    return Study(Converter(model, vocoder=GriffinLim(iterations=1)), [store], cfg, "seen", folder)


def test_images_as_converted(store: Store, tmp_path: Path, monkeypatch: Patch) -> None:
    own = study(store, tmp_path, loaded(store, tmp_path))
    met = torch.tensor([3]), torch.tensor([[1, 0]])
    monkeypatch.setattr(conversions, "plan", lambda *_, **__: iter([met]))
    women, men = ([i for i in store.items if (i.split, i.gender) == ("val", sex)] for sex in "fm")
    reference, size = Sample(store, women[0], 1), own.converter.image_size
    face = {"face_reference": store.face(women[0], 1), "reference_aligned": True}
    voice = {"voice_reference": store.waveform(women[1])}
    for task, given in ((Task.A2I, voice), (Task.I2I, face)):
        (made,) = own.faces(task).blocks("male to female")  # (1, 2, 3, H, W)
        options: dict[str, Any] = {"aligned": True, "gender": "f", **given}
        wanted = own.converter.convert_face(store.face(men[1], 1), **options).image
        shown = images.to_bytes(made)[0, 0].permute(1, 2, 0).numpy()
        assert np.abs(shown.astype(int) - wanted.astype(int)).max() <= 1
        pairs = own.faces(task).pairs
        assert pairs is not None
        ((before, after, *shown_too),) = pairs("male to female")
        assert len(shown_too) == (task is Task.I2I), "the reference, where it is a face"
        assert all(torch.equal(one, pixels([reference], size)) for one in shown_too)
        assert np.array_equal(after[0].permute(1, 2, 0).numpy(), shown)
        assert before.shape == after.shape
    (real,) = own.faces(None).blocks("male to female")
    assert torch.equal(real[0, :1], pixels([reference], size))


def test_pairs_are_random_different_people_and_the_same_again(tmp_path: Path) -> None:
    splits = ("train", "val", "val")
    store = make_store(tmp_path, genders="ffmm", clips=3, faces=2, seconds=0.2, splits=splits)
    model = loaded(store, tmp_path)
    own, again, other = (study(store, tmp_path, model, seed) for seed in (0, 0, 1))
    counts = [len(own.pairs(task)) for task in (Task.A2A, Task.I2A, Task.Z2A)]
    assert counts == [140, 180, 140]  # the paper's
    pairs = own.pairs(Task.I2A)
    for source, gender, reference in pairs:
        assert reference is not None
        assert reference.item.speaker != source.item.speaker
        assert (reference.item.gender, source.item.split) == (gender, "val")
    drawn = (one.pairs(Task.A2A) for one in (own, again, other))
    names, same, others = ([source.name for source, *_ in some] for some in drawn)
    assert names == same != others
    assert len(own.utterances(pairs[0][0].item.speaker)) == 3  # all of them, of any split
    assert own.utterances("") == own.utterances("nobody") == []


def test_voices_are_averaged_by_direction_and_by_sex() -> None:
    shared: dict[str, Any] = {"task": Task.A2A, "reference": None, "source": Path("s")}
    samples = {
        Output(**shared, output=Path(str(n)), source_gender=a, gender=b): (float(n), 1.0)
        for n, (a, b) in enumerate(("ff", "mf", "fm", "mf"))
    }
    rows = Group(names={}).average(samples, seed=0)
    found = {(row["direction"], row["sex"]): (row["value"], row["n"]) for row in rows}
    assert found == {
        ("", ""): (1.5, 4),
        ("female to female", "female"): (0, 1),
        ("male to female", "female"): (2, 2),
        ("female to male", "male"): (2, 1),
        ("", "female"): (pytest.approx(4 / 3), 3),
        ("", "male"): (2, 1),
    }


@pytest.mark.parametrize(
    ("value", "said"), [(0.0, "silent"), (float("nan"), "not converted: waveform for a2a/0000.wav")]
)
def test_nothing_to_hear(
    store: Store, tmp_path: Path, monkeypatch: Patch, value: float, said: str
) -> None:
    def sound(self: Any, log_mel: torch.Tensor, *, length: int) -> np.ndarray:
        return np.full(length, value, np.float32)

    monkeypatch.setattr(GriffinLim, "__call__", sound)
    metrics = "f0, word_error, content"
    scores, told = results(loaded(store, tmp_path), store, metrics=metrics, conversions=1)
    share = [r["value"] for r in scores if r["metric"] == "unusable_outputs" and not r["sex"]]
    assert share == [1.0] * 6
    assert {r["metric"] for r in scores if r["system"] != "ground truth"} == {"unusable_outputs"}
    assert said in told["a2a", "all"]
    assert not any(str(tmp_path) in reason for reason in told.values())


def test_one_sample_fails(store: Store, tmp_path: Path, monkeypatch: Patch) -> None:
    style_of_voice, convert = Converter.style_of_voice, Study.convert_faces
    broken = store.waveform(next(i for i in store.items if i.split == "val"))

    def encode(self: Converter, voice: Any, **given: Any) -> Any:
        if np.array_equal(voice, broken):
            raise RuntimeError("Kernel size can't be greater than actual input size")
        return style_of_voice(self, voice, **given)

    def burst(self: Study, x: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        made = convert(self, x, style)
        made[1:2, 0, 0, 0, 0] = torch.nan
        return made

    monkeypatch.setattr(Converter, "style_of_voice", encode)
    monkeypatch.setattr(Study, "convert_faces", burst)
    options = {"metrics": "fid, word_error", "substitute": "judge", "conversions": 3}
    scores, told = results(loaded(store, tmp_path), store, **options)
    counts = [r["n"] for r in scores if (r["task"], r["metric"]) == ("i2i", LABEL)]
    assert counts == [20, 20, 40] * 2  # two of three sources
    assert "not finite" in told["i2i", LABEL]
    assert "RuntimeError: Kernel" in told["a2i", LABEL]  # of one woman; the other guides all men
    counts = [r["n"] for r in scores if (r["task"], r["metric"]) == ("a2i", LABEL)]
    assert counts == [30, 30, 60, 20, 20, 40]  # seen: one reference left, so one source a block
    words = [r for r in scores if (r["task"], r["metric"]) == ("a2a", "word_error")]
    assert words[0]["n"] in (1, 2, 3)


def test_faces_and_voices_of_nobody_in_common(store: Store, tmp_path: Path) -> None:
    given: dict[str, Any] = {"clips": 2, "splits": ("train", "val"), "seconds": 0.6}
    stores = [
        make_store(tmp_path, corpus="faces", kind="image", known_speakers=False, **given),
        make_store(tmp_path, corpus="voices", kind="audio", **given),
    ]
    options = {"metrics": "fid, speaker_similarity", "substitute": "judge", "conversions": 1}
    scores, told = results(loaded(store, tmp_path), *stores, **options)
    assert "no voice of the reference's person" in told["i2a", "speaker_similarity"]
    assert "expected women and men" in told["a2i", LABEL]
    assert "no voice of unseen speakers" in told["", "all"]  # nobody was left out
    assert {row["task"] for row in scores if row["metric"] == "speaker_similarity"} >= {"a2a"}


@pytest.mark.parametrize("counted", [False, True])
def test_one_man_alone(store: Store, tmp_path: Path, counted: bool) -> None:
    """No head that never learnt is evaluated, by the data or by the checkpoint's own count."""
    splits, model = ("train", "val"), loaded(store, tmp_path)
    data = store
    if counted:
        heads = {"G_I": [9], "G_A": [9], "E_I": [0, 9], "E_A": [0, 9], "C_A": [0, 9, 0, 0, 0, 0]}
        model = dataclasses.replace(model, trained={**heads, "M": [0, 9, 0, 0, 0, 0]})
    else:
        data = make_store(tmp_path, genders="m", clips=2, splits=splits, seconds=0.6)
    metrics = "fid, f0, speaker_similarity, word_error"
    scores, told = results(model, data, metrics=metrics, substitute="judge")
    made = [row for row in scores if row["system"] != "ground truth"]
    assert {row["sex"] for row in made} == {"male", ""}
    assert "male to female" not in {row["direction"] for row in made}
    assert {row["task"] for row in made} >= {"z2a"}
    if counted:
        assert "2 male faces and 0 female references of a kind" in told["i2i", LABEL]
        return
    for task in ("a2a", "i2a"):
        assert "no reference of another person" in told[task, "all"]
    assert "female to male: 0 female faces and 2 male references" in told["i2i", "all"]
    assert {row["task"] for row in scores} == {"z2a", "sources", "references"}
