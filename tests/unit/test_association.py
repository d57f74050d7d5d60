"""Association of faces and voices: heads on frozen encoders, judged on people they have not met."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import Patch, refuses
from tests.unit.store_factory import make_store
from xfavot.errors import DataError, WeightsError
from xfavot.evaluation import association
from xfavot.evaluation.association import Pairs


def drawn(people: int, *, tied: float, seed: int = 0) -> Pairs:
    """Three clips of each person, whose face and voice share six hidden numbers, or do not."""
    rng = np.random.default_rng(seed)
    code = np.repeat(np.arange(people), 3)
    parts = []
    for width in (association.FACE, 256):
        own = tied * HIDDEN[:people] + (1 - tied) * rng.normal(size=(people, 6))
        told = own[code] @ rng.normal(size=(6, width)) + 0.3 * rng.normal(size=(len(code), width))
        parts.append(told)
    features = np.concatenate(parts, axis=1).astype(np.float16)
    names = [f"p{number:02}" for number in range(people)]
    place = np.stack([np.zeros_like(code), np.arange(len(code))], axis=1)
    return Pairs((), features, place, code, names, ["fm"[n % 2] for n in range(people)])


HIDDEN = np.random.default_rng(1).normal(size=(64, 6))


@pytest.mark.parametrize(("tied", "least", "most"), [(1.0, 0.85, 1.0), (0.0, 0.35, 0.65)])
def test_strangers_are_matched_where_face_and_voice_are_tied(
    tied: float, least: float, most: float
) -> None:
    pairs = drawn(48, tied=tied)
    fold = association.deal(pairs.genders, 4, seed=0)
    rows, heads, learnt = association.judged(pairs, fold, steps=60, seed=0)
    assert len(heads) == 4
    value = {(row["metric"], row["direction"]): row for row in rows}
    auc = value["verification AUC, all pairs", ""]
    assert learnt == 36
    assert auc["n"] == 4 * (12 * 3) ** 2  # within folds alone
    assert least <= auc["value"] <= most
    assert value["R@1", "face to voice"]["chance"] == pytest.approx(1 / 12)


def test_folds_share_women_and_men_and_leave_what_is_too_much() -> None:
    fold = association.deal(["f"] * 9 + ["m"] * 7, 4, seed=3)
    assert sorted(np.bincount(fold)) == [4, 4, 4, 4]
    assert all(2 <= (fold[:9] == number).sum() <= 3 for number in range(4))
    many = association.deal(["f", "m"] * 400, 8, seed=0)
    assert (many == -1).sum() == 800 - association.JUDGED
    assert (np.bincount(many[many >= 0]) == 32).all()


def test_the_nearest_voices_and_the_file_of_heads(tmp_path: Path) -> None:
    pairs = drawn(48, tied=1.0)
    known, new = np.arange(40), np.arange(40, 48)
    heads = association.fit(pairs, known, steps=60, seed=0)
    voices = association.voices_of(heads, pairs, new)
    found = [association.nearest(heads, pairs, 3 * person, voices)[0] for person in new]
    assert np.mean(found == new) >= 0.5  # chance: 1 in 8
    association.save(heads, file := tmp_path / "association.safetensors", steps=60)
    again = association.fit(pairs, known, steps=60, seed=0)
    assert torch.equal(again("voice", y := torch.randn(3, 256)), heads("voice", y))
    assert torch.equal(association.load(file)("face", x := torch.randn(3, 128)), heads("face", x))
    file.write_bytes(file.read_bytes()[:500])
    refuses(WeightsError, "not the weights of association", association.load, file)


def test_reading_goes_on_where_it_was_and_leaves_out_what_has_no_voice(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    store, asked = make_store(tmp_path / "data", clips=2), list[int]()
    silent = store.items[3].id

    class Voice:
        size = 256

        def embed(self, wave: Any) -> Any:
            asked.append(len(asked))
            if len(asked) == 5:
                raise KeyboardInterrupt
            if len(asked) == 4:
                raise DataError("no voice")
            return np.full(256, 1 / 16)

    monkeypatch.setattr(association, "SpeakerEncoder", Voice)
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        association.read_pairs([store], tmp_path / "kept", said.append)
    before = len(asked) - 1  # the fifth was not finished
    pairs = association.read_pairs([store], tmp_path / "kept", said.append)
    assert len(asked) - before == 1 + 4  # of eight clips, four were read before
    assert len(pairs.speaker) == 7
    assert any(silent in line for line in said)
    assert pairs.clip(0)[1].speaker == pairs.speakers[pairs.speaker[0]]
    faces = pairs.of("face", np.arange(7))
    assert faces.norm(dim=1).numpy() == pytest.approx(np.ones(7), abs=1e-2)
    association.read_pairs([store], tmp_path / "kept", said.append)
    assert len(asked) - before == 1 + 4
    few = make_store(tmp_path / "few", genders="fm", clips=2)
    voices = make_store(tmp_path / "voices", kind="audio", clips=1)
    refuses(DataError, "0 people", association.read_pairs, [voices], tmp_path / "kept", said.append)
    refuses(DataError, "2 people", association.read_pairs, [few], tmp_path / "kept", said.append)
