"""Evaluation: retrieval, what a conversion carries, classifiers that are kept, tidy tables."""

from __future__ import annotations

import csv
import dataclasses
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.unit.store_factory import make_store
from xfavot.config import ModelConfig, RunConfig
from xfavot.data.store import Store, mel_statistics
from xfavot.errors import DataError, WeightsError
from xfavot.evaluation import classifiers, learning, rows
from xfavot.evaluation.classifiers import (
    Labelled,
    People,
    Reading,
    VoiceClassifier,
    crop,
    people_of,
    speakers_of,
)
from xfavot.evaluation.learning import Grid, measures, random_difference, spread
from xfavot.evaluation.matching import StyleSpace, draw_each, means, retrieval
from xfavot.models.content import ContentNetwork
from xfavot.models.f0 import F0Network
from xfavot.models.xfavot import XFaVoT
from xfavot.training.checkpoint import LoadedModel

SIZE, FRAMES = 16, 80


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    root = tmp_path_factory.mktemp("evaluation")
    return make_store(root, genders="ffmm", clips=3, faces=2, seconds=1.1)


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifiers, "STEPS", {"face": 2, "voice": 2})
    monkeypatch.setattr(classifiers, "BATCH_SIZE", 4)
    monkeypatch.setattr(learning, "SOURCES", 4)
    monkeypatch.setattr(learning, "REFERENCES", 8)
    monkeypatch.setattr(learning, "MOST_CLIPS", 2)


def loaded(store: Store, path: Path, **train: Any) -> LoadedModel:
    torch.manual_seed(0)
    image = {"image_size": SIZE, "image_width": 4, "image_max_width": 8, "image_levels": 2}
    audio = {"mel_frames": FRAMES, "audio_width": 4, "audio_max_width": 8, "speakers": 4}
    frozen = {"f0_width": 4, "f0_channels": 4, "content_width": 8, "content_channels": 4}
    styles = {"style_dim": 8, "latent_dim": 4, "mapping_width": 8}
    model = ModelConfig(**image, **audio, **frozen, **styles)
    cfg = RunConfig(name="toy", model=model)
    loss = dataclasses.replace(cfg.loss, xm=0.0)
    cfg = dataclasses.replace(cfg, loss=loss, train=dataclasses.replace(cfg.train, **train))
    networks = {
        "nets": XFaVoT(model),
        "f0": F0Network.from_config(model),
        "content": ContentNetwork.from_config(model, depth=1),
    }
    return LoadedModel(
        **{name: net.requires_grad_(False).eval() for name, net in networks.items()},
        standardiser=mel_statistics([store], split="train"),
        config=cfg,
        speakers=tuple(speakers_of([store], ["train"])),
        step=7,
        path=path / "runs" / "toy" / "checkpoints" / "step_7",
    )


def people(store: Store, split: str) -> People:
    return people_of([store], split, speakers_of([store], ["val"]), SIZE)


def test_the_protocol_gives_every_row_and_keeps_classifiers(store: Store, tmp_path: Path) -> None:
    model, said = loaded(store, tmp_path), list[str]()
    how: dict[str, Any] = {"seed": 0, "device": "cpu", "on_log": said.append}
    found = learning.evaluate_learning(model, [store], **how)
    judged = {"judge of faces", "judge of voices", "face to voice", "voice to face"}
    assert {row["task"] for row in found} == judged | {"i2i", "a2i", "z2i", "i2a", "a2a", "z2a"}
    asked = {(row["task"], row["metric"]) for row in found if row["goal"]}
    assert asked >= {(t, "identity of the reference") for t in ("i2i", "a2i", "i2a", "a2a")}
    assert ("a2i", "diversity over the references, L1") in asked
    assert not any("pose" in row["metric"] for row in found), "the factory knows no pose"
    assert all(np.isfinite(row["value"]) and row["n"] > 0 for row in found)
    assert (found[0]["step"], found[0]["manifest"]) == (7, store.manifest_hash)
    pairs = [row["n"] for row in found if row["metric"] == "sex of the reference, all pairs"]
    assert set(pairs) == {4 * 8 * 3 // 4}, "own pairs are left out"
    assert any("training" in line for line in said)

    (kept,) = (tmp_path / "runs" / "auxiliary").glob("classifiers_*")
    said.clear()
    assert learning.evaluate_learning(model, [store], **how) == found
    assert not any("training" in line for line in said)
    kept.write_bytes(b"short")
    with pytest.raises(WeightsError, match="delete it"):
        learning.evaluate_learning(model, [store], **how)


def test_a_model_of_faces_alone_and_a_store_without_both_sexes(
    store: Store, tmp_path: Path
) -> None:
    model, said = loaded(store, tmp_path, modalities=("image",)), list[str]()
    how: dict[str, Any] = {"seed": 0, "device": "cpu", "on_log": said.append}
    found = learning.evaluate_learning(model, [store], **how)
    assert {row["task"] for row in found} == {"judge of faces", "i2i", "z2i"}
    women = make_store(tmp_path, genders="ff", clips=3, seconds=1.1)
    assert learning.measure_and_save(model, [women], **how) is None
    assert "expected women and men" in said[-1]
    assert not learning.results_folder(model).exists()


def test_people_are_those_of_the_split(store: Store) -> None:
    held_out = people(store, "val")
    assert held_out.speakers == ("toy/s1", "toy/s2", "toy/s3", "toy/s4")
    assert held_out.gender.tolist() == [0, 0, 1, 1]
    assert held_out.faces.x.shape == (4 * 2, 3, SIZE, SIZE)
    assert held_out.faces.speaker.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    expected = torch.tensor([20.0, 20.0, 10.0]) / 127.5 - 1  # colour(speaker 2, clip 2, face 1)
    torch.testing.assert_close(held_out.faces.x[5, :, 0, -1], expected)
    voices = held_out.voices(FRAMES)
    assert voices.x.shape == (8, 80, FRAMES)
    assert voices.gender.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    with pytest.raises(DataError, match="faces of toy are not stored at a multiple of 10 pixels"):
        people_of([store], "val", speakers_of([store], ["val"]), 10)


def test_crop_places_and_reflection() -> None:
    clip = torch.arange(10.0).expand(80, 10)
    assert crop(clip, 4, 0.0)[0].tolist() == [0, 1, 2, 3]
    assert crop(clip, 4, 1.0)[0].tolist() == [6, 7, 8, 9]
    assert crop(clip, 12, 0.5)[0].tolist() == [*range(10), 8, 7]


def test_retrieval_of_known_styles() -> None:
    speaker, genders = np.array([0, 0, 1, 1, 2, 2, 3, 3]), ["f", "f", "m", "m"]
    own = np.eye(4)[speaker] + 0.01 * np.random.default_rng(0).normal(size=(8, 4))

    def rows_of(faces: Any, voices: Any) -> Any:
        kind, both = np.repeat(["face", "voice"], 8), np.concatenate([faces, voices])
        space = StyleSpace(both, kind, np.tile(speaker, 2), list("abcd"), genders)
        return retrieval(space, seed=0)

    perfect = rows_of(own, 3 * own)
    assert [row["value"] for row in perfect] == [1.0] * 8
    assert {row["met"] for row in perfect if row["goal"]} == {True}
    by_sex = np.eye(2)[speaker // 2] + 1e-3 * np.eye(4)[speaker[::-1]][:, :2]
    only_sex = rows_of(by_sex, by_sex)
    assert all(row["chance"] == (0.5 if "within" in row["metric"] else 0.25) for row in only_sex)


def test_means_and_draws_are_of_every_speaker() -> None:
    speaker, half = torch.tensor([1, 0, 1]), 2**-0.5
    style = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    torch.testing.assert_close(means(style, speaker, 2), torch.tensor([[0.0, 1.0], [half, half]]))
    drawn = draw_each(speaker, 2, 50, torch.Generator().manual_seed(0))
    assert (set(drawn[:, 0].tolist()), set(drawn[:, 1].tolist())) == ({1}, {0, 2})


class Oracle(nn.Module):
    """Reads speaker, gender and pose from the first four pixels of a picture."""

    def forward(self, x: Tensor) -> Reading:
        first = x[:, 0, 0]  # (n, W)
        speaker = nn.functional.one_hot(first[:, 0].long(), 4).float()
        gender = nn.functional.one_hot(first[:, 1].long(), 2).float()
        return Reading(speaker, gender, first[:, 2:4], first[:, :1])


def picture(speaker: int, gender: int, pose: Tensor) -> Tensor:
    x = torch.zeros(3, 4, 4)
    x[0, 0] = torch.tensor([speaker, gender, *pose.tolist()])
    return x


def test_measures_of_a_known_grid() -> None:
    who, sex = torch.arange(4), torch.tensor([0, 0, 1, 1])
    pose = torch.tensor([[0.1, 0.2], [0.3, -0.4], [0.0, 0.5], [-0.6, 0.0]])
    faces = [[picture(r, int(sex[r]), pose[s] + 0.1) for r in range(4)] for s in range(4)]
    made = torch.stack([torch.stack(row) for row in faces])
    made[0, 1, 0, 0, 0] = 3  # one identity of twelve is wrong
    made[0, 2, 0, 0, 1] = 0  # one sex of eight across is wrong
    oracle: Any = Oracle()
    accuracy = {"face/speaker": 1.0, "face/gender": 1.0, "face/pose": 0.0}
    known: Any = SimpleNamespace(face=oracle, accuracy=accuracy)
    real = torch.stack([picture(n, int(sex[n]), pose[n]) for n in range(4)])
    side = Labelled(real, who, sex, pose)
    grid = Grid("face", "face", made, side, side)
    found = {row["metric"]: row for row in measures(grid, known, random_pose=0.5)}
    for metric, value in {
        "sex of the reference, all pairs": 11 / 12,
        "sex of the reference, cross-sex pairs": 7 / 8,
        "sex of the reference, same-sex pairs": 1.0,
        "identity of the reference": 11 / 12,
        "error of the source's pose": 0.1,
    }.items():
        assert found[metric]["value"] == pytest.approx(value)
    assert found["sex of the reference, all pairs"]["met"] is False
    for metric in ("error of pose over that of random faces", "diversity over the references, L1"):
        assert found[metric]["met"] is True


def test_differences_of_outputs_and_poses_by_hand() -> None:
    x = torch.tensor([[[0.0], [1.0], [5.0]], [[0.0], [2.0], [2.0]]])  # (S, R, 1)
    pairs = torch.ones(3, 3, dtype=torch.bool).triu(1)
    found = spread(x, pairs, torch.tensor([9, 2]), torch.tensor([0, 1, 2]))
    assert found == (pytest.approx((1 + 5 + 4 + 2) / 4), 3 + 1), "own pairs are left out"
    pose = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 3.0], [float("nan"), 0.0]])
    assert random_difference(pose) == pytest.approx((0.5 + 1.5 + 2.0) / 3)
    assert np.isnan(random_difference(pose[:1]))


def test_classifiers_learn_what_is_plain(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifiers, "BATCH_SIZE", 16)
    train = people(store, "train")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        voice = VoiceClassifier(speakers=4, statistics=mel_statistics([store], split="train"))
        classifiers.fit(voice, partial(classifiers.voice_batch, train, FRAMES), steps=25)
    held_out = people(store, "val").voices(FRAMES)
    heard = classifiers.read(voice.eval(), held_out.x).gender.argmax(1)
    assert torch.equal(heard, held_out.gender)


def test_augmentation_is_a_function_of_its_generator() -> None:
    x, mel = torch.rand(3, 3, 16, 16) * 2 - 1, torch.rand(3, 80, 24) - 3
    for change, sample in ((classifiers.augment_faces, x), (classifiers.augment_mels, mel)):
        one, two, other = (change(sample, torch.Generator().manual_seed(n)) for n in (1, 1, 2))
        assert torch.equal(one, two)
        assert not torch.equal(one, other)
        assert one.shape == sample.shape


def test_rows_say_whether_a_goal_is_met() -> None:
    for value, known, met in (
        (0.5, {}, None),
        (0.5, {"goal": 0.5}, True),
        (0.6, {"goal": 0.5, "sense": rows.AT_MOST}, False),
    ):
        assert rows.row("a2i", "voice", "m", value, 3, **known)["met"] is met  # type: ignore[arg-type]
    with pytest.raises(DataError, match="finite"):
        rows.row("a2i", "voice", "m", float("nan"), 3)


def test_table_is_written_whole(tmp_path: Path) -> None:
    made = [
        {**rows.row("a2i", "voice", "identity", 1 / 3, 12, chance=0.25, goal=0.4), "step": 5},
        {**rows.row("i2i", "face", "diversity", 0.7, 12, goal=0.5), "step": 5},
    ]
    table = rows.save(made, tmp_path / "evaluation")
    text = " ".join(table.read_text(encoding="utf-8").split())
    assert "step 5" in text
    assert "1 of 2 goals met" in text
    assert "| a2i | voice | identity | 0.333 | 12 | 0.250 | | >= 0.4 | **no** |" in text
    with table.with_suffix(".csv").open(encoding="utf-8", newline="") as file:
        read = list(csv.DictReader(file))
    assert read[0]["value"] == repr(1 / 3)
    assert (read[0]["judge"], read[0]["met"]) == ("", "False")
    assert sorted(p.name for p in table.parent.iterdir()) == ["learning.csv", "learning.md"]
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        rows.save(made, tmp_path / "file" / "below")
