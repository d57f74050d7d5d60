"""FID against pytorch-fid's own functions and network and the ancestor's blocks; rows, faults."""

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


def distance(a: Tensor, b: Tensor) -> float:
    """FID of features (n, d) and (m, d), as this package has torchmetrics compute it."""
    feature: Any = nn.Identity()
    feature.num_features = a.shape[1]
    metric = fid_module.FrechetInceptionDistance(feature)
    for x, real in ((a, True), (b, False)):
        for part in torch.split(x.double(), 32):
            metric.update(part, real=real)
    return float(metric.compute())


def by_pytorch_fid(a: Tensor, b: Tensor) -> float:
    score = pytest.importorskip("pytorch_fid.fid_score")
    sides: list[Any] = []
    for x in (a.double().numpy(), b.double().numpy()):
        sides += [np.mean(x, axis=0), np.cov(x, rowvar=False)]
    return float(score.calculate_frechet_distance(*sides))


def test_one_feature_by_hand() -> None:
    a = torch.tensor([[0.0], [2.0]])  # mean 1, variance 2
    b = torch.tensor([[1.0], [5.0], [9.0]])  # mean 5, variance 16
    assert distance(a, b) == pytest.approx((1 - 5) ** 2 + (2**0.5 - 4) ** 2, rel=1e-12)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("counts", "ranks"),
    [
        ((400, 300), (None, None)),
        ((400, 90), (None, None)),  # barely more images than features
        ((400, 30), (None, None)),  # fewer in one set
        ((30, 20), (None, None)),  # in both
        ((400, 300), (12, 20)),  # features that depend on each other
    ],
)
def test_distance(counts: tuple[int, int], ranks: tuple[int | None, int | None]) -> None:
    a, b = (
        drawn(n, 80, seed=s, rank=r) for s, (n, r) in enumerate(zip(counts, ranks, strict=True))
    )
    assert distance(a, b) == pytest.approx(by_pytorch_fid(a, b), rel=1e-6)


def network(x: Tensor) -> Tensor:
    return nn.functional.adaptive_avg_pool2d(x, (1, DIMS // 3)).flatten(1)


def extractor(run: Callable[[Tensor], Tensor] = network) -> Extractor:
    return Extractor("a stub", "a stub; no FID", run, to_floats, num_features=DIMS)


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
    monkeypatch.setenv("XFAVOT_WEIGHTS", str(tmp_path))
    sets = {
        "fid": {"fid_stargan_v2": "inception_torchvision", "fid_pytorch": "inception_fid"},
        "lpips": {"lpips_stargan_v2": "lpips_stargan_v2", "lpips_alex": "alexnet"},
    }
    for family, metrics in sets.items():
        found, missing = images.networks(family, image_size=64)
        assert not found
        assert missing.keys() == metrics.keys()
        for metric, name in metrics.items():
            assert f"python -m xfavot.cli fetch-weights {name}" in missing[metric]
            assert "licence: " in missing[metric]


# Both Inceptions with random weights, whole, as a user gets them from files


@pytest.fixture(scope="module")
def networks() -> dict[str, nn.Module]:
    pytest.importorskip("torchvision")
    pytest.importorskip("pytorch_fid")
    torch.manual_seed(1)
    return {name: build() for name, build in images.FID_WEIGHTS.values()}


@pytest.fixture(scope="module")
def cache(networks: dict[str, nn.Module], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inceptions")
    for name, one in networks.items():  # older files lack the counters
        state = {k: v for k, v in one.state_dict().items() if not k.endswith("num_batches_tracked")}
        torch.save(state, folder / name)
    return folder


@pytest.fixture
def made(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Extractor]:
    monkeypatch.setattr("xfavot.weights.fetched.path", lambda name: cache / name)
    return lambda metric: images.trained_extractor(metric, 64)


@pytest.mark.filterwarnings("ignore")
def test_network_of_pytorch_fid(
    networks: dict[str, nn.Module],
    made: Callable[[str], Extractor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    package = pytest.importorskip("pytorch_fid.inception")
    state = networks["inception_fid"].state_dict()
    monkeypatch.setattr(package, "load_state_dict_from_url", lambda *a, **k: state)
    theirs = package.InceptionV3().eval()
    x = pictures(2, 64, seed=2)
    with torch.no_grad():
        expected = theirs(x.float() / 255)[0][:, :, 0, 0]
    found = made("fid_pytorch")(x).float()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert float(expected.std(0).mean()) > 0
    a = found[:, ::32]  # its root of all 2048, of a low rank, takes minutes
    b = a.flip(1) * 1.3
    assert distance(a, b) == pytest.approx(by_pytorch_fid(a, b), rel=1e-6)


def test_network_of_the_ancestor(
    networks: dict[str, nn.Module], made: Callable[[str], Extractor], cache: Path
) -> None:
    network = networks["inception_torchvision"]
    blocks = dict(network.named_children())
    pool = nn.MaxPool2d(3, stride=2)
    before = [blocks[f"Conv2d_{name}"] for name in ("1a_3x3", "2a_3x3", "2b_3x3")]
    between = [blocks[f"Conv2d_{name}"] for name in ("3b_1x1", "4a_3x3")]
    mixed = [module for name, module in blocks.items() if name.startswith("Mixed")]
    theirs = nn.Sequential(*before, pool, *between, pool, *mixed, nn.AdaptiveAvgPool2d(1))
    extractor = made("fid_stargan_v2")
    x = pictures(2, 64, seed=3)
    with torch.no_grad():
        expected = theirs(extractor.prepare(x)).flatten(1)
    assert expected.shape == (2, 2048)
    torch.testing.assert_close(extractor(x).float(), expected, rtol=1e-5, atol=1e-6)
    state, branch = network.state_dict(), "Mixed_7c.branch1x1.conv.weight"
    odd = {**state, branch: state[branch][:7], "more": state[branch]}
    torch.save(odd, cache / "inception_torchvision")
    with pytest.raises(WeightsError, match=r"2 of .* expected tensors do not fit"):
        made("fid_stargan_v2")
