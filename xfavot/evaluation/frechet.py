"""Frechet distance between two sets of features, each taken as a normal distribution.

    d^2 = |mu_1 - mu_2|^2 + tr(C_1) + tr(C_2) - 2 tr((C_1 C_2)^(1/2))

Over the features of an Inception network this is FID (Heusel et al. 2017); see `fid.py`. The root
itself is not needed, only its trace: with C_1 = F F^T it is the sum of the roots of the eigenvalues
of F^T C_2 F, which is symmetric. F is a Cholesky factor; where a covariance has none (fewer images
than features, or features that depend on each other), its eigenvectors take that place and the
singular values of F_1^T F_2 that of the roots, so that zeros stay zeros.
"""

from __future__ import annotations

import torch
from torch import Tensor

from xfavot.errors import DataError
from xfavot.evaluation.feature_moments import Moments, require_alike


def frechet_distance(a: Moments, b: Moments) -> float:
    """Compute d^2.

    Args:
        a, b: statistics of two sets of features by one extractor.

    Returns:
        The distance, not below 0.

    Raises:
        DataError: fewer than two images in a set, or features of different lengths.
    """
    require_alike(a, b)
    first, second = a.covariance(), b.covariance()
    means = float((a.mean - b.mean).square().sum())
    traces = float(first.trace() + second.trace())
    return max(means + traces - 2 * trace_of_root(first, second), 0.0)


def trace_of_root(first: Tensor, second: Tensor) -> float:
    """Compute the trace of the square root of the product of two covariances.

    Args:
        first, second: (d, d) float64, symmetric, no eigenvalue below zero.

    Returns:
        tr((C_1 C_2)^(1/2)), real.

    Raises:
        DataError: other shapes or types.
    """
    square = first.dim() == 2 and first.shape[0] == first.shape[1]
    if not square or first.shape != second.shape or {first.dtype, second.dtype} != {torch.float64}:
        raise DataError(
            f"covariances are {first.dtype} {tuple(first.shape)} and {second.dtype} "
            f"{tuple(second.shape)}; expected two square ones of one size in float64; "
            "float32 loses the small eigenvalues"
        )
    lower, failed = torch.linalg.cholesky_ex(first)
    other, failed_too = torch.linalg.cholesky_ex(second)
    if not (failed or failed_too):
        eigenvalues = torch.linalg.eigvalsh(lower.T @ second @ lower)
        return float(eigenvalues.clamp_min(0).sqrt().sum())
    one = _factor(first) if failed else lower
    two = _factor(second) if failed_too else other
    return float(torch.linalg.svdvals(one.T @ two).sum())


def _factor(covariance: Tensor) -> Tensor:
    """F (d, r) of a covariance of rank r, F F^T being it."""
    eigenvalues, vectors = torch.linalg.eigh(covariance)  # ascending
    least = len(eigenvalues) * torch.finfo(torch.float64).eps * eigenvalues[-1]
    kept = eigenvalues > least
    factor: Tensor = vectors[:, kept] * eigenvalues[kept].sqrt()
    return factor
