"""The terms of a step's passes: what each aims at, and what its fakes are held against.

Paper Sec. 3.2. Guidances, the sources of a style: "z" latent, "i" face, "a" voice; outputs: "i",
"a"; a pass is named guidance-2-output, as in "a2i". :mod:`xfavot.training.step` runs them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor

from xfavot.audio.mel import Standardiser
from xfavot.config import LossConfig
from xfavot.data.batches import Batch, Samples
from xfavot.losses import terms
from xfavot.losses.objective import Terms, may_use_speaker_head
from xfavot.models.blocks import full_precision
from xfavot.models.content import ContentNetwork
from xfavot.models.f0 import F0Network, F0Output, level_of, ltas_of
from xfavot.models.face_encoder import FaceEncoder
from xfavot.models.xfavot import XFaVoT
from xfavot.training.draws import Draw
from xfavot.training.processes import Processes


class Networks(NamedTuple):
    """The trained modules and the two frozen ones, with the mel statistics they share.

    Where no voices are made, the frozen ones are empty modules. `face`: a third frozen one, where
    faces are to show the person of their reference (A85). `processes`: those that compute on parts
    of one batch. `timbre`: whether voices are compared with their references (A92).
    """

    nets: XFaVoT
    f0: F0Network
    content: ContentNetwork
    standardiser: Standardiser
    processes: Processes = Processes()
    face: FaceEncoder | None = None
    timbre: bool = False


# What a pass aims at: two styles of one domain, and the heads that see what is made of them


class Target(NamedTuple):
    """Two styles of one domain and the codes of the reference that they stand for."""

    guidance: str
    s1: Tensor  # (B, S)
    s2: Tensor  # (B, S)
    gender: Tensor  # (B,)
    speaker: Tensor  # (B,), -1 where the speaker heads may not be used (Table 1)


Fake = tuple[Target, Tensor]  # what was asked for; (B, 3, H, W) or (B, 1, M, T), no gradient
Fakes = Sequence[Fake]


def make_target(nets: XFaVoT, batch: Batch, guidance: str, d: Draw) -> Target:
    """Compute the two styles of one pass from M, E_I or E_A (Table 1)."""
    roles = batch.roles()
    if guidance == "z":
        first = roles.get("ref_audio") or roles["ref_image"]
        domain = audio_domain(first, d.by_speaker, nets.genders)
        s1, s2 = (nets.M(z.to(domain.device), domain) for z in (d.z1, d.z2))
        return Target(guidance, s1, s2, first.gender, first.speaker)
    kind, encoder = ("image", nets.E_I) if guidance == "i" else ("audio", nets.E_A)
    first, second = roles[f"ref_{kind}"], roles[f"ref2_{kind}"]
    with torch.no_grad():
        s1, s2 = (encoder(one.x, one.gender) for one in (first, second))
    speaker = first.speaker
    if guidance == "i" and not may_use_speaker_head("E_I", "image-only face"):
        speaker = torch.where(batch.paired, speaker, -1)
    return Target(guidance, s1, s2, first.gender, speaker)


def audio_domain(of: Samples | Target, by_speaker: bool, genders: int) -> Tensor:
    """Head index of D_A and M: the speaker's where it may be used, else the gender's.

    Args:
        of: whose codes count; speaker -1 where unknown.
        by_speaker: whether the speaker heads were drawn for this step.
        genders: number of gender heads, which come first.

    Returns:
        (B,) long.
    """
    return (
        torch.where(of.speaker >= 0, of.speaker + genders, of.gender) if by_speaker else of.gender
    )


def code_domains(batch: Batch, d: Draw, genders: int) -> dict[str, Tensor]:
    """Heads of M (B,) that the references of a batch are of, by side (Table 1)."""
    sides = {"i": batch.ref_image, "a": batch.ref_audio}
    there = {side: x for side, x in sides.items() if x is not None}
    heads = {side: audio_domain(x, d.by_speaker, genders) for side, x in there.items()}
    if batch.ref_image is not None:
        heads["i"] = torch.where(batch.paired, heads["i"], batch.ref_image.gender)
    return heads


def sources(batch: Batch, output: str) -> Samples:
    """The source faces (output "i") or voices ("a") of a batch, which has to have them."""
    return batch.roles()["source_image" if output == "i" else "source_audio"]


def class_rows(batch: Batch, t: Target, by_speaker: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Source labels, reference labels and the rows where both are known and differ, each (B,)."""
    x = sources(batch, "a")
    source, reference = (x.speaker, t.speaker) if by_speaker else (x.gender, t.gender)
    return source, reference, (source >= 0) & (reference >= 0) & (source != reference)


# The terms of every pass (Sec. 3.2), each a function of `xfavot.losses.terms`


class Voices(NamedTuple):
    """What is computed once a step from the real source voices."""

    f0: F0Output
    content: Tensor  # (B, C, T')
    energy: Tensor  # (B, T)


@torch.no_grad()
def analyse_voices(n: Networks, batch: Batch) -> Voices:
    """F0, content and energy of the real source voices, without gradient."""
    x = sources(batch, "a").x
    energy = terms.frame_energy(n.standardiser.restore(x))
    return Voices(n.f0(x), n.content.features(x), energy)


@torch.no_grad()
def hear_references(n: Networks, batch: Batch) -> F0Output | None:
    """F0 of the reference voices, where G_A takes the melody (A79)."""
    voice = batch.ref_audio
    return None if voice is None or not n.nets.G_A.melody else cast(F0Output, n.f0(voice.x))


@torch.no_grad()
def see_references(n: Networks, batch: Batch) -> Sequence[Tensor]:
    """Maps of the reference faces, where faces are to show their persons (A85)."""
    face = batch.ref_image
    return () if face is None or n.face is None else n.face.maps(face.x)


class References(NamedTuple):
    """What the frozen networks tell of the references, once a step."""

    heard: F0Output | None
    seen: Sequence[Tensor]


class Known(NamedTuple):
    """What the passes of a step share of the sources of one output."""

    content: Tensor  # that no style changes; see `content` of G_I and G_A
    style: Tensor  # (B, S), of the source itself


def know(
    n: Networks, batch: Batch, output: str, voices: Voices | None, *, train_style: bool = True
) -> Known:
    """Compute what the passes of an output share, the style with gradients where it is trained."""
    nets, x = n.nets, sources(batch, output)
    real, encoder = (voices, nets.E_A) if output == "a" else (None, nets.E_I)
    with torch.set_grad_enabled(train_style and torch.is_grad_enabled()):
        style = encoder(x.x, x.gender)
    return Known(content(nets, x.x, real and real.f0), style)


def content(nets: XFaVoT, x: Tensor, f0: F0Output | None) -> Tensor:
    """What no style changes of faces, or of voices of which the F0 is given."""
    return nets.G_I.content(x) if f0 is None else nets.G_A.content(x, f0.features)


def styled(nets: XFaVoT, kept: Tensor, style: Tensor, f0: F0Output | None) -> Tensor:
    """Faces or voices of a :func:`content` in a style (B, S)."""
    if f0 is None:
        return nets.G_I.styled(kept, style)
    return nets.G_A.styled(kept, style, *nets.G_A.takes(f0)[1:])


def generator_terms(
    n: Networks,
    batch: Batch,
    t: Target,
    output: str,
    voices: Voices | None,
    by_speaker: bool,
    *,
    known: Known | None = None,
    seen: Sequence[Tensor] = (),
    teach: float = 0,
) -> tuple[Terms, Tensor]:
    """Terms of G_I's (output "i") or G_A's ("a") objective for one pass, and the fakes.

    `known`, `seen`: of :func:`know` and :func:`see_references`, where these were computed already.
    `teach`: weight with which the backward pass of "adv" is to teach the discriminator that these
    are fakes; then there are also its term "adv_fake" and C_A's "cls".
    """
    nets, x = n.nets, sources(batch, output)
    real = voices if output == "a" else None
    encoder, discriminator = (nets.E_A, nets.D_A) if real else (nets.E_I, nets.D_I)
    kept, source_style = known or know(n, batch, output, voices)
    fake = styled(nets, kept, t.s1, real and real.f0)
    with torch.no_grad():
        other = styled(nets, kept, t.s2, real and real.f0)
    f0 = n.f0(fake) if real else None
    domain = audio_domain(t, by_speaker and output == "a", nets.genders)
    back = styled(nets, content(nets, fake, f0), source_style, f0)
    logits = discriminator.taught(fake, domain, teach) if teach else discriminator(fake, domain)
    found = {
        "adv": terms.adversarial_generator(logits),
        "sty": terms.style_reconstruction(encoder(fake, t.gender), t.s1),
        "ds": terms.style_diversification(fake, other),
        "cyc": terms.cycle_consistency(x.x, back),
    }
    if n.face and output == "i" and batch.ref_image is not None:
        # without a pair, only the target's own reference shows whom it means
        of_face = t.guidance == "i" or batch.ref_audio is None
        shown, wanted = batch.paired | of_face, seen or see_references(n, batch)
        with torch.no_grad():
            others = n.face.maps(other) if t.guidance != "i" else ()
        found["resemblance"] = terms.resemblance(n.face.maps(fake), wanted, shown, others)
    if n.timbre and output == "a" and batch.ref_audio is not None:
        shown, wanted = batch.paired | (t.guidance != "i"), [terms.timbre(batch.ref_audio.x)]
        others = [terms.timbre(other)] if t.guidance != "a" else ()
        found["timbre"] = terms.resemblance([terms.timbre(fake)], wanted, shown, others)
    if real and f0:
        source, reference, rows = class_rows(batch, t, by_speaker)
        found["sc"] = terms.speech_consistency(real.content, n.content.features(fake))
        found["f0"] = terms.f0_consistency(real.f0.f0, f0.f0)
        energy = terms.frame_energy(n.standardiser.restore(fake))
        found["norm"] = terms.norm_consistency(real.energy, energy)
        every = (nets.C_A(fake)[by_speaker], source, reference, rows)
        classes, source, reference, rows = map(n.processes.together, every)
        found["advcls"] = terms.classification(classes, reference, rows)
        if teach:
            found["cls"] = terms.classification(classes, source, rows)
    if teach:
        found["adv_fake"] = terms.adversarial_fake(logits.detach())
    return found, fake


def real_terms(n: Networks, batch: Batch, output: str, by_speaker: bool, *, r1_due: bool) -> Terms:
    """Terms of D_I's or D_A's objective on the real sources of one output."""
    nets, audio = n.nets, output == "a"
    x, net = sources(batch, output), nets.D_A if audio else nets.D_I
    domain = audio_domain(x, by_speaker and audio, nets.genders)
    if r1_due:
        with full_precision(x.x.device):
            real = x.x.detach().float().requires_grad_()
            logits = net(real, domain)
            penalty = terms.r1(logits, real)
    else:
        logits = net(x.x, domain)
        penalty = logits.new_zeros(())
    return {"adv_real": terms.adversarial_real(logits), "r1": penalty}


def fake_terms(n: Networks, batch: Batch, output: str, fakes: Fakes, by_speaker: bool) -> Terms:
    """Terms of D_I's, or of D_A's and C_A's, objective on fakes of one output, at least one."""
    nets, audio = n.nets, output == "a"
    net, found = nets.D_A if audio else nets.D_I, dict[str, list[Tensor]](adv_fake=[])
    for t, made in fakes:
        domain = audio_domain(t, by_speaker and audio, nets.genders)
        found["adv_fake"].append(terms.adversarial_fake(net(made, domain)))
        if audio:
            source, _, rows = class_rows(batch, t, by_speaker)
            every = map(n.processes.together, (nets.C_A(made)[by_speaker], source, rows))
            found.setdefault("cls", []).append(terms.classification(*every))
    return {k: torch.stack(each).mean() for k, each in found.items()}


def pair_terms(
    n: Networks,
    batch: Batch,
    d: Draw,
    w: LossConfig,
    heard: F0Output | None,
    seen: Sequence[Tensor] = (),
    *,
    rec: bool,
    convert: bool = False,
) -> Terms:
    """Terms of the references: L_xm, self-reconstruction (A20), level (A79) and codes (A82).

    For self-reconstruction a face (a voice) comes back from a disguised copy of itself and a style
    of the same person: its own, or for half of the steps the other modality's. `convert`: also
    faces in another's style, for the frozen network (A85). `seen`: of :func:`see_references`.
    Where a batch has twins, a face in another person's style is to be this person's (A96). With
    gradients, the terms all of whose modules are frozen (A94) are left out.
    """
    nets, face, voice, found = n.nets, batch.ref_image, batch.ref_audio, Terms()
    sides = ("i", "E_I", face), ("a", "E_A", voice)
    s: dict[str, Tensor] = {
        side: getattr(nets, name)(x.x, x.gender) for side, name, x in sides if x is not None
    }

    def learns(*names: str) -> bool:
        used = [m for name, m in nets.named_children() if name in names]
        return not torch.is_grad_enabled() or any(
            p.requires_grad for m in used for p in m.parameters()
        )

    def style(own: str, other: str, cross: Tensor) -> Tensor:
        return torch.where(batch.paired[:, None], s[other if cross and other in s else own], s[own])

    every = {side: n.processes.together(styles) for side, styles in s.items()}
    paired = n.processes.together(batch.paired)
    if voice is not None and "i" in s and learns("E_I", "E_A"):
        rows, person = paired.nonzero().squeeze(1), n.processes.together(voice.person)
        pairs = [every["i"][rows], every["a"][rows], person[rows]]
        if (i := batch.pair_image) and (a := batch.pair_audio):  # A90
            more = nets.E_I(i.x, i.gender), nets.E_A(a.x, a.gender), a.person
            pairs = [*map(torch.cat, zip(pairs, map(n.processes.together, more), strict=True))]
        found["xm"] = terms.cross_modality_style_consistency(*pairs, tau=w.tau, form=w.xm_form)
    x, aim, of = batch.twin_source, batch.twin_target, batch.twin_ref
    if x and aim and of and learns("G_I", "E_I"):
        made = nets.G_I(x.x, nets.E_I(of.x, of.gender))
        found["twins"] = terms.self_reconstruction(aim.x, made)
        if n.face:
            found["twins_perceptual"] = terms.perceptual(n.face.maps(made), n.face.maps(aim.x))
    if heard and learns("G_A", "E_I", "E_A"):
        levels = n.processes.together(level_of(heard))
        both = torch.cat([every["a"], every["i"][paired]] if "i" in s else [every["a"]])
        known = torch.cat([levels, levels[paired]][: len(s)])
        found["level"] = terms.pitch_level(nets.G_A.level_of(both), known)
        if nets.G_A.ltas is not None and voice is not None:
            spectra = n.processes.together(ltas_of(voice.x, torch.sigmoid(heard.voicing)))
            known = torch.cat([spectra, spectra[paired]][: len(s)])
            found["ltas"] = terms.average_spectrum(nets.G_A.ltas_of(both), known)
    if w.codes > 0 and learns("M"):
        domains = code_domains(batch, d, nets.genders)  # M once: its gradient is as large as it is
        heads = torch.cat([domain for domain in domains.values() for _ in range(2)])
        drawn = nets.M(torch.cat([d.z1, d.z2] * len(domains)).to(heads.device), heads)
        two = zip(s.items(), drawn.unflatten(0, (len(domains), 2, -1)), strict=True)
        matches = [terms.code_match(made[0], made[1], own.detach()) for (_, own), made in two]
        found["codes"] = torch.stack(matches).mean()
    if rec and face is not None and learns("G_I", "E_I", "E_A"):
        s_face = style("i", "a", d.cross[0])
        made = nets.G_I(d.disguised_faces(face.x), s_face)
        found["rec_image"] = terms.self_reconstruction(face.x, made)
        if n.face:
            seen = seen or see_references(n, batch)
            found["perceptual"] = terms.perceptual(n.face.maps(made), seen)
            if convert:  # half of them, each in the style of the next
                half = slice(0, (len(face.x) + 1) // 2)
                other = n.face.maps(nets.G_I(face.x[half], s_face[half].roll(1, 0)))
                wanted, use = [m[half].roll(1, 0) for m in seen], torch.ones_like(batch.paired)
                found["resemblance"] = terms.resemblance(other, wanted, use[half])
    if rec and voice is not None and d.voices and learns("G_A", "E_I", "E_A"):
        with torch.no_grad():
            pitch = nets.G_A.takes(heard) if heard else (n.f0.features(voice.x),)
        level = level_of(heard) if heard else None
        s_voice = style("a", "i", d.cross[1])
        made = nets.G_A(d.disguised_voices(voice.x), s_voice, *pitch, level=level)
        found["rec_audio"] = terms.self_reconstruction(voice.x, made)
    return found
