"""The full objectives (Sec. 3.2) and Table 1 as the data that drives the training step.

Terms come in by name from :mod:`xfavot.losses.terms`; weights and signs are added only here.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from xfavot.config import RunConfig

Terms = dict[str, Tensor]


class Table1Row(NamedTuple):
    """One row of Table 1: where a style comes from, and what may be trained with it."""

    encoder: str  # "M", "E_I" or "E_A"
    data: str  # what the style is computed from
    xm: bool  # L_xm is used
    heads: tuple[str, ...]  # heads of D_A and groups of C_A that may be trained
    needs_speaker: bool


BOTH = ("gender", "speaker")
TABLE_1 = (
    Table1Row("E_I", "audio-visual face", True, BOTH, True),
    Table1Row("E_A", "audio-visual voice", True, BOTH, True),
    Table1Row("E_I", "image-only face", False, ("gender",), False),
    Table1Row("E_A", "audio-only voice", False, BOTH, True),
    Table1Row("M", "gender code", False, ("gender",), False),
    Table1Row("M", "speaker code", False, ("speaker",), True),
)
"""Table 1. Status: the L_xm column STATED (Sec. 3.3), the heads STATED for image-only, else
INFERRED; layout UNKNOWN. Assumption: A11."""


def may_use_speaker_head(encoder: str, data: str) -> bool:
    """Whether Table 1 lets a style of this origin train the speaker heads.

    Raises:
        KeyError: Table 1 has no such row.
    """
    heads = {(row.encoder, row.data): row.heads for row in TABLE_1}
    return "speaker" in heads[encoder, data]


def ds_weight(weight: float, step: int, decay_steps: int) -> float:
    """Weight of L_ds at a step: constant, or falling linearly to 0 as in StarGAN v2 (A6)."""
    return weight * max(0.0, 1.0 - step / decay_steps) if decay_steps > 0 else weight


def weights(cfg: RunConfig, step: int) -> dict[str, dict[str, float]]:
    """Weight and sign of every term in what the modules minimise (full objectives, Sec. 3.2).

    Status: the two sums STATED in words, their values lost (A4); R1 is CODE (A3), weighed as many
    times more as it is computed more rarely; self-reconstruction is OURS (A20).

    Args:
        cfg: the run's configuration.
        step: number of the step, from 1; L_ds may decay.

    Returns:
        By name of the module that a pass is about, "G_I" (with E_I and M), "G_A" (with E_A and M),
        "D_I", "D_A" (with C_A), and "pairs" for what the encoders learn from audio-visual pairs:
        terms, in the order in which they are added.
    """
    w, every = cfg.loss, cfg.train.r1_every
    rec = 1.0 if step <= cfg.train.warmup else w.rec
    ds_image, ds_audio = (ds_weight(v, step, w.ds_decay_steps) for v in (w.ds_image, w.ds_audio))
    return {
        "G_I": {
            **{"adv": 1.0, "sty": w.sty, "ds": -ds_image, "cyc": w.cyc_image},
            "resemblance": w.resemblance,
        },
        "G_A": {
            **{"adv": 1.0, "sty": w.sty, "ds": -ds_audio, "cyc": w.cyc_audio},
            **{"sc": w.sc, "f0": w.f0, "norm": w.norm, "advcls": w.advcls, "level": w.level},
            "timbre": w.timbre,
        },
        "D_I": {"adv_real": 1.0, "adv_fake": 1.0, "r1": every * w.r1_image},
        "D_A": {"adv_real": 1.0, "adv_fake": 1.0, "cls": w.cls, "r1": every * w.r1_audio},
        "pairs": {
            **{"rec_image": rec, "rec_audio": rec, "xm": w.xm},
            **{"level": w.level, "codes": w.codes, "resemblance": w.resemblance},
            "ltas": w.ltas,
            **{"twins": w.twins, "twins_perceptual": w.twins * w.perceptual},
            "perceptual": rec * w.perceptual,
        },
    }


def total(terms: Terms, weight: Mapping[str, float]) -> Tensor:
    """Weighted sum of the terms that there are, a scalar to minimise.

    A term of weight 0 is left out, so that nothing is computed backwards for it.
    """
    weighed = [w * terms[k] for k, w in weight.items() if k in terms and w != 0]
    return functools.reduce(torch.add, weighed, torch.zeros(()))
