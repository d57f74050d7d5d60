"""One training step: from a batch to the updates that its passes make.

Paper Sec. 3.2 and 3.3; the order of updates follows StarGAN v2 (A12). What a pass aims at and the
terms of its objective are those of :mod:`xfavot.training.passes`.
"""

from __future__ import annotations

import copy
import ctypes
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from types import MappingProxyType
from typing import cast

import torch
from torch import Tensor, nn
from torch.optim import Adam, AdamW, Optimizer

from xfavot.config import GENERATOR_SIDE, RunConfig
from xfavot.data.batches import Batch
from xfavot.losses import objective, terms
from xfavot.losses.objective import Terms
from xfavot.models.blocks import recompute
from xfavot.models.content import ContentNetwork
from xfavot.models.f0 import F0Network, level_of
from xfavot.models.face_encoder import FaceEncoder
from xfavot.training import passes
from xfavot.training.draws import Draw, draw
from xfavot.training.muon import Muon
from xfavot.training.passes import Fakes, Known, Networks, References, Target, Voices

DISCRIMINATOR_SIDE = ("D_I", "D_A", "C_A")
WARMED = ("G_I", "G_A", "E_I", "E_A")
ADAM = ("G_I", "E_I", "D_I", "M")  # the others AdamW, STATED (appendix A)
WARMUP_BETA1 = 0.9  # A20
LARGE = 50_000_000  # parameters; a step of so many on a CPU takes tens of seconds
GIVES_BACK_EVERY = 16  # steps; see _give_back
CODE_SLACK = 0.2  # octaves; a code of a domain stands for any voice of it (A79)


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
        for name, module in nets.named_children():
            if name in cfg.train.frozen:
                module.requires_grad_(False)
        outputs = "".join(o for o in outputs if f"G_{o.upper()}" not in cfg.train.frozen)
        networks = networks._replace(timbre=cfg.loss.timbre > 0)
        if cfg.loss.perceptual + cfg.loss.resemblance > 0 and "i" in outputs:
            networks = networks._replace(face=FaceEncoder().to(self.device))
        self.n, self.cfg, self.guidances, self.outputs = networks, cfg, guidances, outputs
        self.optimizers: dict[str, Optimizer] = {
            name: (Adam if name in ADAM else AdamW)(
                module.parameters(), weight_decay=cfg.train.weight_decay, fused=True
            )
            for name, module in nets.named_children()
            if name not in cfg.train.frozen
        }
        named = dict(nets.named_children())
        warmed = [k for k in WARMED if k in self.optimizers] if cfg.train.warmup_muon else []
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
            seen = passes.see_references(self.n, batch)
        told = References(passes.hear_references(self.n, batch) if d.voices else None, seen)
        if step <= self.cfg.train.warmup or not self.outputs:  # A20, A94
            logged = self._pairs(batch, d, told)
            self._move(*WARMED, "M")
        else:
            with self._autocast():
                voices = passes.analyse_voices(self.n, batch) if "a" in self._due(d) else None
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
            kept = {
                o: passes.content(nets, passes.sources(batch, o).x, f0[o]) for o in self._due(d)
            }
        for guidance in d.guidances:
            with torch.no_grad(), self._autocast():
                t = passes.make_target(nets, batch, guidance, d)
                made = {o: [(t, passes.styled(nets, kept[o], t.s1, f0[o]))] for o in kept}
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
                of_fakes = taught.get(o) or passes.fake_terms(self.n, batch, o, fakes, d.by_speaker)
                ts = of_fakes | passes.real_terms(self.n, batch, o, d.by_speaker, r1_due=due)
                totals.append(objective.total(ts, weights[f"D_{o.upper()}"]))
                logged[f"d/{''.join(t.guidance for t, _ in fakes)}2{o}"] = ts
        torch.stack(totals).sum().backward()  # type: ignore[no-untyped-call]
        for t, _ in made.get("a", ()):
            source, _, rows = passes.class_rows(batch, t, d.by_speaker)
            heads = source + d.by_speaker * self.n.nets.genders
            self._count("C_A", torch.where(rows, heads, -1))
        self._move(*DISCRIMINATOR_SIDE)
        return logged

    def _pairs(self, batch: Batch, d: Draw, told: References) -> dict[str, Terms]:
        """Gradients of the encoders from L_xm, and of the generators from A20 where asked for."""
        w, warmup = self.cfg.loss, d.step <= self.cfg.train.warmup
        both = batch.ref_image is not None and batch.ref_audio is not None
        rec = warmup or w.rec > 0
        more = batch.twin_ref
        if not (rec or (w.xm > 0 and both) or told.heard or w.codes > 0 or more):
            return {}
        with self._autocast():
            convert = warmup and w.resemblance > 0
            ts = passes.pair_terms(self.n, batch, d, w, *told, rec=rec, convert=convert)
            total = objective.total(ts, objective.weights(self.cfg, d.step)["pairs"])
        if total.requires_grad:
            total.backward()  # type: ignore[no-untyped-call]
        for name, x in (("_I", batch.ref_image), ("_A", batch.ref_audio)):
            if x is not None:
                self._count(
                    "E" + name, x.gender if rec else torch.where(batch.paired, x.gender, -1)
                )
                own = rec and (name == "_I" or d.voices)
                self._count("G" + name, torch.full_like(x.gender, 0 if own else -1))
        if more:
            self._count("E_I", more.gender)
            self._count("G_I", torch.zeros_like(more.gender))
        if batch.pair_image:
            for name in ("E_I", "E_A"):
                self._count(name, batch.pair_image.gender)
        for domain in passes.code_domains(batch, d, self.n.nets.genders).values():
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
                known = passes.know(self.n, batch, output, voices, train_style="z" in guidances)
            cut = Known(*(one.detach().requires_grad_() for one in known))
            for guidance in guidances:
                latent = guidance == "z"
                held = teachers if latent else (*teachers, "E_I", "E_A", "M")
                with frozen(*(m for name, m in nets.named_children() if name in held)):
                    with self._autocast():
                        if latent or guidance not in targets:  # M's graph is spent each time
                            targets[guidance] = passes.make_target(nets, batch, guidance, d)
                        t = targets[guidance]
                        own = cut if latent else Known(cut.content, cut.style.detach())
                        share = weights[f"D_{output.upper()}"]["adv_fake"] / len(guidances)
                        ts, fake = passes.generator_terms(
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
                gender = passes.sources(batch, output).gender
                self._count(f"G_{output.upper()}", torch.zeros_like(gender))
                if latent:
                    self._count(f"E_{output.upper()}", gender)
            pairs = zip(known, cut, strict=True)  # what no weighed term needs has no gradient
            asked = [(of, to.grad) for of, to in pairs if of.requires_grad and to.grad is not None]
            torch.autograd.backward([of for of, _ in asked], [grad for _, grad in asked])
        if "z" in guidances:
            self._count("M", passes.audio_domain(targets["z"], d.by_speaker, nets.genders))
        return logged, made

    def _count(self, module: str, heads: Tensor) -> None:
        """Count samples (B,) towards the heads that they train; heads below 0 are none."""
        if self.trained is not None and module not in self.cfg.train.frozen:
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
    held = [p for module in modules for p in module.parameters() if p.requires_grad]
    for p in held:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in held:
            p.requires_grad_(True)
