"""FID: distances by hand, images as a network sees them, rows of a group, what is kept, faults."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from xfavot.errors import DataError, WeightsError
from xfavot.evaluation import images
from xfavot.evaluation.images import Extractor, fid, to_bytes, to_floats
from xfavot.evaluation.manifest import Faces

fid_module = pytest.importorskip("torchmetrics.image.fid")
DIMS = 6


def drawn(count: int, dims: int, *, seed: int, rank: int | None = None) -> Tensor:
    """(count, dims) float64, correlated, of a rank, away from zero."""
    generator = torch.Generator().manual_seed(seed)
    rank = rank or dims
    mixing = torch.randn(rank, dims, generator=generator, dtype=torch.float64)
    mixing *= torch.logspace(0, -1.5, rank, dtype=torch.float64)[:, None]
    x = torch.randn(count, rank, generator=generator, dtype=torch.float64)
    return x @ mixing + seed


def pictures(count: int, side: int, *, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, side, side), generator=generator, dtype=torch.uint8)


class Features(nn.Module):
    """Features that are there already."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.num_features = dims

    def forward(self, x: Tensor) -> Tensor:
        return x


def distance(a: Tensor, b: Tensor) -> float:
    """FID of features (n, d) and (m, d), as this package has torchmetrics compute it."""
    metric = fid_module.FrechetInceptionDistance(feature=Features(a.shape[1]))
    for x, real in ((a, True), (b, False)):
        for part in torch.split(x.double(), 32):
            metric.update(part, real=real)
    return float(metric.compute())


def test_one_feature_by_hand() -> None:
    a = torch.tensor([[0.0], [2.0]])  # mean 1, variance 2
    b = torch.tensor([[1.0], [5.0], [9.0]])  # mean 5, variance 16
    assert distance(a, b) == pytest.approx((1 - 5) ** 2 + (2**0.5 - 4) ** 2, rel=1e-12)


@pytest.mark.parametrize(
    ("counts", "ranks"),
    [
        ((200, 150), (None, None)),
        ((200, 20), (None, None)),  # fewer images than features in one set
        ((20, 30), (None, None)),  # in both
        ((200, 150), (10, 25)),  # features that depend on each other
    ],
)
def test_distance_by_the_features_themselves(
    counts: tuple[int, int], ranks: tuple[int | None, int | None]
) -> None:
    a, b = (
        drawn(n, 40, seed=s, rank=r) for s, (n, r) in enumerate(zip(counts, ranks, strict=True))
    )
    x, y = ((one - one.mean(0)) / (len(one) - 1) ** 0.5 for one in (a, b))
    expected = (a.mean(0) - b.mean(0)).square().sum() + x.square().sum() + y.square().sum()
    expected -= 2 * torch.linalg.svdvals(x @ y.T).sum()
    assert distance(a, b) == pytest.approx(float(expected), rel=1e-6)
    assert distance(b, a) == pytest.approx(float(expected), rel=1e-6)


def network(x: Tensor) -> Tensor:
    return nn.functional.adaptive_avg_pool2d(x, (1, DIMS // 3)).flatten(1)


def extractor(run: Callable[[Tensor], Tensor] = network, **changes: Any) -> Extractor:
    given = {"num_features": DIMS, "fingerprint": "1"}
    return Extractor("a stub", "a stub; no FID", run, to_floats, **(given | changes))


def group(made: Tensor | None = None, known: Tensor | None = None, **changes: Any) -> Faces:
    """Outputs (n, K, 3, H, W), the same in both directions, and real faces."""
    outputs = torch.randn(10, 3, 3, 16, 16) * 0.6 if made is None else made
    known = pictures(40, 16) if known is None else known
    given: dict[str, Any] = {
        "names": {"system": "ours", "task": "i2i", "dataset": "toy"},
        "directions": {"female to male": "male", "male to female": "female"},
        "blocks": lambda _: iter(torch.split(outputs, 4)),
        "real": lambda sex: iter(torch.split(known if sex == "male" else 255 - known, 13)),
    }
    return Faces(**(given | changes))


def test_rows_of_a_group_are_those_by_hand() -> None:
    outputs = torch.randn(10, 3, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    rows = fid(group(outputs), [extractor()], seed=5)
    assert [row["direction"] for row in rows] == ["female to male", "male to female", "mean"]
    assert [row["sex"] for row in rows] == ["male", "female", ""]
    assert [(row["n"], row["n_real"]) for row in rows] == [(30, 40), (30, 40), (60, 80)]
    saved = ((outputs + 1) / 2).clamp(0, 1).mul(255).add(0.5).floor() / 127.5 - 1
    for row, real in zip(rows, (pictures(40, 16), 255 - pictures(40, 16)), strict=False):
        expected = distance(network(real / 127.5 - 1), network(saved.flatten(0, 1)))
        assert row["value"] == pytest.approx(expected, rel=1e-5)
        assert (row["definition"], row["seed"]) == ("a stub; no FID", 5)
    assert rows[2]["value"] == pytest.approx((rows[0]["value"] + rows[1]["value"]) / 2)


def test_too_few_images_are_missing_with_a_reason() -> None:
    for made, real in ((torch.zeros(1, 1, 3, 9, 9), None), (None, pictures(1, 9))):
        rows = fid(group(made, real), [extractor()], seed=0)
        assert [row["metric"] for row in rows] == ["a stub"] * 2
        assert all("expected 2 of both" in row["reason"] and "value" not in row for row in rows)


def test_real_faces_are_seen_once() -> None:
    measure = extractor()
    first = fid(group(real_key="toy"), [measure], seed=0)

    def never(sex: str) -> Iterator[Tensor]:
        raise AssertionError("counted again")

    again = fid(group(real_key="toy", real=never), [measure], seed=0)
    assert [row["n_real"] for row in again] == [row["n_real"] for row in first]
    for key in ("others", ""):  # without a name they are never taken for those seen before
        with pytest.raises(AssertionError, match="counted again"):
            fid(group(real_key=key, real=never), [measure], seed=0)


def test_features_that_are_not_finite() -> None:
    broken = extractor(lambda x: network(x).masked_fill(x.mean((1, 2, 3))[:, None] > 0, torch.nan))
    with pytest.raises(DataError, match=r"features of \d+ of 13 images are not finite"):
        fid(group(), [broken], seed=0)
    assert extractor()(pictures(0, 8)).shape == (0, DIMS)


@pytest.mark.parametrize(("side", "size"), [(128, 128), (96, 64), (320, 128)])
def test_input_of_stargan_v2_is_that_of_torchvisions_transforms(side: int, size: int) -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    image_module = pytest.importorskip("PIL.Image")
    chain = transforms.Compose(
        [
            transforms.Resize([size, size]),
            transforms.Resize([299, 299]),
            transforms.ToTensor(),
            transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
        ]
    )
    x = pictures(2, side)
    expected = [chain(image_module.fromarray(one.permute(1, 2, 0).numpy())) for one in x]
    found = images.stargan_v2_input(x, size)
    torch.testing.assert_close(found, torch.stack(expected), rtol=0, atol=1e-6)


def test_bytes_are_those_that_torchvision_saves(tmp_path: Path) -> None:
    save_image = pytest.importorskip("torchvision.utils").save_image
    image_module = pytest.importorskip("PIL.Image")
    x = torch.randn(3, 50, 40) * 0.8  # beyond [-1, 1] here and there
    save_image((x + 1) / 2, tmp_path / "x.png")
    saved = np.asarray(image_module.open(tmp_path / "x.png"))
    assert np.array_equal(to_bytes(x).permute(1, 2, 0).numpy(), saved)
    assert to_floats(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1, 1]


def test_every_missing_metric_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XFAVOT_OFFLINE", raising=False)
    sets = {
        "fid": {"fid_stargan_v2": "inception_torchvision", "fid_pytorch": "inception_fid"},
        "lpips": {"lpips_stargan_v2": "lpips_stargan_v2", "lpips_alex": "alexnet"},
    }
    for family, metrics in sets.items():
        found, missing = images.networks(family, image_size=64, cache=tmp_path)
        assert not found
        assert missing.keys() == metrics.keys()
        for metric, name in metrics.items():
            assert f"python -m xfavot.cli fetch-weights {name}" in missing[metric]
            assert "licence: " in missing[metric]


@pytest.fixture(scope="module")
def networks() -> dict[str, nn.Module]:
    pytest.importorskip("torchvision")
    pytest.importorskip("pytorch_fid")
    torch.manual_seed(0)
    return {
        "inception_torchvision": images.imagenet_inception(),
        "inception_fid": images.tensorflow_inception(),
    }


@pytest.mark.parametrize("name", ["inception_torchvision", "inception_fid"])
def test_weights_are_those_of_the_file(
    name: str, networks: dict[str, nn.Module], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xfavot.weights.fetched.path", lambda name, cache=None: tmp_path / name)
    make = images.pytorch_fid
    if name == "inception_torchvision":
        make = lambda: images.fid_stargan_v2(image_size=64)  # noqa: E731
    state = networks[name].state_dict()
    older = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    torch.save(older, tmp_path / name)
    made = make()
    inputs: list[Tensor] = []
    hook = networks[name].fc.register_forward_pre_hook(lambda m, given: inputs.append(given[0]))
    x = pictures(2, 64)
    with torch.no_grad():
        networks[name](made.prepare(x))
    hook.remove()
    found = made(x)
    assert found.shape == (2, 2048)
    torch.testing.assert_close(found.float(), inputs[0])
    assert float(found.std()) > 0
    assert made.definition == images.FID_DEFINITIONS[made.metric]
    branch = "Mixed_7c.branch1x1.conv.weight"
    torch.save({**state, branch: state[branch][:7], "more": state[branch]}, tmp_path / name)
    with pytest.raises(WeightsError, match=r"2 of .* expected tensors do not fit"):
        make()
