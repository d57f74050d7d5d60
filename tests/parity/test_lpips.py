"""LPIPS against the package lpips and the ancestor's formula; by hand, rows, missing weights."""

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

from tests.parity.test_fid import group
from xfavot.errors import ShapeError, WeightsError
from xfavot.evaluation import images
from xfavot.evaluation.images import LPIPS, lpips, trained_lpips
from xfavot.image.io import load_image, resize_image

PLACES = {
    "lpips_alex": "PerceptualSimilarity/lpips/weights/v0.1/alex.pth",
    "lpips_stargan_v2": "stargan-v2/metrics/lpips_weights.ckpt",
}
SIDE = 64
OUTPUTS = 10


def pair(measure: LPIPS, a: Tensor, b: Tensor) -> Tensor:
    """(n,): of two images each."""
    return measure.diversity(torch.stack([a, b], dim=1))


# Random networks


def alexnet_layers() -> nn.Sequential:
    with torch.device("meta"):  # no memory for the classifier
        layers: nn.Sequential = pytest.importorskip("torchvision.models").alexnet().features[:-1]
    layers.to_empty(device="cpu")
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            layer.reset_parameters()
    return layers


@pytest.fixture(scope="module")
def measure() -> LPIPS:
    pytest.importorskip("torchvision")
    torch.manual_seed(0)
    learnt = [torch.rand(1, channels, 1, 1) for channels in images.CHANNELS]
    return LPIPS("lpips_stargan_v2", alexnet_layers(), learnt)


def drawn(*shape: int, apart: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    one = torch.rand(1, 3, 40, 40, generator=generator) * 2 - 1
    return (one + apart * torch.randn(*shape, 3, 40, 40, generator=generator)).clamp(-1, 1)


def test_one_layer_by_hand() -> None:
    class Same(nn.ReLU):
        """A map that is its input."""

        def forward(self, input: Tensor) -> Tensor:
            return input

    made = LPIPS(
        "by hand", nn.Sequential(Same()), [torch.tensor([1.0, 2, 0])], definition="one layer"
    )
    a, b = torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 32, 32)
    for image, direction in ((a, (3.0, 4, 0)), (b, (0.0, 0, 5))):
        colour = torch.tensor(direction) * torch.tensor(images.SCALE) + torch.tensor(images.SHIFT)
        image[0] = colour[:, None, None]
    expected = 1 * 0.6**2 + 2 * 0.8**2  # unit vectors (.6, .8, 0) and (0, 0, 1)
    assert float(pair(made, a, b)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("apart", [1.0, 0.02])  # nearly equal outputs must not cancel
def test_diversity_is_the_mean_of_all_pairs_whatever_the_portion(
    measure: LPIPS, apart: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = drawn(5, 4, apart=apart)
    pairs = [pair(measure, x[:, i], x[:, j]) for i, j in combinations(range(4), 2)]
    assert float(pairs[0].min()) > 0
    for portion in (40, 6):
        monkeypatch.setattr(images, "LPIPS_AT_ONCE", portion)
        found = measure.diversity(x)
        torch.testing.assert_close(found, torch.stack(pairs).mean(0), rtol=1e-5, atol=1e-8)


def test_equal_images_symmetry_and_small_ones(measure: LPIPS) -> None:
    a, b = drawn(2), drawn(4)[2:]
    assert pair(measure, a, a).tolist() == pytest.approx([0, 0])
    torch.testing.assert_close(pair(measure, a, b), pair(measure, b, a))
    assert float(pair(measure, a[:1, :, :31, :31], b[:1, :, :31, :31])) > 0
    with pytest.raises(ShapeError, match="31 pixels a side"):
        pair(measure, a[..., :30], b[..., :30])


def test_weights_are_those_of_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = pytest.importorskip("torchvision.models")
    learnt = [torch.rand(1, channels, 1, 1) for channels in images.CHANNELS]
    with torch.device("meta"):
        network = models.alexnet()
        network.classifier.half()  # smaller, and not wanted
    network.to_empty(device="cpu")
    network.features.load_state_dict(alexnet_layers().state_dict())
    for parameter in network.classifier.parameters():
        parameter.data.zero_()
    torch.save(network.state_dict(), tmp_path / "alexnet")
    for name, key in images.KEYS.items():
        torch.save({key.format(n): one for n, one in enumerate(learnt)}, tmp_path / name)
    monkeypatch.setattr("xfavot.weights.fetched.path", lambda name: tmp_path / name)
    x = drawn(2, 3)
    expected = LPIPS("lpips_alex", network.features[:-1], learnt).diversity(x)
    ours, ancestor = trained_lpips("lpips_alex"), trained_lpips("lpips_stargan_v2")
    torch.testing.assert_close(ours.diversity(x), expected)
    torch.testing.assert_close(ancestor.diversity(x), expected, rtol=2e-2, atol=0)
    torch.save({"lin0.model.1.weight": torch.ones(1, 64, 1, 1)}, tmp_path / "lpips_alex")
    with pytest.raises(WeightsError, match="4 of 5 expected tensors do not fit"):
        trained_lpips("lpips_alex")


@pytest.mark.parametrize("name", ["lpips_stargan_v2", "lpips_alex"])
def test_rows_of_a_group_are_those_by_hand(measure: LPIPS, name: str) -> None:
    """Floats are averaged by batches, bytes by sources; the two differ."""
    outputs = 1.5 * drawn(3, 3)  # a batch of two sources, and one of one
    made, of_bytes = LPIPS(name, measure.layers, measure.learnt), name == "lpips_alex"
    rows = lpips(group(outputs, blocks=lambda _: iter(torch.split(outputs, 2))), [made], seed=5)
    assert [row["direction"] for row in rows] == ["female to male", "male to female", "mean"]
    x = images.to_floats(images.to_bytes(outputs)) if of_bytes else outputs
    each = torch.stack([pair(made, x[:, i], x[:, j]) for i, j in combinations(range(3), 2)]).mean(0)
    expected = float(each.mean()) if of_bytes else float((each[:2].mean() + each[2]) / 2)
    wide = 1.96 * float(each.std()) / 3**0.5
    assert rows[0]["value"] == pytest.approx(expected, rel=1e-5)
    assert rows[0]["ci_high"] - rows[0]["value"] == pytest.approx(wide, rel=1e-4)
    assert rows[2]["ci_high"] - rows[2]["value"] == pytest.approx(wide / 2**0.5, rel=1e-4)
    assert [row["n"] for row in rows] == [3, 3, 6]


def test_sources_with_one_output_are_missing(measure: LPIPS) -> None:
    rows = lpips(group(drawn(3, 1)), [measure], seed=0)
    assert [(row["samples"], "value" in row) for row in rows] == [(3, False)] * 2
    assert "expected 2 or more" in rows[0]["reason"]


# The published learnt layers


@pytest.fixture(scope="module")
def learnt(real_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Tensor]]:
    """The published layers, read and checked as in use."""
    cache = tmp_path_factory.mktemp("weights")
    for name, place in PLACES.items():
        (cache / name).mkdir()
        source = real_corpus / "weights" / place
        shutil.copyfile(source, cache / name / source.name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XFAVOT_WEIGHTS", str(cache))
        return {name: images.learnt_layers(name) for name in PLACES}


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


def test_learnt_layers_of_both_are_the_same(learnt: dict[str, list[Tensor]]) -> None:
    for one, other in zip(*learnt.values(), strict=True):
        assert torch.equal(one, other)
        assert float(one.min()) >= 0


def test_community(
    layers: nn.Sequential, learnt: dict[str, list[Tensor]], faces: Tensor, real_corpus: Path
) -> None:
    theirs = by_package(layers, real_corpus / "weights" / PLACES["lpips_alex"])
    made = LPIPS("lpips_alex", layers, learnt["lpips_alex"])
    x = images.to_floats(images.to_bytes(faces))
    pairs = list(combinations(range(OUTPUTS), 2))
    with torch.no_grad():
        expected = [theirs(x[:, i], x[:, j]).flatten() for i, j in pairs]
    torch.testing.assert_close(pair(made, x[:, 0], x[:, 1]), expected[0], rtol=1e-5, atol=0)
    assert 0.01 < float(expected[0][0]) < 2
    mean = torch.stack(expected).mean(0)
    torch.testing.assert_close(made.diversity(faces), mean, rtol=1e-5, atol=0)
    assert float(mean[1]) < 0.05 * float(mean[0])  # nearly equal outputs do not cancel


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
    made = LPIPS("lpips_stargan_v2", layers, own)
    pairs = list(combinations(range(4), 2))
    expected = torch.stack([by_ancestor(layers, own, faces[:, i], faces[:, j]) for i, j in pairs])
    found = pair(made, faces[:, 0], faces[:, 1])
    torch.testing.assert_close(found.double(), expected[0], rtol=1e-5, atol=0)
    found = made.diversity(faces[:, :4])
    torch.testing.assert_close(found.double(), expected.mean(0), rtol=1e-5, atol=0)
