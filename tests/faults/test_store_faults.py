"""Damaged, foreign and half-written prepared stores."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.store_factory import make_store
from xfavot.data.store import Store, StoreWriter
from xfavot.errors import DataError

FIELDS = {"id": "a", "kind": "audio", "speaker": "toy/s1", "gender": "f", "split": "train"}
WAVE = np.zeros(1500, np.float32)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return make_store(tmp_path, genders="fm", clips=1, image_size=16, splits=["train"]).path


def change_head(store: Path, change: Callable[[dict[str, Any]], object]) -> None:
    head = json.loads((store / "store.json").read_text())
    change(head)
    (store / "store.json").write_text(json.dumps(head))


def test_missing_and_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such folder.*prepare_data"):
        Store.open(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"the folder is empty.*prepare_data"):
        Store.open(tmp_path / "empty")


@pytest.mark.parametrize(
    "name",
    ["store.json", "manifest.csv", "faces.npy", "landmarks.npy", "audio.npy", "mel.npy", "f0.npy"],
)
def test_missing_file(store: Path, name: str) -> None:
    (store / name).unlink()
    with pytest.raises(DataError, match=f"{name} missing"):
        Store.open(store)


@pytest.mark.parametrize("name", ["faces", "landmarks", "audio", "mel", "f0"])
def test_truncated_array(store: Path, name: str) -> None:
    file = store / f"{name}.npy"
    size = file.stat().st_size
    os.truncate(file, size - 100)
    with pytest.raises(DataError, match=rf"{name}.npy has {size - 100} bytes; expected {size}"):
        Store.open(store)


def test_array_of_another_shape_and_the_same_size(store: Path) -> None:
    file = store / "f0.npy"
    content = file.read_bytes()
    file.write_bytes(content[:128].replace(b"<f4", b"<i4") + content[128:])
    with pytest.raises(DataError, match=r"f0.npy holds .* int32; expected .* float32"):
        Store.open(store)
    file.write_bytes(b"x" * len(content))
    with pytest.raises(DataError, match=r"f0.npy is damaged"):
        Store.open(store)


def test_another_corpus(store: Path) -> None:
    Store.open(store, corpus="toy")
    with pytest.raises(DataError, match="holds corpus 'toy'; expected 'grid'"):
        Store.open(store, corpus="grid")


def test_another_mel_contract(store: Path) -> None:
    change_head(store, lambda head: head["mel"].update(hop=256, sample_rate=22050))
    with pytest.raises(DataError) as caught:
        Store.open(store)
    assert "hop is 256, expected 300" in str(caught.value)
    assert "sample_rate is 22050, expected 24000" in str(caught.value)


def test_another_schema(store: Path) -> None:
    change_head(store, lambda head: head.update(schema=99))
    with pytest.raises(DataError, match="schema 99; expected 1"):
        Store.open(store)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 1}'])
def test_damaged_head(store: Path, text: str) -> None:
    (store / "store.json").write_text(text)
    with pytest.raises(DataError, match=r"store.json is damaged"):
        Store.open(store)


def test_damaged_manifest(store: Path) -> None:
    file = store / "manifest.csv"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:-1]))
    with pytest.raises(DataError, match="1 rows; expected 2"):
        Store.open(store)
    file.write_text("".join(lines)[:-4])
    with pytest.raises(DataError, match=r"row 2"):
        Store.open(store)
    file.write_text("".join([lines[0], lines[1].replace("24000", "99000"), lines[2]]))
    with pytest.raises(DataError, match=r"row 1 .*points outside the arrays"):
        Store.open(store)
    file.write_text("".join([lines[0].replace("speaker", "person"), *lines[1:]]))
    with pytest.raises(DataError, match="columns"):
        Store.open(store)


@pytest.mark.parametrize(
    ("fields", "parts", "message"),
    [
        ({"gender": "female"}, {"waveform": WAVE}, "gender"),
        ({"split": "test"}, {"waveform": WAVE}, "split"),
        ({"kind": "video"}, {"waveform": WAVE}, "kind"),
        ({"id": ""}, {"waveform": WAVE}, "non-empty id"),
        ({"sex": "f"}, {"waveform": WAVE}, "unknown fields"),
        ({}, {}, "waveform given: False"),
        ({}, {"waveform": WAVE, "faces": np.zeros((1, 128, 128, 3), np.uint8)}, "faces given"),
        ({}, {"waveform": np.full(1500, np.nan)}, "not finite"),
        ({}, {"waveform": WAVE[None]}, "waveform is"),
        ({}, {"waveform": WAVE, "log_mel": np.zeros((80, 5))}, r"log_mel .*\(5, 80\)"),
        ({}, {"waveform": WAVE, "log_mel": np.full((80, 6), np.inf)}, "log_mel"),
        ({}, {"waveform": WAVE, "f0": np.zeros(5)}, "f0"),
        ({"kind": "image"}, {"faces": np.zeros((1, 64, 64, 3), np.uint8)}, "faces is"),
        ({"kind": "image"}, {"faces": np.zeros((0, 128, 128, 3), np.uint8)}, "no face"),
        ({"kind": "image"}, {"faces": np.zeros((1, 128, 128, 3))}, "float64"),
    ],
)
def test_unfit_clips_leave_the_writer_usable(
    tmp_path: Path, fields: dict[str, str], parts: dict[str, Any], message: str
) -> None:
    with StoreWriter(tmp_path / "toy", corpus="toy", seed=0) as writer:
        with pytest.raises(DataError, match=message):
            writer.add(FIELDS | fields, **parts)
        writer.add(FIELDS, waveform=WAVE)
        with pytest.raises(DataError, match="repeated id: True"):
            writer.add(FIELDS, waveform=WAVE)
    assert len(Store.open(tmp_path / "toy").audio) == 1500


def test_an_exception_leaves_nothing_behind(tmp_path: Path) -> None:
    def interrupted() -> None:
        with StoreWriter(tmp_path / "toy", corpus="toy", seed=0) as writer:
            writer.add(FIELDS, waveform=WAVE)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


class FullDisk:
    """A file of a disk that is full."""

    def write(self, data: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    def close(self) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_full_disk(tmp_path: Path) -> None:
    old = make_store(tmp_path, genders="fm", clips=1)
    writer = StoreWriter(old.path, corpus="toy", seed=0, replace=True)
    writer.add(FIELDS, waveform=WAVE)
    writer._files["mel"] = FullDisk()  # type: ignore[assignment]
    with pytest.raises(DataError, match=r"No space left.*nothing was left behind.*free space"):
        writer.add(FIELDS | {"id": "b"}, waveform=WAVE)
    assert [p.name for p in tmp_path.iterdir()] == ["toy"]
    assert Store.open(old.path).items == old.items


def test_full_disk_at_close(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    writer = StoreWriter(tmp_path / "toy", corpus="toy", seed=0)
    writer.add(FIELDS, waveform=WAVE)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="No space left"):
        writer.close()
    assert list(tmp_path.iterdir()) == []


def test_target_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path / "toy", corpus="toy", seed=0)
    first = make_store(tmp_path, genders="fm", clips=1)
    with pytest.raises(DataError, match="folder exists"):
        writer.close()
    assert Store.open(first.path).items == first.items


def test_killed_writer_leaves_no_store_and_is_swept_up(tmp_path: Path) -> None:
    script = (
        "import os, sys, numpy as np\n"
        "from xfavot.data.store import StoreWriter\n"
        "writer = StoreWriter(sys.argv[1], corpus='toy', seed=0)\n"
        "writer.add(dict(id='a', kind='audio', split='train'), waveform=np.zeros(1500))\n"
        "os._exit(9)\n"
    )
    root = str(Path(__file__).resolve().parents[2])
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "toy")],
        env=os.environ | {"PYTHONPATH": root},
        check=False,
    )
    assert done.returncode == 9
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".toy.partial-")
    with pytest.raises(DataError, match="no such folder"):
        Store.open(tmp_path / "toy")
    make_store(tmp_path, genders="fm", clips=1)
    assert left.is_dir()  # it could still be at work
    for file in [*left.iterdir(), left]:
        os.utime(file, (0, 0))
    make_store(tmp_path, genders="fm", clips=1, replace=True)
    assert [p.name for p in tmp_path.iterdir()] == ["toy"]
