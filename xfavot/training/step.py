"""One training step: from a batch to the terms of the objective, and the updates they make.

Paper Sec. 3.2 and 3.3; the order of updates follows StarGAN v2 (A12). Guidances, the sources of a
style: "z" latent, "i" face, "a" voice; outputs: "i", "a"; a pass is named guidance-2-output, as in
"a2i". :class:`Updater` shows the passes of a step, then come the terms of each pass and the draws.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Adam, AdamW, Optimizer

from xfavot.audio.mel import Standardiser
from xfavot.config import LossConfig, RunConfig
from xfavot.data.batches import Batch, Samples
from xfavot.losses import objective, terms
from xfavot.losses.objective import Terms, may_use_speaker_head
from xfavot.models.content import ContentNetwork
from xfavot.models.f0 import F0Network
from xfavot.models.xfavot import XFaVoT

GENERATOR_SIDE = ("G_I", "G_A", "E_I", "E_A", "M")  # their moving averages are kept, too (A19)
DISCRIMINATOR_SIDE = ("D_I", "D_A", "C_A")
ADAM = ("G_I", "E_I", "D_I", "M")  # the others AdamW, STATED (appendix A)
WARMUP_BETA1 = 0.9  # A20


@dataclass(slots=True)
class Networks:
    """The eight trained modules and the two frozen ones, with the mel statistics they share."""

    nets: XFaVoT
    f0: F0Network
    content: ContentNetwork
    standardiser: Standardiser


def place(n: Networks, device: torch.device) -> Networks:
    """Move the networks of a run to a device, the frozen ones without gradients."""
    for module in (n.f0, n.content):
        module.requires_grad_(False).eval().to(device)
    n.nets.to(device)
    for name in ("E_I", "E_A", "D_I", "D_A", "C_A"):  # faster there; no gain for the generators
        getattr(n.nets, name).to(memory_format=torch.channels_last)
    return Networks(n.nets, n.f0, n.content, n.standardiser.to(device))


class Fake(NamedTuple):
    """What a generator made, and the styles and codes that it was asked for."""

    output: str  # "i" or "a"
    target: Target
    x: Tensor  # (B, 3, H, W) or (B, 1, M, T), without gradient


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
        """Make an optimiser a module, of the paper's kinds, and the averages."""
        self.n, self.cfg, self.guidances, self.outputs = networks, cfg, guidances, outputs
        t = cfg.train
        self.optimizers: dict[str, Optimizer] = {
            name: (Adam if name in ADAM else AdamW)(
                module.parameters(),
                lr=t.lr_mapping if name == "M" else t.lr,
                betas=(t.beta1, t.beta2),
                weight_decay=t.weight_decay,
                fused=True,
            )
            for name, module in networks.nets.named_children()
        }
        self.ema = Ema(networks.nets, t.ema_decay)
        device = next(networks.nets.parameters()).device
        genders, domains = networks.nets.genders, networks.nets.M.domains
        heads = {"G_I": 1, "G_A": 1, "E_I": genders, "E_A": genders, "M": domains, "C_A": domains}
        self.trained: dict[str, Tensor] | None = {  # None: of a checkpoint that did not count
            name: torch.zeros(n, dtype=torch.int64, device=device) for name, n in heads.items()
        }

    def __call__(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Do one step.

        Args:
            batch: the batch of the step, on the device of the networks.
            step: number of the step, from 1.

        Returns:
            Every term of every pass by log key, such as "g/a2i/sty": detached scalars.
        """
        d = draw(self.cfg, step, batch.paired.shape[0], self.guidances)
        self._set_rates(step)
        if step <= self.cfg.train.warmup:  # A20
            logged = self._pairs(batch, d, step)
            self._move("G_I", "G_A", "E_I", "E_A")
        elif self.cfg.train.update_rule == "alternate":
            logged = self._alternate(batch, d, step)
        else:
            logged = self._fused(batch, d, step)
        self.ema.update(self.n.nets, step)
        return {f"{p}/{k}": v.detach() for p, ts in logged.items() for k, v in ts.items()}

    def _alternate(self, batch: Batch, d: Draw, step: int) -> dict[str, Terms]:
        """Four kinds of passes as in StarGAN v2 (A12), with two references instead of one.

        Discriminators with latent styles, then with styles of references; generators, encoders and
        M with latent styles and from the pairs, then the generators alone with those of references.
        """
        logged: dict[str, Terms] = {}
        voices = self._analyse(batch)
        for guidance in d.guidances:
            fakes = self._fakes(batch, guidance, d, voices)
            logged |= self._discriminators(batch, fakes, d, step)
            self._move(*DISCRIMINATOR_SIDE)
        logged |= self._pairs(batch, d, step)
        for guidance in d.guidances:
            logged |= self._generators(batch, guidance, d, voices, step)[0]
            self._move(*GENERATOR_SIDE)
        return logged

    def _fused(self, batch: Batch, d: Draw, step: int) -> dict[str, Terms]:
        """One update of the generators' side, then one of the discriminators on its fakes (A13)."""
        fakes: list[Fake] = []
        voices = self._analyse(batch)
        logged = self._pairs(batch, d, step)
        for guidance in d.guidances:
            made = self._generators(batch, guidance, d, voices, step)
            logged |= made[0]
            fakes += made[1]
        self._move(*GENERATOR_SIDE)
        logged |= self._discriminators(batch, fakes, d, step)
        self._move(*DISCRIMINATOR_SIDE)
        return logged

    def _fakes(self, batch: Batch, guidance: str, d: Draw, voices: Voices | None) -> list[Fake]:
        """What the generators make of the sources in one style, for the discriminators."""
        with torch.no_grad(), self._autocast():
            t = make_target(self.n.nets, batch, guidance, d)
            return [Fake(o, t, generate(self.n.nets, batch, o, t.s1, voices)) for o in self.outputs]

    def _discriminators(
        self, batch: Batch, fakes: Sequence[Fake], d: Draw, step: int
    ) -> dict[str, Terms]:
        """Gradients of D_I, D_A and C_A on the given fakes."""
        due = step % self.cfg.train.r1_every == 0
        weights = objective.weights(self.cfg, step)
        logged, totals = {}, []
        with self._autocast():
            for output in self.outputs:
                found = [f for f in fakes if f.output == output]
                name = "".join(f.target.guidance for f in found)
                ts = discriminator_terms(self.n.nets, batch, found, d.by_speaker, r1_due=due)
                for fake in found if output == "a" else ():
                    source, _, rows = class_rows(batch, fake.target, d.by_speaker)
                    self._count("C_A", source + d.by_speaker * self.n.nets.genders, rows)
                totals.append(objective.total(ts, weights[f"D_{output.upper()}"]))
                logged[f"d/{name}2{output}"] = ts
        torch.stack(totals).sum().backward()  # type: ignore[no-untyped-call]
        return logged

    def _pairs(self, batch: Batch, d: Draw, step: int) -> dict[str, Terms]:
        """Gradients of the encoders from L_xm, and of the generators from A20 where asked for."""
        w, warmup = self.cfg.loss, step <= self.cfg.train.warmup
        both = batch.ref_image is not None and batch.ref_audio is not None
        if not (warmup or w.rec > 0 or (w.xm > 0 and both)):
            return {}
        with self._autocast():
            ts = pair_terms(self.n, batch, d, w, rec=warmup or w.rec > 0)
            total = objective.total(ts, objective.weights(self.cfg, step)["pairs"])
        total.backward()  # type: ignore[no-untyped-call]
        regenerated = warmup or w.rec > 0
        for name, x in (("_I", batch.ref_image), ("_A", batch.ref_audio)):
            if x is not None:
                self._count("E" + name, x.gender, None if regenerated else batch.paired)
                if regenerated:
                    self._count("G" + name, torch.zeros_like(x.gender))
        return {"w" if warmup else "g": ts}

    def _generators(
        self, batch: Batch, guidance: str, d: Draw, voices: Voices | None, step: int
    ) -> tuple[dict[str, Terms], list[Fake]]:
        """Gradients of the generators, with latent styles also of the encoders and M; the fakes."""
        nets = self.n.nets
        weights = objective.weights(self.cfg, step)
        held = DISCRIMINATOR_SIDE if guidance == "z" else (*DISCRIMINATOR_SIDE, "E_I", "E_A", "M")
        logged: dict[str, Terms] = {}
        fakes: list[Fake] = []
        with frozen(*(getattr(nets, name) for name in held)):
            for output in self.outputs:
                with self._autocast():
                    if not fakes or guidance == "z":  # M's graph is spent with each backward
                        t = make_target(nets, batch, guidance, d)
                    ts, fake = generator_terms(self.n, batch, t, output, voices, d.by_speaker)
                    total = objective.total(ts, weights[f"G_{output.upper()}"])
                total.backward()  # type: ignore[no-untyped-call]
                logged[f"g/{guidance}2{output}"] = ts
                fakes.append(Fake(output, t, fake.detach()))
                x = batch.source_image if output == "i" else batch.source_audio
                assert x is not None
                self._count(f"G_{output.upper()}", torch.zeros_like(x.gender))
                if guidance == "z":
                    self._count(f"E_{output.upper()}", x.gender)
        if guidance == "z":
            self._count("M", audio_domain(t.gender, t.speaker, d.by_speaker, nets.genders))
        return logged, fakes

    def _count(self, module: str, heads: Tensor, rows: Tensor | None = None) -> None:
        """Count samples (B,) towards the heads that they train; heads below 0 are none."""
        if self.trained is not None:
            used = heads >= 0 if rows is None else rows & (heads >= 0)
            self.trained[module].index_add_(0, heads.clamp(min=0), used.long())

    def _analyse(self, batch: Batch) -> Voices | None:
        with self._autocast():
            return analyse_voices(self.n, batch) if "a" in self.outputs else None

    def _autocast(self) -> torch.autocast:
        device = next(self.n.nets.parameters()).device.type
        return torch.autocast(device, torch.bfloat16, enabled=self.cfg.train.precision == "bf16")

    def _set_rates(self, step: int) -> None:
        """Set rates and momenta: those of the warm-up, or those of the paper."""
        t = self.cfg.train
        for name, optimizer in self.optimizers.items():
            lr, beta1 = (t.lr_mapping if name == "M" else t.lr), t.beta1
            if step <= t.warmup:
                lr, beta1 = t.warmup_lr, WARMUP_BETA1
            for group in optimizer.param_groups:
                group["lr"], group["betas"] = lr, (beta1, t.beta2)

    def _move(self, *names: str) -> None:
        """Let the optimisers of these modules move, and forget their gradients."""
        for name in names:
            self.optimizers[name].step()
            self.optimizers[name].zero_grad(set_to_none=True)


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
        self.modules = nn.ModuleDict({k: copy.deepcopy(getattr(nets, k)) for k in GENERATOR_SIDE})
        self.modules.requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, nets: XFaVoT, step: int) -> None:
        """Move every average towards the present weights."""
        decay = min(self.decay, (1 + step) / (10 + step))
        own: list[Tensor] = list(self.modules.parameters())
        new: list[Tensor] = [p for k in GENERATOR_SIDE for p in getattr(nets, k).parameters()]
        torch._foreach_lerp_(own, new, 1.0 - decay)


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


# What a pass aims at: two styles of one domain, and the heads that judge what is made of them


@dataclass(slots=True)
class Target:
    """Two styles of one domain and the codes of the reference that they stand for."""

    guidance: str
    s1: Tensor  # (B, S)
    s2: Tensor  # (B, S)
    gender: Tensor  # (B,)
    speaker: Tensor  # (B,), -1 where the speaker heads may not be used (Table 1)


def make_target(nets: XFaVoT, batch: Batch, guidance: str, d: Draw) -> Target:
    """Compute the two styles of one pass from M, E_I or E_A (Table 1)."""
    if guidance == "z":
        reference = batch.ref_audio if batch.ref_audio is not None else batch.ref_image
        assert reference is not None
        domain = audio_domain(reference.gender, reference.speaker, d.by_speaker, nets.genders)
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


def audio_domain(gender: Tensor, speaker: Tensor, by_speaker: bool, genders: int) -> Tensor:
    """Head index of D_A and M: the speaker's where it may be used, else the gender's.

    Args:
        gender, speaker: (B,) codes; speaker -1 where unknown.
        by_speaker: whether the speaker heads were drawn for this step.
        genders: number of gender heads, which come first.

    Returns:
        (B,) long.
    """
    return torch.where(speaker >= 0, speaker + genders, gender) if by_speaker else gender


def class_logits(nets: XFaVoT, x: Tensor, by_speaker: bool) -> Tensor:
    """Logits of the classifier's group that the step uses: (B, 2) or (B, speakers)."""
    logits: Tensor = nets.C_A(x)[by_speaker]
    return logits


def class_rows(batch: Batch, t: Target, by_speaker: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Source labels, reference labels and the rows where both are known and differ, each (B,)."""
    x = batch.source_audio
    assert x is not None
    source, reference = (x.speaker, t.speaker) if by_speaker else (x.gender, t.gender)
    return source, reference, (source >= 0) & (reference >= 0) & (source != reference)


# The terms of every pass (Sec. 3.2), each a function of `xfavot.losses.terms`


@dataclass(slots=True)
class Voices:
    """What is computed once a step from the real source voices."""

    f0: Tensor  # (B, T) Hz
    f0_features: Tensor  # (B, C, M', T)
    content: Tensor  # (B, C, T')
    energy: Tensor  # (B, T)


@torch.no_grad()
def analyse_voices(n: Networks, batch: Batch) -> Voices:
    """F0, content and energy of the real source voices, without gradient."""
    assert batch.source_audio is not None
    x = batch.source_audio.x
    f0 = n.f0(x)
    energy = terms.frame_energy(n.standardiser.restore(x))
    return Voices(f0.f0, f0.features, n.content.features(x), energy)


def generate(
    nets: XFaVoT, batch: Batch, output: str, style: Tensor, voices: Voices | None
) -> Tensor:
    """Source faces (output "i") or source voices ("a") in a style (B, S)."""
    x = batch.source_image if output == "i" else batch.source_audio
    assert x is not None
    if voices is None or output == "i":
        made: Tensor = nets.G_I(x.x, style)
    else:
        made = nets.G_A(x.x, style, voices.f0_features)
    return made


def generator_terms(
    n: Networks, batch: Batch, t: Target, output: str, voices: Voices | None, by_speaker: bool
) -> tuple[Terms, Tensor]:
    """Terms of G_I's (output "i") or G_A's ("a") objective for one pass, and the fakes."""
    nets = n.nets
    fake = generate(nets, batch, output, t.s1, voices)
    with torch.no_grad():
        other = generate(nets, batch, output, t.s2, voices)
    if output == "i" or voices is None:
        x = batch.source_image
        assert x is not None
        source_style = nets.E_I(x.x, x.gender)
        return {
            "adv": terms.adversarial_generator(nets.D_I(fake, t.gender)),
            "sty": terms.style_reconstruction(nets.E_I(fake, t.gender), t.s1),
            "ds": terms.style_diversification(fake, other),
            "cyc": terms.cycle_consistency(x.x, nets.G_I(fake, source_style)),
        }, fake
    x = batch.source_audio
    assert x is not None
    source_style = nets.E_A(x.x, x.gender)
    f0 = n.f0(fake)
    _, reference, rows = class_rows(batch, t, by_speaker)
    domain = audio_domain(t.gender, t.speaker, by_speaker, nets.genders)
    return {
        "adv": terms.adversarial_generator(nets.D_A(fake, domain)),
        "sty": terms.style_reconstruction(nets.E_A(fake, t.gender), t.s1),
        "ds": terms.style_diversification(fake, other),
        "cyc": terms.cycle_consistency(x.x, nets.G_A(fake, source_style, f0.features)),
        "sc": terms.speech_consistency(voices.content, n.content.features(fake)),
        "f0": terms.f0_consistency(voices.f0, f0.f0),
        "norm": terms.norm_consistency(
            voices.energy, terms.frame_energy(n.standardiser.restore(fake))
        ),
        "advcls": terms.classification(class_logits(nets, fake, by_speaker), reference, rows),
    }, fake


def discriminator_terms(
    nets: XFaVoT, batch: Batch, fakes: Sequence[Fake], by_speaker: bool, *, r1_due: bool
) -> Terms:
    """Terms of D_I's, or of D_A's and C_A's, objective on fakes of one output, at least one."""
    output = fakes[0].output
    x = batch.source_image if output == "i" else batch.source_audio
    net = nets.D_I if output == "i" else nets.D_A
    assert x is not None

    def domain(of: Samples | Target) -> Tensor:
        return audio_domain(of.gender, of.speaker, by_speaker and output == "a", nets.genders)

    logits, penalty = r1_term(net, x, domain(x), r1_due)
    fake, cls = [], []
    for _, t, made in fakes:
        fake.append(terms.adversarial_fake(net(made, domain(t))))
        if output == "a":
            source, _, rows = class_rows(batch, t, by_speaker)
            cls.append(terms.classification(class_logits(nets, made, by_speaker), source, rows))
    found = {"adv_real": terms.adversarial_real(logits), "adv_fake": torch.stack(fake).mean()}
    return found | ({"cls": torch.stack(cls).mean()} if cls else {}) | {"r1": penalty}


def r1_term(net: nn.Module, x: Samples, domain: Tensor, due: bool) -> tuple[Tensor, Tensor]:
    """Logits of the real samples and their R1 penalty (0 where it is not due), in float32."""
    if not due:
        logits = net(x.x, domain)
        return logits, logits.new_zeros(())
    with torch.autocast(x.x.device.type, enabled=False):
        real = x.x.detach().float().requires_grad_()
        logits = net(real, domain)
        return logits, terms.r1(logits, real)


def pair_terms(n: Networks, batch: Batch, d: Draw, w: LossConfig, *, rec: bool) -> Terms:
    """Terms of the reference pairs: L_xm, and self-reconstruction where asked for (A20).

    For the latter a face (a voice) comes back from a disguised copy of itself and a style of the
    same person: its own, or for half of the steps the other modality's.
    """
    nets, face, voice = n.nets, batch.ref_image, batch.ref_audio
    found: Terms = {}
    s_face: Tensor | None = nets.E_I(face.x, face.gender) if face is not None else None
    s_voice: Tensor | None = nets.E_A(voice.x, voice.gender) if voice is not None else None
    paired = batch.paired[:, None]
    if s_face is not None and s_voice is not None and voice is not None:
        rows = batch.paired.nonzero().squeeze(1)
        found["xm"] = terms.cross_modality_style_consistency(
            s_face[rows], s_voice[rows], voice.speaker[rows], tau=w.tau, form=w.xm_form
        )
    if rec and face is not None and s_face is not None:
        crossed = s_voice if s_voice is not None and d.cross[0] else s_face
        made = nets.G_I(d.disguise.faces(face.x), torch.where(paired, crossed, s_face))
        found["rec_image"] = terms.self_reconstruction(face.x, made)
    if rec and voice is not None and s_voice is not None:
        crossed = s_face if s_face is not None and d.cross[1] else s_voice
        with torch.no_grad():
            features = n.f0.features(voice.x)
        style = torch.where(paired, crossed, s_voice)
        made = nets.G_A(d.disguise.voices(voice.x), style, features)
        found["rec_audio"] = terms.self_reconstruction(voice.x, made)
    return found


# What is drawn in a step


@dataclass(frozen=True, slots=True)
class Draw:
    """The random choices of one step; a function of (seed, step) alone."""

    guidances: tuple[str, ...]
    by_speaker: bool  # which heads of D_A and M and which group of C_A: speakers or genders (A2)
    z1: Tensor  # (B, L)
    z2: Tensor  # (B, L)
    cross: Tensor  # (2,) bool: whether faces, voices are regenerated from the other's style
    disguise: Disguise


def draw(cfg: RunConfig, step: int, batch_size: int, guidances: tuple[str, ...]) -> Draw:
    """Draw the latent codes, the head family and the style sources of a step.

    Args:
        cfg: the run's configuration.
        step: number of the step, from 1.
        batch_size: B.
        guidances: the style sources that the data allow.
    """
    rng = torch.Generator().manual_seed(cfg.seed * 1_000_003 + step)
    speakers = bool(torch.rand((), generator=rng) < cfg.train.speaker_head_probability)
    chosen = guidances
    if cfg.train.sources == "one":
        chosen = (guidances[int(torch.randint(len(guidances), (), generator=rng))],)
    shape = (batch_size, cfg.model.latent_dim)
    return Draw(
        guidances=chosen,
        by_speaker=speakers and cfg.train.dual_domain,
        z1=torch.randn(shape, generator=rng),
        z2=torch.randn(shape, generator=rng),
        cross=torch.rand(2, generator=rng) < 0.5,
        disguise=draw_disguise(rng, batch_size),
    )


MIXING = 1.5  # spread of the logits of the colour mix
GAIN, SHIFT = 0.4, 0.4  # of the mixed colours, in units of [-1, 1]
STRETCH = 0.18  # largest relative stretch of the mel axis


@dataclass(frozen=True, slots=True)
class Disguise:
    """Random numbers that hide who a source is, for self-reconstruction (A20)."""

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
