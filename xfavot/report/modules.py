"""Tables 6 to 9, read from what the program runs: never typed in, never out of step."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from xfavot.config import ModelConfig
from xfavot.models.xfavot import F0_FEATURE_FACTOR, ShapeRow, XFaVoT, shape_trace

Row = dict[str, Any]

MODULES = {
    "table6": ("G_I",),
    "table7": ("G_A",),
    "table8": ("E_I", "D_I"),
    "table9": ("E_A", "D_A", "C_A"),
    "mapping_network": ("M",),
}
PAPER_SPEAKERS = 128  # STATED


def module_table(item: str, model: ModelConfig) -> list[Row]:
    """One of Tables 6 to 9, or the mapping network: layers, shapes, parameters.

    Args:
        item: one of :data:`MODULES`.
        model: the paper's sizes; 0 speakers count as the paper's 128.

    Returns:
        One row a layer, and one for each module as a whole.
    """
    nets, rows = without_values(model), []
    for name in MODULES[item]:
        traced = shape_trace(getattr(nets, name), *_inputs(name, model))
        for number, layer in enumerate(traced, 1):
            rows.append(
                {
                    **count_row(name, f"layer {number}", "parameters", layer.parameters),
                    "layer": layer.layer,
                    "resample": layer.resample,
                    "norm": layer.norm,
                    "output": " x ".join(map(str, layer.shape)),
                    "published": _printed(item, number, len(traced), layer),
                }
            )
        total = sum(layer.parameters for layer in traced)
        rows.append(count_row(name, "whole module", "parameters", total))
    return rows


def count_row(system: str, task: str, metric: str, value: int) -> Row:
    """A row about the program itself: one sample, no data, nothing random."""
    about = {"system": system, "task": task, "dataset": "", "metric": metric, "value": value}
    return {**about, "ci_low": None, "ci_high": None, "n": 1, "seed": "none"}


def without_values(model: ModelConfig) -> XFaVoT:
    """The modules with shapes but no values."""
    speakers = model.speakers or PAPER_SPEAKERS
    with torch.device("meta"):
        return XFaVoT(dataclasses.replace(model, speakers=speakers))


def _inputs(name: str, m: ModelConfig) -> tuple[Tensor, ...]:
    """What a module takes, one sample, without values."""
    with torch.device("meta"):
        face = torch.empty(1, 3, m.image_size, m.image_size)
        voice, s = torch.empty(1, 1, m.mel_bins, m.mel_frames), torch.empty(1, m.style_dim)
        melody = torch.empty(1, F0_FEATURE_FACTOR * m.f0_width, m.mel_bins // 8, m.mel_frames)
        domain = torch.zeros(1, dtype=torch.int64)
        inputs: dict[str, tuple[Tensor, ...]] = {
            "G_I": (face, s),
            "G_A": (voice, s, melody),
            "C_A": (voice,),
            "M": (torch.empty(1, m.latent_dim), domain),
        }
    return inputs.get(name) or (face if name.endswith("_I") else voice, domain)


def _printed(item: str, number: int, count: int, layer: ShapeRow) -> str:
    """What is known of a layer in the printed tables (ASSUMPTIONS A17, A18, A21); "" if nothing."""
    if item == "mapping_network":
        return "the same"  # STATED in App. G, in words
    if number == 1:
        return "Conv 1x1 (A21)"
    if item in ("table6", "table7"):
        if number > count - 2 or (item, number) == ("table7", 8):
            return ""  # the output head is lost; the block on the F0 features is the ancestor's
        return "not printed (A17)" if (item, number) == ("table7", 12) else "the same"
    return "with IN (A18)" if layer.layer == "ResBlk" and layer.norm == "-" else "the same"
