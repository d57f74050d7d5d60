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
from xfavot.losses import terms
from xfavot.losses.objective import Terms
from xfavot.models.content import ContentNetwork
from xfavot.models.f0 import F0Network
from xfavot.models.xfavot import XFaVoT
from xfavot.training.targets import Draw, Target, audio_domain

GENERATOR_SIDE = ("G_I", "G_A", "E_I", "E_A", "M")
DISCRIMINATOR_SIDE = ("D_I", "D_A", "C_A")


@dataclass(slots=True)
class Networks:
    """The eight trained modules and the two frozen ones, with the mel statistics they share."""

    nets: XFaVoT
    f0: F0Network
    content: ContentNetwork
    standardiser: Standardiser


@dataclass(slots=True)
class Voices:
    """What is computed once a step from the real source voices."""

    f0: Tensor  # (B, T) Hz
    f0_features: Tensor  # (B, C, M', T)
    content: Tensor  # (B, C, T')
    energy: Tensor  # (B, T)


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
    by_gender, by_name = nets.C_A(x)
    logits: Tensor = by_name if by_speaker else by_gender
    return logits


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

    For the latter a face (a voice) comes back from a disguised copy of itself and a style of the
    same person: its own, or for half of the steps the other modality's.
    """
    nets, face, voice = n.nets, batch.ref_image, batch.ref_audio
    result: Terms = {}
    s_face: Tensor | None = nets.E_I(face.x, face.gender) if face is not None else None
    s_voice: Tensor | None = nets.E_A(voice.x, voice.gender) if voice is not None else None
    paired = batch.paired[:, None]
    if s_face is not None and s_voice is not None and voice is not None:
        rows = batch.paired.nonzero().squeeze(1)
        result["xm"] = terms.cross_modality_style_consistency(
            s_face[rows], s_voice[rows], voice.speaker[rows],
            tau=cfg.loss.tau, form=cfg.loss.xm_form,
        )  # fmt: skip
    if rec and face is not None and s_face is not None:
        crossed = s_voice if s_voice is not None and d.cross[0] else s_face
        style = torch.where(paired, crossed, s_face)
        made = nets.G_I(d.disguise.faces(face.x), style)
        result["rec_image"] = terms.self_reconstruction(face.x, made)
    if rec and voice is not None and s_voice is not None:
        crossed = s_face if s_face is not None and d.cross[1] else s_voice
        style = torch.where(paired, crossed, s_voice)
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
