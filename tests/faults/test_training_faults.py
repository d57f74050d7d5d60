"""Training survives kills, full disks and wrong checkpoints, or says why it does not."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.unit.training_factory import small_run
from xfavot import training
from xfavot.errors import CheckpointError, ConfigError, DataError, TrainingError
from xfavot.losses import terms
from xfavot.models import device_of
from xfavot.training import Run, Session, checkpoint, loop

KILLED_AT_STEP_3 = """
import os, signal, sys, torch
from pathlib import Path
from tests.unit.training_factory import small_run
from xfavot import training
torch.set_num_threads(1)
log = training.Session.log
def log_and_die(session, terms):
    log(session, terms)
    if session.step == 3:
        os.kill(os.getpid(), signal.SIGKILL)
training.Session.log = log_and_die
training.fit(small_run(Path(sys.argv[1])), resume="auto")
"""


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    """Little is validated and sampled at the end of a run; sums are of one order."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "VALIDATION_BATCHES", 1)
        patch.setattr(loop, "VOICES", 1)
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return training.fit(small_run(tmp_path_factory.mktemp("made")))


@pytest.fixture
def finished(made: Run, tmp_path: Path) -> Run:
    """A copy of a run of four steps."""
    shutil.copytree(made.path.parent, tmp_path / "runs")
    (tmp_path / "data").symlink_to(made.config.data_root)
    path = tmp_path / "runs" / made.path.name
    last = path / "checkpoints" / made.checkpoint.name
    return Run(path=path, config=small_run(tmp_path), step=made.step, checkpoint=last)


def test_a_killed_and_resumed_run_writes_the_same_metrics(made: Run, tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED_AT_STEP_3, str(tmp_path)]
    process = subprocess.run(command, cwd=Path(__file__).resolve().parents[2], timeout=200)
    assert process.returncode == -signal.SIGKILL
    metrics = tmp_path / "runs" / made.path.name / "metrics.jsonl"
    whole = (made.path / "metrics.jsonl").read_bytes()
    assert 0 < len(metrics.read_bytes()) < len(whole)
    resumed = training.fit(small_run(tmp_path), resume="auto")
    assert metrics.read_bytes() == whole
    first, second = (checkpoint.load_model(r.checkpoint) for r in (made, resumed))
    assert first.trained == second.trained
    for a, b in zip(first.nets.parameters(), second.nets.parameters(), strict=True):
        assert torch.equal(a, b)


def test_sigterm_saves_and_ends(finished: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Session.log

    def stop(session: Session, values: dict[str, float]) -> None:
        log(session, values)
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Session, "log", stop)
    run = training.fit(small_run(finished.path.parents[1], steps=100), resume="auto")
    assert checkpoint.read_state(run.checkpoint)["step"] == run.step == 5
    assert loop.read(run.path / loop.METRICS)[-1]["step"] == 5


def test_an_existing_run_is_not_overwritten_but_resumes_to_itself(finished: Run) -> None:
    with pytest.raises(CheckpointError, match="-p resume auto"):
        training.fit(finished.config)
    again = training.fit(finished.config, resume="auto")
    assert (again.step, again.checkpoint) == (finished.step, finished.checkpoint)


def test_more_steps_are_the_same_run_and_its_schedules_stay(finished: Run) -> None:
    root, warm = finished.path.parents[1], {"train.warmup_steps": 9}
    short = training.fit(small_run(root, steps=4, overrides=warm))
    assert (short.path != finished.path, short.config.train.warmup) == (True, 1)
    longer = training.fit(small_run(root, steps=6, overrides=warm), resume="auto")
    assert (longer.path, longer.step) == (short.path, 6)
    assert (longer.config.train.warmup, longer.config.train.schedule_steps) == (1, 4)
    records = loop.read(longer.path / loop.METRICS)
    warmed_up = [r["step"] for r in records if any(k.startswith("w/") for k in r)]
    assert warmed_up == [1]
    again = training.fit(small_run(root, steps=7, overrides=warm), resume=str(longer.path))
    assert (again.path, again.config.train.schedule_steps) == (short.path, 4)
    assert len([*(root / "runs").glob("grid_*")]) == 2
    with pytest.raises(CheckpointError, match="has 7 steps already"):
        training.fit(small_run(root, steps=5, overrides=warm), resume="auto")
    shutil.copytree(short.path, short.path.with_name(short.path.name[:-8] + "another_"))
    with pytest.raises(CheckpointError, match=r"more than one run.*-p resume FOLDER"):
        training.fit(small_run(root, steps=13, overrides=warm), resume="auto")


def test_counts_of_heads_resume_and_old_checkpoints_stay_unknown(finished: Run) -> None:
    root = finished.path.parents[1]
    model = checkpoint.load_model(finished.checkpoint)
    assert model.trained is not None
    assert model.trained["G_A"] == [16]
    assert model.trained_genders("latent") == ("f", "m")
    counted = training.fit(small_run(root, steps=5), resume="auto")
    trained = checkpoint.load_model(counted.checkpoint).trained
    assert trained is not None
    assert trained["G_A"] == [20]
    for path in finished.path.glob("checkpoints/*/state.json"):  # as an older version wrote it
        state = json.loads(path.read_text())
        del state["trained"], state["config"]["train"]["schedule_steps"]
        path.write_text(json.dumps(state))
    resumed = training.fit(small_run(root, steps=6), resume="auto")
    old = checkpoint.load_model(resumed.checkpoint)
    assert (resumed.path, old.trained) == (finished.path, None)
    assert old.trained_speakers() == old.speakers


def test_two_runs_in_one_directory_are_refused(finished: Run) -> None:
    with (
        training.open_session(finished.config, resume="auto"),
        pytest.raises(CheckpointError, match="another process"),
    ):
        training.fit(finished.config, resume="auto")


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "state.json"])
def test_a_truncated_checkpoint_is_refused_and_kept(finished: Run, name: str) -> None:
    file = finished.checkpoint / name
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(CheckpointError, match="older checkpoint"):
        training.fit(finished.config, resume=str(finished.checkpoint))
    assert file.exists()


def test_checkpoints_of_something_else_are_refused(finished: Run, tmp_path: Path) -> None:
    other = small_run(finished.path.parents[1], overrides={"loss.sty": 3.0})
    with pytest.raises(CheckpointError, match=r"loss\.sty was 2\.0, now 3\.0"):
        training.fit(other, resume=str(finished.checkpoint))
    path = finished.checkpoint / "state.json"
    state: dict[str, Any] = json.loads(path.read_text())
    path.write_text(json.dumps(state | {"data": "0123"}))
    with pytest.raises(CheckpointError, match="prepared data in data_root were 0123"):
        training.fit(finished.config, resume="auto")
    path.write_text(json.dumps(state | {"mel": state["mel"] | {"fmin": 0.0}}))
    with pytest.raises(CheckpointError, match="fmin"):
        checkpoint.load_model(finished.checkpoint)
    with pytest.raises(CheckpointError, match="no checkpoint under"):
        checkpoint.load_model(tmp_path / "data")


def test_a_full_disk_leaves_the_older_checkpoint(
    finished: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoint.torch, "save", full)
    before = checkpoint.checkpoints_of(finished.path)
    with pytest.raises(CheckpointError, match="No space left"):
        training.fit(small_run(finished.path.parents[1], steps=8), resume="auto")
    assert checkpoint.checkpoints_of(finished.path) == before
    assert not list((finished.path / "checkpoints").glob(".*"))


def test_a_term_that_is_not_finite_names_step_and_samples(
    finished: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terms, "adversarial_fake", lambda logits: logits.mean() * float("nan"))
    with pytest.raises(TrainingError, match=r"step 5: d/.*adv_fake.* not finite.*grid-s"):
        training.fit(small_run(finished.path.parents[1], steps=8), resume="auto")


def test_missing_data_names_the_command_and_a_missing_gpu_is_refused(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    cfg = dataclasses.replace(small_run(tmp_path), data_root=str(tmp_path / "none"))
    with pytest.raises(DataError, match=r"prepare_data\.ipynb"):
        training.fit(cfg)
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="cannot be used here"):
            device_of("cuda")
