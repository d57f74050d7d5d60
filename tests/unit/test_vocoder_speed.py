"""The benchmark of vocoders: published sizes, what a row says, what is missing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.unit.vocoder_factory import GENERATORS, vocoder_package
from xfavot import config
from xfavot.audio.vocoder import GriffinLim, Vocoder, vocoder
from xfavot.errors import WeightsError
from xfavot.evaluation import speed
from xfavot.report import artifact

CFG = config.resolve(dataset="grid", preset="smoke", seed=3)


def test_sizes_are_the_published_ones() -> None:
    for name, (generator, params) in speed.PUBLISHED_SIZES.items():
        wanted = GENERATORS[name.partition(".")[0]]
        assert generator == wanted.get("generator_type", "ParallelWaveGANGenerator")
        published = {
            k.replace("kernal", "kernel"): v for k, v in wanted["generator_params"].items()
        }
        assert {key: published[key] for key in params} == params


def test_untrained_networks_sound_without_touching_the_callers_randomness() -> None:
    vocoder_package()
    before = torch.get_rng_state()
    found = speed._vocoders(lambda text: pytest.fail(text))
    assert torch.equal(torch.get_rng_state(), before)
    assert [name for name, _ in found] == ["source_filter", "griffin_lim", *speed.PUBLISHED_SIZES]
    assert all(isinstance(made, Vocoder) for made in found.values())
    quick = found["multi_band_melgan.v2", speed.RANDOM]
    assert "random weights" in quick.name
    wave = quick(torch.full((80, 5), -2.0), length=1234)
    assert wave.shape == (1234,)
    assert np.isfinite(wave).all()


def test_a_row_is_seconds_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        speed,
        "_vocoders",
        lambda say: {("a", "x"): vocoder("source_filter"), ("b", "y"): GriffinLim(iterations=4)},
    )
    monkeypatch.setattr(
        speed,
        "take_turns",
        lambda calls, rounds: dict(zip(calls, [(0.2, 0.1, 0.3), (0.8, 0.4, 0.6)], strict=True)),
    )
    rows = speed.real_time_factors(CFG, rounds=3, seconds=0.5)
    assert [row["value"] for row in rows] == pytest.approx([0.4, 1.2])
    assert [row["ratio"] for row in rows] == pytest.approx([1.0, 3.0])
    assert (rows[1]["lowest"], rows[1]["highest"]) == pytest.approx((0.8, 1.6))
    assert rows[1]["per_second"] == pytest.approx(0.5 / 0.6)
    for row in artifact.plain_rows("x", rows, "smoke"):
        artifact.require_columns("x", row)


def test_what_cannot_be_timed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> None:
        raise WeightsError("not installed")

    monkeypatch.setattr(speed, "untrained", missing)
    said: list[str] = []
    rows = speed.real_time_factors(CFG, rounds=1, seconds=0.1, on_log=said.append)
    assert [row["system"] for row in rows] == ["source_filter", "griffin_lim"]
    assert all(0 < row["lowest"] <= row["value"] <= row["highest"] for row in rows)
    assert sum("is not timed: not installed" in text for text in said) == 3
