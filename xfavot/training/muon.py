"""Muon, momentum made orthogonal: the optimiser of the warm-up's matrices (A81).

Lineage: K. Jordan and others, "Muon: an optimizer for hidden layers in neural networks" (2024);
`torch.optim.Muon` takes plain matrices alone and multiplies in bfloat16, which is slow on CPUs
without it. Here a kernel is a matrix with a row an output channel, and the iteration works on the
small square of the matrix, which costs a fifth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

QUINTIC = 3.4445, -4.7750, 2.0315  # of the published iteration: singular values to 0.7 to 1.2
ROUNDS = 5
MOMENTUM = 0.95
SMALLEST = 8  # rows and columns; of fewer, Adam does as well


def orthogonalised(x: Tensor) -> Tensor:
    """Bring all singular values of a matrix (M, N) near to 1, in float32.

    The polynomial of every round is odd in x, so that it is a polynomial of the smaller of ``x x'``
    and ``x' x`` times x; the product of these is built first and meets x once.
    """
    wide = x.float() if x.shape[0] <= x.shape[1] else x.float().T
    wide = wide / wide.norm().clamp_min(1e-7)
    square, a, b, c = wide @ wide.T, *QUINTIC
    unit = torch.eye(len(square), device=x.device)
    product = unit
    for _ in range(ROUNDS):
        factor = a * unit + b * square + c * square @ square
        product, square = factor @ product, factor @ square @ factor
    made: Tensor = product @ wide
    return made if x.shape[0] <= x.shape[1] else made.T


class Muon(Optimizer):
    """Takes steps of one size in all directions of a matrix, of the matrices among parameters.

    Args:
        parameters: of which those with at least 8 rows and columns are moved.
        lr: root mean square of what a step adds to a square matrix, times the root of its side.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], *, lr: float) -> None:
        """Choose the matrices; there has to be one."""
        matrices = [p for p in parameters if p.dim() > 1 and min(p.flatten(1).shape) >= SMALLEST]
        super().__init__(matrices, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move every matrix that has a gradient and forget that, so that no other one moves it."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                mean = self.state[p].setdefault("mean", torch.zeros_like(p))
                mean.lerp_(p.grad, 1 - MOMENTUM)
                change = orthogonalised(p.grad.lerp(mean, MOMENTUM).flatten(1))
                tall = max(1.0, change.shape[0] / change.shape[1]) ** 0.5
                p.sub_(change.view_as(p), alpha=group["lr"] * tall)
                p.grad = None
