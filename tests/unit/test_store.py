"""The prepared store: what goes in comes out, statistics by hand."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.unit.store_factory import colour, face, make_store
from xfavot.audio.mel import MEL, log_mel
from xfavot.data.store import Store, StoreWriter, mel_statistics
from xfavot.errors import DataError

FIELDS = {"id": "a", "kind": "av", "speaker": "toy/s1", "gender": "f", "split": "train"}


def constant_mel(level: float, frames: int = 11) -> np.ndarray:
    return np.full((80, frames), level, np.float32)


def test_a_clip_comes_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    faces = rng.integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    landmarks = rng.random((3, 5, 2)).astype(np.float32)
    wave = rng.uniform(-0.9, 0.9, 3000).astype(np.float32)
    pitch = np.arange(11, dtype=np.float32)
    text = 'say "one", two\nthree, é'
    with StoreWriter(tmp_path / "toy", corpus="toy", seed=7, image_size=64) as writer:
        first = writer.add(
            FIELDS | {"transcript": text, "source": "x.wav", "sha256": "00"},
            faces=faces,
            landmarks=landmarks,
            waveform=wave,
            f0=pitch,
        )
        second = writer.add(
            FIELDS | {"id": "b", "kind": "audio"}, waveform=wave[:1500], log_mel=constant_mel(-2, 6)
        )
    store = Store.open(tmp_path / "toy", corpus="toy")
    assert store.items == (first, second)
    assert (store.corpus, store.image_size, store.seed) == ("toy", 64, 7)
    assert first.transcript == text
    assert (second.face_count, second.sample_start, second.frame_start) == (0, 3000, 11)
    for i in range(3):
        assert (store.face(first, i) == faces[i]).all()
    assert (store.landmarks[:3] == landmarks).all()
    got = store.waveform(first)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, wave, atol=0.5 / 32768 + 1e-7)
    torch.testing.assert_close(
        store.log_mel(first), log_mel(torch.from_numpy(got)), atol=4e-3, rtol=0.0
    )
    assert store.log_mel(first).shape == (80, 11)
    assert store.log_mel(second).eq(-2.0).all()
    assert (store.f0_hz(first) == pitch).all()
    assert np.isnan(store.f0_hz(second)).all()


def test_full_scale_and_beyond(tmp_path: Path) -> None:
    wave = np.zeros(1500, np.float32)
    wave[:5] = [1.0, -1.0, 1.5, 0.5, 1 / 32768]
    with StoreWriter(tmp_path / "toy", corpus="toy", seed=0) as writer:
        item = writer.add(FIELDS | {"kind": "audio"}, waveform=wave)
    store = Store.open(tmp_path / "toy")
    assert store.audio[:5].tolist() == [32767, -32768, 32767, 16384, 1]
    assert store.waveform(item)[3] == 0.5


def test_arrays_are_mapped_not_read(tmp_path: Path) -> None:
    store = make_store(tmp_path, genders="fm", clips=1)
    for name in ("faces", "landmarks", "audio", "mel", "f0"):
        base = getattr(store, name).base
        assert isinstance(base, np.memmap)
        assert not getattr(store, name).flags.writeable


def test_a_corpus_without_a_side_has_empty_arrays(tmp_path: Path) -> None:
    pictures = make_store(tmp_path, corpus="p", kind="image", genders="fm", clips=1)
    assert pictures.audio.shape == (0,)
    assert pictures.mel.shape == (0, 80)
    assert pictures.waveform(pictures.items[0]).shape == (0,)
    voices = make_store(tmp_path, corpus="v", kind="audio", genders="fm", clips=1)
    assert voices.faces.shape == (0, 128, 128, 3)
    with pytest.raises(DataError, match="no face number 0"):
        voices.face(voices.items[0], 0)


def test_faces_of_the_factory(tmp_path: Path) -> None:
    store = make_store(tmp_path, genders="fm", clips=2, faces=2)
    assert (store.face(store.items[3], 1) == face(colour(1, 1, 1), 128)).all()
    with pytest.raises(DataError, match="no face number 2; it has 2"):
        store.face(store.items[3], 2)


def test_statistics_by_hand(tmp_path: Path) -> None:
    wave = np.zeros(3000, np.int16)
    levels = {"a": -1.0, "b": -3.0, "c": -9.0}
    with StoreWriter(tmp_path / "toy", corpus="toy", seed=0) as writer:
        for name, level in levels.items():
            split = "val" if name == "c" else "train"
            writer.add(
                FIELDS | {"id": name, "kind": "audio", "split": split},
                waveform=wave,
                log_mel=constant_mel(level),
            )
    store = Store.open(tmp_path / "toy")
    assert store.mel_statistics().mean.eq(-2.0).all()
    assert store.mel_statistics().std.eq(1.0).all()
    held_out = mel_statistics([store], split="val")
    assert held_out.mean.eq(-9.0).all()
    torch.testing.assert_close(held_out.std, torch.full((80,), 1e-3))  # the documented floor
    with pytest.raises(DataError, match="split 'unseen' of toy has no audio"):
        store.mel_statistics("unseen")


def test_statistics_pool_frames_over_stores(tmp_path: Path) -> None:
    stores = []
    for name, level, frames in (("a", 0.0, 10), ("b", -4.0, 30)):
        with StoreWriter(tmp_path / name, corpus=name, seed=0) as writer:
            writer.add(
                FIELDS | {"kind": "audio"},
                waveform=np.zeros((frames - 1) * 300, np.int16),
                log_mel=constant_mel(level, frames),
            )
        stores.append(Store.open(tmp_path / name))
    pooled = mel_statistics(stores, split="train")
    assert pooled.mean.eq(-3.0).all()  # (10 * 0 + 30 * -4) / 40
    torch.testing.assert_close(pooled.std, torch.full((80,), 3.0**0.5))  # sqrt(480 / 40 - 9)


def test_store_json_and_quarantine(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "toy", corpus="toy", seed=3) as writer:
        writer.add(FIELDS | {"kind": "audio"}, waveform=np.zeros(1500, np.float32))
        writer.quarantine("s9/bad.wav", "truncated", "truncated, 5 bytes missing")
        (writer.folder / "factors.json").write_text("{}")
    head = json.loads((tmp_path / "toy" / "store.json").read_text())
    assert head["mel"] == MEL.as_dict()
    assert head["mel_hash"] == MEL.hash
    assert head["counts"] == {"av": 0, "audio": 1, "image": 0, "quarantined": 1}
    with (tmp_path / "toy" / "quarantine.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows == [
        {"source": "s9/bad.wav", "reason": "truncated", "detail": "truncated, 5 bytes missing"}
    ]
    assert (tmp_path / "toy" / "factors.json").is_file()
    assert [p.name for p in tmp_path.iterdir()] == ["toy"]


def test_manifest_hash_follows_the_rows(tmp_path: Path) -> None:
    one = make_store(tmp_path / "1", genders="fm", clips=1)
    same = make_store(tmp_path / "2", genders="fm", clips=1)
    other = make_store(tmp_path / "3", genders="fm", clips=2)
    assert one.manifest_hash == same.manifest_hash
    assert one.manifest_hash != other.manifest_hash


def test_replacing_needs_to_be_asked_for(tmp_path: Path) -> None:
    old = make_store(tmp_path, genders="fm", clips=1)
    with pytest.raises(DataError, match="replace=True"):
        make_store(tmp_path, genders="fm", clips=2)
    assert len(Store.open(old.path).items) == 2
    new = make_store(tmp_path, genders="fm", clips=2, replace=True)
    assert len(new.items) == 4
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("x")
    with pytest.raises(DataError, match="folder exists"):
        make_store(tmp_path, corpus="other", replace=True)
    assert (tmp_path / "other" / "thesis.tex").read_text() == "x"
