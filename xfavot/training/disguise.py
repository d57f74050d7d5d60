"""Disguises for the self-reconstruction of the small presets (A20): the source hides who it is.

A face whose colours are mixed, or a voice whose bands are stretched, can only be brought back with
what the style says about hair, skin and vocal tract; a plain copy would teach the generators to
ignore the style. The idea of perturbing what the style has to supply follows NANSY (voices).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

MIXING = 1.5  # spread of the logits of the colour mix
GAIN, SHIFT = 0.4, 0.4  # of the mixed colours, in units of [-1, 1]
STRETCH = 0.18  # largest relative stretch of the mel axis


@dataclass(frozen=True, slots=True)
class Disguise:
    """The random numbers of a batch's disguises."""

    mix: Tensor  # (B, 3, 3)
    shift: Tensor  # (B, 3, 1)
    stretch: Tensor  # (B,)

    def faces(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] with mixed colours, same shape and range."""
        flat = x.flatten(2)  # (B, 3, H W)
        mixed = torch.baddbmm(self.shift.to(x), self.mix.to(x), flat)
        return mixed.clamp(-1, 1).view_as(x)

    def voices(self, x: Tensor) -> Tensor:
        """(B, 1, M, T) with its mel axis stretched, linearly interpolated, same shape."""
        bands = x.shape[2]
        place = torch.arange(bands, device=x.device) * self.stretch.to(x)[:, None]  # (B, M)
        place = place.clamp(0, bands - 1)
        low = place.floor().long().clamp(max=bands - 2)
        weight = (place - low)[:, None, :, None]  # (B, 1, M, 1)
        rows = low[:, None, :, None].expand(-1, 1, -1, x.shape[3])
        return torch.lerp(x.gather(2, rows), x.gather(2, rows + 1), weight)


def draw_disguise(rng: torch.Generator, batch_size: int) -> Disguise:
    """Draw the disguises of a batch."""
    b = batch_size
    mix = torch.softmax(MIXING * torch.randn(b, 3, 3, generator=rng), dim=2)
    mix = mix * (1 + GAIN * (2 * torch.rand(b, 1, 1, generator=rng) - 1))
    shift = SHIFT * (2 * torch.rand(b, 3, 1, generator=rng) - 1)
    stretch = 1 + STRETCH * (2 * torch.rand(b, generator=rng) - 1)
    return Disguise(mix=mix, shift=shift, stretch=stretch)
