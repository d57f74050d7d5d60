"""Stores and batches: what comes back, who is drawn how often, what is damaged, how fast."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.conftest import FULL_DISK, Patch, refuses
from tests.unit.store_factory import arrays_of, colour, face, make_store, role, write_store
from tests.unit.store_factory import make_batches as batches
from tests.unit.vocoder_factory import GENERATORS, vocoder_package
from xfavot import config, presets
from xfavot.audio.mel import MEL, Standardiser, log_mel
from xfavot.audio.parallel_wavegan import untrained
from xfavot.audio.vocoder import Vocoder
from xfavot.data import store
from xfavot.data.batches import Batch, Batches, Change, draw_changes, planes, reflected
from xfavot.data.store import Store, mel_statistics, open_stores
from xfavot.errors import ConfigError, DataError
from xfavot.evaluation import speed

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


def test_shapes_types_and_codes_are_those_of_the_items(mixture: list[Store]) -> None:
    source = batches(mixture)
    loaded = source.batch(0)
    batch = loaded.to("cpu")
    assert batch.paired.dtype == torch.bool
    for name in ROLES:
        assert role(loaded, name).x.dtype == (torch.uint8 if name in IMAGES else torch.float32)
        samples = role(batch, name)
        assert samples.x.shape == ((8, 3, 32, 32) if name in IMAGES else (8, 1, 80, 24))
        assert samples.x.dtype == torch.float32
        assert samples.x.is_contiguous()
        if name in IMAGES:
            assert float(samples.x.abs().max()) <= 1.0
        codes = samples.gender, samples.speaker, samples.row
        assert {(code.shape, code.dtype) for code in codes} == {((8,), torch.int64)}
        for gender, speaker, row in torch.stack(codes, dim=1).tolist():
            item = source.items[row]
            assert item.split == "train"
            assert item.gender == "fm"[gender]
            assert (source.speakers[speaker] if speaker >= 0 else "") == item.speaker
            assert (item.face_count if name in IMAGES else item.frame_count) > 0


def test_genders_are_balanced_and_shared_by_the_references(mixture: list[Store]) -> None:
    source = batches(mixture)
    for step in range(10):
        samples = {name: role(source.batch(step), name) for name in ROLES}
        for name in ("ref_audio", "ref2_image", "ref2_audio"):
            assert samples[name].gender.equal(samples["ref_image"].gender)
        for name in ("ref_image", "source_image", "source_audio"):
            assert int(samples[name].gender.sum()) == 4
        for kind in ("image", "audio"):
            assert not samples[f"ref_{kind}"].row.eq(samples[f"ref2_{kind}"].row).any()
    odd = batches(mixture, batch_size=7)
    totals = [int(role(odd.batch(step), "ref_image").gender.sum()) for step in range(20)]
    assert set(totals) == {3, 4}


def test_parts_of_a_batch_are_the_whole_batch(mixture: list[Store]) -> None:
    source = batches(mixture, augment=True)
    whole, parts = source.batch(3), [source.batch(3, part, 4) for part in range(4)]
    assert torch.cat([part.paired for part in parts]).equal(whole.paired)
    for name in ROLES:
        samples = [vars(role(part, name)) for part in parts]
        for key, value in vars(role(whole, name)).items():
            assert torch.cat([one[key] for one in samples]).equal(value)
            assert len(samples[0][key]) == 2


def test_pairs_are_one_speaker_and_speakers_are_distinct(mixture: list[Store]) -> None:
    source = batches(mixture)
    for step in range(40):
        batch = source.batch(step)
        faces, voices = role(batch, "ref_image").row, role(batch, "ref_audio").row
        speakers = []
        for row, voiced, paired in zip(faces.tolist(), voices.tolist(), batch.paired, strict=True):
            one, other = source.items[row], source.items[voiced]
            assert (one.corpus, other.corpus) == (("av", "av") if paired else ("faces", "voices"))
            assert one.gender == other.gender
            if paired:
                assert one.speaker == other.speaker
                speakers.append(one.speaker)
        assert len(set(speakers)) == len(speakers)


def test_further_pairs_are_distinct_people_and_leave_the_rest(mixture: list[Store]) -> None:
    plain, source = batches(mixture), batches(mixture, pairs=8)
    whole = source.batch(5)
    for name in ROLES:
        assert role(whole, name).x.equal(role(plain.batch(5), name).x)
    faces, voices = role(whole, "pair_image"), role(whole, "pair_audio")
    assert sorted(faces.speaker.tolist()) == list(range(8))  # those of the audio-visual store
    assert voices.speaker.equal(faces.speaker)
    assert faces.gender.sum() == 4
    parts = [source.batch(5, part, 4) for part in range(4)]
    for name in ("pair_image", "pair_audio"):
        assert torch.cat([role(part, name).x for part in parts]).equal(role(whole, name).x)
    few = role(batches(mixture, pairs=24).batch(5), "pair_image").speaker  # more than people
    assert torch.bincount(few).tolist() == [3] * 8
    assert batches(mixture[1:], pairs=8).batch(5).pair_image is None
    assert batches(mixture, pairs=8, split="val").batch(5).pair_image is None


def test_twins_are_two_people_in_one_pose_and_another_face_of_the_second(tmp_path: Path) -> None:
    store = small(tmp_path, genders="fmfmf", twins=2)  # the fifth has nobody in her pose
    plain, source = batches([store], augment=True), batches([store], augment=True, twins=8)
    brighter = set()
    for step in range(8):
        whole = source.batch(step).to("cpu")
        assert role(whole, "ref_image").x.equal(role(plain.batch(step).to("cpu"), "ref_image").x)
        one, other, ref = (role(whole, f"twin_{name}") for name in ("source", "target", "ref"))
        for rows in torch.stack([one.row, other.row, ref.row], dim=1).tolist():
            first, second, third = (source.items[row] for row in rows)
            assert Path(first.id).name == Path(second.id).name
            assert first.speaker != second.speaker == third.speaker
            assert second.id != third.id
        sides = [
            role.x[..., :16].mean((1, 2, 3)) > role.x[..., 16:].mean((1, 2, 3))
            for role in (one, other)
        ]
        assert sides[0].equal(sides[1])  # mirrored alike
        brighter |= set(sides[0].tolist())
        parts = [source.batch(step, part, 4) for part in range(4)]
        whole_x = role(source.batch(step), "twin_source").x
        assert torch.cat([role(part, "twin_source").x for part in parts]).equal(whole_x)
    assert brighter == {True, False}
    assert plain.batch(0).twin_source is None
    assert batches([store], twins=8, split="val").batch(0).twin_source is None
    lonely = [small(tmp_path, corpus="lonely")]
    refuses(DataError, "pictures in one pose.*-p twins", batches, lonely, twins=8)


def test_people_without_a_head_are_somebody_all_the_same(mixture: list[Store]) -> None:
    every, few = batches(mixture), batches(mixture, heads=3)
    assert (few.speakers, few.without_code) == (every.speakers[:3], len(every.speakers) - 3)
    known = role(every.batch(2), "ref_audio")
    voices = role(few.batch(2), "ref_audio")
    assert voices.x.equal(known.x)
    assert voices.speaker.equal(torch.where(known.speaker < 3, known.speaker, -1))
    assert voices.person.equal(known.person)
    assert [len(set(side.tolist())) for side in (known.person, known.speaker)] == [
        len({every.items[row].speaker for row in known.row.tolist()})
    ] * 2


def test_who_is_paired_where_corpora_lack_a_side(mixture: list[Store]) -> None:
    batch = batches(mixture[:1]).batch(0)
    assert batch.paired.all()
    assert set(role(batch, "ref_image").speaker.tolist()) == set(range(8))
    many = batches(mixture[:1], batch_size=16).batch(0)
    assert np.bincount(role(many, "ref_audio").speaker.numpy()).tolist() == [2] * 8
    source = batches(mixture[:2], batch_size=64)  # voices come from the audio-visual corpus alone
    batch = source.batch(0)
    apart = ~batch.paired
    assert 0 < int(apart.sum()) < 64
    for name, corpus in (("ref_image", "faces"), ("ref_audio", "av")):
        assert {source.items[row].corpus for row in role(batch, name).row[apart]} == {corpus}


@pytest.mark.parametrize(("which", "present"), [(1, IMAGES), (2, AUDIOS)])
def test_one_sided_mixtures(mixture: list[Store], which: int, present: tuple[str, ...]) -> None:
    source = batches([mixture[which]])
    batch = source.batch(0)
    for name in ROLES:
        assert (getattr(batch, name) is not None) == (name in present)
    assert not batch.paired.any()
    assert (source.speakers == ()) == (which == 1)


def test_one_gender_alone_and_one_clip_alone(tmp_path: Path) -> None:
    single = batches([small(tmp_path, corpus="one", genders="f", clips=1)]).batch(0)
    assert all(role(single, name).row.eq(0).all() for name in ROLES)
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
    refuses(DataError, "no usable faces and voices of one gender", batches, [other, mixed[1]])


def test_splits_and_unknown_genders(tmp_path: Path, mixture: list[Store]) -> None:
    held_out = batches(mixture, split="val")
    rows = role(held_out.batch(0), "ref_image").row.tolist()
    assert {held_out.items[row].split for row in rows} == {"val"}
    assert held_out.speakers == batches(mixture).speakers
    some = batches([small(tmp_path, genders=("f", "", "m", ""))]).batch(0)
    assert all(samples.gender.ge(0).all() for samples in some.roles().values())


def test_what_no_batch_can_be_drawn_from(tmp_path: Path, mixture: list[Store]) -> None:
    faces = small(tmp_path, corpus="faces", kind="image", splits=["train", "val"])
    voices = small(tmp_path, corpus="voices", kind="audio", splits=["train"])
    nobody = small(tmp_path, corpus="nobody", genders=("", ""))
    large = small(tmp_path, corpus="other", kind="image", image_size=64)
    positive = "expected positive sizes"
    for stores, settings, error, message in (
        (mixture, {"split": "unseen"}, DataError, "'unseen' of av, faces, voices has no usable"),
        ([faces, voices], {"split": "val"}, DataError, "'val' .* no usable voices"),
        ([nobody], {}, DataError, r"gender is unknown: \{'nobody': 4\}.*speakers.csv"),
        (mixture, {"split": "test"}, ConfigError, "split 'test'"),
        (mixture, {"image_size": 24}, ConfigError, positive),
        (mixture, {"image_size": 64}, ConfigError, positive),
        (mixture, {"mel_frames": 0}, ConfigError, positive),
        (mixture, {"batch_size": 0}, ConfigError, positive),
        ([], {}, ConfigError, "0 stores"),
        ([*mixture, large], {}, ConfigError, r"\[32, 64\]"),
    ):
        refuses(error, message, batches, stores, **settings)


def test_given_speakers_and_standardiser(mixture: list[Store]) -> None:
    standardiser = Standardiser(torch.zeros(80), torch.full((80,), 2.0))
    source = batches(mixture, speakers=("voices/s1", "av/s2"), standardiser=standardiser)
    assert source.speakers == ("voices/s1", "av/s2")
    assert set(role(source.batch(0), "source_audio").speaker.tolist()) <= {-1, 0, 1}
    plain = batches(mixture, standardiser=Standardiser(torch.zeros(80), torch.ones(80)))
    one, other = (role(made.batch(0), "ref_audio").x for made in (source, plain))
    torch.testing.assert_close(2 * one, other)


def test_a_crop_is_a_piece_of_the_clip(mixture: list[Store]) -> None:
    source = batches(mixture)
    samples = role(source.batch(3), "ref_audio")
    firsts = np.cumsum([0, *(len(store.items) for store in mixture)])
    for x, row in zip(samples.x, samples.row.tolist(), strict=True):
        store = mixture[int(np.searchsorted(firsts, row, side="right")) - 1]
        whole = source.standardiser.standardise(store.log_mel(source.items[row]))
        places = [t for t in range(whole.shape[1] - 23) if whole[:, t : t + 24].allclose(x[0])]
        assert len(places) == 1


def test_augmentation_flips_crops_and_repeats(mixture: list[Store]) -> None:
    plain, changed = batches(mixture), batches(mixture, augment=True)
    one, other = plain.batch(0), changed.batch(0)
    assert plain.fingerprint == batches(mixture, seed=5).fingerprint
    assert plain.fingerprint != batches(mixture[:2]).fingerprint
    assert role(one, "source_image").row.equal(role(other, "source_image").row)
    assert role(one, "source_audio").x.equal(role(other, "source_audio").x)
    assert not role(one, "source_image").x.equal(role(other, "source_image").x)
    assert role(other, "ref_image").x.equal(role(changed.batch(0), "ref_image").x)
    assert float(role(other.to("cpu"), "source_image").x.abs().max()) <= 1.0


# Single samples by hand: reflection, area sums, augmentation


def test_changes_are_drawn_as_documented() -> None:
    count, size = 4000, 128
    changes = draw_changes(np.random.default_rng(0), count, size)
    mirrored = np.array([flip for flip, _ in changes])
    top, left, height, width = np.array([box for _, box in changes]).T
    cropped = (height < size) | (width < size)
    four = 4 * 0.5 / count**0.5  # four deviations of a share
    for share, expected in ((mirrored, 0.5), (cropped, 0.5), (mirrored & cropped, 0.25)):
        assert abs(share.mean() - expected) < four
    assert min(top.min(), left.min()) == 0
    assert max((top + height).max(), (left + width).max()) == size
    area = (height * width / size**2)[cropped]
    assert area.min() > 0.8 - 2 / size  # whole pixels
    assert abs(area.mean() - 0.895) < 0.01  # below 0.9: a side is never longer than the face
    ratio = (width / height)[cropped]
    assert 0.9 - 2 / size < ratio.min() < ratio.max() < 1.1 + 2 / size


def changed(face: np.ndarray, change: Change | None) -> np.ndarray:
    out = np.zeros((3, *face.shape[:2]), np.uint8)
    planes(face, change, out)
    return out


def test_changed_faces_by_hand() -> None:
    face = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    face = face.repeat(4, 0).repeat(4, 1)
    whole = (0, 0, 32, 32)
    upright = face.transpose(2, 0, 1)
    assert np.array_equal(changed(face, None), upright)
    assert np.array_equal(changed(face, (False, whole)), upright)
    assert np.array_equal(changed(face, (True, whole)), upright[:, :, ::-1])
    for box in ((3, 1, 28, 31), (0, 4, 32, 28), (2, 0, 29, 32)):
        top, left, height, width = box
        part = torch.from_numpy(upright[:, top : top + height, left : left + width].copy())
        exact = functional.interpolate(part[None].float(), size=(32, 32), mode="bilinear")[0]
        for mirrored in (False, True):
            got = torch.from_numpy(changed(face, (mirrored, box))).float()
            assert float((got - (exact.flip(2) if mirrored else exact)).abs().max()) <= 1.0
    assert float((got - torch.from_numpy(upright.copy()).float()).abs().max()) > 20.0


def test_short_clips_are_reflected(tmp_path: Path) -> None:
    assert reflected(1, 3).tolist() == [0, 0, 0]
    assert reflected(2, 4).tolist() == [0, 1, 0, 1]
    mel = np.tile(np.arange(5, dtype=np.float32), (80, 1))
    clip = {"id": "a", "kind": "audio", "speaker": "toy/s1", "gender": "f", "split": "train"}
    store = write_store(tmp_path / "toy", [clip | {"waveform": np.zeros(1200), "mel": mel}])
    plain = Standardiser(torch.zeros(80), torch.ones(80))
    x = role(batches([store], mel_frames=12, standardiser=plain).batch(0), "source_audio").x
    assert x.eq(torch.tensor([0.0, 1, 2, 3, 4, 3, 2, 1, 0, 1, 2, 3])).all()


def test_images_by_hand(tmp_path: Path) -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    image[:2, :2] = [[[255, 1, 0], [255, 2, 0]], [[255, 4, 0], [255, 8, 255]]]
    clip = {"id": "a", "kind": "image", "gender": "f", "split": "train", "faces": image[None]}
    store = write_store(tmp_path / "toy", [clip], image_size=4)
    whole = role(batches([store], image_size=4).batch(0), "source_image").to("cpu").x[0]
    expected = torch.from_numpy(image).permute(2, 0, 1) / 127.5 - 1.0
    torch.testing.assert_close(whole, expected, atol=1e-6, rtol=0.0)
    half = role(batches([store], image_size=2).batch(0), "source_image").to("cpu").x[0]
    expected = torch.tensor([255, 4, 64]) / 127.5 - 1.0  # averages 255, 3.75 and 63.75, in bytes
    torch.testing.assert_close(half[:, 0, 0], expected)
    assert half[:, 1:].eq(-1.0).all()


UNEVEN = {  # genders of the speakers, and how many clips each has
    "av": ("ffmm", [2, 2, 2, 1]),
    "faces": ("f" * 30 + "m" * 10, [1] * 40),
    "voices": ("fffmm", [12, 1, 1, 6, 1]),
}
STEPS, ROWS = 200, 16
DEVIATIONS = 4.5  # of a share; the chance that one of some 200 checks fails is about 0.001


def tiny(root: Path, corpus: str, genders: str = "fm", clips: Sequence[int] = (1, 1)) -> Store:
    """A store of tiny clips, with as many for each speaker as told."""
    kind = {"av": "av", "voices": "audio"}.get(corpus, "image")
    people = {"corpus": corpus, "kind": kind, "genders": genders, "clips": clips}
    return small(root, **people, splits=["train"], seconds=0.05, image_size=8, faces=1)


def require_shares(drawn: list[Any], chances: dict[Any, float]) -> None:
    """Require that all were drawn and only they, each about as often as its chance says."""
    found = Counter(drawn)
    assert set(found) == set(chances)
    for one, chance in chances.items():
        bound = DEVIATIONS * (chance * (1 - chance) / len(drawn)) ** 0.5
        assert abs(found[one] / len(drawn) - chance) < bound, one


def test_corpora_and_speakers_are_balanced(tmp_path: Path) -> None:
    stores = {corpus: tiny(tmp_path, corpus, *people) for corpus, people in UNEVEN.items()}
    source = batches([*stores.values()], image_size=8, mel_frames=4, batch_size=ROWS)
    drawn = [source.batch(step) for step in range(STEPS)]
    for name, gender in itertools.product(ROLES[:4], "fm"):
        rows = torch.cat([role(batch, name).row for batch in drawn]).tolist()
        items = [source.items[row] for row in rows if source.items[row].gender == gender]
        assert len(items) == STEPS * ROWS / 2
        # the corpus, then the speaker, each uniform
        corpora = ("av", "faces" if name.endswith("image") else "voices")
        groups = [{i.speaker for i in stores[c].items if i.gender == gender} for c in corpora]
        chances = {speaker: 0.5 / len(group) for group in groups for speaker in group}
        require_shares([item.speaker for item in items], chances)
        require_shares([item.corpus for item in items], dict.fromkeys(corpora, 0.5))


def test_half_of_the_references_are_pairs_however_many_corpora_lack_a_side(tmp_path: Path) -> None:
    stores = [tiny(tmp_path, corpus) for corpus in ("av", "faces", "voices", "more", "still")]
    source = batches(stores, image_size=8, mel_frames=4, batch_size=32)
    steps = [source.batch(step) for step in range(60)]
    rows = torch.cat([role(batch, "ref_image").row for batch in steps]).tolist()
    corpora = [source.items[row].corpus for row in rows]
    require_shares(corpora, {"av": 1 / 2, "faces": 1 / 6, "more": 1 / 6, "still": 1 / 6})
    assert corpora.count("av") == sum(int(batch.paired.sum()) for batch in steps)


def digest(batch: Batch) -> str:
    """Hash of samples and rows, of which all else follows."""
    parts = (part for samples in batch.roles().values() for part in (samples.x, samples.row))
    return hashlib.sha256(b"".join(part.numpy().tobytes() for part in parts)).hexdigest()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Store]:
    """Stores whose samples differ, so that bytes tell clips and crops apart."""
    root = tmp_path_factory.mktemp("pictures")
    return [
        make_store(root, corpus="av", genders="fmfm", clips=2, seconds=0.5, image_size=32),
        make_store(root, corpus="faces", kind="image", genders="fm", clips=2, image_size=32),
    ]


def test_a_batch_depends_on_seed_and_step_alone(pictures: list[Store]) -> None:
    forward = [digest(batches(pictures, augment=True).batch(step)) for step in range(6)]
    assert len(set(forward)) == 6
    torch.manual_seed(5)
    one, order = batches(pictures, augment=True), (5, 3, 4, 0, 0, 2, 1)
    assert [digest(one.batch(step)) for step in order] == [forward[step] for step in order]
    seeds = [batches(pictures, augment=True, seed=seed) for seed in range(3)]
    several = {digest(one.batch(step)) for one in seeds for step in range(3)}
    assert len(several) == 9  # also: step 1 of seed 0 is not step 0 of seed 1


def test_the_draws_of_a_seed_stay_what_they_are(pictures: list[Store]) -> None:
    batch = batches(pictures, augment=True, seed=4).batch(17)
    rows = {name: samples.row.tolist() for name, samples in batch.roles().items()}
    assert rows == {
        "source_image": [2, 3, 7, 9, 4, 11, 8, 1],
        "source_audio": [1, 7, 7, 1, 7, 2, 5, 4],
        "ref_image": [6, 11, 8, 0, 8, 11, 3, 4],
        "ref_audio": [7, 7, 5, 0, 0, 7, 2, 4],
        "ref2_image": [7, 6, 1, 8, 0, 10, 11, 1],
        "ref2_audio": [6, 6, 4, 1, 5, 6, 7, 1],
    }


CLIP = {"id": "a", "kind": "av", "speaker": "toy/s1", "gender": "f", "split": "train"}


def voice(name: str, level: float, frames: int = 11, split: str = "train") -> dict[str, object]:
    wave = np.zeros((frames - 1) * 300, np.int16)
    mel = np.full((80, frames), level, np.float32)
    return CLIP | {"id": name, "kind": "audio", "split": split, "waveform": wave, "mel": mel}


def test_a_clip_comes_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    faces = rng.integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    landmarks = rng.random((3, 5, 2)).astype(np.float32)
    wave = rng.uniform(-0.9, 0.9, 3000).astype(np.float32)
    pitch = np.arange(11, dtype=np.float32)
    text = 'say "one", two\nthree, é\x0b\u2028'
    known = CLIP | {"transcript": text, "source": "x.wav", "sha256": "00"}
    parts = {"faces": faces, "landmarks": landmarks, "waveform": wave, "f0": pitch}
    store = write_store(tmp_path / "toy", [known | parts, voice("b", -2, 6)], image_size=64, seed=7)
    first, second = store.items
    assert (store.corpus, store.image_size, store.seed) == ("toy", 64, 7)
    assert {name: getattr(first, name) for name in known} == known
    assert (second.face_count, second.sample_start, second.frame_start) == (0, 3000, 11)
    assert all((store.face(first, i) == faces[i]).all() for i in range(3))
    assert (store.landmarks[:3] == landmarks).all()
    got = store.waveform(first)
    np.testing.assert_allclose(got, wave, atol=0.5 / 32768 + 1e-7)
    mel = log_mel(torch.from_numpy(got))
    torch.testing.assert_close(store.log_mel(first), mel, atol=4e-3, rtol=0.0)
    assert store.log_mel(first).shape == (80, 11)
    assert store.log_mel(second).eq(-2.0).all()
    assert (store.f0_hz(first) == pitch).all()
    assert np.isnan(store.f0_hz(second)).all()
    head = json.loads((store.path / "store.json").read_text())
    assert (head["mel"], head["mel_hash"]) == (MEL.as_dict(), MEL.hash)
    assert head["counts"] == {"av": 1, "audio": 1, "image": 0, "quarantined": 0}
    assert [p.name for p in tmp_path.iterdir()] == ["toy"]


def test_arrays_are_mapped_and_may_be_empty(tmp_path: Path) -> None:
    pictures = make_store(tmp_path, corpus="p", kind="image", genders="fm", clips=2, faces=2)
    assert isinstance(pictures.faces.base, np.memmap)
    assert not pictures.faces.flags.writeable
    assert (pictures.face(pictures.items[3], 1) == face(colour(1, 1, 1), 128)).all()
    refuses(DataError, "no face number 2; it has 2", pictures.face, pictures.items[3], 2)
    assert pictures.audio.shape == (0,)
    assert pictures.mel.shape == (0, 80)
    assert pictures.waveform(pictures.items[0]).shape == (0,)


def test_statistics_by_hand(tmp_path: Path) -> None:
    store = write_store(tmp_path / "a", [voice("a", -1), voice("b", -3), voice("c", -9, 11, "val")])
    pooled = mel_statistics([store], split="train")
    assert pooled.mean.eq(-2.0).all()
    assert pooled.std.eq(1.0).all()
    held_out = mel_statistics([store], split="val")
    assert held_out.mean.eq(-9.0).all()
    torch.testing.assert_close(held_out.std, torch.full((80,), 1e-3))  # the documented floor
    refuses(DataError, "split 'unseen' of a has no audio", mel_statistics, [store], split="unseen")
    ragged = voice("d", np.nan)
    foul = write_store(tmp_path / "d", [voice("a", -1), voice("b", -3), voice("c", 5.4), ragged])
    with pytest.warns(UserWarning, match=r"[cd] is left out .* reaches (5\.4|nan)") as warned:
        robust = mel_statistics([foul], split="train")  # a float file of int16's range, by an
    assert len(warned) == 2  # older version
    assert robust.mean.equal(pooled.mean)
    assert robust.std.equal(pooled.std)
    short = write_store(tmp_path / "b", [voice("a", 0.0, 10)])
    long = write_store(tmp_path / "c", [voice("a", -4.0, 30)])
    pooled = mel_statistics([short, long], split="train")
    assert pooled.mean.eq(-3.0).all()  # (10 * 0 + 30 * -4) / 40
    torch.testing.assert_close(pooled.std, torch.full((80,), 3.0**0.5))  # sqrt(480 / 40 - 9)


def test_the_stores_of_a_mixture(tmp_path: Path) -> None:
    one, same = (make_store(tmp_path / n, corpus="grid", genders="f", clips=1) for n in ("", "2"))
    other = make_store(tmp_path / "3", corpus="grid", genders="f", clips=2)
    assert one.manifest_hash == same.manifest_hash != other.manifest_hash
    lines: list[str] = []
    (store,) = open_stores(tmp_path, ("vctk", "grid", "lrs3"), lines.append)
    assert store.corpus == "grid"
    assert lines == [f"WARNING: vctk, lrs3 not in {tmp_path}; going on without"]
    refuses(DataError, r"store of vctk.*prepare_data\.ipynb", open_stores, tmp_path, ["vctk"])
    (tmp_path / "vctk").mkdir()
    refuses(DataError, r"store\.json missing", open_stores, tmp_path, ["vctk", "grid"])


TEXTS = CLIP | {"kind": "audio", "transcript": "", "source": "", "sha256": ""}
ARRAYS = arrays_of({"waveform": np.zeros(1500, np.float32)})


def rewritten(file: str, change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    """Damage the bytes of one file."""
    return lambda folder: (folder / file).write_bytes(change((folder / file).read_bytes()))


FAULTS: list[tuple[Callable[[Path], object], str]] = [
    (lambda s: s.rename(s.with_name("x")), r"store.json missing.*prepare_data"),
    (lambda s: (s / "mel.npy").unlink(), "mel.npy missing"),
    (lambda s: (s / "store.json").write_text("[]"), "store.json is damaged"),
    (lambda s: (s / "store.json").write_text('{"schema": 1}'), "store.json is damaged"),
    (rewritten("store.json", lambda b: b.replace(b'a": 1', b'a": 99')), "99.*expected schema 1"),
    (rewritten("store.json", lambda b: b.replace(b"300", b"256")), "hop is 256, expected 300"),
    (rewritten("faces.npy", lambda b: b[:-100]), "faces.npy is damaged"),
    (rewritten("f0.npy", lambda b: b.replace(b"<f4", b"<i4")), r"int32; expected .*float32"),
    (rewritten("f0.npy", lambda b: b"x" * 900), "f0.npy is damaged"),
    (rewritten("manifest.csv", lambda b: b"\n".join(b.split(b"\n")[:2])), "1 rows; expected 2"),
    (rewritten("manifest.csv", lambda b: b[:-4]), "manifest.csv is damaged"),
    (rewritten("manifest.csv", lambda b: b.replace(b"24000", b"99000", 1)), "s1-0' points out"),
    (rewritten("manifest.csv", lambda b: b.replace(b"speaker", b"person", 1)), "columns"),
]


@pytest.mark.parametrize(("damage", "message"), FAULTS)
def test_what_is_missing_or_damaged_is_named(tmp_path: Path, damage: Any, message: str) -> None:
    path = make_store(tmp_path, genders="fm", clips=1, image_size=16, splits=["train"]).path
    damage(path)
    refuses(DataError, message, Store.open, path, corpus="toy")


def test_arrays_and_values_that_do_not_fit(tmp_path: Path) -> None:
    write = partial(store.write_store, tmp_path / "toy", image_size=128, seed=0)
    for change, arrays, message in (
        ({}, ARRAYS | {"audio": ARRAYS["audio"].astype(np.float32)}, "'a': audio is .*float32"),
        ({}, ARRAYS | {"mel": ARRAYS["mel"][:5]}, r"mel is \(5, 80\) float16; expected \(6, 80\)"),
        ({}, {"audio": ARRAYS["audio"]}, "'a': mel is"),
        ({}, {"faces": np.zeros((1, 64, 64, 3), np.uint8)}, "'a': faces is"),
        ({}, {"faces": np.zeros((1, 128, 128, 3), np.uint8)}, "'a': landmarks is"),
        *(({key: "odd"}, ARRAYS, "odd.*correct") for key in ("gender", "split", "kind")),
    ):
        refuses(DataError, message, write, [(TEXTS | change, arrays)])
        assert not list(tmp_path.iterdir())


def test_a_store_is_whole_or_absent(tmp_path: Path, monkeypatch: Patch) -> None:
    (tmp_path / ".toy.draft").mkdir()  # a killed process left it
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", Mock(side_effect=FULL_DISK))
        refuses(OSError, "No space left", make_store, tmp_path, genders="fm", clips=1)
    assert not list(tmp_path.iterdir())
    first = make_store(tmp_path, genders="fm", clips=1)
    refuses(OSError, "not empty", make_store, tmp_path, genders="fmf", clips=1)
    assert [*Store.open(first.path).items] == [*first.items]
    assert list(tmp_path.iterdir()) == [first.path]


def test_a_store_reads_the_same_with_and_without_its_index(tmp_path: Path) -> None:
    """Of a large corpus the index alone is read; older stores have none."""
    shape = {"genders": ("f", "m", "", "m"), "clips": (3, 1, 4, 2), "known_speakers": True}
    store = make_store(tmp_path, corpus="a", **shape)
    anonymous = make_store(tmp_path, corpus="b", known_speakers=False)
    found = [[*one.items] for one in (store, anonymous)], batches([store, anonymous])
    index = (store.path / "index.npz").read_bytes()
    for one in (store, anonymous):
        (one.path / "index.npz").unlink()
    plain = [Store.open(one.path) for one in (store, anonymous)]
    assert all(isinstance(one.items, tuple) for one in plain)
    again = batches(plain)
    assert [[*one.items] for one in plain] == found[0]
    assert [*again.items] == [*found[1].items] == found[0][0] + found[0][1]
    assert again.items[-1] == again.items[len(again.items) - 1] == found[0][1][-1]
    for name in ("mean", "std"):
        one, other = (getattr(b.standardiser, name) for b in (again, found[1]))
        torch.testing.assert_close(one, other, rtol=1e-6, atol=0)
    for step in range(5):
        for name in ROLES:
            one, other = (role(b.batch(step), name) for b in (again, found[1]))
            assert one.row.equal(other.row)
            assert one.speaker.equal(other.speaker)
    (store.path / "index.npz").write_bytes(index[:100])
    refuses(DataError, "is damaged .*not a zip file", Store.open, store.path)
    (anonymous.path / "index.npz").write_bytes(index)  # of another manifest
    assert isinstance(Store.open(anonymous.path).items, tuple)


def test_calls_take_turns_on_one_thread(monkeypatch: Patch) -> None:
    log, clock, threads = [], itertools.count(), torch.get_num_threads()
    calls = {(name, ""): lambda n=name: log.append((n, torch.get_num_threads())) for name in "ab"}
    monkeypatch.setattr("time.process_time", lambda: float(next(clock)) ** 2)
    found = speed.take_turns(calls, rounds=2)
    assert torch.get_num_threads() == threads
    assert log == [("a", 1), ("b", 1)] * 3
    # each call reads the clock twice; the first round (0, 1, 4, 9) does not count
    cpu = {name: [spent.cpu_s for spent in all_of] for name, all_of in found.items()}
    assert cpu == {("a", ""): [25.0 - 16.0, 81.0 - 64.0], ("b", ""): [49.0 - 36.0, 121.0 - 100.0]}


@pytest.mark.parametrize("kind", ["av", "image", "audio"])
def test_clips_of_a_batch_are_decoded_from_files(
    kind: str, tmp_path: Path, monkeypatch: Patch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setattr(speed, "JPEG_PIXELS", (64, 32))
    store = make_store(tmp_path, kind=kind, image_size=32, clips=1, seconds=0.5, splits=("train",))
    cfg = config.resolve(dataset="grid", preset="smoke", batch_size=2, seed=3)
    with speed.files(Batches(cfg, [store])) as calls:
        both = " and WAV" if kind == "av" else ""
        jpegs = [f"JPEG {size} px{both}" for size in (64, 32)]
        assert list(calls) == (["WAV"] if kind == "audio" else jpegs)
        made = list(calls.values())[-1]()
    faces, voices = made if kind == "av" else (made, made)
    assert kind == "audio" or faces.shape == (6, 3, 32, 32)
    assert kind == "image" or voices.shape == (6, 1, 80, 80)
    assert not list(temporary.iterdir())


def test_files_hold_the_same_faces_and_voices(tmp_path: Path) -> None:
    soundfile, image = map(pytest.importorskip, ("soundfile", "PIL.Image"))
    ramp = np.linspace(0, 255, 64).astype(np.uint8)
    shown = np.stack([np.tile(ramp, (64, 1))] * 3, axis=-1)  # dark on the left
    image.fromarray(shown).resize((256, 256)).save(tmp_path / "x.jpg", quality=95)
    x = speed.load_faces([tmp_path / "x.jpg"] * 2, size=64)
    assert x.shape == (2, 3, 64, 64)
    expected = torch.from_numpy(shown).permute(2, 0, 1) / 127.5 - 1.0
    assert float((x - expected).abs().mean()) < 0.02
    rng, files = np.random.default_rng(0), [tmp_path / "a.wav", tmp_path / "b.wav"]
    voices = [(0.1 * rng.standard_normal(n)).astype(np.float32) for n in (9000, 3000)]
    for file, voice in zip(files, voices, strict=True):
        soundfile.write(file, voice, 24_000)
    plain = Standardiser(torch.zeros(80), torch.full((80,), 2.0))
    x = speed.load_voices(files, frames=31, standardiser=plain, rng=np.random.default_rng(0))
    assert x.shape == (2, 1, 80, 31)
    long, short = (log_mel(torch.from_numpy(voice)) / 2.0 for voice in voices)
    forth = [*range(11), *range(9, -1, -1), *range(1, 11)]  # 11 frames: forth and back
    torch.testing.assert_close(x[:, 0], torch.stack([long, short[:, forth]]), atol=2e-3, rtol=0.0)


def test_sizes_are_the_published_ones() -> None:
    for name in presets.names("vocoders"):
        size, wanted = presets.load("vocoders", name), GENERATORS[name.partition(".")[0]]
        given = wanted["generator_params"].items()
        published = {key.replace("kernal", "kernel"): value for key, value in given}
        assert size["generator_params"].items() <= published.items()


def test_untrained_networks_sound_without_touching_the_callers_randomness() -> None:
    vocoder_package()
    before = torch.get_rng_state()
    sizes = {name: presets.load("vocoders", name) for name in presets.names("vocoders")}
    found = {n: untrained(s["generator_type"], s["generator_params"]) for n, s in sizes.items()}
    assert torch.equal(torch.get_rng_state(), before)
    assert all(isinstance(made, Vocoder) for made in found.values())
    quick = found["multi_band_melgan.v2"]
    assert "random weights" in quick.name
    wave = quick(torch.full((80, 5), -2.0), length=1234)
    assert wave.shape == (1234,)
    assert np.isfinite(wave).all()
