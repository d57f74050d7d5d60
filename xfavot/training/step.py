"""One training step: from a batch to the terms of the objective, and the updates they make.

Paper Sec. 3.2 and 3.3; the order of updates follows StarGAN v2 (A12). Guidances, the sources of a
style: "z" latent, "i" face, "a" voice; outputs: "i", "a"; a pass is named guidance-2-output, as in
"a2i". :class:`Updater` shows the passes of a step, then come the terms of each pass.
"""

from __future__ import annotations

import copy
import ctypes
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from types import MappingProxyType
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.optim import Adam, AdamW, Optimizer

from xfavot.audio.mel import Standardiser
from xfavot.config import LossConfig, RunConfig
from xfavot.data.batches import Batch, Samples
from xfavot.losses import objective, terms
from xfavot.losses.objective import Terms, may_use_speaker_head
from xfavot.models.blocks import full_precision, recompute
from xfavot.models.content import ContentNetwork
from xfavot.models.f0 import F0Network, F0Output, level_of
from xfavot.models.face_encoder import FaceEncoder
from xfavot.models.xfavot import XFaVoT
from xfavot.training.draws import Draw, draw
from xfavot.training.muon import Muon
from xfavot.training.processes import Processes

GENERATOR_SIDE = ("G_I", "G_A", "E_I", "E_A", "M")  # their moving averages are kept, too (A19)
DISCRIMINATOR_SIDE = ("D_I", "D_A", "C_A")
WARMED = ("G_I", "G_A", "E_I", "E_A")
ADAM = ("G_I", "E_I", "D_I", "M")  # the others AdamW, STATED (appendix A)
WARMUP_BETA1 = 0.9  # A20
LARGE = 50_000_000  # parameters; a step of so many on a CPU takes tens of seconds
GIVES_BACK_EVERY = 16  # steps; see _give_back
CODE_SLACK = 0.2  # octaves; a code of a domain stands for any voice of it (A79)


class Networks(NamedTuple):
    """The trained modules and the two frozen ones, with the mel statistics they share.

    Where no voices are made, the frozen ones are empty modules. `face`: a third frozen one, where
    faces are to show the person of their reference (A85). `processes`: those that compute on parts
    of one batch.
    """

    nets: XFaVoT
    f0: F0Network
    content: ContentNetwork
    standardiser: Standardiser
    processes: Processes = Processes()
    face: FaceEncoder | None = None


def listeners(cfg: RunConfig, *, depth: int = 0) -> tuple[F0Network, ContentNetwork]:
    """The frozen networks of a run, yet untrained; empty modules where it trains no voices."""
    if "audio" not in cfg.train.modalities:
        return cast(F0Network, nn.Module()), cast(ContentNetwork, nn.Module())
    return F0Network.from_config(cfg.model), ContentNetwork.from_config(cfg.model, depth=depth)


def place(n: Networks, device: torch.device) -> Networks:
    """Move the networks of a run to a device, the frozen ones without gradients."""
    for module in (n.f0, n.content):
        module.requires_grad_(False).eval().to(device)
    n.nets.to(device)
    for name, own in n.nets.named_children():
        if name in ("E_I", "E_A", *DISCRIMINATOR_SIDE):  # faster there; no gain for the generators
            own.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return n._replace(standardiser=n.standardiser.to(device))


class Updater:
    """Carries out training steps on a set of networks.

    Args:
        networks: the modules and what they share.
        cfg: the run's configuration.
        guidances: style sources that the data allow, of "z", "i" and "a".
        outputs: modalities generated, of "i" and "a".

    Attributes:
        muons: optimisers of the matrices during the warm-up, where they are asked for (A81).
        ema: moving averages of the parameters of G_I, G_A, E_I, E_A and M, those that there are.
        trained: samples that have trained each head of a module so far; None where the run goes on
            from a checkpoint that did not count.
    """

    def __init__(
        self, networks: Networks, cfg: RunConfig, *, guidances: tuple[str, ...], outputs: str
    ) -> None:
        """Make an optimiser a module, of the paper's kinds, and the averages."""
        nets = networks.nets
        self.device = next(nets.parameters()).device
        if cfg.loss.perceptual + cfg.loss.resemblance > 0 and "i" in outputs:
            networks = networks._replace(face=FaceEncoder().to(self.device))
        self.n, self.cfg, self.guidances, self.outputs = networks, cfg, guidances, outputs
        self.optimizers: dict[str, Optimizer] = {
            name: (Adam if name in ADAM else AdamW)(
                module.parameters(), weight_decay=cfg.train.weight_decay, fused=True
            )
            for name, module in nets.named_children()
        }
        named = dict(nets.named_children())
        warmed = [k for k in WARMED if k in named] if cfg.train.warmup_muon else []
        self.muons = {k: Muon(named[k].parameters(), lr=cfg.train.warmup_muon) for k in warmed}
        averaged = {k: copy.deepcopy(m) for k, m in nets.named_children() if k in GENERATOR_SIDE}
        self.ema = nn.ModuleDict(averaged).requires_grad_(False).eval()
        if cfg.train.checkpointing:
            recompute(nets)
        self.large = self.device.type == "cpu" and nets.parameter_table()[-1][1] > LARGE
        genders, domains = nets.genders, nets.M.domains
        heads = {"G_I": 1, "G_A": 1, "E_I": genders, "E_A": genders, "M": domains, "C_A": domains}
        self.trained: dict[str, Tensor] | None = {
            k: torch.zeros(n, dtype=torch.int64, device=self.device)
            for k, n in heads.items()
            if hasattr(nets, k)
        }

    def __call__(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Do one step.

        Args:
            batch: the batch of the step, on the device of the networks; of several processes, the
                part of this one.
            step: number of the step, from 1.

        Returns:
            Every term of every pass by log key, such as "g/a2i/sty": detached scalars.
        """
        own, rank, count = len(batch.paired), self.n.processes.rank, self.n.processes.count
        d = draw(self.cfg, step, own * count, self.guidances).part(rank * own, own)
        d = replace(d, voices=d.voices or "i" not in self.outputs)
        self.set_rates(step)
        with self._autocast():
            seen = see_references(self.n, batch)
        told = References(hear_references(self.n, batch) if d.voices else None, seen)
        if step <= self.cfg.train.warmup:  # A20
            logged = self._pairs(batch, d, told)
            self._move(*WARMED, "M")
        else:
            with self._autocast():
                voices = analyse_voices(self.n, batch) if "a" in self._due(d) else None
            rule = self._alternate if self.cfg.train.update_rule == "alternate" else self._fused
            logged = rule(batch, d, voices, told)
        self._average(step)
        if step % GIVES_BACK_EVERY == 0:
            self._give_back(due=True)
        return {f"{p}/{k}": v.detach() for p, ts in logged.items() for k, v in ts.items()}

    def _alternate(
        self, batch: Batch, d: Draw, voices: Voices | None, told: References
    ) -> dict[str, Terms]:
        """Four kinds of passes as in StarGAN v2 (A12), with two references instead of one.

        Discriminators with latent styles, then with styles of references; generators, encoders and
        M with latent styles and from the pairs, then the generators alone with those of references.
        """
        logged: dict[str, Terms] = {}
        nets = self.n.nets
        f0 = {"i": None, "a": voices and voices.f0}
        with torch.no_grad(), self._autocast():
            kept = {o: content(nets, sources(batch, o).x, f0[o]) for o in self._due(d)}
        for guidance in d.guidances:
            with torch.no_grad(), self._autocast():
                t = make_target(nets, batch, guidance, d)
                made = {o: [(t, styled(nets, kept[o], t.s1, f0[o]))] for o in kept}
            logged |= self._discriminators(batch, made, d)
        logged |= self._pairs(batch, d, told)
        for guidance in d.guidances:
            logged |= self._generators(batch, (guidance,), d, voices, told)[0]
            self._move(*GENERATOR_SIDE)
        return logged

    def _fused(
        self, batch: Batch, d: Draw, voices: Voices | None, told: References
    ) -> dict[str, Terms]:
        """One update of the generators' side and one of the discriminators, on its fakes (A13).

        Neither waits for the other, so the discriminators see every fake once: the pass that leads
        the generators teaches the discriminators, too.
        """
        logged = self._pairs(batch, d, told)
        found, made = self._generators(batch, d.guidances, d, voices, told, teach=True)
        taught = {
            o: {
                k: torch.stack([found[f"g/{t.guidance}2{o}"].pop(k) for t, _ in fakes]).mean()
                for k in ("adv_fake", "cls")[: 1 + (o == "a")]
            }
            for o, fakes in made.items()
        }
        self._move(*GENERATOR_SIDE)
        return logged | found | self._discriminators(batch, made, d, taught)

    def _due(self, d: Draw) -> str:
        """What is generated in this step, of "i" and "a" (A83)."""
        return self.outputs if d.voices else "i"

    def _discriminators(
        self,
        batch: Batch,
        made: Mapping[str, Fakes],
        d: Draw,
        taught: Mapping[str, Terms] = MappingProxyType({}),
    ) -> dict[str, Terms]:
        """An update of D_I, D_A and C_A on the given fakes of each output.

        `taught`: the terms of the fakes by output, where their gradients are there already.
        """
        weights = objective.weights(self.cfg, d.step)
        logged, totals = {}, []
        with self._autocast():
            for o, fakes in made.items():
                updates = d.step // (self.cfg.train.voices_every if o == "a" else 1)
                due = updates % self.cfg.train.r1_every == 0
                of_fakes = taught.get(o) or fake_terms(self.n, batch, o, fakes, d.by_speaker)
                ts = of_fakes | real_terms(self.n, batch, o, d.by_speaker, r1_due=due)
                totals.append(objective.total(ts, weights[f"D_{o.upper()}"]))
                logged[f"d/{''.join(t.guidance for t, _ in fakes)}2{o}"] = ts
        torch.stack(totals).sum().backward()  # type: ignore[no-untyped-call]
        for t, _ in made.get("a", ()):
            source, _, rows = class_rows(batch, t, d.by_speaker)
            heads = source + d.by_speaker * self.n.nets.genders
            self._count("C_A", torch.where(rows, heads, -1))
        self._move(*DISCRIMINATOR_SIDE)
        return logged

    def _pairs(self, batch: Batch, d: Draw, told: References) -> dict[str, Terms]:
        """Gradients of the encoders from L_xm, and of the generators from A20 where asked for."""
        w, warmup = self.cfg.loss, d.step <= self.cfg.train.warmup
        both = batch.ref_image is not None and batch.ref_audio is not None
        rec = warmup or w.rec > 0
        if not (rec or (w.xm > 0 and both) or told.heard or w.codes > 0):
            return {}
        with self._autocast():
            convert = warmup and w.resemblance > 0
            ts = pair_terms(self.n, batch, d, w, *told, rec=rec, convert=convert)
            total = objective.total(ts, objective.weights(self.cfg, d.step)["pairs"])
        total.backward()  # type: ignore[no-untyped-call]
        for name, x in (("_I", batch.ref_image), ("_A", batch.ref_audio)):
            if x is not None:
                self._count(
                    "E" + name, x.gender if rec else torch.where(batch.paired, x.gender, -1)
                )
                own = rec and (name == "_I" or d.voices)
                self._count("G" + name, torch.full_like(x.gender, 0 if own else -1))
        if batch.pair_image:
            for name in ("E_I", "E_A"):
                self._count(name, batch.pair_image.gender)
        for domain in code_domains(batch, d, self.n.nets.genders).values():
            self._count("M", domain if w.codes > 0 else torch.full_like(domain, -1))
        return {"w" if warmup else "g": ts}

    def _generators(
        self,
        batch: Batch,
        guidances: Sequence[str],
        d: Draw,
        voices: Voices | None,
        told: References,
        *,
        teach: bool = False,
    ) -> tuple[dict[str, Terms], dict[str, Fakes]]:
        """Gradients of the generators, with latent styles also of the encoders and M; the fakes.

        What the passes share of their sources is computed once, and so is its backward pass, on the
        sum of what the passes ask for. `teach`: also the gradients of D_I, D_A and C_A from the
        fakes, and their terms.
        """
        nets, weights = self.n.nets, objective.weights(self.cfg, d.step)
        teachers = () if teach else DISCRIMINATOR_SIDE
        led = [p for k, m in nets.named_children() if k != "C_A" for p in m.parameters()]
        logged, made, targets = dict[str, Terms](), dict[str, Fakes](), dict[str, Target]()
        for output in self._due(d):
            with self._autocast():
                known = know(self.n, batch, output, voices, train_style="z" in guidances)
            cut = Known(*(one.detach().requires_grad_() for one in known))
            for guidance in guidances:
                latent = guidance == "z"
                held = teachers if latent else (*teachers, "E_I", "E_A", "M")
                with frozen(*(m for name, m in nets.named_children() if name in held)):
                    with self._autocast():
                        if latent or guidance not in targets:  # M's graph is spent each time
                            targets[guidance] = make_target(nets, batch, guidance, d)
                        t = targets[guidance]
                        own = cut if latent else Known(cut.content, cut.style.detach())
                        share = weights[f"D_{output.upper()}"]["adv_fake"] / len(guidances)
                        ts, fake = generator_terms(
                            self.n,
                            batch,
                            t,
                            output,
                            voices,
                            d.by_speaker,
                            known=own,
                            seen=told.seen,
                            teach=share if teach else 0,
                        )
                        if told.heard and guidance + output == "za":
                            level = nets.G_A.level_of(t.s1, held=True)
                            wanted = level_of(told.heard)
                            ts["level"] = terms.pitch_level(level, wanted, slack=CODE_SLACK)
                        total = objective.total(ts, weights[f"G_{output.upper()}"])
                    if teach and output == "a":
                        lesson = weights["D_A"]["cls"] / len(guidances) * ts["cls"]
                        heard_by = list(nets.C_A.parameters())
                        torch.autograd.backward(lesson, inputs=heard_by, retain_graph=True)
                    moved = [x for x in (*led, *own) if x.requires_grad]
                    torch.autograd.backward(total, inputs=moved)
                self._give_back()
                logged[f"g/{guidance}2{output}"] = {k: v.detach() for k, v in ts.items()}
                made[output] = [*made.get(output, ()), (t, fake.detach())]
                gender = sources(batch, output).gender
                self._count(f"G_{output.upper()}", torch.zeros_like(gender))
                if latent:
                    self._count(f"E_{output.upper()}", gender)
            asked = [(of, to.grad) for of, to in zip(known, cut, strict=True) if of.requires_grad]
            torch.autograd.backward([of for of, _ in asked], [grad for _, grad in asked])
        if "z" in guidances:
            self._count("M", audio_domain(targets["z"], d.by_speaker, nets.genders))
        return logged, made

    def _count(self, module: str, heads: Tensor) -> None:
        """Count samples (B,) towards the heads that they train; heads below 0 are none."""
        if self.trained is not None:
            heads = self.n.processes.together(heads)
            self.trained[module].index_add_(0, heads.clamp(min=0), (heads >= 0).long())

    def _autocast(self) -> torch.autocast:
        bf16 = self.cfg.train.precision == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=bf16)

    def set_rates(self, step: int) -> None:
        """Set rates and momenta of a step: those of the warm-up (A20, A81), or the paper's."""
        t = self.cfg.train
        if step > t.warmup:
            self.muons.clear()
        for name, optimizer in self.optimizers.items():
            lr, beta1 = (t.lr_mapping if name == "M" else t.lr), t.beta1
            if step <= t.warmup:
                lr, beta1 = t.warmup_lr, WARMUP_BETA1
            optimizer.param_groups[0].update(lr=lr, betas=(beta1, t.beta2))

    def _move(self, *names: str) -> None:
        """Let the optimisers of these modules move, and forget their gradients.

        Where beta1 is 0 (A15), Adam's mean of gradients is the gradient: one memory serves both,
        and between two steps nothing is kept of it.
        """
        for name in (name for name in names if name in self.optimizers):
            optimizer = self.optimizers[name]
            own = [p.grad for p in optimizer.param_groups[0]["params"] if p.grad is not None]
            self.n.processes.average(own)
            if name in self.muons:  # leaves the others to Adam
                self.muons[name].step()
            means = optimizer.state if optimizer.param_groups[0]["betas"][0] == 0 else {}
            for p in means:
                means[p]["exp_avg"] = means[p]["exp_avg"] if p.grad is None else p.grad
            optimizer.step()
            for p in means:
                means[p]["exp_avg"] = p.new_empty(0)
            optimizer.zero_grad(set_to_none=True)
        self._give_back()

    def _give_back(self, *, due: bool = False) -> None:
        """Give memory that is free back to the system, where the C library is able to (glibc).

        Of a large model on a CPU whenever this is called; of any other when it is `due`: what glibc
        keeps for itself grows from step to step.
        """
        if self.large or due:
            with suppress(AttributeError, OSError, TypeError):
                ctypes.CDLL(None).malloc_trim(0)

    @torch.no_grad()
    def _average(self, step: int) -> None:
        """Move every average towards the present weights.

        The weight of the past starts small, ``(1 + step) / (10 + step)``, so that the averages of a
        short run hold nothing of its first weights (A19).
        """
        decay = min(self.cfg.train.ema_decay, (1 + step) / (10 + step))
        own = tuple(self.ema.parameters())
        new = tuple(p for k in self.ema for p in getattr(self.n.nets, k).parameters())
        torch._foreach_lerp_(own, new, 1.0 - decay)


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Let no gradient reach the parameters of these modules; it still flows through them."""
    for module in modules:
        module.requires_grad_(False)
    try:
        yield
    finally:
        for module in modules:
            module.requires_grad_(True)


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
    if n.face and output == "i" and t.guidance != "z" and batch.ref_image is not None:
        shown, wanted = batch.paired | (t.guidance == "i"), seen or see_references(n, batch)
        found["resemblance"] = terms.resemblance(n.face.maps(fake), wanted, shown)
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
    """
    nets, face, voice, found = n.nets, batch.ref_image, batch.ref_audio, Terms()
    sides = ("i", "E_I", face), ("a", "E_A", voice)
    s: dict[str, Tensor] = {
        side: getattr(nets, name)(x.x, x.gender) for side, name, x in sides if x is not None
    }

    def style(own: str, other: str, cross: Tensor) -> Tensor:
        return torch.where(batch.paired[:, None], s[other if cross and other in s else own], s[own])

    every = {side: n.processes.together(styles) for side, styles in s.items()}
    paired = n.processes.together(batch.paired)
    if voice is not None and "i" in s:
        rows, person = paired.nonzero().squeeze(1), n.processes.together(voice.person)
        pairs = [every["i"][rows], every["a"][rows], person[rows]]
        if (i := batch.pair_image) and (a := batch.pair_audio):  # A90
            more = nets.E_I(i.x, i.gender), nets.E_A(a.x, a.gender), a.person
            pairs = [*map(torch.cat, zip(pairs, map(n.processes.together, more), strict=True))]
        found["xm"] = terms.cross_modality_style_consistency(*pairs, tau=w.tau, form=w.xm_form)
    if heard:
        levels = n.processes.together(level_of(heard))
        both = torch.cat([every["a"], every["i"][paired]] if "i" in s else [every["a"]])
        known = torch.cat([levels, levels[paired]][: len(s)])
        found["level"] = terms.pitch_level(nets.G_A.level_of(both), known)
    if w.codes > 0:
        domains = code_domains(batch, d, nets.genders)  # M once: its gradient is as large as it is
        heads = torch.cat([domain for domain in domains.values() for _ in range(2)])
        drawn = nets.M(torch.cat([d.z1, d.z2] * len(domains)).to(heads.device), heads)
        two = zip(s.items(), drawn.unflatten(0, (len(domains), 2, -1)), strict=True)
        matches = [terms.code_match(made[0], made[1], own.detach()) for (_, own), made in two]
        found["codes"] = torch.stack(matches).mean()
    if rec and face is not None:
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
    if rec and voice is not None and d.voices:
        with torch.no_grad():
            pitch = nets.G_A.takes(heard) if heard else (n.f0.features(voice.x),)
        level = level_of(heard) if heard else None
        s_voice = style("a", "i", d.cross[1])
        made = nets.G_A(d.disguised_voices(voice.x), s_voice, *pitch, level=level)
        found["rec_audio"] = terms.self_reconstruction(voice.x, made)
    return found
