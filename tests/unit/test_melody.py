"""Explicit melody and linear enlargement (A79, A80): what the configuration `companion` adds."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.unit.training_factory import small_run
from xfavot import training
from xfavot.audio.mel import band_centres, log_mel
from xfavot.errors import ShapeError
from xfavot.losses import terms
from xfavot.models.blocks import FACTORS, ResampledConv, up
from xfavot.models.f0 import F0Output, level_of, melody_of
from xfavot.models.generators import USUAL_LEVEL, Excitation
from xfavot.training.step import CODE_SLACK


def heard(pitch: list[float], voicing: list[float]) -> F0Output:
    hz, logits = torch.tensor([pitch]), torch.tensor([voicing])
    return F0Output(hz, logits, torch.zeros(1), hz, torch.zeros(1))


def test_a_melody_is_in_octaves_about_the_mean_of_the_voiced_frames() -> None:
    out = heard([100.0, 400.0, 880.0], [20.0, 20.0, -20.0])
    assert level_of(out).tolist() == pytest.approx([math.log2(200)], abs=1e-6)
    octaves, voiced = melody_of(out)[0]
    assert octaves.tolist() == pytest.approx([-1, 1, math.log2(4.4)], abs=1e-5)
    assert voiced.tolist() == pytest.approx([1, 1, 0], abs=1e-6)
    assert melody_of(out, torch.tensor([math.log2(100)]))[0, 0, 0] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("hz", [110.0, 220.0])
def test_the_ripples_lie_where_harmonics_of_the_pitch_lie(hz: float) -> None:
    n = np.arange(24_000)
    tone = sum(np.cos(2 * np.pi * k * hz * n / 24_000) / 40 for k in range(1, 30))
    mel = log_mel(torch.from_numpy(np.float32(tone)))[:, 40]
    centres, _ = band_centres()
    low = centres < 5.5 * hz
    excitation = Excitation(1)
    with torch.no_grad():
        excitation.mix.weight.zero_()
        excitation.mix.bias.zero_()
        excitation.mix.weight[0, 1, 1, 1] = 1  # the ripples alone
        drawn = excitation(
            torch.zeros(1, 1, 80, 3),
            torch.tensor([[[0.0] * 3, [1.0] * 3]]),
            torch.tensor([math.log2(hz)]),
        )
    ripples = drawn[0, 0, :, 1]
    assert torch.corrcoef(torch.stack((ripples[low], mel[low])))[0, 1] > 0.8
    assert ripples[centres > 30 * hz].abs().max() < 0.1  # no single harmonic is seen there


@pytest.mark.parametrize("resample", ["half", "timepreserve"])
@pytest.mark.parametrize("linear", [False, True])
def test_one_convolution_enlarges_and_filters(resample: str, linear: bool) -> None:
    torch.manual_seed(0)
    conv = ResampledConv(3, 2, resample, upwards=True, linear=linear)  # type: ignore[arg-type]
    x = torch.randn(2, 3, 6, 8)
    apart = functional.conv2d(up(x, resample, linear=linear), conv.weight, conv.bias, padding=1)  # type: ignore[arg-type]
    got = conv(x)
    assert (
        got.shape
        == apart.shape
        == (2, 2, *(n * f for n, f in zip((6, 8), FACTORS[resample], strict=True)))
    )  # type: ignore[index]
    inside = (..., slice(2, -2), slice(2, -2)) if linear else (...,)  # the border reads zeros
    torch.testing.assert_close(got[inside], apart[inside], rtol=1e-4, atol=1e-5)


def test_the_level_costs_nothing_within_the_slack() -> None:
    predicted, level = torch.tensor([7.0, 7.5]), torch.tensor([7.1, 7.0])
    assert terms.pitch_level(predicted, level).item() == pytest.approx(0.3)
    assert terms.pitch_level(predicted, level, slack=CODE_SLACK).item() == pytest.approx(0.15)
    with pytest.raises(ShapeError, match="level of the pitch"):
        terms.pitch_level(predicted, level[:1])


def test_companion_trains_the_level_of_styles_and_codes(tmp_path: Path) -> None:
    cfg = small_run(tmp_path, configuration="companion", overrides={"train.sources": "all"})
    with training.open_session(cfg) as session:
        g = session.updater.n.nets.G_A
        assert g.level_of(torch.randn(3, cfg.model.style_dim)).tolist() == pytest.approx(
            [USUAL_LEVEL] * 3
        )
        found = session.update(session.batch(1), 1)
        assert {"g/level", "g/z2a/level"} <= found.keys()
        assert "g/i2a/level" not in found
        assert g.level is not None
        assert g.level.weight.abs().sum() > 0
        x = torch.zeros(1, 1, 80, 96)
        with pytest.raises(ShapeError, match="G_A melody"):
            g(x, torch.zeros(1, cfg.model.style_dim), session.updater.n.f0.features(x))
        session.validate()
        assert session.sample()
