"""Table 1 and Tables 6 to 9, read from what the program runs: never typed in, never out of step."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from xfavot.config import ModelConfig
from xfavot.errors import DataError
from xfavot.losses.objective import TABLE_1
from xfavot.models.blocks import AdaINResBlk, ResBlk
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
TABLE_1_COLUMNS = {
    "system": "Style vector of",
    "task": "Data",
    "L_xm": "$L_{xm}$",
    "heads": "Heads of $D_A$ and $C_A$",
    "speaker_label": "Speaker label",
    "status": "Status",
}
LAYER_COLUMNS = {
    "system": "Module",
    "layer": "Layer",
    "resample": "Resample",
    "norm": "Norm.",
    "output": "Output shape",
    "value": "Parameters",
    "published": "Printed table",
}


def table_1() -> list[Row]:
    """Table 1, one row a source of styles; A11 in `ASSUMPTIONS.md` says what is certain of it."""
    return [
        {
            **_number(row.encoder, row.data, "head families", len(row.heads)),
            "L_xm": "yes" if row.xm else "no",
            "heads": ", ".join(row.heads),
            "speaker_label": "yes" if row.needs_speaker else "no",
            "status": "STATED" if row.data == "image-only face" else "L_xm STATED, heads INFERRED",
        }
        for row in TABLE_1
    ]


def module_table(item: str, model: ModelConfig) -> list[Row]:
    """One of Tables 6 to 9, or the mapping network: layers, shapes, parameters.

    Args:
        item: one of :data:`MODULES`.
        model: the sizes; 0 speakers count as the paper's 128.

    Returns:
        One row a layer, and one for each module as a whole.

    Raises:
        DataError: no such table.
    """
    if item not in MODULES:
        raise DataError(f"table {item!r} has no modules; expected one of: {', '.join(MODULES)}")
    nets = _without_values(model)
    rows: list[Row] = []
    for name in MODULES[item]:
        traced, counts = _trace(getattr(nets, name), _inputs(name, model))
        lines = zip(traced, counts, _printed(item, traced), strict=True)
        for place, (layer, count, printed) in enumerate(lines, 1):
            rows.append(
                {
                    **_number(name, f"layer {place}", "parameters", count),
                    "layer": layer.layer,
                    "resample": layer.resample,
                    "norm": layer.norm,
                    "output": " x ".join(map(str, layer.shape)),
                    "published": printed,
                }
            )
        rows.append(_number(name, "whole module", "parameters", sum(counts)))
    return rows


def totals(model: ModelConfig) -> list[Row]:
    """Parameters of the eight trained modules and of all together."""
    table = _without_values(model).parameter_table()
    return [_number(name, "", "parameters", count) for name, count in table]


def _number(system: str, task: str, metric: str, value: int) -> Row:
    """A row about the program itself: one sample, no data, nothing random."""
    about = {"system": system, "task": task, "dataset": "", "metric": metric, "value": value}
    return {**about, "ci_low": None, "ci_high": None, "n": 1, "seed": "none"}


@functools.cache
def _without_values(model: ModelConfig) -> XFaVoT:
    """The modules with shapes but no values."""
    with torch.device("meta"):
        return XFaVoT.from_config(
            dataclasses.replace(model, speakers=model.speakers or PAPER_SPEAKERS)
        )


def _inputs(name: str, m: ModelConfig) -> tuple[Tensor, ...]:
    """What a module takes, one sample, without values."""
    with torch.device("meta"):
        face = torch.empty(1, 3, m.image_size, m.image_size)
        voice, s = torch.empty(1, 1, m.mel_bins, m.mel_frames), torch.empty(1, m.style_dim)
        domain = torch.zeros(1, dtype=torch.int64)
        melody = torch.empty(1, F0_FEATURE_FACTOR * m.f0_width, m.mel_bins // 8, m.mel_frames)
        inputs: dict[str, tuple[Tensor, ...]] = {
            "G_I": (face, s),
            "G_A": (voice, s, melody),
            "C_A": (voice,),
            "M": (torch.empty(1, m.latent_dim), domain),
        }
    return inputs.get(name) or (face if name.endswith("_I") else voice, domain)


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    """Every residual block whole, every other layer by itself."""
    block = isinstance(module, ResBlk | AdaINResBlk)
    if block or not list(module.children()):
        yield module
    else:
        for child in module.children():
            yield from _layers(child)


def _trace(net: nn.Module, inputs: Sequence[Tensor]) -> tuple[list[ShapeRow], list[int]]:
    """The layers in the order in which they ran, and the parameters of each."""
    counts: list[int] = []

    def note(layer: nn.Module, *_: object) -> None:
        counts.append(sum(p.numel() for p in layer.parameters()))

    hooks = [layer.register_forward_hook(note) for layer in _layers(net)]
    traced = shape_trace(net, *inputs)
    for hook in hooks:
        hook.remove()
    for place, row in enumerate(traced):
        if row.layer == "Concat F0":  # joins what is there; its convolutions have their own rows
            counts.insert(place, 0)
    return traced, counts


def _printed(item: str, traced: Sequence[ShapeRow]) -> list[str]:
    """What is known of the printed tables, layer by layer (ASSUMPTIONS A17, A18, A21)."""
    said = ["the same"] * len(traced)
    if item == "mapping_network":
        return said  # STATED in App. G, in words
    said[0] = "Conv 1x1 (A21)"
    if item in ("table6", "table7"):
        said[-2:] = ["", ""]  # the output head does not survive
    else:
        for place, row in enumerate(traced):
            if row.layer == "ResBlk" and row.norm == "-":
                said[place] = "with IN (A18)"
    if item == "table7":
        joined = [row.layer for row in traced].index("Concat F0")
        said[joined - 1] = ""  # the block on the F0 features is the ancestor's
        between = [
            place
            for place, row in enumerate(traced)
            if place > joined and row.norm == "AdaIN" and row.resample == "-"
        ]
        for place in between[2:]:
            said[place] = "not printed (A17)"
    return said
