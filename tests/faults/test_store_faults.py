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

from tests.unit.store_factory import arrays_of, make_store, write_store
from xfavot.data.store import POSITIONS, Draft, Item, Store
from xfavot.errors import DataError

CLIP = {"id": "a", "kind": "audio", "speaker": "toy/s1", "gender": "f", "split": "train"}
ARRAYS = arrays_of({"waveform": np.zeros(1500, np.float32)})


def rewritten(file: str, change: Callable[[Any], Any]) -> Callable[[Path], object]:
    """Damage one file: store.json by its content, another by its bytes."""

    def damage(store: Path) -> None:
        path = store / file
        if file == "store.json":
            head = json.loads(path.read_text())
            change(head)
            path.write_text(json.dumps(head))
        else:
            path.write_bytes(change(path.read_bytes()))

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda s: s.rename(s.with_name("x")), r"store.json missing.*prepare_data"),
        (lambda s: (s / "mel.npy").unlink(), "mel.npy missing"),
        *(
            (lambda s, t=t: (s / "store.json").write_text(t), "store.json is damaged")
            for t in ("", "[]", '{"schema": 1}')
        ),
        (rewritten("store.json", lambda h: h.update(schema=99)), "schema.: 99.*expected schema 1"),
        (rewritten("store.json", lambda h: h["mel"].update(hop=256)), "hop is 256, expected 300"),
        *(
            (rewritten(f"{n}.npy", lambda b: b[:-100]), f"{n}.npy is damaged")
            for n in ("faces", "landmarks", "audio", "mel", "f0")
        ),
        (rewritten("f0.npy", lambda b: b.replace(b"<f4", b"<i4")), r"int32; expected .*float32"),
        (rewritten("f0.npy", lambda b: b"x" * 900), "f0.npy is damaged"),
        (rewritten("manifest.csv", lambda b: b"\n".join(b.split(b"\n")[:2])), "1 rows; expected 2"),
        (rewritten("manifest.csv", lambda b: b[:-4]), "manifest.csv is damaged"),
        (rewritten("manifest.csv", lambda b: b.replace(b"24000", b"99000", 1)), "s1-0' points out"),
        (rewritten("manifest.csv", lambda b: b.replace(b"speaker", b"person", 1)), "columns"),
    ],
)
def test_what_is_missing_or_damaged_is_named(
    tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    store = make_store(tmp_path, genders="fm", clips=1, image_size=16, splits=["train"]).path
    damage(store)
    with pytest.raises(DataError, match=message):
        Store.open(store, corpus="toy")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (ARRAYS | {"audio": ARRAYS["audio"].astype(np.float32)}, "audio is .*float32"),
        (ARRAYS | {"mel": ARRAYS["mel"][:5]}, r"mel is \(5, 80\) float16; expected \(6, 80\)"),
        ({"audio": ARRAYS["audio"]}, "mel is"),
        ({"faces": np.zeros((1, 64, 64, 3), np.uint8)}, "faces is"),
        ({"faces": np.zeros((1, 128, 128, 3), np.uint8)}, "landmarks is"),
    ],
)
def test_arrays_that_do_not_fit_leave_the_draft_usable(
    tmp_path: Path, arrays: dict[str, Any], message: str
) -> None:
    with Draft(tmp_path / "draft", 128) as draft:
        with pytest.raises(DataError, match=f"clip 'a': {message}"):
            draft.append({"id": "a"}, arrays)
        assert draft.append({"id": "b"}, ARRAYS)["sample_start"] == 0


@pytest.mark.parametrize("change", [{"gender": "female"}, {"split": "test"}, {"kind": "video"}])
def test_values_outside_the_schema(tmp_path: Path, change: dict[str, str]) -> None:
    with pytest.raises(DataError, match=f"{next(iter(change.values()))}.*correct the .*reader"):
        write_store(tmp_path / "toy", [CLIP | change | {"waveform": np.zeros(1500, np.float32)}])
    assert not (tmp_path / "toy").exists()


def ids(folder: Path) -> list[str]:
    with Draft(folder, 128) as draft:
        return [entry["id"] for entry in draft.entries]


def test_a_draft_goes_on_where_it_was(tmp_path: Path) -> None:
    def interrupted() -> None:
        with Draft(tmp_path / "draft", 128) as draft:
            for name in "abc":
                draft.append({"id": name}, ARRAYS)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert ids(tmp_path / "draft") == ["a", "b", "c"]
    with Draft(tmp_path / "draft", 128) as draft:
        draft.keep(draft.entries[:2])
        assert draft.append({"id": "d"}, ARRAYS)["frame_start"] == 12
        with pytest.raises(DataError, match="another process"):
            Draft(tmp_path / "draft", 128)
    journal = tmp_path / "draft" / "journal.jsonl"
    journal.write_text(journal.read_text()[:-5])  # killed in the middle of a line
    assert ids(tmp_path / "draft") == ["a", "b"]
    os.truncate(tmp_path / "draft" / "mel.npy", 128 + 8 * 160)  # the second clip needs 12 frames
    assert ids(tmp_path / "draft") == ["a"]


def test_a_full_disk_keeps_what_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with Draft(tmp_path / "draft", 128) as draft:
        draft.append({"id": "a"}, ARRAYS)
        draft._commit()
        draft.append({"id": "b"}, ARRAYS)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(OSError, match="No space left"):
                draft.publish(tmp_path / "toy", [], corpus="toy", seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["draft"]
    assert ids(tmp_path / "draft") == ["a", "b"]


def test_a_store_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    with Draft(tmp_path / "draft", 128) as draft:
        first = make_store(tmp_path, genders="fm", clips=1)
        with pytest.raises(OSError, match="not empty"):
            draft.publish(first.path, [], corpus="toy", seed=0)
    assert Store.open(first.path).items == first.items


KILLED = """
import os, sys
from pathlib import Path
from tests.faults.test_store_faults import ARRAYS
from xfavot.data.store import Draft
draft = Draft(Path(sys.argv[1]), 128)
draft.append({"id": "a"}, ARRAYS)
draft._commit()
draft.append({"id": "b"}, ARRAYS)
draft._files["mel"].flush()
os._exit(9)
"""


def test_a_killed_writer_leaves_a_draft_and_no_store(tmp_path: Path) -> None:
    root = str(Path(__file__).resolve().parents[2])
    command = [sys.executable, "-c", KILLED, str(tmp_path / ".toy.partial")]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": root}, check=False)
    assert done.returncode == 9
    assert [path.name for path in tmp_path.iterdir()] == [".toy.partial"]
    with Draft(tmp_path / ".toy.partial", 128) as draft:
        (entry,) = draft.entries
        places = {name: entry[name] for name in POSITIONS}
        item = Item(**CLIP, corpus="toy", transcript="", source="", sha256="", **places)
        store = draft.publish(tmp_path / "toy", [item], corpus="toy", seed=0)
    assert len(store.audio) == 1500
    assert store.mel.shape == (6, 80)
