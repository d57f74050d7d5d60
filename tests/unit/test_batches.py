"""Batches: who is in them and how often, determinism, crops and sizes by hand."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.conftest import refuses
from tests.unit.store_factory import make_batches as batches
from tests.unit.store_factory import make_store, role, write_store
from xfavot.audio.mel import Standardiser
from xfavot.data.batches import Batch, Change, draw_changes, planes, reflected
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
        batch = source.batch(step)
        samples = {name: role(batch, name) for name in ROLES}
        for name in ("ref_audio", "ref2_image", "ref2_audio"):
            assert samples[name].gender.equal(samples["ref_image"].gender)
        for name in ("ref_image", "source_image", "source_audio"):
            assert int(samples[name].gender.sum()) == 4
        for kind in ("image", "audio"):
            assert not samples[f"ref_{kind}"].row.eq(samples[f"ref2_{kind}"].row).any()
    odd = batches(mixture, batch_size=7)
    totals = [int(role(odd.batch(step), "ref_image").gender.sum()) for step in range(20)]
    assert set(totals) == {3, 4}


def test_pairs_are_one_speaker_and_speakers_are_distinct(mixture: list[Store]) -> None:
    source, pairs = batches(mixture), 0
    for step in range(40):
        batch = source.batch(step)
        faces, voices = role(batch, "ref_image").row, role(batch, "ref_audio").row
        speakers = []
        for face, voice, paired in zip(faces.tolist(), voices.tolist(), batch.paired, strict=True):
            one, other = source.items[face], source.items[voice]
            assert (one.corpus, other.corpus) == (("av", "av") if paired else ("faces", "voices"))
            assert one.gender == other.gender
            if paired:
                assert one.speaker == other.speaker
                speakers.append(one.speaker)
        assert len(set(speakers)) == len(speakers)
        pairs += len(speakers)
    assert 120 < pairs < 200  # of 320 rows; half of them are expected, 4.5 deviations either side


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
    assert abs(np.log(ratio).mean()) < 4 * 0.06 / (count / 2) ** 0.5
    room = cropped & (size - width > 4)
    assert abs((left / (size - width).clip(1))[room].mean() - 0.5) < 0.05


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


# How many clips each speaker has; uneven inside the corpora too.
PEOPLE = {
    **{"av": {"f": [2, 2], "m": [2, 1]}, "faces": {"f": [1] * 30, "m": [1] * 10}},
    "voices": {"f": [12, 1, 1], "m": [6, 1]},
}
KINDS = {"av": "av", "faces": "image", "voices": "audio", "more": "image", "still": "image"}
STEPS, ROWS = 200, 16
DEVIATIONS = 4.5  # of a share; the chance that one of some 200 checks fails is about 0.001


def uneven(root: Path, corpus: str, people: dict[str, list[int]]) -> Store:
    """A store of tiny clips, with as many for each speaker as told."""
    image = {"faces": np.zeros((1, 8, 8, 3), np.uint8)}
    sound = {"waveform": np.zeros(1200, np.float32), "mel": np.zeros((80, 5), np.float32)}
    parts = {"av": image | sound, "image": image, "audio": sound}[KINDS[corpus]]
    parts |= {"kind": KINDS[corpus], "split": "train"}
    made = [
        {"id": f"{name}-{clip}", "speaker": f"{corpus}/{name}", "gender": name[0], **parts}
        for gender, counts in people.items()
        for name, clips in ((f"{gender}{n}", clips) for n, clips in enumerate(counts))
        for clip in range(clips)
    ]
    return write_store(root / corpus, made, image_size=8)


def require_shares(drawn: list[Any], chances: dict[Any, float]) -> None:
    """Require that all were drawn and only they, each about as often as its chance says."""
    found = Counter(drawn)
    assert set(found) == set(chances)
    for one, chance in chances.items():
        bound = DEVIATIONS * (chance * (1 - chance) / len(drawn)) ** 0.5
        assert abs(found[one] / len(drawn) - chance) < bound, one


def test_corpora_and_speakers_are_balanced(tmp_path: Path) -> None:
    stores = [uneven(tmp_path, corpus, people) for corpus, people in PEOPLE.items()]
    source = batches(stores, image_size=8, mel_frames=4, batch_size=ROWS)
    drawn = [source.batch(step) for step in range(STEPS)]
    for name, gender in itertools.product(ROLES[:4], "fm"):
        rows = torch.cat([role(batch, name).row for batch in drawn]).tolist()
        items = [source.items[row] for row in rows if source.items[row].gender == gender]
        assert len(items) == STEPS * ROWS / 2
        # the corpus, then the speaker, each uniform
        corpora = ("av", "faces" if name.endswith("image") else "voices")
        counts = {corpus: len(PEOPLE[corpus][gender]) for corpus in corpora}
        people = [(corpus, n) for corpus in corpora for n in range(counts[corpus])]
        chances = {f"{corpus}/{gender}{n}": 0.5 / counts[corpus] for corpus, n in people}
        require_shares([item.speaker for item in items], chances)
        require_shares([item.corpus for item in items], dict.fromkeys(corpora, 0.5))


def test_half_of_the_references_are_pairs_however_many_corpora_lack_a_side(tmp_path: Path) -> None:
    names = ("av", "faces", "voices", "more", "still")
    stores = [uneven(tmp_path, corpus, {"f": [1], "m": [1]}) for corpus in names]
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
