"""Table 1 and Tables 6 to 9, read from what the program runs: never typed in, never out of step.

Table 1 comes from the data structure that drives training, Tables 6 to 9 from one pass through each
module with shapes but no values. What the surviving text lets one know of the printed tables stands
in a column of its own; parameters are counted here, the paper prints none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from xfavot.config import ModelConfig
from xfavot.errors import DataError
from xfavot.losses.objective import TABLE_1, Table1Row
from xfavot.models.blocks import AdaINResBlk, ResBlk
from xfavot.models.xfavot import F0_FEATURE_FACTOR, ShapeRow, XFaVoT, shape_trace
from xfavot.report.evaluation_rows import Row

MODULES = {
    "table6": ("G_I",),
    "table7": ("G_A",),
    "table8": ("E_I", "D_I"),
    "table9": ("E_A", "D_A", "C_A"),
    "mapping_network": ("M",),
}
PAPER_SPEAKERS = 128  # STATED
SAME, UNKNOWN = "the same", ""
STEM = "Conv 1x1 (A21)"
WITH_NORM = "with IN (A18)"
NOT_PRINTED = "not printed (A17)"
CAPTIONS = {
    "table1": "Table 1: where a style comes from, and what may be trained with it. The value is "
    "the number of head families of D_A and C_A.",
    "table6": "Table 6: the image generator.",
    "table7": "Table 7: the audio generator; the F0 features join before the AdaIN blocks.",
    "table8": "Table 8: the image style encoder and discriminator.",
    "table9": "Table 9: the audio style encoder, discriminator and classifier.",
    "mapping_network": "The mapping network (App. G); parameters are those of all domains.",
    "modules": "All trained modules; parameters are counted, the paper prints none.",
}


def table_1() -> list[Row]:
    """Table 1, one row a source of styles; status as in `losses/objective.py` (A11)."""
    return [
        {
            **_number(row.encoder, row.data, "head families", len(row.heads)),
            "L_xm": _yes(row.xm), "heads": ", ".join(row.heads),
            "speaker_label": _yes(row.needs_speaker), "status": _status(row),
        }
        for row in TABLE_1
    ]  # fmt: skip


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
    nets = _empty_modules(model)
    rows: list[Row] = []
    for name in MODULES[item]:
        net: nn.Module = getattr(nets, name)
        traced, counts = _trace(net, _inputs(name, model))
        printed = _printed(item, traced)
        for place, (layer, count) in enumerate(zip(traced, counts, strict=True), 1):
            rows.append({
                **_number(name, f"layer {place}", "parameters", count), "layer": layer.layer,
                "resample": layer.resample, "norm": layer.norm,
                "output": " x ".join(str(size) for size in layer.shape),
                "published": printed[place - 1],
            })  # fmt: skip
        rows.append(_number(name, "whole module", "parameters", sum(counts)))
    return rows


def modules(model: ModelConfig) -> list[Row]:
    """Parameters of the eight trained modules and of all together."""
    table = _empty_modules(model).parameter_table()
    return [_number(name, "", "parameters", count) for name, count in table]


def _number(system: str, task: str, metric: str, value: int) -> Row:
    """A row about the program itself: one sample, no data, nothing random."""
    return {"system": system, "task": task, "dataset": "", "metric": metric, "value": value,
            "ci_low": None, "ci_high": None, "n": 1, "seed": "none"}  # fmt: skip


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _status(row: Table1Row) -> str:
    """What is certain of a row: see the docstring of `TABLE_1`."""
    return "STATED" if row.data == "image-only face" else "L_xm STATED, heads INFERRED"


def _empty_modules(model: ModelConfig) -> XFaVoT:
    """The modules with shapes but no values."""
    known = dataclasses.replace(model, speakers=model.speakers or PAPER_SPEAKERS)
    with torch.device("meta"):
        return XFaVoT.from_config(known)


def _inputs(name: str, m: ModelConfig) -> tuple[Tensor, ...]:
    """What a module takes, one sample, without values."""
    with torch.device("meta"):
        face = torch.empty(1, 3, m.image_size, m.image_size)
        voice, s = torch.empty(1, 1, m.mel_bins, m.mel_frames), torch.empty(1, m.style_dim)
        domain = torch.zeros(1, dtype=torch.int64)
        melody = torch.empty(1, F0_FEATURE_FACTOR * m.f0_width, m.mel_bins // 8, m.mel_frames)
        known: dict[str, tuple[Tensor, ...]] = {
            "G_I": (face, s), "G_A": (voice, s, melody), "E_I": (face, domain),
            "D_I": (face, domain), "E_A": (voice, domain), "D_A": (voice, domain),
            "C_A": (voice,), "M": (torch.empty(1, m.latent_dim), domain),
        }  # fmt: skip
    return known[name]


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    """Every residual block whole, every other layer by itself."""
    children = list(module.children())
    if isinstance(module, ResBlk | AdaINResBlk) or not children:
        yield module
    for child in children if not isinstance(module, ResBlk | AdaINResBlk) else []:
        yield from _layers(child)


def _trace(net: nn.Module, inputs: Sequence[Tensor]) -> tuple[list[ShapeRow], list[int]]:
    """The layers in the order in which they ran, and the parameters of each."""
    counts: list[int] = []

    def note(layer: nn.Module, *_: object) -> None:
        counts.append(sum(p.numel() for p in layer.parameters()))

    hooks = [layer.register_forward_hook(note) for layer in _layers(net)]
    try:
        traced = shape_trace(net, *inputs)
    finally:
        for hook in hooks:
            hook.remove()
    joins = [place for place, row in enumerate(traced) if row.layer == "Concat F0"]
    for place in joins:  # joins what is there; its convolutions have rows of their own
        counts.insert(place, 0)
    return traced, counts


def _printed(item: str, traced: Sequence[ShapeRow]) -> list[str]:
    """What is known of the printed tables, layer by layer (ASSUMPTIONS A17, A18, A21)."""
    said = [SAME] * len(traced)
    if item == "mapping_network":
        return said  # STATED in App. G, in words
    said[0] = STEM
    if item in ("table6", "table7"):
        said[-2:] = [UNKNOWN, UNKNOWN]  # the output head does not survive
    if item in ("table8", "table9"):
        said = [WITH_NORM if row.layer == "ResBlk" and row.norm == "-" else was
                for row, was in zip(traced, said, strict=True)]  # fmt: skip
    if item == "table7":
        joined = [row.layer for row in traced].index("Concat F0")
        said[joined - 1] = UNKNOWN  # the block on the F0 features is the ancestor's
        between = [place for place, row in enumerate(traced)
                   if place > joined and row.norm == "AdaIN" and row.resample == "-"]  # fmt: skip
        for place in between[2:]:
            said[place] = NOT_PRINTED
    return said
