"""The F0 and the content network: the lineage's sizes, any length, nothing live when frozen."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import nn

from tests.conftest import refuses
from xfavot.config import ModelConfig
from xfavot.errors import ShapeError
from xfavot.models.content import CEPSTRA, SYMBOLS, ContentNetwork, cosine_transform
from xfavot.models.f0 import PITCH_CLASSES, F0Network, F0Output, class_of, pitch_of, track


def small_f0() -> F0Network:
    torch.manual_seed(0)
    return F0Network(f0_width=4)


def small_content(**changes: object) -> ContentNetwork:
    torch.manual_seed(0)
    settings = {"content_width": 16, "content_channels": 6, "depth": 2} | changes
    return ContentNetwork(**settings)  # type: ignore[arg-type]


def count(network: nn.Module, *, without: str) -> int:
    named = network.named_parameters()
    return sum(p.numel() for name, p in named if not name.startswith(tuple(without.split())))


def test_the_networks_have_the_lineage_s_sizes_up_to_their_features() -> None:
    pitch, content = (kind.from_config(ModelConfig()) for kind in (F0Network, ContentNetwork))
    assert count(pitch, without="recurrent pitch_head voicing_head") == 1_928_256
    assert count(pitch.recurrent, without="none") == 2 * (4 * 256 * (512 + 256) + 2 * 4 * 256)
    assert count(content, without="head") == 7_204_224
    assert content.depth == 6
    assert F0Network(**pitch.sizes).sizes == pitch.sizes
    assert ContentNetwork(**content.sizes).sizes == content.sizes


@pytest.mark.parametrize("frames", [1, 33])
def test_networks_take_any_length(frames: int) -> None:
    x = torch.randn(2, 1, 80, frames)
    out = small_f0().eval()(x)
    assert out.f0.shape == out.voicing.shape == out.pitch.shape == (2, frames)
    assert out.features.shape == (2, 16, 10, frames)
    assert torch.equal(out.f0, torch.sigmoid(out.voicing) * out.pitch)
    assert out.classes.shape == (2, frames, PITCH_CLASSES)
    content, half = small_content().eval(), math.ceil(frames / 2)  # halves, rounding up
    assert content.features(x).shape == (2, 6, half)
    log_probabilities = content(x)
    assert log_probabilities.shape == (2, half, len(SYMBOLS))
    torch.testing.assert_close(log_probabilities.exp().sum(-1), torch.ones(2, half))


@pytest.mark.parametrize("network", [small_f0(), small_content()], ids=["f0", "content"])
def test_frozen_networks_treat_samples_alone_and_alike(network: Any) -> None:
    x = torch.randn(3, 1, 80, 20, generator=torch.Generator().manual_seed(1))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    together = network.eval().features(x)
    assert torch.equal(together, network.features(x))
    torch.testing.assert_close(together[1:2], network.features(x[1:2]), rtol=1e-4, atol=1e-5)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    for shape in ((1, 80, 12), (1, 1, 64, 12), (1, 2, 80, 12)):
        refuses(ShapeError, "80", network.features, torch.zeros(shape))


def test_frozen_f0_network_lets_gradients_through_to_the_mel() -> None:
    network = small_f0().requires_grad_(False).eval()
    assert network.recurrent.training  # cuDNN refuses the backward pass otherwise
    assert not network.dropout.training
    assert not network.norm.training
    x = torch.randn(1, 1, 80, 12, requires_grad=True)
    network(x).f0.sum().backward()
    assert x.grad is not None
    assert (x.grad.abs().sum(dim=(0, 1, 2)) > 0).all()


def said(hz: torch.Tensor, voicing: torch.Tensor) -> F0Output:
    """What a network says that is sure of a pitch (T,) Hz and as sure of the voice as given."""
    logits = -0.5 * (torch.arange(PITCH_CLASSES) - class_of(hz).unsqueeze(-1)).square()
    nothing = torch.zeros(1)
    return F0Output(nothing, voicing[None], nothing, pitch_of(logits)[None], logits[None])


def test_a_track_does_not_leap_in_single_frames() -> None:
    hz, sure = torch.linspace(180.0, 220.0, 40), torch.full((40,), 6.0)
    smooth = track(said(hz, sure))[0]
    torch.testing.assert_close(smooth, hz, rtol=2e-2, atol=0)
    found = said(hz, sure)
    octave_up = said(2 * hz, sure).classes[0, 20]
    found.classes[0, 20] = torch.logaddexp(found.classes[0, 20], octave_up + 0.5)  # one frame
    assert pitch_of(found.classes)[0, 20] > 380
    torch.testing.assert_close(track(found)[0], hz, rtol=2e-2, atol=0)
    for_good = torch.where(torch.arange(40) < 20, hz, 2 * hz)
    torch.testing.assert_close(track(said(for_good, sure))[0], for_good, rtol=2e-2, atol=0)


def test_a_track_is_unvoiced_where_the_voice_stops() -> None:
    hz, voicing = torch.full((60,), 150.0), torch.full((60,), 6.0)
    voicing[20:40] = -6.0
    voicing[10] = -0.5  # a single doubtful frame
    both = said(hz, voicing)
    found = track(both)[0]
    assert (found[20:40] == 0).all()
    assert (found[:20] > 0).all()
    assert (found[40:] > 0).all()
    unsure = said(hz, torch.full((60,), 1.0))
    flat = dataclasses.replace(unsure, classes=torch.zeros_like(unsure.classes))
    assert (track(flat) == 0).all()  # voiced perhaps, but of no pitch
    assert track(said(hz[:1], voicing[:1])).shape == (1, 1)


def test_pitch_lies_between_the_likeliest_classes() -> None:
    hz = torch.tensor([55.0, 61.0, 123.4, 440.0, 600.0, 880.0])
    number = torch.arange(PITCH_CLASSES)
    logits = -0.5 * (number - class_of(hz).unsqueeze(-1)).square()
    torch.testing.assert_close(pitch_of(logits)[1:5], hz[1:5], rtol=2e-3, atol=0)
    assert 55.0 <= pitch_of(logits)[0] < 57.0  # the neighbours lie on one side only
    assert 850.0 < pitch_of(logits)[5] <= 880.001
    logits.requires_grad_(True)
    pitch_of(logits).sum().backward()
    assert logits.grad is not None
    assert logits.grad[2].abs().sum() > 0


def test_cosine_transform_is_orthonormal_and_starts_with_the_mean() -> None:
    matrix = cosine_transform(CEPSTRA, 80)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(CEPSTRA), rtol=0, atol=1e-6)
    torch.testing.assert_close(matrix[0], torch.full((80,), 1 / math.sqrt(80)))
    assert not any("cepstra" in name for name in small_content().state_dict())
