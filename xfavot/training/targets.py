"""Style sources of a step: what is drawn, and what a pass aims at (Table 1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from xfavot.config import RunConfig
from xfavot.data.batches import Batch
from xfavot.losses.objective import may_use_speaker_head
from xfavot.models.xfavot import XFaVoT
from xfavot.training.disguise import Disguise, draw_disguise


@dataclass(frozen=True, slots=True)
class Draw:
    """The random choices of one step; a function of (seed, step) alone."""

    guidances: tuple[str, ...]
    speaker_family: bool
    z1: Tensor  # (B, L)
    z2: Tensor  # (B, L)
    cross: Tensor  # (2,) bool: whether faces, voices are regenerated from the other's style
    disguise: Disguise


@dataclass(slots=True)
class Target:
    """Two styles of one domain and the codes of the reference that they stand for."""

    guidance: str
    s1: Tensor  # (B, S)
    s2: Tensor  # (B, S)
    gender: Tensor  # (B,)
    speaker: Tensor  # (B,), -1 where the speaker heads may not be used (Table 1)


def draw(cfg: RunConfig, step: int, batch_size: int, guidances: tuple[str, ...]) -> Draw:
    """Draw the latent codes, the head family and the style sources of a step.

    Args:
        cfg: the run's configuration.
        step: number of the step, from 1.
        batch_size: B.
        guidances: the style sources that the data allow.
    """
    rng = torch.Generator().manual_seed(cfg.seed * 1_000_003 + step)
    family = bool(torch.rand((), generator=rng) < cfg.train.speaker_head_probability)
    chosen = guidances
    if cfg.train.sources == "one":
        chosen = (guidances[int(torch.randint(len(guidances), (), generator=rng))],)
    shape = (batch_size, cfg.model.latent_dim)
    return Draw(
        guidances=chosen,
        speaker_family=family and cfg.train.dual_domain,
        z1=torch.randn(shape, generator=rng),
        z2=torch.randn(shape, generator=rng),
        cross=torch.rand(2, generator=rng) < 0.5,
        disguise=draw_disguise(rng, batch_size),
    )


def audio_domain(target_gender: Tensor, speaker: Tensor, family: bool, genders: int) -> Tensor:
    """Head index of D_A and M: the speaker's where it may be used, else the gender's.

    Args:
        target_gender, speaker: (B,) codes; speaker -1 where unknown.
        family: whether the speaker heads were drawn for this step.
        genders: number of gender heads, which come first.

    Returns:
        (B,) long.
    """
    if not family:
        return target_gender
    return torch.where(speaker >= 0, speaker + genders, target_gender)


def make_target(nets: XFaVoT, batch: Batch, guidance: str, d: Draw) -> Target:
    """Compute the two styles of one pass from M, E_I or E_A (Table 1)."""
    reference = batch.ref_audio if batch.ref_audio is not None else batch.ref_image
    if guidance == "z":
        assert reference is not None
        domain = audio_domain(reference.gender, reference.speaker, d.speaker_family, nets.genders)
        s1, s2 = nets.M(d.z1.to(domain.device), domain), nets.M(d.z2.to(domain.device), domain)
        return Target(guidance, s1, s2, reference.gender, reference.speaker)
    encoder, first, second = (
        (nets.E_I, batch.ref_image, batch.ref2_image)
        if guidance == "i"
        else (nets.E_A, batch.ref_audio, batch.ref2_audio)
    )
    assert first is not None
    assert second is not None
    with torch.no_grad():
        s1, s2 = encoder(first.x, first.gender), encoder(second.x, second.gender)
    speaker = first.speaker
    if guidance == "i" and not may_use_speaker_head("E_I", "image-only face"):
        speaker = torch.where(batch.paired, speaker, torch.full_like(speaker, -1))
    return Target(guidance, s1, s2, first.gender, speaker)
