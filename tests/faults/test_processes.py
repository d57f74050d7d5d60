"""Several processes train as one does, and end with a message when one of them dies."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import ROOT, Patch, refuses
from tests.unit.training_factory import small_run
from xfavot import cli, training
from xfavot.errors import ConfigError, TrainingError
from xfavot.parameters import Train
from xfavot.training import checkpoint, loop, processes

# instance norm takes most of them away again, so that rounding alone moves them
WITHOUT_EFFECT = re.compile(r"G_[IA]\..*bias")
VAL = "val/total"  # in records of a validation


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("trained")
    pytest.importorskip("accelerate")
    command = [sys.executable, "-m", "tests.faults.forked", str(root)]
    subprocess.run(command, cwd=ROOT, timeout=300, check=True)
    return root


def run_of(root: Path) -> Path:
    return next(root.glob("runs/grid_*"))


def ends(root: Path) -> list[str]:
    """How the processes ended."""
    return [file.read_text() for file in sorted(root.glob("ended_*.txt"))]


@pytest.mark.parametrize("name", ["two", "killed_then_one", "one_then_two"])
def test_two_processes_train_as_one(trained: Path, name: str) -> None:
    one, other = run_of(trained / "one"), run_of(trained / name)
    last = checkpoint.checkpoints_of(other)[-1]
    step = checkpoint.read_state(last)["step"]
    expected, found = (
        [r for r in loop.read(p / loop.METRICS) if VAL not in r] for p in (one, other)
    )
    assert len(found) == step == (4 if name == "one_then_two" else 5)
    for record, known in zip(found, expected[:step], strict=True):
        assert record == pytest.approx(known, rel=1e-10, abs=1e-12)
    for file in ("model.safetensors", "ema.safetensors"):
        weights, known = (load_file(checkpoint.folder_of(r, step) / file) for r in (other, one))
        for key, value in known.items():
            tolerance = 1e-5 if WITHOUT_EFFECT.match(key) else 1e-11
            torch.testing.assert_close(weights[key], value, rtol=0, atol=tolerance, msg=key)
    counts = [checkpoint.read_state(checkpoint.folder_of(r, step))["trained"] for r in (other, one)]
    assert counts[0] == counts[1]
    assert ends(trained / name)[0] == "done"


def test_the_run_covers_all_kinds_of_steps(trained: Path) -> None:
    runs = [loop.read(run_of(trained / name) / loop.METRICS) for name in ("one", "two")]
    (measured,), (other,) = ([record for record in run if VAL in record] for run in runs)
    assert other == pytest.approx(measured, rel=1e-10)
    keys = [{*record} for record in runs[0] if VAL not in record]
    passes = [{k.split("/")[1] for k in step if k.startswith("g/") and "2" in k} for step in keys]
    assert [{name[0] for name in step} for step in passes] == [set(), {"i"}, {"z"}, {"a"}, {"i"}]
    assert {"w/rec_image", "w/xm", "w/level"} <= keys[0]
    assert "g/z2a/level" in keys[2]
    state = checkpoint.read_state(checkpoint.checkpoints_of(run_of(trained / "one"))[-1])
    assert sum(state["trained"]["M"][2:]) > 0 < sum(state["trained"]["C_A"][:2])  # by speaker, too
    assert sum(state["trained"]["C_A"][2:]) > 0


def test_a_process_that_dies_or_is_wrong_ends_the_others_with_a_message(trained: Path) -> None:
    (left,) = ends(trained / "killed")
    assert re.match(r"TrainingError: process 0 of 2 has lost the others .*-p resume auto", left)
    first, second = ends(trained / "odd")
    assert first.startswith("ConfigError: train.batch_size is 3; expected a multiple of 2, the num")
    assert second.startswith("TrainingError: process 1 of 2 has lost the others")
    for end in ends(trained / "other"):
        assert re.match("ConfigError: the run and its data is .*the same on every process", end)


def test_all_obey_a_signal_at_the_same_step(trained: Path) -> None:
    assert ends(trained / "one_then_two") == ["done", "done"]
    assert len(checkpoint.checkpoints_of(run_of(trained / "one_then_two"))) == 2  # steps 2 and 4


class Popen:
    """A launcher that runs nothing."""

    commands: list[list[str]] = []  # noqa: RUF012
    returncode = 0

    def __init__(self, command: list[str], **_: Any) -> None:
        self.commands.append(command)
        self.stdout = iter(["one line\n"])

    def wait(self) -> int:
        return self.returncode

    def terminate(self) -> None:
        raise AssertionError("nobody asked for it")


class Stopped(Popen):
    """One that is asked to end by a signal, and says something before it does."""

    commands: list[list[str]] = []  # noqa: RUF012
    asked: list[str] = []  # noqa: RUF012
    returncode = 1

    def __init__(self, command: list[str], env: dict[str, str], **_: Any) -> None:
        super().__init__(command)
        self.asked.clear()
        self.patience, self.stdout = float(env["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"]), self.lines()

    def lines(self) -> Iterator[str]:
        signal.raise_signal(signal.SIGTERM)
        yield " ".join(self.asked)

    def terminate(self) -> None:
        self.asked.append("terminate")

    def communicate(self) -> None:
        self.asked.append("communicate")
        assert self.patience > 3600  # or torchrun kills them while they still save


def test_processes_are_launched_with_the_same_parameters(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(loop.subprocess, "Popen", Popen)
    monkeypatch.setattr(training, "fit", lambda cfg, **given: seen.append((cfg, given["resume"])))
    given = {"overrides": {"loss.xm": 1e-5, "train.log_every": 7}, "preset": "smoke", "steps": 3}
    folders = {"data_root": str(tmp_path / "d"), "run_root": str(tmp_path)}
    parameters = Train.resolve(processes=2, resume="auto", dataset="grid", **given, **folders)
    said: list[Any] = []
    assert training.launch(parameters, said.append) == "auto"
    assert said == [{"message": "one line"}]
    command = Popen.commands[0]
    launcher, own = command[1 : command.index("train")], command[command.index("train") :]
    assert launcher[:2] == ["-m", "torch.distributed.run"]
    assert launcher[2:] == ["--standalone", "--nproc-per-node=2", "-m", "xfavot.cli"]
    assert cli.main(own) == 0
    assert seen == [(parameters.run, "auto")]
    monkeypatch.setattr(Popen, "returncode", 1)
    refuses(TrainingError, "2 processes failed .status 1", training.launch, parameters, print)
    monkeypatch.setenv("WORLD_SIZE", "2")
    refuses(ConfigError, "under a launcher", training.launch, parameters, print)
    numbered = dataclasses.replace(parameters, device="cuda:1").run
    refuses(ConfigError, "CUDA_VISIBLE_DEVICES", loop.fit, numbered)


def test_a_signal_to_the_launcher_is_passed_on_and_the_processes_are_heard_out(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(loop.subprocess, "Popen", Stopped)
    parameters = Train.resolve(processes=2, preset="smoke", dataset="grid", run_root=str(tmp_path))
    said: list[Any] = []
    refuses(TrainingError, "was stopped by a signal", training.launch, parameters, said.append)
    assert said == [{"message": "terminate"}]

    def full(record: Any) -> None:
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        training.launch(parameters, full)
    assert Stopped.asked == ["terminate", "terminate", "communicate"]  # by the signal, by the fault


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (("stepz", "3"), "stepz is not a parameter here.*steps"),
        (("steps", "many"), "steps is 'many'"),
        (("seed", "True"), "seed is True"),
        (("batch_size", "0"), "batch_size is 0"),
    ],
)
def test_the_command_refuses_what_the_notebook_refuses(
    pair: tuple[str, str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["train", "-p", *pair]) == 1
    assert re.match(f"error: {message}", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("second_core", "by_hand", "expected", "later"), [(9, "", 2, 1), (1, "", 1, 2), (1, "2", 2, 2)]
)
def test_cores_that_others_keep_busy_are_left_to_them(
    second_core: int, by_hand: str, expected: int, later: int, tmp_path: Path, monkeypatch: Patch
) -> None:
    """The kernel's table before and after a tenth of a second, of two own cores and another's.

    In the ten seconds after, both cores are busy and what this process does is half or all of it.
    """
    table, clock = tmp_path / "stat", iter((0.0, 0.1, 5.0, 10.1))
    own_s = iter((0.0, 0.0, 10.0 * later))

    def write(ticks: tuple[int, int, int]) -> None:
        own = [f"cpu{k} 5 0 5 {n // 2} {n - n // 2} 0 0" for k, n in enumerate(ticks)]
        table.write_text("\n".join(["cpu 9 9 9 9 9", *own, "intr 1"]))

    write((0, 0, 0))
    monkeypatch.setattr(processes, "TIMES", table)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setattr(os, "sysconf", {"SC_CLK_TCK": 100}.get)
    monkeypatch.setattr(processes.time, "sleep", lambda _: write((10, second_core, 10)))
    monkeypatch.setattr(processes.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(processes.time, "process_time", lambda: next(own_s))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if by_hand:
        monkeypatch.setenv("OMP_NUM_THREADS", by_hand)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        cores = processes.FreeCores()
        assert cores.threads == expected == torch.get_num_threads()
        assert not cores.watched or not cores.look()  # too soon
        assert cores.look() == (later != expected)
        assert cores.threads == later == torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def test_a_training_says_when_others_leave_it_cores_or_take_them(tmp_path: Path) -> None:
    log: list[Mapping[str, Any]] = []
    with training.open_session(small_run(tmp_path), resume="", on_log=log.append) as session:
        session.cores = cast(processes.FreeCores, SimpleNamespace(look=lambda: True, threads=1))
        assert next(iter(session)) == 1
    assert {"message": "threads: 1, as other programs leave cores"} in log
