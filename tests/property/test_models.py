"""What holds for the modules at any size: shapes, independent samples, gradients, errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.conftest import refuses
from xfavot.config import ModelConfig
from xfavot.errors import ShapeError
from xfavot.models.xfavot import XFaVoT

SIZES: Any = dict(image_size=32, image_width=4, image_max_width=8, image_levels=2, mel_frames=96)
SIZES |= dict(audio_width=4, audio_max_width=8, style_dim=5, latent_dim=3, mapping_width=16)
SMALL = ModelConfig(**SIZES, speakers=4, f0_width=2, f0_channels=3)
NAMES = ("G_I", "G_A", "E_I", "E_A", "D_I", "D_A", "C_A", "M")
few = settings(max_examples=8, deadline=None)


@pytest.fixture(scope="module")
def nets() -> XFaVoT:
    torch.manual_seed(0)
    return XFaVoT(SMALL)


def inputs(name: str, batch: int = 3, *, size: int = 32, frames: int = 96) -> tuple[Tensor, ...]:
    make = torch.Generator().manual_seed(1)
    image = torch.rand(batch, 3, size, size, generator=make) * 2 - 1
    mel = torch.randn(batch, 1, 80, frames, generator=make)
    s = torch.randn(batch, SMALL.style_dim, generator=make)
    gender = torch.arange(batch) % 2
    return {
        "G_I": (image, s),
        "G_A": (mel, s, torch.randn(batch, 8, 10, frames, generator=make)),
        "E_I": (image, gender),
        "E_A": (mel, gender),
        "D_I": (image, gender),
        "D_A": (mel, torch.arange(batch) % 6),
        "C_A": (mel,),
        "M": (torch.randn(batch, SMALL.latent_dim, generator=make), torch.arange(batch) % 6),
    }[name]


def output(net: nn.Module, *args: Tensor) -> Tensor:
    out = net(*args)
    return torch.cat(out, dim=1) if isinstance(out, tuple) else out


@few
@given(st.integers(2, 6), st.integers(2, 6), st.integers(1, 40), st.integers(80, 200))
def test_any_size(nets: XFaVoT, rows: int, columns: int, quarter: int, frames: int) -> None:
    image = torch.zeros(1, 3, 4 * rows, 4 * columns)
    assert nets.G_I(image, torch.zeros(1, 5)).shape == image.shape
    mel, s, features = inputs("G_A", 1, frames=4 * quarter)
    assert nets.G_A(mel, s, features).shape == mel.shape
    x, gender = inputs("E_A", 2, frames=frames)
    assert nets.E_A(x, gender).shape == (2, 5)
    assert nets.D_A(x, gender).shape == (2,)
    assert [g.shape for g in nets.C_A(x)] == [(2, 2), (2, 4)]


@pytest.mark.parametrize("name", NAMES)
def test_samples_do_not_see_each_other(nets: XFaVoT, name: str) -> None:
    net, args = getattr(nets, name), inputs(name, 5)
    order = torch.tensor([3, 0, 4, 1, 2])
    whole = output(net, *args)
    permuted = output(net, *(a[order] for a in args))
    torch.testing.assert_close(permuted, whole[order], rtol=1e-3, atol=1e-4)
    alone = torch.cat([output(net, *(a[i : i + 1] for a in args)) for i in range(5)])
    torch.testing.assert_close(alone, whole, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("decoder", "norm"), [("code", False), ("table7", True)])
def test_gradients_reach_every_parameter_and_every_input(decoder: str, norm: bool) -> None:
    torch.manual_seed(0)
    built = XFaVoT(replace(SMALL, audio_decoder=decoder, style_norm=norm))
    for name in NAMES:
        net, args = getattr(built, name), inputs(name, 6)  # six samples ask for all six domains
        leaves = [a.clone().requires_grad_() for a in args if a.is_floating_point()]
        rest = [a for a in args if not a.is_floating_point()]
        output(net, *leaves, *rest).pow(2).sum().backward()
        silent = [key for key, p in net.named_parameters() if p.grad is None or not p.grad.any()]
        assert silent == [], f"{name}: {silent}"
        assert all(leaf.grad is not None and leaf.grad.isfinite().all() for leaf in leaves)


def test_mapping_network_equals_its_heads_one_by_one(nets: XFaVoT) -> None:
    z, domain = torch.randn(7, 3), torch.tensor([5, 0, 0, 2, 5, 5, 1])
    expected = []
    for row, k in zip(z, domain, strict=True):
        for layer in nets.M.shared:
            row = layer(row).relu()
        for layer in nets.M.heads:
            row = row.relu() @ layer.weight[k] + layer.bias[k]
        expected.append(row)
    torch.testing.assert_close(nets.M(z, domain), torch.stack(expected))


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("name", ["D_I", "D_A"])
def test_gradient_penalty_can_be_differentiated(name: str, norm: bool) -> None:
    torch.manual_seed(0)
    net = getattr(XFaVoT(replace(SMALL, style_norm=norm)).double(), name)
    x, domain = inputs(name, 2)
    x, weight = x.double().requires_grad_(), net.trunk[1].conv1.weight

    def penalty(change: Tensor) -> Tensor:
        moved = {"trunk.1.conv1.weight": weight.index_put(place, weight[place] + change)}
        logits = torch.func.functional_call(net, moved, (x, domain))
        (slope,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
        return slope.pow(2).sum()

    place = tuple(torch.tensor([n]) for n in (0, 1, 2, 1))
    change = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(penalty, change, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_bf16_and_channels_last_stay_close_and_inputs_stay(nets: XFaVoT, name: str) -> None:
    net, args = getattr(nets, name), inputs(name)
    kept = [a.clone() for a in args]
    with torch.no_grad():
        exact = output(net, *args)
        with torch.autocast("cpu", torch.bfloat16):
            rough = output(net, *args).float()
    assert (rough - exact).norm() < 0.1 * exact.norm()
    try:
        net.to(memory_format=torch.channels_last)
        torch.testing.assert_close(output(net, *args), exact, rtol=1e-3, atol=1e-4)
    finally:
        net.to(memory_format=torch.contiguous_format)
    assert all(torch.equal(a, b) for a, b in zip(args, kept, strict=True))


REFUSED: list[tuple[str, Callable[[XFaVoT], object], str]] = [
    ("side", lambda n: n.G_I(torch.zeros(1, 3, 30, 32), torch.zeros(1, 5)), "multiples of 4"),
    ("style", lambda n: n.G_I(torch.zeros(1, 3, 32, 32), torch.zeros(2, 5)), "G_I style"),
    ("frames", lambda n: n.G_A(*inputs("G_A", 1, frames=98)), "multiple of 4"),
    ("features", lambda n: n.G_A(*inputs("G_A")[:2], torch.zeros(3, 8, 10, 92)), "F0 features"),
    ("short E_A", lambda n: n.E_A(*inputs("E_A", frames=79)), "at least 80"),
    ("size", lambda n: n.E_I(*inputs("E_I", size=64)), "faces for E_I"),
    ("gender", lambda n: n.E_I(inputs("E_I")[0], torch.tensor([0, 1, 2])), "0 to 1"),
    ("unknown", lambda n: n.D_A(inputs("D_A")[0], torch.tensor([0, -1, 2])), "from -1"),
    ("head", lambda n: n.M(torch.zeros(2, 3), torch.tensor([0, 6])), "0 to 5"),
    ("type", lambda n: n.M(torch.zeros(1, 3), torch.tensor([0.0])), "int64"),
    ("point", lambda n: n.G_I(torch.zeros(1, 3, 4, 4), torch.zeros(1, 5)), "two places"),
]


@pytest.mark.parametrize(("call", "message"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_refused_shapes(nets: XFaVoT, call: Callable[[XFaVoT], object], message: str) -> None:
    refuses(ShapeError, message, call, nets)
