"""The prepared store: what comes back, statistics by hand, damaged and half-written ones."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from tests.conftest import Patch, refuses
from tests.unit.store_factory import arrays_of, colour, face, make_store, write_store
from xfavot.audio.mel import MEL, log_mel
from xfavot.data import store
from xfavot.data.store import Store, mel_statistics, open_stores
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


def rewritten(file: str, change: Callable[[Any], Any]) -> Callable[[Path], object]:
    """Damage one file: store.json by its content, another by its bytes."""

    def damage(folder: Path) -> None:
        path = folder / file
        if file == "store.json":
            head = json.loads(path.read_text())
            change(head)
            path.write_text(json.dumps(head))
        else:
            path.write_bytes(change(path.read_bytes()))

    return damage


FAULTS: list[tuple[Callable[[Path], object], str]] = [
    (lambda s: s.rename(s.with_name("x")), r"store.json missing.*prepare_data"),
    (lambda s: (s / "mel.npy").unlink(), "mel.npy missing"),
    (lambda s: (s / "store.json").write_text("[]"), "store.json is damaged"),
    (lambda s: (s / "store.json").write_text('{"schema": 1}'), "store.json is damaged"),
    (rewritten("store.json", lambda h: h.update(schema=99)), "schema.: 99.*expected schema 1"),
    (rewritten("store.json", lambda h: h["mel"].update(hop=256)), "hop is 256, expected 300"),
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
        *(
            ({key: "odd"}, ARRAYS, "odd.*correct the .*reader")
            for key in ("gender", "split", "kind")
        ),
    ):
        refuses(DataError, message, write, [(TEXTS | change, arrays)])
        assert not list(tmp_path.iterdir())


def test_a_store_is_whole_or_absent(tmp_path: Path, monkeypatch: Patch) -> None:
    (tmp_path / ".toy.new").mkdir()  # a killed process left it
    with monkeypatch.context() as patch:
        full = OSError(errno.ENOSPC, "No space left on device")
        patch.setattr(os, "fsync", Mock(side_effect=full))
        refuses(OSError, "No space left", make_store, tmp_path, genders="fm", clips=1)
    assert not list(tmp_path.iterdir())
    first = make_store(tmp_path, genders="fm", clips=1)
    refuses(OSError, "not empty", make_store, tmp_path, genders="fmf", clips=1)
    assert Store.open(first.path).items == first.items
    assert list(tmp_path.iterdir()) == [first.path]
