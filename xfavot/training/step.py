"""One training step: Table 1 applied to a batch, the terms computed, the modules updated.

Paper Sec. 3.2 and 3.3; the order of updates follows StarGAN v2 (A12): per style source, the
discriminators first; then the generators. The latent pass updates generators, encoders and M, a
reference pass the generators only; L_xm updates the encoders once a step. ``update_rule: fused``
makes one update of the generators and one of the discriminators on the same fakes (A13).
Guidances: "z" latent, "i" face, "a" voice; a pass is named guidance-2-output, as in "a2i".
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Adam, AdamW, Optimizer

from xfavot.audio.mel import Standardiser
from xfavot.config import RunConfig, TrainConfig
from xfavot.data.batches import Batch, Samples
from xfavot.losses import objective, terms
from xfavot.losses.objective import Terms, may_use_speaker_head
from xfavot.models.content import ContentNetwork
from xfavot.models.f0 import F0Network
from xfavot.models.xfavot import XFaVoT

# Disguises for the self-reconstruction of the small presets (A20): the source hides who it is


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


# Style sources of a step: what is drawn, and what a pass aims at (Table 1)


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
            s_face[rows],
            s_voice[rows],
            voice.speaker[rows],
            tau=cfg.loss.tau,
            form=cfg.loss.xm_form,
        )
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


# The update rule: which modules an optimiser step moves, and in which order


ADAM = ("G_I", "E_I", "D_I", "M")
ADAMW = ("G_A", "E_A", "D_A", "C_A")
WARMUP_BETA1 = 0.9  # A20
AVERAGED = ("G_I", "G_A", "E_I", "E_A", "M")  # A19


def make_optimizers(nets: XFaVoT, cfg: TrainConfig) -> dict[str, Optimizer]:
    """One optimiser a module, with the paper's kinds and rates (appendix A).

    Args:
        nets: the eight modules.
        cfg: rates, betas and weight decay.
    """
    result: dict[str, Optimizer] = {}
    for name, module in nets.named_children():
        kind = Adam if name in ADAM else AdamW
        result[name] = kind(
            module.parameters(),
            lr=cfg.lr_mapping if name == "M" else cfg.lr,
            betas=(cfg.beta1, cfg.beta2),
            weight_decay=cfg.weight_decay,
            fused=True,
        )
    return result


class Ema:
    """Exponential moving averages of the parameters of G_I, G_A, E_I, E_A and M.

    The weight of the past starts small, ``(1 + step) / (10 + step)``, so that the averages of a
    short run hold nothing of its first weights (A19).

    Args:
        nets: the eight modules; their parameters are copied.
        decay: weight of the past in a long run, in [0, 1).
    """

    def __init__(self, nets: XFaVoT, decay: float) -> None:
        """Start from a copy of the present weights."""
        self.decay = decay
        self.modules = nn.ModuleDict({k: copy.deepcopy(getattr(nets, k)) for k in AVERAGED})
        self.modules.requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, nets: XFaVoT, step: int) -> None:
        """Move every average towards the present weights."""
        decay = min(self.decay, (1 + step) / (10 + step))
        own: list[Tensor] = list(self.modules.parameters())
        new: list[Tensor] = [p for k in AVERAGED for p in getattr(nets, k).parameters()]
        torch._foreach_lerp_(own, new, 1.0 - decay)


class Updater:
    """Carries out training steps on a set of networks.

    Args:
        networks: the modules and what they share.
        cfg: the run's configuration.
        guidances: style sources that the data allow, of "z", "i" and "a".
        outputs: modalities generated, of "i" and "a".
    """

    def __init__(
        self, networks: Networks, cfg: RunConfig, *, guidances: tuple[str, ...], outputs: str
    ) -> None:
        """Make the optimisers and the averages."""
        self.n, self.cfg, self.guidances, self.outputs = networks, cfg, guidances, outputs
        self.optimizers = make_optimizers(networks.nets, cfg.train)
        self.ema = Ema(networks.nets, cfg.train.ema_decay)

    def __call__(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Do one step.

        Args:
            batch: the batch of the step, on the device of the networks.
            step: number of the step, from 1.

        Returns:
            Every term of every pass by log key, detached scalars.
        """
        size = batch.paired.shape[0]
        d = draw(self.cfg, step, size, self.guidances)
        self._schedule(step)
        if step <= self.cfg.train.warmup:
            terms = self._warmup(batch, d)
        elif self.cfg.train.update_rule == "fused":
            terms = self._fused(batch, d, step)
        else:
            terms = self._alternate(batch, d, step)
        self.ema.update(self.n.nets, step)
        return named(terms)

    def _autocast(self) -> torch.autocast:
        device = next(self.n.nets.parameters()).device.type
        bf16 = self.cfg.train.precision == "bf16"
        return torch.autocast(device, torch.bfloat16, enabled=bf16)

    def _schedule(self, step: int) -> None:
        """Set rates and momenta: those of the warm-up, or those of the paper."""
        t = self.cfg.train
        for name, optimizer in self.optimizers.items():
            lr, beta1 = (t.lr_mapping if name == "M" else t.lr), t.beta1
            if step <= t.warmup:
                lr, beta1 = t.warmup_lr, WARMUP_BETA1
            for group in optimizer.param_groups:
                group["lr"], group["betas"] = lr, (beta1, t.beta2)

    def _apply(self, names: Iterable[str]) -> None:
        for name in names:
            self.optimizers[name].step()
            self.optimizers[name].zero_grad(set_to_none=True)

    def _warmup(self, batch: Batch, d: Draw) -> dict[str, Terms]:
        with self._autocast():
            terms = pair_terms(self.n, batch, d, self.cfg, rec=True)
            total = objective.pairs(terms, self.cfg.loss, rec=1.0).total
        total.backward()  # type: ignore[no-untyped-call]
        self._apply(("G_I", "G_A", "E_I", "E_A"))
        return {"w": terms}

    def _alternate(self, batch: Batch, d: Draw, step: int) -> dict[str, Terms]:
        logged: dict[str, Terms] = {}
        with self._autocast():
            voices = self._voices(batch)
        for guidance in d.guidances:
            with torch.no_grad(), self._autocast():
                t = make_target(self.n.nets, batch, guidance, d)
                fakes = self._fakes(batch, t, voices)
            for output, ts in self._discriminate(batch, fakes, d, step).items():
                logged[f"d/{guidance}2{output}"] = ts
            self._apply(DISCRIMINATOR_SIDE)
        for n, guidance in enumerate(d.guidances):
            made = self._generate(batch, d, guidance, voices, step, with_xm=n == 0)
            logged |= made[0]
            self._apply(GENERATOR_SIDE)
        return logged

    def _fused(self, batch: Batch, d: Draw, step: int) -> dict[str, Terms]:
        logged: dict[str, Terms] = {}
        fakes: dict[str, list[tuple[Target, Tensor]]] = {"i": [], "a": []}
        with self._autocast():
            voices = self._voices(batch)
        for n, guidance in enumerate(d.guidances):
            terms, made = self._generate(batch, d, guidance, voices, step, with_xm=n == 0)
            logged |= terms
            for output, pair in made.items():
                fakes[output].append(pair)
        self._apply(GENERATOR_SIDE)
        for output, ts in self._discriminate(batch, fakes, d, step).items():
            logged[f"d/{''.join(d.guidances)}2{output}"] = ts
        self._apply(DISCRIMINATOR_SIDE)
        return logged

    def _voices(self, batch: Batch) -> Voices | None:
        if "a" not in self.outputs or batch.source_audio is None:
            return None
        return analyse_voices(self.n, batch.source_audio)

    def _fakes(
        self, batch: Batch, t: Target, voices: Voices | None
    ) -> dict[str, list[tuple[Target, Tensor]]]:
        fakes: dict[str, list[tuple[Target, Tensor]]] = {"i": [], "a": []}
        if "i" in self.outputs and batch.source_image is not None:
            fakes["i"].append((t, self.n.nets.G_I(batch.source_image.x, t.s1)))
        if voices is not None and batch.source_audio is not None:
            x = batch.source_audio.x
            fakes["a"].append((t, self.n.nets.G_A(x, t.s1, voices.f0_features)))
        return fakes

    def _discriminate(
        self, batch: Batch, fakes: dict[str, list[tuple[Target, Tensor]]], d: Draw, step: int
    ) -> dict[str, Terms]:
        due = step % self.cfg.train.r1_every == 0
        w = self.cfg.loss
        with self._autocast():
            by_output = discriminator_terms(self.n, batch, fakes, d.speaker_family, due)
            totals = [
                (objective.discriminator_image if o == "i" else objective.discriminator_audio)(
                    ts, w, r1_every=self.cfg.train.r1_every
                ).total
                for o, ts in by_output.items()
            ]
        torch.stack(totals).sum().backward()  # type: ignore[no-untyped-call]
        return by_output

    def _generate(
        self,
        batch: Batch,
        d: Draw,
        guidance: str,
        voices: Voices | None,
        step: int,
        *,
        with_xm: bool,
    ) -> tuple[dict[str, Terms], dict[str, tuple[Target, Tensor]]]:
        """One pass of the generators' side; gradients are left in the parameters."""
        nets, w = self.n.nets, self.cfg.loss
        logged: dict[str, Terms] = {}
        made: dict[str, tuple[Target, Tensor]] = {}
        both = batch.ref_image is not None and batch.ref_audio is not None
        if with_xm and (w.rec > 0 or (w.xm > 0 and both)):
            with self._autocast():
                logged["g"] = pair_terms(self.n, batch, d, self.cfg, rec=w.rec > 0)
                total = objective.pairs(logged["g"], w, rec=w.rec).total
            total.backward()  # type: ignore[no-untyped-call]
        held = [nets.D_I, nets.D_A, nets.C_A]
        held += [nets.E_I, nets.E_A, nets.M] if guidance != "z" else []
        t: Target | None = None
        with frozen(*held):
            for output in self.outputs:
                with self._autocast():
                    if t is None or guidance == "z":  # M's graph is spent with each backward
                        t = make_target(nets, batch, guidance, d)
                    if output == "i" and batch.source_image is not None:
                        terms, fake = generator_image_terms(self.n, batch, t)
                        total = objective.generator_image(terms, w, step=step).total
                    elif output == "a" and voices is not None:
                        terms, fake = generator_audio_terms(
                            self.n, batch, t, voices, d.speaker_family
                        )
                        total = objective.generator_audio(terms, w, step=step).total
                    else:
                        continue
                total.backward()  # type: ignore[no-untyped-call]
                logged[f"g/{guidance}2{output}"] = terms
                made[output] = (t, fake.detach())
        return logged, made
