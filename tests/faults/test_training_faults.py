"""Training survives kills, full disks and wrong checkpoints, or says why it does not."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.unit.training_factory import small_run
from xfavot import training
from xfavot.errors import CheckpointError, ConfigError, DataError, TrainingError
from xfavot.models import device_of
from xfavot.training import Run, checkpoint

STEPS = 12


@pytest.fixture
def finished(tmp_path: Path) -> Run:
    return training.fit(small_run(tmp_path))


def start_in_a_process(root: Path, steps: int) -> subprocess.Popen[bytes]:
    code = (
        "import sys, torch; from pathlib import Path\n"
        "from tests.unit.training_factory import small_run\n"
        "from xfavot import training\n"
        "torch.set_num_threads(1)\n"
        f"training.fit(small_run(Path(sys.argv[1]), steps={steps}), resume='auto')\n"
    )
    root_of_tests = Path(__file__).resolve().parents[2]
    return subprocess.Popen([sys.executable, "-c", code, str(root)], cwd=root_of_tests)


def test_a_killed_and_resumed_run_writes_the_same_metrics(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    whole = training.fit(small_run(tmp_path / "whole", steps=STEPS))
    process = start_in_a_process(tmp_path / "killed", STEPS)
    metrics = tmp_path / "killed" / "runs" / whole.path.name / "metrics.jsonl"
    try:
        deadline = time.monotonic() + 120
        while not metrics.exists() or metrics.read_text().count("\n") < 5:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert metrics.read_text() != (whole.path / "metrics.jsonl").read_text()
    resumed = training.fit(small_run(tmp_path / "killed", steps=STEPS), resume="auto")
    assert metrics.read_bytes() == (whole.path / "metrics.jsonl").read_bytes()
    first, second = (checkpoint.load_model(r.checkpoint).nets for r in (whole, resumed))
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_sigterm_saves_and_ends(tmp_path: Path) -> None:
    cfg = small_run(tmp_path, steps=10_000)
    process = start_in_a_process(tmp_path, 10_000)
    folder = Path(cfg.run_root) / cfg.name
    deadline = time.monotonic() + 120
    while not (folder / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.terminate()
    assert process.wait(60) == 0
    state = checkpoint.read_state(checkpoint.locate(folder))
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert state["step"] == records[-1]["step"]


def test_an_existing_run_is_not_overwritten(finished: Run) -> None:
    with pytest.raises(CheckpointError, match="-p resume auto"):
        training.fit(finished.config)


def test_a_finished_run_resumes_to_itself(finished: Run) -> None:
    again = training.fit(finished.config, resume="auto")
    assert again.step == finished.step
    assert again.checkpoint == finished.checkpoint


def test_more_steps_are_the_same_run_and_its_schedules_stay(tmp_path: Path) -> None:
    warm = {"train.warmup_steps": 9}
    short = training.fit(small_run(tmp_path, steps=4, overrides=warm))
    assert short.config.train.warmup == 1
    longer = training.fit(small_run(tmp_path, steps=8, overrides=warm), resume="auto")
    assert (longer.path, longer.step) == (short.path, 8)
    assert (longer.config.train.warmup, longer.config.train.schedule_steps) == (1, 4)
    warmed_up = [r["step"] for r in longer.metrics() if any(k.startswith("w/") for k in r)]
    assert warmed_up == [1]
    again = training.fit(small_run(tmp_path, steps=12, overrides=warm), resume=str(longer.path))
    assert (again.path, again.config.train.schedule_steps) == (short.path, 4)
    assert [p.name for p in (tmp_path / "runs").glob("grid_*")] == [short.path.name]
    with pytest.raises(CheckpointError, match=r"has 12 steps already.*more steps"):
        training.fit(small_run(tmp_path, steps=6, overrides=warm), resume="auto")
    other = training.fit(small_run(tmp_path, steps=2, overrides=warm))
    assert other.path != short.path
    with pytest.raises(CheckpointError, match=r"more than one run.*-p resume FOLDER"):
        training.fit(small_run(tmp_path, steps=13, overrides=warm), resume="auto")


def test_counts_of_heads_resume_and_old_checkpoints_stay_unknown(finished: Run) -> None:
    model = checkpoint.load_model(finished.checkpoint)
    assert model.trained is not None
    assert model.trained["G_A"] == [16]
    assert model.trained_genders("latent") == ("f", "m")
    longer = dataclasses.replace(
        finished.config, train=dataclasses.replace(finished.config.train, steps=5)
    )
    counted = checkpoint.load_model(training.fit(longer, resume="auto").checkpoint).trained
    assert counted is not None
    assert counted["G_A"] == [20]
    for path in finished.path.glob("checkpoints/*/state.json"):  # as an older version wrote it
        state = json.loads(path.read_text())
        del state["trained"], state["config"]["train"]["schedule_steps"]
        path.write_text(json.dumps(state))
    longer = dataclasses.replace(
        finished.config, train=dataclasses.replace(finished.config.train, steps=6)
    )
    old = checkpoint.load_model(training.fit(longer, resume="auto").checkpoint)
    assert old.trained is None
    assert old.trained_speakers() == old.speakers


def test_two_runs_in_one_directory_are_refused(tmp_path: Path) -> None:
    cfg = small_run(tmp_path)
    with (
        training.open_session(cfg, resume="auto"),
        pytest.raises(CheckpointError, match="another process"),
    ):
        training.fit(cfg, resume="auto")


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "state.json"])
def test_a_truncated_checkpoint_is_refused_and_kept(finished: Run, name: str) -> None:
    file = finished.checkpoint / name
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(CheckpointError, match="older checkpoint"):
        training.fit(finished.config, resume=str(finished.checkpoint))
    assert file.exists()


def test_a_checkpoint_of_another_configuration_names_what_differs(
    finished: Run, tmp_path: Path
) -> None:
    other = small_run(tmp_path, overrides={"loss.sty": 3.0})
    with pytest.raises(CheckpointError, match=r"loss\.sty was 2\.0, now 3\.0"):
        training.fit(other, resume=str(finished.checkpoint))


def test_a_checkpoint_of_another_mel_contract_is_refused(finished: Run) -> None:
    path = finished.checkpoint / "state.json"
    state: dict[str, Any] = json.loads(path.read_text())
    state["mel"]["fmin"] = 0.0
    path.write_text(json.dumps(state))
    with pytest.raises(CheckpointError, match="fmin"):
        checkpoint.load_model(finished.checkpoint)


def test_no_checkpoint_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint under"):
        checkpoint.load_model(tmp_path)


def test_a_full_disk_leaves_the_older_checkpoint(
    finished: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoint.torch, "save", full)
    before = checkpoint.checkpoints_of(finished.path)
    longer = small_run(finished.path.parents[1], steps=8)
    with pytest.raises(CheckpointError, match="No space left"):
        training.fit(longer, resume=str(finished.checkpoint))
    assert checkpoint.checkpoints_of(finished.path) == before
    assert not list((finished.path / "checkpoints").glob(".*"))


def test_a_term_that_is_not_finite_names_step_and_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xfavot.losses import terms

    monkeypatch.setattr(terms, "adversarial_fake", lambda logits: logits.mean() * float("nan"))
    with pytest.raises(TrainingError, match=r"step 1: d/.*adv_fake.* not finite.*grid-s"):
        training.fit(small_run(tmp_path))


def test_missing_data_names_the_command(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    cfg = dataclasses.replace(small_run(tmp_path), data_root=str(tmp_path / "none"))
    with pytest.raises(DataError, match=r"prepare_data\.ipynb"):
        training.fit(cfg)


def test_a_gpu_that_is_not_there_is_refused() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ConfigError, match="cannot be used here"):
        device_of("cuda")
