"""Who is in the batches, by statistics: a mixture of three corpora of very different sizes."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.unit.store_factory import make_batches, make_store, role, write_store
from xfavot.data.batches import Batch, Batches
from xfavot.data.store import Store

# How many clips each speaker has; uneven inside the corpora too.
PEOPLE = {
    "av": {"f": [2, 2], "m": [2, 1]},
    "faces": {"f": [1] * 30, "m": [1] * 10},
    "voices": {"f": [12, 1, 1], "m": [6, 1]},
}
KINDS = {"av": "av", "faces": "image", "voices": "audio", "more": "image", "still": "image"}
ROLES = ("source_image", "source_audio", "ref_image", "ref_audio")
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


@pytest.fixture(scope="module")
def lopsided(tmp_path_factory: pytest.TempPathFactory) -> Batches:
    root = tmp_path_factory.mktemp("lopsided")
    stores = [uneven(root, corpus, people) for corpus, people in PEOPLE.items()]
    return make_batches(stores, image_size=8, mel_frames=4, batch_size=ROWS)


@pytest.fixture(scope="module")
def drawn(lopsided: Batches) -> list[Batch]:
    return [lopsided.batch(step) for step in range(STEPS)]


def speaker_chances(name: str, gender: str) -> dict[str, float]:
    """Speaker to its chance in a role: corpus, then speaker, each uniform."""
    corpora = ("av", "faces" if name.endswith("image") else "voices")
    return {
        f"{corpus}/{gender}{number}": 1 / 2 / len(PEOPLE[corpus][gender])
        for corpus in corpora
        for number in range(len(PEOPLE[corpus][gender]))
    }


def require_shares(drawn: list[Any], chances: dict[Any, float]) -> None:
    """Require that all were drawn and only they, each about as often as its chance says."""
    found = Counter(drawn)
    assert set(found) == set(chances)
    for one, chance in chances.items():
        bound = DEVIATIONS * (chance * (1 - chance) / len(drawn)) ** 0.5
        assert abs(found[one] / len(drawn) - chance) < bound, one


@pytest.mark.parametrize("name", ROLES)
def test_corpora_and_speakers_are_balanced(name: str, lopsided: Batches, drawn: Any) -> None:
    rows = torch.cat([role(batch, name).row for batch in drawn]).tolist()
    for gender in "fm":
        items = [lopsided.items[row] for row in rows if lopsided.items[row].gender == gender]
        assert len(items) == STEPS * ROWS / 2
        require_shares([item.speaker for item in items], speaker_chances(name, gender))
        require_shares([item.corpus == "av" for item in items], {True: 0.5, False: 0.5})


def test_half_of_the_references_are_pairs_however_many_corpora_lack_a_side(tmp_path: Path) -> None:
    names = ("av", "faces", "voices", "more", "still")
    stores = [uneven(tmp_path, corpus, {"f": [1], "m": [1]}) for corpus in names]
    source = make_batches(stores, image_size=8, mel_frames=4, batch_size=32)
    steps = [source.batch(step) for step in range(60)]
    rows = torch.cat([role(batch, "ref_image").row for batch in steps]).tolist()
    corpora = [source.items[row].corpus for row in rows]
    require_shares(corpora, {"av": 1 / 2, "faces": 1 / 6, "more": 1 / 6, "still": 1 / 6})
    assert corpora.count("av") == sum(int(batch.paired.sum()) for batch in steps)


def digest(batch: Batch) -> str:
    """Hash of every byte of a batch."""
    tensors = [batch.paired]
    for samples in batch.roles().values():
        tensors += [samples.x, samples.gender, samples.speaker, samples.row]
    return hashlib.sha256(b"".join(t.numpy().tobytes() for t in tensors)).hexdigest()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Store]:
    """Stores whose samples differ, so that bytes tell clips and crops apart."""
    root = tmp_path_factory.mktemp("pictures")
    return [
        make_store(root, corpus="av", genders="fmfm", clips=2, seconds=0.5, image_size=32),
        make_store(root, corpus="faces", kind="image", genders="fm", clips=2, image_size=32),
    ]


def test_a_batch_depends_on_seed_and_step_alone(pictures: list[Store]) -> None:
    forward = [digest(make_batches(pictures, augment=True).batch(step)) for step in range(6)]
    assert len(set(forward)) == 6
    torch.manual_seed(5)
    one, order = make_batches(pictures, augment=True), (5, 3, 4, 0, 0, 2, 1)
    assert [digest(one.batch(step)) for step in order] == [forward[step] for step in order]
    seeds = [make_batches(pictures, augment=True, seed=seed) for seed in range(3)]
    several = {digest(batches.batch(step)) for batches in seeds for step in range(3)}
    assert len(several) == 9  # also: step 1 of seed 0 is not step 0 of seed 1


def test_the_draws_of_a_seed_stay_what_they_are(pictures: list[Store]) -> None:
    batch = make_batches(pictures, augment=True, seed=4).batch(17)
    rows = {name: samples.row.tolist() for name, samples in batch.roles().items()}
    assert rows == {
        "source_image": [2, 3, 7, 9, 4, 11, 8, 1],
        "source_audio": [1, 7, 7, 1, 7, 2, 5, 4],
        "ref_image": [6, 11, 8, 0, 8, 11, 3, 4],
        "ref_audio": [7, 7, 5, 0, 0, 7, 2, 4],
        "ref2_image": [7, 6, 1, 8, 0, 10, 11, 1],
        "ref2_audio": [6, 6, 4, 1, 5, 6, 7, 1],
    }
