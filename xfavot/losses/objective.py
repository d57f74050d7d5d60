"""The full objectives (Sec. 3.2) and Table 1 as the data that drives the training step.

Terms come in by name from :mod:`xfavot.losses.terms`; weights and signs are added only here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from xfavot.config import LossConfig

Terms = dict[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table1Row:
    """One row of Table 1: where a style comes from, and what may be trained with it."""

    encoder: str  # "M", "E_I" or "E_A"
    data: str  # what the style is computed from
    xm: bool  # L_xm is used
    heads: tuple[str, ...]  # heads of D_A and groups of C_A that may be trained
    needs_speaker: bool


TABLE_1 = (
    Table1Row(
        encoder="E_I",
        data="audio-visual face",
        xm=True,
        heads=("gender", "speaker"),
        needs_speaker=True,
    ),
    Table1Row(
        encoder="E_A",
        data="audio-visual voice",
        xm=True,
        heads=("gender", "speaker"),
        needs_speaker=True,
    ),
    Table1Row(
        encoder="E_I", data="image-only face", xm=False, heads=("gender",), needs_speaker=False
    ),
    Table1Row(
        encoder="E_A",
        data="audio-only voice",
        xm=False,
        heads=("gender", "speaker"),
        needs_speaker=True,
    ),
    Table1Row(encoder="M", data="gender code", xm=False, heads=("gender",), needs_speaker=False),
    Table1Row(encoder="M", data="speaker code", xm=False, heads=("speaker",), needs_speaker=True),
)
"""Table 1. Status: the L_xm column STATED (Sec. 3.3), the heads STATED for image-only, else
INFERRED; layout UNKNOWN. Assumption: A11."""


def may_use_speaker_head(encoder: str, data: str) -> bool:
    """Whether Table 1 lets a style of this origin train the speaker heads.

    Raises:
        KeyError: Table 1 has no such row.
    """
    for row in TABLE_1:
        if row.encoder == encoder and row.data == data:
            return "speaker" in row.heads
    raise KeyError(f"Table 1 has no row for {encoder} on {data}")


@dataclass(frozen=True, slots=True)
class Objective:
    """A total to minimise and the terms that it was made of, by name."""

    total: Tensor
    terms: Terms


def ds_weight(weight: float, step: int, decay_steps: int) -> float:
    """Weight of L_ds at a step: constant, or falling linearly to 0 as in StarGAN v2 (A6)."""
    if decay_steps <= 0:
        return weight
    return weight * max(0.0, 1.0 - step / decay_steps)


def generator_image(t: Terms, w: LossConfig, *, step: int) -> Objective:
    """What G_I, E_I and M minimise in one pass (generators' full objective, image part)."""
    ds = ds_weight(w.ds_image, step, w.ds_decay_steps)
    total = t["adv"] + w.sty * t["sty"] - ds * t["ds"] + w.cyc_image * t["cyc"]
    return Objective(total, t)


def generator_audio(t: Terms, w: LossConfig, *, step: int) -> Objective:
    """What G_A, E_A and M minimise in one pass (generators' full objective, audio part)."""
    ds = ds_weight(w.ds_audio, step, w.ds_decay_steps)
    total = (
        t["adv"]
        + w.sty * t["sty"]
        - ds * t["ds"]
        + w.cyc_audio * t["cyc"]
        + w.sc * t["sc"]
        + w.f0 * t["f0"]
        + w.norm * t["norm"]
        + w.advcls * t["advcls"]
    )
    return Objective(total, t)


def pairs(t: Terms, w: LossConfig, *, rec: float) -> Objective:
    """What the encoders minimise on audio-visual pairs: the weighted L_xm.

    With ``rec`` over 0 the generators learn here too, from self-reconstruction (A20).
    """
    total = sum((rec * t[k] for k in ("rec_image", "rec_audio") if k in t), torch.zeros(()))
    return Objective(total + w.xm * t["xm"] if "xm" in t else total, t)


def discriminator_image(t: Terms, w: LossConfig, *, r1_every: int) -> Objective:
    """What D_I minimises: minus L_adv, and R1 (``adv_fake`` is the mean over the passes).

    R1 computed on every ``r1_every``-th step weighs as many times more there (A3).
    """
    return Objective(t["adv_real"] + t["adv_fake"] + r1_every * w.r1_image * t["r1"], t)


def discriminator_audio(t: Terms, w: LossConfig, *, r1_every: int) -> Objective:
    """What D_A and C_A minimise: minus L_adv, the weighted L_cls, and R1 as for D_I."""
    total = t["adv_real"] + t["adv_fake"] + w.cls * t["cls"] + r1_every * w.r1_audio * t["r1"]
    return Objective(total, t)
