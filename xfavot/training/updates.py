"""The update rule: which modules an optimiser step moves, and in which order.

Lineage: StarGAN v2 and StarGANv2-VC (A12, A13). Adam for G_I, E_I, D_I and M, AdamW for the audio
modules (STATED, appendix A).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import Adam, AdamW, Optimizer

from xfavot.config import RunConfig, TrainConfig
from xfavot.data.batches import Batch
from xfavot.losses import objective
from xfavot.losses.objective import Terms
from xfavot.models.xfavot import XFaVoT
from xfavot.training import step as steps
from xfavot.training import targets
from xfavot.training.step import Networks, Voices
from xfavot.training.targets import Draw, Target

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
        d = targets.draw(self.cfg, step, size, self.guidances)
        self._schedule(step)
        if step <= self.cfg.train.warmup:
            terms = self._warmup(batch, d)
        elif self.cfg.train.update_rule == "fused":
            terms = self._fused(batch, d, step)
        else:
            terms = self._alternate(batch, d, step)
        self.ema.update(self.n.nets, step)
        return steps.named(terms)

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
            terms = steps.pair_terms(self.n, batch, d, self.cfg, rec=True)
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
                t = targets.make_target(self.n.nets, batch, guidance, d)
                fakes = self._fakes(batch, t, voices)
            for output, ts in self._discriminate(batch, fakes, d, step).items():
                logged[f"d/{guidance}2{output}"] = ts
            self._apply(steps.DISCRIMINATOR_SIDE)
        for n, guidance in enumerate(d.guidances):
            made = self._generate(batch, d, guidance, voices, step, with_xm=n == 0)
            logged |= made[0]
            self._apply(steps.GENERATOR_SIDE)
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
        self._apply(steps.GENERATOR_SIDE)
        for output, ts in self._discriminate(batch, fakes, d, step).items():
            logged[f"d/{''.join(d.guidances)}2{output}"] = ts
        self._apply(steps.DISCRIMINATOR_SIDE)
        return logged

    def _voices(self, batch: Batch) -> Voices | None:
        if "a" not in self.outputs or batch.source_audio is None:
            return None
        return steps.analyse_voices(self.n, batch.source_audio)

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
            by_output = steps.discriminator_terms(self.n, batch, fakes, d.speaker_family, due)
            totals = [
                (objective.discriminator_image if o == "i" else objective.discriminator_audio)(
                    ts, w, r1_every=self.cfg.train.r1_every
                ).total
                for o, ts in by_output.items()
            ]
        torch.stack(totals).sum().backward()  # type: ignore[no-untyped-call]
        return by_output

    def _generate(
        self, batch: Batch, d: Draw, guidance: str, voices: Voices | None, step: int, *,
        with_xm: bool,
    ) -> tuple[dict[str, Terms], dict[str, tuple[Target, Tensor]]]:  # fmt: skip
        """One pass of the generators' side; gradients are left in the parameters."""
        nets, w = self.n.nets, self.cfg.loss
        logged: dict[str, Terms] = {}
        made: dict[str, tuple[Target, Tensor]] = {}
        both = batch.ref_image is not None and batch.ref_audio is not None
        if with_xm and (w.rec > 0 or (w.xm > 0 and both)):
            with self._autocast():
                logged["g"] = steps.pair_terms(self.n, batch, d, self.cfg, rec=w.rec > 0)
                total = objective.pairs(logged["g"], w, rec=w.rec).total
            total.backward()  # type: ignore[no-untyped-call]
        held = [nets.D_I, nets.D_A, nets.C_A]
        held += [nets.E_I, nets.E_A, nets.M] if guidance != "z" else []
        t: Target | None = None
        with steps.frozen(*held):
            for output in self.outputs:
                with self._autocast():
                    if t is None or guidance == "z":  # M's graph is spent with each backward
                        t = targets.make_target(nets, batch, guidance, d)
                    if output == "i" and batch.source_image is not None:
                        terms, fake = steps.generator_image_terms(self.n, batch, t)
                        total = objective.generator_image(terms, w, step=step).total
                    elif output == "a" and voices is not None:
                        terms, fake = steps.generator_audio_terms(
                            self.n, batch, t, voices, d.speaker_family
                        )
                        total = objective.generator_audio(terms, w, step=step).total
                    else:
                        continue
                total.backward()  # type: ignore[no-untyped-call]
                logged[f"g/{guidance}2{output}"] = terms
                made[output] = (t, fake.detach())
        return logged, made
