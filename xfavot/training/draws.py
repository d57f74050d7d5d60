"""The random choices of a training step, a function of the seed and the step's number alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from xfavot.config import RunConfig

MIXING = 1.5  # spread of the logits of the colour mix
GAIN, SHIFT = 0.4, 0.4  # of the mixed colours, in units of [-1, 1]
STRETCH = 0.18  # largest relative stretch of the mel axis


@dataclass(frozen=True, slots=True)
class Draw:
    """The random choices of one step; a function of (seed, step) alone.

    `mix`, `shift` and `stretch` hide who a source is, for self-reconstruction (A20).
    """

    step: int  # from 1
    guidances: tuple[str, ...]
    by_speaker: bool  # which heads of D_A and M and which group of C_A: speakers or genders (A2)
    voices: bool  # whether voices are generated beside the faces (A83)
    z1: Tensor  # (B, L)
    z2: Tensor  # (B, L)
    cross: Tensor  # (2,) bool: whether faces, voices are regenerated from the other's style
    mix: Tensor  # (B, 3, 3)
    shift: Tensor  # (B, 3, 1)
    stretch: Tensor  # (B,)

    def part(self, start: int, count: int) -> Draw:
        """The choices for some rows of the batch."""
        rows = ("z1", "z2", "mix", "shift", "stretch")
        return replace(self, **{k: getattr(self, k)[start : start + count] for k in rows})

    def disguised_faces(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] with mixed colours, same shape and range."""
        mixed = torch.baddbmm(self.shift.to(x), self.mix.to(x), x.flatten(2))  # (B, 3, H W)
        return mixed.clamp(-1, 1).view_as(x)

    def disguised_voices(self, x: Tensor) -> Tensor:
        """(B, 1, M, T) with its mel axis stretched, linearly interpolated, same shape."""
        bands = x.shape[2]
        place = torch.arange(bands, device=x.device) * self.stretch.to(x)[:, None]  # (B, M)
        place = place.clamp(0, bands - 1)
        low = place.floor().long().clamp(max=bands - 2)
        weight = (place - low)[:, None, :, None]  # (B, 1, M, 1)
        rows = low[:, None, :, None].expand(-1, 1, -1, x.shape[3])
        return torch.lerp(x.gather(2, rows), x.gather(2, rows + 1), weight)


def draw(cfg: RunConfig, step: int, batch_size: int, guidances: tuple[str, ...]) -> Draw:
    """Draw the latent codes, the head family, the style sources and the disguises of a step.

    Args:
        cfg: the run's configuration.
        step: number of the step, from 1.
        batch_size: B.
        guidances: the style sources that the data allow.
    """
    rng, b = torch.Generator().manual_seed(cfg.seed * 1_000_003 + step), batch_size
    speakers = bool(torch.rand((), generator=rng) < cfg.train.speaker_head_probability)
    if cfg.train.sources == "one":
        guidances = (guidances[int(torch.randint(len(guidances), (), generator=rng))],)
    z1, z2 = (torch.randn(b, cfg.model.latent_dim, generator=rng) for _ in range(2))
    cross = torch.rand(2, generator=rng) < 0.5
    mix = torch.softmax(MIXING * torch.randn(b, 3, 3, generator=rng), dim=2)
    mix = mix * (1 + GAIN * (2 * torch.rand(b, 1, 1, generator=rng) - 1))
    shift = SHIFT * (2 * torch.rand(b, 3, 1, generator=rng) - 1)
    stretch = 1 + STRETCH * (2 * torch.rand(b, generator=rng) - 1)
    by_speaker = speakers and cfg.train.dual_domain
    voices = step % cfg.train.voices_every == 0
    return Draw(step, guidances, by_speaker, voices, z1, z2, cross, mix, shift, stretch)
