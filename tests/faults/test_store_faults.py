"""Damaged, foreign and half-written prepared stores."""

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

from tests.conftest import Patch, refuses
from tests.unit.store_factory import arrays_of, make_store
from xfavot.data import store
from xfavot.data.store import Store
from xfavot.errors import DataError

CLIP = {"id": "a", "kind": "audio", "speaker": "toy/s1", "gender": "f", "split": "train"}
CLIP |= {"transcript": "", "source": "", "sha256": ""}
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
        refuses(DataError, message, write, [(CLIP | change, arrays)])
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
