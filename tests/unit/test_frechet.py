"""Streaming moments and the Frechet distance: hand-computed values, deficient ranks, faults."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from xfavot.errors import DataError
from xfavot.evaluation.images import Moments, frechet_distance, kept_moments, trace_of_root


def drawn(count: int, dims: int, *, seed: int, rank: int | None = None) -> Tensor:
    """(count, dims) float64, correlated, of a rank, away from zero."""
    generator = torch.Generator().manual_seed(seed)
    rank = rank or dims
    mixing = torch.randn(rank, dims, generator=generator, dtype=torch.float64)
    mixing *= torch.logspace(0, -1.5, rank, dtype=torch.float64)[:, None]
    x = torch.randn(count, rank, generator=generator, dtype=torch.float64)
    return x @ mixing + seed


def moments_of(x: Tensor, *, batch: int = 7) -> Moments:
    moments = Moments(x.shape[1])
    for part in torch.split(x, batch):
        moments.add(part)
    return moments


def nuclear_norm(a: Tensor, b: Tensor) -> float:
    """The trace of the root from the features themselves, without a covariance."""
    a, b = a - a.mean(0), b - b.mean(0)
    scale = ((len(a) - 1) * (len(b) - 1)) ** 0.5
    return float(torch.linalg.svdvals(a @ b.T).sum()) / scale


@pytest.mark.parametrize("batch", [1, 7, 100])
def test_moments_are_those_of_numpy(batch: int) -> None:
    x = drawn(100, 12, seed=3)
    moments = moments_of(x, batch=batch)
    assert moments.count == 100
    np.testing.assert_allclose(moments.mean.numpy(), x.numpy().mean(0), rtol=1e-13)
    expected = np.cov(x.numpy(), rowvar=False)
    np.testing.assert_allclose(moments.covariance().numpy(), expected, rtol=0, atol=1e-13 * 12)


def test_moments_far_from_zero_lose_no_digits() -> None:
    x = drawn(500, 6, seed=0)
    found = moments_of(x + 1e7).covariance().numpy()
    np.testing.assert_allclose(found, np.cov(x.numpy(), rowvar=False), rtol=1e-6, atol=1e-7)


def test_moments_merge() -> None:
    x = drawn(90, 5, seed=1)
    whole, parts = moments_of(x), Moments(5)
    for part in (x[:1], x[1:40], x[40:40], x[40:]):
        parts.merge(moments_of(part))
    assert parts.count == whole.count
    torch.testing.assert_close(parts.mean, whole.mean, rtol=1e-12, atol=0)
    torch.testing.assert_close(parts.scatter, whole.scatter, rtol=1e-11, atol=1e-11)


def test_features_stay_as_they_were() -> None:
    x = drawn(10, 3, seed=5)
    before = x.clone()
    moments_of(x, batch=10)
    assert torch.equal(x, before)


def test_one_feature_by_hand() -> None:
    a = torch.tensor([[0.0], [2.0]])  # mean 1, variance 2
    b = torch.tensor([[1.0], [5.0], [9.0]])  # mean 5, variance 16
    expected = (1 - 5) ** 2 + (2**0.5 - 4) ** 2
    assert frechet_distance(moments_of(a), moments_of(b)) == pytest.approx(expected, rel=1e-12)


def test_distance_of_a_set_to_itself() -> None:
    x = drawn(40, 9, seed=2)
    assert frechet_distance(moments_of(x), moments_of(x.flip(0))) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("counts", "ranks"),
    [
        ((200, 150), (None, None)),
        ((200, 20), (None, None)),  # fewer images than features in one set
        ((20, 200), (None, None)),
        ((20, 30), (None, None)),  # in both
        ((41, 40), (None, None)),  # by one
        ((200, 150), (10, None)),  # features that depend on each other
        ((200, 150), (10, 25)),
        ((200, 2), (None, None)),
    ],
)
def test_trace_of_the_root(counts: tuple[int, int], ranks: tuple[int | None, int | None]) -> None:
    a, b = (
        drawn(n, 40, seed=s, rank=r) for s, (n, r) in enumerate(zip(counts, ranks, strict=True))
    )
    found = trace_of_root(moments_of(a).covariance(), moments_of(b).covariance())
    assert found == pytest.approx(nuclear_norm(a, b), rel=1e-8)
    turned = trace_of_root(moments_of(b).covariance(), moments_of(a).covariance())
    assert turned == pytest.approx(found, rel=1e-8)


def test_trace_of_the_root_by_scipy() -> None:
    linalg = pytest.importorskip("scipy.linalg")
    a, b = (moments_of(drawn(300, 64, seed=seed)).covariance() for seed in (1, 2))
    expected = np.trace(linalg.sqrtm(a.numpy() @ b.numpy())).real
    assert trace_of_root(a, b) == pytest.approx(expected, rel=1e-9)


def test_images_all_alike() -> None:
    alike, others = torch.ones(5, 8, dtype=torch.float64), drawn(30, 8, seed=1)
    found = frechet_distance(moments_of(alike), moments_of(others))
    own = moments_of(others)
    expected = float((own.mean - 1).square().sum() + own.covariance().trace())
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_images(count: int) -> None:
    one, many = moments_of(drawn(count, 4, seed=1)), moments_of(drawn(9, 4, seed=2))
    with pytest.raises(DataError, match=f"covariance of {count} images; expected 2"):
        frechet_distance(one, many)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_features_not_finite(value: float) -> None:
    moments = moments_of(drawn(4, 3, seed=1))
    x = drawn(5, 3, seed=2)
    x[2, 1] = value
    with pytest.raises(DataError, match="1 of 5 images are not finite, first those of image 6"):
        moments.add(x)
    assert moments.count == 4


@pytest.mark.parametrize(
    "features", [torch.zeros(2, 4), torch.zeros(3), torch.zeros(2, 3, dtype=torch.uint8)]
)
def test_features_of_another_kind(features: Tensor) -> None:
    with pytest.raises(DataError, match="one vector of 3 an image"):
        Moments(3).add(features)


def test_other_lengths_and_types() -> None:
    a, b = moments_of(drawn(9, 4, seed=1)), moments_of(drawn(9, 5, seed=1))
    for refused in (lambda: frechet_distance(a, b), lambda: a.merge(b)):
        with pytest.raises(DataError, match="moments of 4 and of 5 features"):
            refused()
    with pytest.raises(DataError, match="float64"):
        trace_of_root(a.covariance().float(), a.covariance().float())
    with pytest.raises(DataError, match="two square ones of one size"):
        trace_of_root(a.covariance(), b.covariance())


BASIS = {"extractor": "fid", "images": "abc", "image_size": 128}


def never() -> Moments:
    raise AssertionError("counted again")


def test_kept_statistics(tmp_path: Path) -> None:
    lines: list[str] = []
    made = moments_of(drawn(30, 6, seed=4))
    kept_moments(tmp_path / "real", BASIS, lambda: made, on_log=lines.append)
    read = kept_moments(
        tmp_path / "real", dict(reversed(BASIS.items())), never, on_log=lines.append
    )
    assert read.count == made.count
    assert torch.equal(read.mean, made.mean)
    assert torch.equal(read.scatter, made.scatter)
    read.add(drawn(3, 6, seed=5))  # goes on from there
    assert ["kept in" in line for line in lines] == [True, False]
    other = moments_of(drawn(9, 6, seed=5))
    assert kept_moments(tmp_path / "real", {**BASIS, "images": "abd"}, lambda: other) is other
    assert len(list((tmp_path / "real").iterdir())) == 2


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-8])


def spoil(file: Path) -> None:
    from safetensors.torch import load_file, save_file

    save_file({**load_file(file), "scatter": torch.zeros(2, 2)}, file)


@pytest.mark.parametrize("damage", [cut, spoil, lambda file: file.write_bytes(b"")])
def test_kept_statistics_that_are_damaged(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    kept_moments(tmp_path, BASIS, lambda: moments_of(drawn(30, 6, seed=4)))
    (file,) = tmp_path.iterdir()
    damage(file)
    with pytest.raises(DataError, match=r"are damaged .* delete the file"):
        kept_moments(tmp_path, BASIS, never)


def test_kept_statistics_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be written"):
        kept_moments(tmp_path / "file", BASIS, never)  # refused before anything is counted


def test_kept_statistics_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(tensors: object, draft: Path, metadata: object) -> None:
        draft.write_bytes(b"part")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("xfavot.evaluation.images.save_file", full)
    with pytest.raises(DataError, match="No space left on device"):
        kept_moments(tmp_path, BASIS, lambda: moments_of(drawn(9, 3, seed=4)))
    assert not list(tmp_path.iterdir())
