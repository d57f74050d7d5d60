"""Training survives kills, full disks and wrong checkpoints, or says why it does not."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conftest import FULL_DISK, ROOT, Patch, refuses
from tests.unit.training_factory import small_run
from xfavot import training, weights
from xfavot.convert import Converter
from xfavot.errors import CheckpointError, ConfigError, DataError, TrainingError
from xfavot.losses import terms
from xfavot.models import device_of
from xfavot.parameters import Explore
from xfavot.training import Run, Session, checkpoint, loop

resume = partial(training.fit, resume="auto")
KILLED_AT_STEP_3 = """
import os, signal, sys, torch
from pathlib import Path
from tests.unit.training_factory import small_run
from xfavot import training, weights
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
    process = subprocess.run(command, cwd=ROOT, timeout=200)
    assert process.returncode == -signal.SIGKILL
    metrics = tmp_path / "runs" / made.path.name / "metrics.jsonl"
    whole = (made.path / "metrics.jsonl").read_bytes()
    assert 0 < len(metrics.read_bytes()) < len(whole)
    resumed = resume(small_run(tmp_path))
    assert metrics.read_bytes() == whole
    first, second = (checkpoint.load_model(r.checkpoint) for r in (made, resumed))
    assert first.trained == second.trained
    taken = [*checkpoint.cpu_seconds(resumed.path).values()]
    assert (len(taken), taken[0] > 0) == (2, True)
    assert taken == sorted(taken)
    for a, b in zip(first.nets.parameters(), second.nets.parameters(), strict=True):
        assert torch.equal(a, b)


def test_sigterm_saves_and_ends(finished: Run, monkeypatch: Patch) -> None:
    log = Session.log

    def stop(session: Session, values: dict[str, float]) -> None:
        log(session, values)
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Session, "log", stop)
    run = resume(small_run(finished.path.parents[1], steps=100))
    assert checkpoint.read_state(run.checkpoint)["step"] == run.step == 5
    assert loop.read(run.path / loop.METRICS)[-1]["step"] == 5


def test_the_optimiser_of_the_warm_up_resumes_and_ends_with_it(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    warm = {"train.warmup_steps": 2, "train.warmup_muon": 0.01}
    whole, log = training.fit(small_run(tmp_path, steps=8, overrides=warm)), Session.log

    def stop(session: Session, values: dict[str, float]) -> None:
        log(session, values)
        signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Session, "log", stop)
        cfg = small_run(tmp_path / "again", steps=8, overrides=warm)
        half = training.fit(cfg)
    kept = [torch.load(run.checkpoint / "optimizer.pt").keys() for run in (half, whole)]
    assert (half.step, "muon/G_I" in kept[0], "muon/G_I" in kept[1]) == (1, True, False)
    resumed = resume(cfg)
    assert loop.read(resumed.path / loop.METRICS) == loop.read(whole.path / loop.METRICS)


def test_lines_of_metrics_without_a_step_are_refused(tmp_path: Path) -> None:
    file = tmp_path / loop.METRICS
    file.write_text('{"step": 3, "loss": 1.5}\n{"loss": 2.5}\n')
    refuses(CheckpointError, "line 2 is damaged.*'step'.*take the line out", loop.read, file)
    file.write_text('{"step": 3, "loss": 1.5}\n{"loss": 2.5}')  # a process was killed here
    assert loop.read(file) == [{"step": 3, "loss": 1.5}]


def test_a_run_is_never_overwritten_or_run_twice_and_resumes_to_itself(finished: Run) -> None:
    refuses(CheckpointError, "-p resume auto", training.fit, finished.config)
    again = resume(finished.config)
    assert (again.step, again.checkpoint) == (finished.step, finished.checkpoint)
    with training.open_session(finished.config, resume="auto"):
        refuses(CheckpointError, "another process", resume, finished.config)


def test_more_steps_are_the_same_run_and_its_schedules_stay(finished: Run) -> None:
    root, warm = finished.path.parents[1], {"train.warmup_steps": 9}
    short = training.fit(small_run(root, steps=4, overrides=warm))
    assert (short.path != finished.path, short.config.train.warmup) == (True, 1)
    longer = resume(small_run(root, steps=6, overrides=warm))
    assert (longer.path, longer.step) == (short.path, 6)
    assert (longer.config.train.warmup, longer.config.train.schedule_steps) == (1, 4)
    records = loop.read(longer.path / loop.METRICS)
    warmed_up = [r["step"] for r in records if any(k.startswith("w/") for k in r)]
    assert warmed_up == [1]
    again = resume(small_run(root, steps=7, overrides=warm), resume=str(longer.path))
    assert (again.path, again.config.train.schedule_steps) == (short.path, 4)
    assert len([*(root / "runs").glob("grid_*")]) == 2
    refuses(CheckpointError, "7 steps already", resume, small_run(root, steps=5, overrides=warm))
    shutil.copytree(short.path, short.path.with_name(short.path.name[:-8] + "another_"))
    with pytest.raises(CheckpointError, match=r"more than one run.*-p resume FOLDER"):
        resume(small_run(root, steps=13, overrides=warm))


def test_counts_of_heads_resume_and_old_checkpoints_stay_unknown(finished: Run) -> None:
    root = finished.path.parents[1]
    model = checkpoint.load_model(finished.checkpoint)
    assert model.trained_genders("latent") == ("f", "m")
    more = checkpoint.load_model(resume(small_run(root, steps=5)).checkpoint)
    assert (model.trained["G_A"], more.trained["G_A"]) == ([16], [20])
    for path in finished.path.glob("checkpoints/*/state.json"):  # as an older version wrote it
        state = json.loads(path.read_text())
        del state["trained"], state["cpu_s"], state["config"]["train"]["schedule_steps"]
        path.write_text(json.dumps(state))
    resumed = resume(small_run(root, steps=6))
    old = checkpoint.load_model(resumed.checkpoint)
    assert (resumed.path, old.trained) == (finished.path, None)
    assert old.trained_speakers() == old.speakers
    assert "cpu_s" not in checkpoint.read_state(resumed.checkpoint)
    refuses(CheckpointError, "what CPU time", checkpoint.cpu_seconds, resumed.path)
    refuses(CheckpointError, "no checkpoint under", checkpoint.cpu_seconds, root)


def test_an_exported_model_becomes_a_run_where_it_is_wanted(
    finished: Run, monkeypatch: Patch
) -> None:
    packed, place = finished.path.with_name("packed"), finished.path.with_name("shipped")
    checkpoint.export(finished.path, packed)
    assert str(finished.path.parents[1]) not in (packed / "state.json").read_text()
    monkeypatch.setattr(weights, "MODEL", packed)
    refuses(CheckpointError, "no checkpoint under", checkpoint.locate, place.with_name("typo"))
    model, old = checkpoint.load_model(place), checkpoint.load_model(finished.checkpoint)
    assert (model.path, model.step, model.config.name) == (
        place / "checkpoints" / "step_00000004",
        old.step,
        "shipped",
    )
    for name, value in old.nets.state_dict().items():  # half precision
        torch.testing.assert_close(model.nets.state_dict()[name], value, rtol=1e-3, atol=1e-6)
    assert model.trained == old.trained
    assert [name.partition("@")[0] for name in model.speakers] == list(old.speakers)
    assert (place / "config.json").is_file()
    (place / "kept").touch()
    assert checkpoint.locate(place) == model.path  # is there, and stays as it is
    newer = packed.joinpath("state.json").read_text().replace('"step": 4', '"step": 3')
    packed.joinpath("state.json").write_text(newer)
    assert checkpoint.locate(place).name == "step_00000003"
    (older,) = place.parent.glob("shipped_*")
    assert (older / "kept").exists()
    assert checkpoint.locate(older).name == model.path.name
    tensors = load_file(packed / "model.safetensors")  # other weights, and nothing else said
    save_file(
        {name: value.flip(0).contiguous() for name, value in tensors.items()},
        packed / "model.safetensors",
    )
    assert load_file(checkpoint.locate(place) / "model.safetensors").keys() == tensors.keys()
    assert len(list(place.parent.glob("shipped_*"))) == 2
    (packed / "README.md").write_text("another card", encoding="utf-8")
    assert checkpoint.locate(place).is_dir()
    assert len(list(place.parent.glob("shipped_*"))) == 2
    runs, none = place.parent, place.with_name("none")
    assert checkpoint.locate(runs) == finished.checkpoint  # of their own, not the one that ships
    chosen = [Explore.resolve(run_root=str(root)).model for root in (runs, none)]
    assert chosen == [str(runs), str(none / "shipped")]
    named = Explore.resolve(run_root=str(none), checkpoint="shipped")
    assert named.model == str(none / "shipped")


def test_a_model_goes_to_the_hub_and_comes_back(
    finished: Run, tmp_path: Path, monkeypatch: Patch
) -> None:
    """A hub of two functions; what is sent can be opened, and opened it can be sent again."""
    hub = pytest.importorskip("huggingface_hub")
    said: list[Any] = []

    class Api:
        def __init__(self, **_: Any) -> None: ...

        def create_repo(self, repository: str, **how: Any) -> str:
            said.append(how)
            return f"https://hub/{repository}"

        def upload_folder(self, *, repo_id: str, folder_path: Path, **_: Any) -> None:
            shutil.copytree(folder_path, tmp_path / "hub" / repo_id)

    def snapshot(repository: str, **how: Any) -> str:
        said.append(how)
        if not (tmp_path / "hub" / repository).is_dir():
            raise hub.errors.HFValidationError("no such repository")
        return str(tmp_path / "hub" / repository)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "HfApi", Api)
    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    monkeypatch.setenv("XFAVOT_OFFLINE", "1")
    refuses(CheckpointError, "forbids", checkpoint.publish, finished.path, "me/x", licence="mit")
    monkeypatch.delenv("XFAVOT_OFFLINE")
    first = Converter.load(finished.path)
    assert first.push_to_hub("me/model", licence="cc-by-4.0") == "https://hub/me/model"
    names = {path.name for path in (tmp_path / "hub" / "me" / "model").iterdir()}
    tensors = {f"{name}.safetensors" for name in ("model", "f0", "content")}
    assert names == tensors | {"state.json", "README.md"}  # no optimiser, nothing pickled
    card = (tmp_path / "hub" / "me" / "model" / "README.md").read_text("utf-8")
    assert "license: cc-by-4.0" in card
    assert 'from_pretrained("me/model")' in card
    came = Converter.from_pretrained("me/model", revision="v1")
    assert said[0] == {"private": True, "exist_ok": True}
    assert said[1]["revision"] == "v1"
    assert said[1]["allow_patterns"] == ["*.safetensors", "state.json"]
    assert came.name == "model at step 4"
    came.push_to_hub("me/again")
    again = checkpoint.load_model(tmp_path / "hub" / "me" / "again")
    assert again.speakers == came.model.speakers
    assert (tmp_path / "hub" / "me" / "again" / "README.md").read_text("utf-8") == card
    for name, value in came.nets.state_dict().items():
        torch.testing.assert_close(again.nets.state_dict()[name], value)
    refuses(CheckpointError, "me/typo could not be fetched", Converter.from_pretrained, "me/typo")
    for name in ("hub/typo", "typo"):  # a folder, not a name on the hub
        refuses(CheckpointError, f"no checkpoint under {name}", Converter.from_pretrained, name)
    monkeypatch.setattr(weights, "MODEL", tmp_path / "none")
    refuses(CheckpointError, "no model comes with this copy", Converter.from_pretrained)
    monkeypatch.setattr(weights, "MODEL", tmp_path / "hub" / "me" / "model")
    assert Converter.from_pretrained().name == "model at step 4"


def test_a_run_starts_from_a_model_and_adds_heads_for_its_own_speakers(
    finished: Run, tmp_path: Path, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(weights, "MODEL", tmp_path / "packed")
    checkpoint.export(finished.path, weights.MODEL)
    place = str(tmp_path / "new" / "shipped")
    started, model = small_run(tmp_path, initial=place), checkpoint.load_model(place)
    other = {"model.image_width": 16}
    refuses(
        CheckpointError,
        "model.image_width was 4, now 16; expected a model of the same sizes; give "
        "-p configuration xfavot -p preset smoke",
        training.fit,
        small_run(tmp_path, initial=place, overrides=other),
    )
    with training.open_session(started) as session:
        known, speakers = len(model.speakers), session.batches.speakers
        assert speakers[:known] == model.speakers
        assert {f"{name}@" for name in speakers[known:]} == {
            n[: n.index("@") + 1] for n in speakers[:known]
        }
        u = session.updater
        counts, learnt = u.trained, model.trained
        assert counts is not None
        assert learnt is not None
        assert counts["M"].tolist() == [*learnt["M"], *[0] * (len(speakers) - known)]
        for name, value in model.nets.state_dict().items():
            given = u.n.nets.state_dict()[name]
            assert torch.equal(given[: len(value)], value)
            assert len(value) == len(given) or given[len(value) :].abs().sum() or "bias" in name
        assert int(session.batch(1).ref_audio.speaker.min()) >= known
        assert torch.equal(session.batches.standardiser.mean, model.standardiser.mean)
    run = training.fit(started, resume="auto")
    assert checkpoint.load_model(run.checkpoint).speakers == speakers


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "state.json"])
def test_a_truncated_checkpoint_is_refused_and_kept(finished: Run, name: str) -> None:
    file = finished.checkpoint / name
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    refuses(CheckpointError, "older checkpoint", resume, finished.config, resume=str(file.parent))
    assert file.exists()


def test_checkpoints_of_something_else_are_refused(finished: Run, tmp_path: Path) -> None:
    other = small_run(finished.path.parents[1], overrides={"loss.sty": 3.0})
    with pytest.raises(CheckpointError, match=r"loss\.sty was 2\.0, now 3\.0"):
        resume(other, resume=str(finished.checkpoint))
    path = finished.checkpoint / "state.json"
    state: dict[str, Any] = json.loads(path.read_text())
    path.write_text(json.dumps(state | {"data": "0123"}))
    refuses(CheckpointError, "prepared data in data_root were 0123", resume, finished.config)
    path.write_text(json.dumps(state | {"mel": state["mel"] | {"fmin": 0.0}}))
    refuses(CheckpointError, "fmin", checkpoint.load_model, finished.checkpoint)
    for change, said in (
        ({"mapping_width": 10**6}, "numbers, its file has"),
        ({}, "no counts of C_A"),
    ):
        changed = json.loads(json.dumps(state))  # of more memory than there is; of no count
        changed["config"]["model"] |= change
        changed["trained"] |= {} if change else {"C_A": []}
        path.write_text(json.dumps(changed))
        refuses(CheckpointError, said, checkpoint.load_model, finished.checkpoint)
    refuses(CheckpointError, "no checkpoint under", checkpoint.load_model, tmp_path / "data")


def test_a_full_disk_leaves_the_older_checkpoint(finished: Run, monkeypatch: Patch) -> None:
    monkeypatch.setattr(checkpoint.torch, "save", Mock(side_effect=FULL_DISK))
    before = checkpoint.checkpoints_of(finished.path)
    refuses(CheckpointError, "No space left", resume, small_run(finished.path.parents[1], steps=8))
    assert checkpoint.checkpoints_of(finished.path) == before
    assert not list((finished.path / "checkpoints").glob(".*"))


def test_a_term_that_is_not_finite_is_named(finished: Run, monkeypatch: Patch) -> None:
    monkeypatch.setattr(terms, "adversarial_fake", lambda logits: logits.mean() * float("nan"))
    with pytest.raises(TrainingError, match=r"step 5: d/.*adv_fake.* not finite.*grid-s"):
        resume(small_run(finished.path.parents[1], steps=8))


def test_missing_data_names_the_command_and_a_missing_gpu_is_refused(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    cfg = dataclasses.replace(small_run(tmp_path), data_root=str(tmp_path / "none"))
    refuses(DataError, r"prepare_data\.ipynb", resume, cfg)
    if not torch.cuda.is_available():
        refuses(ConfigError, "cannot be used here", device_of, "cuda")
