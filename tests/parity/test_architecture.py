"""The modules have the layers, shapes and parameter counts of Tables 6 to 9."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache, partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xfavot.config import ModelConfig
from xfavot.models.blocks import AdaINResBlk, Resample, ResBlk, down, up
from xfavot.models.xfavot import ShapeRow, XFaVoT, shape_trace

COUNTS = {
    **{"G_I": 43_206_403, "E_I": 20_799_744, "D_I": 20_735_106},
    **{"G_A": 45_972_993, "E_A": 13_835_840, "D_A": 13_836_866, "C_A": 13_836_866},
    **{"M": 107_500_672, "total": 279_724_490},
}


@cache
def nets(**changes: object) -> XFaVoT:
    """The modules at the paper's sizes, with shapes but no values."""
    with torch.device("meta"):
        return XFaVoT(dataclasses.replace(ModelConfig(speakers=128), **changes))


def empty(*shape: int) -> Tensor:
    return torch.empty(shape, device="meta")


def domains(batch: int) -> Tensor:
    return torch.zeros(batch, dtype=torch.int64, device="meta")


Row = tuple[str, str, str, tuple[int, ...]]


def rows(*entries: Row) -> list[ShapeRow]:
    return [ShapeRow(*entry) for entry in entries]


def blocks(resample: str, norm: str, *shapes: tuple[int, int, int]) -> list[Row]:
    return [("ResBlk", resample, norm, shape) for shape in shapes]


def test_parameter_counts_are_those_of_the_tables() -> None:
    assert dict(nets().parameter_table()) == COUNTS
    assert sum(p.numel() for p in nets().G_A.f0_path.parameters()) == 918_912

    for change, module, count in (
        ({"audio_decoder": "table7"}, "G_A", 41_120_257),
        ({"style_norm": True}, "E_I", 20_799_744 + 7_680),
        ({"style_norm": True}, "E_A", 13_835_840 + 3_840),
        ({"image_levels": 3}, "G_I", 33_632_003),
        ({"speakers": 0}, "M", 2_438_272),
        ({"speakers": 18}, "M", 17_212_672),
    ):
        assert dict(nets(**change).parameter_table())[module] == count, change


def test_table_6_image_generator() -> None:
    deep = (512, 8, 8)
    expected = rows(
        ("Conv 3x3", "-", "-", (128, 128, 128)),
        *blocks("down 2x2", "IN", (256, 64, 64), (512, 32, 32), (512, 16, 16), deep),
        *blocks("-", "IN", deep, deep),
        *blocks("-", "AdaIN", deep, deep),
        *blocks("up 2x2", "AdaIN", (512, 16, 16), (512, 32, 32), (256, 64, 64), (128, 128, 128)),
        ("IN, LReLU", "-", "-", (128, 128, 128)),
        ("Conv 1x1", "-", "-", (3, 128, 128)),
    )
    assert shape_trace(nets().G_I, empty(2, 3, 128, 128), empty(2, 64)) == expected


@pytest.mark.parametrize("decoder", ["code", "table7"])
def test_table_7_audio_generator(decoder: str) -> None:
    deep, joint = (512, 5, 48), (640, 5, 48)
    expected = rows(
        ("Conv 3x3", "-", "-", (64, 80, 192)),
        *blocks("down 2x2", "IN", (128, 40, 96)),
        *blocks("down 2x1", "IN", (256, 20, 96)),
        *blocks("down 2x2", "IN", (512, 10, 48)),
        *blocks("down 2x1", "IN", deep),
        *blocks("-", "IN", deep, deep),
        *blocks("down 2x2", "IN", (128, 5, 96)),
        ("Concat F0", "-", "-", joint),
        *blocks("-", "AdaIN", joint, joint, *([deep] if decoder == "code" else [])),
        *blocks("up 2x1", "AdaIN", (512, 10, 48)),
        *blocks("up 2x2", "AdaIN", (256, 20, 96)),
        *blocks("up 2x1", "AdaIN", (128, 40, 96)),
        *blocks("up 2x2", "AdaIN", (64, 80, 192)),
        ("IN, LReLU", "-", "-", (64, 80, 192)),
        ("Conv 1x1", "-", "-", (1, 80, 192)),
    )
    net = nets(audio_decoder=decoder).G_A
    inputs = empty(2, 1, 80, 192), empty(2, 64), empty(2, 256, 10, 192)
    assert shape_trace(net, *inputs) == expected


TABLE_8 = [
    ("Conv 3x3", "-", "-", (128, 128, 128)),
    *blocks("down 2x2", "-", (256, 64, 64), *((512, side, side) for side in (32, 16, 8, 4))),
    ("LReLU", "-", "-", (512, 4, 4)),
    ("Conv 4x4", "-", "-", (512, 1, 1)),
    ("LReLU", "-", "-", (512, 1, 1)),
]
TABLE_9 = [
    ("Conv 3x3", "-", "-", (64, 80, 192)),
    *blocks("down 2x2", "-", (128, 40, 96), (256, 20, 48), (512, 10, 24), (512, 5, 12)),
    ("LReLU", "-", "-", (512, 5, 12)),
    ("Conv 5x5", "-", "-", (512, 1, 8)),
]


def test_table_8_image_style_encoder_and_discriminator() -> None:
    x, gender = empty(2, 3, 128, 128), domains(2)
    assert shape_trace(nets().E_I, x, gender) == rows(*TABLE_8, ("Linear", "-", "-", (128,)))
    assert shape_trace(nets().D_I, x, gender) == rows(*TABLE_8, ("Conv 1x1", "-", "-", (2, 1, 1)))
    printed = shape_trace(nets(style_norm=True).E_I, x, gender)
    assert {row.norm for row in printed if row.layer == "ResBlk"} == {"IN"}


def test_table_9_audio_style_encoder_discriminator_and_classifier() -> None:
    x, domain = empty(2, 1, 80, 192), domains(2)
    pooled = ("AvgPool", "-", "-", (512, 1, 1))
    encoder = (pooled, ("LReLU", "-", "-", (512, 1, 1)), ("Linear", "-", "-", (128,)))
    judge = (("LReLU", "-", "-", (512, 1, 8)), pooled, ("Conv 1x1", "-", "-", (130, 1, 1)))
    assert shape_trace(nets().E_A, x, domain) == rows(*TABLE_9, *encoder)
    assert shape_trace(nets().D_A, x, domain) == rows(*TABLE_9, *judge)
    assert shape_trace(nets().C_A, x) == rows(*TABLE_9, *judge)
    assert [tuple(group.shape) for group in nets().C_A(x)] == [(2, 2), (2, 128)]


def test_mapping_network_has_four_shared_layers_and_four_a_head() -> None:
    expected = rows(
        *(("Linear", "-", "-", (512,)) for _ in range(4)),
        *(("Linear (of the domain)", "-", "-", (512,)) for _ in range(3)),
        ("Linear (of the domain)", "-", "-", (64,)),
    )
    assert shape_trace(nets().M, empty(2, 16), domains(2)) == expected


def test_initial_weights_are_he_normal_and_biases_zero() -> None:
    torch.manual_seed(0)
    sizes = {"image_size": 16, "image_width": 32, "image_levels": 2, "audio_width": 8}
    net = XFaVoT(ModelConfig(**sizes, speakers=4))
    convolution = net.D_I.trunk[1].conv1
    affine = net.G_I.decode[0].norm1.affine
    stacked = net.M.heads[0]
    for layer, inputs in ((convolution, 32 * 9), (affine, 64), (stacked, 512)):
        assert layer.weight.std().item() == pytest.approx((2 / inputs) ** 0.5, rel=0.05)
        assert layer.bias.abs().max() == 0


def plain(conv: nn.Conv2d, x: Tensor) -> Tensor:
    return F.conv2d(x, conv.weight, conv.bias, padding=1)


def printed_resblk(block: ResBlk, x: Tensor) -> Tensor:
    """ResBlk in the printed order, of elementary operations."""

    def norm(layer: nn.Module | None, h: Tensor) -> Tensor:
        return h if layer is None else F.instance_norm(h, weight=layer.weight, bias=layer.bias)

    h = plain(block.conv1, F.leaky_relu(norm(block.norm1, x), 0.2))
    h = block.conv2(F.leaky_relu(norm(block.norm2, down(h, block.resample)), 0.2))
    shortcut = x if block.shortcut is None else block.shortcut(x)
    return (down(shortcut, block.resample) + h) / 2**0.5


def printed_adain_resblk(block: AdaINResBlk, x: Tensor, s: Tensor) -> Tensor:
    """AdaINResBlk in the printed order, of elementary operations."""

    def adain(layer: nn.Module, h: Tensor) -> Tensor:
        gamma, beta = layer.affine(s)[:, :, None, None].chunk(2, dim=1)
        return (1 + gamma) * F.instance_norm(h) + beta

    h = F.leaky_relu(adain(block.norm1, x), 0.2)
    h = plain(block.conv1, up(h, block.resample))
    h = block.conv2(F.leaky_relu(adain(block.norm2, h), 0.2))
    shortcut = up(x, block.resample)
    if block.shortcut is not None:
        shortcut = block.shortcut(shortcut)
    return (shortcut + h) / 2**0.5


def assert_same_but_rounding(block: nn.Module, printed: Callable[..., Tensor], *x: Tensor) -> None:
    found = []
    for run in (partial(printed, block), block):
        block.zero_grad()
        x[0].grad = None
        out = run(*x)
        (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)).sum().backward()
        found.append([out.detach(), x[0].grad, *(p.grad for p in block.parameters())])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("outputs", [6, 4])
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("resample", ["none", "half", "timepreserve"])
def test_encoder_block_equals_the_printed(resample: Resample, norm: bool, outputs: int) -> None:
    torch.manual_seed(0)
    block = ResBlk(inputs=4, outputs=outputs, resample=resample, norm=norm).double()
    for size in ((8, 12), (9, 7)):  # odd sides lose their rest
        x = torch.randn(2, 4, *size, dtype=torch.float64, requires_grad=True)
        assert_same_but_rounding(block, printed_resblk, x)


@pytest.mark.parametrize("outputs", [6, 4])
@pytest.mark.parametrize("resample", ["none", "half", "timepreserve"])
def test_decoder_block_equals_the_printed_order(resample: Resample, outputs: int) -> None:
    torch.manual_seed(0)
    block = AdaINResBlk(inputs=4, outputs=outputs, style_dim=3, resample=resample).double()
    x = torch.randn(2, 4, 5, 6, dtype=torch.float64, requires_grad=True)
    s = torch.randn(2, 3, dtype=torch.float64)
    assert_same_but_rounding(block, printed_adain_resblk, x, s)
