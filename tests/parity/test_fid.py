"""FID against pytorch-fid's own functions and network, and against the ancestor's blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.unit.test_frechet import distance, drawn, pictures
from xfavot.evaluation import images

TOLERANCE = 1e-6  # relative


def by_pytorch_fid(a: Tensor, b: Tensor) -> float:
    score = pytest.importorskip("pytorch_fid.fid_score")
    sides: list[Any] = []
    for x in (a.double().numpy(), b.double().numpy()):
        sides += [np.mean(x, axis=0), np.cov(x, rowvar=False)]
    return float(score.calculate_frechet_distance(*sides))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("counts", "ranks"),
    [
        ((400, 300), (None, None)),
        ((400, 90), (None, None)),  # barely more images than features
        ((400, 30), (None, None)),  # fewer in one set
        ((30, 20), (None, None)),  # in both
        ((400, 300), (12, None)),  # features that depend on each other
        ((400, 300), (12, 20)),
    ],
)
def test_distance(counts: tuple[int, int], ranks: tuple[int | None, int | None]) -> None:
    a, b = (
        drawn(n, 80, seed=s, rank=r) for s, (n, r) in enumerate(zip(counts, ranks, strict=True))
    )
    found = distance(a, b)
    assert found == pytest.approx(by_pytorch_fid(a, b), rel=TOLERANCE)


@pytest.fixture(scope="module")
def networks() -> dict[str, nn.Module]:
    """Both Inceptions with random weights, whole."""
    pytest.importorskip("torchvision")
    pytest.importorskip("pytorch_fid")
    torch.manual_seed(1)
    return {
        "fid_pytorch": images.tensorflow_inception(),
        "fid_stargan_v2": images.imagenet_inception(),
    }


def ours(metric: str, network: nn.Module, monkeypatch: pytest.MonkeyPatch) -> images.Extractor:
    """The extractor as a user gets it, with these weights in place of the trained ones."""
    monkeypatch.setattr("xfavot.evaluation.images._trained", lambda *given: network)
    return images.pytorch_fid() if metric == "fid_pytorch" else images.fid_stargan_v2(image_size=64)


@pytest.mark.filterwarnings("ignore")
def test_network_of_pytorch_fid(
    networks: dict[str, nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    package = pytest.importorskip("pytorch_fid.inception")
    network = networks["fid_pytorch"]
    state = network.state_dict()
    monkeypatch.setattr(package, "load_state_dict_from_url", lambda *a, **k: state)
    theirs = package.InceptionV3().eval()
    x = pictures(4, 64, seed=2)
    with torch.no_grad():
        expected = theirs(x.float() / 255)[0][:, :, 0, 0]
    found = ours("fid_pytorch", network, monkeypatch)(x).float()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert float(expected.std(0).mean()) > 0
    a = found[:, ::32]  # its root of all 2048, of a rank of 3, takes minutes
    b = a.flip(1) * 1.3
    found = distance(a, b)
    assert found == pytest.approx(by_pytorch_fid(a, b), rel=TOLERANCE)


def test_network_of_the_ancestor(
    networks: dict[str, nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = networks["fid_stargan_v2"]
    blocks = dict(network.named_children())
    pool = nn.MaxPool2d(3, stride=2)
    before = [blocks[f"Conv2d_{name}"] for name in ("1a_3x3", "2a_3x3", "2b_3x3")]
    between = [blocks[f"Conv2d_{name}"] for name in ("3b_1x1", "4a_3x3")]
    mixed = [module for name, module in blocks.items() if name.startswith("Mixed")]
    theirs = nn.Sequential(*before, pool, *between, pool, *mixed, nn.AdaptiveAvgPool2d(1))
    extractor = ours("fid_stargan_v2", network, monkeypatch)
    x = pictures(4, 64, seed=3)
    with torch.no_grad():
        expected = theirs(extractor.prepare(x)).flatten(1)
    assert expected.shape == (4, 2048)
    torch.testing.assert_close(extractor(x).float(), expected, rtol=1e-5, atol=1e-6)
