"""Disks that refuse, processes that were killed or come at once: all or nothing, and it is said."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from filelock import FileLock

pytest.importorskip("pyworld")  # of the extra "data"

from tests.conftest import FULL_DISK, Patch, refuses
from tests.unit.store_factory import make_store
from tests.unit.test_prepare import make, write_vctk
from tests.unit.test_protocol import loaded, opened
from tests.unit.training_factory import small_run
from xfavot import training, weights
from xfavot.audio.io import save_waveform
from xfavot.convert.converter import Task
from xfavot.data import prepare
from xfavot.errors import CheckpointError, DataError, TrainingError
from xfavot.evaluation.conversions import Study
from xfavot.mini import generate
from xfavot.training import checkpoint


def test_two_processes_prepare_one_store(tmp_path: Path, monkeypatch: Patch) -> None:
    source, worked = write_vctk(tmp_path / "in", clips=2), list[str]()
    process = prepare.process
    monkeypatch.setattr(prepare, "process", lambda clip: worked.append(clip.id) or process(clip))
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(make, "vctk", source, tmp_path / "data") for _ in range(2)]
        stores = [one.result() for one in both]
    assert stores[0].manifest_hash == stores[1].manifest_hash
    assert len(worked) == len({*worked}) == 4
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["vctk"]


def test_two_processes_make_mini_and_one_was_killed(tmp_path: Path, monkeypatch: Patch) -> None:
    place, made = tmp_path / "originals" / "mini", list[int]()
    (tmp_path / "originals" / ".mini.partial" / "mini" / "s01").mkdir(parents=True)  # was killed

    def speaker(folder: Path, job: dict[str, Any]) -> dict[str, Any]:
        name = f"s{job['number'] + 1:02d}"
        (folder / name).mkdir()
        made.append(job["number"])
        return {"hidden": {"speaker": name, "gender": "f"}, "voice": {}, "faces": {}}

    monkeypatch.setattr(generate, "_in_own_process", speaker)
    small = {"speakers": 2, "workers": 1, "voices": "espeak"}
    with monkeypatch.context() as patch:
        patch.setattr(generate.json, "dumps", Mock(side_effect=FULL_DISK))
        refuses(DataError, "No space left.*free some", generate.generate, place, **small)
    assert not any(place.parent.iterdir())
    del made[:]
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(generate.generate, place, **small) for _ in range(2)]
        assert [one.result() for one in both] == [place, place]
    assert len(made) == 2
    assert [path.name for path in place.parent.iterdir()] == ["mini"]
    (place / "factors.json").write_text("[", encoding="utf-8")
    refuses(DataError, "not empty and holds", generate.generate, place, **small)


def test_a_run_says_what_the_disk_refuses(tmp_path: Path, monkeypatch: Patch) -> None:
    from torch.utils import tensorboard

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_config", Mock(side_effect=PermissionError("denied")))
        refuses(CheckpointError, "denied.*give a run_root", training.fit, small_run(tmp_path))
    for name in ("add_scalar", "close"):  # of the event files
        monkeypatch.setattr(tensorboard.SummaryWriter, name, Mock(side_effect=FULL_DISK))
    refuses(TrainingError, r"No space left.*-p resume auto", training.fit, small_run(tmp_path))


def test_the_shipped_model_is_unpacked_once_or_not_at_all(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    run = training.fit(small_run(tmp_path, steps=1))
    monkeypatch.setattr(weights, "MODEL", tmp_path / "packed")
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.shutil, "copyfile", Mock(side_effect=FULL_DISK))
        refuses(CheckpointError, "No space left", checkpoint.export, run.path, weights.MODEL)
    assert not list(tmp_path.glob("*packed*"))
    checkpoint.export(run.path, weights.MODEL)
    place = tmp_path / "new" / "shipped"
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.shutil, "copytree", Mock(side_effect=FULL_DISK))
        refuses(CheckpointError, "No space left.*free some", checkpoint.locate, place)
    assert [path.name for path in place.parent.iterdir()] == [".shipped.lock"]
    with ThreadPoolExecutor(2) as pool:
        found = [*pool.map(checkpoint.locate, [place, place])]
    assert found == [place / "checkpoints" / "step_00000001"] * 2
    assert [path.name for path in place.parent.glob("[!.]*")] == ["shipped"]


def test_a_full_disk_is_no_failure_of_a_conversion(tmp_path: Path, monkeypatch: Patch) -> None:
    splits = ("train", "val", "unseen")
    store = make_store(tmp_path, genders="ffmm", clips=3, faces=2, seconds=0.6, splits=splits)
    model = loaded(store, tmp_path)
    full = Mock(side_effect=[FULL_DISK])
    monkeypatch.setattr("xfavot.audio.io.write_whole", full)
    monkeypatch.setattr(Study, "real", lambda *_: Path("real.wav"))
    first = opened(model, store, metrics="f0")
    study = Study(first.styles, [store], first.cfg, "seen", tmp_path)
    refuses(DataError, "No space left", study.convert, Task.A2A)
    full.side_effect = ValueError("cannot be")  # what the model made
    assert {one.failure for one in study.convert(Task.A2A)} == {
        "not converted: ValueError: cannot be"
    }


def test_voices_of_a_killed_evaluation_are_removed(tmp_path: Path) -> None:
    store = make_store(tmp_path, genders="ffmm", clips=2, seconds=0.6, splits=("train", "val"))
    model = loaded(store, tmp_path)
    folder = model.path.resolve().parents[1] / "evaluation"
    for name in ("killed", "running"):
        save_waveform(folder / f".voices_{name}" / "a.wav", torch.zeros(9).numpy())
    with FileLock(folder / ".voices_running" / ".lock"):
        opened(model, store, metrics="f0")
        left = {path.name for path in folder.glob(".voices_[kr]*")}
    assert ".voices_running" in left
    assert ".voices_killed" not in left
