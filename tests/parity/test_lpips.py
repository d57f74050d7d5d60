"""LPIPS against the package lpips and the ancestor's formula, with the published learnt layers."""

from __future__ import annotations

import shutil
import warnings
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from xfavot.evaluation import images as images_evaluation
from xfavot.evaluation.images import LPIPS, alexnet_layers, learnt_layers
from xfavot.image.io import load_image, resize_image

PLACES = {
    "lpips_alex": "PerceptualSimilarity/lpips/weights/v0.1/alex.pth",
    "lpips_stargan_v2": "stargan-v2/metrics/lpips_weights.ckpt",
}
SIDE = 64
OUTPUTS = 10


@pytest.fixture(scope="module")
def learnt(real_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Tensor]]:
    """The published layers, read and checked as in use."""
    cache = tmp_path_factory.mktemp("weights")
    found = {}
    for name, place in PLACES.items():
        (cache / name).mkdir()
        source = real_corpus / "weights" / place
        shutil.copyfile(source, cache / name / source.name)
        found[name] = learnt_layers(name, cache)
    return found


@pytest.fixture(scope="module")
def layers() -> nn.Sequential:
    """AlexNet with random weights, scaled so that its maps stay alive."""
    pytest.importorskip("torchvision")
    torch.manual_seed(0)
    made = alexnet_layers()
    for layer in made:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
    return made


@pytest.fixture(scope="module")
def faces(real_corpus: Path) -> Tensor:
    """(2, 10, 3, H, W): real faces, and ten that hardly differ."""
    paths = sorted((real_corpus / "celeba_hq").rglob("*.jpg"))[:OUTPUTS]
    pixels = np.stack([resize_image(load_image(path), SIDE) for path in paths])
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    return torch.stack([x, x[:1] + 0.01 * noise])


def by_package(layers: nn.Sequential, weights_file: Path) -> Any:
    package = pytest.importorskip("lpips")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = package.LPIPS(
            net="alex", pnet_rand=True, model_path=str(weights_file), verbose=False
        )
    theirs = [m for n in range(1, 6) for m in getattr(model.net, f"slice{n}")]
    for own, other in zip(layers, theirs, strict=False):
        other.load_state_dict(own.state_dict())
    return model


def all_pairs(measure: Any, images: Tensor) -> Tensor:
    """(n,) mean over all pairs of (n, K, 3, H, W)."""
    with torch.no_grad():
        values = [
            measure(images[:, i], images[:, j]).flatten()
            for i, j in combinations(range(images.shape[1]), 2)
        ]
    assert len(values) == 45
    return torch.stack(values).mean(0)


def test_learnt_layers_of_both_are_the_same(learnt: dict[str, list[Tensor]]) -> None:
    for one, other in zip(*learnt.values(), strict=True):
        assert torch.equal(one, other)
        assert float(one.min()) >= 0


def test_community(
    layers: nn.Sequential, learnt: dict[str, list[Tensor]], faces: Tensor, real_corpus: Path
) -> None:
    theirs = by_package(layers, real_corpus / "weights" / PLACES["lpips_alex"])
    made = LPIPS("lpips_alex", layers, learnt["lpips_alex"], images_evaluation.unit_package)
    with torch.no_grad():
        expected = theirs(faces[0, :4], faces[0, 4:8]).flatten()
    torch.testing.assert_close(made(faces[0, :4], faces[0, 4:8]), expected, rtol=1e-5, atol=0)
    assert 0.01 < float(expected.min()) < 2
    expected = all_pairs(theirs, faces)
    torch.testing.assert_close(made.diversity(faces), expected, rtol=1e-5, atol=0)
    assert float(expected[1]) < 0.05 * float(expected[0])  # nearly equal outputs do not cancel


def by_ancestor(layers: nn.Sequential, learnt: list[Tensor], x: Tensor, y: Tensor) -> Tensor:
    """(n,): the ancestor's measure as the dossier describes it, in float64."""
    mean = torch.tensor((-0.030, -0.088, -0.188), dtype=torch.float64).view(3, 1, 1)
    deviation = torch.tensor((0.458, 0.448, 0.450), dtype=torch.float64).view(3, 1, 1)
    total = torch.zeros(len(x), dtype=torch.float64)
    maps: list[list[Tensor]] = []
    for image in (x, y):
        h, own = (image.double() - mean) / deviation, []
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                h = nn.functional.conv2d(
                    h, layer.weight.double(), layer.bias.double(), layer.stride, layer.padding
                )
            elif isinstance(layer, nn.ReLU):
                h = h.clamp_min(0)
                own.append(h * torch.rsqrt((h**2).sum(1, keepdim=True) + 1e-10))
            elif len(own) < 5:
                h = layer(h)
        maps.append(own)
    for one, other, weight in zip(*maps, learnt, strict=True):
        total += nn.functional.conv2d((one - other) ** 2, weight.double()).mean((1, 2, 3))
    return total


def test_ancestor(layers: nn.Sequential, learnt: dict[str, list[Tensor]], faces: Tensor) -> None:
    own = learnt["lpips_stargan_v2"]
    made = LPIPS("lpips_stargan_v2", layers, own, images_evaluation.unit_stargan_v2)
    x, y = faces[0, :3], faces[0, 3:6]
    expected = by_ancestor(layers, own, x, y)
    torch.testing.assert_close(made(x, y).double(), expected, rtol=1e-5, atol=0)
    pairs = [
        by_ancestor(layers, own, faces[:, i], faces[:, j]) for i, j in combinations(range(4), 2)
    ]
    found = made.diversity(faces[:, :4])
    torch.testing.assert_close(found.double(), torch.stack(pairs).mean(0), rtol=1e-5, atol=0)
