"""The training that travels to a lent GPU: its pack, its checks, what comes back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import ROOT, Patch, refuses
from tests.unit.store_factory import make_batches, make_store, role
from tests.unit.training_factory import small_run
from tools import gpu_job
from xfavot import config, training
from xfavot.data.store import Store
from xfavot.errors import DataError, TrainingError
from xfavot.evaluation import speed
from xfavot.losses import terms
from xfavot.training import checkpoint, loop

OF_EXTRAS = "pandas scipy PIL matplotlib librosa soundfile soxr av torchvision sklearn IPython"


def test_training_needs_torch_and_little_else() -> None:
    """Nothing of the extras, and none of our own requirements that no training calls."""
    absent = [*OF_EXTRAS.split(), "requests", "rapidfuzz", "pyworld", "seaborn", "torchmetrics"]
    program = f"import sys; sys.modules |= dict.fromkeys({absent}); import tools.gpu_job"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


@pytest.mark.parametrize("lost", [False, True])
def test_r1_without_its_second_derivative_is_refused(
    tmp_path: Path, lost: bool, monkeypatch: Patch
) -> None:
    r1, said = terms.r1, list[object]()
    if lost:  # as a compiled discriminator did: the value is there, the gradient of weights is not
        monkeypatch.setattr(terms, "r1", lambda y, x: r1(y, x).detach() + 0 * y.sum())
    with training.open_session(small_run(tmp_path)) as session:
        if lost:
            refuses(TrainingError, "loses a second derivative", gpu_job.check_r1, session, print)
        else:
            gpu_job.check_r1(session, said.append)
            assert len(said) == 2


def test_a_job_packs_trains_goes_on_and_returns(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(gpu_job, "PART_BYTES", 300_000)
    monkeypatch.setattr(gpu_job, "CHECKED_STEPS", 2)
    whole = make_store(tmp_path / "data", corpus="mini", clips=4)
    parts, out, work = tmp_path / "pack", tmp_path / "out", tmp_path / "work"
    gpu_job.pack(whole.path, parts, size=64)
    small = Store.open(gpu_job.unpack(parts, work / "data" / "mini"))
    batches = [make_batches([store], image_size=64) for store in (whole, small)]
    for name, first in batches[0].batch(1).roles().items():
        second = role(batches[1].batch(1), name)
        assert torch.equal(first.row, second.row)
        if first.x.dtype == torch.uint8:
            assert torch.equal(first.x, second.x)
        else:  # mels are rounded to steps of 1/128
            mels = (
                b.standardiser.restore(x) for b, x in zip(batches, (first.x, second.x), strict=True)
            )
            torch.testing.assert_close(*mels, rtol=0, atol=1 / 256 + 1e-5)
    given: dict[str, Any] = {"preset": "smoke", "device": "cpu", "configuration": "starganv2"}
    given["steps"] = 2
    gpu_job.train(parts, out, minutes=0, work=work, **given)
    assert "nearly over before step 1" in (out / "log.txt").read_text()
    run = gpu_job.train(parts, out, minutes=9, work=work, **given)
    assert all(file.stat().st_size <= 300_000 for file in out.glob("*.tar.*"))
    back = gpu_job.join(out, run.name, tmp_path / run.name)
    assert [r["step"] for r in loop.read(back / loop.METRICS)] == [1, 2, 2]
    model = checkpoint.load_model(back)
    assert (model.step, model.config.model.image_size) == (2, 32)
    (out / f"{run.name}.tar.001").write_bytes(b"cut")
    refuses(DataError, "not what was packed", gpu_job.join, out, run.name, tmp_path / "again")


def test_a_full_step_at_the_papers_sizes_costs_what_it_may() -> None:
    """10^12 operations of a sample, all three sources of styles; 2.58 before passes shared any."""
    fused = {"train.update_rule": "fused"}
    run = config.resolve(preset="paper", batch_size=1, overrides=fused)
    assert 2.1 < speed.tflop_a_step(run) < 2.2


def test_speed_of_steps_beside_the_peak(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(gpu_job, "PEAK_SIDE_CPU", 64)
    monkeypatch.setattr(speed, "precisions", lambda device: config.PRECISIONS)
    monkeypatch.setattr(speed, "tflop_a_step", lambda run: 0.5)
    rows = gpu_job.time_steps(
        tmp_path, rounds=1, preset="smoke", configuration="starganv2", device="cpu", batch_size=2
    )
    assert [(r["rule"], r["precision"]) for r in rows] == [
        (rule, precision) for precision in config.PRECISIONS for rule in ("alternate", "fused")
    ]
    assert all(r["tflops"] == pytest.approx(0.5 * 2 / r["s_per_step"]) for r in rows)
    assert all(np.isfinite(r["share_of_bf16"]) for r in rows)
