"""One training step: Table 1 applied to a batch, the terms computed, the modules updated.

Paper Sec. 3.2 and 3.3; the order of updates follows StarGAN v2 (A12): per style source, the
discriminators first; then the generators. The latent pass updates generators, encoders and M, a
reference pass the generators only; L_xm updates the encoders once a step. ``update_rule: fused``
makes one update of the generators and one of the discriminators on the same fakes (A13).
Guidances: "z" latent, "i" face, "a" voice; a pass is named guidance-2-output, as in "a2i".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from xfavot.audio.mel import Standardiser
from xfavot.config import RunConfig
from xfavot.data.batches import Batch, Samples
from xfavot.losses import objective, terms
from xfavot.losses.objective import Terms, may_use_speaker_head
from xfavot.models.content import ContentNetwork
from xfavot.models.f0 import F0Network
from xfavot.models.xfavot import XFaVoT
from xfavot.training.disguise import Disguise, draw_disguise

GENERATOR_SIDE = ("G_I", "G_A", "E_I", "E_A", "M")
DISCRIMINATOR_SIDE = ("D_I", "D_A", "C_A")


@dataclass(slots=True)
class Networks:
    """The eight trained modules and the two frozen ones, with the mel statistics they share."""

    nets: XFaVoT
    f0: F0Network
    content: ContentNetwork
    standardiser: Standardiser


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


@dataclass(slots=True)
class Voices:
    """What is computed once a step from the real source voices."""

    f0: Tensor  # (B, T) Hz
    f0_features: Tensor  # (B, C, M', T)
    content: Tensor  # (B, C, T')
    energy: Tensor  # (B, T)


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


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Let no gradient reach the parameters of these modules; it still flows through them."""
    parameters = [p for m in modules for p in m.parameters() if p.requires_grad]
    for p in parameters:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in parameters:
            p.requires_grad_(True)


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
    assert first is not None and second is not None
    with torch.no_grad():
        s1, s2 = encoder(first.x, first.gender), encoder(second.x, second.gender)
    speaker = first.speaker
    if guidance == "i" and not may_use_speaker_head("E_I", "image-only face"):
        speaker = torch.where(batch.paired, speaker, torch.full_like(speaker, -1))
    return Target(guidance, s1, s2, first.gender, speaker)


def analyse_voices(n: Networks, source: Samples) -> Voices:
    """F0, content and energy of the real source voices, without gradient."""
    with torch.no_grad():
        f0 = n.f0(source.x)
        return Voices(
            f0.f0,
            f0.features,
            n.content.features(source.x),
            terms.frame_energy(n.standardiser.restore(source.x)),
        )


def generator_image_terms(n: Networks, batch: Batch, t: Target) -> tuple[Terms, Tensor]:
    """Terms of G_I's objective for one pass, and the fakes (B, 3, H, W)."""
    nets, x = n.nets, batch.source_image
    assert x is not None
    fake = nets.G_I(x.x, t.s1)
    with torch.no_grad():
        other = nets.G_I(x.x, t.s2)
    source_style = nets.E_I(x.x, x.gender)
    return {
        "adv": terms.adversarial_generator(nets.D_I(fake, t.gender)),
        "sty": terms.style_reconstruction(nets.E_I(fake, t.gender), t.s1),
        "ds": terms.style_diversification(fake, other),
        "cyc": terms.cycle_consistency(x.x, nets.G_I(fake, source_style)),
    }, fake


def class_logits(nets: XFaVoT, x: Tensor, by_speaker: bool) -> Tensor:
    """Logits of the classifier's group that the step uses: (B, 2) or (B, speakers)."""
    by_gender, speakers = nets.C_A(x)
    return speakers if by_speaker else by_gender


def class_rows(batch: Batch, t: Target, by_speaker: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Source labels, reference labels and the rows where both are known and differ, each (B,)."""
    assert batch.source_audio is not None
    source = batch.source_audio.speaker if by_speaker else batch.source_audio.gender
    reference = t.speaker if by_speaker else t.gender
    return source, reference, (source >= 0) & (reference >= 0) & (source != reference)


def generator_audio_terms(
    n: Networks, batch: Batch, t: Target, v: Voices, by_speaker: bool
) -> tuple[Terms, Tensor]:
    """Terms of G_A's objective for one pass, and the fakes (B, 1, M, T)."""
    nets, x = n.nets, batch.source_audio
    assert x is not None
    fake = nets.G_A(x.x, t.s1, v.f0_features)
    with torch.no_grad():
        other = nets.G_A(x.x, t.s2, v.f0_features)
    source_style = nets.E_A(x.x, x.gender)
    f0 = n.f0(fake)
    _, reference, rows = class_rows(batch, t, by_speaker)
    domain = audio_domain(t.gender, t.speaker, by_speaker, nets.genders)
    return {
        "adv": terms.adversarial_generator(nets.D_A(fake, domain)),
        "sty": terms.style_reconstruction(nets.E_A(fake, t.gender), t.s1),
        "ds": terms.style_diversification(fake, other),
        "cyc": terms.cycle_consistency(x.x, nets.G_A(fake, source_style, f0.features)),
        "sc": terms.speech_consistency(v.content, n.content.features(fake)),
        "f0": terms.f0_consistency(v.f0, f0.f0),
        "norm": terms.norm_consistency(v.energy, terms.frame_energy(n.standardiser.restore(fake))),
        "advcls": terms.classification(class_logits(nets, fake, by_speaker), reference, rows),
    }, fake


def pair_terms(n: Networks, batch: Batch, d: Draw, cfg: RunConfig, *, rec: bool) -> Terms:
    """Terms of the reference pairs: L_xm, and self-reconstruction where asked for (A20).

    For the latter a face (a voice) comes back from a disguised copy of itself and a style of the same
    person: its own, or for half of the steps the other modality's.
    """
    nets, face, voice = n.nets, batch.ref_image, batch.ref_audio
    result: Terms = {}
    s_face = nets.E_I(face.x, face.gender) if face is not None else None
    s_voice = nets.E_A(voice.x, voice.gender) if voice is not None else None
    paired = batch.paired[:, None]
    if s_face is not None and s_voice is not None and voice is not None:
        rows = batch.paired.nonzero().squeeze(1)
        result["xm"] = terms.cross_modality_style_consistency(
            s_face[rows], s_voice[rows], voice.speaker[rows],
            tau=cfg.loss.tau, form=cfg.loss.xm_form,
        )  # fmt: skip
    if rec and face is not None and s_face is not None:
        crossed = s_voice is not None and d.cross[0]
        style = torch.where(paired, s_voice, s_face) if crossed else s_face
        made = nets.G_I(d.disguise.faces(face.x), style)
        result["rec_image"] = terms.self_reconstruction(face.x, made)
    if rec and voice is not None and s_voice is not None:
        crossed = s_face is not None and d.cross[1]
        style = torch.where(paired, s_face, s_voice) if crossed else s_voice
        with torch.no_grad():
            features = n.f0.features(voice.x)
        made = nets.G_A(d.disguise.voices(voice.x), style, features)
        result["rec_audio"] = terms.self_reconstruction(voice.x, made)
    return result


def r1_term(
    discriminator: nn.Module, x: Samples, domain: Tensor, due: bool
) -> tuple[Tensor, Tensor]:
    """Logits of the real samples and their R1 penalty (0 where it is not due), in float32."""
    if not due:
        logits = discriminator(x.x, domain)
        return logits, logits.new_zeros(())
    with torch.autocast(x.x.device.type, enabled=False):
        real = x.x.detach().float().requires_grad_()
        logits = discriminator(real, domain)
        return logits, terms.r1(logits, real)


def discriminator_terms(
    n: Networks,
    batch: Batch,
    fakes: dict[str, list[tuple[Target, Tensor]]],
    by_speaker: bool,
    r1_due: bool,
) -> dict[str, Terms]:
    """Terms of D_I's and of D_A's and C_A's objectives on the given fakes, by output "i", "a"."""
    nets = n.nets
    result: dict[str, Terms] = {}
    if fakes["i"] and batch.source_image is not None:
        x = batch.source_image
        logits, penalty = r1_term(nets.D_I, x, x.gender, r1_due)
        fake = [terms.adversarial_fake(nets.D_I(f.detach(), t.gender)) for t, f in fakes["i"]]
        result["i"] = {
            "adv_real": terms.adversarial_real(logits),
            "adv_fake": torch.stack(fake).mean(),
            "r1": penalty,
        }
    if fakes["a"] and batch.source_audio is not None:
        x = batch.source_audio
        own = audio_domain(x.gender, x.speaker, by_speaker, nets.genders)
        logits, penalty = r1_term(nets.D_A, x, own, r1_due)
        fake, cls = [], []
        for t, f in fakes["a"]:
            domain = audio_domain(t.gender, t.speaker, by_speaker, nets.genders)
            fake.append(terms.adversarial_fake(nets.D_A(f.detach(), domain)))
            source, _, rows = class_rows(batch, t, by_speaker)
            cls.append(
                terms.classification(class_logits(nets, f.detach(), by_speaker), source, rows)
            )
        result["a"] = {
            "adv_real": terms.adversarial_real(logits),
            "adv_fake": torch.stack(fake).mean(),
            "cls": torch.stack(cls).mean(),
            "r1": penalty,
        }
    return result


def named(terms_by_pass: Mapping[str, Terms]) -> dict[str, Tensor]:
    """Flatten terms by pass into log keys such as "g/a2i/sty", without gradient."""
    return {f"{p}/{k}": v.detach() for p, ts in terms_by_pass.items() for k, v in ts.items()}
