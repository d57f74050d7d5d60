"""The mapping network M, noise to a random style of a domain, and the choice of heads by domain.

Domains are genders (0 f, 1 m), then genders + speaker.

Paper: Sec. 3.2 and appendix G (one head a gender and a speaker). Lineage: StarGAN v2. Status:
STATED. The ancestors compute all heads and then index; here the heads' weights are stacked and only
the heads asked for are read (exact).
"""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xfavot.config import ModelConfig
from xfavot.errors import ShapeError, require_shape
from xfavot.models.blocks import he_init

SHARED_LAYERS = 4  # STATED
HEAD_LAYERS = 3  # hidden layers of a head, before the output layer, STATED


def pick(values: Tensor, domain: Tensor, *, name: str) -> Tensor:
    """Take each sample's own entry along the domain axis.

    Args:
        values: (B, K, ...), one entry a domain.
        domain: (B,) int64, which entry.
        name: the asking module, for the message.

    Returns:
        (B, ...).

    Raises:
        ShapeError: `domain` is no index vector of the batch or leaves 0..K-1.
    """
    check_domain(domain, batch=values.shape[0], domains=values.shape[1], name=name)
    return values[torch.arange(values.shape[0], device=values.device), domain]


def check_domain(domain: Tensor, *, batch: int, domains: int, name: str) -> None:
    """Refuse domains that are no int64 (B,) in 0..K-1; values are read on the CPU only.

    On an accelerator reading them would make it wait; its own index check stops the run there.

    Raises:
        ShapeError: wrong type, shape or range.
    """
    if domain.dtype != torch.int64 or tuple(domain.shape) != (batch,):
        raise ShapeError(
            f"{name}: domain is {domain.dtype} of shape {tuple(domain.shape)}; expected int64 of "
            f"shape ({batch},); pass one domain index a sample"
        )
    if domain.device.type == "cpu" and batch:
        low, high = int(domain.min()), int(domain.max())
        if low < 0 or high >= domains:
            raise ShapeError(
                f"{name}: domain indices run from {low} to {high}; expected 0 to {domains - 1}; "
                "use genders first (0 f, 1 m), then genders + speaker, and only known speakers"
            )


class StackedLinear(nn.Module):
    """K linear layers of one size, of which only those asked for are read."""

    def __init__(self, *, domains: int, inputs: int, outputs: int) -> None:
        """Make `domains` layers, He normal weights (fan in) and zero biases."""
        super().__init__()
        self.weight = nn.Parameter(torch.empty(domains, inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(domains, outputs))
        nn.init.normal_(self.weight, std=math.sqrt(2 / inputs))

    def forward(self, x: Tensor, heads: Tensor) -> Tensor:
        """Map (B, inputs), each row by its own layer of `heads` (B,), to (B, outputs)."""
        weight = self.weight.index_select(0, heads)  # (B, inputs, outputs)
        bias = self.bias.index_select(0, heads).unsqueeze(1)  # (B, 1, outputs)
        return torch.baddbmm(bias, x.unsqueeze(1), weight).squeeze(1)


class MappingNetwork(nn.Module):
    """M: four shared layers, then four layers of the domain asked for. Status: STATED."""

    def __init__(self, cfg: ModelConfig) -> None:
        """Make the net; its domains are genders first, then speakers."""
        super().__init__()
        self.latent_dim, self.domains = cfg.latent_dim, cfg.genders + cfg.speakers
        sizes = [cfg.latent_dim] + [cfg.mapping_width] * SHARED_LAYERS
        self.shared = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        sizes = [cfg.mapping_width] * (HEAD_LAYERS + 1) + [cfg.style_dim]
        self.heads = nn.ModuleList(
            StackedLinear(domains=self.domains, inputs=a, outputs=b)
            for a, b in itertools.pairwise(sizes)
        )
        self.apply(he_init)

    def forward(self, z: Tensor, domain: Tensor) -> Tensor:
        """Draw styles.

        Args:
            z: (B, L) standard normal noise.
            domain: (B,) int64, a gender or genders + speaker.

        Returns:
            (B, S), unitless.

        Raises:
            ShapeError: wrong axes, or a domain that has no head.
        """
        require_shape("M input", z, (None, self.latent_dim))
        check_domain(domain, batch=z.shape[0], domains=self.domains, name="M")
        h = z
        for layer in self.shared:
            h = F.relu(layer(h))  # (B, width)
        for layer in self.heads[:-1]:
            h = F.relu(layer(h, domain))
        s: Tensor = self.heads[-1](h, domain)  # (B, S)
        return s
