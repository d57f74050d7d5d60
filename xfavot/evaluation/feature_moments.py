"""Mean and covariance of features, added up as batches of images come.

Memory does not grow with the number of images: d features take d x d sums in float64. Sums are kept
about the running mean (Chan, Golub and LeVeque), so that features far from zero lose no digits.
Statistics of real images are kept on disk under a hash of everything that they follow from.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from xfavot.errors import DataError

FEWEST = 2  # images that have a covariance
SHAPES = {"count": 0, "mean": 1, "scatter": 2}  # axes of the tensors of a file

Basis = Mapping[str, str | int | float]
Log = Callable[[str], None]


class Moments:
    """Count, mean and scatter of feature vectors.

    Args:
        dims: length of a vector.

    Attributes:
        count: vectors so far.
        mean: (d,) float64.
        scatter: (d, d) float64, the sum of the outer products of what differs from the mean.
    """

    def __init__(self, dims: int) -> None:
        """Start with nothing."""
        self.count = 0
        self.mean = torch.zeros(dims, dtype=torch.float64)
        self.scatter = torch.zeros(dims, dims, dtype=torch.float64)

    def add(self, features: Tensor) -> None:
        """Add a batch.

        Args:
            features: (n, d), any floating type and device; none is a batch, too.

        Raises:
            DataError: another shape or type, or a value that is not finite.
        """
        dims = len(self.mean)
        if features.dim() != 2 or features.shape[1] != dims or not features.is_floating_point():
            raise DataError(
                f"features are {features.dtype} of shape {tuple(features.shape)}; expected "
                f"floating point, one vector of {dims} an image; check the extractor"
            )
        x = features.detach().to("cpu", torch.float64)
        bad = (~x.isfinite().all(1)).nonzero().flatten()
        if len(bad):
            raise DataError(
                f"the features of {len(bad)} of {len(x)} images are not finite, first those of "
                f"image {self.count + int(bad[0])}; expected finite numbers; look at that image "
                "and at the precision of the extractor"
            )
        if not len(x):
            return
        mean = x.mean(0)
        self._shift(len(x), mean)
        apart = x - mean
        self.scatter.addmm_(apart.T, apart)

    def merge(self, other: Moments) -> None:
        """Add all that another one has seen.

        Raises:
            DataError: its vectors have another length.
        """
        require_alike(self, other)
        if other.count:
            self._shift(other.count, other.mean)
            self.scatter += other.scatter

    def covariance(self) -> Tensor:
        """Return the covariance (d, d) with n - 1 in the denominator, as `numpy.cov` does.

        Raises:
            DataError: fewer than two vectors.
        """
        if self.count < FEWEST:
            raise DataError(
                f"a covariance of {self.count} images; expected {FEWEST} at least, and more than "
                f"the {len(self.mean)} features for a full one; score more images"
            )
        return self.scatter / (self.count - 1)

    def _shift(self, count: int, mean: Tensor) -> None:
        """Move the mean to that of both parts; the scatter within the new one is not added."""
        total, apart = self.count + count, mean - self.mean
        self.scatter.addr_(apart, apart, alpha=self.count * count / total)
        self.mean.add_(apart, alpha=count / total)
        self.count = total


def require_alike(a: Moments, b: Moments) -> None:
    """Refuse moments of features of different lengths."""
    if len(a.mean) != len(b.mean):
        raise DataError(
            f"moments of {len(a.mean)} and of {len(b.mean)} features; expected those of one "
            "extractor; extract both sides again with the same one"
        )


def kept_moments(
    folder: str | os.PathLike[str],
    basis: Basis,
    count: Callable[[], Moments],
    *,
    on_log: Log | None = None,
) -> Moments:
    """Read kept statistics, or count them and keep them.

    Args:
        folder: of kept statistics; made if it is not there.
        basis: all that they follow from, such as the extractor's fingerprint, the images' digest
            and their size; other values mean another file.
        count: goes through the images; called only if nothing is kept.
        on_log: told which of the two was done.

    Returns:
        The statistics.

    Raises:
        DataError: the kept file is damaged, or a new one cannot be written.
    """
    text = json.dumps(dict(basis), sort_keys=True, separators=(",", ":"), allow_nan=False)
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    file = Path(folder, f"moments_{key}.safetensors")
    say = on_log or (lambda _: None)
    if file.exists():
        moments = _load(file, text)
        say(f"statistics of {moments.count} images read from {file}")
        return moments
    _write(file, lambda: file.parent.mkdir(parents=True, exist_ok=True))  # before hours are spent
    moments = count()
    _write(file, lambda: _save(moments, file, text))
    say(f"statistics of {moments.count} images kept in {file}")
    return moments


def _load(file: Path, text: str) -> Moments:
    """Read a file and check that it is the one that was written."""
    try:
        with safe_open(file, framework="pt") as stored:
            about = (stored.metadata() or {}).get("basis")
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        if about != text or {name: x.dim() for name, x in tensors.items()} != SHAPES:
            raise ValueError(f"it holds {sorted(tensors)} on {about}")
        mean, scatter = tensors["mean"], tensors["scatter"]
        if scatter.shape != (len(mean), len(mean)) or not bool(scatter.isfinite().all()):
            raise ValueError(f"the scatter has shape {tuple(scatter.shape)} or is not finite")
    except (OSError, SafetensorError, ValueError) as error:
        raise DataError(
            f"kept statistics {file} are damaged ({error}); expected what was written; delete the "
            "file, it is made again"
        ) from error
    moments = Moments(len(mean))
    moments.count, moments.mean, moments.scatter = int(tensors["count"]), mean, scatter
    return moments


def _save(moments: Moments, file: Path, text: str) -> None:
    """Write a file whole or not at all."""
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    tensors = {"mean": moments.mean, "scatter": moments.scatter}
    tensors["count"] = torch.tensor(moments.count)
    try:
        save_file(tensors, draft, metadata={"basis": text})
        os.replace(draft, file)
    finally:
        draft.unlink(missing_ok=True)


def _write(file: Path, step: Callable[[], None]) -> None:
    """Do a step of writing a file, or say what stood against it."""
    try:
        step()
    except (OSError, SafetensorError) as error:
        raise DataError(
            f"{file} cannot be written ({error}); expected a writable folder with room for it; "
            "free some space or name another folder"
        ) from error
