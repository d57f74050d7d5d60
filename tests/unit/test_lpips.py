"""LPIPS with random networks: pairs by hand, the closed form, sizes, missing weights."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.unit.test_frechet import group
from xfavot.errors import ShapeError, WeightsError
from xfavot.evaluation import images
from xfavot.evaluation.images import (
    LPIPS,
    alexnet_layers,
    lpips,
    to_bytes,
    to_floats,
    unit_package,
    unit_stargan_v2,
)


@pytest.fixture(scope="module")
def measure() -> LPIPS:
    pytest.importorskip("torchvision")
    torch.manual_seed(0)
    learnt = [torch.rand(1, channels, 1, 1) for channels in images.CHANNELS]
    return LPIPS("lpips_alex", alexnet_layers(), learnt, unit_package)


def faces(*shape: int, apart: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    one = torch.rand(1, 3, 40, 40, generator=generator) * 2 - 1
    return (one + apart * torch.randn(*shape, 3, 40, 40, generator=generator)).clamp(-1, 1)


def test_one_layer_by_hand() -> None:
    class Same(nn.ReLU):
        """A map that is its input."""

        def forward(self, input: Tensor) -> Tensor:
            return input

    made = LPIPS(
        "by hand",
        nn.Sequential(Same()),
        [torch.tensor([1.0, 2, 0])],
        unit_stargan_v2,
        definition="one layer",
    )
    a, b = torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 32, 32)
    for image, direction in ((a, (3.0, 4, 0)), (b, (0.0, 0, 5))):
        colour = torch.tensor(direction) * torch.tensor(made.scale) + torch.tensor(made.shift)
        image[0] = colour[:, None, None]
    expected = 1 * 0.6**2 + 2 * 0.8**2  # unit vectors (.6, .8, 0) and (0, 0, 1)
    assert float(made(a, b)) == pytest.approx(expected, rel=1e-5)
    assert float(made.diversity(torch.stack([a, b], dim=1))) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("unit", [unit_package, unit_stargan_v2])
def test_unit_length_and_empty_places(unit: images.Unit) -> None:
    maps = torch.randn(2, 5, 3, 3)
    maps[:, :, 0, 0] = 0
    length = unit(maps).square().sum(1).sqrt()
    expected = torch.ones(2, 3, 3)
    expected[:, 0, 0] = 0
    torch.testing.assert_close(length, expected)


@pytest.mark.parametrize("apart", [1.0, 0.02])  # nearly equal outputs must not cancel
def test_diversity_is_the_mean_of_all_pairs(measure: LPIPS, apart: float) -> None:
    x = faces(3, 4, apart=apart)
    pairs = [measure(x[:, i], x[:, j]) for i, j in combinations(range(4), 2)]
    assert float(pairs[0].min()) > 0
    torch.testing.assert_close(
        measure.diversity(x), torch.stack(pairs).mean(0), rtol=1e-5, atol=1e-8
    )


def test_diversity_does_not_depend_on_the_portion(
    measure: LPIPS, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = faces(5, 3)
    whole = measure.diversity(x)
    monkeypatch.setattr(images, "LPIPS_AT_ONCE", 6)
    torch.testing.assert_close(measure.diversity(x), whole, rtol=1e-5, atol=0)
    assert measure.diversity(x[:0]).shape == (0,)


def test_equal_images_and_symmetry(measure: LPIPS) -> None:
    a, b = faces(2), faces(4)[2:]
    assert measure(a, a).tolist() == [0, 0]
    torch.testing.assert_close(measure(a, b), measure(b, a))
    assert float(measure.diversity(a[:1, None].expand(1, 5, -1, -1, -1))) == pytest.approx(0)


def test_images_that_are_too_small(measure: LPIPS) -> None:
    with pytest.raises(ShapeError, match="31 pixels a side"):
        measure(faces(2)[..., :30], faces(2)[..., :30])


def test_smallest_images(measure: LPIPS) -> None:
    x = faces(1, 3)[..., : images.FEWEST_PIXELS, : images.FEWEST_PIXELS]
    assert float(measure.diversity(x)) > 0


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
    monkeypatch.setattr("xfavot.weights.fetched.path", lambda name, cache=None: tmp_path / name)
    x = faces(2, 3)
    expected = LPIPS("lpips_alex", network.features, learnt, unit_package).diversity(x)
    ours, ancestor = images.trained_lpips("lpips_alex"), images.trained_lpips("lpips_stargan_v2")
    torch.testing.assert_close(ours.diversity(x), expected)
    torch.testing.assert_close(ancestor.diversity(x), expected, rtol=1e-3, atol=0)
    assert (ours.of_bytes, ours.over_batches) == (True, False)
    assert (ancestor.of_bytes, ancestor.over_batches) == (False, True)
    torch.save({"lin0.model.1.weight": torch.ones(1, 64, 1, 1)}, tmp_path / "lpips_alex")
    with pytest.raises(WeightsError, match="4 of 5 expected tensors do not fit"):
        images.trained_lpips("lpips_alex")


@pytest.mark.parametrize("of_bytes", [False, True])
def test_rows_of_a_group_are_those_by_hand(measure: LPIPS, of_bytes: bool) -> None:
    """Floats are averaged by batches, bytes by sources; the two differ."""
    outputs = 1.5 * faces(3, 3)  # a batch of two sources, and one of one
    name = "lpips_alex" if of_bytes else "lpips_stargan_v2"
    made = LPIPS(
        name,
        measure.layers,
        list(measure.learnt),
        unit_package,
        of_bytes=of_bytes,
        over_batches=not of_bytes,
    )
    rows = lpips(group(outputs, blocks=lambda _: iter(torch.split(outputs, 2))), [made], seed=5)
    assert [row["direction"] for row in rows] == ["female to male", "male to female", "mean"]
    x = to_floats(to_bytes(outputs)) if of_bytes else outputs
    pairs = [made(x[:, i], x[:, j]) for i, j in combinations(range(3), 2)]
    each = torch.stack(pairs).mean(0)
    expected = float(each.mean()) if of_bytes else float((each[:2].mean() + each[2]) / 2)
    wide = 1.96 * float(each.std()) / 3**0.5
    assert rows[0]["value"] == pytest.approx(expected, rel=1e-5)
    assert rows[0]["ci_high"] - rows[0]["value"] == pytest.approx(wide, rel=1e-4)
    assert rows[2]["ci_high"] - rows[2]["value"] == pytest.approx(wide / 2**0.5, rel=1e-4)
    assert [row["n"] for row in rows] == [3, 3, 6]


def test_sources_with_one_output_are_missing(measure: LPIPS) -> None:
    rows = lpips(group(faces(3, 1)), [measure], seed=0)
    assert [(row["samples"], "value" in row) for row in rows] == [(3, False)] * 2
    assert "expected 2 or more" in rows[0]["reason"]
