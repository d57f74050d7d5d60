"""Batches: who is in them, determinism, crops and sizes by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.unit.store_factory import make_batches as batches
from tests.unit.store_factory import make_store, role
from xfavot.audio.mel import Standardiser
from xfavot.data.store import Store
from xfavot.errors import ConfigError, DataError

ROLES = ("source_image", "source_audio", "ref_image", "ref_audio", "ref2_image", "ref2_audio")
IMAGES = tuple(role for role in ROLES if role.endswith("image"))
AUDIOS = tuple(role for role in ROLES if role.endswith("audio"))


def small(tmp_path: Path, **settings: object) -> Store:
    defaults = {"image_size": 32, "seconds": 0.5, "clips": 3}
    return make_store(tmp_path, **(defaults | settings))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> list[Store]:
    root = tmp_path_factory.mktemp("mixture")
    return [
        small(root, corpus="av", kind="av", genders="fmfmfmfm"),
        small(root, corpus="faces", kind="image", genders="fmfm", known_speakers=False),
        small(root, corpus="voices", kind="audio", genders="fmfm"),
    ]


def test_shapes_types_and_ranges(mixture: list[Store]) -> None:
    loaded = batches(mixture).batch(0)
    for name in ROLES:
        assert role(loaded, name).x.dtype == (torch.uint8 if name in IMAGES else torch.float32)
    batch = loaded.to("cpu")
    for name in ROLES:
        samples = role(batch, name)
        assert samples.x.shape == ((8, 3, 32, 32) if name in IMAGES else (8, 1, 80, 24))
        assert samples.x.dtype == torch.float32
        assert samples.x.is_contiguous()
        for code in (samples.gender, samples.speaker, samples.row):
            assert code.shape == (8,)
            assert code.dtype == torch.int64
    for name in IMAGES:
        assert -1.0 <= float(role(batch, name).x.min()) <= float(role(batch, name).x.max()) <= 1.0
    assert batch.paired.dtype == torch.bool
    again = batch.to("cpu")
    assert role(again, "ref_image").x.equal(role(batch, "ref_image").x)


def test_a_batch_is_a_function_of_seed_and_step(mixture: list[Store]) -> None:
    first, again = batches(mixture), batches(mixture)
    for step in (0, 1, 2):
        first.batch(step)
    for name in ROLES:
        assert role(first.batch(1), name).x.equal(role(again.batch(1), name).x)
        assert not role(first.batch(1), name).x.equal(role(first.batch(2), name).x)
        other = batches(mixture, seed=1).batch(1)
        assert not role(first.batch(1), name).x.equal(role(other, name).x)


def test_codes_are_those_of_the_items(mixture: list[Store]) -> None:
    source = batches(mixture)
    for step in range(5):
        batch = source.batch(step)
        for name in ROLES:
            samples = role(batch, name)
            for gender, speaker, row in zip(
                samples.gender.tolist(), samples.speaker.tolist(), samples.row.tolist(), strict=True
            ):
                item = source.items[row]
                assert item.split == "train"
                assert item.gender == "fm"[gender]
                assert (source.speakers[speaker] if speaker >= 0 else "") == item.speaker
                assert (item.face_count if name in IMAGES else item.frame_count) > 0


def test_genders_are_balanced_and_shared_by_the_references(mixture: list[Store]) -> None:
    source = batches(mixture)
    for step in range(10):
        batch = source.batch(step)
        target = role(batch, "ref_image").gender
        for name in ("ref_audio", "ref2_image", "ref2_audio"):
            assert role(batch, name).gender.equal(target)
        for name in ("ref_image", "source_image", "source_audio"):
            assert int(role(batch, name).gender.sum()) == 4
        assert not role(batch, "ref_image").row.eq(role(batch, "ref2_image").row).any()
        assert not role(batch, "ref_audio").row.eq(role(batch, "ref2_audio").row).any()


def test_an_odd_batch_differs_by_one(mixture: list[Store]) -> None:
    source = batches(mixture, batch_size=7)
    totals = [int(role(source.batch(step), "ref_image").gender.sum()) for step in range(20)]
    assert set(totals) == {3, 4}


def test_pairs_are_one_speaker_and_speakers_are_distinct(mixture: list[Store]) -> None:
    source, pairs = batches(mixture), 0
    for step in range(40):
        batch = source.batch(step)
        faces, voices = role(batch, "ref_image").row, role(batch, "ref_audio").row
        speakers = []
        for face, voice, paired in zip(faces, voices, batch.paired, strict=True):
            one, other = source.items[int(face)], source.items[int(voice)]
            if paired:
                assert one.corpus == other.corpus == "av"
                assert one.speaker == other.speaker
                speakers.append(one.speaker)
            else:
                assert (one.corpus, other.corpus) == ("faces", "voices")
                assert one.gender == other.gender
        assert len(set(speakers)) == len(speakers)
        pairs += len(speakers)
    assert 120 < pairs < 200  # of 320 rows; half of them are expected, 4.5 deviations either side


def test_av_alone_is_always_paired_and_uses_everybody(mixture: list[Store]) -> None:
    source = batches(mixture[:1])
    batch = source.batch(0)
    assert batch.paired.all()
    assert set(role(batch, "ref_image").speaker.tolist()) == set(range(8))
    many = batches(mixture[:1], batch_size=16).batch(0)
    assert np.bincount(role(many, "ref_audio").speaker.numpy()).tolist() == [2] * 8


def test_av_stands_in_for_the_side_that_no_other_corpus_has(mixture: list[Store]) -> None:
    source = batches(mixture[:2], batch_size=64)
    batch = source.batch(0)
    apart = ~batch.paired
    assert 0 < int(apart.sum()) < 64
    faces = {source.items[row].corpus for row in role(batch, "ref_image").row[apart].tolist()}
    voices = {source.items[row].corpus for row in role(batch, "ref_audio").row[apart].tolist()}
    assert (faces, voices) == ({"faces"}, {"av"})


def test_corpora_without_pairs(mixture: list[Store]) -> None:
    batch = batches(mixture[1:]).batch(0)
    assert not batch.paired.any()
    assert role(batch, "ref_image").gender.equal(role(batch, "ref_audio").gender)


@pytest.mark.parametrize(("which", "present"), [(1, IMAGES), (2, AUDIOS)])
def test_one_sided_mixtures(mixture: list[Store], which: int, present: tuple[str, ...]) -> None:
    source = batches([mixture[which]])
    batch = source.batch(0)
    for name in ROLES:
        assert (getattr(batch, name) is not None) == (name in present)
    assert not batch.paired.any()
    assert batch.to("cpu").paired.equal(batch.paired)
    assert (source.speakers == ()) == (which == 1)


def test_corpora_are_equally_likely_however_large(tmp_path: Path) -> None:
    large = small(tmp_path, corpus="large", kind="image", genders="fmfmfmfmfm", clips=6)
    little = small(tmp_path, corpus="little", kind="image", genders="fm", clips=1)
    source = batches([large, little], batch_size=400)
    rows = role(source.batch(0), "source_image").row
    share = float((rows >= len(large.items)).float().mean())
    assert abs(share - 0.5) < 0.1  # 4 deviations


def test_one_gender_alone(tmp_path: Path) -> None:
    batch = batches([small(tmp_path, genders="mm")]).batch(0)
    assert all(role(batch, name).gender.eq(1).all() for name in ROLES)
    mixed = [
        small(tmp_path, corpus="faces", kind="image", genders="fm"),
        small(tmp_path, corpus="voices", kind="audio", genders="m"),
    ]
    batch = batches(mixed).batch(0)
    assert role(batch, "ref_image").gender.eq(1).all()
    assert int(role(batch, "source_image").gender.sum()) == 4
    other = small(tmp_path, corpus="women", kind="image", genders="f")
    with pytest.raises(DataError, match="no usable faces and voices of one gender"):
        batches([other, mixed[1]])


def test_unknown_genders_are_left_out_and_counted(tmp_path: Path) -> None:
    store = small(tmp_path, genders=("f", "", "m", ""))
    source = batches([store])
    assert source.unknown_gender == {"toy": 4}
    for step in range(5):
        for name in ROLES:
            assert role(source.batch(step), name).gender.ge(0).all()
    nobody = small(tmp_path, corpus="nobody", genders=("", ""))
    with pytest.raises(DataError, match=r"gender is unknown: \{'nobody': 4\}.*speakers.csv"):
        batches([nobody])


def test_the_only_clip_is_used_for_everything(tmp_path: Path) -> None:
    batch = batches([small(tmp_path, genders="f", clips=1)]).batch(0)
    assert all(role(batch, name).row.eq(0).all() for name in ROLES)


def test_splits(tmp_path: Path, mixture: list[Store]) -> None:
    held_out = batches(mixture, split="val")
    rows = role(held_out.batch(0), "ref_image").row.tolist()
    assert {held_out.items[row].split for row in rows} == {"val"}
    assert held_out.speakers == batches(mixture).speakers
    with pytest.raises(DataError, match=r"split 'unseen' of av, faces, voices has no usable faces"):
        batches(mixture, split="unseen")
    with pytest.raises(ConfigError, match="split 'test'"):
        batches(mixture, split="test")
    with pytest.raises(ConfigError, match="0 stores"):
        batches([])


def test_a_side_that_only_another_split_has(tmp_path: Path) -> None:
    faces = small(tmp_path, corpus="faces", kind="image", splits=["train", "val"])
    voices = small(tmp_path, corpus="voices", kind="audio", splits=["train"])
    with pytest.raises(DataError, match=r"'val' .* no usable voices"):
        batches([faces, voices], split="val")


def test_given_speakers_and_standardiser(mixture: list[Store]) -> None:
    standardiser = Standardiser(torch.zeros(80), torch.full((80,), 2.0))
    source = batches(mixture, speakers=("voices/s1", "av/s2"), standardiser=standardiser)
    assert source.speakers == ("voices/s1", "av/s2")
    assert set(role(source.batch(0), "source_audio").speaker.tolist()) <= {-1, 0, 1}
    plain = batches(mixture, standardiser=Standardiser(torch.zeros(80), torch.ones(80)))
    torch.testing.assert_close(
        2 * role(source.batch(0), "ref_audio").x, role(plain.batch(0), "ref_audio").x
    )


def test_mels_are_standardised_by_the_train_split(mixture: list[Store]) -> None:
    source = batches(mixture, batch_size=64, mel_frames=41)
    x = torch.cat([role(source.batch(step), "source_audio").x for step in range(10)])
    assert abs(float(x.mean())) < 0.1
    assert abs(float(x.std()) - 1.0) < 0.1


def test_a_crop_is_a_piece_of_the_clip(mixture: list[Store]) -> None:
    source = batches(mixture)
    samples = role(source.batch(3), "ref_audio")
    firsts = np.cumsum([0, *(len(store.items) for store in mixture)])
    for x, row in zip(samples.x, samples.row.tolist(), strict=True):
        store = mixture[int(np.searchsorted(firsts, row, side="right")) - 1]
        whole = source.standardiser.standardise(store.log_mel(source.items[row]))
        places = [t for t in range(whole.shape[1] - 23) if whole[:, t : t + 24].allclose(x[0])]
        assert len(places) == 1


def test_sizes_that_do_not_fit(tmp_path: Path, mixture: list[Store]) -> None:
    for change in ({"image_size": 24}, {"image_size": 64}, {"mel_frames": 0}, {"batch_size": 0}):
        with pytest.raises(ConfigError, match="expected positive sizes"):
            batches(mixture, **change)
    other = small(tmp_path, corpus="other", kind="image", image_size=64)
    with pytest.raises(ConfigError, match=r"\[32, 64\]"):
        batches([*mixture, other])


def test_augmentation_flips_crops_and_repeats(mixture: list[Store]) -> None:
    plain, changed = batches(mixture), batches(mixture, augment=True)
    one, other = plain.batch(0), changed.batch(0)
    assert role(one, "source_image").row.equal(role(other, "source_image").row)
    assert role(one, "source_audio").x.equal(role(other, "source_audio").x)
    assert not role(one, "source_image").x.equal(role(other, "source_image").x)
    assert role(other, "ref_image").x.equal(role(changed.batch(0), "ref_image").x)
    assert float(role(other.to("cpu"), "source_image").x.abs().max()) <= 1.0


def test_fingerprint_follows_the_stores(mixture: list[Store]) -> None:
    assert batches(mixture).fingerprint == batches(mixture, seed=5).fingerprint
    assert batches(mixture).fingerprint != batches(mixture[:2]).fingerprint
    assert len(batches(mixture).fingerprint) == 16
