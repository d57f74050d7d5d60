"""The prepared store: what goes in comes out, statistics by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import refuses
from tests.unit.store_factory import colour, face, make_store, write_store
from xfavot.audio.mel import MEL, log_mel
from xfavot.data.store import mel_statistics, open_stores
from xfavot.errors import DataError

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
    for i in range(3):
        assert (store.face(first, i) == faces[i]).all()
    assert (store.landmarks[:3] == landmarks).all()
    got = store.waveform(first)
    assert got.dtype == np.float32
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
    names = {"store.json", "manifest.csv", "quarantine.csv"}
    arrays = {"faces.npy", "landmarks.npy", "audio.npy", "mel.npy", "f0.npy"}
    assert {path.name for path in store.path.iterdir()} == names | arrays


def test_arrays_are_mapped_and_may_be_empty(tmp_path: Path) -> None:
    pictures = make_store(tmp_path, corpus="p", kind="image", genders="fm", clips=2, faces=2)
    assert isinstance(pictures.faces.base, np.memmap)
    assert not pictures.faces.flags.writeable
    assert (pictures.face(pictures.items[3], 1) == face(colour(1, 1, 1), 128)).all()
    refuses(DataError, "no face number 2; it has 2", pictures.face, pictures.items[3], 2)
    assert pictures.audio.shape == (0,)
    assert pictures.mel.shape == (0, 80)
    assert pictures.waveform(pictures.items[0]).shape == (0,)
    voices = make_store(tmp_path, corpus="v", kind="audio", genders="fm", clips=1)
    assert voices.faces.shape == (0, 128, 128, 3)
    refuses(DataError, "no face number 0", voices.face, voices.items[0], 0)


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
    with pytest.raises(DataError, match=r"no prepared store of vctk.*prepare_data\.ipynb"):
        open_stores(tmp_path, ["vctk"])
    (tmp_path / "vctk").mkdir()
    refuses(DataError, r"store\.json missing", open_stores, tmp_path, ["vctk", "grid"])
